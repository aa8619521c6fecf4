//! The Walrus contracts: a native model of the functions that clients call.
//!
//! Checks, their order and their abort codes are those of contract version 3. Left out: staking by
//! users, votes on prices, rewards (they gather, nobody takes them), event blobs, deny lists, pools.

mod certificate;
mod genesis;
mod index;
mod metadata;
mod reserve;
mod shared_blob;
mod staking;
mod system;
mod view;

pub use genesis::WalrusParams;
pub(crate) use genesis::{WalrusIds, genesis};
pub(crate) use index::BlobIndex;
pub(crate) use view::{View, view};

use sui_sdk_types::{Address, ExecutionError, StructTag};

use super::{
    exec::{Call, Failure, Value},
    names::tag,
};

/// The version of the contracts: key of the fields with their state.
pub(crate) const VERSION: u64 = 3;

/// Runs `module::function` of Walrus.
pub(crate) fn call(call: &mut Call<'_, '_>, name: (&str, &str)) -> Result<Vec<Value>, Failure> {
    match name {
        ("system", "reserve_space") => reserve::reserve_space(call),
        ("system", "reserve_space_for_epochs") => reserve::reserve_space_for_epochs(call),
        ("system", "register_blob") => system::register_blob(call),
        ("system", "certify_blob") => system::certify_blob(call),
        ("system", "delete_blob") => system::delete_blob(call),
        ("system", "extend_blob") => system::extend_blob(call),
        ("system", "extend_blob_with_resource") => system::extend_blob_with_resource(call),
        ("system", "invalidate_blob_id") => system::invalidate_blob_id(call),
        ("blob", "burn") => system::burn(call),
        ("metadata", "new") => metadata::new(call),
        ("metadata", "insert_or_update") => metadata::insert_or_update(call),
        ("metadata", "remove") => metadata::remove(call),
        ("blob", "add_metadata") => metadata::add_metadata(call),
        ("blob", "add_or_replace_metadata") => metadata::add_or_replace_metadata(call),
        ("blob", "take_metadata") => metadata::take_metadata(call),
        ("blob", "insert_or_update_metadata_pair") => metadata::insert_or_update_pair(call),
        ("blob", "remove_metadata_pair") => metadata::remove_pair(call),
        ("storage_resource", "destroy") => reserve::destroy_storage(call),
        ("shared_blob", "new") => shared_blob::new(call),
        ("shared_blob", "new_funded") => shared_blob::new_funded(call),
        ("shared_blob", "fund") => shared_blob::fund(call),
        ("shared_blob", "extend") => shared_blob::extend(call),
        ("staking", "voting_end") => staking::voting_end(call),
        ("staking", "initiate_epoch_change") => staking::initiate_epoch_change(call),
        ("staking", "epoch_sync_done") => staking::epoch_sync_done(call),
        _ => Err(Failure(ExecutionError::FunctionNotFound)),
    }
}

/// `blob::Blob`.
pub(crate) fn blob_tag(walrus: Address) -> StructTag {
    tag(walrus, "blob", "Blob")
}

/// `storage_resource::Storage`.
pub(crate) fn storage_tag(walrus: Address) -> StructTag {
    tag(walrus, "storage_resource", "Storage")
}

/// `system::System`.
pub(crate) fn system_tag(walrus: Address) -> StructTag {
    tag(walrus, "system", "System")
}

/// `staking::Staking`.
pub(crate) fn staking_tag(walrus: Address) -> StructTag {
    tag(walrus, "staking", "Staking")
}

/// `system_state_inner::SystemStateInnerV1`.
pub(crate) fn system_inner_tag(walrus: Address) -> StructTag {
    tag(walrus, "system_state_inner", "SystemStateInnerV1")
}

/// `staking_inner::StakingInnerV1`.
pub(crate) fn staking_inner_tag(walrus: Address) -> StructTag {
    tag(walrus, "staking_inner", "StakingInnerV1")
}

/// `0x2::coin::Coin<wal::WAL>`.
pub(crate) fn wal_coin_tag(wal: Address) -> StructTag {
    StructTag::coin(tag(wal, "wal", "WAL").into())
}
