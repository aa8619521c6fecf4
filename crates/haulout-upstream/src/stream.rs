//! Reading a file of a cache from beginning to end, over cuts.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};

use crate::decompress::ByteStream;
use crate::error::Trouble;
use crate::location::FileLocation;
use crate::store::{Got, Object, Validator, Want};
use crate::upstream::Upstream;

/// The longest silence within a body.
const STALL_MAX: Duration = Duration::from_secs(10);
/// A body must bring this many bytes in every [`PACE_TIME`], or whoever sends it drip by drip
/// could hold a transfer for days.
const PACE_BYTES: u64 = 16 * 1024;
const PACE_TIME: Duration = Duration::from_secs(20);
/// Times in a row that a transfer is taken up again without a byte in between.
const RESUMES_IN_A_ROW: u32 = 4;
/// Times in all.
const RESUMES_MAX: u32 = 32;
/// The first pause before it is taken up again; doubled each time in a row.
const RESUME_PAUSE: Duration = Duration::from_millis(100);
/// Bytes read and thrown away when a cache without ranges begins from the start again.
const SKIP_MAX: u64 = 256 << 20;

/// A file of a cache, or a part of it, as compressed bytes. Cuts are mended as long as the cache
/// still has the same file; the stream ends early only with an error.
pub struct FileStream {
    /// Bytes of the whole file as the cache says, if it does.
    pub total: Option<u64>,
    /// Whether the cache can give parts. Where it cannot, every part costs the bytes before it.
    pub ranges: bool,
    stream: ByteStream,
}

impl std::fmt::Debug for FileStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileStream").field("total", &self.total).finish_non_exhaustive()
    }
}

impl Stream for FileStream {
    type Item = Result<Bytes, Trouble>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.poll_next_unpin(cx)
    }
}

/// Opens a file from byte `from`; answers when the header is there.
pub(crate) async fn open(
    upstream: Arc<Upstream>,
    file: &FileLocation,
    from: u64,
    len: Option<u64>,
) -> Result<FileStream, Trouble> {
    let end = len.map(|len| from.saturating_add(len));
    let mut reader = Reader {
        upstream,
        key: file.key.clone(),
        size_max: file.size_max,
        at: from,
        end,
        skip: 0,
        validator: None,
        total: None,
        body: None,
        in_a_row: 0,
        resumes: 0,
        pace: (Duration::ZERO, 0),
    };
    let ranges = reader.connect().await?;
    let total = reader.total;
    let stream = stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(reader))),
            Ok(None) => None,
            Err(trouble) => Some((Err(trouble), None)),
        }
    });
    Ok(FileStream { total, ranges, stream: stream.boxed() })
}

struct Reader {
    upstream: Arc<Upstream>,
    key: String,
    size_max: u64,
    /// The next byte to give out.
    at: u64,
    end: Option<u64>,
    /// Bytes of the current body to throw away first.
    skip: u64,
    validator: Option<Validator>,
    total: Option<u64>,
    body: Option<ByteStream>,
    in_a_row: u32,
    resumes: u32,
    /// For how long the cache was waited for in the current measuring of pace, and the bytes that
    /// came. A reader who takes their time does not count.
    pace: (Duration, u64),
}

impl Reader {
    /// Asks for the rest; whether the cache gave just that.
    async fn connect(&mut self) -> Result<bool, Trouble> {
        let want = Want {
            key: &self.key,
            from: self.at,
            end: self.end,
            part_of: self.validator.as_ref(),
            unless: None,
        };
        let object = match self.upstream.get(&want).await? {
            Got::Object(object) => object,
            Got::Absent(_) => return Err(Trouble::Status(404)),
            Got::NotModified(_) => return Err(Trouble::Status(304)),
        };
        self.take(object)
    }

