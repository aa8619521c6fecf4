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

mod aggregator;
pub mod bls;
mod chain;
mod client;
pub mod committee;
mod committee_file;
mod http;
pub mod limits;
mod node;
mod plan;
mod read;
mod tls;
pub mod wire;
mod write;

pub use aggregator::is_base_url;
pub use chain::{
    BlobName, BlobState, BoxFuture, Certified, ChainError, ChainErrorKind, ChainReader, Registered,
    Registrar, Registration, StaticChain,
};
pub use client::{Blame, Client, Direct, Node, Piece, SliverFetchError, Source, is_sliver};
pub use committee::{
    Committee, CommitteeError, CommitteeView, EpochState, NodeId, ObjectId, StorageNode,
};
pub use committee_file::{CommitteeFile, CommitteeFileError};
pub use http::HttpError;
pub use node::{NodeClient, NodeError, ReceivedSliver, SliverBody, Uploaded, Verdict};
pub use read::{
    Account, AxisName, ContentCheck, Progress, QuiltReadError, ReadError, ReadOptions, Report,
};
pub use tls::network_key;
pub use write::{Journal, JournalError, StoreOptions, Stored, WriteError, check_certificate};
