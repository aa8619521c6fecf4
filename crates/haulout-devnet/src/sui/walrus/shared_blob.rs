//! Module `shared_blob`: a blob that anybody can fund and extend.

use haulout_sui::object_id::object_id;
use haulout_sui::walrus_types::{Blob, Coin, SharedBlob};
use sui_sdk_types::{Owner, StructTag};

use super::{
    blob_tag,
    system::{System, emit_certified, prolong},
    wal_coin_tag,
};
use crate::sui::{
    exec::{Call, Failure, Value},
    names::tag,
};

fn shared_tag(call: &Call<'_, '_>) -> StructTag {
    tag(call.package, "shared_blob", "SharedBlob")
}

/// `new(blob)`.
pub(super) fn new(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(1)?;
    share(call, 0)
}

/// `new_funded(blob, funds)`.
pub(super) fn new_funded(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(2)?;
    let funds = take_coin(call, 1)?;
    share(call, funds)
}

fn share(call: &mut Call<'_, '_>, funds: u64) -> Result<Vec<Value>, Failure> {
    let (blob_id, blob): (_, Blob) = call.take(0, &blob_tag(call.package))?;
    call.session.wrap(blob_id);
    let id = call.session.fresh_id();
    let type_ = shared_tag(call);
    call.session.create(id, type_, false, &SharedBlob { id: object_id(id), blob, funds });
    call.session.place(id, Owner::Shared(0));
    Ok(vec![])
}

/// `fund(shared, added_funds)`.
pub(super) fn fund(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(2)?;
    let (id, mut shared): (_, SharedBlob) = call.object_mut(0, &shared_tag(call))?;
    shared.funds = shared.funds.saturating_add(take_coin(call, 1)?);
    call.put(id, &shared);
    Ok(vec![])
}

/// `extend(shared, system, extended_epochs)`.
pub(super) fn extend(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(3)?;
    let (id, mut shared): (_, SharedBlob) = call.object_mut(0, &shared_tag(call))?;
    let mut system = System::open(call, 1, true)?;
    let epochs: u32 = call.data(2)?;
    let mut funds = Coin { id: shared.id, balance: shared.funds };
    prolong(call, &mut system, &mut shared.blob, epochs, &mut funds)?;
    shared.funds = funds.balance;
    call.put(id, &shared);
    system.save(call);
    emit_certified(call, &shared.blob, true);
    Ok(vec![])
}

fn take_coin(call: &mut Call<'_, '_>, at: usize) -> Result<u64, Failure> {
    let type_ = wal_coin_tag(call.session.env.packages.wal());
    let (id, coin): (_, Coin) = call.take(at, &type_)?;
    call.session.delete(id);
    Ok(coin.balance)
}
