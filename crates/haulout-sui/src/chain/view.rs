//! One reading of Walrus' System and Staking objects and all that hangs on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{SystemTime, UNIX_EPOCH},
};

use haulout_walrus::{
    bls,
    committee::{
        Committee, CommitteeView, EpochState, MEMBERS_MAX, NETWORK_KEY_BYTES, StorageNode,
        split_address,
    },
};
use redstuff::{ShardCount, ShardIndex};
use sui_sdk_types::{Object, Owner, TypeTag};

use super::source::Source;
use crate::{
    ObjectId,
    object_id::{address, object_id},
    rpc::{Fault, RpcError},
    walrus_types::{
        self as types, Field, LayoutError, ShardAssignment, StakingInner, StakingPool,
        SystemStateInner, Versioned, decode,
    },
};

/// How often a reading is repeated that an epoch change cut in two.
const TRIES: usize = 3;

/// Walrus' state, as one full node told it.
#[derive(Debug, Clone)]
pub struct SystemView {
    /// Committees and where the epoch is in its life.
    pub committees: CommitteeView,
    /// The package whose functions are to be called.
    pub package: ObjectId,
    /// The package that defined the types.
    pub type_package: ObjectId,
    /// Version at which the System object became shared; transactions name it.
    pub system_shared_at: u64,
    /// FROST per MiB (encoded) and epoch.
    pub storage_price: u64,
    /// FROST per MiB (encoded) and write.
    pub write_price: u64,
    /// Epochs storage can be reserved ahead.
    pub max_epochs_ahead: u32,
    /// The System object's id.
    pub system_object: ObjectId,
    /// When the epoch's state can change next, milliseconds since 1970.
    next_change_ms: u64,
}

impl SystemView {
    /// Whether the clock says that the epoch's state may be another by now.
    pub(super) fn may_have_changed(&self) -> bool {
        // Before 1970 nothing has changed yet.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.as_millis() >= u128::from(self.next_change_ms)
    }
}

/// Reads everything from one node.
///
/// # Errors
/// No usable answer, or objects that are not Walrus' as this program knows it.
pub(super) async fn read_view(
    source: &Source<'_>,
    system: ObjectId,
    staking: ObjectId,
) -> Result<SystemView, RpcError> {
    let mut last = None;
    for _ in 0..TRIES {
        match read_once(source, system, staking).await {
            Ok(Some(view)) => return Ok(view),
            Ok(None) => last = None,
            Err(error) => last = Some(error),
        }
        if last.is_some() {
            break;
        }
    }
    Err(last.unwrap_or_else(|| {
        RpcError::new(Fault::Unavailable, source.node.url(), "System and Staking are of two epochs")
    }))
}

/// `None`: an epoch change came between two reads.
async fn read_once(
    source: &Source<'_>,
    system: ObjectId,
    staking: ObjectId,
) -> Result<Option<SystemView>, RpcError> {
    let reader = Reader { source };
    let outer = source.read_all(&[system, staking]).await?;
    let system_object = reader.present(&outer, 0, system)?;
    let staking_object = reader.present(&outer, 1, staking)?;
    let (head, type_package) = reader.versioned(system_object, "system", "System")?;
    let (staking_head, _) = reader.versioned(staking_object, "staking", "Staking")?;
    let ids = [inner_id(system, head.version), inner_id(staking, staking_head.version)];
    let inner = source.read_all(&ids).await?;
    let state: Field<u64, SystemStateInner> =
        reader.inner(reader.present(&inner, 0, ids[0])?, system, "SystemStateInnerV1")?;
    let staking: Field<u64, StakingInner> =
        reader.inner(reader.present(&inner, 1, ids[1])?, staking, "StakingInnerV1")?;
    let (state, staking) = (state.value, staking.value);
    if state.committee.epoch != staking.epoch {
        return Ok(None);
    }
    let pools = reader.pools(&staking).await?;
    let committees =
        committees(&state, &staking, &pools).map_err(|reason| reader.untrusted(reason))?;
    let shared_at = match system_object.owner() {
        Owner::Shared(version) => *version,
        _ => return Err(reader.untrusted("the System object is not shared".to_owned())),
    };
    Ok(Some(SystemView {
        committees,
        package: head.package_id,
        type_package,
        system_shared_at: shared_at,
        storage_price: state.storage_price_per_unit_size,
        write_price: state.write_price_per_unit_size,
        max_epochs_ahead: state.future_accounting.length,
        system_object: system,
        next_change_ms: next_change(&staking),
    }))
}

