//! One level, opened: its directory is in memory and checked, its pages are fetched when needed.

use crate::{Blobs, DepotError, Kind, LevelRecord, cache::PageCache};
use bytes::Bytes;
use haulout_archive::{
    Directory, Entry, Footer, FormatError, Page,
    proof::{Proof, ProveError, prove},
    segment::{BlobRecord, FOOTER_BYTES},
};
use haulout_nix::HashPart;
use redstuff::BlobId;
use std::{ops::Range, sync::Arc};

/// Bytes fetched from the end of a root blob when it is opened: the directory of an index of 4
/// million paths, or the whole of a delta.
const TAIL_BYTES: u64 = 1 << 20;

/// Most bytes of a directory that is read: that of 300 million paths.
const DIRECTORY_BYTES_MAX: u64 = 128 << 20;

/// A level.
#[derive(Debug)]
pub struct OpenLevel {
    record: LevelRecord,
    directory: Directory,
    /// The end of the root blob.
    tail: Tail,
}

#[derive(Debug)]
struct Tail {
    start: u64,
    bytes: Bytes,
}

impl Tail {
    fn get(&self, range: &Range<u64>) -> Option<Bytes> {
        let start = range.start.checked_sub(self.start)? as usize;
        let end = range.end.checked_sub(self.start)? as usize;
        (start <= end && end <= self.bytes.len()).then(|| self.bytes.slice(start..end))
    }
}

/// Reads, and reads again with each piece verified if the result does not pass `check`.
async fn read_checked<T>(
    blobs: &dyn Blobs,
    (blob, size): (BlobId, u64),
    range: Range<u64>,
    what: impl std::fmt::Display,
    check: impl Fn(&Bytes) -> Result<T, FormatError>,
) -> Result<T, DepotError> {
    if range.start > range.end || range.end > size {
        return Err(DepotError::corrupt(&what, FormatError::Value("the place in the blob")));
    }
    let bytes = blobs.read(blob, size, range.clone()).await?;
    match check(&bytes) {
        Ok(value) => Ok(value),
        Err(_) => {
            let bytes = blobs.read_verified(blob, size, range).await?;
            check(&bytes).map_err(|error| DepotError::corrupt(what, error))
        }
    }
}

impl OpenLevel {
    /// Fetches and checks the directory.
    ///
    /// # Errors
    /// When it cannot be had, or is not the one with the level's root.
    pub async fn open(blobs: &dyn Blobs, record: LevelRecord) -> Result<Self, DepotError> {
        let source = (record.blob, record.size);
        let start = record.size.saturating_sub(TAIL_BYTES);
        let (footer, tail) =
            read_checked(blobs, source, start..record.size, "the index footer", |bytes| {
                let at =
                    bytes.len().checked_sub(FOOTER_BYTES).ok_or(FormatError::Short("the index"))?;
                let footer = Footer::decode(bytes.get(at..).unwrap_or_default(), &record.root)?;
                if footer.leaves == record.leaves {
                    Ok((footer, bytes.clone()))
                } else {
                    Err(FormatError::Value("the number of entries"))
                }
            })
            .await?;
        let mut tail = Tail { start, bytes: tail };
        let range = footer
            .directory_range(record.size)
            .map_err(|error| DepotError::corrupt("the index footer", error))?;
        if range.end - range.start > DIRECTORY_BYTES_MAX {
            let message = format!("the index directory has more than {DIRECTORY_BYTES_MAX} bytes");
            return Err(DepotError::new(Kind::Refused, message));
        }
        let decode = |bytes: &Bytes| Directory::decode(&footer, bytes);
        let directory = match tail.get(&range) {
            Some(bytes) => match decode(&bytes) {
                Ok(directory) => directory,
                Err(_) => read_checked(blobs, source, range, "the index directory", decode).await?,
            },
            None => read_checked(blobs, source, range, "the index directory", decode).await?,
        };
        if start > 0 {
            // Of a large index, only small levels' pages and the pack table are worth keeping.
            tail = Tail { start: record.size, bytes: Bytes::new() };
        }
        Ok(Self { record, directory, tail })
    }

    /// What the state says of it.
    #[must_use]
    pub const fn record(&self) -> &LevelRecord {
        &self.record
    }

