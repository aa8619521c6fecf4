//! Walrus at the beginning: packages, `System`, `Staking`, a pool and a cap per node, WAL.

use blst::min_pk::{AggregatePublicKey, PublicKey};
use haulout_sui::object_id::{address, object_id};
use haulout_sui::walrus_types::{
    Authorized, BlsCommittee, BlsCommitteeMember, EpochAccounting, EpochState,
    EventBlobCertificationState, Field, FutureAccounting, PoolState, StakingInner, StakingPool,
    StorageNodeInfo, SystemStateInner, TableRef, Versioned, VotingParams,
};
use haulout_walrus::committee::{Committee, StorageNode};
use serde::Serialize;
use sui_sdk_types::{
    Address, Identifier, MoveStruct, ObjectData, Owner, StructTag, TypeTag, hash::Hasher,
};

use super::{
    VERSION,
    staking::{StorageNodeCap, cap_tag},
    staking_inner_tag, staking_tag, system_inner_tag, system_tag,
};
use crate::sui::{
    exec::field_id,
    model::{Kind, Modules, Packages, genesis_package},
    names::{encode, field_tag, tag},
};

/// Terms of the network.
#[derive(Debug, Clone, Copy)]
pub struct WalrusParams {
    /// FROST per MiB (encoded) and epoch.
    pub storage_price: u64,
    /// FROST per MiB (encoded) and write.
    pub write_price: u64,
    /// Encoded bytes that each node offers.
    pub node_capacity: u64,
    /// Milliseconds of an epoch, as the chain tells it. The devnet changes epochs when it is told to.
    pub epoch_duration_ms: u64,
    /// For how many epochs storage can be reserved.
    pub epochs_ahead: u32,
}

impl Default for WalrusParams {
    /// Prices of Walrus' mainnet in March 2025; epochs of mainnet.
    fn default() -> Self {
        Self {
            storage_price: 100_000,
            write_price: 20_000,
            node_capacity: 1 << 50,
            epoch_duration_ms: 14 * 24 * 3_600 * 1_000,
            epochs_ahead: 53,
        }
    }
}

/// Ids of Walrus on this chain.
#[derive(Debug, Clone)]
pub(crate) struct WalrusIds {
    /// The package in type names.
    pub(crate) original: Address,
    /// The package to call: a later version, as on the real networks.
    pub(crate) package: Address,
    pub(crate) wal: Address,
    pub(crate) system: Address,
    pub(crate) staking: Address,
    /// `StorageNodeCap` by member of the first committee.
    pub(crate) caps: Vec<Address>,
}

/// `staking_pool::StakingPool`.
pub(crate) fn pool_tag(walrus: Address) -> StructTag {
    tag(walrus, "staking_pool", "StakingPool")
}

/// Sum of uncompressed keys, compressed; empty if one is not a key.
pub(super) fn aggregate_key<'a>(keys: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let points: Option<Vec<_>> = keys.map(|key| PublicKey::deserialize(key).ok()).collect();
    let points = points.unwrap_or_default();
    let refs: Vec<_> = points.iter().collect();
    AggregatePublicKey::aggregate(&refs, false)
        .map(|sum| sum.to_public_key().compress().to_vec())
        .unwrap_or_default()
}

fn uncompressed(key: &[u8]) -> Vec<u8> {
    PublicKey::uncompress(key).map(|key| key.serialize().to_vec()).unwrap_or_default()
}

/// Puts Walrus with this committee on a chain. Its epoch is the committee's.
pub(crate) fn genesis(
    seed: &[u8; 32],
    committee: &Committee,
    params: &WalrusParams,
    operator: Address,
    now_ms: u64,
    packages: &mut Packages,
) -> (WalrusIds, Vec<(ObjectData, Owner)>) {
    let mut build = Build { seed: *seed, objects: Vec::new(), walrus: Address::ZERO };
    let original = build.id("walrus package");
    build.walrus = original;
    let ids = WalrusIds {
        original,
        package: build.id("walrus package version 3"),
        wal: build.id("wal package"),
        system: build.id("system"),
        staking: build.id("staking"),
        caps: (0..committee.members.len()).map(|i| build.id(&format!("node cap {i}"))).collect(),
    };
    build.packages(&ids, packages);
    build.system(&ids, committee, params);
    build.staking(&ids, committee, params, now_ms);
    for (node, cap) in committee.members.iter().zip(&ids.caps) {
        build.node(node, *cap, params, committee.epoch, operator);
    }
    (ids, build.objects)
}

