//! A Walrus network on loopback: for the demo, for tests and for development.
//!
//! [`storage`] has the committee of storage nodes, which speak the node API of Walrus
//! over HTTPS and hold real slivers under real keys. What is registered and certified
//! they learn from a [`storage::NodeChain`].

pub mod control;
mod local;
pub mod storage;
pub mod sui;

pub use local::{LocalNet, LocalNetError, Plan, files};
