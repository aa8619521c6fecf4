//! The committees as the chain has them.

use std::sync::Arc;

use haulout_sui::object_id::address;
use haulout_sui::walrus_types::{EpochState, Field, ShardAssignment, StakingInner, StakingPool};
use haulout_walrus::committee::{self, Committee, CommitteeView, ObjectId, StorageNode};
use redstuff::{ShardCount, ShardIndex};
use sui_sdk_types::{Address, Version};

use super::VERSION;
use crate::sui::{exec::field_id, model::Store, names::decode};

/// The committees, and the version of the object they were read from.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) committees: CommitteeView,
    pub(crate) current: Arc<Committee>,
    pub(crate) previous: Option<Arc<Committee>>,
    pub(crate) version: Version,
}

impl View {
    /// The version of the object that a view would be read from.
    pub(crate) fn version_on(store: &Store, staking: Address) -> Option<Version> {
        store.get(field_id(staking, VERSION)).map(|object| object.version())
    }
}

/// Reads the committees. `None` on a chain without Walrus.
pub(crate) fn view(store: &Store, staking: Address) -> Option<View> {
    let object = store.get(field_id(staking, VERSION))?;
    let field: Field<u64, StakingInner> = decode(object.as_struct()?.contents())?;
    let inner = field.value;
    let of = |epoch, assignment| members(store, inner.n_shards, epoch, assignment);
    let state = match inner.epoch_state {
        EpochState::EpochChangeSync(weight) => committee::EpochState::ChangeSync(weight),
        EpochState::EpochChangeDone(at) => committee::EpochState::ChangeDone(at),
        EpochState::NextParamsSelected(at) => committee::EpochState::NextParamsSelected(at),
    };
    let committees = CommitteeView {
        epoch: inner.epoch,
        state,
        current: of(inner.epoch, &inner.committee)?,
        previous: of(inner.epoch.saturating_sub(1), &inner.previous_committee),
        next: inner.next_committee.as_ref().and_then(|next| of(inner.epoch + 1, next)),
    };
    Some(View {
        current: Arc::new(committees.current.clone()),
        previous: committees.previous.clone().map(Arc::new),
        committees,
        version: object.version(),
    })
}

fn members(
    store: &Store,
    n_shards: u16,
    epoch: u32,
    assignment: &ShardAssignment,
) -> Option<Committee> {
    let member = |(id, shards): &(ObjectId, Vec<u16>)| {
        let object = store.get(address(*id))?;
        let pool: StakingPool = decode(object.as_struct()?.contents())?;
        let info = pool.node_info;
        let key = blst::min_pk::PublicKey::deserialize(&info.public_key).ok()?;
        Some(StorageNode {
            node_id: *id,
            name: info.name,
            address: info.network_address,
            network_public_key: info.network_public_key,
            bls_public_key: key.compress(),
            shards: shards.iter().copied().map(ShardIndex).collect(),
        })
    };
    let members: Option<Vec<_>> = assignment.iter().map(member).collect();
    Committee::new(epoch, ShardCount::new(n_shards).ok()?, members?).ok()
}
