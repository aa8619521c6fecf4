//! A committee of storage nodes on loopback, and the handle that runs it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use haulout_walrus::committee::{Committee, CommitteeError, ObjectId, StorageNode};
use redstuff::{BlobId, ShardCount, ShardIndex};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::chain::NodeChain;
use super::faults::{Faults, Switch};
use super::identity::{Identity, IdentityError};
use super::node::{MetadataCache, Node};
use super::server::{self, Held, Port, Shared};
use super::store::{Store, StoreError};

/// How often the nodes look whether the epoch has changed or blobs have gone.
const TEND_INTERVAL: Duration = Duration::from_millis(250);

/// Why nodes cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum NodesError {
    /// A directory cannot be made.
    #[error("cannot make the directory {path}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A port cannot be taken.
    #[error("cannot take the port {address}")]
    Port {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Keys or a certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Shards and nodes do not go together.
    #[error("{0}")]
    Shape(String),
    /// What the shape does not make.
    #[error("the nodes do not make a committee")]
    Committee(#[from] CommitteeError),
}

/// Nodes that have keys, directories and ports, but do not serve yet: what is needed to put
/// them on a chain.
#[derive(Debug)]
pub struct Seats(Vec<Seat>);

#[derive(Debug)]
struct Seat {
    name: String,
    identity: Identity,
    socket: Held,
    dir: PathBuf,
}

impl Seats {
    /// Takes `count` seats under `dir`, on free ports of 127.0.0.1. A node that was there before
    /// keeps its keys and its slivers.
    ///
    /// # Errors
    /// A directory, key or port cannot be had.
    pub fn take(dir: &Path, count: usize) -> Result<Self, NodesError> {
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        Self::take_at(dir, &vec![any; count])
    }

    /// Takes a seat at each of these addresses; a port of 0 is any free one.
    ///
    /// # Errors
    /// A directory, key or port cannot be had.
    pub fn take_at(dir: &Path, addresses: &[SocketAddr]) -> Result<Self, NodesError> {
        let seat = |(index, address): (usize, &SocketAddr)| {
            let name = format!("node-{index}");
            let dir = dir.join(&name);
            let make = |source| NodesError::Directory { path: dir.clone(), source };
            std::fs::create_dir_all(&dir).map_err(make)?;
            let port = |source| NodesError::Port { address: *address, source };
            let socket = Held::bind(*address).map_err(port)?;
            Ok(Seat { identity: Identity::load_or_generate(&dir)?, name, socket, dir })
        };
        addresses.iter().enumerate().map(seat).collect::<Result<_, _>>().map(Self)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the chain has to know of each node. Ids are made of the keys, shards are none: a
    /// chain gives its own.
    #[must_use]
    pub fn members(&self) -> Vec<StorageNode> {
        let member = |seat: &Seat| {
            let bls = seat.identity.bls().public_key().to_bytes();
            let mut id = [0; 32];
            id.copy_from_slice(&bls[..32]);
            StorageNode {
                node_id: ObjectId(id),
                name: seat.name.clone(),
                address: seat.socket.address.to_string(),
                network_public_key: seat.identity.network_public_key(),
                bls_public_key: bls,
                shards: Vec::new(),
            }
        };
        self.0.iter().map(member).collect()
    }

    /// The committee in which node `i` has `weights[i]` shards; these are dealt out as on chain,
    /// in runs, in the order of ids.
    ///
    /// # Errors
    /// The weights are not one for each node, or do not add up to `n`.
    pub fn committee(
        &self,
        epoch: u32,
        n: ShardCount,
        weights: &[u16],
    ) -> Result<Committee, NodesError> {
        let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        if weights.len() != self.len() || total != u64::from(n.get()) {
            let (nodes, count) = (self.len(), weights.len());
            return Err(NodesError::Shape(format!(
                "{count} weights that add up to {total} for {nodes} nodes and {n} shards"
            )));
        }
        let mut members: Vec<_> = self.members().into_iter().zip(weights).collect();
        members.sort_by_key(|(member, _)| member.node_id.0);
        let mut shards = (0..n.get()).map(ShardIndex);
        let members = members.into_iter().filter(|(_, weight)| **weight > 0);
        let members = members.map(|(mut member, weight)| {
            member.shards = shards.by_ref().take(usize::from(*weight)).collect();
            member
        });
        Ok(Committee::new(epoch, n, members.collect())?)
    }

    /// Opens the ports and starts to serve; needs a tokio runtime. `chain` must know these nodes by their BLS keys.
    ///
    /// # Errors
    /// A port or store cannot be opened, or a certificate made.
    pub fn start(self, chain: Arc<dyn NodeChain>) -> Result<StorageNodes, NodesError> {
        let (cache, shared) = (Arc::new(MetadataCache::default()), Shared::default());
        let stop = watch::Sender::new(false);
        let stranger = Identity::generate()?;
        let (mut nodes, mut tasks) = (Vec::new(), Vec::new());
        let (mut addresses, mut certificates) = (Vec::new(), Vec::new());
        for mut seat in self.0 {
            let address = seat.socket.address;
            let port = |source| NodesError::Port { address, source };
            let listener = seat.socket.listen().map_err(port)?;
            let certificate = seat.identity.certificate(address.ip())?;
            let tls = server::acceptor(&seat.identity, certificate.clone())?;
            let impostor = server::acceptor(&stranger, stranger.certificate(address.ip())?)?;
            certificates.push(certificate);
            let (store, switch) = (Store::open(&seat.dir)?, Switch::default());
            let (chain, cache) = (chain.clone(), cache.clone());
            let node = Arc::new(Node::new(seat.identity, store, chain, cache, switch));
            let port = Port { node: node.clone(), shared: shared.clone(), tls, impostor };
            tasks.push(tokio::spawn(server::serve(seat.socket, listener, port, stop.subscribe())));
            nodes.push(node);
            addresses.push(address);
        }
        let tended = Arc::new(Notify::new());
        tasks.push(tokio::spawn(tend(nodes.clone(), stop.subscribe(), tended.clone())));
        let sent = Arc::clone(&shared.sent);
        Ok(StorageNodes { sent, nodes, addresses, certificates, tasks, stop, tended })
    }
}

/// As equal as possible: `n` shards on `nodes` nodes.
///
/// # Errors
/// There are more nodes than shards, or none.
pub fn even_weights(n: ShardCount, nodes: usize) -> Result<Vec<u16>, NodesError> {
    let count = u16::try_from(nodes).ok().filter(|count| (1..=n.get()).contains(count));
    let Some(count) = count else {
        return Err(NodesError::Shape(format!("{n} shards cannot be spread over {nodes} nodes")));
    };
    let (each, more) = (n.get() / count, n.get() % count);
    Ok((0..count).map(|index| each + u16::from(index < more)).collect())
}

/// A running committee. Dropping it stops the nodes; [`StorageNodes::stop`] also waits for it.
#[derive(Debug)]
pub struct StorageNodes {
    sent: Arc<AtomicU64>,
    nodes: Vec<Arc<Node>>,
    addresses: Vec<SocketAddr>,
    certificates: Vec<Vec<u8>>,
    tasks: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    tended: Arc<Notify>,
}

impl StorageNodes {
    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Where node `index` listens.
    #[must_use]
    pub fn address(&self, index: usize) -> Option<SocketAddr> {
        self.addresses.get(index).copied()
    }

    /// Bytes of bodies that all nodes together have sent.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The nodes' certificates, DER.
    pub fn certificates(&self) -> impl Iterator<Item = Vec<u8>> {
        self.certificates.iter().cloned()
    }

    /// The faults of node `index`.
    #[must_use]
    pub fn faults(&self, index: usize) -> Option<Faults> {
        self.nodes.get(index).map(|node| Faults::clone(&node.switch.get()))
    }

    /// Sets the faults of node `index`, and waits until its port is open or closed as they say;
    /// false if there is no such node.
    pub async fn set_faults(&self, index: usize, faults: Faults) -> bool {
        let Some(node) = self.nodes.get(index) else { return false };
        node.switch.set(faults);
        node.switch.in_effect().await;
        true
    }

    /// The shards node `index` has in the current epoch.
    #[must_use]
    pub fn shards(&self, index: usize) -> Vec<ShardIndex> {
        self.nodes.get(index).map(|node| node.duty().shards).unwrap_or_default()
    }

    /// Has every node that is up fetch or rebuild what it should have of `blob`.
    ///
    /// # Errors
    /// A store failed.
    pub async fn heal(&self, blob: &BlobId) -> Result<(), StoreError> {
        heal(&self.nodes, blob).await
    }

    /// Waits until the nodes have done what the chain's present state asks of them: shards have
    /// moved, and what is no longer registered is gone.
    pub async fn settled(&self) {
        // One round may have begun before the caller's change; the second one has seen it.
        for _ in 0..2 {
            self.tended.notified().await;
        }
    }

    /// Closes all ports and waits for the last byte on disk.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        for task in self.tasks.drain(..) {
            let _ = task.await;
        }
        let stores: Vec<_> = self.nodes.drain(..).map(|node| node.store.clone()).collect();
        for store in stores {
            store.close().await;
        }
    }
}

