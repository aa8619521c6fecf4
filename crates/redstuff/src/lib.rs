//! Walrus' RedStuff erasure code, exactly as the network has it (encoding type `RS2`).
//!
//! A blob becomes a matrix of symbols; its rows and columns are expanded with a
//! Reed-Solomon code into `n` *primary* and `n` *secondary* slivers, of which about a
//! third or two thirds rebuild the blob. This crate has no I/O and no clock: it turns
//! bytes into slivers, metadata and ids, and back.
//!
//! ```
//! use redstuff::{Consistency, Primary, ShardCount, SliverIndex, decode};
//!
//! let n = ShardCount::new(10)?;
//! let encoded = n.encode(&b"hello, walrus"[..])?;
//! let metadata = encoded.metadata();
//!
//! // What a storage node or a peer answers is not trusted until it is verified.
//! let received = encoded.sliver(SliverIndex::<Primary>::new(7))?.to_unverified();
//! let mut slivers = vec![received.verify(metadata)?];
//! slivers.extend((1..4).map(|i| encoded.sliver(SliverIndex::new(i)).unwrap()));
//! assert_eq!(decode(metadata, &slivers, Consistency::Default)?, b"hello, walrus");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The types keep apart what must not be confused: [`UnverifiedSliver`] and [`Sliver`],
//! [`UnverifiedMetadata`] and [`Metadata`], the two axes ([`Primary`], [`Secondary`]),
//! [`SliverIndex`], [`PairIndex`] and [`ShardIndex`], and [`ShardCount`].
//!
//! # What the compiler refuses
//!
//! A column where a row is meant:
//!
//! ```compile_fail,E0308
//! # use redstuff::{Primary, Secondary, ShardCount};
//! # let encoded = ShardCount::new(10).unwrap().encode(vec![1]).unwrap();
//! # use redstuff::{Sliver, SliverIndex};
//! let row: Sliver<Primary> = encoded.sliver(SliverIndex::<Secondary>::new(3)).unwrap();
//! ```
//!
//! The index of a pair, of which secondary slivers count backwards, for that of a sliver, and
//! the index of a shard, which depends on the blob, for that of a pair:
//!
//! ```compile_fail,E0308
//! # use redstuff::{PairIndex, Primary, ShardCount, Sliver};
//! # let encoded = ShardCount::new(10).unwrap().encode(vec![1]).unwrap();
//! let row: Sliver<Primary> = encoded.sliver(PairIndex(3)).unwrap();
//! ```
//! ```compile_fail,E0308
//! # use redstuff::{ShardCount, ShardIndex};
//! # let encoded = ShardCount::new(10).unwrap().encode(vec![1]).unwrap();
//! let pair = encoded.pair(ShardIndex(3)).unwrap();
//! ```
//!
//! A number where a number of shards is meant:
//!
//! ```compile_fail,E0308
//! # use redstuff::{Primary, SliverIndex};
//! let pair = SliverIndex::<Primary>::new(3).pair(1000).unwrap();
//! ```
//!
//! What was received where something verified is needed, be it a sliver or metadata:
//!
//! ```compile_fail,E0308
//! # use redstuff::{Consistency, Metadata, Primary, UnverifiedSliver, decode};
//! fn read(metadata: &Metadata, received: Vec<UnverifiedSliver<Primary>>) -> Vec<u8> {
//!     decode(metadata, &received, Consistency::Default).unwrap()
//! }
//! ```
//! ```compile_fail,E0308
//! # use redstuff::{Primary, Sliver, UnverifiedMetadata, UnverifiedSliver};
//! fn check(metadata: &UnverifiedMetadata, received: UnverifiedSliver<Primary>) -> Sliver<Primary> {
//!     received.verify(metadata).unwrap()
//! }
//! ```

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod axis;
pub mod bcs;
mod blob_id;
mod code;
mod decode;
mod encode;
mod hash;
mod inconsistency;
mod index;
mod memory;
mod merkle;
pub mod messages;
mod metadata;
mod params;
pub mod quilt;
mod recovery;
mod sliver;
mod stream;

pub use axis::{Axis, AxisKind, Primary, Secondary, UnknownAxis};
pub use blob_id::{BlobId, BlobIdError, ENCODING_RS2};
pub use decode::{Consistency, DecodeError, decode, decode_into, decode_unverified, read_range};
pub use encode::EncodedBlob;
pub use hash::Digest;
pub use inconsistency::{AnyInconsistencyProof, InconsistencyProof, ProofError};
pub use index::{BadSymbolId, OutOfRange, PairIndex, ShardIndex, SliverIndex, SymbolId};
pub use merkle::{MerkleNode, MerkleProof, MerkleTree};
pub use metadata::{HashPair, Metadata, MetadataError, MetadataWithId, UnverifiedMetadata};
pub use params::{
    STORAGE_UNIT, SYMBOL_ALIGNMENT, SYMBOL_SIZE_MAX, ShardCount, ShardCountError, SymbolSize,
    TooLarge,
};
pub use recovery::{
    DecodingSymbol, DecodingSymbols, EitherDecodingSymbol, GeneralRecoverySymbol, Recovered,
    RecoveryError, RecoverySymbol, RecoverySymbols, VerifiedSymbol, recover, recover_unproven,
};
pub use sliver::{
    AnySliver, ExpandedSliver, Sliver, SliverError, UnverifiedPair, UnverifiedSliver,
};
pub use stream::StreamError;
