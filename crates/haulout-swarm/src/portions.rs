//! Who is told how much of what this machine holds, when there are many peers.
//!
//! Everything to everybody costs two snapshots for each pair of peers: with a thousand of them and stores of 12,000 paths a
//! machine that joins moves 45 MB, and a site n² of it. An entry already costs two bytes, and stores differ by thousands of
//! entries, so reconciling sets would not help. What helps is telling less:
//!
//! * up to [`FULL_PEERS`] peers, everybody is told everything;
//! * with more, so many of them are, chosen by hash. Every other peer is told a *portion*: the entries that it is one of the
//!   [`HOMES`] *homes* of.
//!
//! So each agent knows all that some sixty others hold, which is where most look-ups end, and together the homes of an entry
//! know everybody who holds it. Who finds nobody asks them ([`Portions::homes`]); they answer from memory and ask nobody.
//!
//! # Homes
//!
//! Every agent has a place on a circle of 2³² places: the upper half of its folded key ([`crate::home`]). The homes of an
//! entry are the first three agents from its own value on, upwards and around. So what one agent is a home of is one stretch
//! of the circle, a range of the sorted entries; nothing has to be ranked for each entry, and who comes or goes changes the
//! stretch of three others.
//!
//! Agents that see the same peers agree on the homes. One peer more or less moves them by one place, so that two of the three
//! still agree. Where the views of two agents differ by more ([`alike`]), the receiver asks for everything.

#[cfg(test)]
mod tests;
mod told;

use std::cmp::Reverse;
use std::collections::BTreeSet;

use smallvec::SmallVec;

use crate::PeerId;
use crate::home::{fold, weight};
pub use told::Told;

/// Up to so many peers, everybody is told everything; with more, so many are. 64 snapshots of 12,000 entries are 1.5 MB.
pub const FULL_PEERS: usize = 64;

/// Homes of an entry. Two may go in the same second without anything getting lost.
pub const HOMES: usize = 3;

/// Whoever is told everything stays so while it is among the first `FULL_PEERS` and an eighth more: else each peer that
/// comes or goes would cost a snapshot.
const SLACK: usize = 8;

/// Ranges of entries, ascending, both ends included; two where a stretch passes zero.
type Ranges = SmallVec<[(u32, u32); 2]>;

/// A part of the circle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stretch(Ranges);

impl Stretch {
    /// All of it.
    #[must_use]
    pub fn whole() -> Self {
        Self(SmallVec::from_slice(&[(0, u32::MAX)]))
    }

    /// The places above `after`, around to `to` itself. All of them when the two are the same.
    #[must_use]
    pub fn between(after: u32, to: u32) -> Self {
        let mut ranges = Ranges::new();
        if after < to {
            ranges.push((after + 1, to));
        } else {
            ranges.push((0, to));
            if after < u32::MAX {
                ranges.push((after + 1, u32::MAX));
            }
        }
        Self(ranges)
    }

    /// Whether this entry lies in it.
    #[must_use]
    pub fn contains(&self, entry: u32) -> bool {
        self.0.iter().any(|(from, to)| (*from..=*to).contains(&entry))
    }

    /// Its ranges, ascending, both ends included.
    pub fn ranges(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.0.iter().copied()
    }
}

/// Where agents stand on the circle.
#[derive(Clone, Debug, Default)]
struct Ring(Vec<(u32, PeerId)>);

/// An agent's place.
fn place(peer: &PeerId) -> u32 {
    (fold(peer.as_bytes()) >> 32) as u32
}

impl Ring {
    fn new(peers: impl Iterator<Item = PeerId>) -> Self {
        let mut ring: Vec<_> = peers.map(|peer| (place(&peer), peer)).collect();
        ring.sort_unstable();
        ring.dedup();
        Self(ring)
    }

    fn homes(&self, entry: u32) -> impl Iterator<Item = PeerId> + '_ {
        let first = self.0.partition_point(|(place, _)| *place < entry);
        let around = self.0[first..].iter().chain(&self.0[..first]);
        around.take(HOMES).map(|(_, peer)| *peer)
    }

    /// The entries that a peer is a home of.
    fn stretch(&self, peer: &PeerId) -> Option<Stretch> {
        let at = self.0.binary_search(&(place(peer), *peer)).ok()?;
        Some(self.stretch_of(at))
    }

    fn stretch_of(&self, at: usize) -> Stretch {
        let count = self.0.len();
        if count <= HOMES {
            return Stretch::whole();
        }
        let (to, _) = self.0[at];
        let (after, _) = self.0[(at + count - HOMES) % count];
        // Of four agents at one place the fourth has nothing.
        if at >= HOMES && after == to {
            return Stretch::default();
        }
        Stretch::between(after, to)
    }
}

