//! Who holds what according to others, for a while: what the homes of an entry named ([`crate::portions`]), and what a peer
//! that is known only in part has described itself.
//!
//! A hint is worth a question and no more: a wrong one costs a "no", which is nobody's fault.
//!
//! Two generations instead of a time for each entry: the younger becomes the elder when it is old or full, and the elder is
//! forgotten. So a hint lives between [`HINTS_FOR`] and twice that, unless too many others come.

use std::collections::BTreeMap;
use std::time::Duration;

use smallvec::SmallVec;

use crate::directory::Holders;
use crate::portions::NAMED_MAX;
use crate::{Now, PeerId};

/// How long a hint is kept at least: from the question for a path's description to that for its bytes, in a large closure.
pub const HINTS_FOR: Duration = Duration::from_secs(300);

/// Most entries with hints in each of the two generations: the closures of several systems. At some 350 bytes for each entry
/// with all its names (most have one) both take 11 MB at most.
pub const HINTS_MAX: usize = 16_384;

type Named = SmallVec<[PeerId; 1]>;

/// Hints, by prefix.
#[derive(Clone, Debug, Default)]
pub struct Hearsay {
    young: BTreeMap<u32, Named>,
    old: BTreeMap<u32, Named>,
    /// Since when there are young ones.
    since: Now,
}

impl Hearsay {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// These peers are said to hold the prefix. At most [`NAMED_MAX`] are kept, the latest.
    pub fn heard(&mut self, prefix: u32, peers: impl IntoIterator<Item = PeerId>, now: Now) {
        self.age(now);
        let mut peers = peers.into_iter().peekable();
        if peers.peek().is_none() {
            return;
        }
        if self.young.len() >= HINTS_MAX && !self.young.contains_key(&prefix) {
            self.turn(now);
        }
        let known = self.young.entry(prefix).or_default();
        for peer in peers {
            known.retain(|other| *other != peer);
            if known.len() >= NAMED_MAX {
                known.remove(0);
            }
            known.push(peer);
        }
    }

    /// Who is said to hold the prefix.
    #[must_use]
    pub fn who_has(&self, prefix: u32, now: Now) -> Holders {
        let age = now.since(self.since);
        let mut holders = Holders::new();
        if age < 2 * HINTS_FOR {
            holders.extend(self.young.get(&prefix).into_iter().flatten().copied());
        }
        if age < HINTS_FOR {
            let old = self.old.get(&prefix).into_iter().flatten();
            for peer in old {
                if !holders.contains(peer) && holders.len() < NAMED_MAX {
                    holders.push(*peer);
                }
            }
        }
        holders
    }

    /// This peer said that it has not got it.
    pub fn denied(&mut self, prefix: u32, peer: &PeerId) {
        for generation in [&mut self.young, &mut self.old] {
            if let Some(named) = generation.get_mut(&prefix) {
                named.retain(|other| other != peer);
                if named.is_empty() {
                    generation.remove(&prefix);
                }
            }
        }
    }

    /// How many entries there are hints for, both generations counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }

    fn age(&mut self, now: Now) {
        let age = now.since(self.since);
        if age >= HINTS_FOR {
            self.turn(now);
        }
        if age >= 2 * HINTS_FOR {
            self.old.clear();
        }
    }

    fn turn(&mut self, now: Now) {
        self.old = std::mem::take(&mut self.young);
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    fn at(seconds: u64) -> Now {
        Now::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn a_hint_lives_for_some_minutes() {
        let mut hearsay = Hearsay::new();
        hearsay.heard(7, [peer(1), peer(2)], at(0));
        assert_eq!(hearsay.who_has(7, at(1)).as_slice(), [peer(1), peer(2)]);
        assert!(hearsay.who_has(8, at(1)).is_empty());
        // A later one for something else must not end it early.
        hearsay.heard(8, [peer(3)], at(299));
        hearsay.heard(9, [peer(3)], at(301));
        assert_eq!(hearsay.who_has(7, at(302)).len(), 2);
        assert_eq!(hearsay.who_has(8, at(598)).len(), 1, "299 s old");
        hearsay.heard(10, [peer(3)], at(602));
        assert!(hearsay.who_has(7, at(602)).is_empty());
        // Nothing more comes: what is there grows old all the same.
        assert!(hearsay.who_has(10, at(602 + 600)).is_empty());
        hearsay.heard(11, [peer(3)], at(5_000));
        assert_eq!(hearsay.len(), 1);
    }

    #[test]
    fn who_said_no_is_not_named_again() {
        let mut hearsay = Hearsay::new();
        hearsay.heard(7, [peer(1), peer(2)], at(0));
        hearsay.heard(7, [peer(1), peer(3)], at(301));
        hearsay.denied(7, &peer(1));
        assert_eq!(hearsay.who_has(7, at(302)).as_slice(), [peer(3), peer(2)]);
        hearsay.denied(7, &peer(2));
        hearsay.denied(7, &peer(3));
        assert!(hearsay.is_empty());
    }

    #[test]
    fn the_table_is_bounded() {
        let mut hearsay = Hearsay::new();
        for step in 0..3 * HINTS_MAX as u32 {
            let prefix = step.wrapping_mul(0x9e37_79b9);
            hearsay.heard(prefix, (0..20).map(peer), at(0));
            assert_eq!(hearsay.who_has(prefix, at(0)).len(), NAMED_MAX);
        }
        assert_eq!(hearsay.len(), 2 * HINTS_MAX);
        // The latest are there.
        let last = (3 * HINTS_MAX as u32 - 1).wrapping_mul(0x9e37_79b9);
        assert_eq!(hearsay.who_has(last, at(0))[0], peer(12));
    }
}
