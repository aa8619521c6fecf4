//! The new level, merged with older ones where that is due, is put into the archive.

use super::{Run, plan::Changed};
use crate::{
    DepotError, Kind, Reader, Update,
    join::{Entries, Join, Sorted},
    journal::Journal,
    lasting::{self, Packs},
    merge::levels_to_merge,
};
use haulout_archive::{Content, Entry, segment::BlobRecord};
use haulout_nix::HashPart;

/// Times that an update is tried anew because somebody else was faster.
const CONFLICTS_MAX: u32 = 5;

/// What is put on top of the levels that are there.
struct Delta {
    /// In order, each key once.
    entries: Vec<Entry>,
    /// The packs that they point to.
    table: Vec<BlobRecord>,
}

impl Delta {
    fn new(journal: &Journal, wanted: &[HashPart], change: &[Changed]) -> Self {
        let mut table = journal.packs().to_vec();
        let mut entries: Vec<Entry> =
            wanted.iter().filter_map(|key| journal.entries().get(key)).cloned().collect();
        for Changed { entry, packs } in change {
            let mut entry = entry.clone();
            if let Content::Path(path) = &mut entry.content {
                path.nar.extents.iter_mut().for_each(|extent| extent.pack += table.len() as u32);
            }
            table.extend(packs);
            entries.push(entry);
        }
        entries.sort_by_key(|entry| entry.key);
        entries.dedup_by_key(|entry| entry.key);
        Self { entries, table }
    }
}

impl Run {
    /// Makes the new level and puts it into the archive; anew when somebody else was faster.
    pub(super) fn update(
        &mut self,
        mut reader: Reader,
        journal: &Journal,
        wanted: &[HashPart],
        change: &[Changed],
        epoch: u32,
    ) -> Result<(), DepotError> {
        for _ in 0..CONFLICTS_MAX {
            match self.try_update(&reader, Delta::new(journal, wanted, change), epoch) {
                Err(error) if error.kind == Kind::Conflict => {
                    let state = self.handle.block_on(self.registry.state())?;
                    reader = self.handle.block_on(reader.advance(state))?;
                }
                other => return other,
            }
        }
        Err(DepotError::new(
            Kind::Conflict,
            "others publish to this archive all the time; try again",
        ))
    }

    fn try_update(&mut self, reader: &Reader, delta: Delta, epoch: u32) -> Result<(), DepotError> {
        let sizes: Vec<u64> = reader.levels().iter().map(|level| level.record().leaves).collect();
        let added = delta.entries.len() as u64;
        let count = levels_to_merge(&sizes, added).max(lasting::ended(reader.levels(), epoch));
        let merged = reader.levels().get(..count).unwrap_or_default();
        let join = Join {
            handle: &self.handle,
            blobs: &self.blobs,
            scratch: &self.options.scratch,
            epochs: self.options.epochs,
            oldest: count == reader.levels().len(),
        };
        let mut tables = vec![delta.table];
        let mut levels: Vec<Sorted> = vec![Box::new(delta.entries.into_iter().map(Ok))];
        for level in merged {
            tables.push(self.handle.block_on(level.packs(&*self.blobs))?);
            levels.push(Box::new(Entries::all(&self.handle, &self.blobs, level)));
        }
        let packs = self.handle.block_on(Packs::now(&*self.blobs, tables, epoch))?;
        let about = added + merged.iter().map(|level| level.record().leaves).sum::<u64>();
        let (level, lost) = join.store(levels, packs, about, |_| false)?;
        let level =
            level.ok_or_else(|| DepotError::new(Kind::Refused, "there is nothing to publish"))?;
        let update = Update::Level { level, keep: reader.positions(count), place: 0 };
        self.report.sequence =
            self.handle.block_on(self.registry.update(reader.state().sequence, &update))?;
        (self.report.merged, self.report.lost) = (count, lost);
        Ok(())
    }
}
