use super::{CHUNK_PACKS, Footer, PACKS_MAX, PAGE_BYTES_MAX, PARTS_MAX, inflate};
use crate::{
    merkle::{self, Digest, Tree},
    wire::{Cursor, FormatError},
};
use haulout_nix::HashPart;
use std::ops::Range;

/// Bytes of one page record.
const PAGE_RECORD_BYTES: usize = 60;
/// Bytes of one chunk record.
const CHUNK_RECORD_BYTES: usize = 40;
/// Bytes of one blob record.
const BLOB_RECORD_BYTES: usize = 76;

/// A page: where it begins in the order of keys, how long it is, and its place in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRecord {
    /// The smallest key of the page.
    pub first: HashPart,
    /// Bytes as stored.
    pub stored_len: u32,
    /// Bytes when decompressed.
    pub raw_len: u32,
    /// Root of the tree over the page's entries.
    pub root: Digest,
}

/// A chunk of the pack table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRecord {
    /// Bytes as stored.
    pub stored_len: u32,
    /// Number of pack records in it: [`CHUNK_PACKS`], in the last chunk 1 to that.
    pub packs: u32,
    /// BLAKE2b-256 of the stored bytes.
    pub digest: Digest,
}

/// A blob on Walrus that belongs to the archive: a pack, or a part of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlobRecord {
    /// Blob id.
    pub blob_id: [u8; 32],
    /// The `Blob` object on Sui that holds its storage; zeros when unknown.
    pub object: [u8; 32],
    /// Bytes.
    pub size: u64,
    /// First Walrus epoch at which it need no longer be stored.
    pub end_epoch: u32,
}

/// A part of the index in a blob of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartRecord {
    /// The blob.
    pub blob: BlobRecord,
    /// Number of pages in it.
    pub pages: u32,
}

/// Sums over a segment, for people and for merging.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Entries that are tombstones.
    pub tombstones: u64,
    /// Bytes of all NARs.
    pub nar_bytes: u64,
    /// Bytes of all NARs in the packs.
    pub packed_bytes: u64,
}

/// Where a page or a chunk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PagePlace {
    /// The part that has it; `None` means the root blob itself.
    pub part: Option<usize>,
    /// Bytes of that blob.
    pub range: Range<u64>,
}

/// The directory of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    footer: Footer,
    pages: Vec<PageRecord>,
    /// Where each page begins in its blob.
    offsets: Vec<u64>,
    chunks: Vec<ChunkRecord>,
    chunks_at: u64,
    parts: Vec<PartRecord>,
    totals: Totals,
}

impl Directory {
    pub(super) fn encode(
        pages: &[PageRecord],
        chunks: &[ChunkRecord],
        parts: &[PartRecord],
        totals: &Totals,
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(pages.len() * PAGE_RECORD_BYTES + 64);
        for count in [pages.len(), chunks.len(), parts.len()] {
            out.extend_from_slice(&(count as u32).to_le_bytes());
        }
        for total in [totals.tombstones, totals.nar_bytes, totals.packed_bytes] {
            out.extend_from_slice(&total.to_le_bytes());
        }
        for page in pages {
            out.extend_from_slice(page.first.as_bytes());
            out.extend_from_slice(&page.stored_len.to_le_bytes());
            out.extend_from_slice(&page.raw_len.to_le_bytes());
            out.extend_from_slice(&page.root);
        }
        for chunk in chunks {
            out.extend_from_slice(&chunk.stored_len.to_le_bytes());
            out.extend_from_slice(&chunk.packs.to_le_bytes());
            out.extend_from_slice(&chunk.digest);
        }
        for part in parts {
            part.blob.encode(&mut out);
            out.extend_from_slice(&part.pages.to_le_bytes());
        }
        out
    }

