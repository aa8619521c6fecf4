//! The client: a chain, the connections to its nodes, and what is known of them.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use redstuff::{
    Axis, AxisKind, BlobId, Metadata, PairIndex, Primary, Secondary, ShardCount, UnverifiedSliver,
    bcs::Wire,
};
use ring::rand::{SecureRandom, SystemRandom};

use crate::{
    BoxFuture, ChainError, ChainReader, Committee, CommitteeView, NodeClient, NodeError, NodeId,
    ReadError, SliverBody, StorageNode, Verdict,
    plan::{Clock, Manner, NodeView},
};

/// A storage node as the client keeps it: its connection and its speed.
#[derive(Debug)]
pub struct Node {
    /// What the chain says of it.
    pub info: StorageNode,
    /// Its routes.
    pub client: NodeClient,
    latency: Mutex<Option<Duration>>,
}

/// Where slivers and metadata come from: the nodes themselves, or something in front of them that
/// knows who else on this network has them. What it returns is verified by the caller.
pub trait Source: Send + Sync + fmt::Debug {
    /// The BCS of a blob's metadata with its id, from or on behalf of `node`.
    fn metadata<'a>(
        &'a self,
        node: &'a Arc<Node>,
        n: ShardCount,
        blob: &'a BlobId,
    ) -> BoxFuture<'a, Result<Bytes, NodeError>>;

    /// The BCS of a sliver that `node` stores.
    fn sliver<'a>(
        &'a self,
        node: &'a Arc<Node>,
        metadata: &'a Metadata,
        axis: AxisKind,
        pair: PairIndex,
    ) -> BoxFuture<'a, Result<Bytes, NodeError>>;

    /// The same as it arrives. By default it arrives all at once.
    fn sliver_body<'a>(
        &'a self,
        node: &'a Arc<Node>,
        metadata: &'a Metadata,
        axis: AxisKind,
        pair: PairIndex,
    ) -> BoxFuture<'a, Result<SliverBody, NodeError>> {
        Box::pin(async move {
            let whole = self.sliver(node, metadata, axis, pair).await?;
            Ok(stream::once(async { Ok(whole) }).boxed())
        })
    }

    /// A blob's metadata, for sources that find it without being told a node. With `None`, the nodes
    /// are asked one after the other through [`Source::metadata`].
    fn metadata_anywhere<'a>(
        &'a self,
        n: ShardCount,
        blob: &'a BlobId,
    ) -> Option<BoxFuture<'a, Result<Bytes, ReadError>>> {
        let _ = (n, blob);
        None
    }

    /// A blob's metadata that was verified before, if this source kept it.
    fn known_metadata(&self, blob: &BlobId) -> Option<Metadata> {
        let _ = blob;
        None
    }

    /// Whether this machine has itself found right what [`Source::sliver`] gave last of this sliver, so
    /// that checking it again would find nothing.
    fn is_checked(&self, metadata: &Metadata, axis: AxisKind, pair: PairIndex) -> bool {
        let _ = (metadata, axis, pair);
        false
    }

    /// Whether this fetches once for many readers, who should therefore all choose the same slivers.
    fn is_shared(&self) -> bool {
        false
    }

    /// Told of a sliver (its BCS, verified) that was made here because its node does not serve it: what
    /// fetches for many keeps it for them.
    fn rebuilt(&self, metadata: &Metadata, axis: AxisKind, pair: PairIndex, raw: Bytes) {
        let _ = (metadata, axis, pair, raw);
    }

    /// Something that came from here is not the blob's. If that was on the way and not at the node, it
    /// is this source's business to find out who did it; when it has, it says [`Blame::OnTheWay`], and
    /// is asked for the same again.
    fn wrong<'a>(&'a self, what: Piece<'a>) -> BoxFuture<'a, Blame> {
        let _ = what;
        Box::pin(async { Blame::Node })
    }
}

/// A piece of a blob.
#[derive(Debug, Clone, Copy)]
pub enum Piece<'a> {
    /// Its metadata.
    Metadata(&'a BlobId),
    /// A sliver.
    Sliver(&'a Metadata, AxisKind, PairIndex),
}

/// Who is to blame for a false piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The storage node.
    Node,
    /// Somebody between it and us.
    OnTheWay,
}

/// The nodes themselves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Direct;

