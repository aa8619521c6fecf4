#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryStreamExt};
use haulout_swarm::Fault;
use haulout_walrus::{
    Committee, Node, NodeError, ObjectId, ReadOptions, Source, StaticChain, StorageNode,
};
use redstuff::bcs::Wire;
use redstuff::{
    AxisKind, BlobId, EncodedBlob, Metadata, PairIndex, Primary, Secondary, ShardCount, ShardIndex,
    SliverIndex,
};
use tokio::time::sleep;

use super::names::{metadata_object, sliver_object};
use super::*;
use crate::site::tests::{Lan, home as home_of, id, lan_of, site};
use crate::site::{SiteObject, lock};

/// A blob on all nodes, and what they gave away.
#[derive(Debug)]
struct Nodes {
    encoded: EncodedBlob,
    given: AtomicU64,
    pause: Duration,
    /// Pairs whose primary sliver is not to be had.
    missing: Mutex<Vec<u16>>,
    /// Pairs whose primary sliver is false.
    false_ones: Mutex<Vec<u16>>,
}

impl Source for Nodes {
    fn metadata<'a>(
        &'a self,
        _: &'a Arc<Node>,
        _: ShardCount,
        _: &'a BlobId,
    ) -> BoxFuture<'a, Result<Bytes, NodeError>> {
        async move {
            sleep(self.pause).await;
            let bytes = self.encoded.metadata().with_id().to_bcs();
            self.given.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            Ok(bytes.into())
        }
        .boxed()
    }

    fn sliver<'a>(
        &'a self,
        _: &'a Arc<Node>,
        metadata: &'a Metadata,
        axis: AxisKind,
        PairIndex(pair): PairIndex,
    ) -> BoxFuture<'a, Result<Bytes, NodeError>> {
        async move {
            sleep(self.pause).await;
            let index = PairIndex(pair).sliver::<Secondary>(metadata.shards()).unwrap();
            let mut bytes = match axis {
                AxisKind::Primary => {
                    self.encoded.sliver(SliverIndex::<Primary>::new(pair)).unwrap().to_bcs()
                }
                AxisKind::Secondary => self.encoded.sliver(index).unwrap().to_bcs(),
            };
            if axis == AxisKind::Primary && lock(&self.missing).contains(&pair) {
                let (status, message) = (404, "no".to_owned());
                return Err(NodeError::Refused {
                    status,
                    reason: None,
                    message,
                    retry_after: None,
                });
            }
            if axis == AxisKind::Primary && lock(&self.false_ones).contains(&pair) {
                bytes[10] ^= 1;
            }
            self.given.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            Ok(bytes.into())
        }
        .boxed()
    }
}

fn committee(n: ShardCount, nodes: u16) -> Committee {
    let node = |i: u16| StorageNode {
        node_id: ObjectId([i as u8; 32]),
        name: String::new(),
        address: format!("127.0.0.1:{}", i + 1),
        network_public_key: [&[2][..], &[i as u8; 32]].concat(),
        bls_public_key: [0; 48],
        shards: (0..n.get()).filter(|shard| shard % nodes == i).map(ShardIndex).collect(),
    };
    Committee::new(1, n, (0..nodes).map(node).collect()).unwrap()
}

/// Agents on one network that can read one blob.
struct Office {
    lan: Arc<Lan>,
    nodes: Arc<Nodes>,
    agents: Vec<SiteWalrus>,
    content: Vec<u8>,
}

fn office(count: usize, shards: u16, bytes: usize, caches: Option<&Path>) -> Office {
    let n = ShardCount::new(shards).unwrap();
    let content: Vec<u8> =
        (0..bytes).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let nodes = Arc::new(Nodes {
        encoded: n.encode(content.clone()).unwrap(),
        given: AtomicU64::new(0),
        pause: Duration::from_millis(20),
        missing: Mutex::default(),
        false_ones: Mutex::default(),
    });
    let lan = lan_of(count);
    let agents = (0..count).map(|at| agent(&lan, &nodes, at, caches)).collect();
    Office { lan, nodes, agents, content }
}

fn agent(lan: &Arc<Lan>, nodes: &Arc<Nodes>, at: usize, caches: Option<&Path>) -> SiteWalrus {
    let n = nodes.encoded.metadata().shards();
    let chain = Arc::new(StaticChain::new(committee(n, 20.min(n.get()))));
    let cache =
        caches.map(|dir| Arc::new(SliverCache::open(&dir.join(at.to_string()), 1 << 30).unwrap()));
    let config = WalrusConfig {
        name: "test".to_owned(),
        network: b"test".to_vec(),
        direct: Client::new(chain).with_source(nodes.clone()),
        cache,
        share: true,
    };
    let everybody = Arc::clone(lan);
    let announce = move |gone: &[u32], come: &[u32]| {
        let mut held = lock(&everybody.held);
        held.retain(|(prefix, peer)| *peer != id(at) || !gone.contains(prefix));
        held.extend(come.iter().map(|prefix| (*prefix, id(at))));
    };
    SiteWalrus::join(&site(lan, at), config, Box::new(announce))
}

