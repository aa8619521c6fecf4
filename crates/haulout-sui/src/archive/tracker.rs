//! One archive, followed: the newest proven state, on disk, never backwards.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{Mutex, watch};

use super::state::{ArchiveState, StateError};
use crate::{
    ObjectId, files,
    proof::{DOCUMENT_BYTES_MAX, Expected, ObjectProof, ProofError, StoreError, Verified},
    prover::{ProveError, Prover, shared},
};

const FILE_MAGIC: &[u8; 8] = b"HOASEEN1";
/// Magic, version, sequence.
const HEADER_BYTES: usize = 24;
/// A proven time this far ahead of this machine's clock says that the clock is wrong.
const SKEW_MS_MAX: u64 = 5 * 60 * 1000;

/// Why a state is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// No proof.
    #[error(transparent)]
    Prove(#[from] ProveError),
    /// A proof of something that is no archive.
    #[error(transparent)]
    State(#[from] StateError),
    /// An older state than one seen before, although validly proven.
    #[error(
        "archive {id} was rolled back: sequence {sequence} (version {version}) was offered, but \
         sequence {seen_sequence} (version {seen_version}) has been seen"
    )]
    RolledBack {
        /// The archive.
        id: ObjectId,
        /// What was offered.
        sequence: u64,
        /// Object version of it.
        version: u64,
        /// The highest seen.
        seen_sequence: u64,
        /// Object version of it.
        seen_version: u64,
    },
    /// Nothing new for too long.
    #[error(
        "archive {id} is stale: last updated {behind_s} s ago, {missed} beats of {beat_s} s missed"
    )]
    Stale {
        /// The archive.
        id: ObjectId,
        /// Since the last update.
        behind_s: u64,
        /// Whole beats since then.
        missed: u64,
        /// A beat.
        beat_s: u64,
    },
    /// Never proven yet.
    #[error("archive {0} has not been proven yet")]
    Unknown(ObjectId),
    /// The state directory does not work.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ProofError> for ArchiveError {
    fn from(error: ProofError) -> Self {
        Self::Prove(error.into())
    }
}

/// A proven state of an archive.
#[derive(Debug, Clone, PartialEq)]
pub struct Proven {
    /// What the archive says.
    pub state: ArchiveState,
    /// The object's version.
    pub version: u64,
    /// The checkpoint that wrote it.
    pub checkpoint: u64,
    /// The Sui epoch of that checkpoint.
    pub epoch: u64,
    /// The checkpoint's time, milliseconds since 1970.
    pub timestamp_ms: u64,
    /// The proof, to hand on.
    pub proof: ObjectProof,
}

/// How often an archive is updated even if nothing was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// Time between updates.
    pub every: Duration,
    /// Beats that may be missed before the archive counts as stale.
    pub tolerated: u32,
}

/// How old a proven state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Updated within the beats that are tolerated; or frozen, and so as new as it can be.
    Fresh,
    /// Not updated for longer.
    Stale {
        /// Since the last update.
        behind: Duration,
        /// Whole beats since then.
        missed: u64,
    },
    /// It was proven to be from later than this machine's clock says it is now.
    ClockBehind {
        /// By how much.
        by: Duration,
    },
}

impl Proven {
    fn new(proof: ObjectProof, verified: &Verified) -> Result<Self, StateError> {
        let contents = verified.object.as_struct().map_or(&[][..], |value| value.contents());
        Ok(Self {
            state: ArchiveState::read(contents)?,
            version: verified.object.version(),
            checkpoint: verified.checkpoint,
            epoch: verified.epoch,
            timestamp_ms: verified.timestamp_ms,
            proof,
        })
    }

    /// How old it is at `now_ms` (milliseconds since 1970).
    #[must_use]
    pub fn freshness(&self, now_ms: u64, beat: Beat) -> Freshness {
        if self.timestamp_ms > now_ms.saturating_add(SKEW_MS_MAX) {
            return Freshness::ClockBehind {
                by: Duration::from_millis(self.timestamp_ms - now_ms),
            };
        }
        let behind = Duration::from_millis(now_ms.saturating_sub(self.state.updated_ms));
        let missed = u64::try_from(behind.as_millis() / beat.every.as_millis().max(1));
        let missed = missed.unwrap_or(u64::MAX);
        if self.state.frozen || missed <= u64::from(beat.tolerated) {
            Freshness::Fresh
        } else {
            Freshness::Stale { behind, missed }
        }
    }

    /// [`Proven::freshness`] as an error.
    ///
    /// # Errors
    /// [`ArchiveError::Stale`].
    pub fn check_fresh(&self, now_ms: u64, beat: Beat) -> Result<(), ArchiveError> {
        match self.freshness(now_ms, beat) {
            Freshness::Fresh | Freshness::ClockBehind { .. } => Ok(()),
            Freshness::Stale { behind, missed } => Err(ArchiveError::Stale {
                id: self.state.id,
                behind_s: behind.as_secs(),
                missed,
                beat_s: beat.every.as_secs(),
            }),
        }
    }
}

/// The highest state accepted so far.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    version: u64,
    sequence: u64,
}

/// Follows one archive.
#[derive(Debug)]
pub struct ArchiveTracker {
    prover: Arc<Prover>,
    expected: Expected,
    /// Where the newest proof is kept; `None`: in memory.
    path: Option<PathBuf>,
    seen: Mutex<Seen>,
    newest: watch::Sender<Option<Arc<Proven>>>,
}

