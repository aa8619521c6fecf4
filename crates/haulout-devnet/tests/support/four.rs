//! A small committee, the keys of its nodes, and somebody with an account: for tests inside this crate and outside.

use haulout_walrus::{
    bls::SecretKey,
    committee::{Committee, ObjectId, StorageNode},
};
use redstuff::{ShardCount, ShardIndex};
use sui_crypto::ed25519::Ed25519PrivateKey;

pub(crate) fn node_key(i: u8) -> SecretKey {
    SecretKey::from_seed(&[i + 1; 32]).unwrap()
}

/// Nodes with 1, 2, 3, 4 shards.
pub(crate) fn committee() -> Committee {
    let mut next = 0;
    let nodes = (0..4u8).map(|i| {
        let shards = (next..next + u16::from(i) + 1).map(ShardIndex).collect();
        next += u16::from(i) + 1;
        StorageNode {
            node_id: ObjectId([i + 1; 32]),
            name: format!("node-{i}"),
            address: format!("127.0.0.1:{}", 9_000 + u16::from(i)),
            network_public_key: [&[2][..], &[i; 32]].concat(),
            bls_public_key: node_key(i).public_key().to_bytes(),
            shards,
        }
    });
    Committee::new(1, ShardCount::new(10).unwrap(), nodes.collect()).unwrap()
}

pub(crate) fn user() -> Ed25519PrivateKey {
    Ed25519PrivateKey::new([9; 32])
}
