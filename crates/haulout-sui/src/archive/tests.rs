use std::{path::Path, sync::Arc, time::Duration};

use sui_sdk_types::Owner;

use super::*;
use crate::{
    ObjectId,
    network::TrustAnchor,
    proof::{
        ObjectProof, ProofError,
        testing::{Chain, PACKAGE, move_object},
    },
    prover::{ProveError, Prover},
    testing_node::{Ledger, Server, network},
};

const ID: ObjectId = ObjectId([0x42; 32]);
/// Nothing listens here: port 9 is discard.
const NOBODY: &str = "http://127.0.0.1:9";

fn state(sequence: u64) -> ArchiveState {
    ArchiveState {
        id: ID,
        sequence,
        updated_ms: 1_700_000_000_000 + sequence,
        levels: vec![Level {
            root: vec![7; 32],
            leaves: 3,
            index_blob: redstuff::BlobId([8; 32]),
            blob_object: ObjectId([9; 32]),
            index_size: 1000,
            end_epoch: 50,
        }],
        publishers: vec![ObjectId([10; 32])],
        frozen: false,
        store_dir: "/nix/store".to_owned(),
        name: "test".to_owned(),
    }
}

fn write(chain: &mut Chain, version: u64, sequence: u64, tree: bool) -> ObjectProof {
    let contents = bcs::to_bytes(&state(sequence)).unwrap();
    let object = move_object(("archive", "Archive"), version, contents, Owner::Shared(1));
    chain.write(&object, tree)
}

/// A committee file of the chain's first committee.
fn anchor(chain: &Chain, directory: &Path) -> TrustAnchor {
    let path = directory.join("committee.bcs");
    std::fs::write(&path, bcs::to_bytes(&chain.anchor).unwrap()).unwrap();
    TrustAnchor::Committee(path)
}

async fn tracker(urls: &[&str], anchor: TrustAnchor, state: Option<&Path>) -> ArchiveTracker {
    let prover = Prover::new(&network(urls, Some(anchor)), state).unwrap();
    ArchiveTracker::open(Arc::new(prover), ID, Some(PACKAGE), state).await.unwrap()
}

#[tokio::test]
async fn an_archive_is_followed_over_epochs_in_both_ways() {
    for tree in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let mut chain = Chain::new(500, 4);
        let anchor = anchor(&chain, directory.path());
        let mut ledger = Ledger::default();
        ledger.add_end(&chain.next_epoch());
        ledger.add_end(&chain.next_epoch());
        ledger.add_proof(&write(&mut chain, 7, 1, tree));
        let (server, url) = Server::start(ledger).await;

        let tracker = tracker(&[&url], anchor.clone(), Some(directory.path())).await;
        let mut news = tracker.subscribe();
        let proven = tracker.poll().await.unwrap();
        assert_eq!((proven.state.sequence, proven.epoch), (1, 502));
        assert!(news.has_changed().unwrap());
        news.mark_unchanged();
        // Nothing new costs one small question and no news.
        assert_eq!(tracker.poll().await.unwrap(), proven);
        assert!(!news.has_changed().unwrap());

        let end = chain.next_epoch();
        let next = write(&mut chain, 9, 2, tree);
        server.change(|ledger| {
            ledger.add_end(&end);
            ledger.add_proof(&next);
        });
        assert_eq!(tracker.poll().await.unwrap().state, state(2));
        assert_eq!(news.borrow_and_update().as_ref().unwrap().state, state(2));
        let asked = server.0.lock().unwrap().proof_requests;
        assert_eq!(asked, if tree { 2 } else { 1 }, "who has no proofs is asked once");
    }
}

#[tokio::test]
async fn what_was_proven_survives_the_process_and_needs_no_network() {
    let directory = tempfile::tempdir().unwrap();
    let mut chain = Chain::new(500, 4);
    let anchor = anchor(&chain, directory.path());
    let mut ledger = Ledger::default();
    ledger.add_end(&chain.next_epoch());
    let old = write(&mut chain, 6, 1, false);
    ledger.add_proof(&write(&mut chain, 7, 2, false));
    let (_, url) = Server::start(ledger).await;
    tracker(&[&url], anchor.clone(), Some(directory.path())).await.poll().await.unwrap();

    let again = tracker(&[NOBODY], anchor.clone(), Some(directory.path())).await;
    assert_eq!(again.newest().unwrap().state, state(2));
    let error = again.offer(&old.to_bytes().unwrap()).await.unwrap_err();
    assert!(matches!(
        error,
        ArchiveError::RolledBack { sequence: 1, seen_sequence: 2, version: 6, seen_version: 7, .. }
    ));

    // A node held back at the old state does not undo what was seen.
    let mut held = Ledger::default();
    held.add_end(&chain.ends[0]);
    held.add_proof(&old);
    let (_, held) = Server::start(held).await;
    let again = tracker(&[&held], anchor, Some(directory.path())).await;
    assert_eq!(again.poll().await.unwrap().state, state(2));
}

