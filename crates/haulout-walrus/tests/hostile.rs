//! Nodes that lie, stall, flood or forget: never a wrong byte, never a hang, and the blob is read
//! as long as enough honest nodes are there.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use haulout_walrus::{Client, ReadError, ReadOptions, StaticChain};
use redstuff::Consistency;
use support::{
    Identity, Server,
    recorded::plaintext,
    store::{Fault, Fleet},
};

const FAULTS: [Fault; 9] = [
    Fault::FalseSlivers,
    Fault::FalseMetadata,
    Fault::OtherNetwork,
    Fault::Silent,
    Fault::Trickle,
    Fault::HugeErrors,
    Fault::Endless,
    Fault::Busy,
    Fault::WrongShard,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_of_the_nodes_may_do_anything() {
    let fleet = Fleet::start(10, 10).await;
    let blob = plaintext("hostile", 50_000);
    let id = fleet.put(&blob);
    for fault in FAULTS {
        for node in 0..10 {
            fleet.set(node, if node % 3 == 1 { fault } else { Fault::None });
        }
        let options = ReadOptions { consistency: Consistency::Strict, ..ReadOptions::default() };
        let (bytes, report) = fleet.client().read(&id, &options).await.unwrap();
        assert_eq!(bytes, blob, "{fault:?}");
        if matches!(fault, Fault::FalseSlivers | Fault::Endless) {
            assert!(!report.liars.is_empty(), "{fault:?}: {report:?}");
        }
        let range = fleet.client().read_range(&id, 20_000..30_000, &options).await.unwrap();
        assert_eq!(range.0, blob[20_000..30_000], "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_whose_node_is_gone_is_rebuilt_from_symbols() {
    let fleet = Fleet::start(10, 10).await;
    let blob = plaintext("hostile", 50_000);
    let id = fleet.put(&blob);
    let committee = fleet.chain.view.lock().unwrap().current.clone();
    let owner = committee.owner_of_pair(&id, redstuff::PairIndex(1)).unwrap();
    fleet.set(owner, Fault::Forgetful);
    // 4 rows of 12,502 bytes; this is in the second.
    let read = fleet.client().read_range(&id, 14_000..15_000, &ReadOptions::default()).await;
    let (bytes, report) = read.unwrap();
    assert_eq!(bytes, blob[14_000..15_000]);
    assert_eq!((report.recovered, report.slivers), (1, 0), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_known_hash_spares_the_other_checks_until_it_fails() {
    let fleet = Fleet::start(10, 10).await;
    let blob = plaintext("hostile", 50_000);
    let id = fleet.put(&blob);
    let part = blob[14_000..30_000].to_vec();
    let content: haulout_walrus::ContentCheck = Arc::new(move |bytes| bytes == part);
    let options = ReadOptions { content: Some(content), ..ReadOptions::default() };
    let (bytes, report) = fleet.client().read_range(&id, 14_000..30_000, &options).await.unwrap();
    assert_eq!((bytes == blob[14_000..30_000], report.slivers), (true, 2));
    let committee = fleet.chain.view.lock().unwrap().current.clone();
    let owner = committee.owner_of_pair(&id, redstuff::PairIndex(2)).unwrap();
    fleet.set(owner, Fault::FalseSlivers);
    let (bytes, report) = fleet.client().read_range(&id, 14_000..30_000, &options).await.unwrap();
    assert_eq!(bytes, blob[14_000..30_000]);
    assert!(report.liars.contains(&committee.members[owner].node_id));
    // Bytes that nobody can give are an error, not an excuse.
    let never: haulout_walrus::ContentCheck = Arc::new(|_| false);
    let options = ReadOptions { content: Some(never), ..ReadOptions::default() };
    let error = fleet.client().read_range(&id, 0..10, &options).await.unwrap_err();
    assert!(matches!(error, ReadError::Content(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_nobody_honest_the_error_names_the_liars() {
    let fleet = Fleet::start(7, 7).await;
    let id = fleet.put(&plaintext("hostile", 5_000));
    for node in 0..7 {
        fleet.set(node, Fault::FalseSlivers);
    }
    let error = fleet.client().read(&id, &ReadOptions::default()).await.unwrap_err();
    let ReadError::TooFew { found: 0, account, .. } = &error else { panic!("{error}") };
    assert!(!account.liars.is_empty());
    assert!(error.to_string().contains("answered falsely"), "{error}");
    for node in 0..7 {
        fleet.set(node, Fault::FalseMetadata);
    }
    let error = fleet.client().read(&id, &ReadOptions::default()).await.unwrap_err();
    assert!(matches!(error, ReadError::NoMetadata { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_key_on_chain_is_believed() {
    let fleet = Fleet::start(4, 4).await;
    let id = fleet.put(b"secret of nobody");
    let mut committee = fleet.chain.view.lock().unwrap().current.clone();
    for node in &mut committee.members {
        node.network_public_key = Identity::generate().public;
    }
    let client = Client::new(Arc::new(StaticChain::new(committee)));
    let error = client.read(&id, &ReadOptions::default()).await.unwrap_err();
    let ReadError::NoMetadata { account, .. } = &error else { panic!("{error}") };
    assert!(account.to_string().contains("cannot be reached"), "{account}");
    // Nothing was asked over a connection that was not the node's.
    assert!(fleet.nodes.iter().all(|node| node.asked.lock().unwrap().is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_http2_is_an_error_not_a_hang() {
    let identity = Identity::with_protocols(&[b"http/1.1"]);
    let handler: support::Handler = Arc::new(|_| Box::pin(std::future::pending()));
    let server = Server::start_as(&identity, handler).await;
    let node = server.node(1, [0; 48], &[0, 1, 2, 3]);
    let client = haulout_walrus::NodeClient::new(&node).unwrap();
    let error = client.health().await.unwrap_err();
    assert_eq!(error.verdict(), haulout_walrus::Verdict::Unreachable, "{error}");
}

/// Whoever reads or writes from a task of a runtime needs futures that can move between threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_and_writing_can_be_spawned() {
    let fleet = Fleet::start(4, 4).await;
    let blob = Arc::new(fleet.n.encode(plaintext("spawn", 100)).unwrap());
    let (client, chain) = (fleet.client(), fleet.chain.clone());
    let (of, id) = (blob.clone(), *blob.metadata().id());
    let stored = tokio::spawn(async move {
        let options = haulout_walrus::StoreOptions::permanent(1);
        client.store(&*chain, of, &options).await.unwrap()
    });
    assert_eq!(stored.await.unwrap().blob, id);
    let client = fleet.client();
    let read = tokio::spawn(async move {
        let options = ReadOptions::default();
        client.metadata(&id).await.unwrap();
        let _ = client.status(&id).await;
        assert!(client.quilt_index(&id, &options).await.is_err());
        let part = client.read_range(&id, 10..20, &options).await.unwrap().0;
        (client.read(&id, &options).await.unwrap().0, part)
    });
    let (whole, part) = read.await.unwrap();
    assert_eq!((&whole[..], &part[..]), (&blob.blob()[..], &blob.blob()[10..20]));
}
