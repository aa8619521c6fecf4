//! What is to be done with each of the given paths.

use super::Run;
use crate::{Blobs, DepotError, Found, Reader, Standing};
use haulout_archive::{Entry, entry::Path as ArchivePath, segment::BlobRecord};
use haulout_nix::PathInfo;
use redstuff::BlobId;
use std::collections::HashMap;

/// What is to be done with the given paths.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) add: Vec<PathInfo>,
    /// Entries that change without their NAR.
    pub(super) change: Vec<Changed>,
}

/// An entry that changes without its NAR, with the packs that it points to by their position here.
pub(super) struct Changed {
    pub(super) entry: Entry,
    pub(super) packs: Vec<BlobRecord>,
}

impl Run {
    /// Sorts the paths into new ones, those that get more signatures, and those that are there.
    pub(super) fn plan(
        &mut self,
        reader: &Reader,
        infos: Vec<PathInfo>,
        epoch: u32,
    ) -> Result<Plan, DepotError> {
        let mut plan = Plan::default();
        let mut standing = Standings { blobs: &*self.blobs, epoch, known: HashMap::new() };
        for info in infos {
            let stored = self.handle.block_on(stored(reader, &mut standing, &info))?;
            let Some((found, packs)) = stored else {
                plan.add.push(info);
                continue;
            };
            match more_signatures(found, info, self.options.today) {
                None => self.report.present += 1,
                Some(entry) => {
                    self.report.signed += 1;
                    plan.change.push(Changed { entry, packs });
                }
            }
        }
        Ok(plan)
    }
}

/// What the archive has of a path, with a pack for each extent of its NAR: if it is the same NAR, and
/// all of its packs are still stored.
async fn stored(
    reader: &Reader,
    standing: &mut Standings<'_>,
    info: &PathInfo,
) -> Result<Option<(Found, Vec<BlobRecord>)>, DepotError> {
    let Some(found) = reader.find(&info.path.hash_part()).await? else { return Ok(None) };
    let known = &found.path.info;
    if (known.nar_hash, known.nar_size) != (info.nar_hash, info.nar_size) {
        return Ok(None);
    }
    let mut packs = Vec::new();
    for extent in &found.path.nar.extents {
        packs.push(reader.pack(found.level, extent.pack).await?);
    }
    Ok(standing.all(&packs).await?.then_some((found, packs)))
}

/// The entry of a path that is there already, if it is signed by more keys than it was. Signatures only
/// ever come to it. Its extents are numbered as its packs were read.
fn more_signatures(found: Found, mut info: PathInfo, today: u32) -> Option<Entry> {
    let known = found.path.info.signatures;
    let mut signatures = known.clone();
    signatures.append(&mut info.signatures);
    info.signatures = signatures;
    info.normalise();
    if info.signatures == known {
        return None;
    }
    let mut nar = found.path.nar;
    for (number, extent) in (0u32..).zip(&mut nar.extents) {
        extent.pack = number;
    }
    Some(Entry::path(ArchivePath { info, nar, last_asked: today }))
}

/// Which packs are still stored, each asked about once.
struct Standings<'a> {
    blobs: &'a dyn Blobs,
    epoch: u32,
    known: HashMap<[u8; 32], bool>,
}

impl Standings<'_> {
    async fn all(&mut self, packs: &[BlobRecord]) -> Result<bool, DepotError> {
        for pack in packs {
            let stored = match self.known.get(&pack.blob_id) {
                Some(known) => *known,
                None => match self.blobs.standing(BlobId(pack.blob_id), pack.object).await? {
                    Standing::Until(_) => true,
                    Standing::Gone => false,
                    Standing::Unknown => pack.end_epoch > self.epoch,
                },
            };
            self.known.insert(pack.blob_id, stored);
            if !stored {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
