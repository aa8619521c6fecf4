//! Whole objects for this machine: segments in order, the next ones already under way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use haulout_mesh::{SiteEnd, SitePiece};

use super::drive::For;
use super::segment::{Reader, SegmentReader};
use super::{Inner, Site, SiteObject};

/// Bytes of one object that are under way at the same time: several segments, of which each has another home.
const AHEAD_BYTES: u64 = 12 << 20;
/// How often a segment whose driver went away is taken up again.
const REVIVALS_MAX: u32 = 3;

/// Why an object is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SiteError {
    /// The outside does not have it.
    #[error("it is not there")]
    Absent,
    /// Nobody could bring it.
    #[error("neither a peer nor the outside could bring it")]
    Failed,
}

struct Reading {
    inner: Arc<Inner>,
    object: SiteObject,
    /// Where in the object the next byte is.
    at: u64,
    /// Readers of the segment that holds `at` and of those after it.
    ahead: VecDeque<SegmentReader>,
    next_index: u32,
    revivals: u32,
    who: Reader,
    whom: For,
}

impl Site {
    /// The bytes of an object from `from` on. Unverified.
    pub fn stream(
        &self,
        object: SiteObject,
        from: u64,
    ) -> impl Stream<Item = Result<Bytes, SiteError>> + Send + 'static {
        self.stream_for(object, from, Reader::Nix, For::Ourselves)
    }

    /// The same as far as it is here or homes still keep it: ends with an error at the first segment that nobody gives.
    pub(super) fn stream_kept(
        &self,
        object: SiteObject,
    ) -> impl Stream<Item = Result<Bytes, SiteError>> + Send + 'static {
        self.stream_for(object, 0, Reader::Nix, For::IfKept)
    }

    /// The same, before anybody asks: what came stays for whoever does.
    pub(super) fn stream_ahead(
        &self,
        object: SiteObject,
    ) -> impl Stream<Item = Result<Bytes, SiteError>> + Send + 'static {
        self.stream_for(object, 0, Reader::Ahead, For::Ourselves)
    }

    fn stream_for(
        &self,
        object: SiteObject,
        from: u64,
        who: Reader,
        whom: For,
    ) -> impl Stream<Item = Result<Bytes, SiteError>> + Send + 'static {
        let next_index = object.size.map_or(0, |cut| cut.segment_of(from));
        let reading = Reading {
            inner: Arc::clone(&self.inner),
            object,
            at: from,
            ahead: VecDeque::new(),
            next_index,
            revivals: 0,
            who,
            whom,
        };
        stream::unfold(Some(reading), |reading| async {
            let mut reading = reading?;
            match reading.next().await {
                Ok(None) => None,
                Ok(Some(bytes)) => Some((Ok(bytes), Some(reading))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// A whole document. Unverified.
    ///
    /// # Errors
    /// [`SiteError`].
    pub async fn document(&self, object: SiteObject) -> Result<Bytes, SiteError> {
        match self.document_for(&object, For::Ourselves).await {
            // Whoever was at it already may have had less patience, or only asked who has it.
            (Err(SiteError::Failed), false) => self.document_for(&object, For::Ourselves).await.0,
            (result, _) => result,
        }
    }

    /// The same, if it is here or a home keeps it.
    pub(super) async fn document_kept(&self, object: &SiteObject) -> Result<Bytes, SiteError> {
        self.document_for(object, For::IfKept).await.0
    }

    /// And whether it was filled for this question.
    async fn document_for(
        &self,
        object: &SiteObject,
        whom: For,
    ) -> (Result<Bytes, SiteError>, bool) {
        let segment = self.inner.segment(object, 0);
        let mut reader = segment.read(0, Reader::Nix);
        let ours = self.inner.fill(&segment, whom);
        let result = read_whole(&mut reader).await;
        (result, ours)
    }
}

async fn read_whole(reader: &mut SegmentReader) -> Result<Bytes, SiteError> {
    let mut whole = BytesMut::new();
    loop {
        match reader.next().await {
            SitePiece::Bytes(bytes) => whole.extend_from_slice(&bytes),
            SitePiece::End(SiteEnd::Complete) => return Ok(whole.freeze()),
            SitePiece::End(SiteEnd::Absent) => return Err(SiteError::Absent),
            SitePiece::End(_) => return Err(SiteError::Failed),
        }
    }
}

/// Nix waits, as long as this is there.
struct Waits<'a>(&'a Inner);

impl<'a> Waits<'a> {
    fn new(inner: &'a Inner) -> Self {
        inner.nix_waits.fetch_add(1, Ordering::Relaxed);
        Self(inner)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.nix_waits.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Reading {
    fn look_ahead(&mut self) {
        let Some(cut) = self.object.size else { return };
        let most = usize::try_from(AHEAD_BYTES / cut.segment_bytes()).unwrap_or(1).max(1);
        while self.ahead.len() < most && self.next_index < cut.count() {
            // With memory short, one segment at a time.
            if !self.ahead.is_empty() && !self.inner.fits_ahead() {
                return;
            }
            let range = cut.range(self.next_index);
            let segment = self.inner.segment(&self.object, self.next_index);
            let reader = segment.read(self.at.saturating_sub(range.start), self.who);
            self.inner.fill(&segment, self.whom);
            self.ahead.push_back(reader);
            self.next_index += 1;
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, SiteError> {
        let Some(cut) = self.object.size else { return Err(SiteError::Failed) };
        loop {
            if self.at >= cut.size() {
                return Ok(None);
            }
            self.look_ahead();
            let Some(reader) = self.ahead.front_mut() else { return Err(SiteError::Failed) };
            let next = {
                let _waits = (self.who == Reader::Nix).then(|| Waits::new(&self.inner));
                reader.next().await
            };
            match next {
                SitePiece::Bytes(bytes) => {
                    self.at += bytes.len() as u64;
                    self.revivals = 0;
                    return Ok(Some(bytes));
                }
                SitePiece::End(SiteEnd::Complete) => {
                    self.ahead.pop_front();
                }
                SitePiece::End(SiteEnd::Absent) => return Err(SiteError::Absent),
                SitePiece::End(_) if self.whom == For::IfKept => return Err(SiteError::Failed),
                SitePiece::End(_) if self.revivals < REVIVALS_MAX => {
                    // Perhaps it was filled for a peer that has gone: once more, for ourselves.
                    self.revivals += 1;
                    self.ahead.clear();
                    self.next_index = cut.segment_of(self.at);
                }
                SitePiece::End(_) => return Err(SiteError::Failed),
            }
        }
    }
}
