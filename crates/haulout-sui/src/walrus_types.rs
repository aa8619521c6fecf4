//! Walrus' Move structs as they lie in Sui objects: BCS both ways.
//!
//! Field order is the layout. Keys are kept as the bytes on chain; what they mean is
//! decided where they are used. Every `vector` is bounded by the object's own size,
//! [`OBJECT_BYTES_MAX`], because BCS elements take at least a byte.

use redstuff::BlobId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::ObjectId;

/// Bytes of one Move object: the chain's own limit is 250 KiB.
pub const OBJECT_BYTES_MAX: usize = 256 * 1024;

/// The bytes are not the struct they were said to be.
#[derive(Debug, thiserror::Error)]
#[error("{bytes} bytes are not a {what}: {reason}")]
pub struct LayoutError {
    what: &'static str,
    bytes: usize,
    reason: String,
}

/// Reads a Move struct from an object's contents.
///
/// # Errors
/// More than [`OBJECT_BYTES_MAX`], too short, too long, or an unknown enum variant.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, LayoutError> {
    let error = |reason: String| LayoutError { what, bytes: bytes.len(), reason };
    if bytes.len() > OBJECT_BYTES_MAX {
        return Err(error(format!("an object has at most {OBJECT_BYTES_MAX} bytes")));
    }
    bcs::from_bytes(bytes).map_err(|cause| error(cause.to_string()))
}

/// The object of a dynamic field: `0x2::dynamic_field::Field<K, V>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field<K, V> {
    /// The field object's own id, derived from parent and name.
    pub id: ObjectId,
    /// The key.
    pub name: K,
    /// The value.
    pub value: V,
}

/// A `Table`, `ObjectTable`, `Bag` and the like: the entries are dynamic fields of `id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRef {
    /// Parent of the entries.
    pub id: ObjectId,
    /// Number of entries.
    pub size: u64,
}

/// `system::System`, and `staking::Staking`, which has the same layout: the state is the
/// dynamic field whose key is `version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned {
    /// The object's id.
    pub id: ObjectId,
    /// Version of the contract, and key of the field with the state.
    pub version: u64,
    /// The package whose functions are to be called.
    pub package_id: ObjectId,
    /// Set while an upgrade is under way.
    pub new_package_id: Option<ObjectId>,
}

/// `system_state_inner::SystemStateInnerV1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemStateInner {
    /// The committee of the current epoch, as certificates are checked against it.
    pub committee: BlsCommittee,
    /// Encoded bytes that can be reserved in all.
    pub total_capacity_size: u64,
    /// Encoded bytes reserved now.
    pub used_capacity_size: u64,
    /// FROST per MiB (encoded) and epoch.
    pub storage_price_per_unit_size: u64,
    /// FROST per MiB (encoded) and write.
    pub write_price_per_unit_size: u64,
    /// Reserved storage and rewards of the epochs ahead.
    pub future_accounting: FutureAccounting,
    /// State of the network's own event blobs.
    pub event_blob_certification_state: EventBlobCertificationState,
    /// `ExtendedField`: id under which deny list sizes lie.
    pub deny_list_sizes: ObjectId,
}

/// `bls_aggregate::BlsCommittee`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlsCommittee {
    /// Members in signer order.
    pub members: Vec<BlsCommitteeMember>,
    /// Shards in all.
    pub n_shards: u16,
    /// The epoch in which this committee signs.
    pub epoch: u32,
    /// Sum of the keys: compressed G1, 48 bytes.
    pub total_aggregated_key: Vec<u8>,
}

/// `bls_aggregate::BlsCommitteeMember`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlsCommitteeMember {
    /// BLS12-381 key: uncompressed G1, 96 bytes.
    pub public_key: Vec<u8>,
    /// Shards.
    pub weight: u16,
    /// The node.
    pub node_id: ObjectId,
}

/// `storage_accounting::FutureAccountingRingBuffer`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FutureAccounting {
    /// Where the current epoch is in `ring_buffer`.
    pub current_index: u32,
    /// Epochs in the buffer; storage can be reserved that far ahead.
    pub length: u32,
    /// One entry per epoch.
    pub ring_buffer: Vec<EpochAccounting>,
}

/// `storage_accounting::FutureAccounting`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochAccounting {
    /// The epoch.
    pub epoch: u32,
    /// Encoded bytes reserved in it.
    pub used_capacity: u64,
    /// FROST to distribute in it.
    pub rewards: u64,
}

