//! Walrus storage nodes.

mod chain;

pub use chain::{BlobObject, BlobRecord, EventId, ManualChain, NodeChain, ObjectId};
