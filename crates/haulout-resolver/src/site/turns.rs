//! Whose turn it is to give a segment.

use haulout_swarm::PeerId;
use haulout_swarm::site::{RANKED_MAX, SegmentKey, SiteKey, SiteKind, Turn};

use super::{Inner, SiteObject, held_as, lock};

/// Peers ranked for one segment of a NAR that others hold.
const FELLOWS_RANKED_MAX: usize = 6;
/// Peers looked at to find so many that are of use, among those that fetch at the same time.
const FELLOWS_MAX: usize = 32;
/// Peers that hold an object and are asked before its home: one, and one that stands in for it.
const HOLDERS_ASKED: usize = 2;

impl Inner {
    /// Whose turn it is, in order, and who of them was here before this agent came.
    pub(super) fn turns(&self, object: &SiteObject, index: u32) -> Vec<Turn> {
        let ranking = self.ranking(object, index);
        match object.key.kind {
            // Who fetches at the same time has come at the same time.
            SiteKind::Nar => {
                let turn = |peer| Turn { peer, elder: false, young: false };
                ranking.into_iter().map(turn).collect()
            }
            _ => self.peers().turns(&ranking),
        }
    }

    /// Whom to ask, in order: who holds it, then whose turn it is, the home first. Nobody who has refused this object, or
    /// given wrong bytes of it.
    pub(super) fn ranking(&self, object: &SiteObject, index: u32) -> Vec<PeerId> {
        let peers = self.peers();
        let (turn, place) = (turn_of(&object.key, index), object.outside.tag());
        let mut ranking = match object.key.kind {
            SiteKind::Nar => peers.homes(&turn, place, FELLOWS_MAX),
            SiteKind::Sliver | SiteKind::BlobMetadata => {
                let mut ranking = peers.who_has(&held_as(&object.key.id));
                ranking.truncate(HOLDERS_ASKED);
                for home in peers.homes(&turn, place, RANKED_MAX) {
                    if !ranking.contains(&home) {
                        ranking.push(home);
                    }
                }
                ranking
            }
            _ => peers.homes(&turn, place, RANKED_MAX),
        };
        let (me, now) = (peers.me(), self.now());
        let fellows = lock(&self.fellows);
        ranking.retain(|peer| match object.key.kind {
            _ if *peer == me => true,
            SiteKind::Nar => fellows.usable(&object.key, peer, now),
            _ => !fellows.is_out(&object.key, peer),
        });
        drop(fellows);
        ranking.truncate(match object.key.kind {
            SiteKind::Nar => FELLOWS_RANKED_MAX,
            _ => RANKED_MAX + HOLDERS_ASKED,
        });
        ranking
    }
}

/// The segment whose turns are those of a segment of an object: a node gives a sliver whole, so all its segments have the
/// homes of the first.
pub(super) fn turn_of(object: &SiteKey, index: u32) -> SegmentKey {
    match object.kind {
        SiteKind::Sliver | SiteKind::BlobMetadata => object.segment(0),
        _ => object.segment(index),
    }
}
