//! What was signed and may have been sent, one file per purpose.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sui_sdk_types::{Transaction, hash::Hasher};

use crate::{files, network::base58_encode, proof::StoreError};

/// Bytes of an entry: a transaction has at most 128 KiB.
const ENTRY_BYTES_MAX: u64 = 256 * 1024;

/// A signed transaction.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    /// What for: the file's name is a hash of it.
    pub(super) purpose: String,
    /// The transaction.
    pub(super) transaction: Transaction,
    /// Its signature, as the chain takes it.
    pub(super) signature: Vec<u8>,
}

/// The directory of entries; `None`: nothing is kept.
#[derive(Debug, Clone)]
pub(super) struct Journal(Option<PathBuf>);

impl Journal {
    pub(super) fn new(directory: Option<&Path>) -> Self {
        Self(directory.map(|directory| directory.join("transactions")))
    }

    fn path(&self, purpose: &str) -> Option<PathBuf> {
        let name = base58_encode(Hasher::digest(purpose).inner());
        self.0.as_ref().map(|directory| directory.join(format!("{name}.tx")))
    }

    /// What an earlier process signed for this purpose.
    ///
    /// # Errors
    /// The file cannot be read. A damaged one counts as none: it was never complete, so
    /// what is in it was never sent.
    pub(super) fn find(&self, purpose: &str) -> Result<Option<Entry>, StoreError> {
        let Some(path) = self.path(purpose) else { return Ok(None) };
        let bytes = files::read(&path, ENTRY_BYTES_MAX)
            .map_err(|error| StoreError::new("read", &path, error))?;
        let entry = bytes.and_then(|bytes| bcs::from_bytes::<Entry>(&bytes).ok());
        Ok(entry.filter(|entry| entry.purpose == purpose))
    }

    /// Keeps an entry; it is on disk when this returns.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub(super) fn keep(&self, entry: &Entry) -> Result<(), StoreError> {
        let Some(path) = self.path(&entry.purpose) else { return Ok(()) };
        bcs::to_bytes(entry)
            .map_err(io::Error::other)
            .and_then(|bytes| files::replace(&path, &bytes))
            .map_err(|error| StoreError::new("write", &path, error))
    }

    /// Forgets an entry, whose transaction has come to its end.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub(super) fn forget(&self, purpose: &str) -> Result<(), StoreError> {
        let Some(path) = self.path(purpose) else { return Ok(()) };
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::new("remove", &path, error))
            }
            _ => Ok(()),
        }
    }
}
