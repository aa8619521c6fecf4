//! Who is willing to fetch for the site, and in which order it is their turn.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use smallvec::SmallVec;

use super::{KEPT_FOR, SegmentKey};
use crate::home::{fold, weight};
use crate::{Now, PeerId};

/// Most places outside that one agent may name in its standing.
pub const OUTSIDES_MAX: usize = 32;

/// Within this time of its coming an agent has met those that were there before.
const MEETING_TAKES: Duration = Duration::from_secs(5);

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
    /// Since when it is known.
    since: Now,
}

/// An agent whose turn it is, and what follows from when the two met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Who.
    pub peer: PeerId,
    /// This agent has met it on coming here, less than [`KEPT_FOR`] ago. Before that, turns were others: this one may have
    /// fetched what is now the business of those before it, and still have it.
    pub elder: bool,
    /// It has been known for less than [`KEPT_FOR`]: what it relays it may itself have from those that were there before.
    pub young: bool,
}

/// The agents that have told their standing, this one among them.
#[derive(Clone, Debug, Default)]
pub struct Homes {
    /// When the others were met.
    came: Now,
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
    pub fn told(&mut self, peer: PeerId, standing: Standing, now: Now) -> bool {
        let known = self.all.get(&peer);
        if known.is_some_and(|known| known.standing.sequence >= standing.sequence) {
            return false;
        }
        let since = known.map_or(now, |known| known.since);
        if known.is_none() && self.all.len() <= 1 {
            // Until now this agent was alone.
            self.came = now;
        }
        self.all.insert(peer, Candidate { folded: fold(peer.as_bytes()), standing, since });
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

    /// How many agents besides `me` named this place (a tag), and so may want what comes from there, whether they fetch for
    /// others or not.
    #[must_use]
    pub fn others(&self, me: &PeerId, outside: u32) -> usize {
        let names = |one: &Candidate| one.standing.outsides.contains(&outside);
        self.all.iter().filter(|(peer, one)| *peer != me && names(one)).count()
    }

    /// Marks those of a ranking that were here before this agent came.
    #[must_use]
    pub fn turns(&self, ranking: &[PeerId], now: Now) -> Vec<Turn> {
        self.turns_for(ranking, self.came, now)
    }

    /// The same for an agent that has seen the others since it `came`.
    #[must_use]
    pub fn turns_for(&self, ranking: &[PeerId], came: Now, now: Now) -> Vec<Turn> {
        let recent = now.since(came) < KEPT_FOR;
        let turn = |peer: &PeerId| {
            let since = self.all.get(peer).map(|one| one.since);
            Turn {
                peer: *peer,
                elder: recent && since.is_some_and(|since| since <= came + MEETING_TAKES),
                young: since.is_none_or(|since| now.since(since.max(came)) < KEPT_FOR),
            }
        };
        ranking.iter().map(turn).collect()
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
