//! The loop that follows an archive, against full nodes that are gone, stale, lying and honest.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use haulout_depot::Policy;
use haulout_devnet::sui::{Devnet, FaultState, FullNode, Setup};
use haulout_nix::{SecretKey, StoreDir};
use haulout_onchain::{Created, create};
use haulout_sui::chain::SuiChain;
use haulout_sui::tx::{KeySource, Request, Signer, Wallet};
use haulout_sui::{Network, ObjectId};
use haulout_walrus::{Committee, StorageNode, bls};
use redstuff::{ShardCount, ShardIndex};
use tokio::task::JoinHandle;

use super::*;

/// What a busy machine may take for a step.
const LIMIT: Duration = Duration::from_secs(60);

/// A chain with an archive on it, and full nodes that serve it.
struct World {
    devnet: Devnet,
    nodes: Vec<FullNode>,
    created: Created,
    state: tempfile::TempDir,
}

/// One storage node: nothing is stored here.
fn committee() -> Committee {
    let key = bls::SecretKey::from_seed(&[1; 32]).unwrap();
    let node = StorageNode {
        node_id: ObjectId([1; 32]),
        name: "node".to_owned(),
        address: "127.0.0.1:9000".to_owned(),
        network_public_key: [&[2][..], &[7; 32]].concat(),
        bls_public_key: key.public_key().to_bytes(),
        shards: (0..4).map(ShardIndex).collect(),
    };
    Committee::new(1, ShardCount::new(4).unwrap(), vec![node]).unwrap()
}

fn network(devnet: &Devnet, nodes: &[FullNode]) -> Network {
    let urls: Vec<String> = nodes.iter().map(FullNode::url).collect();
    let text = format!(
        "rpc_urls = {urls:?}\nsystem_object = \"{}\"\nstaking_object = \"{}\"\nwal_package = \"{}\"\n\
         [trust_anchor]\ncheckpoint = \"{}\"\n",
        devnet.system_object(),
        devnet.staking_object(),
        devnet.wal_package(),
        devnet.chain_id(),
    );
    Network::parse(&text, "devnet", Path::new("")).unwrap()
}

fn signer(state: &Path) -> Signer {
    Signer::open(&KeySource::File(state.join("key"))).unwrap()
}

fn wallet(devnet: &Devnet, nodes: &[FullNode], state: &Path) -> Wallet {
    let chain = Arc::new(SuiChain::new(&network(devnet, nodes)));
    Wallet::new(chain, signer(state), None, Arc::new(|_| true))
}

impl World {
    async fn new(nodes: usize) -> Self {
        let state = tempfile::tempdir().unwrap();
        // A key as people have it: a line of a keystore, flag and 32 bytes.
        let key = data_encoding::BASE64.encode(&[&[0][..], &[9; 32]].concat());
        let file = state.path().join("key");
        std::fs::write(&file, key).unwrap();
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, owner_only).unwrap();
        let signer = signer(state.path());
        let account = haulout_sui::object_id::address(signer.account());
        let setup = Setup { accounts: vec![account], ..Setup::default() };
        // Ten minutes ago, and a second later whenever it is looked at: never ahead of this machine's.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let clock = AtomicU64::new((now.as_millis() as u64).saturating_sub(600_000));
        let now = move || clock.fetch_add(1_000, Ordering::Relaxed);
        let devnet = Devnet::new(&setup, &committee(), now);
        let mut served = Vec::new();
        for _ in 0..nodes {
            served.push(devnet.serve(([127, 0, 0, 1], 0).into()).await.unwrap());
        }
        let wallet = wallet(&devnet, &served, state.path());
        let created = create(&wallet, None, "/nix/store", "ours").await.unwrap();
        Self { devnet, nodes: served, created, state }
    }

    /// The archive says that it is alive, by way of one full node (others may lie about the wallet's
    /// coins): its sequence rises.
    async fn beat(&self, node: usize, expected: u64) {
        let wallet = wallet(&self.devnet, &self.nodes[node..=node], self.state.path());
        let Created { package, archive, publisher_cap, .. } = self.created;
        let request = Request {
            purpose: format!("beat {expected}"),
            wal: 0,
            objects: vec![(archive, true), (publisher_cap, false)],
            build: &|ptb| ptb.archive_beat(package, (0, 1), expected),
        };
        wallet.run(&request).await.unwrap();
    }

    fn fault(&self, node: usize, change: impl FnOnce(&mut FaultState)) {
        self.nodes[node].faults().set(change);
    }

    /// An agent's part that follows the archive, from what is on disk.
    async fn follow(&self) -> Watching {
        self.follow_at(None).await
    }

    async fn follow_at(&self, beat: Option<Beat>) -> Watching {
        let network = network(&self.devnet, &self.nodes);
        let prover = Arc::new(Prover::new(&network, Some(self.state.path())).unwrap());
        let (id, package) = (self.created.archive, Some(self.created.package));
        let state = Some(self.state.path());
        let tracker = ArchiveTracker::open(Arc::clone(&prover), id, package, state).await.unwrap();
        let tracker = Arc::new(tracker);
        let following = Arc::new(Following::new(Arc::clone(&tracker)));
        let source = ArchiveSource::new(
            following.clone(),
            following.clone(),
            StoreDir::default(),
            Policy::All,
            Arc::new(SecretKey::from_seed("host-1", [5; 32]).unwrap()),
        );
        let short = Duration::from_millis(50);
        let pace = Pace { every: short, retry: (short, short * 4) };
        let follow = Arc::new(Follow::new(tracker, prover, following, source, (pace, beat)));
        let tasks = vec![
            tokio::spawn(Arc::clone(&follow).poll_for_ever()),
            tokio::spawn(Arc::clone(&follow).open_for_ever()),
        ];
        Watching { follow, tasks }
    }
}