struct Build {
    seed: [u8; 32],
    walrus: Address,
    objects: Vec<(ObjectData, Owner)>,
}

impl Build {
    fn id(&self, name: &str) -> Address {
        let mut hasher = Hasher::new();
        hasher.update(b"haulout devnet object");
        hasher.update(self.seed);
        hasher.update(name);
        Address::new(hasher.finalize().into_inner())
    }

    /// A table of the contract, named by its id.
    fn table(&self, name: &str, size: u64) -> TableRef {
        TableRef { id: object_id(self.id(name)), size }
    }

    fn add<T: Serialize>(&mut self, type_: StructTag, public: bool, value: &T, owner: Owner) {
        let data = MoveStruct::new(type_, public, 1, encode(value));
        self.objects.extend(data.map(|data| (ObjectData::Struct(data), owner)));
    }

    fn packages(&mut self, ids: &WalrusIds, packages: &mut Packages) {
        const STRUCTS: Modules = &[
            ("blob", &["Blob"]),
            ("bls_aggregate", &["BlsCommittee", "BlsCommitteeMember"]),
            ("events", &["BlobRegistered", "BlobCertified", "BlobDeleted", "EpochChangeStart"]),
            ("metadata", &["Metadata"]),
            ("shared_blob", &["SharedBlob"]),
            ("staking", &["Staking"]),
            ("staking_inner", &["StakingInnerV1"]),
            ("staking_pool", &["StakingPool"]),
            ("storage_node", &["StorageNodeCap", "StorageNodeInfo"]),
            ("storage_resource", &["Storage"]),
            ("system", &["System"]),
            ("system_state_inner", &["SystemStateInnerV1"]),
        ];
        let published = [
            (ids.original, Kind::Walrus, ids.original, 1, STRUCTS),
            (ids.package, Kind::Walrus, ids.original, VERSION, STRUCTS),
            (ids.wal, Kind::Wal, ids.wal, 1, &[("wal", &["WAL"])]),
        ];
        for (id, kind, original, version, structs) in published {
            packages.insert(id, kind, original);
            let package = genesis_package(id, original, version, structs);
            self.objects.push((ObjectData::Package(package), Owner::Immutable));
        }
    }

    /// A shared object, and its state in the dynamic field keyed by its version.
    fn versioned<T: Serialize>(
        &mut self,
        ids: &WalrusIds,
        id: Address,
        outer: StructTag,
        inner: StructTag,
        state: &T,
    ) {
        let object = Versioned {
            id: object_id(id),
            version: VERSION,
            package_id: object_id(ids.package),
            new_package_id: None,
        };
        self.add(outer, false, &object, Owner::Shared(1));
        let field = Field { id: object_id(field_id(id, VERSION)), name: VERSION, value: state };
        let type_ = field_tag(TypeTag::U64, inner.into());
        self.add(type_, false, &field, Owner::Object(id));
    }

    fn system(&mut self, ids: &WalrusIds, committee: &Committee, params: &WalrusParams) {
        let member = |node: &StorageNode| BlsCommitteeMember {
            public_key: uncompressed(&node.bls_public_key),
            weight: u16::try_from(node.shards.len()).unwrap_or(u16::MAX),
            node_id: node.node_id,
        };
        let members: Vec<_> = committee.members.iter().map(member).collect();
        let accounts = |ahead| EpochAccounting {
            epoch: committee.epoch + ahead,
            used_capacity: 0,
            rewards: 0,
        };
        let state = SystemStateInner {
            committee: BlsCommittee {
                total_aggregated_key: aggregate_key(members.iter().map(|m| &m.public_key[..])),
                members,
                n_shards: committee.n_shards.get(),
                epoch: committee.epoch,
            },
            total_capacity_size: params
                .node_capacity
                .saturating_mul(committee.members.len() as u64),
            used_capacity_size: 0,
            storage_price_per_unit_size: params.storage_price,
            write_price_per_unit_size: params.write_price,
            future_accounting: FutureAccounting {
                current_index: 0,
                length: params.epochs_ahead,
                ring_buffer: (0..params.epochs_ahead).map(accounts).collect(),
            },
            event_blob_certification_state: EventBlobCertificationState {
                latest_certified_blob: None,
                aggregate_weight_per_blob: vec![],
            },
            deny_list_sizes: object_id(self.id("deny list sizes")),
        };
        let (outer, inner) = (system_tag(self.walrus), system_inner_tag(self.walrus));
        self.versioned(ids, ids.system, outer, inner, &state);
    }

