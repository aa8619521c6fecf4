use prost::Message as _;
use sui_rpc::proto::sui::rpc::v2;
use sui_sdk_types::{
    CheckpointData, Object, Owner, SignedCheckpointSummary, ValidatorAggregatedSignature,
    ValidatorCommittee,
};

use super::{
    testing::{Chain, PACKAGE, Validators, account, move_object, plain_object, summary},
    *,
};
use crate::{
    ObjectId,
    object_id::{address, object_id},
    testing_exchanges as exchanges,
};

const ID: ObjectId = ObjectId([0x42; 32]);

fn expected() -> Expected {
    Expected {
        id: ID,
        type_: Some((Some(PACKAGE), "archive", "Archive")),
        owner: ExpectedOwner::SharedOrFrozen,
    }
}

fn object() -> Object {
    plain_object(0x42, 7, b"the archive".to_vec())
}

/// Through bytes, as a peer gets it.
fn travel(proof: &ObjectProof) -> ObjectProof {
    let bytes = proof.to_bytes().unwrap();
    let read = ObjectProof::from_bytes(&bytes).unwrap();
    assert_eq!(&read, proof);
    read
}

#[test]
fn both_kinds_of_proof_hold_for_small_and_large_committees() {
    for validators in [1, 4, 128] {
        for tree in [false, true] {
            let mut chain = Chain::new(500, validators);
            let proof = travel(&chain.write(&object(), tree));
            let verified = proof.verify(&mut chain.trust(), &expected()).unwrap();
            assert_eq!(verified.object, object());
            assert_eq!((verified.epoch, verified.checkpoint), (500, 500_001));
        }
    }
}

#[test]
fn the_ratchet_leads_from_the_readers_epoch_to_the_proofs() {
    let mut chain = Chain::new(500, 4);
    let mut old = chain.trust();
    for _ in 0..5 {
        chain.next_epoch();
    }
    let bare = chain.write(&object(), false);
    let error = bare.verify(&mut old, &expected()).unwrap_err();
    assert_eq!(error, ProofError::UnknownEpoch { epoch: 505, first: 500, last: 500 });

    let proof = travel(&bare.clone().with_ratchet(chain.ends.clone()));
    proof.verify(&mut old, &expected()).unwrap();
    assert_eq!(old.last_epoch(), 505);
    // Now it is known, the bare proof is enough, and the reader can help others.
    bare.verify(&mut old, &expected()).unwrap();
    let links = old.links_from(503).unwrap();
    assert_eq!(links.iter().map(|l| l.epoch()).collect::<Vec<_>>(), [503, 504]);
    assert_eq!(old.links_from(505), Some(Vec::new()));
    assert_eq!(old.links_from(506), None);
    assert_eq!(old.links_from(499), None);

    // A hole in the chain is a hole.
    let mut fresh = chain.trust();
    let holed = bare.with_ratchet(chain.ends[1..].to_vec());
    assert!(matches!(
        holed.verify(&mut fresh, &expected()),
        Err(ProofError::UnknownEpoch { epoch: 501, .. })
    ));
}

#[test]
fn a_foreign_committee_is_refused_at_each_link() {
    let mut chain = Chain::new(500, 4);
    let mut trust = chain.trust();
    let stranger = Validators::new(500, 4, 99);
    let signed = stranger.sign_by_quorum(chain.write(&object(), false).summary.checkpoint);
    let mut proof = chain.write(&object(), false);
    proof.summary = signed;
    assert!(matches!(proof.verify(&mut trust, &expected()), Err(ProofError::Forged { .. })));

    let end = chain.next_epoch();
    let signed = stranger.sign_by_quorum(end.summary().clone());
    let forged = EpochEnd::new(signed.checkpoint, signed.signature).unwrap();
    assert!(matches!(trust.advance(forged), Err(ProofError::Forged { epoch: 500, .. })));
    assert_eq!(trust.last_epoch(), 500, "nothing changed");
    assert_eq!(trust.advance(end.as_ref().clone()), Ok(true));
    assert_eq!(trust.advance(end.as_ref().clone()), Ok(false), "known already");
}