    /// Reads a directory and checks it against the footer.
    ///
    /// # Errors
    /// When the bytes are not the directory that the footer promises, or contradict it.
    pub fn decode(footer: &Footer, bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() as u64 != footer.directory_len {
            return Err(FormatError::Short("the directory"));
        }
        if merkle::hash(&[bytes]) != footer.directory_digest {
            return Err(FormatError::Hash("the directory"));
        }
        let mut cursor = Cursor::new(bytes);
        let what = "the directory";
        let (pages, chunks, parts) = (cursor.u32(what)?, cursor.u32(what)?, cursor.u32(what)?);
        if u64::from(pages) != footer.pages() || parts as usize > PARTS_MAX {
            return Err(FormatError::Value("the number of pages or parts"));
        }
        if u64::from(chunks) > PACKS_MAX.div_ceil(CHUNK_PACKS as u64) {
            return Err(FormatError::Limit { what: "the number of packs", max: PACKS_MAX });
        }
        // The three counts say exactly how long the rest must be; nothing is allocated before.
        let expected = 24
            + pages as usize * PAGE_RECORD_BYTES
            + chunks as usize * CHUNK_RECORD_BYTES
            + parts as usize * (BLOB_RECORD_BYTES + 4);
        if cursor.remaining() != expected {
            return Err(FormatError::Value("the length of the directory"));
        }
        let totals = Totals {
            tombstones: cursor.u64(what)?,
            nar_bytes: cursor.u64(what)?,
            packed_bytes: cursor.u64(what)?,
        };
        let pages =
            (0..pages).map(|_| PageRecord::decode(&mut cursor)).collect::<Result<Vec<_>, _>>()?;
        let chunks =
            (0..chunks).map(|_| ChunkRecord::decode(&mut cursor)).collect::<Result<Vec<_>, _>>()?;
        let parts =
            (0..parts).map(|_| PartRecord::decode(&mut cursor)).collect::<Result<Vec<_>, _>>()?;
        cursor.end(what)?;

        if !pages.is_sorted_by(|a, b| a.first < b.first) {
            return Err(FormatError::Order("pages"));
        }
        if Tree::new(pages.iter().map(|page| page.root).collect()).root() != footer.tree_root {
            return Err(FormatError::Hash("the tree of the index"));
        }
        let full = chunks.split_last().is_none_or(|(last, others)| {
            others.iter().all(|chunk| chunk.packs as usize == CHUNK_PACKS)
                && (1..=CHUNK_PACKS).contains(&(last.packs as usize))
        });
        if !full {
            return Err(FormatError::Value("a chunk of the pack table"));
        }
        let (offsets, chunks_at) = offsets(&pages, &parts)?;
        Ok(Self { footer: footer.clone(), pages, offsets, chunks, chunks_at, parts, totals })
    }

    /// The footer it belongs to.
    #[must_use]
    pub const fn footer(&self) -> &Footer {
        &self.footer
    }

    /// The pages, in order.
    #[must_use]
    pub fn pages(&self) -> &[PageRecord] {
        &self.pages
    }

    /// The parts in blobs of their own, in order; empty when all pages are in the root blob.
    #[must_use]
    pub fn parts(&self) -> &[PartRecord] {
        &self.parts
    }

    /// Sums over the segment.
    #[must_use]
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Number of packs.
    #[must_use]
    pub fn packs(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.packs)).sum()
    }

    /// The page that has a key if any has: 0 for keys before the first page too.
    #[must_use]
    pub fn page_of(&self, key: &HashPart) -> u64 {
        self.pages.partition_point(|page| page.first <= *key).saturating_sub(1) as u64
    }

    /// Whether a key is smaller than all keys of the segment, so that no page needs to be read.
    #[must_use]
    pub fn before_all(&self, key: &HashPart) -> bool {
        self.pages.first().is_none_or(|page| *key < page.first)
    }

    /// Where a page is.
    #[must_use]
    pub fn page_place(&self, page: u64) -> Option<PagePlace> {
        let record = self.pages.get(page as usize)?;
        let start = *self.offsets.get(page as usize)?;
        Some(PagePlace {
            part: self.part_of(page),
            range: start..start + u64::from(record.stored_len),
        })
    }

    fn part_of(&self, page: u64) -> Option<usize> {
        let mut end = 0u64;
        self.parts.iter().position(|part| {
            end += u64::from(part.pages);
            page < end
        })
    }

    /// Decompresses and checks a page.
    ///
    /// # Errors
    /// When the bytes are not that page.
    pub fn open_page(&self, page: u64, stored: &[u8]) -> Result<super::Page, FormatError> {
        let record = self.pages.get(page as usize).ok_or(FormatError::Value("a page's number"))?;
        let opened = super::Page::open(&self.footer, page, record, stored)?;
        let next = self.pages.get(page as usize + 1);
        let last = opened.len().checked_sub(1).and_then(|at| opened.key(at));
        if next.zip(last).is_some_and(|(next, last)| last >= next.first) {
            return Err(FormatError::Order("pages"));
        }
        Ok(opened)
    }

    /// Number of chunks of the pack table.
    #[must_use]
    pub const fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// The chunk of the pack table in which a pack is, and where in the root blob that chunk lies.
    #[must_use]
    pub fn chunk_of(&self, pack: u32) -> Option<(usize, Range<u64>)> {
        let chunk = pack as usize / CHUNK_PACKS;
        Some((chunk, self.chunk_range(chunk)?))
    }

    /// Where a chunk lies in the root blob.
    #[must_use]
    pub fn chunk_range(&self, chunk: usize) -> Option<Range<u64>> {
        let record = self.chunks.get(chunk)?;
        let before: u64 = self.chunks.iter().take(chunk).map(|c| u64::from(c.stored_len)).sum();
        let start = self.chunks_at + before;
        Some(start..start + u64::from(record.stored_len))
    }

    /// Decompresses and checks a chunk of the pack table.
    ///
    /// # Errors
    /// When the bytes are not that chunk.
    pub fn open_chunk(&self, chunk: usize, stored: &[u8]) -> Result<Vec<BlobRecord>, FormatError> {
        let record = self.chunks.get(chunk).ok_or(FormatError::Value("a chunk's number"))?;
        if stored.len() != record.stored_len as usize {
            return Err(FormatError::Short("a chunk of the pack table"));
        }
        if merkle::hash(&[stored]) != record.digest {
            return Err(FormatError::Hash("a chunk of the pack table"));
        }
        let len = record.packs as usize * BLOB_RECORD_BYTES;
        let raw = inflate(stored, len, "a chunk of the pack table")?;
        let mut cursor = Cursor::new(&raw);
        let packs =
            (0..record.packs).map(|_| BlobRecord::decode(&mut cursor)).collect::<Result<_, _>>()?;
        cursor.end("a chunk of the pack table")?;
        Ok(packs)
    }

    /// The tree over the pages, for proofs.
    #[must_use]
    pub fn page_tree(&self) -> Tree {
        Tree::new(self.pages.iter().map(|page| page.root).collect())
    }

    /// Bytes in memory, about.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        self.pages.len() * (size_of::<PageRecord>() + 8)
    }
}

