//! Machines that fetch from the same holders at the same time, and how they fared with each other.
//!
//! That a machine fetches is known; *what* it fetches is not. Whoever is asked for what it does not want itself refuses. That
//! costs a round trip on the local network, and is remembered: for that object, and after a row of refusals for a while for
//! everything, because such a machine is busy with another closure.
//!
//! A relay that gives bytes which do not fit the hash tree *may* be honest: the tree is the word of a holder, and a holder can
//! promise different things to two fetchers. So it is only left out for that object. When the whole object has been confirmed
//! under its real hash, the bytes were wrong beyond doubt; who does that several times lies.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::SiteKey;
use crate::peers::PEERS_MAX;
use crate::{Now, PeerId};

/// So many that hold an object have lines enough for all that want it: then it is taken from them, and not from others that fetch
/// it. Relayed pieces are unpacked and come by way of a home; simulated with 400 machines (`docs/scale.md`), relaying whatever
/// the number of holders took 17 minutes instead of 10.
pub const HOLDERS_ENOUGH: usize = 8;

/// Where fewer hold a NAR than this, its packed pieces are asked of the file's homes first ([`few_hold`]). In simulations
/// (`docs/scale.md`) 16 brings nearly all that is to be had; packed pieces cost every machine their unpacking, and a question
/// each that is in vain once the homes have let go of them.
pub const HOLDERS_FEW: usize = 16;

/// Refusals in a row after which a peer is taken to fetch something else.
pub const REFUSALS_MAX: u32 = 4;

/// Whether a NAR is to be had from its file's homes first, "only if they have it" ([`super::Follow::kept`]): `holders` on the
/// network have it unpacked, while so many `fetchers` fetch something (all standings that name the holders as a place). The
/// homes are everybody, and no two keep the same; the holders' lines are shared by all that fetch.
#[must_use]
pub const fn few_hold(holders: usize, fetchers: usize) -> bool {
    let share = fetchers / 4;
    holders < if share > HOLDERS_FEW { share } else { HOLDERS_FEW }
}

/// How long it then is not asked: about as long as the next part of a closure takes.
pub const REST: Duration = Duration::from_secs(5);

/// Objects for which a peer gave wrong bytes, confirmed, before it counts as a liar. A holder that wants to frame it must do
/// so as often, and is found out by the framed one at the first.
pub const STRIKES_MAX: u32 = 3;

/// Pairs of an object and a peer that are remembered; the oldest are forgotten.
const OUT_MAX: usize = 4_096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It does not want the object.
    Refused,
    /// Its bytes did not fit the tree.
    Wrong,
}

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    refusals: u32,
    rests_until: Option<Now>,
    strikes: u32,
}

/// What is known of fellow fetchers.
#[derive(Clone, Debug, Default)]
pub struct Fellows {
    peers: BTreeMap<PeerId, Record>,
    out: BTreeMap<(SiteKey, PeerId), Why>,
    /// The keys of `out`, the oldest first.
    order: VecDeque<(SiteKey, PeerId)>,
}

impl Fellows {
    /// Nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a peer is worth asking for a segment of an object.
    #[must_use]
    pub fn usable(&self, object: &SiteKey, peer: &PeerId, now: Now) -> bool {
        let rests = |record: &Record| record.rests_until.is_some_and(|until| until > now);
        !self.peers.get(peer).is_some_and(rests) && !self.is_out(object, peer)
    }

    /// Whether a peer is left out for an object. That it fetches something else, and rests for that, is another matter: it
    /// fetches from outside for others all the same.
    #[must_use]
    pub fn is_out(&self, object: &SiteKey, peer: &PeerId) -> bool {
        self.out.contains_key(&(*object, *peer))
    }

    /// It gave a whole segment.
    pub fn served(&mut self, peer: &PeerId) {
        if let Some(record) = self.peers.get_mut(peer) {
            record.refusals = 0;
            record.rests_until = None;
        }
    }

    /// It does not want this object itself.
    pub fn refused(&mut self, object: &SiteKey, peer: &PeerId, now: Now) {
        if !self.put_out(object, peer, Why::Refused) {
            return;
        }
        let Some(record) = self.record(peer) else { return };
        record.refusals += 1;
        if record.refusals >= REFUSALS_MAX {
            record.rests_until = Some(now + REST);
        }
    }

    /// Its bytes do not fit the tree: not asked for this object again.
    pub fn wrong(&mut self, object: &SiteKey, peer: &PeerId) {
        self.put_out(object, peer, Why::Wrong);
    }

    /// It is not asked for this object again, and that is all.
    pub fn leave_out(&mut self, object: &SiteKey, peer: &PeerId) {
        self.put_out(object, peer, Why::Refused);
    }

