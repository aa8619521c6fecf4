//! The handle.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use haulout_nix::{HashPart, PathInfo};
use haulout_swarm::{Fault, PeerId};
use tokio::sync::broadcast;

use crate::api::{NarKey, Serve};
use crate::ask::NarStream;
use crate::config::MeshConfig;
use crate::error::{RequestError, StartError};
use crate::tree::NarTree;
use crate::view::{MeshEvent, PeerView};

/// The running mesh. Cheap to clone, usable from any thread and any runtime.
///
/// The mesh ends with [`Mesh::shutdown`] or when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Mesh {
    id: PeerId,
    events: broadcast::Sender<MeshEvent>,
}

impl Mesh {
    /// Opens the sockets and starts the mesh thread; returns once it listens.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: MeshConfig, serve: Arc<dyn Serve>) -> Result<Self, StartError> {
        let _ = serve;
        Ok(Self {
            id: config.identity.id(),
            events: broadcast::channel(16).0,
        })
    }

    /// This machine's own key.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// Everybody known, connected ones first.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerView> {
        Vec::new()
    }

    /// Connected, usable peers whose announced holdings contain this path, best first. From memory, about a microsecond;
    /// a hint, not a promise.
    #[must_use]
    pub fn who_has(&self, hash: &HashPart) -> Vec<PeerId> {
        let _ = hash;
        Vec::new()
    }

    /// Connected, usable peers that announce nothing: the only ones worth asking without a hint.
    #[must_use]
    pub fn unannounced(&self) -> Vec<PeerId> {
        Vec::new()
    }

    /// Asks one peer for the path info of `hash` and those of its closure, at most `max` in all. The first is the asked one.
    /// Well-formed, not verified: check the signatures.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn path_infos(
        &self,
        peer: &PeerId,
        hash: &HashPart,
        max: usize,
        deadline: Duration,
    ) -> Result<Vec<PathInfo>, RequestError> {
        let _ = (peer, hash, max, deadline);
        Err(RequestError::NotConnected)
    }

    /// Asks one peer for the BLAKE3 tree of a NAR. Its groups fit its root; whether the root is the NAR's is not known yet.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn nar_tree(
        &self,
        peer: &PeerId,
        key: &NarKey,
        deadline: Duration,
    ) -> Result<NarTree, RequestError> {
        let _ = (peer, key, deadline);
        Err(RequestError::NotConnected)
    }

    /// Asks one peer for a byte range of a NAR; returns when the peer has said yes. Bytes are not verified.
    /// Dropping the stream stops the transfer.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn nar_range(
        &self,
        peer: &PeerId,
        key: &NarKey,
        range: Range<u64>,
        deadline: Duration,
    ) -> Result<NarStream, RequestError> {
        let _ = (peer, key, range, deadline);
        Err(RequestError::NotConnected)
    }

    /// Reports what a peer did wrong; it may be banned for it.
    pub fn blame(&self, peer: &PeerId, fault: Fault) {
        let _ = (peer, fault);
    }

    /// What happens from now on. A slow reader misses events rather than holding anybody up.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<MeshEvent> {
        self.events.subscribe()
    }

    /// The UDP addresses in use.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    /// Says goodbye to everybody and ends the mesh thread; waits at most about a second.
    pub async fn shutdown(&self) {}
}