/// The dynamic field with the state.
pub(super) fn inner_id(parent: ObjectId, version: u64) -> ObjectId {
    let key = version.to_le_bytes();
    object_id(address(parent).derive_dynamic_child_id(&TypeTag::U64, &key))
}

/// Parameters are selected from the middle of an epoch on, the next begins one duration
/// after this one did.
fn next_change(staking: &StakingInner) -> u64 {
    match staking.epoch_state {
        types::EpochState::EpochChangeSync(_) => 0,
        types::EpochState::EpochChangeDone(at) => at.saturating_add(staking.epoch_duration / 2),
        types::EpochState::NextParamsSelected(at) => at.saturating_add(staking.epoch_duration / 2),
    }
}

struct Reader<'a> {
    source: &'a Source<'a>,
}

impl Reader<'_> {
    fn untrusted(&self, reason: String) -> RpcError {
        RpcError::new(Fault::Untrusted, self.source.node.url(), reason)
    }

    fn layout(&self, error: &LayoutError) -> RpcError {
        self.untrusted(error.to_string())
    }

    fn present<'o>(
        &self,
        objects: &'o [Option<Object>],
        place: usize,
        id: ObjectId,
    ) -> Result<&'o Object, RpcError> {
        objects.get(place).and_then(Option::as_ref).ok_or_else(|| {
            RpcError::new(Fault::NotFound, self.source.node.url(), format_args!("no object {id}"))
        })
    }

    /// The head of System or Staking, and the package that defined its type.
    fn versioned(
        &self,
        object: &Object,
        module: &str,
        name: &str,
    ) -> Result<(Versioned, ObjectId), RpcError> {
        let value = object.as_struct().filter(|value| {
            let tag = value.object_type();
            tag.module().as_str() == module && tag.name().as_str() == name
        });
        let value = value.ok_or_else(|| {
            let id = object.object_id();
            self.untrusted(format!("object {id} is not Walrus' {module}::{name}"))
        })?;
        let head = decode("System or Staking", value.contents()).map_err(|e| self.layout(&e))?;
        Ok((head, object_id(*value.object_type().address())))
    }

    /// The value of the field with the state, if it is of the version this program knows.
    fn inner<T: serde::de::DeserializeOwned>(
        &self,
        object: &Object,
        parent: ObjectId,
        name: &str,
    ) -> Result<Field<u64, T>, RpcError> {
        let value = object.as_struct().filter(|value| {
            value.object_type().type_params().iter().any(|parameter| {
                matches!(parameter, TypeTag::Struct(tag) if tag.name().as_str() == name)
            })
        });
        let value = value.ok_or_else(|| {
            let id = object.object_id();
            self.untrusted(format!(
                "object {id} is not a {name}: Walrus' contracts are newer than this program"
            ))
        })?;
        if *object.owner() != Owner::Object(address(parent)) {
            return Err(self.untrusted(format!("{name} does not belong to {parent}")));
        }
        decode("Walrus state", value.contents()).map_err(|error| self.layout(&error))
    }

    /// The staking pools of all committees' members.
    async fn pools(
        &self,
        staking: &StakingInner,
    ) -> Result<BTreeMap<ObjectId, StakingPool>, RpcError> {
        let members: BTreeSet<ObjectId> = staking
            .committee
            .iter()
            .chain(&staking.previous_committee)
            .chain(staking.next_committee.iter().flatten())
            .map(|(id, _)| *id)
            .collect();
        if members.len() > MEMBERS_MAX {
            return Err(self.untrusted(format!("{} storage nodes", members.len())));
        }
        let ids: Vec<ObjectId> = members.into_iter().collect();
        let objects = self.source.read_all(&ids).await?;
        ids.iter()
            .zip(&objects)
            .map(|(&id, object)| {
                let value = object.as_ref().and_then(Object::as_struct);
                let value = value.ok_or_else(|| {
                    let what = format_args!("no staking pool {id}");
                    RpcError::new(Fault::NotFound, self.source.node.url(), what)
                })?;
                let pool = decode("staking pool", value.contents()).map_err(|e| self.layout(&e))?;
                Ok((id, pool))
            })
            .collect()
    }
}

