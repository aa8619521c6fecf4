//! The chain: pure and deterministic. Time is passed in, randomness comes from a seed.

mod chain;
mod checkpoint;
mod history;
mod packages;
mod state;
mod store;
mod system;
mod validators;

pub(crate) use chain::{Chain, Genesis, Rejected};
pub(crate) use checkpoint::{Checkpoint, Epoch, Executed, tree as checkpoint_tree};
pub(crate) use history::History;
pub(crate) use packages::{Kind, Modules, Packages, genesis_package};
pub(crate) use state::{STATE_VERSION, state_contents};
pub(crate) use store::Store;
pub(crate) use validators::Validators;