impl ArchiveTracker {
    /// Follows the archive `id`; `package` pins the package that defined its type. What an
    /// earlier process kept under `state` is verified again, without any network.
    ///
    /// # Errors
    /// The state directory cannot be read, or the anchor does not work.
    pub async fn open(
        prover: Arc<Prover>,
        id: ObjectId,
        package: Option<ObjectId>,
        state: Option<&Path>,
    ) -> Result<Self, ArchiveError> {
        let tracker = Self {
            prover,
            expected: shared(id, package, "archive", "Archive"),
            path: state.map(|state| state.join("archives").join(format!("{id}.seen"))),
            seen: Mutex::default(),
            newest: watch::Sender::new(None),
        };
        tracker.load().await?;
        Ok(tracker)
    }

    /// The archive.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        self.expected.id
    }

    /// The newest proven state.
    #[must_use]
    pub fn newest(&self) -> Option<Arc<Proven>> {
        self.newest.borrow().clone()
    }

    /// The newest proven state, and every newer one from now on.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Proven>>> {
        self.newest.subscribe()
    }

    /// Asks all full nodes for something newer; returns the newest state.
    ///
    /// # Errors
    /// No node proved anything.
    pub async fn poll(&self) -> Result<Arc<Proven>, ArchiveError> {
        let known = self.newest().map(|proven| proven.version);
        if let Some((proof, verified)) = self.prover.newest(&self.expected, known).await? {
            self.accept(proof, &verified).await?;
        }
        self.newest().ok_or_else(|| ArchiveError::Unknown(self.id()))
    }

    /// Takes a proof from a peer. `true` if it is newer than what was known.
    ///
    /// # Errors
    /// It proves nothing, something else, or an older state ([`ArchiveError::RolledBack`]).
    pub async fn offer(&self, document: &[u8]) -> Result<bool, ArchiveError> {
        let proof = ObjectProof::from_bytes(document)?;
        let newest = self.newest();
        if newest.as_ref().is_some_and(|newest| newest.proof == proof) {
            return Ok(false);
        }
        let verified = self.prover.verify(&proof, &self.expected).await?;
        self.accept(proof, &verified).await
    }

    /// The newest proof for a peer whose newest committee is that of `epoch`; `None`: for one
    /// who has nothing but the same pinned checkpoint digest.
    pub async fn document_for(&self, epoch: Option<u64>) -> Option<Vec<u8>> {
        let newest = self.newest()?;
        self.prover.for_reader(&newest.proof, epoch).await.to_bytes().ok()
    }

    async fn accept(&self, proof: ObjectProof, verified: &Verified) -> Result<bool, ArchiveError> {
        let proven = Proven::new(proof, verified)?;
        let mut seen = self.seen.lock().await;
        let offered = Seen { version: proven.version, sequence: proven.state.sequence };
        if offered.version < seen.version || offered.sequence < seen.sequence {
            return Err(ArchiveError::RolledBack {
                id: self.id(),
                sequence: offered.sequence,
                version: offered.version,
                seen_sequence: seen.sequence,
                seen_version: seen.version,
            });
        }
        let current = self.newest().map(|newest| newest.version);
        if current == Some(offered.version) {
            return Ok(false);
        }
        self.save(&proven)?;
        *seen = offered;
        self.newest.send_replace(Some(Arc::new(proven)));
        Ok(true)
    }

    fn save(&self, proven: &Proven) -> Result<(), ArchiveError> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut bytes = FILE_MAGIC.to_vec();
        bytes.extend_from_slice(&proven.version.to_le_bytes());
        bytes.extend_from_slice(&proven.state.sequence.to_le_bytes());
        bytes.extend_from_slice(&proven.proof.to_bytes()?);
        files::replace(path, &bytes).map_err(|e| StoreError::new("write", path, e).into())
    }

    async fn load(&self) -> Result<(), ArchiveError> {
        let Some(path) = &self.path else { return Ok(()) };
        let limit = (DOCUMENT_BYTES_MAX + HEADER_BYTES) as u64;
        let failed = |error| StoreError::new("read", path, error);
        let Some(bytes) = files::read(path, limit).map_err(failed)? else { return Ok(()) };
        let Some(seen) = parse_header(&bytes) else {
            let damaged = std::io::Error::other("not a file of the highest state seen");
            return Err(failed(damaged).into());
        };
        *self.seen.lock().await = seen;
        let proof = ObjectProof::from_bytes(bytes.get(HEADER_BYTES..).unwrap_or_default())?;
        match self.prover.verify(&proof, &self.expected).await {
            Ok(verified) => {
                self.newest.send_replace(Some(Arc::new(Proven::new(proof, &verified)?)))
            }
            // The proof is gone, for instance because its committee was forgotten; what
            // must not be undercut is not.
            Err(error) => {
                tracing::warn!(archive = %self.id(), %error, "the stored proof does not hold");
                None
            }
        };
        Ok(())
    }
}

fn parse_header(bytes: &[u8]) -> Option<Seen> {
    let rest = bytes.strip_prefix(FILE_MAGIC)?;
    let (version, rest) = rest.split_first_chunk()?;
    let (sequence, _) = rest.split_first_chunk()?;
    Some(Seen { version: u64::from_le_bytes(*version), sequence: u64::from_le_bytes(*sequence) })
}
