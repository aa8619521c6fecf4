//! Names of Move types and well-known objects, and the one way to BCS.

use serde::{Serialize, de::DeserializeOwned};
use sui_sdk_types::{Address, Identifier, StructTag, TypeTag};

/// The system state object.
pub(crate) const SYSTEM_STATE: Address = Address::from_static("0x5");
/// The clock.
pub(crate) const CLOCK: Address = Address::from_static("0x6");
/// The deny list of regulated coins: read by every transaction that touches a coin other than SUI.
pub(crate) const DENY_LIST: Address = Address::from_static("0x403");

/// A Move struct without type parameters.
pub(crate) fn tag(package: Address, module: &'static str, name: &'static str) -> StructTag {
    StructTag::new(package, Identifier::from_static(module), Identifier::from_static(name), vec![])
}

/// `0x2::dynamic_field::Field<key, value>`.
pub(crate) fn field_tag(key: TypeTag, value: TypeTag) -> StructTag {
    let (module, name) = ("dynamic_field", "Field");
    StructTag::new(
        Address::TWO,
        Identifier::from_static(module),
        Identifier::from_static(name),
        vec![key, value],
    )
}

/// `0x2::package::UpgradeCap`.
pub(crate) fn upgrade_cap_tag() -> StructTag {
    tag(Address::TWO, "package", "UpgradeCap")
}

/// BCS of a value of this model.
///
/// # Panics
/// Never: the model has no maps with unsortable keys and nothing longer than 2^31.
#[expect(clippy::expect_used, reason = "see above")]
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    bcs::to_bytes(value).expect("values of the model have a BCS form")
}

/// A value from BCS; all bytes must be used.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    bcs::from_bytes(bytes).ok()
}

/// A length as BCS writes it before the items.
pub(crate) fn uleb(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2);
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
