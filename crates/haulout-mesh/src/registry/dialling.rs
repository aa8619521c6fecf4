//! Where peers are, and when to dial them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use haulout_swarm::PeerId;
use haulout_swarm::peers::State;

use super::{ADDRS_MAX, Dialled, Entry, Link, Peers, Shared};

/// First pause after a failed dial; doubles.
pub(super) const REDIAL_MIN: Duration = Duration::from_millis(500);
/// Longest pause between dials of a peer that does not answer: a network that heals without our noticing (a switch that was
/// off) is back in use about that soon. When a vanished peer's announcement ends after two minutes, dials become rarer.
pub(super) const REDIAL_MAX: Duration = Duration::from_secs(8);
/// A peer that fell silent is dialled this long even if its announcement runs out. An announcement lasts two minutes, and when
/// a network was cut in two for longer, neither side has a reason to announce itself anew once it is whole again.
pub(super) const MISSED_FOR: Duration = Duration::from_secs(3_600);
/// Longest pause between such dials.
const REDIAL_MISSED: Duration = Duration::from_secs(30);
/// Pause after a peer closed the connection because we are strangers to its mesh.
pub(super) const REDIAL_STRANGER: Duration = Duration::from_secs(300);
/// The peer with the larger key waits this long before it dials too: usually the other is faster, and no second
/// connection comes up. If the other cannot reach us (a closed port), our dial is the one that works.
pub(super) const DIAL_SECOND: Duration = Duration::from_millis(150);

impl Shared {
    /// Learns where a peer is. `discovered` from mDNS, else from the configuration. Returns the connection that stands, if
    /// the peer has new addresses and that connection's is not among them: it may have moved.
    pub(crate) fn learn(
        &self,
        peer: PeerId,
        addrs: &[SocketAddr],
        discovered: bool,
    ) -> Option<Arc<Link>> {
        if peer == self.id {
            return None;
        }
        let now = self.now();
        let mut peers = self.lock_peers();
        if !self.make_room(&mut peers, &peer, false) || !peers.table.discovered(peer, now) {
            return None;
        }
        let smaller = self.id < peer;
        let entry = peers.entries.entry(peer).or_insert_with(|| {
            let mut entry = Entry::new(Instant::now());
            if !smaller {
                entry.next_dial += DIAL_SECOND;
            }
            entry
        });
        if discovered {
            entry.discovered = true;
        } else {
            entry.fixed = true;
        }
        let news = addrs.iter().any(|addr| !entry.addrs.contains(addr));
        if news {
            let mut merged: Vec<SocketAddr> = addrs.to_vec();
            merged.extend(entry.addrs.iter().filter(|addr| !addrs.contains(addr)));
            merged.truncate(ADDRS_MAX);
            entry.addrs = merged;
            // A new address is a new chance: forget how often the old ones failed.
            entry.failures = 0;
            if entry.link().is_none() && !entry.dialling {
                entry.next_dial =
                    Instant::now() + if smaller { Duration::ZERO } else { DIAL_SECOND };
            }
        }
        let moved = entry.link().filter(|link| {
            news && discovered && addrs.iter().all(|addr| addr.ip() != link.addr().ip())
        });
        let moved = moved.cloned();
        drop(peers);
        self.wake.notify_one();
        moved
    }

    /// The machine's addresses changed; `gone` is one that it has lost. Connections over that one are dead, and every pause
    /// between dials was for the network as it was.
    pub(crate) fn network_changed(&self, gone: Option<IpAddr>) {
        let now = Instant::now();
        let mut peers = self.lock_peers();
        for (peer, entry) in &mut peers.entries {
            if let Some(link) = entry.link() {
                if gone.is_some() && link.local_ip() == gone {
                    link.silent.store(true, Ordering::Relaxed);
                }
                if !link.silent.load(Ordering::Relaxed) {
                    continue;
                }
            }
            entry.failures = 0;
            if !entry.dialling {
                entry.next_dial = now + if self.id < *peer { Duration::ZERO } else { DIAL_SECOND };
            }
        }
        drop(peers);
        self.network.notify_waiters();
        self.wake.notify_one();
    }

    /// A peer's announcement ended. A standing connection stays; without one, the peer is no longer dialled, unless it is
    /// missed.
    pub(crate) fn unlearn(&self, peer: &PeerId) {
        let now = self.now();
        let mut peers = self.lock_peers();
        let Some(entry) = peers.entries.get_mut(peer) else {
            return;
        };
        entry.discovered = false;
        if entry.link().is_none() && !entry.fixed && !entry.missing() {
            entry.addrs.clear();
            peers.table.gone(peer, now);
        }
    }

    /// Peers to dial now, marked as being dialled, and when to look again.
    pub(crate) fn due(&self) -> (Vec<(PeerId, Vec<SocketAddr>)>, Option<Instant>) {
        let now = Instant::now();
        let table_now = self.now();
        let mut peers = self.lock_peers();
        let Peers { entries, table } = &mut *peers;
        let connected = entries.values().filter(|entry| entry.link().is_some()).count();
        let mut room = self.config.limits.connections.saturating_sub(connected);
        let mut due = Vec::new();
        let mut next: Option<Instant> = None;
        for (peer, entry) in entries.iter_mut() {
            let usable_link = entry.link().is_some_and(|link| !link.silent.load(Ordering::Relaxed));
            if usable_link || !entry.wanted() || room == 0 {
                continue;
            }
            if matches!(table.state(peer, table_now), Some(State::Banned { .. })) {
                entry.next_dial = entry.next_dial.max(now + REDIAL_MIN * 4);
            }
            if entry.next_dial <= now {
                entry.dialling = true;
                room -= 1;
                due.push((*peer, entry.addrs.clone()));
            } else {
                next = Some(next.map_or(entry.next_dial, |at| at.min(entry.next_dial)));
            }
        }
        (due, next)
    }

    /// Books the end of a dial.
    pub(crate) fn dialled(&self, peer: &PeerId, outcome: Dialled) {
        let mut peers = self.lock_peers();
        if let Some(entry) = peers.entries.get_mut(peer) {
            entry.dialling = false;
            entry.failures = match outcome {
                Dialled::Connected(_) => 0,
                _ => entry.failures.saturating_add(1),
            };
            let pause = match outcome {
                Dialled::Unwelcome => REDIAL_STRANGER,
                _ if entry.discovered || entry.fixed => redial_pause(entry.failures, REDIAL_MAX),
                _ => redial_pause(entry.failures, REDIAL_MISSED),
            };
            entry.next_dial = Instant::now() + pause;
        }
        drop(peers);
        self.wake.notify_one();
    }
}

fn redial_pause(failures: u32, longest: Duration) -> Duration {
    REDIAL_MIN.saturating_mul(1_u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX)).min(longest)
}
