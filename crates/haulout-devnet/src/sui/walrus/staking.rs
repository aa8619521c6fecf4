//! Module `staking`: the change of Walrus' epoch.
//!
//! Who may call and what happens is as in the contract, with two differences: the time that has
//! to pass is left to whoever runs the devnet, and the next committee does not come from stake.
//! Every member hands its lowest shard to the next member instead, so weights stay and shards move.

use haulout_sui::object_id::address;
use haulout_sui::walrus_types::{
    BlsCommittee, BlsCommitteeMember, Clock, EpochAccounting, EpochParams, EpochState,
    ShardAssignment, StakingInner, StakingPool, Versioned,
};
use serde::{Deserialize, Serialize};
use sui_sdk_types::{Address, StructTag};

use super::{
    VERSION,
    genesis::{aggregate_key, pool_tag},
    staking_inner_tag, staking_tag,
    system::System,
};
use crate::sui::{
    exec::{Call, Failure, Value},
    names::{decode, tag},
};

// staking
const WRONG_VERSION: u64 = 1;
// staking_inner
const WRONG_EPOCH_STATE: u64 = 0;
const INVALID_SYNC_EPOCH: u64 = 1;
const DUPLICATE_SYNC_DONE: u64 = 2;
const NOT_IN_COMMITTEE: u64 = 4;

const INNER: &str = "staking_inner";

/// `storage_node::StorageNodeCap`: who has it speaks for the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StorageNodeCap {
    pub(crate) id: Address,
    pub(crate) node_id: Address,
    pub(crate) last_epoch_sync_done: u32,
    pub(crate) last_event_blob_attestation: Option<(u64, u32)>,
    pub(crate) deny_list_root: [u8; 32],
    pub(crate) deny_list_sequence: u64,
    pub(crate) deny_list_size: u64,
}

/// `storage_node::StorageNodeCap`.
pub(crate) fn cap_tag(walrus: Address) -> StructTag {
    tag(walrus, "storage_node", "StorageNodeCap")
}

/// `events::ShardsReceived`.
#[derive(Serialize)]
struct ShardsReceived {
    epoch: u32,
    shards: Vec<u16>,
}

fn open(call: &mut Call<'_, '_>) -> Result<(Address, StakingInner), Failure> {
    let (id, staking): (_, Versioned) = call.object_mut(0, &staking_tag(call.package))?;
    let current = address(staking.package_id) == call.called;
    call.assert(staking.version == VERSION && current, "staking", "inner", WRONG_VERSION)?;
    match call.session.field(id, VERSION, &staking_inner_tag(call.package)) {
        Some(inner) => Ok((id, inner)),
        None => call.abort("staking", "inner", WRONG_VERSION),
    }
}

fn clock(call: &Call<'_, '_>, at: usize) -> Result<u64, Failure> {
    let (_, clock): (_, Clock) = call.object(at, &tag(Address::TWO, "clock", "Clock"))?;
    Ok(clock.timestamp_ms)
}

/// `voting_end(staking, clock)`: fixes the next committee and its parameters.
pub(super) fn voting_end(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(2)?;
    let (id, mut staking) = open(call)?;
    let now = clock(call, 1)?;
    let ready = matches!(staking.epoch_state, EpochState::EpochChangeDone(_));
    call.assert(ready, INNER, "voting_end", WRONG_EPOCH_STATE)?;
    staking.next_committee = Some(rotate(&staking.committee));
    staking.next_epoch_params = Some(voted(call, &staking.committee));
    staking.epoch_state = EpochState::NextParamsSelected(now);
    let next_epoch = staking.epoch + 1;
    call.session.set_field(id, VERSION, &staking);
    emit(call, "EpochParametersSelected", &next_epoch);
    Ok(vec![])
}

/// `initiate_epoch_change(staking, system, clock)`.
pub(super) fn initiate_epoch_change(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(3)?;
    let (id, mut staking) = open(call)?;
    let mut system = System::open(call, 1, true)?;
    clock(call, 2)?;
    let function = "initiate_epoch_change";
    let ready = matches!(staking.epoch_state, EpochState::NextParamsSelected(_));
    call.assert(ready, INNER, function, WRONG_EPOCH_STATE)?;
    let (Some(next), Some(params)) = (staking.next_committee.take(), staking.next_epoch_params)
    else {
        return call.abort(INNER, function, WRONG_EPOCH_STATE);
    };
    staking.next_epoch_params = None;
    staking.previous_committee = std::mem::replace(&mut staking.committee, next);
    staking.epoch += 1;
    staking.epoch_state = EpochState::EpochChangeSync(0);

    let inner = &mut system.inner;
    inner.committee = bls_committee(call, &staking.committee, staking.epoch, staking.n_shards);
    let ring = &mut inner.future_accounting;
    if let Some(old) = ring.ring_buffer.get_mut(ring.current_index as usize) {
        let epoch = old.epoch + ring.length;
        *old = EpochAccounting { epoch, used_capacity: 0, rewards: 0 };
        ring.current_index = (ring.current_index + 1) % ring.length.max(1);
    }
    let now = ring.ring_buffer.get(ring.current_index as usize);
    inner.used_capacity_size = now.map_or(0, |accounts| accounts.used_capacity);
    inner.total_capacity_size = params.total_capacity_size.max(inner.used_capacity_size);
    let epoch = staking.epoch;
    call.session.set_field(id, VERSION, &staking);
    system.save(call);
    emit(call, "EpochChangeStart", &epoch);
    Ok(vec![])
}

