//! Reading blobs for people and programs on this machine: whole, in parts, or as a stream.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use haulout_walrus::{Client, ContentCheck, ReadError, ReadOptions};
use redstuff::{BlobId, Metadata, Primary};
use tokio::sync::OnceCell;

use super::SiteWalrus;

/// Bytes of a blob that are fetched and checked together before they are streamed, in whole rows.
const WINDOW_BYTES: u64 = 8 << 20;
/// Windows under way at the same time: one that is delivered, one that comes.
const WINDOWS: usize = 2;

/// A blob of which most is wanted is read in one go if it has at most so many bytes: any slivers will do then, whatever nodes
/// are down, and neighbours share them.
const ONE_GO_BYTES: u64 = 64 << 20;
/// The same for one of which rows turned out to be missing.
const DEGRADED_BYTES: u64 = 1 << 30;
/// Rows of a window that may be rebuilt before the rest is read in one go: each costs this agent more than a sliver.
const REBUILT_MAX: usize = 2;

impl SiteWalrus {
    /// A blob's length in bytes.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn length(&self, blob: &BlobId) -> Result<u64, ReadError> {
        Ok(self.client.metadata(blob).await?.unencoded_length())
    }

    /// The bytes `range` of a blob, from the slivers that cover it.
    ///
    /// With `content`, a check by a hash that the caller knows, that is all that is checked as long as it passes. Where it
    /// does not, the slivers are checked one by one against the blob's metadata, whoever lied is banned, and what was wrong is
    /// fetched again. Without it every sliver is checked.
    ///
    /// # Errors
    /// See [`ReadError`]; [`ReadError::Content`] if the slivers are the blob's and `content` says no.
    pub async fn read(
        &self,
        blob: &BlobId,
        range: Range<u64>,
        content: Option<ContentCheck>,
    ) -> Result<Bytes, ReadError> {
        let options = ReadOptions { content, ..ReadOptions::default() };
        let (bytes, _) = self.client.read_range(blob, range, &options).await?;
        Ok(bytes.into())
    }

    /// The same piece by piece, every sliver checked, in memory of a few windows whatever the blob's size. Ends after an
    /// error.
    ///
    /// # Errors
    /// The metadata cannot be had, or the range is not within the blob.
    pub async fn stream(
        &self,
        blob: &BlobId,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, ReadError>>, ReadError> {
        let metadata = self.client.metadata(blob).await?;
        let length = metadata.unencoded_length();
        if range.start > range.end || range.end > length {
            return Err(ReadError::Range { blob: *blob, length });
        }
        let one_go = length <= ONE_GO_BYTES && (range.end - range.start) * 2 > length;
        let reading = Arc::new(Reading {
            client: self.client.clone(),
            blob: *blob,
            length,
            one_go: AtomicBool::new(one_go),
            whole: OnceCell::new(),
        });
        let read = move |window| {
            let reading = Arc::clone(&reading);
            async move { reading.window(window).await }
        };
        let pieces = stream::iter(windows(&metadata, range)).map(read).buffered(WINDOWS);
        // Nothing follows an error.
        let until_error = pieces.scan(false, |failed, piece| {
            let over = *failed;
            *failed = piece.is_err();
            async move { (!over).then_some(piece) }
        });
        Ok(until_error.boxed())
    }
}

/// A blob that is being streamed.
struct Reading {
    client: Client,
    blob: BlobId,
    length: u64,
    /// Whether all of it is to be read at once.
    one_go: AtomicBool,
    whole: OnceCell<Bytes>,
}

impl Reading {
    async fn window(&self, window: Range<u64>) -> Result<Bytes, ReadError> {
        if self.one_go.load(Ordering::Relaxed) || self.whole.initialized() {
            let read = || async {
                let (bytes, _) = self.client.read(&self.blob, &ReadOptions::default()).await?;
                Ok::<Bytes, ReadError>(bytes.into())
            };
            let whole = self.whole.get_or_try_init(read).await?;
            let beyond = ReadError::Range { blob: self.blob, length: self.length };
            return slice(whole, &window).ok_or(beyond);
        }
        let options = ReadOptions::default();
        let (bytes, report) = self.client.read_range(&self.blob, window, &options).await?;
        if let Some(decoded) = report.whole {
            let _ = self.whole.set(decoded);
        } else if report.recovered > REBUILT_MAX && self.length <= DEGRADED_BYTES {
            self.one_go.store(true, Ordering::Relaxed);
        }
        Ok(bytes.into())
    }
}

fn slice(whole: &Bytes, range: &Range<u64>) -> Option<Bytes> {
    let at = |offset: u64| usize::try_from(offset).ok().filter(|at| *at <= whole.len());
    Some(whole.slice(at(range.start)?..at(range.end)?))
}

/// The range in parts of whole rows, so that no sliver is wanted twice.
fn windows(
    metadata: &Metadata,
    range: Range<u64>,
) -> impl Iterator<Item = Range<u64>> + Send + use<> {
    let row = (metadata.sliver_len::<Primary>() as u64).max(1);
    let rows = (WINDOW_BYTES / row).max(1);
    let step = rows * row;
    let mut at = range.start;
    std::iter::from_fn(move || {
        let end = ((at / step + 1) * step).min(range.end);
        let window = at..end;
        at = end;
        (!window.is_empty()).then_some(window)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use redstuff::ShardCount;

    #[test]
    fn windows_are_whole_rows() {
        let n = ShardCount::new(100).unwrap();
        let encoded = n.encode(vec![1; 20 << 20]).unwrap();
        let metadata = encoded.metadata();
        let row = metadata.sliver_len::<Primary>() as u64;
        let all: Vec<_> = windows(metadata, 5..20 << 20).collect();
        assert_eq!((all[0].start, all.last().unwrap().end), (5, 20 << 20));
        assert!(all.windows(2).all(|two| two[0].end == two[1].start && two[0].end % row == 0));
        assert!(all.iter().all(|window| window.end - window.start <= WINDOW_BYTES));
        assert_eq!(windows(metadata, 7..7).count(), 0);
    }
}