impl Drop for StorageNodes {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Moves shards when the epoch changes, and drops what has expired or was deleted.
async fn tend(nodes: Vec<Arc<Node>>, mut stop: watch::Receiver<bool>, tended: Arc<Notify>) {
    let mut epoch = nodes.first().map(|node| node.chain().epoch());
    loop {
        let now = nodes.first().map(|node| node.chain().epoch());
        if now != epoch {
            move_shards(&nodes).await;
            epoch = now;
        }
        for node in &nodes {
            if let Err(error) = node.tidy().await {
                tracing::error!(%error, "storage node");
            }
        }
        tended.notify_waiters();
        tokio::select! {
            () = tokio::time::sleep(TEND_INTERVAL) => (),
            _ = stop.changed() => return,
        }
    }
}

/// Brings every certified blob to the nodes that have its shards now.
async fn move_shards(nodes: &[Arc<Node>]) {
    let mut blobs: Vec<BlobId> =
        nodes.iter().flat_map(|n| n.all_blobs().unwrap_or_default()).collect();
    blobs.sort_unstable();
    blobs.dedup();
    for blob in blobs {
        let certified = nodes.first().and_then(|node| node.record(&blob)).is_some_and(|record| {
            record.objects.iter().any(|object| object.certified_epoch.is_some())
        });
        if certified && let Err(error) = heal(nodes, &blob).await {
            tracing::error!(%error, "storage node");
        }
    }
}

async fn heal(nodes: &[Arc<Node>], blob: &BlobId) -> Result<(), StoreError> {
    for (index, node) in nodes.iter().enumerate() {
        if node.switch.get().down || !node.is_registered(blob) {
            continue;
        }
        let others = nodes.iter().enumerate();
        let others = others.filter(|(other, node)| *other != index && !node.switch.get().down);
        let others: Vec<&Node> = others.map(|(_, node)| &**node).collect();
        node.heal(blob, &others).await?;
    }
    Ok(())
}