/// How much a peer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Portion {
    /// Everything.
    Whole,
    /// What lies in this stretch.
    Part(Stretch),
}

/// Who is told how much.
#[derive(Clone, Debug)]
pub struct Portions {
    me: PeerId,
    full_peers: usize,
    ring: Ring,
    whole: BTreeSet<PeerId>,
}

impl Portions {
    /// With nobody there yet. `full_peers` is [`FULL_PEERS`], or less in tests; with 0 nobody is told everything.
    #[must_use]
    pub fn new(me: PeerId, full_peers: usize) -> Self {
        Self { me, full_peers, ring: Ring::new([me].into_iter()), whole: BTreeSet::new() }
    }

    /// The peers that are there now and understand portions, in any order, this agent not among them. Some 0.1 ms for a
    /// thousand.
    pub fn meet(&mut self, peers: &[PeerId]) {
        self.ring = Ring::new(peers.iter().copied().chain([self.me]));
        if peers.len() <= self.full_peers {
            self.whole = peers.iter().copied().collect();
            return;
        }
        let mine = fold(self.me.as_bytes());
        let mut ranked: Vec<(Reverse<u64>, PeerId)> = peers
            .iter()
            // The same at both ends, so that most pairs tell each other everything, or neither does.
            .map(|peer| (Reverse(weight(mine, fold(peer.as_bytes()))), *peer))
            .collect();
        let kept = (self.full_peers + self.full_peers.div_ceil(SLACK)).min(ranked.len());
        if kept < ranked.len() && kept > 0 {
            ranked.select_nth_unstable(kept - 1);
        }
        ranked.truncate(kept);
        ranked.sort_unstable();
        let before = std::mem::take(&mut self.whole);
        let stays = |(rank, (_, peer)): (usize, (_, PeerId))| {
            (rank < self.full_peers || before.contains(&peer)).then_some(peer)
        };
        self.whole = ranked.into_iter().enumerate().filter_map(stays).collect();
    }

    /// How many peers there are.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.ring.0.len().saturating_sub(1)
    }

    /// Whether there are so many that not all are told everything.
    #[must_use]
    pub fn is_crowd(&self) -> bool {
        self.peers() > self.full_peers
    }

    /// What a peer is told; everything, if it is not among those that understand portions.
    #[must_use]
    pub fn of(&self, peer: &PeerId) -> Portion {
        if self.whole.contains(peer) {
            return Portion::Whole;
        }
        self.ring.stretch(peer).map_or(Portion::Whole, Portion::Part)
    }

    /// The homes of an entry, at most [`HOMES`], this agent perhaps among them.
    pub fn homes(&self, entry: u32) -> impl Iterator<Item = PeerId> + '_ {
        self.ring.homes(entry)
    }

    /// Whether a portion from a peer that sees `theirs` peers is of use to this agent, or it should be told everything.
    #[must_use]
    pub fn accepts_portions_of(&self, theirs: usize) -> bool {
        self.is_crowd() && alike(self.peers(), theirs)
    }
}

/// Whether two agents that see so many peers may well see the same ones, and so agree on homes. A site's agents come and go
/// by the hundred; an agent that bridges two sites sees twice as many as those in one.
#[must_use]
pub fn alike(mine: usize, theirs: usize) -> bool {
    mine.saturating_mul(3) >= theirs.saturating_mul(2)
        && theirs.saturating_mul(3) >= mine.saturating_mul(2)
}

/// Most peers that one home names, and most that are put to use for one question.
pub const NAMED_MAX: usize = 8;

/// What several homes named, as one list of at most [`NAMED_MAX`]: who is named by more of them comes first, then each of
/// them has a say in turn. So one that lies cannot crowd out what the others say.
#[must_use]
pub fn merge(answers: &[Vec<PeerId>]) -> Vec<PeerId> {
    let mut all: Vec<(Reverse<usize>, usize, PeerId)> = Vec::new();
    for (place, peer) in answers.iter().flat_map(|named| named.iter().take(NAMED_MAX).enumerate()) {
        match all.iter_mut().find(|(_, _, known)| known == peer) {
            Some((Reverse(votes), first, _)) => {
                *votes += 1;
                *first = place.min(*first);
            }
            None => all.push((Reverse(1), place, *peer)),
        }
    }
    // Stable: who answered first goes first among equals.
    all.sort_by_key(|(votes, place, _)| (*votes, *place));
    all.truncate(NAMED_MAX);
    all.into_iter().map(|(.., peer)| peer).collect()
}
