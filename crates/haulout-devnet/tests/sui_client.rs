//! `haulout-sui` against the devnet's full node: everything over gRPC, nothing in memory.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/four.rs"]
mod four;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use haulout_devnet::sui::{Devnet, FaultState, FullNode, Setup};
use haulout_sui::{
    Network, ObjectId,
    archive::{ArchiveError, ArchiveTracker},
    chain::SuiChain,
    network::TrustAnchor,
    object_id::{address, object_id},
    prover::{ProveError, Prover, shared},
    tx::{Certification, Outcome, Request, Signer, SuiRegistrar, TxError, Update, Wallet},
};
use haulout_walrus::{BlobName, ChainReader, EpochState, Registered, Registrar, Registration, bls};
use redstuff::{
    BlobId, Digest, ShardCount,
    messages::{ConfirmationCertificate, signers_bitmap},
};

use four::{committee, node_key, user};

const LOOPBACK: &str = "127.0.0.1:0";

struct World {
    devnet: Devnet,
    nodes: Vec<FullNode>,
    state: tempfile::TempDir,
}

impl World {
    /// A chain, and `nodes` full nodes that serve it.
    async fn new(nodes: usize, artifacts: bool) -> Self {
        let account = user().public_key().derive_address();
        let setup = Setup { accounts: vec![account], artifacts, ..Setup::default() };
        let clock = AtomicU64::new(1_800_000_000_000);
        let now = move || clock.fetch_add(1_000, Ordering::Relaxed);
        let devnet = Devnet::new(&setup, &committee(), now);
        let mut served = Vec::new();
        for _ in 0..nodes {
            served.push(devnet.serve(LOOPBACK.parse().unwrap()).await.unwrap());
        }
        Self { devnet, nodes: served, state: tempfile::tempdir().unwrap() }
    }

    /// As a user writes it down: addresses, two ids, the chain's identifier as anchor.
    fn network(&self) -> Network {
        let urls: Vec<String> = self.nodes.iter().map(FullNode::url).collect();
        let text = format!(
            "rpc_urls = {urls:?}\nsystem_object = \"{}\"\nstaking_object = \"{}\"\n\
             [trust_anchor]\ncheckpoint = \"{}\"\n",
            self.devnet.system_object(),
            self.devnet.staking_object(),
            self.devnet.chain_id(),
        );
        Network::parse(&text, "devnet", Path::new("")).unwrap()
    }

    fn registrar(&self) -> SuiRegistrar {
        let chain = Arc::new(SuiChain::new(&self.network()));
        let yes = Arc::new(|_: &_| true);
        let signer = Signer::from_key(user());
        let wallet = Wallet::new(chain, signer, Some(self.state.path()), yes);
        SuiRegistrar::new(Arc::new(wallet))
    }

    async fn tracker(&self, network: &Network, id: ObjectId) -> ArchiveTracker {
        let prover = Arc::new(Prover::new(network, None).unwrap());
        ArchiveTracker::open(prover, id, None, None).await.unwrap()
    }
}

fn registration(byte: u8) -> Registration {
    let n = ShardCount::new(10).unwrap();
    let root = Digest::new([byte; 32]);
    Registration {
        blob: BlobId::compute(5_000, &root),
        root_hash: root,
        unencoded_length: 5_000,
        encoded_length: n.encoded_length(5_000).unwrap(),
        epochs: 5,
        deletable: false,
    }
}

/// What nodes 1 to 3, nine of ten shards, sign for a permanent blob.
fn certificate(epoch: u32, blob: &BlobId) -> (ConfirmationCertificate, Vec<u8>) {
    let signers = vec![1u16, 2, 3];
    let message = [&[1, 0, 3][..], &epoch.to_le_bytes(), blob.as_bytes(), &[0]].concat();
    let signatures: Vec<_> = (1..4).map(|i| node_key(i).sign(&message)).collect();
    let signature = bls::aggregate(&signatures).unwrap();
    let bitmap = signers_bitmap(&signers);
    (ConfirmationCertificate { signers, message, signature }, bitmap)
}

