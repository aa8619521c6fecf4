#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use haulout_walrus::{Committee, ObjectId, ReadOptions, StaticChain, StorageNode};
use redstuff::{EncodedBlob, ShardIndex, SliverIndex};
use tokio::time::sleep;

use super::*;
use crate::site::lock;
use crate::site::tests::{Lan, home as home_of, id, lan_of, site};

/// A blob on all nodes, and what they gave away.
#[derive(Debug)]
struct Nodes {
    encoded: EncodedBlob,
    given: AtomicU64,
    pause: Duration,
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
        _: &'a Metadata,
        axis: AxisKind,
        PairIndex(pair): PairIndex,
    ) -> BoxFuture<'a, Result<Bytes, NodeError>> {
        async move {
            sleep(self.pause).await;
            assert_eq!(axis, AxisKind::Primary);
            let bytes = self.encoded.sliver(SliverIndex::<Primary>::new(pair)).unwrap().to_bcs();
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

/// `count` agents, each with a client that reads through the site.
fn office(count: usize, shards: u16, blob: Vec<u8>) -> (Arc<Lan>, Arc<Nodes>, Vec<Client>) {
    let n = ShardCount::new(shards).unwrap();
    let encoded = n.encode(blob).unwrap();
    let nodes =
        Arc::new(Nodes { encoded, given: AtomicU64::new(0), pause: Duration::from_millis(20) });
    let lan = lan_of(count);
    let chain = Arc::new(StaticChain::new(committee(n, 20)));
    let client = |at: usize| {
        let direct = Client::new(chain.clone()).with_source(nodes.clone());
        SiteWalrus::join(&site(&lan, at), &direct, b"test", None).client
    };
    let clients = (0..count).map(client).collect();
    (lan, nodes, clients)
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// What one agent alone has to fetch.
fn one_read(encoded: &EncodedBlob) -> u64 {
    let metadata = encoded.metadata();
    let sliver = bcs_len(metadata.sliver_len::<Primary>());
    metadata.with_id().to_bcs().len() as u64 + u64::from(metadata.occupied_rows()) * sliver
}

#[test]
fn lengths_are_those_of_the_wire() {
    for length in [0, 1, 5000, 100_000, 3_000_000] {
        let encoded = ShardCount::new(10).unwrap().encode(content(length)).unwrap();
        let bytes = encoded.sliver(SliverIndex::<Primary>::new(0)).unwrap().to_bcs();
        let data = encoded.metadata().sliver_len::<Primary>();
        assert_eq!(bcs_len(data), bytes.len() as u64);
    }
}

/// 64 MiB, as a network of 100 shards has it: 34 slivers of 2 MB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_agents_reading_a_blob_at_once_cost_one_read() {
    let blob = content(64 << 20);
    let (_lan, nodes, clients) = office(8, 100, blob.clone());
    let id = *nodes.encoded.metadata().id();
    let blob = Arc::new(blob);
    let reads: Vec<_> = clients
        .into_iter()
        .map(|client| {
            let blob = blob.clone();
            tokio::spawn(async move {
                let (bytes, _) = client.read(&id, &ReadOptions::default()).await.unwrap();
                assert!(bytes == *blob);
            })
        })
        .collect();
    for read in reads {
        read.await.unwrap();
    }
    let (given, one) = (nodes.given.load(Ordering::Relaxed), one_read(&nodes.encoded));
    eprintln!("8 agents: {given} bytes from the nodes, one read is {one}");
    assert!(given * 100 <= one * 105, "{given} of {one}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_homes_that_die_cost_little() {
    let blob = content(8 << 20);
    let (lan, nodes, clients) = office(8, 100, blob.clone());
    let blob_id = *nodes.encoded.metadata().id();
    let object = |row: u16| {
        sliver_object(OUTSIDE(), nodes.encoded.metadata(), AxisKind::Primary, PairIndex(row))
            .unwrap()
    };
    let mut victims: Vec<_> = (10..34).map(|row| home_of(&lan, &object(row), 0)).collect();
    victims.dedup();
    let victims = &victims[..2];
    let blob = Arc::new(blob);
    let reads: Vec<_> = clients
        .into_iter()
        .enumerate()
        .filter(|(at, _)| !victims.contains(at))
        .map(|(_, client)| {
            let blob = blob.clone();
            tokio::spawn(async move {
                let (bytes, _) = client.read(&blob_id, &ReadOptions::default()).await.unwrap();
                assert!(bytes == *blob);
            })
        })
        .collect();
    sleep(Duration::from_millis(60)).await;
    lock(&lan.dead).extend(victims.iter().map(|at| id(*at)));
    for read in reads {
        read.await.unwrap();
    }
    let (given, one) = (nodes.given.load(Ordering::Relaxed), one_read(&nodes.encoded));
    eprintln!("two homes killed: {given} bytes from the nodes, one read is {one}");
    assert!(given * 10 <= one * 13, "{given} of {one}");
}

#[allow(non_snake_case, reason = "stands for a constant")]
fn OUTSIDE() -> OutsideId {
    OutsideId::from_bytes(hash(&[b"haulout walrus 1\0", b"test"]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lying_peer_costs_a_retry_and_is_found_out() {
    let blob = content(1 << 20);
    let (lan, nodes, clients) = office(4, 10, blob.clone());
    let blob_id = *nodes.encoded.metadata().id();
    let object =
        sliver_object(OUTSIDE(), nodes.encoded.metadata(), AxisKind::Primary, PairIndex(0));
    let liar = home_of(&lan, &object.unwrap(), 0);
    lock(&lan.liars).insert(id(liar));
    for (at, client) in clients.iter().enumerate() {
        if at != liar {
            let (bytes, _) = client.read(&blob_id, &ReadOptions::default()).await.unwrap();
            assert!(bytes == blob);
        }
    }
    for _ in 0..200 {
        if lock(&lan.blamed).iter().any(|(peer, _)| *peer == id(liar)) {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("nobody blamed the liar");
}