/// `event_blob::EventBlobCertificationState`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventBlobCertificationState {
    /// The last one certified.
    pub latest_certified_blob: Option<EventBlob>,
    /// Weight so far of those under way.
    pub aggregate_weight_per_blob: Vec<(EventBlob, u16)>,
}

/// `event_blob::EventBlob`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventBlob {
    /// Its blob id.
    #[serde(with = "u256")]
    pub blob_id: BlobId,
    /// The last Sui checkpoint whose events are in it.
    pub ending_checkpoint_sequence_number: u64,
}

/// Who has which shards: `committee::Committee`, a map sorted by node id. The position
/// in it is the signer index.
pub type ShardAssignment = Vec<(ObjectId, Vec<u16>)>;

/// `staking_inner::StakingInnerV1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StakingInner {
    /// Shards in all.
    pub n_shards: u16,
    /// Milliseconds.
    pub epoch_duration: u64,
    /// Milliseconds since 1970.
    pub first_epoch_start: u64,
    /// `ObjectTable` of the staking pools.
    pub pools: TableRef,
    /// The current epoch.
    pub epoch: u32,
    /// `ExtendedField` with the active set.
    pub active_set: ObjectId,
    /// The committee of the next epoch, once it is known.
    pub next_committee: Option<ShardAssignment>,
    /// The current committee.
    pub committee: ShardAssignment,
    /// The committee of the epoch before; empty in the first.
    pub previous_committee: ShardAssignment,
    /// Parameters of the next epoch, once they are known.
    pub next_epoch_params: Option<EpochParams>,
    /// Where in its life the epoch is.
    pub epoch_state: EpochState,
    /// `ExtendedField` with the next epoch's keys.
    pub next_epoch_public_keys: ObjectId,
}

/// `epoch_parameters::EpochParams`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochParams {
    /// Encoded bytes.
    pub total_capacity_size: u64,
    /// FROST per MiB and epoch.
    pub storage_price_per_unit_size: u64,
    /// FROST per MiB and write.
    pub write_price_per_unit_size: u64,
}

/// `staking_inner::EpochState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EpochState {
    /// Nodes are fetching their shards; the weight that has reported so far.
    EpochChangeSync(u16),
    /// A quorum has its shards; when that was, milliseconds since 1970.
    EpochChangeDone(u64),
    /// The next epoch's committee and parameters are fixed; milliseconds since 1970.
    NextParamsSelected(u64),
}

/// `staking_pool::StakingPool`; its id is the node id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StakingPool {
    /// The node id.
    pub id: ObjectId,
    /// Whether the node takes part.
    pub state: PoolState,
    /// What the node votes for.
    pub voting_params: VotingParams,
    /// Address and keys.
    pub node_info: StorageNodeInfo,
    /// First epoch of the pool.
    pub activation_epoch: u32,
    /// Last epoch the pool was brought up to.
    pub latest_epoch: u32,
    /// FROST staked.
    pub wal_balance: u64,
    /// Pool tokens.
    pub num_shares: u64,
    /// Shares leaving, by epoch.
    pub pending_shares_withdraw: Vec<(u32, u64)>,
    /// Stake leaving before it was active, by epoch.
    pub pre_active_withdrawals: Vec<(u32, u64)>,
    /// Commission rates to come, by epoch.
    pub pending_commission_rate: Vec<(u32, u64)>,
    /// Hundredths of a per cent.
    pub commission_rate: u16,
    /// `Table` of exchange rates by epoch.
    pub exchange_rates: TableRef,
    /// Stake arriving, by epoch.
    pub pending_stake: Vec<(u32, u64)>,
    /// FROST.
    pub rewards_pool: u64,
    /// FROST.
    pub commission: u64,
    /// Who takes the commission.
    pub commission_receiver: Authorized,
    /// Who votes.
    pub governance_authorized: Authorized,
    /// `Bag`.
    pub extra_fields: TableRef,
}

/// `staking_pool::PoolState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PoolState {
    /// In business.
    Active,
    /// Leaves at this epoch.
    Withdrawing(u32),
    /// Gone.
    Withdrawn,
}

/// `staking_pool::VotingParams`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VotingParams {
    /// FROST per MiB and epoch.
    pub storage_price: u64,
    /// FROST per MiB and write.
    pub write_price: u64,
    /// Bytes.
    pub node_capacity: u64,
}