#[test]
fn a_signature_of_the_neighbouring_epoch_does_not_count() {
    // The same keys sit in epochs 500 and 501; who knows only 500 must not take their word
    // for 501, and the other way round.
    let validators = Validators::new(500, 4, 1);
    let trust = Trust::from_committee(validators.committee.clone()).unwrap();
    let mut signed = validators.sign_by_quorum(summary(501, 9));
    assert!(matches!(trust.verify_summary(&signed), Err(ProofError::UnknownEpoch { .. })));
    signed.checkpoint.epoch = 500;
    assert!(matches!(trust.verify_summary(&signed), Err(ProofError::Forged { .. })));
    let mut signed = validators.sign_by_quorum(summary(500, 9));
    trust.verify_summary(&signed).unwrap();
    signed.signature.epoch = 501;
    assert!(matches!(trust.verify_summary(&signed), Err(ProofError::Forged { .. })));
}

#[test]
fn a_minority_is_no_quorum() {
    let validators = Validators::new(1, 4, 1);
    let trust = Trust::from_committee(validators.committee.clone()).unwrap();
    let mut signed = validators.sign(summary(1, 5), 3);
    trust.verify_summary(&signed).unwrap();
    // A genuine signature by one of them, with a bitmap that says so.
    let alone = Validators::new(1, 1, 1).sign(summary(1, 5), 1);
    signed.signature = alone.signature;
    assert!(matches!(trust.verify_summary(&signed), Err(ProofError::Forged { .. })));
    // A bitmap that names members who do not exist.
    let mut bitmap = sui_sdk_types::Bitmap::new();
    bitmap.insert_range(0..u32::MAX);
    signed.signature.bitmap = bitmap;
    assert!(matches!(trust.verify_summary(&signed), Err(ProofError::Forged { .. })));
}

#[test]
fn every_forged_part_has_its_own_error() {
    let mut chain = Chain::new(500, 4);
    let mut trust = chain.trust();
    let mut refused =
        |proof: &ObjectProof| travel(proof).verify(&mut trust, &expected()).unwrap_err();

    let good = chain.write(&object(), false);
    let with = |evidence| ObjectProof { evidence, ..good.clone() };
    let Evidence::Effects { contents, effects_bytes, .. } = good.evidence.clone() else {
        panic!("an effects chain")
    };

    // The object's bytes.
    let other = bcs::to_bytes(&plain_object(0x42, 7, b"the archivE".to_vec())).unwrap();
    let forged = ObjectProof::new(other, good.summary.clone(), good.evidence.clone()).unwrap();
    assert_eq!(refused(&forged), ProofError::ObjectMismatch { id: ID });
    // Its version.
    let other = bcs::to_bytes(&plain_object(0x42, 8, b"the archive".to_vec())).unwrap();
    let forged = ObjectProof::new(other, good.summary.clone(), good.evidence.clone()).unwrap();
    assert_eq!(refused(&forged), ProofError::ObjectMismatch { id: ID });
    // An object the transaction did not write.
    let other = bcs::to_bytes(&plain_object(0x43, 7, Vec::new())).unwrap();
    let forged = ObjectProof::new(other, good.summary.clone(), good.evidence.clone()).unwrap();
    assert_eq!(refused(&forged), ProofError::NotWritten { id: ObjectId([0x43; 32]) });
    // The summary.
    let mut forged = good.clone();
    forged.summary.checkpoint.timestamp_ms += 1;
    assert!(matches!(refused(&forged), ProofError::Forged { sequence: 500_001, epoch: 500 }));
    // Contents of another checkpoint.
    let later = chain.write(&plain_object(0x42, 9, b"later".to_vec()), false);
    let Evidence::Effects { contents: others, effects_bytes: theirs, .. } = later.evidence else {
        panic!("an effects chain")
    };
    let forged = with(Evidence::effects(others, effects_bytes).unwrap());
    assert_eq!(refused(&forged), ProofError::ContentsMismatch { sequence: 500_001 });
    // Effects of another checkpoint.
    let forged = with(Evidence::effects(contents, theirs).unwrap());
    assert_eq!(refused(&forged), ProofError::EffectsNotInCheckpoint { sequence: 500_001 });

    // The tree: another place, another root, another path.
    let good = chain.write(&object(), true);
    let Evidence::Tree { leaf, root, path } = good.evidence.clone() else { panic!("a tree") };
    let trees = [
        Evidence::Tree { leaf: leaf ^ 1, root, path: path.clone() },
        Evidence::Tree { leaf, root: sui_sdk_types::Digest::ZERO, path: path.clone() },
        Evidence::Tree {
            leaf,
            root,
            path: sui_sdk_types::merkle::MerkleProof::new(path.path()[1..].to_vec()),
        },
    ];
    for evidence in trees {
        let forged = ObjectProof { evidence, ..good.clone() };
        assert!(matches!(refused(&forged), ProofError::NotInTree { id: ID, .. }));
    }
    // A chain that commits to no tree.
    let mut signed = good.clone();
    signed.summary.checkpoint.checkpoint_commitments.clear();
    signed.summary = chain.validators.sign_by_quorum(signed.summary.checkpoint);
    assert!(matches!(refused(&signed), ProofError::NotInTree { id: ID, .. }));
}

