//! What the resolver needs of the mesh, small enough to be played by a
//! script in tests.

mod mesh;

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
pub use haulout_mesh::Patience;
use haulout_mesh::{NarKey, NarTree, PeerView, SiteFrame, SiteRequest};
use haulout_nix::{HashPart, PathInfo};
use haulout_swarm::site::{Away, SegmentKey, Turn};
use haulout_swarm::{Fault, PeerId};

/// A future that can be stored, as the methods of a trait object give it.
pub type Answer<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// Why one peer brought nothing. All of them mean: ask somebody else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It answered "no".
    #[error("has not got it")]
    No,
    /// It is at one of its limits.
    #[error("is busy")]
    Busy,
    /// It cannot be reached, or went away in the middle.
    #[error("went away")]
    Lost,
    /// It did not answer, or did not go on, in time.
    #[error("is silent")]
    Silent,
    /// It broke the protocol.
    #[error("broke the protocol")]
    Protocol,
}

impl PeerError {
    /// What to report the peer for. `None`: nothing it could be blamed for,
    /// or the mesh saw it happen and has counted it already.
    pub(crate) fn fault(&self) -> Option<Fault> {
        match self {
            Self::No => Some(Fault::FalseHint),
            Self::Silent => Some(Fault::Timeout),
            Self::Protocol => Some(Fault::ProtocolViolation),
            Self::Busy | Self::Lost => None,
        }
    }
}

/// The bytes of one range of a NAR, as one peer sends them: in order,
/// nothing checked.
pub trait Chunks: Send {
    /// The next bytes; `None` when the peer says that the range is complete.
    fn next(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Bytes>, PeerError>> + Send + '_>>;
}

/// The other agents, as the resolver sees them.
pub trait Peers: Send + Sync + 'static {
    /// Usable peers whose holdings name this path, best first. Answered from
    /// memory.
    fn who_has(&self, hash: &HashPart) -> Vec<PeerId>;

    /// The same for fetching the NAR: without peers that rest for longer than
    /// `patience` because nothing came of asking them.
    fn who_sends(&self, hash: &HashPart, patience: Duration) -> Vec<PeerId> {
        let _ = patience;
        self.who_has(hash)
    }

    /// If there are so many peers that most tell only a part of what they
    /// hold, and nothing known names this path: asks those who should know.
    /// [`Peers::who_has`] knows more afterwards. `None`: there is nobody to
    /// ask.
    fn locate(&self, hash: &HashPart) -> Option<Answer<()>> {
        let _ = hash;
        None
    }

    /// Whether only others say that this peer has the path, so that its "no"
    /// is not its fault.
    fn is_hearsay(&self, peer: &PeerId, hash: &HashPart) -> bool {
        let _ = (peer, hash);
        false
    }

    /// Connected, usable peers that announce no holdings, best first: only a
    /// question shows what they have.
    fn undeclared(&self) -> Vec<PeerId>;

    /// Asks one peer for a path's description, and for up to `max - 1`
    /// descriptions of its closure that will be wanted next. A silent peer is
    /// waited for less long than one that is alive.
    fn path_infos(
        &self,
        peer: PeerId,
        hash: HashPart,
        max: usize,
        patience: Patience,
    ) -> Answer<Result<Vec<PathInfo>, PeerError>>;

    /// Asks one peer for a NAR's BLAKE3 tree. It is consistent in itself and
    /// has the right number of groups, nothing more.
    fn nar_tree(&self, peer: PeerId, key: NarKey) -> Answer<Result<NarTree, PeerError>>;

    /// Asks one peer for a range of a NAR.
    fn nar_range(
        &self,
        peer: PeerId,
        key: NarKey,
        range: Range<u64>,
    ) -> Answer<Result<Box<dyn Chunks>, PeerError>>;

    /// Reports what a peer did wrong.
    fn blame(&self, peer: PeerId, fault: Fault);

    /// How long to wait for one peer before asking a second one the same
    /// small question.
    fn hedge_delay(&self) -> Duration;

    /// This agent's own key.
    fn me(&self) -> PeerId {
        PeerId::from_bytes([0; 32])
    }

    /// The first `most` agents whose turn it is to fetch a segment from a
    /// place outside (its tag), the home first, this one among them.
    fn homes(&self, segment: &SegmentKey, outside: u32, most: usize) -> Vec<PeerId> {
        let _ = (segment, outside, most);
        Vec::new()
    }

    /// How many others named this place (its tag), whether they fetch for
    /// others or not.
    fn others(&self, outside: u32) -> usize {
        let _ = outside;
        0
    }

    /// Agents that are known and no use now.
    fn away(&self) -> Vec<Away> {
        Vec::new()
    }

    /// Marks those of such a ranking that were here before this agent came, and those that came lately.
    fn turns(&self, ranking: &[PeerId]) -> Vec<Turn> {
        let turn = |peer: &PeerId| Turn { peer: *peer, elder: false, young: false };
        ranking.iter().map(turn).collect()
    }

    /// Tells everybody whether this agent fetches for others, and from where.
    fn set_standing(&self, willing: bool, outsides: &[u32]) {
        let _ = (willing, outsides);
    }

    /// Asks one peer for a segment of a site object. Ends with an error or
    /// with [`SiteFrame::End`].
    fn site(
        &self,
        peer: PeerId,
        request: SiteRequest,
    ) -> BoxStream<'static, Result<SiteFrame, PeerError>> {
        let _ = (peer, request);
        stream::once(async { Err(PeerError::Lost) }).boxed()
    }

    /// Everybody known, for status pages.
    fn views(&self) -> Vec<PeerView> {
        Vec::new()
    }
}

/// Nobody: the agent with its mesh switched off.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPeers;

impl Peers for NoPeers {
    fn who_has(&self, _: &HashPart) -> Vec<PeerId> {
        Vec::new()
    }

    fn undeclared(&self) -> Vec<PeerId> {
        Vec::new()
    }

    fn path_infos(
        &self,
        _: PeerId,
        _: HashPart,
        _: usize,
        _: Patience,
    ) -> Answer<Result<Vec<PathInfo>, PeerError>> {
        Box::pin(async { Err(PeerError::Lost) })
    }

    fn nar_tree(&self, _: PeerId, _: NarKey) -> Answer<Result<NarTree, PeerError>> {
        Box::pin(async { Err(PeerError::Lost) })
    }

    fn nar_range(
        &self,
        _: PeerId,
        _: NarKey,
        _: Range<u64>,
    ) -> Answer<Result<Box<dyn Chunks>, PeerError>> {
        Box::pin(async { Err(PeerError::Lost) })
    }

    fn blame(&self, _: PeerId, _: Fault) {}

    fn hedge_delay(&self) -> Duration {
        Duration::from_secs(1)
    }
}
