//! Several segments made one.
//!
//! Both halves stream: entries come from iterators that are read once, and the table of the new
//! segment's packs grows with the packs that are really still used.

use crate::{Content, Entry, FormatError, segment::BlobRecord};
use std::{collections::HashMap, iter::Peekable};

/// Merges sorted entries; the first segment is the newest and wins. Gives with each entry the
/// segment it comes from.
pub struct Merge<I: Iterator> {
    segments: Vec<Peekable<I>>,
    drop_tombstones: bool,
    failed: bool,
}

impl<I: Iterator> std::fmt::Debug for Merge<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Merge").field("segments", &self.segments.len()).finish_non_exhaustive()
    }
}

impl<I: Iterator> Merge<I> {
    /// `drop_tombstones` may be set when the oldest segment of the archive is among them: then
    /// there is nothing left for tombstones to hide.
    pub fn new(newest_first: impl IntoIterator<Item = I>, drop_tombstones: bool) -> Self {
        let segments = newest_first.into_iter().map(Iterator::peekable).collect();
        Self { segments, drop_tombstones, failed: false }
    }
}

impl<E, I: Iterator<Item = Result<Entry, E>>> Iterator for Merge<I> {
    type Item = Result<(usize, Entry), E>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed {
            let mut smallest = None;
            for (i, segment) in self.segments.iter_mut().enumerate() {
                match segment.peek() {
                    None => {}
                    Some(Err(_)) => {
                        self.failed = true;
                        return segment.next()?.err().map(Err);
                    }
                    Some(Ok(entry)) if smallest.is_none_or(|(_, key)| entry.key < key) => {
                        smallest = Some((i, entry.key));
                    }
                    Some(Ok(_)) => {}
                }
            }
            let (winner, key) = smallest?;
            let mut found = None;
            for (i, segment) in self.segments.iter_mut().enumerate() {
                let same = |item: &Result<Entry, E>| matches!(item, Ok(entry) if entry.key == key);
                let item = segment.next_if(same);
                if i == winner {
                    found = item;
                }
            }
            match found {
                Some(Ok(entry)) if self.drop_tombstones && entry.content == Content::Tombstone => {}
                other => return other.map(|item| item.map(|entry| (winner, entry))),
            }
        }
        None
    }
}

/// The packs of a merged segment: those of the old ones that its entries use, each once.
#[derive(Debug, Default)]
pub struct PackUnion {
    tables: Vec<Vec<BlobRecord>>,
    numbers: HashMap<[u8; 32], u32>,
    used: Vec<BlobRecord>,
}

impl PackUnion {
    /// Of the tables of the segments, in the order of the merge.
    #[must_use]
    pub fn new(tables: Vec<Vec<BlobRecord>>) -> Self {
        Self { tables, ..Self::default() }
    }

    /// Makes an entry of segment `from` point into the new table.
    ///
    /// # Errors
    /// When it points to a pack that its segment has not.
    pub fn adopt(&mut self, from: usize, entry: &mut Entry) -> Result<(), FormatError> {
        let Content::Path(path) = &mut entry.content else { return Ok(()) };
        for extent in &mut path.nar.extents {
            let record = self.tables.get(from).and_then(|table| table.get(extent.pack as usize));
            let record = *record.ok_or(FormatError::Value("the pack of an entry"))?;
            let next = self.used.len() as u32;
            let number = *self.numbers.entry(record.blob_id).or_insert(next);
            match self.used.get_mut(number as usize) {
                // The same blob may have been paid for twice: the longer promise counts.
                Some(known) if known.end_epoch < record.end_epoch => *known = record,
                Some(_) => {}
                None => self.used.push(record),
            }
            extent.pack = number;
        }
        Ok(())
    }

    /// The table of the new segment.
    #[must_use]
    pub fn into_table(self) -> Vec<BlobRecord> {
        self.used
    }
}

#[cfg(test)]
mod tests;
