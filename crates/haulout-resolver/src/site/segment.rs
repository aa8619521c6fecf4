//! One segment: what is here of it, who reads it, who gave it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use haulout_mesh::{SiteEnd, SitePiece};
use haulout_swarm::PeerId;
use haulout_swarm::site::{Origin, SegmentKey};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{CameFrom, SiteObject, lock};

/// What is here of a segment: its beginning.
struct State {
    chunks: Vec<Bytes>,
    have: u64,
    end: Option<SiteEnd>,
    /// Who gave bytes.
    suppliers: Vec<Origin>,
    /// This machine had it all.
    kept: bool,
    /// [`Segment::attribute`] was asked before.
    attributed: bool,
    /// Peers that have begun to rely on us since the driver looked.
    relying: Vec<PeerId>,
    readers: usize,
    driven: bool,
    touched: Instant,
}

/// A segment, filled by at most one driver, read by anybody.
pub(crate) struct Segment {
    pub(crate) object: SiteObject,
    pub(crate) index: u32,
    state: Mutex<State>,
    /// Bytes came, or it ended.
    news: Notify,
    /// A reader came or left, a peer relies on us.
    moved: Notify,
}

/// What a driver finds when it looks.
pub(super) struct Demand {
    pub(super) readers: usize,
    pub(super) relying: Vec<PeerId>,
}

impl Segment {
    pub(super) fn new(object: SiteObject, index: u32) -> Self {
        let state = State {
            chunks: Vec::new(),
            have: 0,
            end: None,
            suppliers: Vec::new(),
            kept: false,
            attributed: false,
            relying: Vec::new(),
            readers: 0,
            driven: false,
            touched: Instant::now(),
        };
        Self { object, index, state: Mutex::new(state), news: Notify::new(), moved: Notify::new() }
    }

    pub(super) fn key(&self) -> SegmentKey {
        self.object.key.segment(self.index)
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> u64 {
        lock(&self.state).have
    }

    /// Bytes held, or, while it is filled, that will be.
    pub(super) fn bytes_coming(&self) -> u64 {
        let state = lock(&self.state);
        let coming = if state.driven { self.object.segment_len(self.index) } else { None };
        coming.unwrap_or(0).max(state.have)
    }

    /// Since when nobody has used it; `None` while somebody does.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = lock(&self.state);
        (state.readers == 0 && !state.driven).then_some(state.touched)
    }

    /// Whether it is complete, or being filled.
    pub(super) fn is_alive(&self) -> bool {
        let state = lock(&self.state);
        state.driven || state.end.is_some()
    }

    /// Takes the duty to fill it, if nobody has it and it is not over; gives the bytes that are there.
    pub(super) fn take_over(&self) -> Option<u64> {
        let mut state = lock(&self.state);
        if state.driven || state.end.is_some() {
            return None;
        }
        state.driven = true;
        Some(state.have)
    }

    /// Adds bytes at the end of what is there; what is there already is skipped.
    pub(super) fn put(&self, at: u64, mut bytes: Bytes, from: Origin) -> u64 {
        let mut state = lock(&self.state);
        let skip = usize::try_from(state.have.saturating_sub(at)).unwrap_or(usize::MAX);
        if at <= state.have && skip < bytes.len() {
            let fresh = bytes.split_off(skip);
            state.have += fresh.len() as u64;
            state.chunks.push(fresh);
            if !state.suppliers.contains(&from) {
                state.suppliers.push(from);
            }
        }
        let have = state.have;
        drop(state);
        self.news.notify_waiters();
        have
    }

    /// Takes all of it from what this machine keeps.
    pub(super) fn put_kept(&self, whole: Bytes) {
        let mut state = lock(&self.state);
        state.have = whole.len() as u64;
        state.chunks = vec![whole];
        state.suppliers.clear();
        state.kept = true;
        drop(state);
        self.news.notify_waiters();
    }

    /// Where its bytes came from.
    pub(super) fn came_from(&self) -> CameFrom {
        let state = lock(&self.state);
        match state.suppliers.iter().any(|from| matches!(from, Origin::Peer(_))) {
            true => CameFrom::Peers,
            false if state.kept => CameFrom::Here,
            false => CameFrom::Outside,
        }
    }