struct Archive {
    package: ObjectId,
    id: ObjectId,
    publisher: ObjectId,
}

async fn run(
    registrar: &SuiRegistrar,
    purpose: &str,
    objects: Vec<(ObjectId, bool)>,
    build: &(dyn Fn(&mut haulout_sui::tx::Ptb<'_>) -> Result<(), TxError> + Send + Sync),
) -> Result<Outcome, TxError> {
    let request = Request { purpose: purpose.to_owned(), wal: 0, objects, build };
    registrar.wallet().run(&request).await
}

/// Publishes the contract and makes an archive.
async fn archive(world: &World, registrar: &SuiRegistrar) -> Archive {
    let original = world.devnet.walrus_package().into_inner();
    let module = haulout_archive::contract::module_for(&original);
    let dependencies: Vec<ObjectId> = ["0x1", "0x2"]
        .iter()
        .map(|id| id.parse().unwrap())
        .chain([
            object_id(world.devnet.current_walrus_package()),
            object_id(world.devnet.wal_package()),
        ])
        .collect();
    let published = run(registrar, "publish", Vec::new(), &|ptb| {
        ptb.publish(vec![module.clone()], &dependencies, false)
    })
    .await;
    let package = published.unwrap().package().unwrap();
    let created = run(registrar, "create", Vec::new(), &|ptb| {
        ptb.archive_create(package, "/nix/store", "test")
    })
    .await;
    let created = created.unwrap();
    let only = |name| object_id(created.created_of("archive", name).next().unwrap().object_id());
    Archive { package, id: only("Archive"), publisher: only("PublisherCap") }
}

async fn publish(
    registrar: &SuiRegistrar,
    archive: &Archive,
    expected: u64,
    byte: u8,
) -> Registered {
    let registration = registration(byte);
    let registered = registrar.register(&registration).await.unwrap();
    let (certificate, bitmap) = certificate(1, &registration.blob);
    let with = Certification {
        blob: registered.object,
        signature: certificate.signature.to_vec(),
        bitmap,
        message: certificate.message,
    };
    let update = Update {
        expected,
        root: [byte; 32],
        leaves: 7,
        end_epoch: registered.end_epoch,
        keep: (0..expected).collect(),
        place: 0,
    };
    let ids = (archive.id, archive.publisher);
    registrar.certify_and_update(archive.package, ids, &with, &update).await.unwrap();
    registered
}

async fn beat(registrar: &SuiRegistrar, archive: &Archive, expected: u64) {
    let objects = vec![(archive.id, true), (archive.publisher, false)];
    let package = archive.package;
    let beat = run(registrar, &format!("beat {expected}"), objects, &|ptb| {
        ptb.archive_beat(package, (0, 1), expected)
    })
    .await;
    beat.unwrap();
}

#[tokio::test]
async fn blobs_are_registered_certified_and_extended() {
    let world = World::new(1, true).await;
    let registrar = world.registrar();
    let chain = registrar.wallet().chain().clone();
    let view = chain.committees(false).await.unwrap();
    assert_eq!(Some(&view), world.devnet.committees().as_ref());

    let all: Vec<Registration> = (1..4).map(registration).collect();
    let registered = registrar.register_all(&all).await.unwrap();
    assert_eq!(registered.len(), 3);
    for (registered, registration) in registered.iter().zip(&all) {
        let name = BlobName::Object(registered.object);
        let state = chain.blob(name).await.unwrap().unwrap();
        assert_eq!((state.blob, state.certified_epoch), (registration.blob, None));
        assert_eq!(registrar.existing(registration).await.unwrap(), Some(*registered));
    }
    let (certificate, bitmap) = certificate(1, &all[0].blob);
    let certified = registrar.certify(registered[0].object, &certificate, &bitmap).await.unwrap();
    assert_eq!(certified.epoch, 1);

    // A certificate for another blob is refused by the contract, in its own words.
    let refused = registrar.certify(registered[1].object, &certificate, &bitmap).await;
    let refused = refused.unwrap_err();
    let cause = std::error::Error::source(&refused).and_then(|e| e.source()).unwrap().to_string();
    assert!(cause.contains("aborts in"), "{cause}");

    let size = all[0].encoded_length;
    registrar.extend(&[(registered[0].object, size)], 2, 8).await.unwrap();
    let name = BlobName::Object(registered[0].object);
    assert_eq!(chain.blob(name).await.unwrap().unwrap().end_epoch, 8);
}

#[tokio::test]
async fn committees_follow_an_epoch_change() {
    let world = World::new(1, true).await;
    let chain = SuiChain::new(&world.network());
    assert_eq!(chain.committees(false).await.unwrap().epoch, 1);
    // Everything proven: the same, from the first checkpoint's committee on.
    let prover = Arc::new(Prover::new(&world.network(), None).unwrap());
    let proven = SuiChain::new(&world.network()).with_proofs(prover);
    let view = proven.committees(false).await.unwrap();
    assert_eq!(Some(view), world.devnet.committees());
    world.nodes[0].faults().set(|faults| faults.forged_object = true);
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    let error = proven.committees(true).await.unwrap_err().to_string();
    assert!(error.contains("forged"), "{error}");
    world.nodes[0].faults().clear();

    world.devnet.begin_walrus_epoch().unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    let view = chain.committees(true).await.unwrap();
    assert_eq!(view.epoch, 2);
    assert!(view.is_changing());
    assert_eq!(view.previous.as_ref().map(|committee| committee.epoch), Some(1));
    assert_eq!(Some(&view), world.devnet.committees().as_ref());
    world.devnet.finish_walrus_epoch().unwrap();
    let view = SuiChain::new(&world.network()).committees(false).await.unwrap();
    assert!(matches!(view.state, EpochState::ChangeDone(_)));
}

#[tokio::test]
async fn an_archive_is_published_and_proven_from_the_first_checkpoint_on() {
    for artifacts in [true, false] {
        let world = World::new(1, artifacts).await;
        let registrar = world.registrar();
        let archive = archive(&world, &registrar).await;
        let tracker = world.tracker(&world.network(), archive.id).await;
        assert_eq!(tracker.poll().await.unwrap().state.sequence, 0);

        let registered = publish(&registrar, &archive, 0, 1).await;
        let proven = tracker.poll().await.unwrap();
        assert_eq!(proven.state.sequence, 1);
        assert_eq!(proven.state.levels[0].root(), [1; 32]);
        assert_eq!(proven.state.levels[0].index_blob, registration(1).blob);
        assert_eq!(proven.state.levels[0].blob_object, registered.object);
        let tree = matches!(proven.proof.evidence(), haulout_sui::proof::Evidence::Tree { .. });
        assert_eq!(tree, artifacts);

        // Days pass, validators change, and it goes on.
        for _ in 0..3 {
            world.devnet.end_sui_epoch();
        }
        publish(&registrar, &archive, 1, 2).await;
        beat(&registrar, &archive, 2).await;
        let proven = tracker.poll().await.unwrap();
        assert_eq!((proven.state.sequence, proven.epoch), (3, 3));
        assert_eq!(proven.state.levels.len(), 2);

        // Somebody who was faster is noticed.
        let ids = (archive.id, archive.publisher);
        let late = run(&registrar, "late", vec![(ids.0, true), (ids.1, false)], &|ptb| {
            ptb.archive_beat(archive.package, (0, 1), 2)
        })
        .await;
        let error = late.unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("code 4"), "{source}");
    }
}

#[tokio::test]
async fn a_lying_node_is_refused_and_an_honest_one_is_enough() {
    let world = World::new(2, true).await;
    let registrar = world.registrar();
    let archive = archive(&world, &registrar).await;
    publish(&registrar, &archive, 0, 1).await;
    let old = world.devnet.height();
    beat(&registrar, &archive, 1).await;
    let both = world.network();
    let liar = Network { rpc_urls: vec![world.nodes[0].url()], ..both.clone() };

    type Lie = fn(&mut FaultState);
    let lies: [(Lie, &str); 7] = [
        (|f| f.forged_object = true, "forged"),
        (|f| f.wrong_version = true, "forged"),
        (|f| f.wrong_owner = true, "forged"),
        (|f| f.other_object = true, "instead of"),
        (|f| f.bad_signature = true, "forged"),
        (
            |f| {
                f.truncated_proof = true;
                f.no_proofs = true
            },
            "not that of checkpoint",
        ),
        (|f| f.gone = true, "Unavailable"),
    ];
    for no_proofs in [false, true] {
        for (lie, words) in lies {
            let faults = world.nodes[0].faults();
            faults.clear();
            // The trust is had before the lies begin; without it nothing is believed anyway.
            let alone = world.tracker(&liar, archive.id).await;
            alone.poll().await.unwrap();
            beat(&registrar, &archive, alone.newest().unwrap().state.sequence).await;
            faults.set(|faults| faults.no_proofs = no_proofs);
            faults.set(lie);
            let error = alone.poll().await.unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
            let with_honest = world.tracker(&both, archive.id).await;
            let proven = with_honest.poll().await.unwrap();
            assert_eq!(proven.state.sequence, alone.newest().unwrap().state.sequence + 1);
        }
    }

    // Held at an old state: no error, but nothing older than what was seen is believed.
    world.nodes[0].faults().clear();
    let seen = world.tracker(&both, archive.id).await;
    let newest = seen.poll().await.unwrap();
    world.nodes[0].faults().set(|faults| faults.stale_at = Some(old));
    let held = world.tracker(&liar, archive.id).await;
    let stale = held.poll().await.unwrap();
    assert_eq!(stale.state.sequence, 1);
    let document = held.document_for(Some(0)).await.unwrap();
    let error = seen.offer(&document).await.unwrap_err();
    assert!(matches!(error, ArchiveError::RolledBack { .. }), "{error}");
    assert!(held.offer(&seen.document_for(Some(0)).await.unwrap()).await.unwrap());
    assert_eq!(held.newest().unwrap().state, newest.state);
}

#[tokio::test]
async fn a_fork_with_a_foreign_committee_is_refused() {
    let world = World::new(1, true).await;
    let fork = world.devnet.fork([66; 32]);
    let node = fork.serve(LOOPBACK.parse().unwrap()).await.unwrap();
    let network = Network { rpc_urls: vec![node.url()], ..world.network() };
    let system = shared(network.system_object, None, "system", "System");
    let prover = Prover::new(&network, None).unwrap();
    let error = prover.newest(&system, None).await.unwrap_err();
    assert!(matches!(error, ProveError::Rpc(_)), "{error}");
    // With the real chain's committee pinned, it is the signatures that give it away.
    let path = world.state.path().join("committee.bcs");
    let committee = world.devnet.validators(0).unwrap();
    std::fs::write(&path, bcs::to_bytes(&committee).unwrap()).unwrap();
    let network = Network { trust_anchor: Some(TrustAnchor::Committee(path)), ..network };
    let prover = Prover::new(&network, None).unwrap();
    let error = prover.newest(&system, None).await.unwrap_err().to_string();
    assert!(error.contains("no quorum of the committee"), "{error}");
    // The same question to the real chain.
    let network = Network { rpc_urls: vec![world.nodes[0].url()], ..network };
    let prover = Prover::new(&network, None).unwrap();
    assert!(prover.newest(&system, None).await.unwrap().is_some());
}

#[tokio::test]
async fn the_wal_package_is_found_on_the_chain() {
    let world = World::new(1, true).await;
    let network = world.network();
    assert_eq!(network.wal_package, None);
    // Registering needs WAL, hence the package.
    let registrar = world.registrar();
    registrar.register(&registration(9)).await.unwrap();
    let account = address(registrar.wallet().account());
    assert_eq!(registrar.wallet().chain().blobs_of(&account).await.unwrap().len(), 1);
}