impl Source for Direct {
    fn metadata<'a>(
        &'a self,
        node: &'a Arc<Node>,
        n: ShardCount,
        blob: &'a BlobId,
    ) -> BoxFuture<'a, Result<Bytes, NodeError>> {
        Box::pin(async move { Ok(node.client.metadata(n, blob).await?.1) })
    }

    fn sliver<'a>(
        &'a self,
        node: &'a Arc<Node>,
        metadata: &'a Metadata,
        axis: AxisKind,
        pair: PairIndex,
    ) -> BoxFuture<'a, Result<Bytes, NodeError>> {
        Box::pin(async move {
            Ok(match axis {
                AxisKind::Primary => node.client.sliver::<Primary>(metadata, pair).await?.raw,
                AxisKind::Secondary => node.client.sliver::<Secondary>(metadata, pair).await?.raw,
            })
        })
    }

    fn sliver_body<'a>(
        &'a self,
        node: &'a Arc<Node>,
        metadata: &'a Metadata,
        axis: AxisKind,
        pair: PairIndex,
    ) -> BoxFuture<'a, Result<SliverBody, NodeError>> {
        match axis {
            AxisKind::Primary => Box::pin(node.client.sliver_body::<Primary>(metadata, pair)),
            AxisKind::Secondary => Box::pin(node.client.sliver_body::<Secondary>(metadata, pair)),
        }
    }
}

/// Nodes of a committee, ready to be asked: positions are those of the committee.
#[derive(Debug, Clone)]
pub(crate) struct Nodes(pub(crate) Vec<Option<Arc<Node>>>);

/// Why a single sliver could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum SliverFetchError {
    /// The committee is not known.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// No such pair, or a node that cannot be dialled.
    #[error("no node can be asked for this pair")]
    NoPair,
    /// The node does not serve it.
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// Whether bytes are the BCS of a sliver of the blob. Takes as long as verifying one does.
#[must_use]
pub fn is_sliver(metadata: &Metadata, axis: AxisKind, pair: PairIndex, raw: &Bytes) -> bool {
    match axis {
        AxisKind::Primary => is_sliver_of::<Primary>(metadata, pair, raw),
        AxisKind::Secondary => is_sliver_of::<Secondary>(metadata, pair, raw),
    }
}

fn is_sliver_of<A: Axis>(metadata: &Metadata, pair: PairIndex, raw: &Bytes) -> bool {
    let Ok(index) = pair.sliver::<A>(metadata.shards()) else { return false };
    UnverifiedSliver::<A>::from_shared_bcs(raw)
        .is_ok_and(|sliver| sliver.index == index && sliver.verify(metadata).is_ok())
}

/// Nodes by address and network key.
type Known = HashMap<(String, Vec<u8>), Arc<Node>>;

/// Reads and writes blobs. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) chain: Arc<dyn ChainReader>,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) aggregators: Arc<[String]>,
    known: Arc<Mutex<Known>>,
}

/// Most nodes whose connections are kept: the members of three committees of the largest size.
const KNOWN_NODES_MAX: usize = 512;

impl Client {
    /// A client of the network that `chain` describes.
    #[must_use]
    pub fn new(chain: Arc<dyn ChainReader>) -> Self {
        Self { chain, source: Arc::new(Direct), aggregators: Arc::new([]), known: Arc::default() }
    }

    /// Asks these aggregators (base URLs) for whole blobs when the nodes cannot be read from.
    #[must_use]
    pub fn with_aggregators(mut self, aggregators: impl IntoIterator<Item = String>) -> Self {
        self.aggregators = aggregators.into_iter().collect();
        self
    }

    /// Takes slivers and metadata from `source` instead of from the nodes directly.
    #[must_use]
    pub fn with_source(mut self, source: Arc<dyn Source>) -> Self {
        self.source = source;
        self
    }

    /// Where slivers and metadata come from.
    #[must_use]
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    pub(crate) fn manner(&self) -> Manner {
        if self.source.is_shared() { Manner::Shared } else { Manner::Alone }
    }

    /// The chain.
    #[must_use]
    pub fn chain(&self) -> &Arc<dyn ChainReader> {
        &self.chain
    }

