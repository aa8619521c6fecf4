//! Walrus and archives as they stand on Sui.
//!
//! * [`anchor`]: what proofs could start from, as full nodes tell it;
//! * [`archive`]: archive objects: their state, freshness, and refusal to go back;
//! * [`chain`]: Walrus' committees and blobs, for `haulout-walrus`;
//! * [`network`]: which network: endpoints, ids, trust anchor (no Sui SDK needed);
//! * [`proof`]: objects proven by validator signatures, offline;
//! * [`prover`]: proofs made from what full nodes say, none of which is believed;
//! * [`rpc`]: full nodes, several at once;
//! * [`tx`]: transactions: Walrus' calls, the archive contract's, publishing packages;
//! * [`walrus_types`]: Walrus' Move structs, BCS both ways.

#[cfg(feature = "chain")]
pub mod anchor;
#[cfg(feature = "proof")]
pub mod archive;
#[cfg(feature = "chain")]
pub mod chain;
#[cfg(feature = "proof")]
mod files;
pub mod network;
pub mod object_id;
#[cfg(feature = "proof")]
pub mod proof;
#[cfg(feature = "chain")]
pub mod prover;
#[cfg(feature = "chain")]
pub mod rpc;
#[cfg(feature = "chain")]
pub mod tx;
#[cfg(feature = "proof")]
pub mod walrus_types;

#[cfg(test)]
mod testing_exchanges;
#[cfg(test)]
mod testing_node;

pub use network::Network;
pub use object_id::ObjectId;