#[test]
fn a_genuine_proof_of_something_else_is_refused() {
    let mut chain = Chain::new(500, 4);
    let mut trust = chain.trust();
    let proof = chain.write(&object(), false);
    let mut refused =
        |proof: &ObjectProof, expected: &Expected| proof.verify(&mut trust, expected).unwrap_err();

    let foreign = Expected { id: ObjectId([1; 32]), ..expected() };
    assert_eq!(
        refused(&proof, &foreign),
        ProofError::ForeignObject { expected: ObjectId([1; 32]), found: ID }
    );
    for type_ in [
        (Some(ObjectId([1; 32])), "archive", "Archive"),
        (Some(PACKAGE), "archives", "Archive"),
        (None, "archive", "Archives"),
    ] {
        let expected = Expected { type_: Some(type_), ..expected() };
        assert!(matches!(refused(&proof, &expected), ProofError::WrongType { .. }));
    }
    proof
        .verify(
            &mut chain.trust(),
            &Expected { type_: Some((None, "archive", "Archive")), ..expected() },
        )
        .unwrap();

    let parent = ObjectId([3; 32]);
    let contents = [&ID.0[..], b"x"].concat();
    let of = |owner| move_object(("archive", "Archive"), 7, contents.clone(), owner);
    let owned = chain.write(&of(Owner::Address(account())), true);
    assert!(matches!(refused(&owned, &expected()), ProofError::WrongOwner { .. }));
    let child = chain.write(&of(Owner::Object(address(parent))), true);
    assert!(matches!(refused(&child, &expected()), ProofError::WrongOwner { .. }));
    let of_parent = Expected { owner: ExpectedOwner::Object(parent), ..expected() };
    child.verify(&mut chain.trust(), &of_parent).unwrap();
    let of_other = Expected { owner: ExpectedOwner::Object(ObjectId([4; 32])), ..expected() };
    assert!(matches!(refused(&child, &of_other), ProofError::WrongOwner { .. }));
    let frozen = chain.write(&of(Owner::Immutable), true);
    frozen.verify(&mut chain.trust(), &expected()).unwrap();
}