    /// For counters: where its bytes came from the first time, from here whenever it is read again.
    pub(super) fn attribute(&self) -> CameFrom {
        let from = self.came_from();
        let again = std::mem::replace(&mut lock(&self.state).attributed, true);
        if again { CameFrom::Here } else { from }
    }

    /// Begins anew: a document from another source.
    pub(super) fn clear(&self) {
        let mut state = lock(&self.state);
        state.chunks.clear();
        state.suppliers.clear();
        state.have = 0;
    }

    /// The driver is done: for good with an end, or because nobody wants it now.
    pub(super) fn released(&self, end: Option<SiteEnd>) {
        let mut state = lock(&self.state);
        state.driven = false;
        state.end = end;
        state.touched = Instant::now();
        drop(state);
        self.news.notify_waiters();
    }

    /// A peer relies on us for it.
    pub(super) fn relied_on_by(&self, peer: PeerId) {
        let mut state = lock(&self.state);
        if state.driven {
            state.relying.push(peer);
        }
        drop(state);
        self.moved.notify_waiters();
    }

    pub(super) fn demand(&self) -> Demand {
        let mut state = lock(&self.state);
        Demand { readers: state.readers, relying: std::mem::take(&mut state.relying) }
    }

    /// Waits for a change of the demand after `notified` was made.
    pub(super) fn moved(&self) -> tokio::sync::futures::Notified<'_> {
        self.moved.notified()
    }

    /// The one peer that all of it came from.
    pub(super) fn only_supplier(&self) -> Option<PeerId> {
        match lock(&self.state).suppliers.as_slice() {
            [Origin::Peer(peer)] => Some(*peer),
            _ => None,
        }
    }

    /// The peers that gave bytes of it.
    pub(super) fn peers(&self) -> Vec<PeerId> {
        let peer = |origin: &Origin| match origin {
            Origin::Peer(peer) => Some(*peer),
            Origin::Outside => None,
        };
        lock(&self.state).suppliers.iter().filter_map(peer).collect()
    }

    /// Whether it has exactly these bytes.
    pub(super) fn is(&self, other: &[Bytes]) -> bool {
        let state = lock(&self.state);
        let flat = |pieces: &[Bytes]| pieces.concat();
        flat(&state.chunks) == flat(other)
    }

    /// A reader from byte `at`.
    pub(super) fn read(self: &Arc<Self>, at: u64) -> SegmentReader {
        lock(&self.state).readers += 1;
        self.moved.notify_waiters();
        SegmentReader { segment: Arc::clone(self), at }
    }
}

/// One reader of a segment.
pub(crate) struct SegmentReader {
    segment: Arc<Segment>,
    at: u64,
}

impl SegmentReader {
    /// The next bytes as soon as they are here, or how it ends. Safe to cancel.
    pub(crate) async fn next(&mut self) -> SitePiece {
        loop {
            let news = self.segment.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            {
                let mut state = lock(&self.segment.state);
                // Of a document nothing is given before its end: its source may yet be another.
                let settled =
                    self.segment.object.size.is_some() || state.end == Some(SiteEnd::Complete);
                if let Some(bytes) = piece(&state.chunks, self.at).filter(|_| settled) {
                    self.at += bytes.len() as u64;
                    state.touched = Instant::now();
                    return SitePiece::Bytes(bytes);
                }
                if let Some(end) = state.end {
                    return SitePiece::End(end);
                }
                if !state.driven {
                    // Its driver went away between two looks: whoever reads starts another one.
                    return SitePiece::End(SiteEnd::Failed);
                }
            }
            news.await;
        }
    }
}

impl Drop for SegmentReader {
    fn drop(&mut self) {
        let mut state = lock(&self.segment.state);
        state.readers -= 1;
        state.touched = Instant::now();
        drop(state);
        self.segment.moved.notify_waiters();
    }
}

fn piece(chunks: &[Bytes], at: u64) -> Option<Bytes> {
    let mut start = 0;
    for chunk in chunks {
        let end = start + chunk.len() as u64;
        if at < end {
            return Some(chunk.slice(usize::try_from(at - start).ok()?..));
        }
        start = end;
    }
    None
}
