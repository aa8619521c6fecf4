//! Nix archives: packs of compressed NARs, the index over them, its Merkle proofs, and the contract
//! that registers them. No I/O, no clock; `docs/archive-format.md` describes the bytes.
//!
//! * [`pack`]: how NARs are compressed and laid into blobs;
//! * [`entry`]: what the index knows about a path;
//! * [`segment`]: an index segment, written from sorted entries and read by ranges;
//! * [`proof`]: that a segment has a path, or has it not;
//! * [`merge`]: several segments made one;
//! * [`contract`]: the bytecode of the Move package;
//! * [`cost`]: what it all costs.
#![forbid(unsafe_code)]

pub mod contract;
pub mod cost;
pub mod entry;
pub mod merge;
pub mod merkle;
pub mod pack;
pub mod proof;
pub mod segment;
/// Generated entries.
#[doc(hidden)]
pub mod testing;
mod wire;

pub use entry::{Compression, Content, Entry, Extent, NarPlace};
pub use merkle::Digest;
pub use segment::{Directory, Footer, Page};
pub use wire::FormatError;
