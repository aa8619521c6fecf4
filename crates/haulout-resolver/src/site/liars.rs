//! Who gave what turned out to be wrong.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use haulout_swarm::site::{Authorship, Cut, RANKED_MAX, SiteKey, authorship};
use haulout_swarm::{Fault, PeerId};

use super::segment::Segment;
use super::turns::turn_of;
use super::{Inner, Site, SiteObject, lock};

impl Site {
    /// Who gave the segments of an object that turned out to be wrong is found out: what came from peers is fetched again
    /// from outside and compared. Then the object is forgotten.
    pub fn wrong(&self, object: &SiteObject) {
        let site = self.clone();
        let object = object.clone();
        self.inner.spawn(async move { site.find_liars(&object).await });
    }

    /// The same, and waits for it. How many peers were found to have lied.
    pub async fn find_liars(&self, object: &SiteObject) -> usize {
        self.inner.find_liars(object).await
    }

    /// Of an object that this machine can have elsewhere as well, bytes do not fit: it is forgotten, and who gave them is not
    /// asked for it again. Nothing is fetched to find out more.
    pub(crate) fn doubt(&self, object: &SiteObject) {
        let inner = &self.inner;
        let count = object.size.map_or(1, Cut::count);
        let segments = (0..count).filter_map(|index| inner.known(&object.key.segment(index)));
        let mut peers: Vec<PeerId> = segments.flat_map(|segment| segment.peers()).collect();
        peers.sort_unstable();
        peers.dedup();
        let alone = match peers.as_slice() {
            [peer] => inner.authorship(object, 0, peer) != Authorship::PassedOn,
            // Where in the file the wrong bytes are is not known.
            _ => false,
        };
        let mut fellows = lock(&inner.fellows);
        for peer in &peers {
            match alone {
                true => fellows.wrong(&object.key, peer),
                false => fellows.leave_out(&object.key, peer),
            }
        }
        drop(fellows);
        inner.forget(object);
    }

    /// It is certain now that they were wrong: who alone gave such bytes of several objects lies.
    pub(crate) fn was_wrong(&self, object: &SiteObject) {
        self.inner.blame_fellows(&object.key);
    }
}

impl Inner {
    /// An object is right, and some gave wrong bytes of it: those that have done so with several are blamed.
    pub(super) fn blame_fellows(&self, object: &SiteKey) {
        let liars = lock(&self.fellows).confirmed(object);
        for peer in liars {
            tracing::warn!(peer = %peer.short(), "a peer relayed wrong bytes again and again");
            self.stats.lies.one();
            self.peers().blame(peer, Fault::WrongContent);
        }
    }

    async fn find_liars(&self, object: &SiteObject) -> usize {
        let suspects: Vec<Arc<Segment>> = lock(&self.segments)
            .values()
            .filter(|segment| segment.object.key == object.key)
            .cloned()
            .collect();
        self.forget(object);
        let mut liars = 0;
        for segment in suspects {
            let Some(peer) = segment.only_supplier() else { continue };
            let Some(own) = self.fetch_own(object, segment.index).await else { continue };
            if !segment.is(&own) && self.is_liar(object, segment.index, peer) {
                tracing::warn!(peer = %peer.short(), object = ?object.key, "a peer relayed wrong bytes");
                self.stats.lies.one();
                self.peers().blame(peer, Fault::WrongContent);
                liars += 1;
            }
        }
        liars
    }

    /// Whether a peer that alone gave a wrong segment is to be banned for it. If somebody else may have made it, it is left
    /// out for this object, and counts as a liar when it has happened with several.
    fn is_liar(&self, object: &SiteObject, index: u32, peer: PeerId) -> bool {
        let authorship = self.authorship(object, index, &peer);
        tracing::debug!(peer = %peer.short(), object = ?object.key, ?authorship, "gave wrong bytes");
        let mut fellows = lock(&self.fellows);
        match authorship {
            Authorship::Own => true,
            Authorship::Doubtful => {
                fellows.wrong(&object.key, &peer);
                fellows.confirmed(&object.key).contains(&peer)
            }
            Authorship::PassedOn => {
                fellows.leave_out(&object.key, &peer);
                false
            }
        }
    }

    /// Whether a peer that gave a wrong segment has made it.
    fn authorship(&self, object: &SiteObject, index: u32, peer: &PeerId) -> Authorship {
        let (peers, place) = (self.peers(), object.outside.tag());
        let turn = turn_of(&object.key, index);
        let here = peers.homes(&turn, place, RANKED_MAX);
        match authorship(&turn, peer, &here, &peers.away()) {
            // One that has come lately may have it from those that were there before, as any home does.
            Authorship::Own if peers.turns(&[*peer]).iter().any(|turn| turn.young) => {
                Authorship::Doubtful
            }
            other => other,
        }
    }

    /// This agent's own copy of a segment, straight from outside.
    async fn fetch_own(&self, object: &SiteObject, index: u32) -> Option<Vec<Bytes>> {
        let outside = self.outside(object.outside)?;
        let range = object.size.map(|cut| cut.range(index));
        let body = outside.fetch(object.clone(), range).await.ok()?;
        let pieces: Vec<Bytes> = body.try_collect().await.ok()?;
        let bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        self.stats.bytes_outside.add(bytes);
        Some(pieces)
    }
}