#[test]
fn no_prefix_of_a_document_is_a_document() {
    let mut chain = Chain::new(500, 4);
    chain.next_epoch();
    for tree in [false, true] {
        let proof = chain.write(&object(), tree).with_ratchet(chain.ends.clone());
        let bytes = proof.to_bytes().unwrap();
        for end in 0..bytes.len() {
            let error = ObjectProof::from_bytes(&bytes[..end]).unwrap_err();
            assert!(matches!(error, ProofError::Truncated(_)), "{end}: {error}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(ObjectProof::from_bytes(&longer), Err(ProofError::Trailing(1)));
    }
}

#[test]
fn documents_beyond_the_limits_are_refused_before_they_are_read() {
    let huge = vec![0; DOCUMENT_BYTES_MAX + 1];
    assert!(matches!(ObjectProof::from_bytes(&huge), Err(ProofError::TooLarge { .. })));
    assert_eq!(ObjectProof::from_bytes(b"HTTP/1.1 200"), Err(ProofError::NotAProof));
    assert_eq!(ObjectProof::from_bytes(b"HOPR\x02"), Err(ProofError::Version(2)));
    let long = [&b"HOPR\x01\x00"[..], &u32::MAX.to_le_bytes()].concat();
    assert!(matches!(
        ObjectProof::from_bytes(&long),
        Err(ProofError::TooLarge { what: "object", .. })
    ));
}

#[test]
fn changed_bytes_anywhere_never_verify_as_another_object() {
    let mut chain = Chain::new(500, 4);
    let trust = chain.trust();
    for tree in [false, true] {
        let bytes = chain.write(&object(), tree).to_bytes().unwrap();
        for place in (0..bytes.len()).step_by(3) {
            let mut changed = bytes.clone();
            changed[place] ^= 0x10;
            let Ok(proof) = ObjectProof::from_bytes(&changed) else { continue };
            if let Ok(verified) = proof.verify(&mut trust.clone(), &expected()) {
                // A few bytes are without meaning: offsets in the bitmap of signers.
                assert_eq!(verified.object, object(), "byte {place}");
            }
        }
    }
}

#[test]
fn the_trust_survives_the_process_and_a_crash() {
    let state = tempfile::tempdir().unwrap();
    let mut chain = Chain::new(500, 4);
    assert!(TrustStore::open(state.path(), "a").unwrap().is_none());
    let mut store = TrustStore::create(state.path(), "a", chain.trust()).unwrap();
    for _ in 0..3 {
        let end = chain.next_epoch();
        assert_eq!(store.advance(end.as_ref().clone()).unwrap(), Ok(true));
    }
    let again = TrustStore::open(state.path(), "a").unwrap().unwrap();
    assert_eq!((again.trust().first_epoch(), again.trust().last_epoch()), (500, 503));
    assert!(TrustStore::open(state.path(), "another anchor").unwrap().is_none());

    // A link that was cut short is fetched again, and what came after it.
    let path = state.path().join("a/501.end");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..50]).unwrap();
    let mut again = TrustStore::open(state.path(), "a").unwrap().unwrap();
    assert_eq!(again.trust().last_epoch(), 501);
    let proof = chain.write(&object(), false).with_ratchet(chain.ends.clone());
    again.verify(&proof, &expected()).unwrap().unwrap();
    let again = TrustStore::open(state.path(), "a").unwrap().unwrap();
    assert_eq!(again.trust().last_epoch(), 503, "what a proof taught is stored");
}

#[test]
fn old_committees_are_forgotten() {
    let state = tempfile::tempdir().unwrap();
    let mut chain = Chain::new(0, 1);
    let mut store = TrustStore::create(state.path(), "a", chain.trust()).unwrap();
    for _ in 0..EPOCHS_KEPT + 4 {
        let end = chain.next_epoch();
        store.advance(end.as_ref().clone()).unwrap().unwrap();
    }
    let last = EPOCHS_KEPT as u64 + 4;
    assert_eq!((store.trust().first_epoch(), store.trust().last_epoch()), (5, last));
    let files = std::fs::read_dir(state.path().join("a")).unwrap().count();
    assert_eq!(files, EPOCHS_KEPT, "committee.bcs and one link less than committees");
    let again = TrustStore::open(state.path(), "a").unwrap().unwrap();
    assert_eq!((again.trust().first_epoch(), again.trust().last_epoch()), (5, last));
}

#[test]
fn an_anchor_is_a_checkpoint_that_names_a_committee() {
    let mut chain = Chain::new(500, 4);
    let end = chain.next_epoch();
    let checkpoint = end.summary().clone();
    let pinned = checkpoint.digest().into_inner();
    let trust = Trust::from_checkpoint(&pinned, &checkpoint).unwrap();
    assert_eq!(trust.last_epoch(), 501);
    let other = Trust::from_checkpoint(&[1; 32], &checkpoint).unwrap_err();
    assert!(matches!(other, ProofError::NotTheAnchor { .. }));
    let middle = summary(3, 9);
    let error = Trust::from_checkpoint(&middle.digest().into_inner(), &middle).unwrap_err();
    assert_eq!(error, ProofError::AnchorWithoutCommittee { sequence: 9 });
}

