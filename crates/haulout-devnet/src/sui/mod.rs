//! A Sui full node of the project's own, with a small faithful model of the chain behind it.
//!
//! * `model`: objects, transactions, checkpoints, epochs: pure, the same from the same seed;
//! * `exec`: what a transaction does, natively, for the functions that are used here;
//! * `walrus`, `archive`: the contracts, native too, with their checks and abort codes;
//! * `grpc`: the services of a real full node, and the faults it can be told to have.
//!
//! It is not a Move VM: a function that is not modelled fails with `FunctionNotFound`. What is
//! signed, hashed and numbered is real: a light client verifies this chain like any other.

mod archive;
mod exec;
mod genesis;
mod grpc;
mod model;
mod names;
mod node;
mod ptb;
mod walrus;

pub use genesis::Setup;
pub use grpc::{FaultState, Faults};
pub use node::{Devnet, FullNode, FullNodeError};
pub use walrus::WalrusParams;

#[cfg(test)]
mod tests;
