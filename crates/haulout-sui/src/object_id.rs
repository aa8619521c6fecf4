//! Object ids, addresses and package ids: to Sui the same 32 bytes.

pub use haulout_walrus::committee::ObjectId;
#[cfg(feature = "proof")]
use sui_sdk_types::Address;

/// The object with the validators.
pub const SYSTEM_STATE: ObjectId = well_known(5);
/// The clock.
pub const CLOCK: ObjectId = well_known(6);

const fn well_known(last: u8) -> ObjectId {
    let mut bytes = [0; 32];
    bytes[31] = last;
    ObjectId(bytes)
}

/// The SDK's type for the same bytes.
#[cfg(feature = "proof")]
#[must_use]
pub fn address(id: ObjectId) -> Address {
    Address::new(id.0)
}

/// From the SDK's type.
#[cfg(feature = "proof")]
#[must_use]
pub fn object_id(address: Address) -> ObjectId {
    ObjectId(address.into_inner())
}
