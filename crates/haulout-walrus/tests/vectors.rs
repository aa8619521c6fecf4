//! Keys, signatures, aggregates and certificates as the real code made them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use data_encoding::HEXLOWER;
use haulout_walrus::{
    bls::{self, PublicKey, SecretKey},
    wire::{StorageConfirmation, Success},
};
use redstuff::{
    bcs::Wire,
    messages::{Confirmation, ConfirmationCertificate, ProtocolMessage, signers_bitmap},
};
use serde_json::Value;

fn hex<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

fn messages() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../redstuff/tests/data/walrus-vectors.json");
    let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    vectors["messages"].as_array().unwrap().clone()
}

#[test]
fn signatures_and_aggregates_are_those_of_the_real_code() {
    let messages = messages();
    assert!(messages.len() >= 2);
    for case in &messages {
        let message = bytes(&case["confirmation_deletable_bcs_hex"]);
        let mut keys = Vec::new();
        let mut signatures = Vec::new();
        for signer in case["signers"].as_array().unwrap() {
            let secret = SecretKey::from_bytes(&hex(&signer["secret_key_hex"])).unwrap();
            let public = PublicKey::from_bytes(&hex(&signer["public_key_hex"])).unwrap();
            assert_eq!(secret.public_key(), public);
            assert_eq!(PublicKey::from_uncompressed(&public.to_uncompressed()).unwrap(), public);
            let signature = secret.sign(&message);
            assert_eq!(signature, hex(&signer["signature_over_deletable_hex"]));
            public.verify(&message, &signature).unwrap();
            public.verify(&message[1..], &signature).unwrap_err();
            keys.push(public);
            signatures.push(signature);
        }
        let chosen: Vec<u16> =
            serde_json::from_value(case["aggregate"]["signers"].clone()).unwrap();
        let pick = |i: &u16| usize::from(*i);
        let some: Vec<_> = chosen.iter().map(|i| signatures[pick(i)]).collect();
        let aggregate = bls::aggregate(&some).unwrap();
        assert_eq!(aggregate, hex(&case["aggregate"]["aggregate_signature_hex"]));
        let some_keys: Vec<_> = chosen.iter().map(|i| keys[pick(i)]).collect();
        bls::verify_aggregate(&some_keys, &message, &aggregate).unwrap();
        bls::verify_aggregate(&keys, &message, &aggregate).unwrap_err();
        assert_eq!(signers_bitmap(&chosen), bytes(&case["aggregate"]["signers_bitmap_hex"]));
        let certificate =
            ConfirmationCertificate { signers: chosen, message, signature: aggregate };
        assert_eq!(certificate.to_bcs(), bytes(&case["aggregate"]["certificate_bcs_hex"]));
    }
}

#[test]
fn confirmations_are_read_from_json() {
    for case in messages() {
        let text = case["confirmation_response_json"].to_string();
        let answer: Success<StorageConfirmation> = serde_json::from_str(&text).unwrap();
        let signed = &answer.success.data.signed;
        assert_eq!(signed.message, bytes(&case["confirmation_deletable_bcs_hex"]));
        let message = ProtocolMessage::<Confirmation>::from_bcs(&signed.message).unwrap();
        assert_eq!(u64::from(message.epoch), case["epoch"].as_u64().unwrap());
        assert_eq!(serde_json::to_value(&answer).unwrap(), case["confirmation_response_json"]);
    }
}

#[test]
fn garbage_is_no_key_and_no_signature() {
    PublicKey::from_bytes(&[0; 48]).unwrap_err();
    // The point at infinity would verify the empty aggregate of nobody.
    let mut infinity = [0; 48];
    infinity[0] = 0xc0;
    PublicKey::from_bytes(&infinity).unwrap_err();
    let key = SecretKey::from_seed(&[7; 32]).unwrap();
    key.public_key().verify(b"x", &[0; 96]).unwrap_err();
    bls::aggregate(&[]).unwrap_err();
    bls::aggregate(&[[1; 96]]).unwrap_err();
    SecretKey::from_seed(&[7; 31]).unwrap_err();
    SecretKey::from_bytes(&[0; 32]).unwrap_err();
}
