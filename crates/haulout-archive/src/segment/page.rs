use super::{Footer, PageRecord, inflate};
use crate::{
    Entry,
    merkle::{Digest, Tree},
    wire::{Cursor, FormatError},
};
use haulout_nix::HashPart;
use std::ops::Range;

/// A page that was checked: its entries are those under the segment's root.
pub struct Page {
    raw: Vec<u8>,
    /// Where the entries are in `raw`.
    ranges: Vec<Range<u32>>,
    leaves: Vec<Digest>,
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Page").field("entries", &self.ranges.len()).finish_non_exhaustive()
    }
}

impl Page {
    /// Decompresses and checks page `index` of a segment against its record in the directory.
    ///
    /// # Errors
    /// When the bytes are not that page.
    pub fn open(
        footer: &Footer,
        index: u64,
        record: &PageRecord,
        stored: &[u8],
    ) -> Result<Self, FormatError> {
        if stored.len() != record.stored_len as usize {
            return Err(FormatError::Short("a page"));
        }
        let raw = inflate(stored, record.raw_len as usize, "a page")?;
        let page = Self::split(raw, footer.page_leaves(index))?;
        if page.first_key() != Some(record.first) {
            return Err(FormatError::Order("pages"));
        }
        if Tree::new(page.leaves.clone()).root() != record.root {
            return Err(FormatError::Hash("a page"));
        }
        Ok(page)
    }

    fn split(raw: Vec<u8>, count: u64) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new(&raw);
        let mut ranges: Vec<Range<u32>> = Vec::with_capacity(count as usize);
        let mut leaves = Vec::with_capacity(count as usize);
        let mut last: Option<HashPart> = None;
        for _ in 0..count {
            let len = cursor.count(crate::entry::ENTRY_BYTES_MAX, "an entry")?;
            let start = raw.len() - cursor.remaining();
            let bytes = cursor.take(len, "an entry")?;
            let key = Entry::key_of(bytes)?;
            if last.is_some_and(|last| last >= key) {
                return Err(FormatError::Order("entries"));
            }
            last = Some(key);
            leaves.push(Entry::leaf(bytes)?);
            // Pages are smaller than 2^32 bytes.
            ranges.push(start as u32..(start + len) as u32);
        }
        cursor.end("a page")?;
        Ok(Self { raw, ranges, leaves })
    }

    /// Number of entries.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there are none; never so for an opened page.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Bytes in memory, about.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        self.raw.len() + self.ranges.len() * 40
    }

    /// The canonical bytes of entry `at`.
    #[must_use]
    pub fn bytes(&self, at: usize) -> Option<&[u8]> {
        let range = self.ranges.get(at)?;
        self.raw.get(range.start as usize..range.end as usize)
    }

    /// The key of entry `at`.
    #[must_use]
    pub fn key(&self, at: usize) -> Option<HashPart> {
        Entry::key_of(self.bytes(at)?).ok()
    }

    fn first_key(&self) -> Option<HashPart> {
        self.key(0)
    }

    /// Entry `at`.
    ///
    /// # Errors
    /// When its bytes are no entry: the publisher committed to nonsense.
    pub fn entry(&self, at: usize) -> Result<Entry, FormatError> {
        Entry::decode(self.bytes(at).ok_or(FormatError::Short("a page"))?)
    }

    /// The position of a key, or the position it would have.
    pub fn position(&self, key: &HashPart) -> Result<usize, usize> {
        self.ranges.binary_search_by(|range| {
            let bytes = self.raw.get(range.start as usize..).unwrap_or_default();
            bytes.get(..20).unwrap_or_default().cmp(key.as_bytes())
        })
    }

    /// The entry with this key.
    ///
    /// # Errors
    /// As [`Page::entry`].
    pub fn find(&self, key: &HashPart) -> Result<Option<Entry>, FormatError> {
        self.position(key).ok().map(|at| self.entry(at)).transpose()
    }

    /// The leaves of the page's part of the tree.
    #[must_use]
    pub fn leaves(&self) -> &[Digest] {
        &self.leaves
    }
}
