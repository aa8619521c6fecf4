//! Who made a piece that turned out to be wrong: the peer that gave it, or one before it.
//!
//! A peer passes on what it gets while it gets it, so it may have passed a lie on before it could know. Whoever is asked for
//! what it knows nothing of goes outside itself and asks nobody; so the *home* of a piece has it from nobody, and a wrong
//! piece from the home is the home's own. Any other peer may have it from the home, also from one that this agent does not
//! see any more: because it has banned it a moment ago, say, for another piece.

use super::SegmentKey;
use crate::{PeerId, home};

/// An agent that is known and no use now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away {
    /// Who.
    pub peer: PeerId,
    /// It was found to lie; otherwise it is gone, or silent.
    pub banned: bool,
}

/// What is to be thought of a peer that alone gave a wrong segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Authorship {
    /// It made it.
    Own,
    /// It may have made it. It is left out for the object, like a fellow fetcher whose bytes are wrong, and counts as a liar
    /// after [`STRIKES_MAX`](super::STRIKES_MAX) objects.
    Doubtful,
    /// A liar would have been the home: most probably it is the liar's. The peer is left out for the object and no more. It
    /// gains nothing by it: of the pieces that it is the home of itself, none is excused.
    PassedOn,
}

/// Who made a wrong segment that came whole from `peer`: `here` are those that fetch such things, in the order of their
/// turns, `away` those that this agent knows and does not ask now.
#[must_use]
pub fn authorship(
    segment: &SegmentKey,
    peer: &PeerId,
    here: &[PeerId],
    away: &[Away],
) -> Authorship {
    let key = segment.rendezvous();
    let before = |banned: bool| {
        let some = away.iter().filter(|one| one.banned == banned && one.peer != *peer);
        home::rank(&key, *peer, some.map(|one| one.peer)) > 0
    };
    match here.first() == Some(peer) {
        _ if before(true) => Authorship::PassedOn,
        true if !before(false) => Authorship::Own,
        _ => Authorship::Doubtful,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::{SiteKey, SiteKind};

    #[test]
    fn only_a_home_that_nobody_stands_before_is_taken_for_the_author() {
        let all: Vec<PeerId> = (0..20).map(|n| PeerId::from_bytes([n; 32])).collect();
        let away = |peer: PeerId, banned: bool| [Away { peer, banned }];
        for index in 0..50 {
            let segment = SiteKey { kind: SiteKind::UpstreamFile, id: [9; 32] }.segment(index);
            let ranked = home::ranking(&segment.rendezvous(), all.clone());
            let (first, second, last) = (ranked[0], ranked[1], ranked[19]);
            let of = |peer, here, away: &[Away]| authorship(&segment, &peer, here, away);
            assert_eq!(of(first, &ranked, &[]), Authorship::Own);
            assert_eq!(of(first, &ranked, &away(last, true)), Authorship::Own);
            assert_eq!(of(first, &ranked, &away(first, true)), Authorship::Own, "banned meanwhile");
            assert_eq!(of(second, &ranked, &[]), Authorship::Doubtful);
            assert_eq!(
                of(first, &[], &[]),
                Authorship::Doubtful,
                "it was no home when it was asked"
            );
            // The first is no longer here: who stands in for it may have its lie still.
            assert_eq!(of(second, &ranked[1..], &[]), Authorship::Own);
            assert_eq!(of(second, &ranked[1..], &away(first, false)), Authorship::Doubtful);
            assert_eq!(of(second, &ranked[1..], &away(first, true)), Authorship::PassedOn);
            assert_eq!(of(ranked[2], &ranked[1..], &away(first, true)), Authorship::PassedOn);
        }
    }
}
