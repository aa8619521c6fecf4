//! Archives over a blob store and a registry.
//!
//! [`Blobs`] is where bytes are (storage nodes of Walrus, or a directory), [`Registry`] is where the
//! archive's state is (a proven object on Sui, or a file). Neither is believed: what is read is checked
//! against the index root of the state, and whoever implements [`Registry`] proves that.
//!
//! * [`ArchiveSource`] is what an agent asks;
//! * [`Reader`] finds paths and streams their NARs;
//! * [`publish`](publish::publish) adds paths, and goes on where an earlier run was interrupted;
//! * [`merge`](merge::merge) makes several levels one;
//! * [`fund`](fund::fund) pays for longer storage;
//! * [`verify`](verify::verify) re-reads an archive from the root down.
#![forbid(unsafe_code)]

mod cache;
mod dir;
mod error;
pub mod fund;
mod join;
mod journal;
mod lasting;
mod level;
pub mod merge;
mod nar;
pub mod publish;
mod reader;
mod seams;
mod segment;
mod source;
pub mod verify;

pub use dir::DirDepot;
pub use error::{DepotError, Kind};
pub use level::OpenLevel;
pub use nar::NarStream;
pub use reader::{Found, Reader};
pub use seams::{
    Blobs, BoxFuture, Certify, LevelRecord, NarSource, NewLevel, Registry, Standing, State, Stored,
    Update,
};
pub use source::{ArchiveSource, Policy};
