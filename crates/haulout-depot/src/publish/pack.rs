//! NARs become packs, and packs are stored.

use super::{
    Progress, Run,
    packer::{ClosedPack, Packer},
};
use crate::{Certify, DepotError, journal::Journal};
use haulout_archive::{
    Compression, Entry, NarPlace,
    entry::Path as ArchivePath,
    pack::{PACK_BYTES_MAX, packing_order},
    segment::BlobRecord,
};
use haulout_nix::{HashPart, PathInfo};
use std::fs;

impl Run {
    /// Packs and stores what the journal has not got yet; gives the keys of all that were wanted.
    pub(super) fn pack(
        &mut self,
        add: &[PathInfo],
        roots: &[HashPart],
        journal: &mut Journal,
    ) -> Result<Vec<HashPart>, DepotError> {
        let max = self.handle.block_on(self.blobs.blob_bytes_max())?.min(PACK_BYTES_MAX);
        let mut packer = Packer::new(&self.options, max, journal.packs().len());
        let mut progress = Progress {
            of_paths: add.len(),
            // What infos say, before any NAR was seen: it may be anything.
            of_nar_bytes: add.iter().map(|info| info.nar_size).fold(0, u64::saturating_add),
            ..Progress::default()
        };
        for at in packing_order(add, roots) {
            let Some(info) = add.get(at) else { continue };
            self.pack_one(info, &mut packer, journal)?;
            self.report.added += 1;
            self.report.nar_bytes += info.nar_size;
            progress.paths += 1;
            progress.nar_bytes += info.nar_size;
            if let Some(report) = &self.options.progress {
                report(&progress);
            }
        }
        if let Some(last) = packer.finish()? {
            self.store(last, journal)?;
        }
        Ok(add.iter().map(|info| info.path.hash_part()).collect())
    }

    /// Packs a path unless an earlier run did, and stores the packs that it completes.
    fn pack_one(
        &mut self,
        info: &PathInfo,
        packer: &mut Packer,
        journal: &mut Journal,
    ) -> Result<(), DepotError> {
        let journalled = journal.entries().get(&info.path.hash_part()).and_then(Entry::as_path);
        if let Some(path) = journalled.filter(|path| path.info == *info) {
            self.report.resumed += 1;
            self.report.packed_bytes += path.nar.stored_len();
            return Ok(());
        }
        let nar = packer.compress(&self.handle, &*self.source, info)?;
        self.report.packed_bytes += nar.length;
        let extents = packer.append(&nar)?;
        // Those before it end in the packs that it completed; it ends in the one after them.
        for closed in packer.closed() {
            self.store(closed?, journal)?;
        }
        packer.pending.push(Entry::path(ArchivePath {
            info: info.clone(),
            nar: NarPlace { root: nar.root, compression: Compression::Zstd, extents },
            last_asked: self.options.today,
        }));
        Ok(())
    }

    fn store(&mut self, pack: ClosedPack, journal: &mut Journal) -> Result<(), DepotError> {
        let stored = self.handle.block_on(self.blobs.store(
            &pack.file,
            self.options.epochs,
            Certify::Now,
        ))?;
        let record = BlobRecord {
            blob_id: stored.blob.0,
            object: stored.object,
            size: pack.size,
            end_epoch: stored.end_epoch,
        };
        journal.record(record, pack.entries)?;
        self.report.packs += 1;
        // The journal knows it now; a file that stays behind is overwritten by the next run.
        let _ = fs::remove_file(&pack.file);
        Ok(())
    }
}
