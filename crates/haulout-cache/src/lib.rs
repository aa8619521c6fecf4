//! What an agent keeps on disk: narinfos, misses, BLAKE3 trees, NARs; quota and crash safety.
//!
//! A cache never stands in the way: whatever the disk does, [`Cache`]'s methods answer "not here"
//! or "not stored" and note why ([`CacheStats::paused`]). Only [`Cache::open`] can fail. Everything
//! is synchronous; reads of narinfos, misses and trees are memory or page-cache look-ups, NAR
//! content belongs on threads that may block.
//!
//! Metadata is gathered in memory and written by [`Cache::tick`] in one transaction; a kill loses
//! at most what was not yet written. NAR files are complete or absent, and hashed again before they
//! are first served after a start. The directory is described in `docs/cache-format.md`.

mod backend;
mod cache;
mod evict;
mod faults;
mod format;
mod index;
mod nar;
mod slivers;
mod spill;
mod start;
mod state;

use std::{io, path::PathBuf};

use haulout_nix::PathInfo;

pub use cache::Cache;
pub use faults::{DiskOp, Faults};
pub use nar::{CachedNar, NarWriter};
pub use slivers::{
    Holders, KeptSliver, SLIVER_BYTES_MAX, SliverCache, SliverKey, Stored as StoredSliver,
};
pub use spill::{Spill, SpilledPiece};
pub use state::{CacheConfig, CacheStats};

/// Wall-clock time, whole seconds since 1970. Passed in, never asked for; it may jump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(pub u64);

/// A verified path info from the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedInfo {
    /// The info as it was stored.
    pub info: PathInfo,
    /// When it was stored.
    pub stored_at: UnixTime,
    /// What it was believed for: the name of a key, or a word of the caller's such as `ca`. The
    /// caller decides whether that is still good enough (keys can be withdrawn).
    pub verified_by: String,
}

/// The BLAKE3 tree of a NAR. Not checked here: whoever reads it makes sure that the groups merge to
/// the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTree {
    /// Bytes of the NAR.
    pub nar_size: u64,
    /// Root hash.
    pub root: [u8; 32],
    /// Chaining value of each group.
    pub groups: Vec<[u8; 32]>,
}

/// Why a directory cannot be used as a cache. The agent then runs without one.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Written by another version of the program.
    #[error("{} has cache format {found}, this program knows {known}\nhint: use the newer program, or another directory, or delete this one (it is only a cache)", dir.display())]
    OtherVersion {
        /// The directory.
        dir: PathBuf,
        /// The version in it.
        found: u32,
        /// The version this code reads.
        known: u32,
    },
    /// There is something in the directory, but no cache.
    #[error("{} is not empty and not a cache\nhint: give an empty or new directory", dir.display())]
    NotACache {
        /// The directory.
        dir: PathBuf,
    },
    /// Another process has it open.
    #[error("{} is in use by another process\nhint: another agent may be running; each needs a cache of its own", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The system said no.
    #[error("cannot use {} as a cache", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
