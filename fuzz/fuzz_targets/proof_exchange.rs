//! A peer's question for an archive's proof, and a peer's answer to ours: one byte with the length of the question's
//! body, that body, and what came as the proof.
//!
//! A question that is understood has one form of 49 bytes, whatever later versions put behind it. A proof is looked at
//! as an agent does that has asked for this very archive: it may be refused in any way, but never be believed, since
//! nobody here signs, and never be more than what one agent takes from another.
#![no_main]

use std::sync::LazyLock;

use haulout_mesh::frames::{REQUEST_HEADER_LEN, Request};
use haulout_mesh::{PROOF_BYTES_MAX, ProofQuestion};
use haulout_sui::ObjectId;
use haulout_sui::proof::{Expected, ExpectedOwner, ObjectProof, Trust, parse_committee};

static TRUST: LazyLock<Trust> = LazyLock::new(|| {
    let bytes = include_bytes!("../../crates/haulout-sui/tests/fixtures/ocs/committee.bcs");
    let committee = parse_committee(bytes).expect("a good committee");
    Trust::from_committee(committee).expect("a good committee")
});

/// What asks for a proof, by its number in the protocol.
fn archive_proof() -> u8 {
    let question = ProofQuestion { archive: [0; 32], known: 0, epoch: None };
    Request::ArchiveProof(question).encode()[0]
}

/// The bytes of a question's body.
const QUESTION: usize = 49;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((len, rest)) = data.split_first() else { return };
    let Some((body, document)) = rest.split_at_checked((*len).into()) else { return };
    let question = match Request::decode(archive_proof(), body) {
        Ok(Request::ArchiveProof(question)) => question,
        Ok(other) => panic!("a question for a proof was read as {other:?}"),
        Err(_) => {
            assert!(body.len() < QUESTION, "whatever is long enough is a question");
            return;
        }
    };
    let again = Request::ArchiveProof(question).encode();
    assert_eq!(again.len(), REQUEST_HEADER_LEN + QUESTION);
    let again = Request::decode(again[0], &again[REQUEST_HEADER_LEN..]);
    assert_eq!(again, Ok(Request::ArchiveProof(question)));

    if document.len() > PROOF_BYTES_MAX {
        return;
    }
    let Ok(proof) = ObjectProof::from_bytes(document) else { return };
    // Half of the time it is about what was asked for, or nothing behind that check would be reached.
    let id = if question.known == 0 { proof.object_id() } else { ObjectId(question.archive) };
    let expected = Expected {
        id,
        type_: None,
        owner: ExpectedOwner::SharedOrFrozen,
    };
    // The asker has seen a version already, and counts on this one to be newer.
    let _ = proof.object_version().cmp(&question.known);
    let mut trust = TRUST.clone();
    let known = trust.last_epoch();
    assert!(proof.verify(&mut trust, &expected).is_err());
    assert_eq!(trust.last_epoch(), known, "nobody signed a new committee");
});
