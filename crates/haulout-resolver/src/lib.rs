//! Turns a question from Nix into verified bytes: own store, cache, peers.
//!
//! | module | the question it answers |
//! | --- | --- |
//! | [`trust`] | what does this machine believe |
//! | `lookup` | hash part → verified path info |
//! | [`transfer`] | path info → verified NAR bytes, from several peers |
//! | [`peers`] | what is needed of the mesh |

mod bounded;
mod lookup;
pub mod peers;
mod reasons;
pub mod stats;
pub mod transfer;
mod trees;
pub mod trust;
