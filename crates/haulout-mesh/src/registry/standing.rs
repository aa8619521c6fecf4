//! What peers announce, whom to ask, and whom to blame.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use haulout_swarm::choose::{self, Ranking};
use haulout_swarm::directory::DirectoryError;
use haulout_swarm::holdings::Message;
use haulout_swarm::peers::{SILENCE, State, Verdict};
use haulout_swarm::{Fault, PeerId};

use super::duplicates::Place;
use super::{Entry, Link, Peers, REASONS_MAX, Shared, code, read, write};
use crate::view::MeshEvent;

impl Shared {
    /// Applies holdings that arrived on `link`, all of the peer's or a `part` of them; ignored unless it is a connection of the peer that may stay. May take some
    /// milliseconds for a large snapshot: for a blocking thread.
    pub(crate) fn take_holdings(
        &self,
        link: &Arc<Link>,
        message: &Message,
        part: bool,
    ) -> Result<(), DirectoryError> {
        let count = {
            // Both locks, in this order, so that the end of the connection cannot come between.
            let mut hints = write(&self.hints);
            let Some(place) = self.place_of(link) else { return Ok(()) };
            match message {
                Message::Snapshot(snapshot) => {
                    hints.apply_snapshot(link.peer, snapshot)?;
                    if part {
                        hints.mark_part(&link.peer);
                    }
                }
                Message::Delta(delta) => match hints.apply_delta(link.peer, delta) {
                    // The same news came over the other connection.
                    Err(DirectoryError::WrongBase { .. }) if place == Place::Spare => return Ok(()),
                    applied => applied?,
                },
            }
            hints.entries(&link.peer)
        };
        self.emit(MeshEvent::Holdings { peer: link.peer, count });
        Ok(())
    }

    pub(crate) fn blame(&self, peer: &PeerId, fault: Fault, detail: Option<&str>) {
        let now = self.now();
        let reason =
            detail.map_or_else(|| fault.to_string(), |detail| format!("{fault}: {detail}"));
        let (verdict, links) = {
            let mut peers = self.lock_peers();
            let Peers { entries, table } = &mut *peers;
            let Some(entry) = entries.get_mut(peer) else {
                return;
            };
            entry.faults[fault.index()] += 1;
            if entry.reasons.len() == REASONS_MAX {
                entry.reasons.pop_front();
            }
            entry.reasons.push_back(reason.clone());
            (table.blame(peer, fault, now), entry.links().cloned().collect::<Vec<_>>())
        };
        let banned = matches!(verdict, Verdict::Banned { .. });
        if banned {
            tracing::warn!(peer = %peer.short(), %reason, "peer banned");
            for link in links {
                link.close(code::BANNED, "banned");
            }
        } else {
            tracing::debug!(peer = %peer.short(), %reason, "peer blamed");
        }
        self.emit(MeshEvent::Blamed { peer: *peer, reason, banned });
    }

    /// Peers to ask for a prefix and `bytes` of content, best first, with reasons.
    pub(crate) fn candidates(&self, prefix: u32, bytes: u64) -> Ranking {
        let random = self.random();
        let mut holders = read(&self.hints).who_has(prefix, random);
        for peer in self.hearsay(prefix) {
            if !holders.contains(&peer) {
                holders.push(peer);
            }
        }
        if holders.is_empty() {
            return Ranking::default();
        }
        self.rank(holders, bytes, random)
    }

    fn rank(
        &self,
        candidates: impl IntoIterator<Item = PeerId>,
        bytes: u64,
        random: u64,
    ) -> Ranking {
        let now = self.now();
        let mut peers = self.lock_peers();
        let Peers { entries, table } = &mut *peers;
        let mut reachable: Vec<PeerId> = Vec::new();
        for peer in candidates {
            let Some(link) = entries.get(&peer).and_then(Entry::link) else { continue };
            if link.silent.load(Ordering::Relaxed) {
                continue;
            }
            // An answer that waits behind others on a busy line is late, not silent: packets arrive.
            if matches!(table.state(&peer, now), Some(State::Silent { .. }))
                && link.quiet_for(Instant::now()) < SILENCE
            {
                table.heard(&peer, now);
            }
            reachable.push(peer);
        }
        choose::rank(table, reachable, bytes, now, random)
    }

    pub(crate) fn hedge_delay(&self) -> Duration {
        choose::hedge_delay(self.lock_peers().table.first_byte())
    }

    /// Spreads choices; nothing secret hangs on it.
    pub(super) fn random(&self) -> u64 {
        let step = self.roll();
        let mixed = (step ^ (step >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 27)
    }

    /// Connected, usable peers without holdings.
    pub(crate) fn unannounced(&self) -> Vec<PeerId> {
        let connected: Vec<PeerId> = self.links().iter().map(|link| link.peer).collect();
        let silent: Vec<PeerId> = {
            let hints = read(&self.hints);
            connected.into_iter().filter(|peer| hints.version(peer).is_none()).collect()
        };
        self.rank(silent, 0, self.random()).peers().collect()
    }
}
