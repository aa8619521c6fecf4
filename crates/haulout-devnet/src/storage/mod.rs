//! Walrus storage nodes: the node API over HTTPS, real keys, real slivers on disk.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use haulout_devnet::storage::{Faults, ManualChain, Seats, even_weights};
//!
//! let n = redstuff::ShardCount::new(10)?;
//! let seats = Seats::take("devnet".as_ref(), 5)?;
//! let committee = seats.committee(1, n, &even_weights(n, 5)?)?;
//! let chain = Arc::new(ManualChain::new(committee.clone()));
//! let nodes = seats.start(chain.clone())?;
//! nodes.set_faults(3, Faults { down: true, ..Faults::default() }).await;
//! nodes.stop().await;
//! # Ok(())
//! # }
//! ```

mod answer;
mod body;
mod chain;
mod faults;
mod health;
mod identity;
mod node;
mod nodes;
mod put;
pub mod route;
mod server;
mod shards;
mod store;
mod symbols;

pub use chain::{BlobObject, BlobRecord, EventId, ManualChain, NodeChain, ObjectId};
pub use faults::{Faults, Lie, Refuse};
pub use identity::{Identity, IdentityError, certificate_name};
pub use nodes::{NodesError, Seats, StorageNodes, even_weights};
pub use store::StoreError;