/// Where pages begin in their blobs, and where the pack chunks begin in the root blob.
fn offsets(pages: &[PageRecord], parts: &[PartRecord]) -> Result<(Vec<u64>, u64), FormatError> {
    let mut offsets = Vec::with_capacity(pages.len());
    let mut rest = pages.iter();
    let lay = |pages: &mut dyn Iterator<Item = &PageRecord>, offsets: &mut Vec<u64>| {
        let mut at = 0u64;
        for page in pages {
            offsets.push(at);
            at += u64::from(page.stored_len);
        }
        at
    };
    for part in parts {
        let end = lay(&mut rest.by_ref().take(part.pages as usize), &mut offsets);
        if end != part.blob.size || part.pages == 0 {
            return Err(FormatError::Value("the size of an index part"));
        }
    }
    if !parts.is_empty() && rest.len() != 0 {
        return Err(FormatError::Value("the pages of the index parts"));
    }
    let chunks_at = lay(&mut rest, &mut offsets);
    if offsets.len() != pages.len() {
        return Err(FormatError::Value("the pages of the index parts"));
    }
    Ok((offsets, chunks_at))
}

impl PageRecord {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, FormatError> {
        let what = "a page record";
        let record = Self {
            first: HashPart::from_bytes(cursor.array(what)?),
            stored_len: cursor.u32(what)?,
            raw_len: cursor.u32(what)?,
            root: cursor.array(what)?,
        };
        let longest = record.raw_len.max(record.stored_len) as usize;
        if longest > PAGE_BYTES_MAX {
            return Err(FormatError::Limit { what: "a page", max: PAGE_BYTES_MAX as u64 });
        }
        Ok(record)
    }
}

impl ChunkRecord {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, FormatError> {
        let what = "a chunk record";
        let record = Self {
            stored_len: cursor.u32(what)?,
            packs: cursor.u32(what)?,
            digest: cursor.array(what)?,
        };
        if record.stored_len as usize > PAGE_BYTES_MAX {
            return Err(FormatError::Limit { what: "a chunk", max: PAGE_BYTES_MAX as u64 });
        }
        Ok(record)
    }
}

impl BlobRecord {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.blob_id);
        out.extend_from_slice(&self.object);
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.end_epoch.to_le_bytes());
    }

    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, FormatError> {
        let what = "a blob record";
        Ok(Self {
            blob_id: cursor.array(what)?,
            object: cursor.array(what)?,
            size: cursor.u64(what)?,
            end_epoch: cursor.u32(what)?,
        })
    }
}

impl PartRecord {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, FormatError> {
        Ok(Self { blob: BlobRecord::decode(cursor)?, pages: cursor.u32("a part record")? })
    }
}
