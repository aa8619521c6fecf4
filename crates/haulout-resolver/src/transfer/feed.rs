//! One range of a NAR from one peer, timed and checked.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use haulout_mesh::{NarKey, NarTree};
use haulout_swarm::{Fault, PeerId};
use tokio::time::{Instant, timeout};

use super::gate::{Checked, Gate, GateError};
use crate::peers::{Chunks, PeerError, Peers};

/// How long a piece may take to come. The mesh gives a silent peer up after a
/// second, byte by byte; this is for pieces that trickle.
pub(crate) const STALL: Duration = Duration::from_secs(10);
/// A peer we waited this long for in total must have kept [`PACE_MIN`].
pub(crate) const PACE_AFTER: Duration = Duration::from_secs(4);
/// The slowest pace accepted from a source, in bytes per second waited: less
/// than any upstream gives.
pub(crate) const PACE_MIN: u64 = 8 << 10;

/// Why a source cannot continue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FeedError {
    #[error(transparent)]
    Peer(PeerError),
    #[error("sent wrong data: {0}")]
    Gate(GateError),
    #[error("is too slow")]
    Slow,
}

impl FeedError {
    /// What to report the peer for.
    pub(crate) fn fault(&self) -> Option<Fault> {
        match self {
            Self::Peer(error) => error.fault(),
            Self::Gate(GateError::WrongBytes { .. }) => Some(Fault::WrongContent),
            Self::Gate(GateError::TooMany | GateError::TooFew) => Some(Fault::ProtocolViolation),
            Self::Slow => Some(Fault::Timeout),
        }
    }

    /// Whether the peer is not worth another try for this NAR.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Peer(error) => matches!(error, PeerError::No | PeerError::Protocol),
            Self::Gate(_) => true,
            Self::Slow => false,
        }
    }

    /// Whether the peer told an untruth.
    pub(crate) fn is_lie(&self) -> bool {
        matches!(self, Self::Gate(_))
    }
}

/// A range on its way.
pub(crate) struct Feed {
    chunks: Box<dyn Chunks>,
    gate: Gate,
    waited: Duration,
    received: u64,
}

impl Feed {
    /// Asks for the range.
    pub(crate) async fn open(
        peers: &dyn Peers,
        peer: PeerId,
        key: NarKey,
        range: Range<u64>,
        tree: Option<Arc<NarTree>>,
    ) -> Result<Self, FeedError> {
        let gate = Gate::new(range.start, range.end, tree);
        let begun = Instant::now();
        let answer = timeout(STALL, peers.nar_range(peer, key, range)).await;
        let chunks = answer.unwrap_or(Err(PeerError::Silent)).map_err(FeedError::Peer)?;
        Ok(Self { chunks, gate, waited: begun.elapsed(), received: 0 })
    }

    /// The next checked bytes (none when only a part of a group came);
    /// `None` when the range is complete.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Checked>>, FeedError> {
        let begun = Instant::now();
        let answer = timeout(STALL, self.chunks.next()).await;
        self.waited += begun.elapsed();
        match answer.unwrap_or(Err(PeerError::Silent)).map_err(FeedError::Peer)? {
            None => {
                self.gate.finish().map_err(FeedError::Gate)?;
                Ok(None)
            }
            Some(bytes) => {
                self.received += bytes.len() as u64;
                if self.waited > PACE_AFTER && self.received < PACE_MIN * self.waited.as_secs() {
                    return Err(FeedError::Slow);
                }
                self.gate.push(bytes).map(Some).map_err(FeedError::Gate)
            }
        }
    }
}