#[test]
fn committees_that_cannot_be_computed_with_are_refused() {
    let good = Validators::new(7, 4, 1).committee;
    let bytes = bcs::to_bytes(&good).unwrap();
    assert_eq!(parse_committee(&bytes).unwrap(), good);
    let json = serde_json::json!({
        "epoch": "7",
        "members": good.members.iter().map(|m| serde_json::json!({
            "publicKey": data_encoding::BASE64.encode(m.public_key.as_bytes()),
            "weight": m.stake.to_string(),
        })).collect::<Vec<_>>(),
    });
    assert_eq!(parse_committee(json.to_string().as_bytes()).unwrap(), good);

    let refused = |change: &dyn Fn(&mut ValidatorCommittee)| {
        let mut bad = good.clone();
        change(&mut bad);
        parse_committee(&bcs::to_bytes(&bad).unwrap()).unwrap_err()
    };
    assert_eq!(refused(&|c| c.members.clear()), CommitteeError::Empty);
    assert_eq!(refused(&|c| c.members[1] = c.members[0].clone()), CommitteeError::Duplicate(1));
    assert_eq!(refused(&|c| c.members[2].stake = 0), CommitteeError::NoStake(2));
    assert_eq!(refused(&|c| c.members[2].stake = u64::MAX), CommitteeError::StakeOverflow);
    for bad in [
        &b"{}"[..],
        b"",
        b"hello",
        b"{\"epoch\":1,\"members\":[{\"publicKey\":\"\",\"weight\":1}]}",
    ] {
        assert!(matches!(parse_committee(bad), Err(CommitteeError::File(_))));
    }
}

/// The checkpoint that `sui-sdk-types` ships, with its tree.
#[test]
fn the_published_checkpoint_proves_every_object_it_wrote() {
    let data: CheckpointData =
        bcs::from_bytes(include_bytes!("../../tests/fixtures/ocs/1137.chk")).unwrap();
    let committee =
        parse_committee(include_bytes!("../../tests/fixtures/ocs/committee.bcs")).unwrap();
    let mut trust = Trust::from_committee(committee).unwrap();
    trust.verify_summary(&data.checkpoint_summary).unwrap();
    let contents = bcs::to_bytes(&data.checkpoint_contents).unwrap();
    // What the checkpoint leaves behind: the last version of each object.
    let mut last = std::collections::BTreeMap::new();
    for transaction in &data.transactions {
        for object in &transaction.output_objects {
            last.insert(object.object_id(), (object, &transaction.effects));
        }
    }
    let mut by_effects = 0;
    for (object, effects) in last.values() {
        let evidence =
            Evidence::effects(contents.clone(), bcs::to_bytes(effects).unwrap()).unwrap();
        by_effects += usize::from(holds(&mut trust, &data.checkpoint_summary, object, evidence));
    }
    assert!(by_effects > 0);
    assert_eq!(by_effects, last.len());
}

fn holds(
    trust: &mut Trust,
    signed: &SignedCheckpointSummary,
    object: &Object,
    evidence: Evidence,
) -> bool {
    let bytes = bcs::to_bytes(object).unwrap();
    let proof = travel(&ObjectProof::new(bytes, signed.clone(), evidence).unwrap());
    let expected =
        Expected { id: object_id(object.object_id()), type_: None, owner: ExpectedOwner::Anybody };
    proof.verify(trust, &expected).unwrap().object == *object
}