    fn staking(
        &mut self,
        ids: &WalrusIds,
        committee: &Committee,
        params: &WalrusParams,
        now_ms: u64,
    ) {
        let assignment = committee.members.iter().map(|node| {
            let id = node.node_id;
            (id, node.shards.iter().map(|shard| shard.0).collect())
        });
        let state = StakingInner {
            n_shards: committee.n_shards.get(),
            epoch_duration: params.epoch_duration_ms,
            first_epoch_start: now_ms,
            pools: self.table("pools", committee.members.len() as u64),
            epoch: committee.epoch,
            active_set: object_id(self.id("active set")),
            next_committee: None,
            committee: assignment.collect(),
            previous_committee: vec![],
            next_epoch_params: None,
            epoch_state: EpochState::EpochChangeDone(now_ms),
            next_epoch_public_keys: object_id(self.id("next epoch public keys")),
        };
        let (outer, inner) = (staking_tag(self.walrus), staking_inner_tag(self.walrus));
        self.versioned(ids, ids.staking, outer, inner, &state);
    }

    /// A node's pool, as an entry of the object table of pools, and its cap.
    fn node(
        &mut self,
        node: &StorageNode,
        cap: Address,
        params: &WalrusParams,
        epoch: u32,
        operator: Address,
    ) {
        let node_id = address(node.node_id);
        let named = |name: &str| format!("{name} of {node_id}");
        let pool = StakingPool {
            id: object_id(node_id),
            state: PoolState::Active,
            voting_params: VotingParams {
                storage_price: params.storage_price,
                write_price: params.write_price,
                node_capacity: params.node_capacity,
            },
            node_info: StorageNodeInfo {
                name: node.name.clone(),
                node_id: object_id(node_id),
                network_address: node.address.clone(),
                public_key: uncompressed(&node.bls_public_key),
                next_epoch_public_key: None,
                network_public_key: node.network_public_key.clone(),
                metadata: object_id(self.id(&named("metadata"))),
            },
            activation_epoch: epoch.saturating_sub(1),
            latest_epoch: epoch,
            wal_balance: STAKE,
            num_shares: STAKE,
            pending_shares_withdraw: vec![],
            pre_active_withdrawals: vec![],
            pending_commission_rate: vec![],
            commission_rate: 0,
            exchange_rates: self.table(&named("exchange rates"), 0),
            pending_stake: vec![],
            rewards_pool: 0,
            commission: 0,
            commission_receiver: Authorized::Object(object_id(cap)),
            governance_authorized: Authorized::Address(object_id(operator)),
            extra_fields: self.table(&named("extra fields"), 0),
        };
        let id_tag = TypeTag::from(tag(Address::TWO, "object", "ID"));
        let key = TypeTag::from(StructTag::new(
            Address::TWO,
            Identifier::from_static("dynamic_object_field"),
            Identifier::from_static("Wrapper"),
            vec![id_tag.clone()],
        ));
        let table = self.id("pools");
        let entry = table.derive_dynamic_child_id(&key, node_id.as_bytes());
        let link = (entry, node_id, node_id);
        self.add(field_tag(key, id_tag), false, &link, Owner::Object(table));
        self.add(pool_tag(self.walrus), true, &pool, Owner::Object(entry));
        let cap = StorageNodeCap {
            id: cap,
            node_id,
            last_epoch_sync_done: epoch,
            last_event_blob_attestation: None,
            deny_list_root: [0; 32],
            deny_list_sequence: 0,
            deny_list_size: 0,
        };
        self.add(cap_tag(self.walrus), true, &cap, Owner::Address(operator));
    }
}

/// FROST staked with every node.
const STAKE: u64 = 1_000_000_000_000;
