//! Walrus and archives as they stand on Sui.
//!
//! * [`network`]: which network: endpoints, ids, trust anchor (no Sui SDK needed);
//! * [`walrus_types`]: Walrus' Move structs, BCS both ways.

pub mod network;
pub mod object_id;
#[cfg(feature = "chain")]
pub mod walrus_types;

pub use network::Network;
pub use object_id::ObjectId;
