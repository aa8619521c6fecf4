//! The proof document: what it accepts writes back the same, and checking it never panics,
//! whatever hashes and signatures say.

#![no_main]

use std::sync::LazyLock;

use haulout_sui::proof::{Expected, ExpectedOwner, ObjectProof, Trust, parse_committee};

static TRUST: LazyLock<Trust> = LazyLock::new(|| {
    let bytes = include_bytes!("../../crates/haulout-sui/tests/fixtures/ocs/committee.bcs");
    let committee = parse_committee(bytes).expect("a good committee");
    Trust::from_committee(committee).expect("a good committee")
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(proof) = ObjectProof::from_bytes(data) else { return };
    let bytes = proof.to_bytes().expect("what was read can be written");
    assert_eq!(ObjectProof::from_bytes(&bytes).as_ref(), Ok(&proof));
    let expected = Expected {
        id: proof.object_id(),
        type_: None,
        owner: ExpectedOwner::Anybody,
    };
    // Nobody has signed with the pinned committee here.
    let mut trust = TRUST.clone();
    assert!(proof.verify(&mut trust, &expected).is_err());
});
