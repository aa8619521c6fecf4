//! Who lied about which NAR, and which NARs were cut with wrong bytes out.
//!
//! The mesh bans a liar for a while; this memory is longer and exact, so
//! that Nix's retry after a cut cannot meet the same lie again.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use haulout_nix::NarHash;
use haulout_swarm::PeerId;
use lru::LruCache;
use tokio::time::Instant;

/// How long a peer is not asked for a NAR it lied about.
pub(crate) const DISTRUST: Duration = Duration::from_secs(600);
/// How long the rest of a NAR that was cut for its hash is refused. Nix
/// retries within seconds.
pub(crate) const TAINT: Duration = Duration::from_secs(120);
/// Entries remembered of each kind.
const ENTRIES_MAX: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

pub(crate) struct Distrust {
    liars: Mutex<LruCache<(PeerId, NarHash), Instant>>,
    tainted: Mutex<LruCache<NarHash, Instant>>,
}

impl Distrust {
    pub(crate) fn new() -> Self {
        Self {
            liars: Mutex::new(LruCache::new(ENTRIES_MAX)),
            tainted: Mutex::new(LruCache::new(ENTRIES_MAX)),
        }
    }

    pub(crate) fn add(&self, peer: PeerId, nar: NarHash) {
        self.liars.lock().unwrap_or_else(PoisonError::into_inner).put((peer, nar), Instant::now());
    }

    pub(crate) fn has(&self, peer: PeerId, nar: NarHash) -> bool {
        let mut liars = self.liars.lock().unwrap_or_else(PoisonError::into_inner);
        liars.get(&(peer, nar)).is_some_and(|since| since.elapsed() < DISTRUST)
    }

    /// Nix holds wrong bytes of this NAR: a continuation would only complete
    /// the damage.
    pub(crate) fn taint(&self, nar: NarHash) {
        self.tainted.lock().unwrap_or_else(PoisonError::into_inner).put(nar, Instant::now());
    }

    pub(crate) fn is_tainted(&self, nar: NarHash) -> bool {
        let mut tainted = self.tainted.lock().unwrap_or_else(PoisonError::into_inner);
        tainted.get(&nar).is_some_and(|since| since.elapsed() < TAINT)
    }
}
