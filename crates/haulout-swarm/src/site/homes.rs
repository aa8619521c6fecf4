//! Who is willing to fetch for the site, and in which order it is their turn.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::SegmentKey;
use crate::PeerId;
use crate::home::{fold, weight};

/// Most places outside that one agent may name in its standing.
pub const OUTSIDES_MAX: usize = 32;

/// What an agent says about itself: whether it fetches for others, and from where it can.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Counts the changes; a lower number that arrives later is old.
    pub sequence: u32,
    /// Whether it fetches for others. Agents on metered links or battery do not.
    pub willing: bool,
    /// The [`super::OutsideId::tag`]s of the places it is configured for, at most [`OUTSIDES_MAX`].
    pub outsides: SmallVec<[u32; 4]>,
}

impl Standing {
    /// Whether it fetches from this place.
    #[must_use]
    pub fn fetches_from(&self, outside: u32) -> bool {
        self.willing && self.outsides.contains(&outside)
    }
}

#[derive(Clone, Debug)]
struct Candidate {
    folded: u64,
    standing: Standing,
}

/// The agents that have told their standing, this one among them.
#[derive(Clone, Debug, Default)]
pub struct Homes {
    // Ordered, so that a run is reproducible.
    all: BTreeMap<PeerId, Candidate>,
}

impl Homes {
    /// Nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An agent told its standing. False if what is known is as new.
    pub fn told(&mut self, peer: PeerId, standing: Standing) -> bool {
        if self.all.get(&peer).is_some_and(|known| known.standing.sequence >= standing.sequence) {
            return false;
        }
        self.all.insert(peer, Candidate { folded: fold(peer.as_bytes()), standing });
        true
    }

    /// An agent went away: the next connection tells its standing afresh.
    pub fn gone(&mut self, peer: &PeerId) {
        self.all.remove(peer);
    }

    /// What an agent told.
    #[must_use]
    pub fn standing(&self, peer: &PeerId) -> Option<&Standing> {
        self.all.get(peer).map(|candidate| &candidate.standing)
    }

    /// How many agents told their standing.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether nobody did.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The first `most` agents whose turn it is for this segment, the home first, of those that fetch from `outside` (a
    /// tag) and that `usable` lets pass. One multiplication or two for each agent known.
    #[must_use]
    pub fn ranking(
        &self,
        segment: &SegmentKey,
        outside: u32,
        most: usize,
        usable: impl Fn(&PeerId) -> bool,
    ) -> Vec<PeerId> {
        let key = fold(&segment.rendezvous());
        let mut ranked: Vec<(Reverse<u64>, PeerId)> = self
            .all
            .iter()
            .filter(|(peer, one)| one.standing.fetches_from(outside) && usable(peer))
            .map(|(peer, one)| (Reverse(weight(key, one.folded)), *peer))
            .collect();
        if most < ranked.len() && most > 0 {
            ranked.select_nth_unstable(most - 1);
        }
        ranked.truncate(most);
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, peer)| peer).collect()
    }
}
