//! Messages that nodes sign, and texts of ids.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redstuff::{
    AxisKind, BlobId, SymbolId,
    bcs::Wire,
    messages::{
        Confirmation, ConfirmationCertificate, InvalidBlobId, ProofOfPossession, ProtocolMessage,
        SignedMessage, SyncShard, bitmap_signers, signers_bitmap,
    },
    quilt::QuiltPatchId,
};

fn check<T: Wire>(bytes: &[u8]) {
    if let Ok(value) = T::from_bcs(bytes) {
        assert_eq!(value.to_bcs(), bytes);
    }
}

fuzz_target!(|bytes: &[u8]| {
    check::<ProtocolMessage<Confirmation>>(bytes);
    check::<ProtocolMessage<InvalidBlobId>>(bytes);
    check::<ProtocolMessage<ProofOfPossession>>(bytes);
    check::<ProtocolMessage<SyncShard>>(bytes);
    check::<SignedMessage>(bytes);
    check::<ConfirmationCertificate>(bytes);
    if let Some(signers) = bitmap_signers(bytes, 1000) {
        assert!(bytes.starts_with(&signers_bitmap(&signers)));
    }
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(id) = text.parse::<BlobId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(id) = BlobId::from_decimal(text) {
        assert_eq!(id.to_decimal(), text);
    }
    if let Ok(id) = text.parse::<QuiltPatchId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(axis) = text.parse::<AxisKind>() {
        assert_eq!(axis.as_str(), text);
    }
    if let Ok(symbol) = text.parse::<SymbolId>() {
        assert_eq!(symbol.to_string().parse(), Ok(symbol));
    }
});
