//! A client of Walrus storage nodes.
//!
//! What the chain says (who stores what, which blobs exist) comes through two traits,
//! [`ChainReader`] and [`Registrar`], so that this crate knows nothing of Sui: a real chain is
//! `haulout-sui`, a committee given as data is [`StaticChain`]. Nothing a storage node, a peer or
//! an aggregator answers is believed: metadata is checked against the blob id, slivers against
//! the metadata, confirmations against the committee's keys.
//!
//! [`wire`] and [`bls`] are what the nodes' interface is made of; a server of that interface uses
//! the same types.

pub mod bls;
mod chain;
pub mod committee;
pub mod wire;

pub use chain::{
    BlobName, BlobState, BoxFuture, Certified, ChainError, ChainErrorKind, ChainReader, Registered,
    Registrar, Registration, StaticChain,
};
pub use committee::{
    Committee, CommitteeError, CommitteeView, EpochState, NodeId, ObjectId, StorageNode,
};