/// `epoch_sync_done(staking, cap, epoch, clock)`: a node has its shards.
pub(super) fn epoch_sync_done(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(4)?;
    let (id, mut staking) = open(call)?;
    let (cap_id, mut cap): (_, StorageNodeCap) = call.object_mut(1, &cap_tag(call.package))?;
    let epoch: u32 = call.data(2)?;
    let now = clock(call, 3)?;
    let function = "epoch_sync_done";
    call.assert(epoch == staking.epoch, INNER, function, INVALID_SYNC_EPOCH)?;
    call.assert(cap.last_epoch_sync_done < epoch, INNER, function, DUPLICATE_SYNC_DONE)?;
    let member = staking.committee.iter().find(|(node, _)| address(*node) == cap.node_id);
    let Some((_, shards)) = member else {
        return call.abort(INNER, function, NOT_IN_COMMITTEE);
    };
    let shards = shards.clone();
    cap.last_epoch_sync_done = epoch;
    call.put(cap_id, &cap);
    emit(call, "ShardsReceived", &ShardsReceived { epoch, shards: shards.clone() });
    if let EpochState::EpochChangeSync(weight) = staking.epoch_state {
        let weight = weight.saturating_add(u16::try_from(shards.len()).unwrap_or(u16::MAX));
        let done = 3 * u32::from(weight) > 2 * u32::from(staking.n_shards);
        staking.epoch_state = match done {
            true => EpochState::EpochChangeDone(now),
            false => EpochState::EpochChangeSync(weight),
        };
        if done {
            emit(call, "EpochChangeDone", &epoch);
        }
        call.session.set_field(id, VERSION, &staking);
    }
    Ok(vec![])
}

/// Every member's lowest shard goes to the next member.
pub(super) fn rotate(committee: &ShardAssignment) -> ShardAssignment {
    let lowest: Vec<_> = committee.iter().map(|(_, shards)| shards.iter().min().copied()).collect();
    let count = committee.len();
    let next = committee.iter().enumerate().map(|(i, (node, shards))| {
        let gone = lowest[i];
        let come = lowest[(i + count - 1) % count];
        let mut shards: Vec<_> =
            shards.iter().copied().filter(|shard| Some(*shard) != gone).chain(come).collect();
        shards.sort_unstable();
        (*node, shards)
    });
    next.collect()
}

/// The pool of a node.
fn pool(call: &Call<'_, '_>, node: Address) -> Option<StakingPool> {
    let object = call.session.env.store.get(node)?;
    let data = object.as_struct().filter(|d| *d.object_type() == pool_tag(call.package))?;
    decode(data.contents())
}

/// The parameters of the next epoch: all nodes vote the same here, so the first one's.
fn voted(call: &Call<'_, '_>, committee: &ShardAssignment) -> EpochParams {
    let votes = committee.first().and_then(|(node, _)| pool(call, address(*node)));
    let votes = votes.map(|pool| pool.voting_params);
    let nodes = committee.len() as u64;
    EpochParams {
        total_capacity_size: votes.map_or(0, |v| v.node_capacity.saturating_mul(nodes)),
        storage_price_per_unit_size: votes.map_or(0, |v| v.storage_price),
        write_price_per_unit_size: votes.map_or(0, |v| v.write_price),
    }
}

fn bls_committee(
    call: &Call<'_, '_>,
    assignment: &ShardAssignment,
    epoch: u32,
    n_shards: u16,
) -> BlsCommittee {
    let member = |(node, shards): &(haulout_sui::ObjectId, Vec<u16>)| BlsCommitteeMember {
        public_key: pool(call, address(*node)).map(|p| p.node_info.public_key).unwrap_or_default(),
        weight: u16::try_from(shards.len()).unwrap_or(u16::MAX),
        node_id: *node,
    };
    let members: Vec<_> = assignment.iter().map(member).collect();
    let total_aggregated_key = aggregate_key(members.iter().map(|m| m.public_key.as_slice()));
    BlsCommittee { members, n_shards, epoch, total_aggregated_key }
}

fn emit<T: Serialize>(call: &mut Call<'_, '_>, name: &'static str, event: &T) {
    let type_ = tag(call.package, "events", name);
    call.session.emit((call.called, "staking"), type_, event);
}

#[cfg(test)]
mod tests {
    use super::*;
    use haulout_sui::ObjectId;

    #[test]
    fn weights_stay_and_shards_move() {
        let old = vec![
            (ObjectId([1; 32]), vec![0, 1, 2]),
            (ObjectId([2; 32]), vec![3]),
            (ObjectId([3; 32]), vec![4, 5]),
        ];
        let new = rotate(&old);
        assert_eq!(new[0].1, [1, 2, 4]);
        assert_eq!(new[1].1, [0]);
        assert_eq!(new[2].1, [3, 5]);
        assert_eq!(rotate(&vec![(ObjectId([1; 32]), vec![0, 1])])[0].1, [0, 1]);
    }
}
