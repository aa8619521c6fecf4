//! Slivers: parsed, and verified against the metadata of a small blob.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use redstuff::{
    AnySliver, EncodedBlob, Primary, Secondary, ShardCount, UnverifiedPair, UnverifiedSliver,
    bcs::Wire, messages::SyncShardResponse,
};

fn encoded() -> &'static EncodedBlob {
    static ENCODED: OnceLock<EncodedBlob> = OnceLock::new();
    ENCODED.get_or_init(|| ShardCount::new(7).unwrap().encode(vec![9; 50]).unwrap())
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(sliver) = UnverifiedSliver::<Primary>::from_bcs(bytes) {
        assert_eq!(sliver.to_bcs(), bytes);
        let index = sliver.index;
        if let Ok(sliver) = sliver.verify(encoded().metadata()) {
            assert_eq!(encoded().sliver(index).unwrap(), sliver);
        }
    }
    if let Ok(sliver) = UnverifiedSliver::<Secondary>::from_bcs(bytes) {
        let _ = sliver.root(ShardCount::new(10).unwrap());
        let _ = sliver.verify(encoded().metadata());
    }
    if let Ok(sliver) = AnySliver::from_bcs(bytes) {
        assert_eq!(sliver.to_bcs(), bytes);
    }
    if let Ok(pair) = UnverifiedPair::from_bcs(bytes) {
        assert_eq!(pair.to_bcs(), bytes);
    }
    if let Ok(response) = SyncShardResponse::from_bcs(bytes) {
        assert_eq!(response.to_bcs(), bytes);
    }
});
