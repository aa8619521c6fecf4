//! Publishing: paths become packs, packs an index, the index a level of the archive.
//!
//! Nothing is visible before the last step, the update of the registry; and everything before it may be
//! done twice without being paid twice.

mod pack;
mod packer;
mod plan;
mod store;
mod update;

pub use store::{StoreSource, closure};

use crate::{Blobs, DepotError, Kind, NarSource, Reader, Registry, State, journal::Journal};
use haulout_nix::{HashPart, PathInfo, SecretKey, StoreDir};
use std::{fmt, fs, path::PathBuf, sync::Arc};
use tokio::runtime::Handle;

/// Told how far it is.
pub type OnProgress = Box<dyn Fn(&Progress) + Send>;

/// How to publish.
pub struct Options {
    /// For how many epochs everything is stored, the current one included.
    pub epochs: u32,
    /// zstd level.
    pub level: i32,
    /// A pack is closed when it has so many bytes.
    pub pack_bytes: u64,
    /// Where the journal and packs in the making are kept; packs need room for one of the largest.
    pub scratch: PathBuf,
    /// Signs every path that this key has not signed yet.
    pub sign: Option<SecretKey>,
    /// Today, in days since 1970: written as the time when the paths were last asked for.
    pub today: u32,
    /// Called after each path.
    pub progress: Option<OnProgress>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("epochs", &self.epochs)
            .field("scratch", &self.scratch)
            .finish_non_exhaustive()
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Paths packed.
    pub paths: usize,
    /// Of so many.
    pub of_paths: usize,
    /// Bytes of their NARs.
    pub nar_bytes: u64,
    /// Of so many.
    pub of_nar_bytes: u64,
}

/// What was published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Paths whose NARs are new in the archive.
    pub added: usize,
    /// Paths that were there and got more signatures.
    pub signed: usize,
    /// Paths that were there as they are.
    pub present: usize,
    /// Of the added ones, how many an earlier, interrupted run had stored.
    pub resumed: usize,
    /// Bytes of the added NARs.
    pub nar_bytes: u64,
    /// Bytes of them in packs.
    pub packed_bytes: u64,
    /// Packs stored by this run.
    pub packs: usize,
    /// Older levels that were merged with the new one.
    pub merged: usize,
    /// Paths of them that were left out because a pack of theirs is no longer stored.
    pub lost: u64,
    /// The archive's sequence now.
    pub sequence: u64,
}

/// Publishes paths. `roots` are those that were asked for; they decide the order in the packs.
///
/// # Errors
/// When a path's NAR is not what its info says, a limit is met, or the archive cannot be written. What
/// was stored until then is not lost: publishing again goes on from there.
pub async fn publish(
    blobs: Arc<dyn Blobs>,
    registry: Arc<dyn Registry>,
    source: Arc<dyn NarSource>,
    infos: Vec<PathInfo>,
    roots: Vec<HashPart>,
    options: Options,
) -> Result<Report, DepotError> {
    let handle = Handle::current();
    let work = move || {
        Run { handle, blobs, registry, source, options, report: Report::default() }
            .all(infos, &roots)
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| DepotError::new(Kind::Local, "publishing ended early").because(error))?
}

/// One publication, on a thread that may block.
struct Run {
    handle: Handle,
    blobs: Arc<dyn Blobs>,
    registry: Arc<dyn Registry>,
    source: Arc<dyn NarSource>,
    options: Options,
    report: Report,
}

impl Run {
    fn all(mut self, infos: Vec<PathInfo>, roots: &[HashPart]) -> Result<Report, DepotError> {
        fs::create_dir_all(&self.options.scratch).map_err(|error| {
            DepotError::local(format_args!("make {}", self.options.scratch.display()), error)
        })?;
        let state = self.handle.block_on(self.registry.state())?;
        if state.frozen {
            let message = "the archive is frozen: nothing can be published to it any more";
            return Err(DepotError::new(Kind::Refused, message));
        }
        let epoch = self.handle.block_on(self.registry.epoch())?;
        let mut journal = Journal::open(&self.options.scratch, &state.id, epoch)?;
        let left = Reader::open_left(Arc::clone(&self.blobs), state.clone(), epoch);
        let reader = self.handle.block_on(left)?;
        let infos = self.signed(infos, &state)?;
        let plan = self.plan(&reader, infos, epoch)?;
        self.report.sequence = state.sequence;
        if plan.add.is_empty() && plan.change.is_empty() {
            journal.finish()?;
            return Ok(self.report);
        }
        let wanted = self.pack(&plan.add, roots, &mut journal)?;
        self.update(reader, &journal, &wanted, &plan.change, epoch)?;
        journal.finish()?;
        Ok(self.report)
    }

    fn signed(&self, mut infos: Vec<PathInfo>, state: &State) -> Result<Vec<PathInfo>, DepotError> {
        let dir: StoreDir = state.store_dir.parse().map_err(|error| {
            DepotError::new(Kind::Refused, format!("{} is not a store directory", state.store_dir))
                .because(error)
        })?;
        for info in &mut infos {
            if let Some(key) = &self.options.sign {
                info.signatures.push(info.sign(&dir, key));
            }
            info.normalise();
        }
        Ok(infos)
    }
}
