//! Re-reading an archive from the root down.

use crate::{DepotError, Kind, Reader, Standing, join::Entries};
use haulout_archive::{Content, merge::Merge, segment::BlobRecord};
use haulout_nix::{HashPart, StorePath};
use redstuff::BlobId;
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};
use tokio::runtime::Handle;

/// Most problems that are listed; all are counted.
const PROBLEMS_MAX: usize = 1000;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// The archive's sequence.
    pub sequence: u64,
    /// Walrus' epoch.
    pub epoch: u32,
    /// The levels, newest first.
    pub levels: Vec<LevelFinding>,
    /// Paths in the archive.
    pub paths: u64,
    /// Bytes of their NARs.
    pub nar_bytes: u64,
    /// Packs that they use.
    pub packs: usize,
    /// Packs that are no longer stored.
    pub packs_gone: usize,
    /// Paths whose NAR is, wholly or in part, in such a pack.
    pub paths_gone: u64,
    /// References to paths that the archive has not got.
    pub missing_references: u64,
    /// NARs that were read and hashed.
    pub nars_checked: u64,
    /// How many packs end at which epoch.
    pub ends: BTreeMap<u32, usize>,
    /// What is wrong, in words; the first thousand.
    pub problems: Vec<String>,
    /// How many problems there are.
    pub problem_count: u64,
}

/// A level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LevelFinding {
    /// Entries.
    pub leaves: u64,
    /// Its root blob.
    pub blob: BlobId,
    /// End that the archive's state promises.
    pub end_epoch: u32,
    /// End of its root blob, where it could be told.
    pub stored_until: Option<u32>,
}

impl Findings {
    /// Whether everything is as it should be.
    #[must_use]
    pub const fn is_well(&self) -> bool {
        self.problem_count == 0
    }

    fn problem(&mut self, text: String) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(text);
        }
    }
}

/// Reads every page of the index, asks about every blob, and with `deep` reads and hashes every NAR.
///
/// What is wrong with the archive is in the findings.
///
/// # Errors
/// When the state of blobs cannot be had at all, or an index page cannot be read.
pub async fn verify(reader: &Reader, epoch: u32, deep: bool) -> Result<Findings, DepotError> {
    let mut findings = Findings { sequence: reader.state().sequence, epoch, ..Findings::default() };
    for lost in reader.lost() {
        findings.problem(format!(
            "the level of index blob {} ended with epoch {} and is no longer stored: what only it had is gone",
            lost.blob, lost.end_epoch
        ));
    }
    levels(reader, &mut findings).await?;
    let entries = collect(reader).await?;
    let mut standings: HashMap<[u8; 32], bool> = HashMap::new();
    let keys: HashSet<HashPart> = entries.iter().map(|entry| entry.1.key).collect();
    let mut tables: HashMap<usize, Vec<BlobRecord>> = HashMap::new();
    for (level, entry) in &entries {
        let Content::Path(path) = &entry.content else { continue };
        findings.paths += 1;
        findings.nar_bytes = findings.nar_bytes.saturating_add(path.info.nar_size);
        for reference in &path.info.references {
            if !keys.contains(&reference.hash_part()) {
                findings.missing_references += 1;
                findings.problem(format!(
                    "{} needs {reference}, which is not in the archive",
                    path.info.path
                ));
            }
        }
        if !tables.contains_key(level)
            && let Some(open) = reader.levels().get(*level)
        {
            tables.insert(*level, open.packs(&**reader.blobs()).await?);
        }
        let table = tables.get(level).map(Vec::as_slice).unwrap_or_default();
        let mut gone = false;
        for extent in &path.nar.extents {
            let Some(record) = table.get(extent.pack as usize) else {
                findings.problem(format!("{} names a pack that does not exist", path.info.path));
                continue;
            };
            gone |= !stands(reader, record, &mut standings, &mut findings).await?;
        }
        findings.paths_gone += u64::from(gone);
        if deep && !gone {
            check_nar(reader, *level, path, &mut findings).await?;
        }
    }
    findings.packs = standings.len();
    Ok(findings)
}

async fn levels(reader: &Reader, findings: &mut Findings) -> Result<(), DepotError> {
    for level in reader.levels() {
        let record = level.record();
        let mut blobs = vec![(record.blob, record.object, true)];
        let parts = level.directory().parts();
        blobs.extend(parts.iter().map(|part| (BlobId(part.blob.blob_id), part.blob.object, false)));
        let mut stored_until = None;
        for (blob, object, root) in blobs {
            match reader.blobs().standing(blob, object).await? {
                Standing::Until(end) => {
                    if root {
                        stored_until = Some(end);
                    }
                    if end < record.end_epoch {
                        findings
                            .problem(format!("index blob {blob} is stored until epoch {end} only"));
                    }
                }
                Standing::Gone => {
                    findings.problem(format!("index blob {blob} is no longer stored"))
                }
                Standing::Unknown => {}
            }
        }
        if record.end_epoch <= findings.epoch {
            let problem = format!(
                "the level of index blob {} has ended with epoch {}",
                record.blob, record.end_epoch
            );
            findings.problem(problem);
        }
        findings.levels.push(LevelFinding {
            leaves: record.leaves,
            blob: record.blob,
            end_epoch: record.end_epoch,
            stored_until,
        });
    }
    Ok(())
}

/// All paths with their levels; every page is read and checked on the way.
async fn collect(reader: &Reader) -> Result<Vec<(usize, haulout_archive::Entry)>, DepotError> {
    let (blobs, levels) = (Arc::clone(reader.blobs()), reader.levels().to_vec());
    let handle = Handle::current();
    let work = move || {
        let entries: Vec<Entries> =
            levels.iter().map(|level| Entries::all(&handle, &blobs, level)).collect();
        Merge::new(entries, true).collect()
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| DepotError::new(Kind::Local, "verifying ended early").because(error))?
}

async fn stands(
    reader: &Reader,
    record: &BlobRecord,
    known: &mut HashMap<[u8; 32], bool>,
    findings: &mut Findings,
) -> Result<bool, DepotError> {
    if let Some(known) = known.get(&record.blob_id) {
        return Ok(*known);
    }
    let blob = BlobId(record.blob_id);
    let standing = reader.blobs().standing(blob, record.object).await?;
    match standing {
        Standing::Until(end) => *findings.ends.entry(end).or_default() += 1,
        Standing::Gone => {
            findings.packs_gone += 1;
            findings.problem(format!("pack {blob} is no longer stored"));
        }
        Standing::Unknown => *findings.ends.entry(record.end_epoch).or_default() += 1,
    }
    let stands = standing != Standing::Gone;
    known.insert(record.blob_id, stands);
    Ok(stands)
}

async fn check_nar(
    reader: &Reader,
    level: usize,
    path: &haulout_archive::entry::Path,
    findings: &mut Findings,
) -> Result<(), DepotError> {
    let found = crate::Found { path: path.clone(), level };
    let name: StorePath = path.info.path.clone();
    let checked = async { reader.nar(&found).await?.write_to(&mut std::io::sink()).await };
    findings.nars_checked += 1;
    if let Err(error) = checked.await {
        findings.problem(format!("{name}: {error}"));
    }
    Ok(())
}