/// `auth::Authorized`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Authorized {
    /// An account.
    Address(ObjectId),
    /// Whoever has this object.
    Object(ObjectId),
}

/// `storage_node::StorageNodeInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageNodeInfo {
    /// Free text.
    pub name: String,
    /// The node id.
    pub node_id: ObjectId,
    /// `host:port`.
    pub network_address: String,
    /// BLS12-381 key: uncompressed G1, 96 bytes.
    pub public_key: Vec<u8>,
    /// The key from the next epoch on.
    pub next_epoch_public_key: Option<Vec<u8>>,
    /// TLS key: compressed P-256, 33 bytes.
    pub network_public_key: Vec<u8>,
    /// `ExtendedField`.
    pub metadata: ObjectId,
}

/// `storage_resource::Storage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storage {
    /// Its id.
    pub id: ObjectId,
    /// First epoch.
    pub start_epoch: u32,
    /// The epoch after the last.
    pub end_epoch: u32,
    /// Encoded bytes.
    pub storage_size: u64,
}

/// `blob::Blob`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// The object's id (not the blob id).
    pub id: ObjectId,
    /// When it was registered.
    pub registered_epoch: u32,
    /// The blob id.
    #[serde(with = "u256")]
    pub blob_id: BlobId,
    /// Bytes before encoding.
    pub size: u64,
    /// 1 is RS2.
    pub encoding_type: u8,
    /// When it was certified, if it was.
    pub certified_epoch: Option<u32>,
    /// What was paid for.
    pub storage: Storage,
    /// Whether its owner may delete it before the end.
    pub deletable: bool,
}

/// `shared_blob::SharedBlob`: anyone may fund and extend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedBlob {
    /// The shared object's id.
    pub id: ObjectId,
    /// The blob in it.
    pub blob: Blob,
    /// FROST for extensions.
    pub funds: u64,
}

/// `0x2::coin::Coin<T>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coin {
    /// Its id.
    pub id: ObjectId,
    /// In the coin's smallest unit.
    pub balance: u64,
}

/// `0x2::clock::Clock`, object `0x6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// `0x6`.
    pub id: ObjectId,
    /// Milliseconds since 1970, of the last consensus commit.
    pub timestamp_ms: u64,
}

/// `events::BlobRegistered`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRegistered {
    /// The epoch of the event.
    pub epoch: u32,
    /// The blob.
    #[serde(with = "u256")]
    pub blob_id: BlobId,
    /// Bytes before encoding.
    pub size: u64,
    /// 1 is RS2.
    pub encoding_type: u8,
    /// The epoch after the last.
    pub end_epoch: u32,
    /// Whether it can be deleted.
    pub deletable: bool,
    /// The `Blob` object.
    pub object_id: ObjectId,
}

/// `events::BlobCertified`, also emitted by an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobCertified {
    /// The epoch of the first certification.
    pub epoch: u32,
    /// The blob.
    #[serde(with = "u256")]
    pub blob_id: BlobId,
    /// The epoch after the last.
    pub end_epoch: u32,
    /// Whether it can be deleted.
    pub deletable: bool,
    /// The `Blob` object.
    pub object_id: ObjectId,
    /// Whether only the end moved.
    pub is_extension: bool,
}

/// `events::BlobDeleted`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobDeleted {
    /// The epoch of the event.
    pub epoch: u32,
    /// The blob.
    #[serde(with = "u256")]
    pub blob_id: BlobId,
    /// The epoch after the last.
    pub end_epoch: u32,
    /// The `Blob` object.
    pub object_id: ObjectId,
    /// Whether it had been certified.
    pub was_certified: bool,
}

/// `events::InvalidBlobID`: a quorum found the blob badly encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvalidBlobId {
    /// The epoch of the event.
    pub epoch: u32,
    /// The blob.
    #[serde(with = "u256")]
    pub blob_id: BlobId,
}

/// A blob id as Move's `u256`: its 32 bytes in their own order.
pub mod u256 {
    use redstuff::BlobId;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes the 32 bytes.
    ///
    /// # Errors
    /// The serializer's own.
    pub fn serialize<S: Serializer>(id: &BlobId, serializer: S) -> Result<S::Ok, S::Error> {
        id.as_bytes().serialize(serializer)
    }

    /// Reads 32 bytes.
    ///
    /// # Errors
    /// Fewer than 32.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BlobId, D::Error> {
        <[u8; 32]>::deserialize(deserializer).map(BlobId)
    }
}

#[cfg(test)]
mod tests;
