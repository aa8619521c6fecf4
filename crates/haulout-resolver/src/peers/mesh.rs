//! The real mesh as [`Peers`].

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use haulout_mesh::{
    Mesh, NarKey, NarStream, NarTree, PeerState, PeerView, RequestError, SiteFrame, SiteRequest,
    SiteStream, StreamError,
};
use haulout_nix::{HashPart, PathInfo};
use haulout_swarm::site::{Away, SegmentKey, Turn};
use haulout_swarm::{Fault, PeerId};
use tokio::time::timeout;

use super::{Answer, Chunks, Patience, PeerError, Peers};

/// How long a peer that is alive may take to say yes to a NAR: on a slow link
/// the answer waits behind the bytes of other NARs.
const NAR_DEADLINE: Duration = Duration::from_secs(5);
/// How often it is looked whether the peer is alive.
const LOOK_EVERY: Duration = Duration::from_millis(400);
/// How long a peer may take to begin to answer for a site object: it does so
/// before it fetches anything. (The follower's plan gives up sooner.)
const SITE_DEADLINE: Duration = Duration::from_secs(3);
/// How long a peer may take to give a tree it may first have to compute.
const TREE_DEADLINE: Duration = Duration::from_secs(2);

impl From<RequestError> for PeerError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::No | RequestError::Unsupported | RequestError::BadQuestion(_) => Self::No,
            RequestError::Busy => Self::Busy,
            RequestError::Deadline(_) => Self::Silent,
            RequestError::NotConnected | RequestError::Lost(_) | RequestError::ShutDown => {
                Self::Lost
            }
            RequestError::Protocol(_) => Self::Protocol,
        }
    }
}

impl From<StreamError> for PeerError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Stalled(_) => Self::Silent,
            StreamError::Lost(_) => Self::Lost,
            StreamError::Protocol(_) => Self::Protocol,
        }
    }
}

impl Chunks for NarStream {
    fn next(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Bytes>, PeerError>> + Send + '_>> {
        Box::pin(async { Ok(Self::next(self).await?) })
    }
}

fn site_frames(frames: SiteStream) -> BoxStream<'static, Result<SiteFrame, PeerError>> {
    stream::unfold(Some(frames), |frames| async {
        let mut frames = frames?;
        match frames.next().await {
            Ok(frame) => Some((Ok(frame), Some(frames))),
            Err(error) => Some((Err(error.into()), None)),
        }
    })
    .boxed()
}

impl Peers for Mesh {
    fn who_has(&self, hash: &HashPart) -> Vec<PeerId> {
        Self::who_has(self, hash)
    }

    fn who_sends(&self, hash: &HashPart, patience: Duration) -> Vec<PeerId> {
        Self::who_sends(self, hash, patience)
    }

    fn locate(&self, hash: &HashPart) -> Option<Answer<()>> {
        if !self.knows_in_part() {
            return None;
        }
        let (mesh, hash) = (self.clone(), *hash);
        Some(Box::pin(async move { Self::locate(&mesh, &hash).await }))
    }

    fn is_hearsay(&self, peer: &PeerId, hash: &HashPart) -> bool {
        Self::is_hearsay(self, peer, hash)
    }

    fn undeclared(&self) -> Vec<PeerId> {
        self.unannounced()
    }

    fn path_infos(
        &self,
        peer: PeerId,
        hash: HashPart,
        max: usize,
        patience: Patience,
    ) -> Answer<Result<Vec<PathInfo>, PeerError>> {
        let mesh = self.clone();
        Box::pin(async move { Ok(mesh.path_infos_patiently(&peer, &hash, max, patience).await?) })
    }

    fn nar_tree(&self, peer: PeerId, key: NarKey) -> Answer<Result<NarTree, PeerError>> {
        let mesh = self.clone();
        Box::pin(async move { Ok(Self::nar_tree(&mesh, &peer, &key, TREE_DEADLINE).await?) })
    }

    fn nar_range(
        &self,
        peer: PeerId,
        key: NarKey,
        range: Range<u64>,
    ) -> Answer<Result<Box<dyn Chunks>, PeerError>> {
        let mesh = self.clone();
        Box::pin(async move {
            let mut ask = std::pin::pin!(Self::nar_range(&mesh, &peer, &key, range, NAR_DEADLINE));
            loop {
                if let Ok(answer) = timeout(LOOK_EVERY, &mut ask).await {
                    return Ok(Box::new(answer?) as Box<dyn Chunks>);
                }
                let here = Self::who_has(&mesh, &key.path).contains(&peer);
                if !here && !mesh.unannounced().contains(&peer) {
                    return Err(PeerError::Silent);
                }
            }
        })
    }

    fn blame(&self, peer: PeerId, fault: Fault) {
        Self::blame(self, &peer, fault);
    }

    fn hedge_delay(&self) -> Duration {
        Self::hedge_delay(self)
    }

    fn me(&self) -> PeerId {
        self.id()
    }

    fn homes(&self, segment: &SegmentKey, outside: u32, most: usize) -> Vec<PeerId> {
        Self::homes(self, segment, outside, most)
    }

    fn others(&self, outside: u32) -> usize {
        Self::others(self, outside)
    }

    fn away(&self) -> Vec<Away> {
        let peers = self.peers().into_iter().filter(|peer| peer.state != PeerState::Connected);
        peers.map(|peer| Away { peer: peer.id, banned: peer.banned_for.is_some() }).collect()
    }

    fn turns(&self, ranking: &[PeerId]) -> Vec<Turn> {
        Self::turns(self, ranking)
    }

    fn set_standing(&self, willing: bool, outsides: &[u32]) {
        Self::set_standing(self, willing, outsides);
    }

    fn site(
        &self,
        peer: PeerId,
        request: SiteRequest,
    ) -> BoxStream<'static, Result<SiteFrame, PeerError>> {
        let mesh = self.clone();
        let opened = async move {
            match Self::site(&mesh, &peer, request, SITE_DEADLINE).await {
                Ok(frames) => site_frames(frames),
                Err(error) => stream::once(async { Err(error.into()) }).boxed(),
            }
        };
        stream::once(opened).flatten().boxed()
    }

    fn views(&self) -> Vec<PeerView> {
        self.peers()
    }
}
