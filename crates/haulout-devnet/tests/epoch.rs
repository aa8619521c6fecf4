//! Reading while the epoch changes: shards are somewhere else in the middle of a read, or on their way.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::{FutureExt, TryStreamExt};
use haulout_devnet::storage::Faults;
use haulout_devnet::{LocalNet, Plan, files};
use haulout_sui::chain::SuiChain;
use haulout_sui::tx::{KeySource, Signer, SuiRegistrar, Wallet};
use haulout_walrus::{
    BoxFuture, ChainReader, Client, Direct, Node, NodeError, ReadOptions, Source, StoreOptions,
    Verdict, is_sliver,
};
use redstuff::{AxisKind, BlobId, Metadata, PairIndex, ShardCount};
use tokio::sync::watch;

/// Ten shards on ten nodes: with every change of epoch every shard moves.
struct World {
    net: LocalNet,
    dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan { shards: 10, nodes: 10, ..Plan::new(dir.path()) };
        Self { net: LocalNet::start(&plan).await.unwrap(), dir }
    }

    fn chain(&self) -> Arc<SuiChain> {
        Arc::new(SuiChain::new(self.net.network()))
    }

    async fn store(&self, data: &[u8]) -> BlobId {
        let account = self.dir.path().join(files::ACCOUNT);
        let signer = Signer::open(&KeySource::File(account)).unwrap();
        let state = self.dir.path().join("wallet");
        let wallet = Wallet::new(self.chain(), signer, Some(&state), Arc::new(|_: &_| true));
        let registrar = SuiRegistrar::new(Arc::new(wallet));
        let encoded = ShardCount::new(10).unwrap().encode(data.to_vec()).unwrap();
        let client = Client::new(self.chain());
        let options = StoreOptions::permanent(20);
        client.store(&registrar, Arc::new(encoded), &options).await.unwrap().blob
    }
}

fn content(seed: u8) -> Vec<u8> {
    (0..50_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed).collect()
}

/// The nodes, but only so many slivers come before the gate is opened.
#[derive(Debug)]
struct Gate {
    free: usize,
    asked: AtomicUsize,
    wrong_shard: AtomicUsize,
    failed: AtomicUsize,
    waiting: watch::Sender<bool>,
    open: watch::Sender<bool>,
}

impl Gate {
    fn new(free: usize) -> Arc<Self> {
        Arc::new(Self {
            free,
            asked: AtomicUsize::new(0),
            wrong_shard: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
            waiting: watch::Sender::new(false),
            open: watch::Sender::new(free == usize::MAX),
        })
    }

    /// Waits until somebody stands before it.
    async fn reached(&self) {
        self.waiting.subscribe().wait_for(|waiting| *waiting).await.unwrap();
    }
}

impl Source for Gate {
    fn metadata<'a>(
        &'a self,
        node: &'a Arc<Node>,
        n: ShardCount,
        blob: &'a BlobId,
    ) -> BoxFuture<'a, Result<Bytes, NodeError>> {
        Direct.metadata(node, n, blob)
    }

    fn sliver<'a>(
        &'a self,
        node: &'a Arc<Node>,
        metadata: &'a Metadata,
        axis: AxisKind,
        pair: PairIndex,
    ) -> BoxFuture<'a, Result<Bytes, NodeError>> {
        async move {
            if self.asked.fetch_add(1, Ordering::Relaxed) >= self.free {
                self.waiting.send_replace(true);
                self.open.subscribe().wait_for(|open| *open).await.unwrap();
            }
            let answer = Direct.sliver(node, metadata, axis, pair).await;
            if let Err(error) = &answer {
                self.failed.fetch_add(1, Ordering::Relaxed);
                let wrong = usize::from(error.verdict() == Verdict::WrongShard);
                self.wrong_shard.fetch_add(wrong, Ordering::Relaxed);
            }
            answer
        }
        .boxed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_epochs_pass_in_the_middle_of_one_read() {
    let world = World::new().await;
    let data = content(1);
    let blob = world.store(&data).await;
    // After one sliver of four the shards move twice: nobody has any more what the committee at hand says.
    let gate = Gate::new(1);
    let client = Client::new(world.chain()).with_source(gate.clone());
    let reading = tokio::spawn({
        let client = client.clone();
        async move { client.read(&blob, &ReadOptions::default()).await }
    });
    gate.reached().await;
    world.net.next_epoch().await.unwrap();
    assert_eq!(world.net.next_epoch().await.unwrap(), 3);
    gate.open.send_replace(true);
    let (read, report) = reading.await.unwrap().unwrap();
    assert!(read == data);
    assert!(gate.wrong_shard.load(Ordering::Relaxed) >= 3, "{report:?}");
    // What had come was kept, and nobody is called a liar for it.
    assert!(report.slivers == 4 && report.liars.is_empty(), "{report:?}");

    // Ranges and what was stored since are read by the same client, whose committee is old again.
    world.net.next_epoch().await.unwrap();
    world.net.next_epoch().await.unwrap();
    let part = client.read_range(&blob, 20_000..20_100, &ReadOptions::default()).await.unwrap();
    assert!(part.0 == data[20_000..20_100]);
    world.net.next_epoch().await.unwrap();
    world.net.next_epoch().await.unwrap();
    let later = content(2);
    let id = world.store(&later).await;
    assert!(client.read(&id, &ReadOptions::default()).await.unwrap().0 == later);
    world.net.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_shards_are_moving_those_who_had_them_are_asked() {
    let world = World::new().await;
    let data = content(3);
    let blob = world.store(&data).await;
    world.net.chain().begin_walrus_epoch().unwrap();
    let view = world.chain().committees(true).await.unwrap();
    assert!(view.is_changing() && view.epoch == 2);
    // No node has yet got what it is to have.
    let previous = view.previous.as_ref().unwrap();
    for member in &view.current.members {
        let before = previous.members.iter().find(|other| other.node_id == member.node_id);
        let had = &before.unwrap().shards;
        let gained = member.shards.iter().filter(|shard| !had.contains(shard));
        let missing_shards: BTreeSet<u16> = gained.map(|shard| shard.0).collect();
        assert_eq!(missing_shards.len(), 1);
        let index = member.name.strip_prefix("node-").unwrap().parse().unwrap();
        let faults = Faults { missing_shards, ..Faults::default() };
        assert!(world.net.nodes().set_faults(index, faults).await);
    }
    let gate = Gate::new(usize::MAX);
    let client = Client::new(world.chain()).with_source(gate.clone());
    let (read, _) = client.read(&blob, &ReadOptions::default()).await.unwrap();
    assert!(read == data);
    assert_eq!(gate.failed.load(Ordering::Relaxed), 0, "from the committee that has the blob");

    // Whoever fetches single slivers for others gets each of them, too.
    let metadata = client.metadata(&blob).await.unwrap();
    for (axis, pair) in [AxisKind::Primary, AxisKind::Secondary]
        .into_iter()
        .flat_map(|axis| (0..10).map(move |pair| (axis, PairIndex(pair))))
    {
        let (_, body) = client.sliver_from_owner(&metadata, axis, pair).await.unwrap();
        let pieces: Vec<Bytes> = body.try_collect().await.unwrap();
        assert!(is_sliver(&metadata, axis, pair, &pieces.concat().into()));
    }
    world.net.stop().await;
}
