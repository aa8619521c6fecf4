use super::*;

fn vectors() -> serde_json::Value {
    serde_json::from_str(include_str!("../../tests/fixtures/walrus-objects.json")).unwrap()
}

fn bytes(value: &serde_json::Value) -> Vec<u8> {
    let hex = value.as_str().unwrap();
    data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap()
}

/// Reads, writes back, and refuses anything shorter or longer.
fn exact<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> T {
    let value: T = decode("vector", bytes).unwrap();
    assert_eq!(bcs::to_bytes(&value).unwrap(), bytes);
    for end in 0..bytes.len() {
        assert!(decode::<T>("vector", &bytes[..end]).is_err(), "{end} of {}", bytes.len());
    }
    assert!(decode::<T>("vector", &[bytes, &[0]].concat()).is_err());
    value
}

#[test]
fn system_and_staking_are_read_as_walrus_writes_them() {
    let v = vectors();
    let system: Versioned = exact(&bytes(&v["system_bcs_hex"]));
    assert_eq!(system.id.to_string(), v["system_object_id"].as_str().unwrap());
    assert_eq!(system.version, 3);
    let staking: Versioned = exact(&bytes(&v["staking_bcs_hex"]));
    assert_eq!(staking.id.to_string(), v["staking_object_id"].as_str().unwrap());

    let inner: Field<u64, SystemStateInner> = exact(&bytes(&v["system_inner_field_bcs_hex"]));
    assert_eq!(inner.name, system.version);
    assert_eq!(inner.value.committee.n_shards, 10);
    assert_eq!(inner.value.committee.epoch, 7);
    assert_eq!(inner.value.storage_price_per_unit_size, 100_000);
    assert_eq!(inner.value.write_price_per_unit_size, 20_000);

    let inner: Field<u64, StakingInner> = exact(&bytes(&v["staking_inner_field_bcs_hex"]));
    assert_eq!(inner.value.epoch, 7);
    assert!(matches!(inner.value.epoch_state, EpochState::EpochChangeDone(_)));
    let nodes = v["expected"]["nodes"].as_array().unwrap();
    assert_eq!(inner.value.committee.len(), nodes.len());
    for ((id, shards), node) in inner.value.committee.iter().zip(nodes) {
        assert_eq!(id.to_string(), node["node_id"].as_str().unwrap());
        assert_eq!(serde_json::json!(shards), node["shards"]);
    }
}

#[test]
fn staking_pools_are_read_as_walrus_writes_them() {
    let v = vectors();
    let nodes = v["expected"]["nodes"].as_array().unwrap();
    for (pool, node) in v["staking_pools_bcs_hex"].as_array().unwrap().iter().zip(nodes) {
        let pool: StakingPool = exact(&bytes(pool));
        assert_eq!(pool.id.to_string(), node["node_id"].as_str().unwrap());
        assert_eq!(pool.node_info.node_id, pool.id);
        assert_eq!(pool.node_info.name, node["name"].as_str().unwrap());
        assert_eq!(pool.node_info.network_address, node["network_address"].as_str().unwrap());
        assert_eq!(pool.node_info.network_public_key, bytes(&node["network_public_key_hex"]));
        assert_eq!(pool.node_info.public_key, bytes(&node["bls_public_key_uncompressed_hex"]));
    }
}

#[test]
fn blobs_and_storage_are_read_as_walrus_writes_them() {
    let v = vectors();
    let blob: Blob = exact(&bytes(&v["blob_object_bcs_hex"]));
    let expected = &v["blob_object"];
    assert_eq!(blob.id.to_string(), expected["id"].as_str().unwrap());
    assert_eq!(blob.blob_id.to_string(), expected["blob_id_text"].as_str().unwrap());
    assert_eq!(blob.blob_id.to_decimal(), expected["blob_id"].as_str().unwrap());
    assert_eq!(blob.certified_epoch, Some(7));
    assert_eq!(blob.storage.end_epoch, 12);
    assert!(blob.deletable);
    let storage: Storage = exact(&bytes(&v["storage_object_bcs_hex"]));
    assert_eq!(storage, blob.storage);
    let attributes: Vec<(String, String)> = exact(&bytes(&v["metadata_value_bcs_hex"]));
    assert_eq!(attributes[0], ("_walrusBlobType".into(), "quilt".into()));
}

#[test]
fn an_object_larger_than_the_chain_allows_is_refused() {
    let error = decode::<Vec<u8>>("blob", &vec![0; OBJECT_BYTES_MAX + 1]).unwrap_err();
    assert!(error.to_string().contains("at most"), "{error}");
}
