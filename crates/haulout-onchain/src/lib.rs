//! Archives on Walrus and Sui: what `haulout-depot` wants, from `haulout-walrus` and `haulout-sui`.
//!
//! * [`ArchiveFile`] names an archive: network, object, package, and the cap of whoever publishes to it;
//! * [`OnChain`] reads it: blobs by slivers from storage nodes, its state proven from a trust anchor;
//! * [`Following`] is the same for an agent, which never waits for the chain;
//! * with a wallet it publishes too, the index blob certified and the archive updated in one transaction;
//! * [`create`] makes a new archive; [`change`] says who publishes, or ends its changes.
#![forbid(unsafe_code)]

mod create;
mod file;
mod following;
mod memory;
mod onchain;
mod owner;
mod read;

pub use create::{Created, create};
pub use file::{ArchiveFile, FileError};
pub use following::{Following, OtherWay};
pub use memory::RecentBytes;
pub use onchain::{OnChain, Publisher};
pub use owner::{Change, change};
