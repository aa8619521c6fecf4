//! Blob metadata as a node or peer answers it: what parses has one form only, and is
//! verified without harm whatever it says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redstuff::{MetadataWithId, ShardCount, bcs::Wire};

fuzz_target!(|bytes: &[u8]| {
    let Ok(answer) = MetadataWithId::from_bcs(bytes) else { return };
    assert_eq!(answer.to_bcs(), bytes);
    let shards = u16::try_from(answer.metadata.hashes.len()).unwrap_or(u16::MAX);
    let Ok(n) = ShardCount::new(shards) else { return };
    if let Ok(metadata) = answer.metadata.clone().trust(n) {
        assert!(metadata.occupied_rows() as usize <= n.rows());
        let _ = answer.verify(n, metadata.id());
    }
});