struct Watching {
    follow: Arc<Follow>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Watching {
    /// Waits until the status says so.
    async fn until(&self, what: impl Fn(&SourceReport) -> bool) -> SourceReport {
        let begun = std::time::Instant::now();
        loop {
            let status = self.follow.status();
            if what(&status) {
                return status;
            }
            assert!(begun.elapsed() < LIMIT, "{status:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn at(&self, sequence: u64) -> SourceReport {
        let wanted = format!("sequence {sequence}");
        self.until(|status| status.usable && status.state == wanted).await
    }

    async fn in_trouble(&self) -> SourceReport {
        self.until(|status| status.detail.as_ref().is_some_and(|d| d.contains("full nodes: ")))
            .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_new_comes_whoever_tells_it_and_nothing_older_ever() {
    let world = World::new(3).await;
    let watching = world.follow().await;
    let status = watching.at(0).await;
    assert_eq!(status.label.as_deref(), Some("ours"));
    assert!(status.shown().starts_with("ours (0x"), "{}", status.shown());
    world.beat(0, 0).await;
    watching.at(1).await;

    // Two of three lie, each in its own way: the third is enough.
    let height = world.devnet.height();
    world.fault(0, |fault| fault.forged_object = true);
    world.fault(1, |fault| fault.fork = true);
    world.beat(2, 1).await;
    watching.at(2).await;

    // Nobody but a node that shows the past: the newest stays.
    world.fault(0, |fault| *fault = FaultState { stale_at: Some(height), ..FaultState::default() });
    world.fault(1, |fault| *fault = FaultState { gone: true, ..FaultState::default() });
    world.fault(2, |fault| fault.gone = true);
    let checkpoint = watching.follow.tracker.newest().unwrap().checkpoint;
    sleep(Duration::from_millis(500)).await;
    watching.at(2).await;
    assert_eq!(watching.follow.tracker.newest().unwrap().checkpoint, checkpoint);
    drop(watching);

    // The same after a start: what was seen is on disk.
    let watching = world.follow().await;
    watching.at(2).await;
    sleep(Duration::from_millis(300)).await;
    watching.at(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_full_node_it_serves_what_was_proven_even_after_a_start() {
    let world = World::new(2).await;
    world.beat(0, 0).await;
    let watching = world.follow().await;
    watching.at(1).await;
    for node in 0..2 {
        world.fault(node, |fault| fault.gone = true);
    }
    let status = watching.in_trouble().await;
    assert!(status.usable && status.state == "sequence 1", "{status:?}");
    drop(watching);

    let watching = world.follow().await;
    let status = watching.at(1).await;
    assert!(status.usable);
    let status = watching.in_trouble().await;
    assert!(status.usable, "{status:?}");

    // They come back, one of them, and so does the news.
    world.fault(1, |fault| fault.gone = false);
    world.beat(1, 1).await;
    let status = watching.at(2).await;
    assert!(!status.detail.unwrap_or_default().contains("full nodes: "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_nobody_can_prove_says_so_until_somebody_can() {
    let world = World::new(2).await;
    world.fault(0, |fault| fault.bad_signature = true);
    world.fault(1, |fault| fault.other_object = true);
    let watching = world.follow().await;
    let status = watching.until(|status| status.state == "not proven").await;
    assert!(!status.usable && status.detail.is_some(), "{status:?}");
    assert!(watching.follow.opened().await.is_err(), "questions do not wait for it");
    world.fault(0, |fault| *fault = FaultState::default());
    watching.at(0).await;
    assert!(watching.follow.opened().await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_misses_the_beats_it_promised_is_not_asked() {
    // Nothing was published yet: it was last updated in 1970.
    let world = World::new(1).await;
    let hour = Beat { every: Duration::from_secs(3600), tolerated: 3 };
    let watching = world.follow_at(Some(hour)).await;
    let status = watching.until(|status| status.state == "stale").await;
    assert!(!status.usable && status.detail.unwrap().contains("beats"));
    assert!(watching.follow.opened().await.is_err());
    world.beat(0, 0).await;
    watching.at(1).await;
    assert!(watching.follow.opened().await.is_ok());
}
