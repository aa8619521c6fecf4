//! The Move structs of the archive contract, BCS both ways, and what is checked on reading.

use redstuff::BlobId;
use serde::{Deserialize, Serialize};

use crate::{
    ObjectId,
    walrus_types::{LayoutError, decode, u256},
};

/// Levels of an archive: the contract's own limit.
pub const LEVELS_MAX: usize = 8;
/// Bytes of the store directory and of the name: the contract's own limit.
const TEXT_BYTES_MAX: usize = 128;

/// `archive::Archive`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveState {
    /// The object's id.
    pub id: ObjectId,
    /// Rises by one with every update.
    pub sequence: u64,
    /// Time of the last update, milliseconds since 1970.
    pub updated_ms: u64,
    /// Index segments, newest first.
    pub levels: Vec<Level>,
    /// Publisher caps that are valid.
    pub publishers: Vec<ObjectId>,
    /// No update will ever follow.
    pub frozen: bool,
    /// The store directory of all paths.
    pub store_dir: String,
    /// What the owner calls it.
    pub name: String,
}

/// `archive::Level`: one index segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// Merkle root over its entries; 32 bytes (checked on reading).
    pub root: Vec<u8>,
    /// Number of entries.
    pub leaves: u64,
    /// The blob that holds it.
    #[serde(with = "u256")]
    pub index_blob: BlobId,
    /// The `Blob` object the contract checked.
    pub blob_object: ObjectId,
    /// Bytes.
    pub index_size: u64,
    /// First Walrus epoch in which it need no longer be stored.
    pub end_epoch: u32,
}

impl Level {
    /// The Merkle root.
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        // Checked by `ArchiveState::read`; a hand-made level of another length has no root.
        <[u8; 32]>::try_from(self.root.as_slice()).unwrap_or_default()
    }
}

/// `archive::OwnerCap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerCap {
    /// Its id.
    pub id: ObjectId,
    /// The archive it owns.
    pub archive: ObjectId,
}

/// `archive::PublisherCap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublisherCap {
    /// Its id.
    pub id: ObjectId,
    /// The archive it publishes to.
    pub archive: ObjectId,
}

/// `archive::Updated`, the event of an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdatedEvent {
    /// The archive.
    pub archive: ObjectId,
    /// The new sequence.
    pub sequence: u64,
    /// When, milliseconds since 1970.
    pub updated_ms: u64,
    /// The cap that was used.
    pub publisher: ObjectId,
    /// All levels after it.
    pub levels: Vec<Level>,
}

/// The object is not an archive as this program knows it.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another struct.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A value the contract does not allow.
    #[error("archive {id}: {reason}")]
    Value {
        /// The archive.
        id: ObjectId,
        /// What is wrong.
        reason: String,
    },
}

impl ArchiveState {
    /// Reads an archive object's contents.
    ///
    /// # Errors
    /// Another layout (perhaps a later contract), or values beyond the contract's limits.
    pub fn read(contents: &[u8]) -> Result<Self, StateError> {
        let state: Self = decode("archive", contents)?;
        match state.complaint() {
            None => Ok(state),
            Some(reason) => Err(StateError::Value { id: state.id, reason }),
        }
    }

    fn complaint(&self) -> Option<String> {
        if self.levels.len() > LEVELS_MAX {
            return Some(format!("{} levels; at most {LEVELS_MAX}", self.levels.len()));
        }
        if let Some(level) = self.levels.iter().find(|level| level.root.len() != 32) {
            return Some(format!("a root of {} bytes", level.root.len()));
        }
        let dir = &self.store_dir;
        if !dir.starts_with('/') || dir.len() > TEXT_BYTES_MAX || dir.chars().any(char::is_control)
        {
            return Some("the store directory is not an absolute path".to_owned());
        }
        (self.name.len() > TEXT_BYTES_MAX).then(|| format!("a name of {} bytes", self.name.len()))
    }
}
