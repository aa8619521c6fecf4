//! Levels made one.

use crate::{
    Blobs, DepotError, Kind, OpenLevel, Reader, Registry, Update,
    lasting::{self, Packs},
    segment,
};
use haulout_archive::{
    Content, Entry, Page,
    merge::{Merge, PackUnion},
};
use haulout_nix::HashPart;
use std::{cell::RefCell, collections::HashSet, path::PathBuf, sync::Arc};
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

/// What a merge did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merged {
    /// Levels that became one.
    pub levels: usize,
    /// Entries of the new level.
    pub leaves: u64,
    /// Paths left out because a pack of theirs is no longer stored.
    pub lost: u64,
    /// The new sequence.
    pub sequence: u64,
}

/// Merges the newest `count` levels of an archive, leaving out the paths of `drop`.
///
/// A dropped path vanishes when the oldest level takes part; otherwise it becomes a tombstone. Without
/// `epochs` the new index is stored as long as the longest of those that it replaces.
///
/// # Errors
/// When a level cannot be read, the archive was changed in the meantime, a path to drop is not there, or
/// there is nothing to do.
pub async fn merge(
    reader: &Reader,
    registry: &dyn Registry,
    count: usize,
    drop: HashSet<HashPart>,
    epochs: Option<u32>,
    scratch: PathBuf,
) -> Result<Merged, DepotError> {
    let epoch = registry.epoch().await?;
    let count = count.max(lasting::ended(reader.levels(), epoch));
    let levels = to_merge(reader, count, &drop, epoch).await?;
    let all = levels.len() == reader.levels().len();
    let mut tables = Vec::with_capacity(levels.len());
    for level in &levels {
        tables.push(level.packs(&**reader.blobs()).await?);
    }
    let blobs = Arc::clone(reader.blobs());
    let packs = Packs::now(&*blobs, tables, epoch).await?;
    let longest = levels.iter().map(|level| level.record().end_epoch).max().unwrap_or(0);
    let epochs = epochs.unwrap_or_else(|| longest.saturating_sub(epoch).max(1));
    let handle = Handle::current();
    let work = move || {
        let mut lost = 0;
        let start = HashPart::from_bytes([0; 20]);
        let about = levels.iter().map(|level| level.record().leaves).sum();
        let iterators: Vec<Entries> =
            levels.iter().map(|level| Entries::new(&handle, &blobs, level, start)).collect();
        let union = RefCell::new(PackUnion::new(packs.tables().to_vec()));
        let entries = Merge::new(iterators, all).filter_map(|item| {
            let adopted = item.and_then(|(from, mut entry)| {
                let gone = !packs.last(from, &entry);
                lost += u64::from(gone);
                if gone || drop.contains(&entry.key) {
                    return Ok(
                        (!all).then_some(Entry { key: entry.key, content: Content::Tombstone })
                    );
                }
                let adopted = union.borrow_mut().adopt(from, &mut entry);
                adopted
                    .map_err(|error| DepotError::corrupt("an index entry", error))
                    .map(|()| Some(entry))
            });
            adopted.transpose()
        });
        let level =
            segment::write_and_store(&handle, &*blobs, &scratch, epochs, about, entries, || {
                union.take().into_table()
            })?;
        Ok::<_, DepotError>((level, lost))
    };
    let (level, lost) = tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| DepotError::new(Kind::Local, "merging ended early").because(error))??;
    let level = level
        .ok_or_else(|| DepotError::new(Kind::Refused, "nothing would be left of the archive"))?;
    let update = Update::Level { level, keep: reader.positions(count), place: 0 };
    let sequence = registry.update(reader.state().sequence, &update).await?;
    Ok(Merged { levels: count, leaves: level.leaves, lost, sequence })
}

/// The newest `count` levels, if there are so many and a merge of them changes anything.
async fn to_merge(
    reader: &Reader,
    count: usize,
    drop: &HashSet<HashPart>,
    epoch: u32,
) -> Result<Vec<Arc<OpenLevel>>, DepotError> {
    let refused = |message: String| Err(DepotError::new(Kind::Refused, message));
    let of = reader.levels().len();
    for key in drop {
        if reader.find(key).await?.is_none() {
            return refused(format!("{key} is not in the archive: it cannot be left out"));
        }
    }
    match reader.levels().get(..count) {
        _ if of == 0 && reader.lost().is_empty() => {
            refused("nothing was published yet: there is nothing to merge".to_owned())
        }
        _ if of == 0 => refused("nothing of the archive is stored any more".to_owned()),
        Some([one]) if drop.is_empty() && one.record().end_epoch > epoch => {
            refused("one level alone is as merged as can be, and nothing is left out".to_owned())
        }
        Some(levels) if !levels.is_empty() => Ok(levels.to_vec()),
        _ => refused(format!("the archive has {of} levels: 1 to {of} of them can be merged")),
    }
}

/// How many of the newest levels a new one of `added` entries should be merged with, so that there
/// is always room, and no level is much smaller than the next newer ones together.
#[must_use]
pub fn levels_to_merge(levels: &[u64], added: u64) -> usize {
    use haulout_archive::contract::LEVELS_MAX;
    let must = (levels.len() + 1).saturating_sub(LEVELS_MAX);
    let mut size = added;
    let mut count = 0;
    for leaves in levels {
        if count >= must && *leaves > size.saturating_mul(2) {
            break;
        }
        size = size.saturating_add(*leaves);
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::levels_to_merge;

    #[test]
    fn levels_grow_like_a_staircase() {
        assert_eq!(levels_to_merge(&[], 10), 0);
        assert_eq!(levels_to_merge(&[1000], 10), 0);
        assert_eq!(levels_to_merge(&[15, 1000], 10), 1);
        assert_eq!(levels_to_merge(&[10, 25, 30, 10_000], 10), 3);
        // Nine levels are too many, whatever their sizes.
        let steep: Vec<u64> = (1..=8u32).map(|i| 10u64.pow(i + 1)).collect();
        assert_eq!(levels_to_merge(&steep, 1), 1);
        // Publishing one path at a time never needs more than eight levels.
        let mut levels: Vec<u64> = Vec::new();
        for _ in 0..5000 {
            let count = levels_to_merge(&levels, 1);
            let merged: u64 = levels.drain(..count).sum();
            levels.insert(0, merged + 1);
            assert!(levels.len() <= 8);
        }
    }
}