/// `Field<u64, SuiSystemStateInner>` of two validators, laid out by hand.
fn system_inner(id: ObjectId, validators: &Validators) -> Vec<u8> {
    let mut out = id.0.to_vec();
    let long = |out: &mut Vec<u8>, n: u64| out.extend_from_slice(&n.to_le_bytes());
    // Key; epoch, protocol version, state version; total stake.
    for n in [1, 0, 103, 1, 20] {
        long(&mut out, n);
    }
    out.push(u8::try_from(validators.committee.members.len()).unwrap());
    // On chain they are in the order in which they joined.
    for member in validators.committee.members.iter().rev() {
        out.extend_from_slice(&[5; 32]);
        out.push(96);
        out.extend_from_slice(member.public_key.as_bytes());
        for text in ["net", "worker", "pop", "name", "", "image", "url", "a", "b", "c", "d"] {
            out.push(u8::try_from(text.len()).unwrap());
            out.extend_from_slice(text.as_bytes());
        }
        out.extend_from_slice(&[0, 1, 2, 8, 8, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(&[6; 40]);
        long(&mut out, member.stake);
        out.extend_from_slice(&[7; 40]);
        // Staking pool.
        out.extend_from_slice(&[8; 32]);
        out.push(1);
        long(&mut out, 0);
        out.push(0);
        out.extend_from_slice(&[9; 24 + 40 + 24 + 40]);
        out.extend_from_slice(&[10; 32 + 40]);
    }
    out.extend_from_slice(b"the rest of the state");
    out
}

#[test]
fn the_first_checkpoint_of_a_chain_names_its_committee() {
    let validators = Validators::new(0, 2, 1);
    let head = [&crate::object_id::SYSTEM_STATE.0[..], &1u64.to_le_bytes()].concat();
    let system = move_object(("sui_system", "SuiSystemState"), 1, head, Owner::Shared(1));
    let system_bytes = bcs::to_bytes(&system).unwrap();
    let inner_id = system_inner_id(&system_bytes).unwrap();
    let inner = move_object(
        ("dynamic_field", "Field"),
        1,
        system_inner(inner_id, &validators),
        Owner::Object(address(crate::object_id::SYSTEM_STATE)),
    );
    let inner_bytes = bcs::to_bytes(&inner).unwrap();
    let (effects, contents) = testing::first_transaction(&[system, inner]);
    let mut checkpoint = summary(0, 0);
    checkpoint.content_digest = contents.digest();
    let pinned = checkpoint.digest().into_inner();
    let contents = bcs::to_bytes(&contents).unwrap();
    let effects = bcs::to_bytes(&effects).unwrap();
    let good = GenesisParts {
        contents: &contents,
        effects: &effects,
        system: &system_bytes,
        inner: &inner_bytes,
    };
    assert_eq!(genesis_committee(&pinned, &checkpoint, good), Ok(validators.committee.clone()));

    let other = genesis_committee(&[1; 32], &checkpoint, good).unwrap_err();
    assert!(matches!(other, ProofError::NotTheAnchor { .. }));
    let mut forged = inner_bytes.clone();
    forged[600] ^= 1;
    let parts = GenesisParts { inner: &forged, ..good };
    let error = genesis_committee(&pinned, &checkpoint, parts).unwrap_err();
    assert!(matches!(error, ProofError::ObjectMismatch { .. }), "{error}");
    let parts = GenesisParts { inner: &system_bytes, ..good };
    let error = genesis_committee(&pinned, &checkpoint, parts).unwrap_err();
    assert!(matches!(error, ProofError::ForeignObject { .. }), "{error}");
    let parts = GenesisParts { contents: &[0, 0, 0], ..good };
    let error = genesis_committee(&pinned, &checkpoint, parts).unwrap_err();
    assert!(matches!(error, ProofError::ContentsMismatch { .. }), "{error}");
}

/// Checkpoints that a real full node served, of a network without trees.
#[test]
fn captured_checkpoints_prove_the_walrus_objects_they_wrote() {
    let all = exchanges::load();
    let epoch = v2::GetEpochResponse::decode(&all["epoch-0"].response[..]).unwrap();
    let committee = ValidatorCommittee::try_from(epoch.epoch().committee()).unwrap();
    let mut trust = Trust::from_committee(committee).unwrap();
    let mut objects = 0;
    for name in ["checkpoint-500-full", "checkpoint-515-full", "checkpoint-530-full"] {
        let response = v2::GetCheckpointResponse::decode(&all[name].response[..]).unwrap();
        let checkpoint = response.checkpoint();
        let signed = SignedCheckpointSummary {
            checkpoint: checkpoint.summary().bcs().deserialize().unwrap(),
            signature: ValidatorAggregatedSignature::try_from(checkpoint.signature()).unwrap(),
        };
        for object in checkpoint.objects().objects() {
            let object: Object = object.bcs().deserialize().unwrap();
            let effects = checkpoint
                .transactions()
                .iter()
                .map(|transaction| transaction.effects().bcs().value().to_vec())
                .find(|bytes| {
                    let effects = bcs::from_bytes(bytes).unwrap();
                    verify::written(&effects, &object.object_id())
                        .is_some_and(|(version, _)| version == object.version())
                });
            // The objects a transaction read are sent along as well.
            let Some(effects) = effects else { continue };
            let contents = checkpoint.contents().bcs().value().to_vec();
            let evidence = Evidence::effects(contents, effects).unwrap();
            assert!(holds(&mut trust, &signed, &object, evidence));
            objects += 1;
        }
    }
    assert!(objects > 10, "{objects}");
}
