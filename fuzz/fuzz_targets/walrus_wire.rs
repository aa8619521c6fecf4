//! What storage nodes answer as JSON, their certificates, and texts that come from the chain.
#![no_main]

use haulout_walrus::{
    ObjectId,
    committee::split_address,
    is_base_url, network_key,
    wire::{BlobStatus, Failure, ServiceHealth, SignedAnswer, StorageConfirmation, StoredOnNode, Success},
};
use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};

/// What was read is written and read again the same.
fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(bytes)
        && let Ok(text) = serde_json::to_vec(&value)
    {
        let again = serde_json::from_slice::<T>(&text).ok();
        assert_eq!(again.as_ref(), Some(&value));
    }
}

fuzz_target!(|bytes: &[u8]| {
    check::<Success<BlobStatus>>(bytes);
    check::<Success<StoredOnNode>>(bytes);
    check::<Success<StorageConfirmation>>(bytes);
    check::<Success<SignedAnswer>>(bytes);
    check::<Success<ServiceHealth>>(bytes);
    if let Ok(failure) = serde_json::from_slice::<Failure>(bytes) {
        let _ = failure.reason();
    }
    if let Some(key) = network_key(bytes) {
        assert!(matches!(key[0], 2 | 3));
    }
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(id) = text.parse::<ObjectId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    if let Some((host, port)) = split_address(text) {
        assert!(!host.is_empty() && port > 0);
    }
    let _ = is_base_url(text);
});
