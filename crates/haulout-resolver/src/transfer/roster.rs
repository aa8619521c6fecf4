//! Who may still deliver this NAR.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use haulout_mesh::NarKey;
use haulout_swarm::PeerId;
use tokio::time::{Instant, sleep};

use super::Shared;
use super::feed::FeedError;

/// How often one peer may fail on one NAR (without lying) before it is left
/// alone.
const FAILURES_MAX: u8 = 3;
/// How long a transfer waits for a source to appear or come back before it
/// gives up: long enough for a link that flaps, short against Nix's patience.
pub(crate) const NO_SOURCE_WAIT: Duration = Duration::from_secs(3);
/// How often a waiting transfer looks again, from memory.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The sources of one transfer and how they fared.
pub(crate) struct Roster {
    shared: Arc<Shared>,
    key: NarKey,
    hint: Option<PeerId>,
    failures: HashMap<PeerId, u8>,
    /// Those in use, for status pages.
    in_use: Arc<Mutex<BTreeSet<PeerId>>>,
}

impl Roster {
    pub(crate) fn new(
        shared: Arc<Shared>,
        key: NarKey,
        hint: Option<PeerId>,
        in_use: Arc<Mutex<BTreeSet<PeerId>>>,
    ) -> Self {
        Self { shared, key, hint, failures: HashMap::new(), in_use }
    }

    /// Notes that a source is being used.
    pub(crate) fn using(&self, peer: PeerId) {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner).insert(peer);
    }

    /// All sources worth asking now, the best first.
    pub(crate) fn usable(&self) -> Vec<PeerId> {
        let peers = &self.shared.peers;
        let mut all = peers.who_has(&self.key.path);
        // The peer that gave the info is a source even if it announces
        // nothing.
        let undeclared = peers.undeclared();
        match self.hint {
            Some(hint) if undeclared.contains(&hint) => all.push(hint),
            _ if all.is_empty() => all.extend(undeclared),
            _ => {}
        }
        all.retain(|peer| {
            self.failures.get(peer).is_none_or(|count| *count < FAILURES_MAX)
                && !self.shared.distrust.has(*peer, self.key.nar_hash)
        });
        // Stable: among equals the mesh's ranking stays.
        all.sort_by_key(|peer| self.failures.get(peer).copied().unwrap_or(0));
        all
    }

    /// The best source, waited for up to [`NO_SOURCE_WAIT`] if there was one
    /// before, else not at all.
    pub(crate) async fn best(&self) -> Option<PeerId> {
        let patience = if self.failures.is_empty() { Duration::ZERO } else { NO_SOURCE_WAIT };
        let until = Instant::now() + patience;
        loop {
            let usable = self.usable();
            if let Some(best) = usable.first() {
                return Some(*best);
            }
            if Instant::now() >= until {
                return None;
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Whether a source is out of this transfer for good.
    pub(crate) fn has_given_up(&self, peer: PeerId) -> bool {
        self.failures.get(&peer).is_some_and(|count| *count >= FAILURES_MAX)
            || self.shared.distrust.has(peer, self.key.nar_hash)
    }

    /// Notes that a source failed, and reports it if it is to blame.
    pub(crate) fn failed(&mut self, peer: PeerId, error: &FeedError) {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner).remove(&peer);
        let shared = &self.shared;
        shared.reasons.note(&self.key.path, format!("NAR from peer {}: {error}", peer.short()));
        if let Some(fault) = error.fault() {
            shared.peers.blame(peer, fault);
        }
        if error.is_lie() {
            shared.stats.lies.one();
            shared.distrust.add(peer, self.key.nar_hash);
        }
        let count = self.failures.entry(peer).or_default();
        *count = if error.is_final() { FAILURES_MAX } else { *count + 1 };
    }
}
