//! Machines of one site and a Walrus network: the real mesh over loopback, real storage nodes over HTTPS, which count.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use haulout_cache::SliverCache;
use haulout_devnet::storage::{Faults, ManualChain, Seats, StorageNodes, even_weights};
use haulout_mesh::Mesh;
use haulout_nix::KeySet;
use haulout_nix::db::StoreLocation;
use haulout_resolver::site::walrus::{SiteWalrus, WalrusConfig};
use haulout_resolver::{Resolver, ResolverConfig};
use haulout_swarm::site::SiteKind;
use haulout_walrus::{Client, Committee, NodeClient, ReadOptions, StaticChain};
use redstuff::bcs::Wire;
use redstuff::{BlobId, EncodedBlob, Metadata, Primary, ShardCount, SliverIndex};
use support::liar::lying;
use support::{addresses, all_met, identity, mesh_config, until};

const NODES: usize = 10;

/// A committee of storage nodes that all have one blob.
struct Network {
    nodes: StorageNodes,
    committee: Committee,
    encoded: EncodedBlob,
    content: Vec<u8>,
    _dir: tempfile::TempDir,
}

impl Network {
    async fn start(shards: u16, bytes: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let n = ShardCount::new(shards).unwrap();
        let seats = Seats::take(dir.path(), NODES).unwrap();
        let committee = seats.committee(1, n, &even_weights(n, NODES).unwrap()).unwrap();
        let chain = Arc::new(ManualChain::new(committee.clone()));
        let nodes = seats.start(chain.clone()).unwrap();
        let content: Vec<u8> =
            (0..bytes as u64).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let encoded = n.encode(content.clone()).unwrap();
        let id = *encoded.metadata().id();
        chain.register(id, id.0, false, 50);
        let uploads = (0..NODES).map(|at| upload(&committee, at, &encoded));
        futures_util::future::join_all(uploads).await;
        assert!(chain.certify(&id, &id.0));
        Self { nodes, committee, encoded, content, _dir: dir }
    }

    fn metadata(&self) -> &Metadata {
        self.encoded.metadata()
    }

    fn blob(&self) -> BlobId {
        *self.metadata().id()
    }

    fn client(&self) -> Client {
        Client::new(Arc::new(StaticChain::new(self.committee.clone())))
    }

    /// What one reader alone has to get out of the nodes: the metadata and the rows of the blob.
    fn one_read(&self) -> u64 {
        let metadata = self.metadata();
        let sliver = self.encoded.sliver(SliverIndex::<Primary>::new(0)).unwrap().to_bcs();
        let rows = u64::from(metadata.occupied_rows());
        metadata.with_id().to_bcs().len() as u64 + rows * sliver.len() as u64
    }

    async fn each_node(&self, faults: Faults) {
        for at in 0..NODES {
            self.nodes.set_faults(at, faults.clone()).await;
        }
    }
}

async fn upload(committee: &Committee, at: usize, encoded: &EncodedBlob) {
    let (id, member) = (*encoded.metadata().id(), &committee.members[at]);
    let node = NodeClient::new(member).unwrap();
    let metadata = encoded.metadata().as_unverified().to_bcs();
    node.put_metadata(&id, metadata.into()).await.unwrap();
    for pair in committee.pairs_of(at, &id) {
        let (primary, secondary) = encoded.pair(pair).unwrap();
        node.put_sliver::<Primary>(&id, pair, primary.to_bcs().into()).await.unwrap();
        node.put_sliver::<redstuff::Secondary>(&id, pair, secondary.to_bcs().into()).await.unwrap();
    }
}

/// A cable that can be cut: what a machine that loses its power looks like to the others.
#[derive(Clone, Default)]
struct Cable(Arc<AtomicBool>);

