//! What this crate wants from the world.

use crate::{DepotError, Kind};
use bytes::Bytes;
use haulout_archive::Digest;
use haulout_nix::{HashPart, PathInfo};
use redstuff::BlobId;
use std::{fmt, future::Future, io::Write, ops::Range, path::Path, pin::Pin};

/// A boxed future, so that the traits can be used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A blob that was stored and certified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub blob: BlobId,
    /// The `Blob` object; zeros where there are no objects.
    pub object: [u8; 32],
    /// First epoch in which it need no longer be stored.
    pub end_epoch: u32,
}

/// When a blob that all storage nodes have confirmed is certified on chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certify {
    /// At once.
    Now,
    /// Together with the update of the archive that names it, in one transaction: so an index is
    /// never certified and paid for without being part of an archive.
    WithUpdate,
}

/// How a blob stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Stored until that epoch.
    Until(u32),
    /// Not, or no longer, stored.
    Gone,
    /// This store cannot tell without reading it.
    Unknown,
}

/// Where blobs are. What writes has a default for places that are only read.
pub trait Blobs: Send + Sync + fmt::Debug {
    /// Some bytes of a blob of `size` bytes. They need not be verified: all that is read here is
    /// checked against an index root. [`Blobs::read_verified`] is asked when that check failed.
    fn read(
        &self,
        blob: BlobId,
        size: u64,
        range: Range<u64>,
    ) -> BoxFuture<'_, Result<Bytes, DepotError>>;

    /// The same, each piece checked against the blob id, so that a wrong one is found and fetched elsewhere.
    fn read_verified(
        &self,
        blob: BlobId,
        size: u64,
        range: Range<u64>,
    ) -> BoxFuture<'_, Result<Bytes, DepotError>>;

    /// Stores a file as a permanent blob for `epochs` epochs, the current one included. A blob that
    /// is stored long enough is not paid for again.
    fn store<'a>(
        &'a self,
        file: &'a Path,
        epochs: u32,
        certify: Certify,
    ) -> BoxFuture<'a, Result<Stored, DepotError>> {
        let _ = (file, epochs, certify);
        Box::pin(async { Err(read_only()) })
    }

    /// How a blob stands. `object` is the `Blob` object that the archive names.
    fn standing(
        &self,
        blob: BlobId,
        object: [u8; 32],
    ) -> BoxFuture<'_, Result<Standing, DepotError>> {
        let _ = (blob, object);
        Box::pin(async { Ok(Standing::Unknown) })
    }

    /// Pays for a stored blob until `end_epoch` at least; gives the end it then has.
    fn extend(
        &self,
        blob: BlobId,
        object: [u8; 32],
        end_epoch: u32,
    ) -> BoxFuture<'_, Result<u32, DepotError>> {
        let _ = (blob, object, end_epoch);
        Box::pin(async { Err(read_only()) })
    }

    /// Largest blob, in bytes.
    fn blob_bytes_max(&self) -> BoxFuture<'_, Result<u64, DepotError>> {
        Box::pin(async { Err(read_only()) })
    }
}

/// What a place says that is only for reading: an agent does not change archives.
fn read_only() -> DepotError {
    DepotError::new(Kind::Refused, "this place of blobs is for reading")
}

/// An index segment as the archive's state names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelRecord {
    /// Root of the segment.
    pub root: Digest,
    /// Number of entries.
    pub leaves: u64,
    /// Its root blob.
    pub blob: BlobId,
    /// The `Blob` object.
    pub object: [u8; 32],
    /// Bytes of the root blob.
    pub size: u64,
    /// First epoch in which one of its blobs need no longer be stored.
    pub end_epoch: u32,
}

/// The state of an archive, proven by whoever gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Id of the archive.
    pub id: [u8; 32],
    /// Rises with every update.
    pub sequence: u64,
    /// Time of the last update, milliseconds since 1970.
    pub updated_ms: u64,
    /// The levels, newest first.
    pub levels: Vec<LevelRecord>,
    /// Whether it will never change again.
    pub frozen: bool,
    /// The store directory.
    pub store_dir: String,
    /// What its owner calls it.
    pub name: String,
}

/// A level to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewLevel {
    /// Root of the segment.
    pub root: Digest,
    /// Number of entries.
    pub leaves: u64,
    /// Its root blob, stored and certified.
    pub stored: Stored,
    /// Bytes of the root blob.
    pub size: u64,
    /// First epoch in which one of its blobs need no longer be stored.
    pub end_epoch: u32,
}

/// A change of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// Adds a level at `place` among the kept ones.
    Level {
        /// The level.
        level: NewLevel,
        /// Positions of the levels that stay, rising.
        keep: Vec<u64>,
        /// Where the new level goes among them; 0 is the newest.
        place: u64,
    },
    /// Moves the end of a level.
    Extend {
        /// Which.
        position: u64,
        /// Its new end.
        end_epoch: u32,
    },
    /// Only says that the archive is alive.
    Beat,
}

/// Where an archive's state is. One value stands for one archive.
pub trait Registry: Send + Sync + fmt::Debug {
    /// The newest state.
    fn state(&self) -> BoxFuture<'_, Result<State, DepotError>>;

    /// Walrus' current epoch.
    fn epoch(&self) -> BoxFuture<'_, Result<u32, DepotError>>;

    /// Changes the archive if its sequence is still `expected`; the new sequence.
    fn update<'a>(
        &'a self,
        expected: u64,
        update: &'a Update,
    ) -> BoxFuture<'a, Result<u64, DepotError>>;
}

/// Where paths to be published come from.
pub trait NarSource: Send + Sync + fmt::Debug {
    /// What is known about a path; `None` when it is not there.
    fn info(&self, hash: HashPart) -> BoxFuture<'_, Result<Option<PathInfo>, DepotError>>;

    /// Writes a path's NAR. Its hash is checked by the caller.
    fn dump<'a>(
        &'a self,
        info: &'a PathInfo,
        out: &'a mut (dyn Write + Send),
    ) -> BoxFuture<'a, Result<(), DepotError>>;
}
