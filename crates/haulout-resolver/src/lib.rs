//! Turns a question from Nix into verified bytes: own store, cache, peers.
//!
//! | module | the question it answers |
//! | --- | --- |
//! | `local` | what is in the own store, and who may have it |
//! | [`trust`] | what does this machine believe |
//! | `lookup` | hash part → verified path info |
//! | [`transfer`] | path info → verified NAR bytes, from several peers |
//! | `archives` | what no peer has, proven by an archive |
//! | [`site`] | what nobody here has: fetched from outside once for everybody |
//! | [`peers`] | what is needed of the mesh |
//! | `resolver` | all of it together; the [`haulout_gateway::Substituter`] |

mod archives;
mod bounded;
mod disk;
mod keep;
mod limit;
mod local;
mod logs;
mod lookup;
mod outsides;
pub mod peers;
mod reasons;
mod report;
mod resolver;
mod serving;
pub mod site;
pub mod stats;
mod substituter;
#[cfg(test)]
mod testing;
pub mod transfer;
mod trees;
pub mod trust;

pub use archives::{Archive, Proofs};
pub use keep::{KeepNars, Provenance};
pub use local::{LocalStore, SharePolicy};
pub use resolver::{Resolver, ResolverConfig, Serving, StartError};
pub use transfer::NarBytes;