#[tokio::test]
async fn a_genuine_proof_with_a_lower_sequence_is_a_roll_back() {
    let mut chain = Chain::new(500, 4);
    let directory = tempfile::tempdir().unwrap();
    let anchor = anchor(&chain, directory.path());
    let tracker = tracker(&[NOBODY], anchor, None).await;
    let first = write(&mut chain, 7, 5, true).to_bytes().unwrap();
    assert!(tracker.offer(&first).await.unwrap());
    assert!(!tracker.offer(&first).await.unwrap(), "known");
    // A later version that goes back in sequence: no honest contract does that.
    let back = write(&mut chain, 8, 4, true).to_bytes().unwrap();
    let error = tracker.offer(&back).await.unwrap_err();
    assert!(matches!(error, ArchiveError::RolledBack { sequence: 4, seen_sequence: 5, .. }));
    // A change that is no update, such as a revoked publisher, keeps the sequence.
    let same = write(&mut chain, 8, 5, true).to_bytes().unwrap();
    assert!(tracker.offer(&same).await.unwrap());
}

#[tokio::test]
async fn one_honest_node_is_enough() {
    let directory = tempfile::tempdir().unwrap();
    let mut chain = Chain::new(500, 4);
    let anchor = anchor(&chain, directory.path());
    let old = write(&mut chain, 7, 1, false);
    let new = write(&mut chain, 9, 2, false);

    // One is held back, one forges a newer state, one is of a foreign chain.
    let mut held = Ledger::default();
    held.add_proof(&old);
    let mut forger = Ledger::default();
    forger.add_proof(&new);
    let forged = bcs::to_bytes(&state(99)).unwrap();
    let forged = move_object(("archive", "Archive"), 9, forged, Owner::Shared(1));
    forger.add_object(&bcs::to_bytes(&forged).unwrap());
    let mut stranger = Chain::new(500, 4);
    stranger.validators = crate::proof::testing::Validators::new(500, 4, 77);
    let mut foreign = Ledger::default();
    foreign.add_proof(&write(&mut stranger, 12, 100, false));
    let mut honest = Ledger::default();
    honest.add_proof(&new);

    let (_, held) = Server::start(held).await;
    let (_, forger) = Server::start(forger).await;
    let (_, foreign) = Server::start(foreign).await;
    let (_, honest) = Server::start(honest).await;
    let urls = [NOBODY, &held, &forger, &foreign, &honest];
    let all = tracker(&urls, anchor.clone(), None).await;
    assert_eq!(all.poll().await.unwrap().state, state(2));

    // Without the honest one, each says what is wrong.
    let bad = tracker(&[NOBODY, &forger, &foreign], anchor, None).await;
    let error = bad.poll().await.unwrap_err().to_string();
    assert!(error.contains("is forged: its bytes are not"), "{error}");
    assert!(error.contains("no quorum of the committee"), "{error}");
}

#[tokio::test]
async fn a_machine_without_any_network_verifies_what_a_neighbour_hands_over() {
    for by_digest in [false, true] {
        let mut chain = Chain::new(500, 4);
        let first = chain.next_epoch();
        let directory = tempfile::tempdir().unwrap();
        let anchor = if by_digest {
            TrustAnchor::Checkpoint(first.summary().digest().into_inner())
        } else {
            anchor(&chain, directory.path())
        };
        let mut ledger = Ledger::default();
        ledger.add_end(&first);
        for _ in 0..3 {
            ledger.add_end(&chain.next_epoch());
        }
        ledger.add_proof(&write(&mut chain, 7, 2, false));
        let (_, url) = Server::start(ledger).await;
        let neighbour = tracker(&[&url], anchor.clone(), Some(directory.path())).await;
        neighbour.poll().await.unwrap();
        // After a restart, too.
        let neighbour = tracker(&[NOBODY], anchor.clone(), Some(directory.path())).await;

        let alone = tempfile::tempdir().unwrap();
        let cut_off = tracker(&[NOBODY], anchor, Some(alone.path())).await;
        let epoch = if by_digest { None } else { Some(500) };
        let document = neighbour.document_for(epoch).await.unwrap();
        assert!(cut_off.offer(&document).await.unwrap());
        assert_eq!(cut_off.newest().unwrap().state, state(2));
        // And it can help the next one.
        assert_eq!(cut_off.document_for(epoch).await, Some(document));
        // With a bare proof and nothing to start from there is no way.
        if by_digest {
            let bare = neighbour.document_for(Some(504)).await.unwrap();
            let anchor = TrustAnchor::Checkpoint(first.summary().digest().into_inner());
            let other = tracker(&[NOBODY], anchor, None).await;
            let error = other.offer(&bare).await.unwrap_err();
            assert!(matches!(error, ArchiveError::Prove(ProveError::Rpc(_))), "{error}");
        }
    }
}

