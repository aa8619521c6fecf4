//! Who has what, whom to ask, and whose turn it is.
//!
//! Everything here is a plain state machine: no sockets, no clock, no threads, no logging and no source of
//! randomness. The caller passes in the time ([`Now`]) and, where a choice must be spread, one random `u64`.
//! So the same code runs under the mesh on real sockets, in tests and in simulations, and one seed reproduces a run.
//!
//! | module | the question it answers |
//! | --- | --- |
//! | [`ids`] | who is this, and when is now |
//! | [`fault`] | what a peer did wrong, and what that costs it |
//! | [`holdings`] | what can a peer serve, in few bytes on the wire |
//! | [`portions`] | which peer is told how much of it, when there are many |
//! | [`directory`] | which peers can serve this key |
//! | [`hearsay`] | who holds what according to others |
//! | [`peers`] | what do we know of a peer: state, speed, blame |
//! | [`choose`] | whom of them to ask first, and when to ask a second one |
//! | [`plan`] | which byte range of a NAR to ask from whom next |
//! | [`flight`] | is somebody on this machine already fetching that |
//! | [`home`] | whose turn is it to fetch a key from outside |
//! | [`rate`] | how long must these bytes wait |
//! | [`site`] | how one download from outside serves everybody |
//!
//! Rule for errors: what a peer can cause is a value (`Result` or an enum), never an assertion.

pub mod choose;
pub mod directory;
pub mod estimate;
pub mod fault;
pub mod flight;
pub mod hearsay;
pub mod holdings;
pub mod home;
pub mod ids;
pub mod peers;
pub mod plan;
pub mod portions;
mod random;
pub mod rate;
pub mod site;

pub use fault::Fault;
pub use ids::{Now, PeerId};