impl Cable {
    /// An address that leads to `target`, for one peer, as long as the wire holds.
    async fn to(&self, target: SocketAddr) -> SocketAddr {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (here, cut) = (socket.local_addr().unwrap(), Arc::clone(&self.0));
        tokio::spawn(async move {
            let (mut buffer, mut peer) = (vec![0; 1 << 16], None);
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                if from != target {
                    peer = Some(from);
                }
                let to = if from == target { peer } else { Some(target) };
                if let Some(to) = to.filter(|_| !cut.load(Ordering::Relaxed)) {
                    let _ = socket.send_to(&buffer[..length], to).await;
                }
            }
        });
        here
    }
}

struct Agent {
    mesh: Mesh,
    resolver: Resolver,
    walrus: SiteWalrus,
}

impl Agent {
    async fn start(
        dir: &Path,
        seed: u8,
        peers: &[Arc<Self>],
        network: &Network,
        lies: bool,
    ) -> Self {
        let peers = addresses(peers.iter().map(|peer| &peer.mesh));
        Self::start_at(dir, seed, peers, network, lies).await
    }

    async fn start_at(
        dir: &Path,
        seed: u8,
        peers: Vec<SocketAddr>,
        network: &Network,
        lies: bool,
    ) -> Self {
        let root = dir.join(seed.to_string());
        haulout_sample::create_empty(&root).unwrap();
        let config = ResolverConfig::new(StoreLocation::chroot(&root), KeySet::new());
        // The truth about everything but slivers.
        let through = lying(lies, |request| request.segment.object.kind == SiteKind::Sliver);
        let mesh = mesh_config(identity(seed), peers);
        let support::Agent { mesh, resolver } =
            support::Agent::serving(&config, mesh, through).await;
        let cache = SliverCache::open(&root.join("slivers"), 1 << 30).unwrap();
        let walrus = resolver.set_walrus(WalrusConfig {
            name: "test".to_owned(),
            network: b"test".to_vec(),
            direct: network.client(),
            cache: Some(Arc::new(cache)),
            share: true,
        });
        Self { mesh, walrus: walrus.clone(), resolver }
    }

    async fn read(&self, network: &Network) {
        let read = self.walrus.client().read(&network.blob(), &ReadOptions::default()).await;
        assert!(read.unwrap().0 == network.content);
    }
}

/// `count` agents that all know each other; the one numbered `liar` lies.
async fn office(dir: &Path, count: u8, network: &Network, liar: Option<u8>) -> Vec<Arc<Agent>> {
    let mut agents: Vec<Arc<Agent>> = Vec::new();
    for n in 0..count {
        let agent = Agent::start(dir, n + 1, &agents, network, liar == Some(n)).await;
        agents.push(Arc::new(agent));
    }
    all_met(agents.iter().map(|agent| &agent.mesh)).await;
    agents
}

fn read_all(agents: &[Arc<Agent>], network: &Arc<Network>) -> Vec<tokio::task::JoinHandle<()>> {
    let read = |agent: &Arc<Agent>| {
        let (agent, network) = (Arc::clone(agent), Arc::clone(network));
        tokio::spawn(async move { agent.read(&network).await })
    };
    agents.iter().map(read).collect()
}

