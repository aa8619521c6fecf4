//! This project's wallet against the node: store a blob, publish the contract, make an archive,
//! certify and update in one transaction, prove the result.

use super::{proofs::configured, walrus::*, *};
use crate::{
    storage::NodeChain,
    sui::{Devnet, FullNode},
};
use haulout_sui::{
    ObjectId as Id,
    archive::ArchiveTracker,
    chain::SuiChain,
    object_id::object_id,
    prover::Prover,
    tx::{Certification, Request, Signer, SuiRegistrar, Update, Wallet},
};
use haulout_walrus::{Registrar, Registration};
use redstuff::{Digest as Hash, messages::ConfirmationCertificate};

async fn network() -> (Devnet, FullNode) {
    let account = user().public_key().derive_address();
    let setup = Setup { seed: [3; 32], accounts: vec![account], ..Setup::default() };
    let devnet = Devnet::new(&setup, &committee(), || NOW);
    let node = devnet.serve(([127, 0, 0, 1], 0).into()).await.unwrap();
    (devnet, node)
}

fn wallet(devnet: &Devnet, node: &FullNode) -> Arc<Wallet> {
    let chain = Arc::new(SuiChain::new(&configured(devnet, &[node])));
    let signer = Signer::from_key(user());
    Arc::new(Wallet::new(chain, signer, None, Arc::new(|_| true)))
}

fn registration() -> Registration {
    Registration {
        blob: blob_id(),
        root_hash: Hash::new(root()),
        unencoded_length: SIZE,
        encoded_length: encoded(),
        epochs: 5,
        deletable: false,
    }
}

#[tokio::test]
async fn a_blob_is_registered_and_certified() {
    let (devnet, node) = network().await;
    let registrar = SuiRegistrar::new(wallet(&devnet, &node));
    let registered = registrar.register(&registration()).await.unwrap();
    assert_eq!((registered.epoch, registered.end_epoch), (1, 6));
    // What storage nodes see.
    assert!(devnet.blob(&blob_id()).unwrap().is_registered(1));
    let again = registrar.existing(&registration()).await.unwrap().unwrap();
    assert_eq!(again.object, registered.object);

    let cert = certificate(&[1, 2, 3], 1, None);
    let confirmations = ConfirmationCertificate {
        signers: vec![1, 2, 3],
        message: cert.message.clone(),
        signature: cert.signature,
    };
    let certified =
        registrar.certify(registered.object, &confirmations, &cert.bitmap).await.unwrap();
    assert_eq!(certified.epoch, 1);
    assert_eq!(devnet.blob(&blob_id()).unwrap().objects[0].certified_epoch, Some(1));
    // A second time the contract refuses, and says so.
    registrar.certify(registered.object, &confirmations, &cert.bitmap).await.unwrap_err();
}

#[tokio::test]
async fn an_archive_is_published_updated_and_proven() {
    let (devnet, node) = network().await;
    let wallet = wallet(&devnet, &node);
    let registrar = SuiRegistrar::new(Arc::clone(&wallet));
    let module = haulout_archive::contract::module_for(&devnet.walrus_package().into_inner());
    let dependencies = [
        object_id(Address::from_static("0x1")),
        object_id(Address::TWO),
        object_id(devnet.current_walrus_package()),
        object_id(devnet.wal_package()),
    ];
    let request = |purpose: &str| (purpose.to_owned(), 0, Vec::new());
    let (purpose, wal, objects) = request("publish");
    let build = &|ptb: &mut haulout_sui::tx::Ptb<'_>| {
        ptb.publish(vec![module.clone()], &dependencies, true)
    };
    let published = wallet.run(&Request { purpose, wal, objects, build }).await.unwrap();
    let package = published.package().unwrap();
    let (purpose, wal, objects) = request("create");
    let build =
        &|ptb: &mut haulout_sui::tx::Ptb<'_>| ptb.archive_create(package, "/nix/store", "test");
    let made = wallet.run(&Request { purpose, wal, objects, build }).await.unwrap();
    let id = |name: &str| -> Id {
        object_id(made.created_of("archive", name).next().unwrap().object_id())
    };
    let (archive, cap) = (id("Archive"), id("PublisherCap"));

    let blob = registrar.register(&registration()).await.unwrap().object;
    let cert = certificate(&[1, 2, 3], 1, None);
    let with = Certification {
        blob,
        signature: cert.signature.to_vec(),
        bitmap: cert.bitmap,
        message: cert.message,
    };
    let update =
        Update { expected: 0, root: [5; 32], leaves: 10, end_epoch: 6, keep: vec![], place: 0 };
    registrar.certify_and_update(package, (archive, cap), &with, &update).await.unwrap();

    let prover = Prover::new(&configured(&devnet, &[&node]), None).unwrap();
    let tracker =
        ArchiveTracker::open(Arc::new(prover), archive, Some(package), None).await.unwrap();
    let proven = tracker.poll().await.unwrap();
    assert_eq!(proven.state.sequence, 1);
    assert_eq!(proven.state.levels.len(), 1);
    assert_eq!(proven.state.levels[0].index_blob, blob_id());
}
