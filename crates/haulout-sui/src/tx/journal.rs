//! What was signed and may have been sent, one file per purpose.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sui_sdk_types::{Address, Transaction, hash::Hasher};

use crate::{files, network::base58_encode, proof::StoreError};

/// Bytes of an entry: a transaction has at most 128 KiB.
const ENTRY_BYTES_MAX: u64 = 256 * 1024;

/// A signed transaction.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    /// What for: the file's name is a hash of it and of the account.
    pub(super) purpose: String,
    /// The transaction.
    pub(super) transaction: Transaction,
    /// Its signature, as the chain takes it.
    pub(super) signature: Vec<u8>,
}

/// The entries of an account.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    /// `None`: nothing is kept.
    directory: Option<PathBuf>,
    account: Address,
}

impl Journal {
    pub(super) fn new(directory: Option<&Path>, account: Address) -> Self {
        Self { directory: directory.map(|directory| directory.join("transactions")), account }
    }

    fn path(&self, purpose: &str) -> Option<PathBuf> {
        let of_account = [self.account.as_bytes(), purpose.as_bytes()].concat();
        let name = base58_encode(Hasher::digest(of_account).inner());
        self.directory.as_ref().map(|directory| directory.join(format!("{name}.tx")))
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
        let same =
            |entry: &Entry| entry.purpose == purpose && entry.transaction.sender == self.account;
        Ok(entry.filter(same))
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
