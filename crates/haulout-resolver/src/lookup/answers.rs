//! What was answered lately, and what peers told ahead of being asked.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use haulout_nix::{HashPart, NarHash, PathInfo};
use lru::LruCache;
use tokio::time::Instant;

use super::{Found, MISS_MEMORY};
use crate::bounded::Bounded;

/// What remembered path infos may take, in bytes: some ten thousand, more
/// than the largest closures.
const ANSWERS_BYTES: usize = 12 << 20;
/// How many misses are remembered.
const MISSES_MAX: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// A remembered path info.
#[derive(Clone)]
pub(super) enum Known {
    /// Checked against the trusted keys.
    Verified(Found),
    /// Sent ahead by a peer, not checked.
    Ahead(Found),
}

impl Known {
    fn found(&self) -> &Found {
        match self {
            Self::Verified(found) | Self::Ahead(found) => found,
        }
    }

    pub(super) fn info(&self) -> &PathInfo {
        &self.found().info
    }
}

/// Path infos in memory.
pub(super) struct Answers(Bounded<HashPart, Known>);

impl Answers {
    pub(super) fn new() -> Self {
        Self(Bounded::new(ANSWERS_BYTES))
    }

    pub(super) fn get(&self, hash: &HashPart) -> Option<Known> {
        self.0.get(hash)
    }

    pub(super) fn put(&self, known: Known) {
        let weight = weight(known.info());
        self.0.put(known.info().path.hash_part(), known, weight);
    }

    /// Stores what a peer sent ahead, unless something is known already.
    pub(super) fn put_ahead(&self, found: Found) {
        if self.0.get(&found.info.path.hash_part()).is_none() {
            self.put(Known::Ahead(found));
        }
    }

    pub(super) fn remove(&self, hash: &HashPart) {
        self.0.remove(hash);
    }

    pub(super) fn clear(&self) {
        self.0.clear();
    }
}

/// Estimated heap bytes of a path info.
pub(crate) fn weight(info: &PathInfo) -> usize {
    let path = |name: &str| 48 + name.len();
    size_of::<PathInfo>()
        + path(info.path.name())
        + info.references.iter().map(|reference| path(reference.name())).sum::<usize>()
        + info.deriver.as_ref().map_or(0, |deriver| path(deriver.name()))
        + info.signatures.iter().map(|signature| 112 + signature.name().len()).sum::<usize>()
}

/// Paths whose holders said "no" a moment ago.
pub(crate) struct Misses(Mutex<LruCache<(HashPart, Option<NarHash>), Instant>>);

impl Misses {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(MISSES_MAX)))
    }

    pub(super) fn contains(&self, hash: &HashPart, want: Option<NarHash>) -> bool {
        let mut misses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        misses.get(&(*hash, want)).is_some_and(|since| since.elapsed() < MISS_MEMORY)
    }

    pub(super) fn put(&self, hash: HashPart, want: Option<NarHash>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put((hash, want), Instant::now());
    }

    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