#[tokio::test]
async fn offered_bytes_that_prove_something_else_change_nothing() {
    let mut chain = Chain::new(500, 4);
    let directory = tempfile::tempdir().unwrap();
    let anchor = anchor(&chain, directory.path());
    let tracker = tracker(&[NOBODY], anchor, None).await;
    let contents = bcs::to_bytes(&state(1)).unwrap();
    let of = |name, contents: &[u8]| {
        move_object(("archive", name), 7, contents.to_vec(), Owner::Shared(1))
    };
    let wrong_type = chain.write(&of("Archives", &contents), false);
    let mut other = state(1);
    other.id = ObjectId([1; 32]);
    let foreign = chain.write(&of("Archive", &bcs::to_bytes(&other).unwrap()), false);
    for (proof, words) in [(wrong_type, "has the type"), (foreign, "foreign object")] {
        let error = tracker.offer(&proof.to_bytes().unwrap()).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    // Proven, of the right type, but not what this program reads.
    let later = chain.write(&of("Archive", &[&contents[..], &[0]].concat()), false);
    let error = tracker.offer(&later.to_bytes().unwrap()).await.unwrap_err();
    assert!(matches!(error, ArchiveError::State(StateError::Layout(_))), "{error}");
    let error = tracker.offer(b"hello").await.unwrap_err();
    assert!(matches!(
        error,
        ArchiveError::Prove(ProveError::Proof(ProofError::Truncated(_) | ProofError::NotAProof))
    ));
    assert_eq!(tracker.newest(), None);
}

#[test]
fn silence_shows() {
    let mut chain = Chain::new(500, 4);
    let proof = write(&mut chain, 7, 1, false);
    let expected = crate::prover::shared(ID, None, "archive", "Archive");
    let verified = proof.verify(&mut chain.trust(), &expected).unwrap();
    let mut proven = Proven {
        state: state(1),
        version: 7,
        checkpoint: verified.checkpoint,
        epoch: 500,
        timestamp_ms: 1_700_000_000_500,
        proof,
    };
    let beat = Beat { every: Duration::from_secs(3600), tolerated: 3 };
    let updated = proven.state.updated_ms;
    let hour = 3_600_000;
    assert_eq!(proven.freshness(updated, beat), Freshness::Fresh);
    assert_eq!(proven.freshness(updated + 4 * hour - 1, beat), Freshness::Fresh);
    assert!(matches!(
        proven.freshness(updated + 4 * hour, beat),
        Freshness::Stale { missed: 4, .. }
    ));
    let error = proven.check_fresh(updated + 5 * hour, beat).unwrap_err();
    assert!(matches!(error, ArchiveError::Stale { missed: 5, behind_s: 18_000, .. }), "{error}");
    assert!(matches!(proven.freshness(0, beat), Freshness::ClockBehind { .. }));
    proven.state.frozen = true;
    assert_eq!(proven.freshness(updated + 9 * hour, beat), Freshness::Fresh);
    proven.check_fresh(updated + 9 * hour, beat).unwrap();
}

#[test]
fn archives_beyond_the_contracts_limits_are_refused() {
    let good = state(1);
    assert_eq!(ArchiveState::read(&bcs::to_bytes(&good).unwrap()).unwrap(), good);
    let refused = |change: &dyn Fn(&mut ArchiveState)| {
        let mut bad = good.clone();
        change(&mut bad);
        ArchiveState::read(&bcs::to_bytes(&bad).unwrap()).unwrap_err().to_string()
    };
    assert!(refused(&|s| s.levels = vec![s.levels[0].clone(); 9]).contains("9 levels"));
    assert!(refused(&|s| s.levels[0].root = vec![1; 31]).contains("root of 31 bytes"));
    assert!(refused(&|s| s.store_dir = "nix/store".into()).contains("absolute path"));
    assert!(refused(&|s| s.store_dir = "/nix\n/store".into()).contains("absolute path"));
    assert!(refused(&|s| s.name = "x".repeat(129)).contains("name of 129"));
}

#[test]
fn without_an_anchor_nothing_is_proven() {
    let error = Prover::new(&network(&[NOBODY], None), None).unwrap_err();
    assert!(matches!(error, ProveError::NoAnchor(_)), "{error}");
}
