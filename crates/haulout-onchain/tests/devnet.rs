//! An archive from end to end on a devnet: a full node that signs checkpoints, storage nodes with TLS.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use haulout_depot::{
    Blobs, Kind, NarSource, Reader, Registry, Update,
    fund::fund,
    publish::{Options, StoreSource, closure, publish},
    verify::verify,
};
use haulout_devnet::{
    storage::{Seats, StorageNodes, even_weights},
    sui::{Devnet, FullNode, Setup},
};
use haulout_nix::{HashPart, SecretKey, nar::dump};
use haulout_onchain::{Created, OnChain, Publisher, RecentBytes, create};
use haulout_sample::{Sample, SampleSpec, SampleStore};
use haulout_sui::{
    Network,
    archive::ArchiveTracker,
    chain::SuiChain,
    network::TrustAnchor,
    object_id::object_id,
    prover::Prover,
    tx::{Signer, SuiRegistrar, Wallet},
};
use haulout_walrus::{Client, Direct};
use redstuff::ShardCount;
use std::{
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use sui_crypto::ed25519::Ed25519PrivateKey;

struct World {
    dir: tempfile::TempDir,
    devnet: Devnet,
    node: FullNode,
    nodes: StorageNodes,
    network: Network,
    store: SampleStore,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn account() -> Ed25519PrivateKey {
    Ed25519PrivateKey::new([9; 32])
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let key = SecretKey::from_seed("sample-1", [7; 32]).unwrap();
    let store =
        Sample::generate(&dir.path().join("store"), SampleSpec::new(5, 25, 2 << 20, &key)).unwrap();
    let shards = ShardCount::new(10).unwrap();
    let seats = Seats::take(&dir.path().join("nodes"), 5).unwrap();
    let committee = seats.committee(1, shards, &even_weights(shards, 5).unwrap()).unwrap();
    let setup =
        Setup { accounts: vec![account().public_key().derive_address()], ..Setup::default() };
    let devnet = Devnet::new(&setup, &committee, now);
    let nodes = seats.start(Arc::new(devnet.clone())).unwrap();
    let node = devnet.serve("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let network = Network {
        name: "devnet".into(),
        rpc_urls: vec![node.url()],
        system_object: object_id(devnet.system_object()),
        staking_object: object_id(devnet.staking_object()),
        aggregators: Vec::new(),
        walrus_package: None,
        wal_package: Some(object_id(devnet.wal_package())),
        trust_anchor: Some(TrustAnchor::Checkpoint(devnet.chain_id().into_inner())),
    };
    World { dir, devnet, node, nodes, network, store }
}

impl World {
    fn wallet(&self) -> Arc<Wallet> {
        let chain =
            SuiChain::new(&self.network).with_owner(account().public_key().derive_address());
        let signer = Signer::from_key(account());
        let state = self.dir.path().join("wallet");
        Arc::new(Wallet::new(Arc::new(chain), signer, Some(&state), Arc::new(|_| true)))
    }

    async fn create(&self) -> Created {
        create(&self.wallet(), None, "/nix/store", "ours").await.unwrap()
    }

    async fn open(&self, created: &Created, publisher: bool) -> Arc<OnChain> {
        let wallet = self.wallet();
        let chain = Arc::clone(wallet.chain());
        let client =
            Client::new(chain.clone()).with_source(Arc::new(RecentBytes::new(Arc::new(Direct))));
        let prover = Arc::new(Prover::new(&self.network, None).unwrap());
        let tracker = ArchiveTracker::open(prover, created.archive, Some(created.package), None)
            .await
            .unwrap();
        let publisher = publisher.then(|| Publisher {
            registrar: SuiRegistrar::new(wallet),
            package: created.package,
            cap: created.publisher_cap,
            journals: Some(self.dir.path().join("journals")),
        });
        Arc::new(OnChain::new(client, chain, Arc::new(tracker), publisher))
    }

    fn options(&self) -> Options {
        Options {
            epochs: 5,
            level: 3,
            pack_bytes: 500_000,
            scratch: self.dir.path().join("scratch"),
            sign: None,
            today: 20_000,
            progress: None,
        }
    }

    async fn assert_complete(&self, reader: &Reader) {
        for info in &self.store.paths {
            let found =
                reader.find(&info.path.hash_part()).await.unwrap().expect("the path is there");
            assert_eq!(found.path.info, *info);
            let (mut got, mut want) = (Vec::new(), Vec::new());
            reader.nar(&found).await.unwrap().write_to(&mut got).await.unwrap();
            dump(Path::new(&self.store.location.real_path(&info.path)), &mut want).unwrap();
            assert!(got == want, "{}", info.path);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_lives_on_walrus_and_sui() {
    let world = world().await;
    let created = world.create().await;
    let archive = world.open(&created, true).await;
    assert_eq!(archive.state().await.unwrap().sequence, 0);

    let source: Arc<dyn NarSource> = Arc::new(StoreSource::open(&world.store.location).unwrap());
    let top = vec![world.store.top.hash_part()];
    let infos = closure(&*source, &top, 10_000).await.unwrap();
    let (blobs, registry): (Arc<dyn Blobs>, Arc<dyn Registry>) = (archive.clone(), archive.clone());
    let before = world.devnet.height();
    let report = publish(
        blobs.clone(),
        registry.clone(),
        source.clone(),
        infos.clone(),
        top.clone(),
        world.options(),
    )
    .await
    .unwrap();
    assert_eq!((report.added, report.sequence), (world.store.paths.len(), 1));
    assert!(report.packs >= 2, "{report:?}");
    // Two transactions for each blob: the index's certification is that of the update.
    let transactions = 2 * (report.packs as u64 + 1);
    assert!(world.devnet.height() - before >= transactions, "every transaction is a checkpoint");

    // Another machine, without a key: the state is proven, the bytes come from storage nodes, of which
    // one is gone.
    let reading = world.open(&created, false).await;
    let state = reading.state().await.unwrap();
    assert_eq!((state.sequence, state.levels.len(), state.name.as_str()), (1, 1, "ours"));
    let mut down = world.nodes.faults(0).unwrap();
    down.down = true;
    assert!(world.nodes.set_faults(0, down).await);
    let reader = Reader::open(reading.clone(), state).await.unwrap();
    world.assert_complete(&reader).await;
    assert!(reader.find(&HashPart::from_bytes([3; 20])).await.unwrap().is_none());
    let findings = verify(&reader, reading.epoch().await.unwrap(), false).await.unwrap();
    assert!(findings.is_well(), "{findings:?}");

    // The same again is nothing; a beat and a stranger's update are told apart.
    let again =
        publish(blobs, registry.clone(), source, infos, top, world.options()).await.unwrap();
    assert_eq!((again.added, again.present, again.sequence), (0, world.store.paths.len(), 1));
    assert_eq!(registry.update(1, &Update::Beat).await.unwrap(), 2);
    assert_eq!(registry.update(1, &Update::Beat).await.unwrap_err().kind, Kind::Conflict);

    // Paid for longer.
    let owner = Reader::open(archive.clone(), archive.state().await.unwrap()).await.unwrap();
    let funded = fund(&owner, &*archive, 9).await.unwrap();
    assert_eq!(funded.blobs, report.packs + 1);
    let state = reading.state().await.unwrap();
    assert_eq!(state.levels[0].end_epoch, funded.end_epoch);
    assert_eq!(state.sequence, 3);
    world.node.stop().await;
}
