//! Whom to ask first, and when to ask a second one as well.
//!
//! Candidates are put in a weighted random order: the weight is one over the time the peer is expected to need for
//! this question (delay, plus size over its idle bandwidth), and never below a tenth of the best one's. So fast and idle peers
//! are asked more often, slow ones still get some questions (otherwise nobody would learn that they have become
//! fast), and many machines that ask at the same time do not all pick the same peer.

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use crate::estimate::Histogram;
use crate::peers::{Peer, PeerTable, State};
use crate::random::unit;
use crate::{Now, PeerId};

/// A candidate's weight is at least this share of the best one's, so that nobody starves.
pub const WEIGHT_FLOOR: f64 = 0.1;

/// Bandwidth assumed of a peer that never sent anything large: a full 1 Gbit/s link, bytes per second. Optimistic,
/// because the first answer corrects it, while a peer never asked would keep a wrong low figure for ever.
pub const THROUGHPUT_ASSUMED: f64 = 117_000_000.0;

/// Delay assumed of a peer that never answered: a wired LAN's.
pub const DELAY_ASSUMED: Duration = Duration::from_millis(1);

/// Added for a peer that is not connected yet: one handshake and its round trips.
pub const DIAL_COST: Duration = Duration::from_millis(5);

/// Hedge delay until there is something to measure.
pub const HEDGE_DEFAULT: Duration = Duration::from_millis(50);

/// Shortest hedge delay: below the scheduler's noise a second request is only load.
pub const HEDGE_MIN: Duration = Duration::from_millis(2);

/// Longest hedge delay: after this the peer counts as silent anyway.
pub const HEDGE_MAX: Duration = crate::peers::SILENCE;

/// The share of first bytes that came faster than the hedge delay, percent: about one question in seven is asked twice.
pub const HEDGE_PERCENTILE: u32 = 85;

/// Samples needed before a measured percentile is used.
pub const HEDGE_SAMPLES_MIN: u32 = 16;

/// A peer that may be asked, with the reason for its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Whom.
    pub peer: PeerId,
    /// How long the answer is expected to take.
    pub expected: Duration,
    /// Its chance to be asked first, 0 to 1. Zero for a last resort.
    pub chance: f64,
    /// Why it is only asked when no other is left; `None` normally.
    pub last_resort: Option<State>,
}

/// A peer that may not be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// Whom not.
    pub peer: PeerId,
    /// Why: banned or silent; `None`: not in the table.
    pub state: Option<State>,
}

/// The order in which to ask, with its reasons.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ranking {
    /// Ask in this order. Those who are backing off come last: a second failure costs less than a wrong "no", which
    /// Nix remembers for an hour.
    pub candidates: Vec<Candidate>,
    /// Do not ask these.
    pub skipped: Vec<Skipped>,
}

impl Ranking {
    /// The peers to ask, in order.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.candidates.iter().map(|candidate| candidate.peer)
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (peer, millis) = (self.peer.short(), self.expected.as_secs_f64() * 1e3);
        match self.last_resort {
            None => write!(
                f,
                "{peer}: expected {millis:.1} ms, chance to be first {:.0} %",
                self.chance * 100.0
            ),
            Some(state) => write!(f, "{peer}: only if no other is left, {state}"),
        }
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state {
            Some(state) => write!(f, "{}: not asked, {state}", self.peer.short()),
            None => write!(f, "{}: not asked, unknown", self.peer.short()),
        }
    }
}

/// Orders `holders` for a question whose answer has about `bytes` bytes. `random` decides the draw.
#[must_use]
pub fn rank(
    table: &PeerTable,
    holders: impl IntoIterator<Item = PeerId>,
    bytes: u64,
    now: Now,
    random: u64,
) -> Ranking {
    let mut ranking = Ranking::default();
    let mut best = Duration::MAX;
    for peer in holders {
        let record = table.get(&peer);
        let state = record.map(|record| record.state(now));
        match (record, state) {
            (
                Some(record),
                Some(state @ (State::Discovered | State::Connected | State::BackingOff { .. })),
            ) => {
                let last_resort =
                    Some(state).filter(|state| matches!(state, State::BackingOff { .. }));
                let expected = expected(record, bytes);
                if last_resort.is_none() {
                    best = best.min(expected);
                }
                ranking.candidates.push(Candidate { peer, expected, chance: 0.0, last_resort });
            }
            _ => ranking.skipped.push(Skipped { peer, state }),
        }
    }
    draw(&mut ranking.candidates, best, random);
    ranking
}

/// How long the peer will need for an answer of `bytes`: delay, then the bytes at its idle bandwidth, which it
/// shares with what is under way already.
fn expected(peer: &Peer, bytes: u64) -> Duration {
    let delay = peer.rtt().or_else(|| peer.first_byte().percentile(50)).unwrap_or(DELAY_ASSUMED);
    let dial = if peer.is_connected() { Duration::ZERO } else { DIAL_COST };
    // A peer that claims to be fully busy still moves something.
    let idle = f64::from(peer.idle_percent().max(5)) / 100.0;
    let bandwidth =
        peer.throughput().unwrap_or(THROUGHPUT_ASSUMED) * idle / f64::from(1 + peer.in_flight());
    let transfer =
        Duration::try_from_secs_f64(bytes as f64 / bandwidth.max(1.0)).unwrap_or(Duration::MAX);
    delay.saturating_add(dial).saturating_add(transfer)
}

/// Weighted random order without replacement: sort by `ln(u) / weight`, largest first (Efraimidis and Spirakis).
fn draw(candidates: &mut [Candidate], best: Duration, random: u64) {
    let weight = |expected: Duration| {
        let relative = best.as_secs_f64().max(1e-6) / expected.as_secs_f64().max(1e-6);
        relative.clamp(WEIGHT_FLOOR, 1.0)
    };
    let usable = |candidate: &Candidate| candidate.last_resort.is_none();
    let total: f64 = candidates.iter().filter(|c| usable(c)).map(|c| weight(c.expected)).sum();
    for candidate in candidates.iter_mut().filter(|c| usable(c)) {
        candidate.chance = weight(candidate.expected) / total;
    }
    let mut keyed: Vec<(bool, f64, Candidate)> = candidates
        .iter()
        .enumerate()
        .map(|(index, c)| (!usable(c), -unit(random, index as u64).ln() / weight(c.expected), *c))
        .collect();
    keyed.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    for (place, (.., candidate)) in candidates.iter_mut().zip(keyed) {
        *place = candidate;
    }
}

/// How long to wait for a first byte before asking a second peer as well.
#[must_use]
pub fn hedge_delay(first_bytes: &Histogram) -> Duration {
    if first_bytes.samples() < HEDGE_SAMPLES_MIN {
        return HEDGE_DEFAULT;
    }
    first_bytes.percentile(HEDGE_PERCENTILE).unwrap_or(HEDGE_DEFAULT).clamp(HEDGE_MIN, HEDGE_MAX)
}
