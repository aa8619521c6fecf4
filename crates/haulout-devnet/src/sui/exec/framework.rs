//! The few functions of the Sui framework that transactions here call.

use sui_sdk_types::{Address, CommandArgumentError, ExecutionError, Owner};

use super::{Call, Failure, Value, ptb::coin_type};
use crate::sui::names::upgrade_cap_tag;

/// `sui::balance::ENotEnough`.
const NOT_ENOUGH: u64 = 2;
/// `sui::balance::ENonZero`.
const NON_ZERO: u64 = 0;

pub(crate) fn call(call: &mut Call<'_, '_>, name: (&str, &str)) -> Result<Vec<Value>, Failure> {
    match name {
        ("transfer", "public_transfer") => {
            call.arity(2)?;
            let to: Address = call.data(1)?;
            place(call, Owner::Address(to))
        }
        // The chain puts the version in when the transaction ends.
        ("transfer", "public_share_object") => place(call, Owner::Shared(0)),
        ("transfer", "public_freeze_object") => place(call, Owner::Immutable),
        ("package", "make_immutable") => {
            call.arity(1)?;
            let (cap, _): (_, UpgradeCap) = call.take(0, &upgrade_cap_tag())?;
            call.session.delete(cap);
            Ok(vec![])
        }
        ("coin", "zero") => {
            let type_ = coin_type(call.type_arguments)?;
            let id = call.session.fresh_id();
            Ok(vec![call.create(id, type_, true, &(id, 0u64))])
        }
        ("coin", "split") => {
            call.arity(2)?;
            let type_ = coin_type(call.type_arguments)?;
            let (id, (_, value)): (_, (Address, u64)) = call.object_mut(0, &type_)?;
            let amount: u64 = call.data(1)?;
            let Some(rest) = value.checked_sub(amount) else {
                return Err(Failure::abort(Address::TWO, "balance", "split", NOT_ENOUGH));
            };
            call.put(id, &(id, rest));
            let part = call.session.fresh_id();
            Ok(vec![call.create(part, type_, true, &(part, amount))])
        }
        ("coin", "join") => {
            call.arity(2)?;
            let type_ = coin_type(call.type_arguments)?;
            let (id, (_, value)): (_, (Address, u64)) = call.object_mut(0, &type_)?;
            let (other, (_, more)): (_, (Address, u64)) = call.take(1, &type_)?;
            let Some(sum) = value.checked_add(more) else {
                return Err(Failure(ExecutionError::CoinBalanceOverflow));
            };
            call.session.delete(other);
            call.put(id, &(id, sum));
            Ok(vec![])
        }
        ("coin", "destroy_zero") => {
            call.arity(1)?;
            let type_ = coin_type(call.type_arguments)?;
            let (id, (_, value)): (_, (Address, u64)) = call.take(0, &type_)?;
            if value != 0 {
                return Err(Failure::abort(Address::TWO, "balance", "destroy_zero", NON_ZERO));
            }
            call.session.delete(id);
            Ok(vec![])
        }
        _ => Err(Failure(ExecutionError::FunctionNotFound)),
    }
}

/// `0x2::package::UpgradeCap`.
pub(crate) type UpgradeCap = (Address, Address, u64, u8);

/// Gives the first argument, of any type with `store`, a new place.
fn place(call: &mut Call<'_, '_>, owner: Owner) -> Result<Vec<Value>, Failure> {
    let id = call.id(0)?;
    let live = call.session.live(id);
    let (public, type_) = match live {
        Some(live) => (live.public, live.type_.clone()),
        None => return Err(Failure::argument(0, CommandArgumentError::TypeMismatch)),
    };
    if !public {
        return Err(Failure::argument(0, CommandArgumentError::InvalidTransferObject));
    }
    call.take_any(0, &type_)?;
    call.session.place(id, owner);
    Ok(vec![])
}