/// The three committees, from the contract's state and the pools.
fn committees(
    system: &SystemStateInner,
    staking: &StakingInner,
    pools: &BTreeMap<ObjectId, StakingPool>,
) -> Result<CommitteeView, String> {
    let n_shards = ShardCount::new(staking.n_shards).map_err(|error| error.to_string())?;
    // Certificates are checked against the keys in System, so those count for this epoch.
    let keys: BTreeMap<ObjectId, &[u8]> = system
        .committee
        .members
        .iter()
        .map(|member| (member.node_id, member.public_key.as_slice()))
        .collect();
    let signers = system.committee.members.iter().map(|member| member.node_id);
    if !signers.eq(staking.committee.iter().map(|(id, _)| *id)) {
        return Err("System and Staking name different members".to_owned());
    }
    let build = |epoch: u32, assignment: &ShardAssignment, which: Which| {
        let members = assignment
            .iter()
            .map(|(id, shards)| {
                let pool = pools.get(id).ok_or_else(|| format!("no staking pool {id}"))?;
                let info = &pool.node_info;
                let key = match which {
                    Which::Current => keys.get(id).copied().unwrap_or(&info.public_key),
                    Which::Previous => &info.public_key,
                    Which::Next => info.next_epoch_public_key.as_ref().unwrap_or(&info.public_key),
                };
                storage_node(pool, key, shards)
            })
            .collect::<Result<Vec<_>, String>>()?;
        Committee::new(epoch, n_shards, members).map_err(|error| error.to_string())
    };
    let previous = match staking.epoch.checked_sub(1) {
        Some(epoch) if !staking.previous_committee.is_empty() => {
            Some(build(epoch, &staking.previous_committee, Which::Previous)?)
        }
        _ => None,
    };
    let next = match (&staking.next_committee, staking.epoch.checked_add(1)) {
        (Some(assignment), Some(epoch)) => Some(build(epoch, assignment, Which::Next)?),
        _ => None,
    };
    Ok(CommitteeView {
        epoch: staking.epoch,
        state: match staking.epoch_state {
            types::EpochState::EpochChangeSync(weight) => EpochState::ChangeSync(weight),
            types::EpochState::EpochChangeDone(at) => EpochState::ChangeDone(at),
            types::EpochState::NextParamsSelected(at) => EpochState::NextParamsSelected(at),
        },
        current: build(staking.epoch, &staking.committee, Which::Current)?,
        previous,
        next,
    })
}

#[derive(Clone, Copy)]
enum Which {
    Previous,
    Current,
    Next,
}

/// Addresses and TLS keys are what operators wrote. One operator's mistake must not make
/// everybody else's committee unusable, so what cannot be used is replaced by what cannot
/// be reached: the member keeps its shards and its place among the signers.
fn storage_node(pool: &StakingPool, bls_key: &[u8], shards: &[u16]) -> Result<StorageNode, String> {
    let info = &pool.node_info;
    let bls_public_key = bls::PublicKey::from_uncompressed(bls_key)
        .map_err(|error| format!("the BLS key of node {}: {error}", pool.id))?
        .to_bytes();
    let address = if split_address(&info.network_address).is_some() {
        info.network_address.clone()
    } else {
        tracing::warn!(node = %pool.id, "a storage node whose address is not host:port");
        "unusable-address.invalid:1".to_owned()
    };
    let key = &info.network_public_key;
    let network_public_key = if key.len() == NETWORK_KEY_BYTES && matches!(key[0], 2 | 3) {
        key.clone()
    } else {
        tracing::warn!(node = %pool.id, "a storage node whose network key is not P-256");
        [&[2][..], &[0; NETWORK_KEY_BYTES - 1]].concat()
    };
    Ok(StorageNode {
        node_id: pool.id,
        name: info.name.clone(),
        address,
        network_public_key,
        bls_public_key,
        shards: shards.iter().copied().map(ShardIndex).collect(),
    })
}