    fn take(&mut self, object: Object) -> Result<bool, Trouble> {
        if object.is_page {
            return Err(Trouble::Portal("a web page instead of a NAR".into()));
        }
        if object.encoding.is_some() {
            return Err(Trouble::Malformed("a content encoding nobody asked for".into()));
        }
        if object.total.is_some_and(|total| total > self.size_max) {
            return Err(Trouble::TooLong(self.size_max));
        }
        let same_size = match (self.total, object.total) {
            (Some(before), Some(now)) => before == now,
            _ => true,
        };
        if !same_size {
            return Err(Trouble::Changed);
        }
        let beyond = || Trouble::Malformed("a part that begins too late".into());
        self.skip = self.at.checked_sub(object.from).ok_or_else(beyond)?;
        if self.skip > SKIP_MAX {
            return Err(Trouble::Malformed("the whole file where a part was asked for".into()));
        }
        self.total = object.total.or(self.total);
        self.validator = object.validator;
        self.body = Some(object.body);
        self.pace = (Duration::ZERO, 0);
        Ok(object.from == self.at)
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        loop {
            if self.end.is_some_and(|end| self.at >= end)
                || self.total.is_some_and(|t| self.at >= t)
            {
                return Ok(None);
            }
            let trouble = match self.piece().await {
                Ok(Some(bytes)) => {
                    self.in_a_row = 0;
                    return Ok(Some(bytes));
                }
                // A body of unknown length that ends cleanly has told its length.
                Ok(None) if self.total.is_none() && self.end.is_none() => return Ok(None),
                Ok(None) => Trouble::Truncated(self.at),
                Err(trouble) => trouble,
            };
            self.body = None;
            self.mend(trouble).await?;
        }
    }

    /// The next bytes of the body in hand.
    async fn piece(&mut self) -> Result<Option<Bytes>, Trouble> {
        loop {
            let Some(body) = self.body.as_mut() else { return Ok(None) };
            let began = Instant::now();
            let piece = tokio::time::timeout(STALL_MAX, body.next()).await;
            let piece = piece.map_err(|_| Trouble::Slow("sent nothing for 10 s"))?;
            let Some(mut bytes) = piece.transpose()? else { return Ok(None) };
            self.upstream.count_bytes(bytes.len());
            self.keep_pace(bytes.len(), began.elapsed())?;
            let skipped = self.skip.min(bytes.len() as u64);
            self.skip -= skipped;
            // Fits: it is at most the length of the piece.
            let mut bytes = bytes.split_off(usize::try_from(skipped).unwrap_or(usize::MAX));
            if let Some(left) = self.end.map(|end| end.saturating_sub(self.at))
                && bytes.len() as u64 > left
            {
                bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            }
            self.at += bytes.len() as u64;
            if self.at > self.size_max {
                return Err(Trouble::TooLong(self.size_max));
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }

    fn keep_pace(&mut self, bytes: usize, waited: Duration) -> Result<(), Trouble> {
        let (waiting, seen) = &mut self.pace;
        *waiting += waited;
        *seen += bytes as u64;
        if *waiting >= PACE_TIME {
            if *seen < PACE_BYTES {
                return Err(Trouble::Slow("sent less than 16 KiB in 20 s"));
            }
            self.pace = (Duration::ZERO, 0);
        }
        Ok(())
    }

    /// Takes the transfer up again after `trouble`, or gives up with it.
    async fn mend(&mut self, mut trouble: Trouble) -> Result<(), Trouble> {
        loop {
            self.upstream.report(&trouble);
            let mendable = matches!(
                trouble,
                Trouble::Broken(_)
                    | Trouble::Truncated(_)
                    | Trouble::Slow("sent nothing for 10 s")
                    | Trouble::Status(500..=599)
                    | Trouble::Unreachable(_)
            );
            // Without a validator nothing says that it would be the same file.
            let joinable = self.at == 0
                || matches!(self.validator, Some(Validator::Etag(_) | Validator::Modified(_)));
            if !mendable
                || !joinable
                || self.in_a_row >= RESUMES_IN_A_ROW
                || self.resumes >= RESUMES_MAX
            {
                return Err(trouble);
            }
            tokio::time::sleep(RESUME_PAUSE * 2u32.pow(self.in_a_row)).await;
            self.in_a_row += 1;
            self.resumes += 1;
            tracing::debug!(upstream = %self.upstream.id(), at = self.at, %trouble, "taking a transfer up again");
            match self.connect().await {
                Ok(_) => return Ok(()),
                Err(again) => trouble = again,
            }
        }
    }
}