/// The site's promise, at its full size: eight machines, 64 MiB, 100 shards on ten nodes; then two of them are killed in the
/// middle of reading it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_machines_cost_one_read_and_the_death_of_two_little_more() {
    let began = Instant::now();
    let network = Arc::new(Network::start(100, 64 << 20).await);
    println!("stored after {:?}", began.elapsed());
    let one = network.one_read();
    println!("one read is {one} bytes, after {:?}", began.elapsed());
    {
        let dir = tempfile::tempdir().unwrap();
        let agents = office(dir.path(), 8, &network, None).await;
        let before = network.nodes.bytes_sent();
        for read in read_all(&agents, &network) {
            read.await.unwrap();
        }
        let given = network.nodes.bytes_sent() - before;
        println!(
            "8 machines: {:.4} × one read, after {:?}",
            given as f64 / one as f64,
            began.elapsed()
        );
        assert!(given * 100 <= one * 105, "{given} of {one}");
        for agent in &agents {
            agent.mesh.shutdown().await;
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let agents = office(dir.path(), 6, &network, None).await;
    let (cable, mut everybody) = (Cable::default(), agents.clone());
    for seed in [7, 8] {
        let mut peers = Vec::new();
        for other in &everybody {
            peers.push(cable.to(other.mesh.local_addrs()[0]).await);
        }
        let dying = Agent::start_at(dir.path(), seed, peers, &network, false).await;
        everybody.push(Arc::new(dying));
    }
    all_met(everybody.iter().map(|agent| &agent.mesh)).await;
    // Slow enough that there is a middle.
    network.each_node(Faults { bytes_per_second: 4 << 20, ..Faults::default() }).await;
    let before = network.nodes.bytes_sent();
    let reads = read_all(&agents, &network);
    until("half of it was read", || network.nodes.bytes_sent() - before > one / 2).await;
    assert!(reads.iter().any(|read| !read.is_finished()), "too late for a middle");
    cable.0.store(true, Ordering::Relaxed);
    for read in reads {
        read.await.unwrap();
    }
    let given = network.nodes.bytes_sent() - before;
    println!(
        "two killed: {:.4} × one read, after {:?}",
        given as f64 / one as f64,
        began.elapsed()
    );
    assert!(given * 10 <= one * 13, "{given} of {one}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_neighbour_that_lies_is_banned_and_costs_a_retry() {
    let network = Arc::new(Network::start(100, 4 << 20).await);
    let one = network.one_read();
    let dir = tempfile::tempdir().unwrap();
    let mut agents = office(dir.path(), 4, &network, Some(0)).await;
    let liar = agents.remove(0);
    let before = network.nodes.bytes_sent();
    for read in read_all(&agents, &network) {
        read.await.unwrap();
    }
    let given = network.nodes.bytes_sent() - before;
    println!("with a liar: {:.4} × one read", given as f64 / one as f64);
    let bans = |agent: &Arc<Agent>, of_liar: bool| {
        let peers = agent.mesh.peers();
        let banned = peers.iter().filter(|peer| peer.banned_for.is_some());
        banned.filter(|peer| (peer.id == liar.mesh.id()) == of_liar).count()
    };
    let all = |of_liar| agents.iter().map(|agent| bans(agent, of_liar)).sum::<usize>();
    assert_eq!(all(true), 3, "everybody it lied to has banned it");
    // Who passed a lie on before it was found out is not taken for its author.
    assert_eq!(all(false), 0, "an honest one is banned");
    // Its quarter of the slivers once for it, and once again for each of the three that it had lied to, at worst.
    assert!(given * 10 <= one * 20, "{given} of {one}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_machine_keeps_is_found_when_its_home_is_another() {
    let network = Arc::new(Network::start(10, 1 << 20).await);
    let dir = tempfile::tempdir().unwrap();
    let first = Arc::new(Agent::start(dir.path(), 1, &[], &network, false).await);
    first.read(&network).await;
    until("all is kept", || first.walrus.counts().kept_slivers == 5).await;
    let before = network.nodes.bytes_sent();
    let second = Agent::start(dir.path(), 2, &[Arc::clone(&first)], &network, false).await;
    let third = Agent::start(dir.path(), 3, &[Arc::clone(&first)], &network, false).await;
    // It does not fetch for anybody; homes are the new ones.
    first.resolver.site().set_willing(false);
    for agent in [&second, &third] {
        let knows = || {
            let peers = agent.mesh.peers();
            let holdings = peers.iter().find(|peer| peer.id == first.mesh.id());
            let willing = agent.mesh.standing_of(&first.mesh.id()).is_none_or(|s| s.willing);
            holdings.and_then(|peer| peer.holdings).unwrap_or(0) >= 5 && !willing
        };
        until("what the first one keeps is known", knows).await;
        agent.read(&network).await;
    }
    assert_eq!(network.nodes.bytes_sent(), before, "nothing was fetched again");
    assert_eq!(second.walrus.counts().from_peers.slivers, 4);
}