    /// The object is whole and has its real hash. Returns who has given wrong bytes so often that it lies.
    pub fn confirmed(&mut self, object: &SiteKey) -> Vec<PeerId> {
        let lowest = (*object, PeerId::from_bytes([0; 32]));
        let wrong: Vec<PeerId> = self
            .out
            .range(lowest..)
            .take_while(|((other, _), _)| other == object)
            .filter(|(_, why)| **why == Why::Wrong)
            .map(|((_, peer), _)| *peer)
            .collect();
        let mut liars = Vec::new();
        for peer in wrong {
            // Once for each object.
            self.out.insert((*object, peer), Why::Refused);
            let Some(record) = self.record(&peer) else { continue };
            record.strikes += 1;
            if record.strikes >= STRIKES_MAX {
                record.strikes = 0;
                liars.push(peer);
            }
        }
        liars
    }

    /// How many peers are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether nobody is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// The record of a peer; `None` if too many are known.
    fn record(&mut self, peer: &PeerId) -> Option<&mut Record> {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(peer) {
            // Who has no strike can be forgotten: it is asked once more, no worse.
            self.peers.retain(|_, record| record.strikes > 0);
        }
        let full = self.peers.len() >= PEERS_MAX && !self.peers.contains_key(peer);
        (!full).then(|| self.peers.entry(*peer).or_default())
    }

    /// False if it was left out already.
    fn put_out(&mut self, object: &SiteKey, peer: &PeerId, why: Why) -> bool {
        let key = (*object, *peer);
        if let Some(known) = self.out.get_mut(&key) {
            if why == Why::Wrong {
                *known = why;
            }
            return false;
        }
        while self.out.len() >= OUT_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            self.out.remove(&oldest);
        }
        self.out.insert(key, why);
        self.order.push_back(key);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::SiteKind;

    fn peer(n: u32) -> PeerId {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        PeerId::from_bytes(id)
    }

    fn object(n: u32) -> SiteKey {
        SiteKey { kind: SiteKind::Nar, id: *peer(n).as_bytes() }
    }

    fn at(seconds: u64) -> Now {
        Now::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn few_is_measured_by_those_that_fetch() {
        assert!(few_hold(1, 0) && few_hold(15, 40) && !few_hold(16, 67));
        assert!(few_hold(74, 300) && !few_hold(75, 300));
        const { assert!(HOLDERS_FEW >= HOLDERS_ENOUGH, "kept pieces come before what fetchers relay") };
    }

    #[test]
    fn who_refuses_is_out_for_the_object_and_after_a_row_of_them_rests() {
        let mut fellows = Fellows::new();
        for n in 0..REFUSALS_MAX {
            assert!(fellows.usable(&object(n), &peer(1), at(0)));
            fellows.refused(&object(n), &peer(1), at(0));
            // The other segments of the same object are no further refusals.
            fellows.refused(&object(n), &peer(1), at(0));
            assert!(!fellows.usable(&object(n), &peer(1), at(100)));
            assert!(fellows.usable(&object(n), &peer(2), at(0)));
            assert!(fellows.is_out(&object(n), &peer(1)) && !fellows.is_out(&object(n), &peer(2)));
        }
        assert!(!fellows.is_out(&object(99), &peer(1)), "it rests, and is home of what it was");
        assert!(!fellows.usable(&object(99), &peer(1), at(0)));
        assert!(fellows.usable(&object(99), &peer(1), at(5)));
        fellows.refused(&object(98), &peer(1), at(5));
        assert!(!fellows.usable(&object(99), &peer(1), at(6)), "one more is enough then");
        fellows.served(&peer(1));
        assert!(fellows.usable(&object(99), &peer(1), at(6)));
        fellows.refused(&object(97), &peer(1), at(6));
        assert!(fellows.usable(&object(99), &peer(1), at(6)));
    }

    #[test]
    fn wrong_bytes_count_once_an_object_is_confirmed_and_once_for_each() {
        let mut fellows = Fellows::new();
        for n in 0..STRIKES_MAX {
            fellows.wrong(&object(n), &peer(1));
            fellows.wrong(&object(n), &peer(1));
            fellows.refused(&object(n), &peer(2), at(0));
            assert!(!fellows.usable(&object(n), &peer(1), at(0)));
            assert!(fellows.usable(&object(n + 1), &peer(1), at(0)));
        }
        assert_eq!(fellows.confirmed(&object(77)), []);
        for n in 0..STRIKES_MAX {
            let liars = fellows.confirmed(&object(n));
            assert_eq!(liars.is_empty(), n + 1 < STRIKES_MAX);
            assert_eq!(fellows.confirmed(&object(n)), [], "told already");
        }
    }

    #[test]
    fn memory_is_bounded_whoever_asks() {
        let mut fellows = Fellows::new();
        for n in 0..20_000 {
            fellows.refused(&object(n % 7), &peer(n), at(0));
            fellows.wrong(&object(n), &peer(n));
            fellows.confirmed(&object(n));
        }
        assert!(fellows.len() <= PEERS_MAX);
        assert!(fellows.out.len() <= OUT_MAX && fellows.order.len() <= OUT_MAX);
    }
}
