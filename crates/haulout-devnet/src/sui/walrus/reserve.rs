//! Buying storage: `reserve_space` of module `system`, and module `storage_resource`.

use haulout_sui::object_id::object_id;
use haulout_sui::walrus_types::Storage;

use super::{
    storage_tag,
    system::{INNER, INVALID_EPOCHS_AHEAD, System, payment},
};
use crate::sui::exec::{Call, Failure, Value};

// system_state_inner
const INVALID_RESOURCE_SIZE: u64 = 11;

/// `reserve_space(system, storage_amount, epochs_ahead, payment): Storage`.
pub(super) fn reserve_space(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(4)?;
    let system = System::open(call, 0, true)?;
    let (amount, epochs): (u64, u32) = (call.data(1)?, call.data(2)?);
    let max = system.inner.future_accounting.length;
    let ok = epochs > 0 && epochs <= max;
    call.assert(ok, INNER, "reserve_space", INVALID_EPOCHS_AHEAD)?;
    let start = system.epoch();
    reserve(call, system, amount, start..start + epochs, 3)
}

/// `reserve_space_for_epochs(system, storage_amount, start, end, payment): Storage`.
pub(super) fn reserve_space_for_epochs(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(5)?;
    let system = System::open(call, 0, true)?;
    let (amount, start, end): (u64, u32, u32) = (call.data(1)?, call.data(2)?, call.data(3)?);
    let start = start.max(system.epoch());
    reserve(call, system, amount, start..end, 4)
}

fn reserve(
    call: &mut Call<'_, '_>,
    mut system: System,
    amount: u64,
    epochs: std::ops::Range<u32>,
    coin: usize,
) -> Result<Vec<Value>, Failure> {
    let now = system.epoch();
    let function = "reserve_space_for_epochs";
    let max = system.inner.future_accounting.length;
    let ok = epochs.end > epochs.start && epochs.end - now <= max;
    call.assert(ok, INNER, function, INVALID_EPOCHS_AHEAD)?;
    let ahead = epochs.start - now..epochs.end - now;
    let (coin, mut payment) = payment(call, coin)?;
    system.pay_storage(call, &mut payment, amount, ahead.clone())?;
    call.assert(amount > 0, INNER, "reserve_space_without_payment", INVALID_RESOURCE_SIZE)?;
    system.use_capacity(call, amount, ahead)?;
    call.put(coin, &payment);
    system.save(call);
    let id = call.session.fresh_id();
    let (start_epoch, end_epoch) = (epochs.start, epochs.end);
    let storage = Storage { id: object_id(id), start_epoch, end_epoch, storage_size: amount };
    Ok(vec![call.create(id, storage_tag(call.package), true, &storage)])
}

/// `storage_resource::destroy(storage)`.
pub(super) fn destroy_storage(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(1)?;
    let (id, _): (_, Storage) = call.take(0, &storage_tag(call.package))?;
    call.session.delete(id);
    Ok(vec![])
}
