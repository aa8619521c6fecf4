//! What is known of every peer: whether it is there, how fast it is, and what it did wrong.
//!
//! The table is told what happens (`discovered`, `connected`, `asked`, `heard`, `answered`, `blame`) and answers
//! whether a peer is worth asking now. Every number it holds can be shown to the user.

mod record;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

pub use record::{Answer, Counters, Peer, State, Verdict};

use crate::estimate::Histogram;
use crate::{Fault, Now, PeerId};

/// Most peers remembered. The design's largest site; a flood of invented peers costs at most this many records
/// (about 600 bytes each).
pub const PEERS_MAX: usize = 1_000;

/// A peer that was asked and from which nothing at all was heard for this long is skipped, not waited for.
pub const SILENCE: Duration = Duration::from_millis(300);

/// How long a peer that fell silent stays skipped when nothing is under way with it. Then one request may try again.
pub const SILENCE_REMEMBERED: Duration = Duration::from_secs(5);

/// First ban. Long enough that a liar costs nothing noticeable, short enough to forgive a broken disk being fixed.
pub const BAN_MIN: Duration = Duration::from_secs(30);

/// Longest ban; each further strike doubles up to this.
pub const BAN_MAX: Duration = Duration::from_secs(3600);

/// One strike is forgiven for each such span without a ban.
pub const STRIKE_FORGIVEN_AFTER: Duration = Duration::from_secs(3600);

/// First pause after a time-out, a cut or a "too busy".
pub const BACK_OFF_MIN: Duration = Duration::from_secs(1);

/// Longest such pause; each further one in a row doubles up to this.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(30);

/// False hints in a row that count as one [`Fault::Overloaded`]-like back-off. Stale holdings are normal; a peer
/// that never has what it announced wastes a round trip each time.
pub const FALSE_HINTS_IN_A_ROW_MAX: u32 = 16;

/// Every peer this machine knows of.
#[derive(Debug, Clone, Default)]
pub struct PeerTable {
    // Ordered, so that a run is reproducible.
    peers: BTreeMap<PeerId, Peer>,
    first_byte: Histogram,
    refused_full: u64,
    evicted: u64,
}

impl PeerTable {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of peers, at most [`PEERS_MAX`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether no peer is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// All peers in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&PeerId, &Peer)> {
        self.peers.iter()
    }

    /// One peer's record.
    #[must_use]
    pub fn get(&self, peer: &PeerId) -> Option<&Peer> {
        self.peers.get(peer)
    }

    /// Peers not remembered because the table was full of better ones.
    #[must_use]
    pub const fn refused_full(&self) -> u64 {
        self.refused_full
    }

    /// Peers forgotten to make room.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// How long first bytes took, over all peers: what the hedge delay is measured from.
    #[must_use]
    pub const fn first_byte(&self) -> &Histogram {
        &self.first_byte
    }

    /// A peer announced itself. False if there is no room for it.
    pub fn discovered(&mut self, peer: PeerId, now: Now) -> bool {
        self.admit(peer, now).is_some()
    }

    /// A connection stands, so the peer is alive: back-off and silence end, a ban does not.
    /// False if there is no room for it, or it is banned: close the connection then.
    pub fn connected(&mut self, peer: PeerId, now: Now) -> bool {
        self.admit(peer, now).is_some_and(|record| {
            record.connected(now);
            !record.is_banned(now)
        })
    }

    /// The connection is gone; the peer may come back.
    pub fn disconnected(&mut self, peer: &PeerId) {
        if let Some(record) = self.peers.get_mut(peer) {
            record.disconnected();
        }
    }

    /// The peer said goodbye or its announcement ran out. It is forgotten, unless it is still connected or has
    /// strikes: a liar cannot clear its name by leaving.
    pub fn gone(&mut self, peer: &PeerId, now: Now) {
        if self
            .peers
            .get(peer)
            .is_some_and(|record| !record.is_connected() && record.strikes(now) == 0)
        {
            self.peers.remove(peer);
        }
    }

    /// A request was sent. Must be followed by exactly one [`PeerTable::answered`] or [`PeerTable::abandoned`].
    pub fn asked(&mut self, peer: &PeerId, now: Now) {
        if let Some(record) = self.peers.get_mut(peer) {
            record.asked(now);
        }
    }

    /// Anything arrived from the peer: it is not silent.
    pub fn heard(&mut self, peer: &PeerId, now: Now) {
        if let Some(record) = self.peers.get_mut(peer) {
            record.heard(now);
        }
    }

    /// The connection's own round-trip estimate, from the transport.
    pub fn measured_rtt(&mut self, peer: &PeerId, rtt: Duration) {
        if let Some(record) = self.peers.get_mut(peer) {
            record.measured_rtt(rtt);
        }
    }

    /// The peer announced how much of its upload is idle, 0 to 100 percent.
    pub fn announced_idle(&mut self, peer: &PeerId, percent: u8) {
        if let Some(record) = self.peers.get_mut(peer) {
            record.announced_idle(percent);
        }
    }

    /// A request ended with a complete answer (a "no" included: then `bytes` is 0).
    pub fn answered(&mut self, peer: &PeerId, answer: Answer, now: Now) {
        self.first_byte.add(answer.first_byte);
        if let Some(record) = self.peers.get_mut(peer) {
            record.answered(answer, now);
        }
    }

    /// A request was given up, by us or by the peer. Says nothing about whose fault that was: see
    /// [`PeerTable::blame`].
    pub fn abandoned(&mut self, peer: &PeerId) {
        if let Some(record) = self.peers.get_mut(peer) {
            record.abandoned();
        }
    }

    /// Books a fault and says what follows from it.
    pub fn blame(&mut self, peer: &PeerId, fault: Fault, now: Now) -> Verdict {
        self.admit(*peer, now).map_or(Verdict::Noted, |record| record.blame(fault, now))
    }

    /// What the peer is now; `None` if it is unknown.
    #[must_use]
    pub fn state(&self, peer: &PeerId, now: Now) -> Option<State> {
        self.peers.get(peer).map(|record| record.state(now))
    }

    /// Whether the peer may be asked first: known, not banned, not silent, not backing off.
    #[must_use]
    pub fn is_usable(&self, peer: &PeerId, now: Now) -> bool {
        self.peers.get(peer).is_some_and(|record| record.is_usable(now))
    }

    /// The earliest end of any ban or back-off still running: when to look again.
    #[must_use]
    pub fn wake_at(&self, now: Now) -> Option<Now> {
        self.peers.values().filter_map(|record| record.excluded_until(now)).min()
    }

    fn admit(&mut self, peer: PeerId, now: Now) -> Option<&mut Peer> {
        if !self.peers.contains_key(&peer) && self.peers.len() >= PEERS_MAX && !self.evict(now) {
            self.refused_full += 1;
            return None;
        }
        Some(self.peers.entry(peer).or_insert_with(|| Peer::new(now)))
    }

    /// Forgets the least valuable peer: never one that is connected or being asked; those without a ban first,
    /// of these the one longest unheard.
    fn evict(&mut self, now: Now) -> bool {
        let victim = self
            .peers
            .iter()
            .filter(|(_, record)| !record.is_connected() && record.in_flight() == 0)
            .min_by_key(|(_, record)| (record.strikes(now), record.last_heard()))
            .map(|(peer, _)| *peer);
        let Some(victim) = victim else { return false };
        self.peers.remove(&victim);
        self.evicted += 1;
        true
    }
}
