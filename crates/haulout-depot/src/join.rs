//! Entries of several levels become those of one, which is written and stored: what publishing and
//! merging have in common.

use crate::{Blobs, DepotError, NewLevel, OpenLevel, lasting::Packs, segment};
use haulout_archive::{
    Content, Entry, Page,
    merge::{Merge, PackUnion},
};
use haulout_nix::HashPart;
use std::{cell::RefCell, path::Path, sync::Arc};
use tokio::runtime::Handle;

/// The entries of a level, in order. Must be used on a thread that may block.
pub(crate) struct Entries {
    handle: Handle,
    blobs: Arc<dyn Blobs>,
    level: Arc<OpenLevel>,
    number: u64,
    page: Option<Page>,
    at: usize,
    /// Where to begin in the first page, which was not read yet.
    from: Option<HashPart>,
    failed: bool,
}

impl Entries {
    /// From the first key that is not below `from`.
    pub(crate) fn new(
        handle: &Handle,
        blobs: &Arc<dyn Blobs>,
        level: &Arc<OpenLevel>,
        from: HashPart,
    ) -> Self {
        let number = level.directory().page_of(&from);
        let (blobs, level, handle) = (Arc::clone(blobs), Arc::clone(level), handle.clone());
        Self { handle, blobs, level, number, page: None, at: 0, from: Some(from), failed: false }
    }

    /// All of them.
    pub(crate) fn all(handle: &Handle, blobs: &Arc<dyn Blobs>, level: &Arc<OpenLevel>) -> Self {
        Self::new(handle, blobs, level, HashPart::from_bytes([0; 20]))
    }

    fn fetch(&self) -> Result<Page, DepotError> {
        self.handle.block_on(self.level.fetch_page(&*self.blobs, self.number))
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, DepotError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed {
            if self.number >= self.level.directory().footer().pages() {
                return None;
            }
            let page = match self.page.take().map_or_else(|| self.fetch(), Ok) {
                Ok(page) => page,
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            };
            if let Some(from) = self.from.take() {
                self.at = page.position(&from).unwrap_or_else(|at| at);
            }
            if self.at < page.len() {
                let entry = page
                    .entry(self.at)
                    .map_err(|error| DepotError::corrupt("an index entry", error));
                self.at += 1;
                self.page = Some(page);
                return Some(entry);
            }
            self.number += 1;
            self.at = 0;
        }
        None
    }
}

/// Entries in the order of their keys.
pub(crate) type Sorted = Box<dyn Iterator<Item = Result<Entry, DepotError>>>;

/// How levels become one. Must be used on a thread that may block.
pub(crate) struct Join<'a> {
    pub(crate) handle: &'a Handle,
    pub(crate) blobs: &'a Arc<dyn Blobs>,
    /// Where the index is written before it is stored.
    pub(crate) scratch: &'a Path,
    /// For how many epochs the index is stored.
    pub(crate) epochs: u32,
    /// Whether the archive's oldest level takes part: what is left out then needs no tombstone.
    pub(crate) oldest: bool,
}

impl Join<'_> {
    /// Stores the level made of these, newest first, without what `drop` names and without what has a
    /// pack that is gone. `about` says how many entries there are, roughly. Gives the new level, unless
    /// nothing is left, and how many entries were lost with their packs.
    pub(crate) fn store(
        &self,
        newest_first: Vec<Sorted>,
        packs: Packs,
        about: u64,
        drop: impl Fn(&HashPart) -> bool,
    ) -> Result<(Option<NewLevel>, u64), DepotError> {
        let mut lost = 0;
        let union = RefCell::new(PackUnion::new(packs.tables().to_vec()));
        let entries = Merge::new(newest_first, self.oldest).filter_map(|item| {
            let kept = item.and_then(|(from, mut entry)| {
                let gone = !packs.last(from, &entry);
                lost += u64::from(gone);
                if gone || drop(&entry.key) {
                    let hidden = Entry { key: entry.key, content: Content::Tombstone };
                    return Ok((!self.oldest).then_some(hidden));
                }
                let adopted = union.borrow_mut().adopt(from, &mut entry);
                adopted
                    .map_err(|error| DepotError::corrupt("an index entry", error))
                    .map(|()| Some(entry))
            });
            kept.transpose()
        });
        let table = || union.take().into_table();
        let level = segment::write_and_store(
            self.handle,
            &**self.blobs,
            self.scratch,
            self.epochs,
            about,
            entries,
            table,
        )?;
        Ok((level, lost))
    }
}