    /// The committees.
    ///
    /// # Errors
    /// The chain cannot be read.
    pub async fn committees(&self, refresh: bool) -> Result<CommitteeView, ChainError> {
        self.chain.committees(refresh).await
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One sliver as it arrives from the node that stores it in this epoch, and that node, for whoever
    /// relays or caches it. Not verified: see [`is_sliver`]. While shards are moving the node that had
    /// it before is asked too. A node that says that the shard is not its own is believed once, and
    /// the committees are read anew.
    ///
    /// # Errors
    /// The committee is not known, or its node does not serve the sliver.
    pub async fn sliver_from_owner(
        &self,
        metadata: &Metadata,
        axis: AxisKind,
        pair: PairIndex,
    ) -> Result<(NodeId, SliverBody), SliverFetchError> {
        let mut refreshed = false;
        loop {
            let view = self.committees(refreshed).await?;
            match self.sliver_from_owners(&view, metadata, axis, pair).await {
                Err(SliverFetchError::Node(error))
                    if error.verdict() == Verdict::WrongShard && !refreshed =>
                {
                    refreshed = true;
                }
                done => return done,
            }
        }
    }

    /// From the owner in this epoch, or else from the one before. The error is the former's.
    async fn sliver_from_owners(
        &self,
        view: &CommitteeView,
        metadata: &Metadata,
        axis: AxisKind,
        pair: PairIndex,
    ) -> Result<(NodeId, SliverBody), SliverFetchError> {
        let mut failure = None;
        let mut asked = None;
        for committee in view.holding() {
            let owner = committee.owner_of_pair(metadata.id(), pair);
            let nodes = self.nodes(committee);
            let Some(node) = owner.and_then(|owner| nodes.get(owner)) else { continue };
            if asked.replace(node.info.node_id) == Some(node.info.node_id) {
                continue;
            }
            match self.source.sliver_body(node, metadata, axis, pair).await {
                Ok(body) => return Ok((node.info.node_id, body)),
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        Err(failure.map_or(SliverFetchError::NoPair, SliverFetchError::Node))
    }

    /// The nodes of a committee; those whose address or key cannot be used are absent.
    pub(crate) fn nodes(&self, committee: &Committee) -> Nodes {
        let mut known = self.known();
        if known.len() > KNOWN_NODES_MAX {
            known.clear();
        }
        let mut node = |info: &StorageNode| {
            let key = (info.address.clone(), info.network_public_key.clone());
            if let Some(node) = known.get(&key)
                && node.info == *info
            {
                return Some(node.clone());
            }
            let client = NodeClient::new(info)
                .inspect_err(|error| tracing::warn!(node = %info.node_id, %error, "unusable"))
                .ok()?;
            let node = Node { info: info.clone(), client, latency: Mutex::new(None) };
            let node = Arc::new(node);
            known.insert(key, node.clone());
            Some(node)
        };
        Nodes(committee.members.iter().map(&mut node).collect())
    }
}

impl Node {
    fn latency(&self) -> MutexGuard<'_, Option<Duration>> {
        self.latency.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Nodes {
    pub(crate) fn get(&self, position: usize) -> Option<&Arc<Node>> {
        self.0.get(position)?.as_ref()
    }

    /// What a plan starts with: the speeds seen so far.
    pub(crate) fn views(&self) -> Vec<NodeView> {
        let latency = |node: &Arc<Node>| *node.latency();
        let view = |node: &Option<Arc<Node>>| NodeView::new(node.as_ref().and_then(latency));
        self.0.iter().map(view).collect()
    }

    /// Keeps the speeds a plan saw.
    pub(crate) fn learn(&self, views: &[NodeView]) {
        for (node, view) in self.0.iter().zip(views) {
            if let (Some(node), Some(latency)) = (node, view.latency) {
                *node.latency() = Some(latency);
            }
        }
    }

    /// All positions, shuffled: readers should not all ask the same node first. Nodes with more
    /// shards come no earlier; they have more slivers to serve already.
    pub(crate) fn shuffled(&self) -> Vec<usize> {
        let mut order: Vec<_> = (0..self.0.len()).filter(|&i| self.0[i].is_some()).collect();
        let mut state = random() | 1;
        for at in (1..order.len()).rev() {
            state = next_random(state);
            order.swap(at, usize::try_from(state % (at as u64 + 1)).unwrap_or(0));
        }
        order
    }
}

/// A number that spreads load. Without randomness it is merely the same for everybody.
pub(crate) fn random() -> u64 {
    let mut seed = [0; 8];
    let _ = SystemRandom::new().fill(&mut seed);
    u64::from_le_bytes(seed)
}

/// A step of xorshift64.
fn next_random(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^ (state << 17)
}

/// Time since `start`, as plans count it.
pub(crate) fn clock(start: tokio::time::Instant) -> Clock {
    start.elapsed()
}