impl Office {
    fn blob(&self) -> BlobId {
        *self.nodes.encoded.metadata().id()
    }

    fn sliver(&self, row: u16) -> SiteObject {
        let place = names::outside_id(b"test");
        let metadata = self.nodes.encoded.metadata();
        sliver_object(place, metadata, AxisKind::Primary, PairIndex(row)).unwrap()
    }

    fn given(&self) -> u64 {
        self.nodes.given.load(Ordering::Relaxed)
    }

    /// What one agent alone has to fetch.
    fn one_read(&self) -> u64 {
        let metadata = self.nodes.encoded.metadata();
        let sliver = self.sliver(0).size.unwrap().size();
        metadata.with_id().to_bcs().len() as u64 + u64::from(metadata.occupied_rows()) * sliver
    }

    async fn read(&self, at: usize) {
        let read = self.agents[at].client().read(&self.blob(), &ReadOptions::default()).await;
        assert!(read.unwrap().0 == self.content);
    }

    /// What was fetched is on disk, and announced.
    async fn settle(&self, files: u64) {
        for _ in 0..500 {
            let kept: u64 = self.agents.iter().map(|agent| agent.counts().kept_slivers).sum();
            if kept >= files && lock(&self.lan.held).len() as u64 >= files {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("nothing was kept");
    }

    fn forget_memory(&self, at: usize) {
        lock(&site(&self.lan, at).inner.segments).clear();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_agents_reading_a_blob_at_once_cost_one_read() {
    let office = Arc::new(office(8, 100, 4 << 20, None));
    let reads: Vec<_> = (0..8)
        .map(|at| {
            let office = office.clone();
            tokio::spawn(async move { office.read(at).await })
        })
        .collect();
    for read in reads {
        read.await.unwrap();
    }
    assert_eq!(office.given(), office.one_read());
    let counts: Vec<_> = office.agents.iter().map(SiteWalrus::counts).collect();
    let sum = |of: fn(&WalrusCounts) -> u64| counts.iter().map(of).sum::<u64>();
    assert_eq!(sum(|c| c.fetched.bytes), office.one_read());
    assert_eq!((sum(|c| c.from_nodes.slivers), sum(|c| c.from_peers.slivers)), (34, 7 * 34));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_homes_that_die_cost_little() {
    let office = Arc::new(office(8, 100, 4 << 20, None));
    let mut victims: Vec<_> =
        (10..34).map(|row| home_of(&office.lan, &office.sliver(row), 0)).collect();
    victims.dedup();
    let victims = &victims[..2];
    let reads: Vec<_> = (0..8)
        .filter(|at| !victims.contains(at))
        .map(|at| {
            let office = office.clone();
            tokio::spawn(async move { office.read(at).await })
        })
        .collect();
    sleep(Duration::from_millis(60)).await;
    lock(&office.lan.dead).extend(victims.iter().map(|at| id(*at)));
    for read in reads {
        read.await.unwrap();
    }
    // In this world the dead go on fetching for themselves; the bound of the promise is in tests/walrus_site.rs.
    assert!(office.given() * 10 <= office.one_read() * 16, "{}", office.given());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lying_peer_costs_a_retry_and_is_found_out() {
    let office = office(4, 10, 1 << 20, None);
    let liar = home_of(&office.lan, &office.sliver(0), 0);
    lock(&office.lan.liars).insert(id(liar));
    for at in (0..4).filter(|at| *at != liar) {
        office.read(at).await;
    }
    assert!(lock(&office.lan.blamed).contains(&(id(liar), Fault::WrongContent)));
    assert!(lock(&office.lan.blamed).iter().all(|(peer, _)| *peer == id(liar)));
    let found: u64 = office.agents.iter().map(|agent| agent.counts().liars).sum();
    assert!(found >= 1);
    assert!(office.given() <= office.one_read() * 3, "{} bytes", office.given());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_content_hash_slivers_are_hashed_only_when_it_does_not_hold() {
    let office = office(4, 10, 1 << 20, None);
    let wanted = office.content.clone();
    let asked = Arc::new(AtomicU64::new(0));
    let counting = asked.clone();
    let check: haulout_walrus::ContentCheck = Arc::new(move |bytes| {
        counting.fetch_add(1, Ordering::Relaxed);
        *bytes == wanted[1000..900_000]
    });
    let liar = home_of(&office.lan, &office.sliver(0), 0);
    let honest: Vec<_> = (0..4).filter(|at| *at != liar).collect();
    let blob = office.blob();
    // Metadata is checked whatever is known of the content; here it is about slivers.
    for agent in &office.agents {
        agent.length(&blob).await.unwrap();
    }
    let read = |at: usize| office.agents[at].read(&blob, 1000..900_000, Some(check.clone()));
    assert!(read(honest[0]).await.unwrap() == office.content[1000..900_000]);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    // From now on one neighbour lies.
    lock(&office.lan.liars).insert(id(liar));
    assert!(read(honest[1]).await.unwrap() == office.content[1000..900_000]);
    assert_eq!(asked.load(Ordering::Relaxed), 3, "once in vain, once again");
    assert!(lock(&office.lan.blamed).contains(&(id(liar), Fault::WrongContent)));
    // Right slivers and a wrong hash: nobody is to blame.
    let never: haulout_walrus::ContentCheck = Arc::new(|_| false);
    let before = lock(&office.lan.blamed).len();
    let refused = office.agents[honest[2]].read(&office.blob(), 0..10, Some(never)).await;
    assert!(matches!(refused, Err(haulout_walrus::ReadError::Content(_))), "{refused:?}");
    assert_eq!(lock(&office.lan.blamed).len(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_anywhere_is_found_whoever_is_home() {
    let place = tempfile::tempdir().unwrap();
    let office = office(3, 10, 1 << 20, Some(place.path()));
    // The first one fetches all of it, alone.
    for at in 1..3 {
        site(&office.lan, at).set_willing(false);
    }
    office.read(0).await;
    office.settle(5).await;
    assert_eq!(office.given(), office.one_read());
    // It does not fetch for others any more, and has nothing in memory: but it gives what it keeps.
    site(&office.lan, 0).set_willing(false);
    for at in 1..3 {
        site(&office.lan, at).set_willing(true);
    }
    office.forget_memory(0);
    office.read(1).await;
    office.read(2).await;
    office.forget_memory(0);
    office.read(0).await;
    assert_eq!(office.given(), office.one_read(), "nothing came from outside again");
    assert_eq!(office.agents[1].counts().from_peers.slivers, 4);
    assert_eq!(office.agents[0].counts().from_here.slivers, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_is_found_after_a_restart_and_fetched_again() {
    let place = tempfile::tempdir().unwrap();
    let first = office(1, 10, 1 << 20, Some(place.path()));
    first.read(0).await;
    first.settle(5).await;
    drop(first);
    // One bit of every file.
    for file in std::fs::read_dir(place.path().join("0")).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        std::fs::write(&path, bytes).unwrap();
    }
    let again = office(1, 10, 1 << 20, Some(place.path()));
    assert_eq!(lock(&again.lan.held).len(), 5, "announced from the start");
    again.read(0).await;
    assert_eq!(again.given(), again.one_read());
    again.settle(5).await;
    again.forget_memory(0);
    again.read(0).await;
    assert_eq!((again.given(), again.agents[0].counts().from_here.slivers), (again.one_read(), 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn false_and_missing_slivers_of_nodes_are_replaced_by_others() {
    let office = office(3, 10, 1 << 20, None);
    lock(&office.nodes.missing).push(1);
    lock(&office.nodes.false_ones).push(2);
    for at in 0..3 {
        let read = office.agents[at].client().read(&office.blob(), &ReadOptions::default()).await;
        let (bytes, report) = read.unwrap();
        assert!(bytes == office.content);
        assert_eq!(report.liars.len(), 1, "{report:?}");
    }
    assert!(lock(&office.lan.blamed).is_empty(), "a node's lie is no peer's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_no_node_has_is_made_once_for_all() {
    let place = tempfile::tempdir().unwrap();
    let office = office(3, 10, 1 << 20, Some(place.path()));
    // Three of the four rows are gone: the blob is made of others.
    lock(&office.nodes.missing).extend([0, 1, 3]);
    office.read(0).await;
    // The metadata, the four slivers that came, the three rows that were made.
    office.settle(8).await;
    let given = office.given();
    // From now on nothing at all comes from nodes; still the rows are found.
    lock(&office.nodes.missing).extend(0..10);
    for at in 1..3 {
        let range = office.agents[at].read(&office.blob(), 0..1 << 20, None).await.unwrap();
        assert!(range == office.content);
        assert_eq!(office.agents[at].counts().from_peers.slivers, 4);
    }
    assert_eq!(office.given(), given);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_are_streamed_in_order_and_ranges_cost_their_rows() {
    let office = office(2, 100, 20 << 20, None);
    let (start, end) = (3_000_001, 9_000_000);
    let stream = office.agents[0].stream(&office.blob(), start..end).await.unwrap();
    let pieces: Vec<Bytes> = stream.try_collect().await.unwrap();
    assert!(pieces.concat() == office.content[3_000_001..9_000_000]);
    let sliver = office.sliver(0).size.unwrap().size();
    assert!(office.given() <= 7_000_000 + 2 * sliver, "{} bytes", office.given());
    let whole = office.agents[1].stream(&office.blob(), 0..20 << 20).await.unwrap();
    let pieces: Vec<Bytes> = whole.try_collect().await.unwrap();
    assert!(pieces.concat() == office.content);
    assert_eq!(office.given(), office.one_read());
    let beyond = office.agents[1].stream(&office.blob(), 0..(20 << 20) + 1).await;
    assert!(matches!(beyond, Err(haulout_walrus::ReadError::Range { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_node_has_is_absent() {
    let office = office(2, 10, 1000, None);
    let nothing = BlobId([9; 32]);
    let place = names::outside_id(b"test");
    // The nodes of this test answer any question with the one blob they have: that is a lie about this one.
    let document = site(&office.lan, 0).document(metadata_object(place, &nothing)).await;
    assert!(document.is_err());
}
