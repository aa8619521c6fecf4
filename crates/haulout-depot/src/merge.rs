//! Levels made one.

use crate::{
    DepotError, Kind, OpenLevel, Reader, Registry, Update,
    join::{Entries, Join, Sorted},
    lasting::{self, Packs},
};
use haulout_nix::HashPart;
use std::{collections::HashSet, path::PathBuf, sync::Arc};
use tokio::runtime::Handle;

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
    let oldest = levels.len() == reader.levels().len();
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
        let about = levels.iter().map(|level| level.record().leaves).sum();
        let newest_first = levels
            .iter()
            .map(|level| -> Sorted { Box::new(Entries::all(&handle, &blobs, level)) })
            .collect();
        let (handle, blobs) = (&handle, &blobs);
        let join = Join { handle, blobs, scratch: &scratch, epochs, oldest };
        join.store(newest_first, packs, about, |key| drop.contains(key))
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
