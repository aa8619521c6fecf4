//! Archive objects: what they say, that it is proven, and that nobody goes back.
//!
//! A proof says "written at checkpoint N". What keeps a machine from being held at an old,
//! validly proven state: the highest version seen is on disk and nothing older is accepted;
//! all full nodes and peers are asked, and any one newer proof wins; and an archive is
//! updated at a beat, so that silence shows.

mod state;
#[cfg(feature = "chain")]
mod tracker;

pub use state::{
    ArchiveState, LEVELS_MAX, Level, OwnerCap, PublisherCap, StateError, UpdatedEvent,
};
#[cfg(feature = "chain")]
pub use tracker::{ArchiveError, ArchiveTracker, Beat, Freshness, Proven};

#[cfg(feature = "chain")]
#[cfg(test)]
mod tests;
