use super::{
    BlobRecord, CHUNK_PACKS, ChunkRecord, Directory, Footer, LEAVES_MAX, PACKS_MAX, PAGE_BYTES_MAX,
    PAGE_SHIFT_MAX, PARTS_MAX, PageRecord, PartRecord, Totals, deflate,
};
use crate::{
    Content, Entry,
    merkle::{self, Digest, Tree},
    wire::{FormatError, put_bytes},
};
use haulout_nix::HashPart;

/// A fitting number of entries per page, as a power of two, for a segment of about so many entries.
///
/// A page should be well below a sliver, which at 1,000 shards has 1/334 of the blob, so that a
/// look-up costs one sliver and now and then two; above 256 entries compression gains nothing more.
#[must_use]
pub fn page_shift_for(entries: u64) -> u8 {
    let wanted = (entries / (2 * 334)).clamp(16, 256);
    wanted.ilog2() as u8
}

/// Writes a segment from entries in order. What is finished is handed out at once: the writer
/// itself keeps 60 bytes for each page.
#[derive(Debug)]
pub struct SegmentWriter {
    page_shift: u8,
    raw: Vec<u8>,
    scratch: Vec<u8>,
    leaves: Vec<Digest>,
    first: Option<HashPart>,
    last: Option<HashPart>,
    count: u64,
    pages: Vec<PageRecord>,
    totals: Totals,
}

impl SegmentWriter {
    /// A writer for pages of two to the power of `page_shift` entries (at most [`PAGE_SHIFT_MAX`]).
    #[must_use]
    pub fn new(page_shift: u8) -> Self {
        Self {
            page_shift: page_shift.min(PAGE_SHIFT_MAX),
            raw: Vec::new(),
            scratch: Vec::new(),
            leaves: Vec::new(),
            first: None,
            last: None,
            count: 0,
            pages: Vec::new(),
            totals: Totals::default(),
        }
    }

    /// Entries taken so far.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.count
    }

    /// Whether nothing was taken yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Pages handed out so far.
    #[must_use]
    pub const fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Takes the next entry. A page that it completes is handed out: its bytes follow those of the
    /// page before, in the root blob or in a part.
    ///
    /// # Errors
    /// Keys out of order, or a limit of the format.
    pub fn push(&mut self, entry: &Entry) -> Result<Option<Vec<u8>>, FormatError> {
        if self.last.is_some_and(|last| last >= entry.key) {
            return Err(FormatError::Order("entries"));
        }
        if self.count == LEAVES_MAX {
            return Err(FormatError::Limit { what: "the number of entries", max: LEAVES_MAX });
        }
        self.scratch.clear();
        entry.encode(&mut self.scratch)?;
        if self.raw.len() + self.scratch.len() + 10 > PAGE_BYTES_MAX {
            return Err(FormatError::Limit { what: "a page", max: PAGE_BYTES_MAX as u64 });
        }
        put_bytes(&mut self.raw, &self.scratch);
        self.leaves.push(Entry::leaf(&self.scratch)?);
        self.first.get_or_insert(entry.key);
        self.last = Some(entry.key);
        self.count += 1;
        match &entry.content {
            Content::Tombstone => self.totals.tombstones += 1,
            Content::Path(path) => {
                self.totals.nar_bytes = self.totals.nar_bytes.saturating_add(path.info.nar_size);
                let stored = path.nar.stored_len();
                self.totals.packed_bytes = self.totals.packed_bytes.saturating_add(stored);
            }
        }
        if self.leaves.len() < 1 << self.page_shift { Ok(None) } else { self.page().map(Some) }
    }

    /// Ends the last page early or not: gives its bytes, if there are any.
    ///
    /// # Errors
    /// A page that cannot be compressed.
    pub fn last_page(&mut self) -> Result<Option<Vec<u8>>, FormatError> {
        if self.leaves.is_empty() { Ok(None) } else { self.page().map(Some) }
    }

    fn page(&mut self) -> Result<Vec<u8>, FormatError> {
        let stored = deflate(&self.raw)?;
        if stored.len() > PAGE_BYTES_MAX {
            return Err(FormatError::Limit { what: "a page", max: PAGE_BYTES_MAX as u64 });
        }
        let first = self.first.take().ok_or(FormatError::Value("an empty page"))?;
        self.pages.push(PageRecord {
            first,
            stored_len: stored.len() as u32,
            raw_len: self.raw.len() as u32,
            root: Tree::new(std::mem::take(&mut self.leaves)).root(),
        });
        self.raw.clear();
        Ok(stored)
    }

    /// Ends the segment after [`SegmentWriter::last_page`]: gives what follows the pages in the root
    /// blob (pack chunks, directory and footer), and the footer.
    ///
    /// `packs` is the table that the entries' extents point into. `parts` are the blobs with the
    /// pages, if they are not in the root blob.
    ///
    /// # Errors
    /// No entries, a page that was not handed out, or a limit of the format.
    pub fn finish(
        self,
        packs: impl IntoIterator<Item = BlobRecord>,
        parts: &[PartRecord],
    ) -> Result<(Vec<u8>, Footer), FormatError> {
        if self.count == 0 || !self.leaves.is_empty() {
            return Err(FormatError::Value("a segment without entries or with an open page"));
        }
        if parts.len() > PARTS_MAX {
            return Err(FormatError::Limit { what: "the number of parts", max: PARTS_MAX as u64 });
        }
        let (mut out, chunks) = encode_packs(packs)?;
        let directory = Directory::encode(&self.pages, &chunks, parts, &self.totals);
        let footer = Footer {
            page_shift: self.page_shift,
            leaves: self.count,
            directory_len: directory.len() as u64,
            tree_root: Tree::new(self.pages.iter().map(|page| page.root).collect()).root(),
            directory_digest: merkle::hash(&[&directory]),
        };
        // What a reader would refuse is not written.
        Directory::decode(&footer, &directory)?;
        out.extend_from_slice(&directory);
        out.extend_from_slice(&footer.encode());
        Ok((out, footer))
    }
}

fn encode_packs(
    packs: impl IntoIterator<Item = BlobRecord>,
) -> Result<(Vec<u8>, Vec<ChunkRecord>), FormatError> {
    let mut out = Vec::new();
    let mut chunks = Vec::new();
    let mut packs = packs.into_iter().peekable();
    while packs.peek().is_some() {
        if (chunks.len() * CHUNK_PACKS) as u64 >= PACKS_MAX {
            return Err(FormatError::Limit { what: "the number of packs", max: PACKS_MAX });
        }
        let mut raw = Vec::new();
        let mut count = 0;
        for pack in packs.by_ref().take(CHUNK_PACKS) {
            pack.encode(&mut raw);
            count += 1;
        }
        let stored = deflate(&raw)?;
        let digest = merkle::hash(&[&stored]);
        chunks.push(ChunkRecord { stored_len: stored.len() as u32, packs: count, digest });
        out.extend_from_slice(&stored);
    }
    Ok((out, chunks))
}