    /// The directory.
    #[must_use]
    pub const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Page `number`, from memory or fetched.
    ///
    /// # Errors
    /// When it cannot be had, or is not the page of the index.
    pub(crate) async fn page(
        &self,
        blobs: &dyn Blobs,
        cache: &PageCache,
        number: u64,
    ) -> Result<Arc<Page>, DepotError> {
        let slot = cache.slot(&self.record.root, number);
        slot.get_or_try_init(|| async { self.fetch_page(blobs, number).await.map(Arc::new) })
            .await
            .cloned()
    }

    /// Page `number`, fetched: for those who read all of them once.
    ///
    /// # Errors
    /// As [`OpenLevel::page`].
    pub(crate) async fn fetch_page(
        &self,
        blobs: &dyn Blobs,
        number: u64,
    ) -> Result<Page, DepotError> {
        let value = |what| DepotError::corrupt("the index directory", FormatError::Value(what));
        let place = self.directory.page_place(number).ok_or_else(|| value("a page's number"))?;
        let source = match place.part {
            None => (self.record.blob, self.record.size),
            Some(part) => {
                let part =
                    self.directory.parts().get(part).ok_or_else(|| value("a part's number"))?;
                (BlobId(part.blob.blob_id), part.blob.size)
            }
        };
        let open = |bytes: &Bytes| self.directory.open_page(number, bytes);
        if place.part.is_none()
            && let Some(page) = self.tail.get(&place.range).and_then(|bytes| open(&bytes).ok())
        {
            return Ok(page);
        }
        read_checked(blobs, source, place.range, format!("page {number} of the index"), open).await
    }

    /// The entry of a key, if there is one.
    ///
    /// # Errors
    /// As [`OpenLevel::page`].
    pub(crate) async fn find(
        &self,
        blobs: &dyn Blobs,
        cache: &PageCache,
        key: &HashPart,
    ) -> Result<Option<Entry>, DepotError> {
        if self.directory.before_all(key) {
            return Ok(None);
        }
        let page = self.page(blobs, cache, self.directory.page_of(key)).await?;
        page.find(key)
            .map_err(|error| DepotError::corrupt(format_args!("the entry of {key}"), error))
    }

    /// The proof that this level has a key, or has it not.
    ///
    /// # Errors
    /// As [`OpenLevel::page`].
    pub(crate) async fn prove(
        &self,
        blobs: &dyn Blobs,
        cache: &PageCache,
        key: &HashPart,
    ) -> Result<Proof, DepotError> {
        let tree = self.directory.page_tree();
        let page = self.page(blobs, cache, self.directory.page_of(key)).await?;
        let proof = match prove(&self.directory, &tree, key, &page, None) {
            Err(ProveError::NeedsPage(next)) => {
                let next = self.page(blobs, cache, next).await?;
                prove(&self.directory, &tree, key, &page, Some(&next))
            }
            other => other,
        };
        proof.map_err(|error| DepotError::new(Kind::Corrupt, "cannot make a proof").because(error))
    }

    /// The record of a pack.
    ///
    /// # Errors
    /// When it cannot be had, or there is no such pack.
    pub(crate) async fn pack(
        &self,
        blobs: &dyn Blobs,
        pack: u32,
    ) -> Result<BlobRecord, DepotError> {
        let none = || DepotError::corrupt("an entry", FormatError::Value("the number of its pack"));
        let (chunk, _) = self.directory.chunk_of(pack).ok_or_else(none)?;
        let records = self.chunk(blobs, chunk).await?;
        let at = pack as usize % haulout_archive::segment::CHUNK_PACKS;
        records.get(at).copied().ok_or_else(none)
    }

    async fn chunk(&self, blobs: &dyn Blobs, chunk: usize) -> Result<Vec<BlobRecord>, DepotError> {
        let none =
            || DepotError::corrupt("the index directory", FormatError::Value("a chunk's number"));
        let range = self.directory.chunk_range(chunk).ok_or_else(none)?;
        let open = |bytes: &Bytes| self.directory.open_chunk(chunk, bytes);
        if let Some(records) = self.tail.get(&range).and_then(|bytes| open(&bytes).ok()) {
            return Ok(records);
        }
        read_checked(blobs, (self.record.blob, self.record.size), range, "the pack table", open)
            .await
    }

    /// All packs.
    ///
    /// # Errors
    /// As [`OpenLevel::page`].
    pub(crate) async fn packs(&self, blobs: &dyn Blobs) -> Result<Vec<BlobRecord>, DepotError> {
        let mut packs = Vec::new();
        for chunk in 0..self.directory.chunks() {
            packs.extend(self.chunk(blobs, chunk).await?);
        }
        Ok(packs)
    }
}
