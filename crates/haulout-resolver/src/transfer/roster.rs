//! Who may still deliver this NAR.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use haulout_mesh::NarKey;
use haulout_swarm::{Fault, PeerId};
use tokio::time::{Instant, sleep};

use super::Shared;
use super::feed::FeedError;
use crate::peers::PeerError;

/// How often one peer may fail on one NAR (without lying) before it is left
/// alone.
const FAILURES_MAX: u8 = 3;
/// How often one peer may say that it is busy.
const BUSY_MAX: u8 = 12;
/// How long a busy peer is left alone, times how often it said so.
const BUSY_REST: Duration = Duration::from_millis(50);
/// How long a transfer waits for a source to appear or come back before it
/// gives up: long enough for a link that flaps, short against Nix's patience.
pub(crate) const NO_SOURCE_WAIT: Duration = Duration::from_secs(3);
/// The same where caches outside may have it: no build waits for a link that
/// flaps while there is another way.
pub(crate) const OUTSIDE_WAIT: Duration = Duration::from_millis(500);
/// How often a waiting transfer looks again, from memory.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The sources of one transfer and how they fared.
pub(crate) struct Roster {
    shared: Arc<Shared>,
    key: NarKey,
    hint: Option<PeerId>,
    failures: HashMap<PeerId, u8>,
    /// Peers that were busy: how often, and until when they are left alone.
    busy: HashMap<PeerId, (u8, Instant)>,
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
        Self { shared, key, hint, failures: HashMap::new(), busy: HashMap::new(), in_use }
    }

    /// Notes that a source is being used.
    pub(crate) fn using(&self, peer: PeerId) {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner).insert(peer);
    }

    /// All sources worth asking now, the best first.
    pub(crate) fn usable(&self) -> Vec<PeerId> {
        let (peers, now) = (&self.shared.peers, Instant::now());
        let mut all = peers.who_sends(&self.key.path, NO_SOURCE_WAIT);
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
                && self.busy.get(peer).is_none_or(|(_, until)| *until <= now)
        });
        // Stable: among equals the mesh's ranking stays.
        all.sort_by_key(|peer| self.failures.get(peer).copied().unwrap_or(0));
        all
    }

    /// Whether sources were asked and none of them is worth asking again:
    /// waiting would only keep Nix from its next substituter.
    pub(crate) fn is_exhausted(&self) -> bool {
        let given_up = |peer| self.failures.get(peer).is_some_and(|count| *count >= FAILURES_MAX);
        !self.failures.is_empty()
            && self.failures.keys().all(given_up)
            && self.busy.keys().all(given_up)
    }

    /// How long to wait for a source that may come back.
    pub(crate) fn patience(&self) -> Duration {
        let outside = self.shared.outside.get();
        if outside.is_some_and(|outside| outside.is_there()) {
            OUTSIDE_WAIT
        } else {
            NO_SOURCE_WAIT
        }
    }

    /// The best source, waited for up to [`Roster::patience`] if there was one
    /// that may come back, else not at all.
    pub(crate) async fn best(&self) -> Option<PeerId> {
        let nobody_yet = self.failures.is_empty() && self.busy.is_empty();
        let patience =
            if nobody_yet || self.is_exhausted() { Duration::ZERO } else { self.patience() };
        let until = Instant::now() + patience;
        // Others may have it than those that are known.
        let mut locate = self.shared.peers.locate(&self.key.path);
        loop {
            let usable = self.usable();
            if let Some(best) = usable.first() {
                return Some(*best);
            }
            if let Some(locate) = locate.take() {
                locate.await;
                continue;
            }
            if Instant::now() >= until {
                return None;
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Notes that a source failed, and reports it if it is to blame.
    pub(crate) fn failed(&mut self, peer: PeerId, error: &FeedError) {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner).remove(&peer);
        let shared = &self.shared;
        shared.reasons.note(&self.key.path, format!("NAR from peer {}: {error}", peer.short()));
        let hearsay = || shared.peers.is_hearsay(&peer, &self.key.path);
        if let Some(fault) = error.fault().filter(|fault| *fault != Fault::FalseHint || !hearsay())
        {
            shared.peers.blame(peer, fault);
        }
        if error.is_lie() {
            shared.stats.lies.one();
            shared.distrust.add(peer, self.key.nar_hash);
        }
        if *error == FeedError::Peer(PeerError::Busy) {
            let (count, until) = self.busy.entry(peer).or_insert_with(|| (0, Instant::now()));
            *count += 1;
            *until = Instant::now() + BUSY_REST * u32::from(*count);
            if *count < BUSY_MAX {
                return;
            }
        }
        let count = self.failures.entry(peer).or_default();
        *count = if error.is_final() { FAILURES_MAX } else { *count + 1 };
    }
}
