//! The committees on disk: what was believed yesterday is the start of today.
//!
//! A directory per anchor, so that a changed anchor starts anew:
//!
//! ```text
//! <anchor>/committee.bcs    the oldest committee kept (BCS ValidatorCommittee)
//! <anchor>/<epoch>.end      the signed checkpoint that ended that epoch
//! <anchor>/anchor.end       the pinned checkpoint, for peers that have nothing yet
//! ```
//!
//! The files are written once each, whole or not at all. They are believed like the
//! configuration: whoever can write here can change the anchor as well.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    EpochEnd, Expected, ObjectProof, ProofError, Trust, Verified, parse_committee,
    trust::SUMMARY_BYTES_MAX,
};
use crate::files;

const COMMITTEE_FILE: &str = "committee.bcs";
const ANCHOR_FILE: &str = "anchor.end";
/// Bytes of the committee file.
const COMMITTEE_BYTES_MAX: u64 = 256 * 1024;

/// The store on disk does not work.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {path}")]
pub struct StoreError {
    doing: &'static str,
    path: String,
    #[source]
    source: io::Error,
}

impl StoreError {
    pub(crate) fn new(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self { doing, path: path.display().to_string(), source }
    }
}

/// [`Trust`] that outlives the process.
#[derive(Debug)]
pub struct TrustStore {
    /// `None`: in memory only.
    directory: Option<PathBuf>,
    trust: Trust,
    /// The pinned checkpoint, if that is what it began with.
    anchor: Option<Arc<EpochEnd>>,
}

impl TrustStore {
    /// Trust for this process only.
    #[must_use]
    pub fn in_memory(trust: Trust) -> Self {
        Self { directory: None, trust, anchor: None }
    }

    /// What an earlier process stored for the anchor called `anchor`; `None` if there is
    /// nothing. Stops at the first link that is missing or damaged: what follows can be had
    /// again.
    ///
    /// # Errors
    /// A file that cannot be read, or a damaged committee file.
    pub fn open(state: &Path, anchor: &str) -> Result<Option<Self>, StoreError> {
        let directory = state.join(anchor);
        let path = directory.join(COMMITTEE_FILE);
        let failed = |error| StoreError::new("read", &path, error);
        let Some(bytes) = files::read(&path, COMMITTEE_BYTES_MAX).map_err(failed)? else {
            return Ok(None);
        };
        let committee = parse_committee(&bytes).map_err(|e| failed(io::Error::other(e)))?;
        let mut trust =
            Trust::from_committee(committee).map_err(|e| failed(io::Error::other(e)))?;
        while let Some(end) = read_link(&directory, trust.last_epoch())? {
            if trust.restore(end).is_err() {
                break;
            }
        }
        let anchor = read_end(&directory.join(ANCHOR_FILE))?.map(Arc::new);
        Ok(Some(Self { directory: Some(directory), trust, anchor }))
    }

    /// Starts to store `trust` for the anchor called `anchor`.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn create(state: &Path, anchor: &str, trust: Trust) -> Result<Self, StoreError> {
        let store = Self { directory: Some(state.join(anchor)), trust, anchor: None };
        for link in store.trust.links_from(store.trust.first_epoch()).unwrap_or_default() {
            store.write_link(&link)?;
        }
        store.write_first()?;
        Ok(store)
    }

    /// Keeps the pinned checkpoint for peers that have nothing yet.
    ///
    /// # Errors
    /// It cannot be stored.
    pub fn keep_anchor(&mut self, anchor: EpochEnd) -> Result<(), StoreError> {
        if let Some(directory) = &self.directory {
            let path = directory.join(ANCHOR_FILE);
            files::replace(&path, anchor.as_bytes())
                .map_err(|error| StoreError::new("write", &path, error))?;
        }
        self.anchor = Some(Arc::new(anchor));
        Ok(())
    }

    /// The links that a reader needs whose newest committee is that of `epoch`; with `None`,
    /// of one who has nothing but the pinned digest. Empty if they are not kept.
    #[must_use]
    pub fn links_for(&self, epoch: Option<u64>) -> Vec<Arc<EpochEnd>> {
        let first = self.trust.first_epoch();
        match (epoch, &self.anchor) {
            (Some(epoch), _) => self.trust.links_from(epoch).unwrap_or_default(),
            (None, Some(anchor)) if anchor.epoch().checked_add(1) == Some(first) => {
                let rest = self.trust.links_from(first).unwrap_or_default();
                [anchor.clone()].into_iter().chain(rest).collect()
            }
            (None, _) => Vec::new(),
        }
    }

    /// What is believed now.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// [`Trust::advance`], and on disk.
    ///
    /// # Errors
    /// The link does not verify; or it does, but cannot be stored (it is believed then
    /// until the process ends).
    pub fn advance(&mut self, end: EpochEnd) -> Result<Result<bool, ProofError>, StoreError> {
        self.keep(|trust| trust.advance(end))
    }

    /// [`ObjectProof::verify`], and what it taught about committees goes to disk.
    ///
    /// # Errors
    /// As [`TrustStore::advance`].
    pub fn verify(
        &mut self,
        proof: &ObjectProof,
        expected: &Expected,
    ) -> Result<Result<Verified, ProofError>, StoreError> {
        self.keep(|trust| proof.verify(trust, expected))
    }

    /// Runs what may advance the trust, then stores what is new.
    fn keep<T>(
        &mut self,
        action: impl FnOnce(&mut Trust) -> Result<T, ProofError>,
    ) -> Result<Result<T, ProofError>, StoreError> {
        let (first, last) = (self.trust.first_epoch(), self.trust.last_epoch());
        let outcome = action(&mut self.trust);
        let from = last.max(self.trust.first_epoch());
        for link in self.trust.links_from(from).unwrap_or_default() {
            self.write_link(&link)?;
        }
        if self.trust.first_epoch() != first {
            self.write_first()?;
            self.remove_links(first)?;
        }
        Ok(outcome)
    }

    fn write_link(&self, link: &EpochEnd) -> Result<(), StoreError> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let path = link_path(directory, link.epoch());
        files::replace(&path, link.as_bytes()).map_err(|e| StoreError::new("write", &path, e))
    }

    fn write_first(&self) -> Result<(), StoreError> {
        let (Some(directory), Some(committee)) = (&self.directory, self.trust.first_committee())
        else {
            return Ok(());
        };
        let path = directory.join(COMMITTEE_FILE);
        bcs::to_bytes(committee)
            .map_err(io::Error::other)
            .and_then(|bytes| files::replace(&path, &bytes))
            .map_err(|error| StoreError::new("write", &path, error))
    }

    fn remove_links(&self, from: u64) -> Result<(), StoreError> {
        let Some(directory) = &self.directory else { return Ok(()) };
        for epoch in from..self.trust.first_epoch() {
            let path = link_path(directory, epoch);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::new("remove", &path, error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn link_path(directory: &Path, epoch: u64) -> PathBuf {
    directory.join(format!("{epoch}.end"))
}

/// The link that ends `epoch`; `None` if it is missing or damaged.
fn read_link(directory: &Path, epoch: u64) -> Result<Option<EpochEnd>, StoreError> {
    read_end(&link_path(directory, epoch))
}

fn read_end(path: &Path) -> Result<Option<EpochEnd>, StoreError> {
    let bytes = files::read(path, SUMMARY_BYTES_MAX as u64)
        .map_err(|error| StoreError::new("read", path, error))?;
    Ok(bytes.and_then(|bytes| EpochEnd::from_bytes(&bytes).ok()))
}
