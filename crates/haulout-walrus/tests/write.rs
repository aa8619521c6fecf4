//! Writing to nodes that are honest, slow to see the chain, leaky, lying or down.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use haulout_walrus::{ReadOptions, StoreOptions, WriteError};
use redstuff::EncodedBlob;
use support::{
    recorded::plaintext,
    store::{Fault, Fleet},
};

fn encoded(fleet: &Fleet, length: usize) -> Arc<EncodedBlob> {
    Arc::new(fleet.n.encode(plaintext("write", length)).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_can_be_read() {
    let fleet = Fleet::start(10, 5).await;
    for deletable in [false, true] {
        let blob = encoded(&fleet, 40_000 + usize::from(deletable));
        let options = StoreOptions { deletable, ..StoreOptions::permanent(3) };
        let stored = fleet.client().store(&*fleet.chain, blob.clone(), &options).await.unwrap();
        assert_eq!((stored.blob, stored.registered.deletable), (*blob.metadata().id(), deletable));
        assert!(stored.confirmed_shards >= 7);
        let read = fleet.client().read(&stored.blob, &ReadOptions::default()).await.unwrap();
        assert_eq!(read.0, &blob.blob()[..]);
    }
    assert_eq!(fleet.chain.count("register"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_is_enough_and_less_is_an_error() {
    let mut fleet = Fleet::start(10, 10).await;
    for i in 0..3 {
        fleet.servers[i] = None;
    }
    let options = StoreOptions::permanent(1);
    let stored = fleet.client().store(&*fleet.chain, encoded(&fleet, 5000), &options).await;
    assert_eq!(stored.unwrap().confirmed_shards, 7);
    // Signatures by other keys do not count, and say so.
    fleet.set(9, Fault::FalseSignature);
    let error = fleet.client().store(&*fleet.chain, encoded(&fleet, 6000), &options).await;
    let error = error.unwrap_err();
    assert!(matches!(error, WriteError::NoCertificate { reached: 6, needed: 7, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slivers_that_a_node_lost_are_sent_again() {
    let fleet = Fleet::start(7, 7).await;
    for node in 0..4 {
        fleet.set(node, Fault::Leaky);
    }
    let options = StoreOptions::permanent(1);
    let stored = fleet.client().store(&*fleet.chain, encoded(&fleet, 3000), &options).await;
    assert!(stored.unwrap().confirmed_shards >= 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_write_goes_on_and_pays_once() {
    let fleet = Fleet::start(10, 5).await;
    let place = tempfile::tempdir().unwrap();
    let journal = place.path().join("write.json");
    let options = StoreOptions { journal: Some(journal.clone()), ..StoreOptions::permanent(5) };
    let blob = encoded(&fleet, 80_000);
    // Killed at its first, second, ... upload: the future is dropped in the middle.
    for kill_after in [1, 20, 25] {
        let client = fleet.client();
        let mut writing = Box::pin(client.store(&*fleet.chain, blob.clone(), &options));
        let before = puts(&fleet);
        loop {
            tokio::select! {
                done = &mut writing => {
                    done.unwrap();
                    break;
                }
                () = tokio::time::sleep(std::time::Duration::from_millis(1)) => {
                    if puts(&fleet) >= before + kill_after {
                        break;
                    }
                }
            }
        }
    }
    let stored = fleet.client().store(&*fleet.chain, blob.clone(), &options).await.unwrap();
    assert_eq!(fleet.chain.count("register"), 1);
    // A finished write is not repeated at all.
    let before = puts(&fleet);
    let again = fleet.client().store(&*fleet.chain, blob.clone(), &options).await.unwrap();
    assert_eq!((again.certified, puts(&fleet)), (stored.certified, before));
    // The journal belongs to its blob.
    let other = fleet.client().store(&*fleet.chain, encoded(&fleet, 9), &options).await;
    assert!(matches!(other, Err(WriteError::Journal(_))));
    std::fs::write(journal, b"{").unwrap();
    let broken = fleet.client().store(&*fleet.chain, blob, &options).await.unwrap_err();
    assert!(broken.to_string().contains("is not a journal"), "{broken}");
}

fn puts(fleet: &Fleet) -> usize {
    let count = |node: &Arc<support::store::NodeState>| {
        node.asked.lock().unwrap().iter().filter(|(method, _)| method == "PUT").count()
    };
    fleet.nodes.iter().map(count).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_is_not_paid_for_or_certified_again() {
    let fleet = Fleet::start(7, 7).await;
    let options = StoreOptions::permanent(1);
    let store =
        async || fleet.client().store(&*fleet.chain, encoded(&fleet, 100), &options).await.unwrap();
    let first = store().await;
    let before = puts(&fleet);
    let again = store().await;
    assert_eq!((fleet.chain.count("register"), fleet.chain.count("certify")), (1, 1));
    assert_eq!((again.registered.object, puts(&fleet)), (first.registered.object, before));
    assert_eq!((again.certified.epoch, again.certified.transaction.as_str()), (1, ""));

    // Killed after it was certified, before that was noted: the chain knows.
    let place = tempfile::tempdir().unwrap();
    let journal = place.path().join("write.json");
    let options = StoreOptions { journal: Some(journal.clone()), ..StoreOptions::permanent(1) };
    let blob = encoded(&fleet, 200);
    fleet.client().store(&*fleet.chain, blob.clone(), &options).await.unwrap();
    let text = std::fs::read_to_string(&journal).unwrap();
    let mut noted: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(noted.as_object_mut().unwrap().remove("certified").is_some());
    std::fs::write(&journal, noted.to_string()).unwrap();
    fleet.client().store(&*fleet.chain, blob, &options).await.unwrap();
    assert_eq!((fleet.chain.count("register"), fleet.chain.count("certify")), (2, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_epoch_change_before_certification_means_new_confirmations() {
    let fleet = Fleet::start(7, 7).await;
    *fleet.chain.refuse.lock().unwrap() = 1;
    let options = StoreOptions::permanent(1);
    fleet.client().store(&*fleet.chain, encoded(&fleet, 100), &options).await.unwrap();
    assert_eq!(fleet.chain.count("certify"), 2);
    let other = redstuff::ShardCount::new(10).unwrap().encode(&b"x"[..]).unwrap();
    let error = fleet.client().store(&*fleet.chain, Arc::new(other), &options).await.unwrap_err();
    assert!(matches!(error, WriteError::OtherNetwork { .. }));
}
