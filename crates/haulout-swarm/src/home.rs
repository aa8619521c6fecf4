//! Whose turn is it to fetch a key from outside: rendezvous (highest random weight) hashing.
//!
//! Every machine ranks the live peers for a key in the same order without a message: each (key, peer) pair has a
//! weight, the highest is the key's *home*, the next ones take over if it does not answer. A peer that joins or leaves
//! moves only the keys that it is or was first for.
//!
//! The weight is a 64-bit mix, not a cryptographic hash: a peer that grinds its key to become home of something gains
//! the duty to fetch it, and whatever it hands on is verified like everything else.
//!
//! Definition (all agents of a site must agree): `fold(bytes)` starts at the length and, for each 8-byte little-endian
//! word (the last padded with zeros), sets `h = mix(h ^ word)`; `weight = mix(fold(key) ^ fold(peer))`; `mix` is the
//! output function of splitmix64. Ties go to the smaller peer id.

use std::cmp::Reverse;

use crate::PeerId;
use crate::random::mix;

/// All peers, the key's home first.
#[must_use]
pub fn ranking(key: &[u8], peers: impl IntoIterator<Item = PeerId>) -> Vec<PeerId> {
    let key = fold(key);
    let mut ranked: Vec<(Reverse<u64>, PeerId)> =
        peers.into_iter().map(|peer| (Reverse(weight(key, fold(peer.as_bytes()))), peer)).collect();
    ranked.sort_unstable();
    ranked.dedup();
    ranked.into_iter().map(|(_, peer)| peer).collect()
}

/// The peer whose turn it is; `None` without peers.
#[must_use]
pub fn home(key: &[u8], peers: impl IntoIterator<Item = PeerId>) -> Option<PeerId> {
    let key = fold(key);
    peers.into_iter().min_by_key(|peer| (Reverse(weight(key, fold(peer.as_bytes()))), *peer))
}

/// How many of `peers` come before `peer` for this key: 0 means it is the home. `peer` itself need not be listed.
#[must_use]
pub fn rank(key: &[u8], peer: PeerId, peers: impl IntoIterator<Item = PeerId>) -> usize {
    let key = fold(key);
    let place = |peer: PeerId| (Reverse(weight(key, fold(peer.as_bytes()))), peer);
    let own = place(peer);
    peers.into_iter().filter(|other| place(*other) < own).count()
}

/// The weight of a (folded key, folded peer) pair.
pub(crate) const fn weight(key: u64, peer: u64) -> u64 {
    mix(key ^ peer)
}

/// A key or a peer as one number.
pub(crate) fn fold(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(bytes.len() as u64, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(hash ^ u64::from_le_bytes(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn peers(count: u8) -> Vec<PeerId> {
        (0..count).map(|n| PeerId::from_bytes([n; 32])).collect()
    }

    #[test]
    fn the_order_is_part_of_the_protocol() {
        let order: Vec<u8> =
            ranking(b"key", peers(5)).iter().map(|peer| peer.as_bytes()[0]).collect();
        assert_eq!(order, PINNED);
    }

    /// Computed once; a change here breaks sites with mixed versions.
    const PINNED: [u8; 5] = [4, 2, 0, 3, 1];

    #[test]
    fn keys_are_spread_evenly() {
        let peers = peers(10);
        let mut counts = [0u32; 10];
        for key in 0u32..10_000 {
            let first = home(&key.to_be_bytes(), peers.iter().copied()).unwrap();
            counts[usize::from(first.as_bytes()[0])] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn a_peer_that_leaves_moves_nothing_else(key: Vec<u8>, count in 1u8..40, gone in 0u8..40) {
            let all = peers(count);
            let gone = PeerId::from_bytes([gone; 32]);
            let before = ranking(&key, all.iter().copied());
            let after = ranking(&key, all.iter().copied().filter(|peer| *peer != gone));
            let expected: Vec<PeerId> = before.iter().copied().filter(|peer| *peer != gone).collect();
            prop_assert_eq!(after, expected);
        }

        #[test]
        fn the_three_questions_agree(key: Vec<u8>, count in 1u8..40) {
            let mut all = peers(count);
            let ranked = ranking(&key, all.iter().copied());
            all.reverse();
            prop_assert_eq!(home(&key, all.iter().copied()), ranked.first().copied());
            for (index, peer) in ranked.iter().enumerate() {
                prop_assert_eq!(rank(&key, *peer, all.iter().copied()), index);
            }
        }
    }
}
