//! What the cache knows in memory.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use haulout_nix::{NarHash, StoreDir};

use crate::{
    Faults, UnixTime,
    evict::{self, Candidate},
    index::{Batch, Limits, NarRow, Rows},
};

/// Seconds for which nothing is stored after the disk refused something.
pub(crate) const PAUSE_SECONDS: u64 = 60;
/// narinfos and trees held in memory until the next [`crate::Cache::tick`]; more are not stored
/// (about 8 MB of narinfos).
const PENDING_MAX: usize = 16_384;
/// The same for misses, which are small.
const PENDING_MISSES_MAX: usize = 65_536;
/// A use is noted only when the last one noted is older, so that a busy file does not keep the disk
/// busy.
const TOUCH_SECONDS: u64 = 60;
/// Share of the quota one NAR may take: 1 / this.
const LARGEST_SHARE: u64 = 4;
/// NARs held; more files than this are a burden on start-up, whatever their size.
pub(crate) const NARS_MAX: usize = 100_000;

/// Limits of a cache.
#[derive(Clone)]
pub struct CacheConfig {
    /// Bytes of NAR content to keep at most.
    pub quota_bytes: u64,
    /// narinfos to keep at most (about 600 bytes each on disk).
    pub narinfos_max: u64,
    /// Misses to keep at most.
    pub misses_max: u64,
    /// Bytes of BLAKE3 trees to keep at most (a tree is 1/2048 of its NAR).
    pub tree_bytes_max: u64,
    /// Seconds after which a miss is no longer believed, whatever it says: a clock may have been
    /// wrong.
    pub miss_seconds_max: u64,
    /// The store directory narinfos are for.
    pub store_dir: StoreDir,
    /// Makes the disk fail, in tests.
    pub faults: Option<Arc<dyn Faults>>,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            quota_bytes: 10 << 30,
            narinfos_max: 100_000,
            misses_max: 100_000,
            tree_bytes_max: 64 << 20,
            miss_seconds_max: 3600,
            store_dir: StoreDir::default(),
            faults: None,
        }
    }
}

impl CacheConfig {
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            narinfos: self.narinfos_max,
            misses: self.misses_max,
            tree_bytes: self.tree_bytes_max,
        }
    }
}

/// Figures for the status page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Bytes of NAR content held.
    pub used_bytes: u64,
    /// Bytes allowed.
    pub quota_bytes: u64,
    /// NARs held completely.
    pub nars: u64,
    /// narinfos in the index (as of the last write).
    pub narinfos: u64,
    /// Misses in the index (as of the last write).
    pub misses: u64,
    /// Trees in the index (as of the last write).
    pub trees: u64,
    /// Why nothing is being stored at the moment, if so.
    pub paused: Option<String>,
    /// What was found wrong when the cache was opened, in words.
    pub warnings: Vec<String>,
}

/// A NAR on disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) row: NarRow,
    /// Its bytes were hashed since the start (or while they were written).
    pub(crate) checked: bool,
}

#[derive(Debug)]
pub(crate) struct Pause {
    reason: String,
    until: UnixTime,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) pending: Batch,
    /// Being written now; still answers questions.
    pub(crate) flushing: Option<Arc<Batch>>,
    pub(crate) nars: HashMap<NarHash, Held>,
    pub(crate) used: u64,
    /// NARs that went since the start.
    pub(crate) lost: u64,
    /// Bytes promised to writers at work.
    pub(crate) reserved: u64,
    pub(crate) writing: HashSet<NarHash>,
    pub(crate) next_temporary: u64,
    pub(crate) pause: Option<Pause>,
    pub(crate) rows: Rows,
    pub(crate) warnings: Vec<String>,
}

impl State {
    /// Whether a change may be added to the pending ones.
    pub(crate) fn has_room(&self) -> bool {
        self.pending.narinfos.len() + self.pending.trees.len() < PENDING_MAX
            && self.pending.misses.len() < PENDING_MISSES_MAX
    }

    /// Look through what is not on disk yet, newest first.
    pub(crate) fn unwritten<T>(&self, look: impl Fn(&Batch) -> Option<T>) -> Option<T> {
        look(&self.pending).or_else(|| self.flushing.as_deref().and_then(look))
    }

    pub(crate) fn pause(&mut self, reason: String, now: UnixTime) {
        tracing::warn!(%reason, "caching paused");
        self.pause = Some(Pause { reason, until: UnixTime(now.0.saturating_add(PAUSE_SECONDS)) });
    }

    /// Whether nothing should be written now. A pause ends by itself; one that would end far in the
    /// future because the clock went back has ended, too.
    pub(crate) fn is_paused(&mut self, now: UnixTime) -> bool {
        let over = self
            .pause
            .as_ref()
            .is_some_and(|pause| now >= pause.until || now.0 + PAUSE_SECONDS < pause.until.0);
        if over {
            self.pause = None;
        }
        self.pause.is_some()
    }

    pub(crate) fn pause_reason(&self) -> Option<String> {
        self.pause.as_ref().map(|pause| pause.reason.clone())
    }

    pub(crate) fn insert(&mut self, hash: NarHash, held: Held) {
        if let Some(old) = self.nars.insert(hash, held) {
            self.used -= old.row.size;
        }
        self.used += held.row.size;
        self.pending.nars.insert(hash, Some(held.row));
    }

    /// `true` when it was there.
    pub(crate) fn remove(&mut self, hash: &NarHash) -> bool {
        let Some(old) = self.nars.remove(hash) else {
            return false;
        };
        self.used -= old.row.size;
        self.lost += 1;
        self.pending.nars.insert(*hash, None);
        true
    }

    pub(crate) fn touch(&mut self, hash: &NarHash, now: UnixTime) -> Option<Held> {
        let held = self.nars.get_mut(hash)?;
        if now.0.abs_diff(held.row.last_use.0) >= TOUCH_SECONDS {
            held.row.last_use = now;
            self.pending.nars.insert(*hash, Some(held.row));
        }
        Some(*held)
    }

    /// Set `size` bytes aside for a writer. `None` when that cannot be; otherwise the NARs that
    /// have to be removed from the disk for it (they are gone from here already).
    pub(crate) fn reserve(&mut self, size: u64, quota: u64, now: UnixTime) -> Option<Vec<NarHash>> {
        if size > quota / LARGEST_SHARE || self.reserved.saturating_add(size) > quota {
            return None;
        }
        self.reserved += size;
        Some(self.evict(quota, now))
    }

    /// Take out of the books what exceeds the quota.
    pub(crate) fn evict(&mut self, quota: u64, now: UnixTime) -> Vec<NarHash> {
        let wanted = self.used.saturating_add(self.reserved);
        let mut excess = wanted.saturating_sub(quota);
        if self.nars.len() >= NARS_MAX {
            excess = excess.max(self.used / 20);
        }
        if excess == 0 {
            return Vec::new();
        }
        // Somewhat more than needed, so that not every new file starts another search.
        excess = excess.max(quota / 50).min(self.used);
        let all = self.nars.iter().map(|(hash, held)| Candidate {
            key: *hash,
            size: held.row.size,
            last_use: held.row.last_use.0,
            holders: held.row.holders,
        });
        let victims = evict::victims(all.collect(), excess, now.0);
        for hash in &victims {
            self.remove(hash);
        }
        victims
    }
}
