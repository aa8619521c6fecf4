//! Proofs from peers: reading and checking never panic, and what is read is written the same.

#![no_main]

use haulout_archive::{merkle, proof::Proof, segment::FOOTER_BYTES};
use haulout_nix::HashPart;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(proof) = Proof::decode(data) else { return };
    assert_eq!(proof.encode(), data);
    // With the root of its own footer the check gets as far as the Merkle paths.
    let root = merkle::root(&data[..FOOTER_BYTES]);
    let _ = proof.verify(&root, &HashPart::from_bytes([0x55; 20]));
});
