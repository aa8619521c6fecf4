//! Who stores which shards, in one epoch.

use std::num::NonZeroU16;

use redstuff::ShardIndex;

/// The storage nodes of one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committee {
    /// The Walrus epoch.
    pub epoch: u32,
    /// How many shards there are.
    pub n_shards: NonZeroU16,
    /// The nodes in on-chain order: sorted by node id, which is also the order of signers.
    pub members: Vec<StorageNode>,
}

/// One storage node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageNode {
    /// Its id: that of its staking pool.
    pub node_id: [u8; 32],
    /// Its name, for people.
    pub name: String,
    /// Where it listens: `host:port`.
    pub address: String,
    /// The P-256 key of its TLS certificate, 33 bytes compressed.
    pub network_public_key: Vec<u8>,
    /// The BLS12-381 key that signs its confirmations (G1, compressed).
    pub bls_public_key: [u8; 48],
    /// The shards it stores.
    pub shards: Vec<ShardIndex>,
}
