//! Proofs of archives between two agents.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use bytes::Bytes;
use haulout_mesh::{PROOF_BYTES_MAX, ProofQuestion, RequestError};
use support::*;

#[tokio::test]
async fn a_proof_travels_whole_and_only_when_it_is_newer() {
    let world = World::new([]);
    let a = start(config(1), &world).await;
    let b = start(with_peer(config(2), &a), &World::new([])).await;
    eventually("connected", || b.peers().iter().any(|peer| peer.holdings.is_some())).await;
    let question = ProofQuestion { archive: [7; 32], known: 0, epoch: None };
    let ask = |question| {
        let (b, a) = (b.clone(), a.id());
        async move { b.archive_proof(&a, question, SOON).await }
    };
    assert_eq!(ask(question).await, Err(RequestError::No), "nothing is known");

    // As long as one may be; then a byte more.
    let longest = Bytes::from(text(3, PROOF_BYTES_MAX));
    *world.proof.lock().unwrap() = Some(([7; 32], 5, longest.clone()));
    assert_eq!(ask(question).await.unwrap(), longest);
    assert_eq!(ask(ProofQuestion { known: 5, ..question }).await, Err(RequestError::No));
    assert_eq!(ask(ProofQuestion { archive: [8; 32], ..question }).await, Err(RequestError::No));
    let too_long = Bytes::from(text(3, PROOF_BYTES_MAX + 1));
    *world.proof.lock().unwrap() = Some(([7; 32], 6, too_long));
    assert_eq!(ask(question).await, Err(RequestError::No));
}
