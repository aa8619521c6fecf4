//! The ratchet: from a pinned committee to today's, one signed epoch at a time.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
};

use sui_crypto::bls12381::ValidatorCommitteeSignatureVerifier;
use sui_sdk_types::{
    CheckpointSummary, Digest, SignedCheckpointSummary, ValidatorAggregatedSignature,
    ValidatorCommittee,
};

use super::{ProofError, committee};

/// Committees kept: about 100 days of a daily epoch, 14 kB and 25 kB of prepared keys each.
pub const EPOCHS_KEPT: usize = 100;
/// Bytes of a signed summary: one with a committee of 512 members has 54 kB.
pub(super) const SUMMARY_BYTES_MAX: usize = 128 * 1024;

/// The signed checkpoint that ends an epoch and names the next committee.
#[derive(Debug, Clone, PartialEq)]
pub struct EpochEnd {
    bytes: Vec<u8>,
    signed: SignedCheckpointSummary,
}

impl EpochEnd {
    /// Reads the BCS form of a `SignedCheckpointSummary`. Nothing is verified yet.
    ///
    /// # Errors
    /// Not such bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ProofError> {
        Ok(Self { signed: parse_summary(bytes)?, bytes: bytes.to_vec() })
    }

    /// From the two parts a full node sends.
    ///
    /// # Errors
    /// A summary that has no BCS form of a bounded size.
    pub fn new(
        checkpoint: CheckpointSummary,
        signature: ValidatorAggregatedSignature,
    ) -> Result<Self, ProofError> {
        let signed = SignedCheckpointSummary { checkpoint, signature };
        Ok(Self { bytes: summary_bytes(&signed)?, signed })
    }

    /// The BCS form.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The summary and its signature.
    #[must_use]
    pub fn into_signed(self) -> SignedCheckpointSummary {
        self.signed
    }

    /// The epoch that ends here.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.signed.checkpoint.epoch
    }

    /// The checkpoint's number.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.signed.checkpoint.sequence_number
    }

    /// The summary.
    #[must_use]
    pub fn summary(&self) -> &CheckpointSummary {
        &self.signed.checkpoint
    }

    pub(super) fn next_committee(&self) -> Result<ValidatorCommittee, ProofError> {
        next_committee(&self.signed.checkpoint)
    }
}

/// The BCS form of a signed summary.
pub(super) fn summary_bytes(signed: &SignedCheckpointSummary) -> Result<Vec<u8>, ProofError> {
    bcs::to_bytes(signed).map_err(|error| ProofError::Malformed {
        what: "checkpoint summary",
        reason: error.to_string(),
    })
}

pub(super) fn parse_summary(bytes: &[u8]) -> Result<SignedCheckpointSummary, ProofError> {
    if bytes.len() > SUMMARY_BYTES_MAX {
        return Err(ProofError::TooLarge {
            what: "checkpoint summary",
            len: bytes.len() as u64,
            limit: SUMMARY_BYTES_MAX as u64,
        });
    }
    bcs::from_bytes(bytes).map_err(|error| ProofError::Malformed {
        what: "checkpoint summary",
        reason: error.to_string(),
    })
}

fn next_committee(summary: &CheckpointSummary) -> Result<ValidatorCommittee, ProofError> {
    let sequence = summary.sequence_number;
    let end = summary.end_of_epoch_data.as_ref().ok_or(ProofError::NotEndOfEpoch { sequence })?;
    let epoch = summary.epoch.checked_add(1).ok_or(ProofError::NotEndOfEpoch { sequence })?;
    committee::checked(epoch, end.next_epoch_committee.clone())
        .map_err(|reason| ProofError::Committee { epoch, reason })
}

struct Known {
    committee: ValidatorCommittee,
    /// Decompressed and checked keys: 20 ms for 128 validators, so made once and late.
    verifier: OnceLock<Option<ValidatorCommitteeSignatureVerifier>>,
}

/// The committees this machine believes in: contiguous epochs, oldest first.
#[derive(Clone)]
pub struct Trust {
    committees: VecDeque<Arc<Known>>,
    /// `ends[i]` made `committees[i + 1]` known.
    ends: VecDeque<Arc<EpochEnd>>,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust")
            .field("first", &self.first_epoch())
            .field("last", &self.last_epoch())
            .finish()
    }
}

impl Trust {
    /// Starts from a pinned committee.
    ///
    /// # Errors
    /// A committee that cannot be computed with.
    pub fn from_committee(pinned: ValidatorCommittee) -> Result<Self, ProofError> {
        let epoch = pinned.epoch;
        let committee = committee::checked(epoch, pinned.members)
            .map_err(|reason| ProofError::Committee { epoch, reason })?;
        Ok(Self { committees: VecDeque::from([known(committee)]), ends: VecDeque::new() })
    }

    /// Starts from a pinned checkpoint: `summary` is what somebody handed over as the
    /// checkpoint with the digest `pinned`.
    ///
    /// # Errors
    /// Another checkpoint, or one that does not end an epoch. The first checkpoint of a
    /// chain names its committee in another way; see [`genesis_committee`].
    ///
    /// [`genesis_committee`]: super::genesis_committee
    pub fn from_checkpoint(
        pinned: &[u8; 32],
        summary: &CheckpointSummary,
    ) -> Result<Self, ProofError> {
        check_anchor(pinned, summary)?;
        match next_committee(summary) {
            Ok(committee) => Self::from_committee(committee),
            Err(ProofError::NotEndOfEpoch { sequence }) => {
                Err(ProofError::AnchorWithoutCommittee { sequence })
            }
            Err(error) => Err(error),
        }
    }

    /// The oldest epoch whose signatures can be checked.
    #[must_use]
    pub fn first_epoch(&self) -> u64 {
        self.committees.front().map_or(0, |known| known.committee.epoch)
    }

    /// The newest epoch whose signatures can be checked.
    #[must_use]
    pub fn last_epoch(&self) -> u64 {
        self.committees.back().map_or(0, |known| known.committee.epoch)
    }

    /// The newest committee.
    #[must_use]
    pub fn last_committee(&self) -> Option<&ValidatorCommittee> {
        self.committees.back().map(|known| &known.committee)
    }

    /// The oldest committee, from which the others follow.
    #[must_use]
    pub fn first_committee(&self) -> Option<&ValidatorCommittee> {
        self.committees.front().map(|known| &known.committee)
    }

    /// Takes the next committee from a signed end of epoch. `false`: it was known.
    ///
    /// # Errors
    /// An epoch that does not follow, no quorum, no committee in it. Nothing changes then.
    pub fn advance(&mut self, end: EpochEnd) -> Result<bool, ProofError> {
        if end.epoch() < self.last_epoch() {
            return Ok(false);
        }
        self.verify_summary(&end.signed)?;
        let committee = end.next_committee()?;
        self.push(end, committee);
        Ok(true)
    }

    /// Puts back a link that was verified before it was stored.
    pub(super) fn restore(&mut self, end: EpochEnd) -> Result<(), ProofError> {
        if end.epoch() != self.last_epoch() {
            return Err(self.unknown(end.epoch()));
        }
        let committee = end.next_committee()?;
        self.push(end, committee);
        Ok(())
    }

    fn push(&mut self, end: EpochEnd, committee: ValidatorCommittee) {
        self.committees.push_back(known(committee));
        self.ends.push_back(Arc::new(end));
        if self.committees.len() > EPOCHS_KEPT {
            self.committees.pop_front();
            self.ends.pop_front();
        }
    }

    /// The links from the committee of `epoch` to the newest one, for somebody who knows
    /// that committee; empty if it is the newest, `None` if it is not among those kept.
    #[must_use]
    pub fn links_from(&self, epoch: u64) -> Option<Vec<Arc<EpochEnd>>> {
        let skip = usize::try_from(epoch.checked_sub(self.first_epoch())?).ok()?;
        (skip <= self.ends.len()).then(|| self.ends.iter().skip(skip).cloned().collect())
    }

    /// Checks the signature of a checkpoint against the committee of its epoch.
    ///
    /// # Errors
    /// [`ProofError::UnknownEpoch`] or [`ProofError::Forged`].
    pub fn verify_summary(&self, signed: &SignedCheckpointSummary) -> Result<(), ProofError> {
        let epoch = signed.checkpoint.epoch;
        let known = epoch
            .checked_sub(self.first_epoch())
            .and_then(|place| usize::try_from(place).ok())
            .and_then(|place| self.committees.get(place))
            .ok_or_else(|| self.unknown(epoch))?;
        let forged = || ProofError::Forged { sequence: signed.checkpoint.sequence_number, epoch };
        // The verifier compares the signature's epoch with the committee's, but not the
        // summary's, and many keys sign in both of two neighbouring epochs.
        if signed.signature.epoch != epoch {
            return Err(forged());
        }
        known
            .verifier
            .get_or_init(|| ValidatorCommitteeSignatureVerifier::new(known.committee.clone()).ok())
            .as_ref()
            .ok_or_else(forged)?
            .verify_checkpoint_summary(&signed.checkpoint, &signed.signature)
            .map_err(|_| forged())
    }

    fn unknown(&self, epoch: u64) -> ProofError {
        ProofError::UnknownEpoch { epoch, first: self.first_epoch(), last: self.last_epoch() }
    }
}

fn known(committee: ValidatorCommittee) -> Arc<Known> {
    Arc::new(Known { committee, verifier: OnceLock::new() })
}

/// Whether this summary is the pinned one.
pub(super) fn check_anchor(
    pinned: &[u8; 32],
    summary: &CheckpointSummary,
) -> Result<(), ProofError> {
    let found = summary.digest();
    if found.inner() == pinned {
        return Ok(());
    }
    Err(ProofError::NotTheAnchor {
        expected: Digest::new(*pinned).to_string(),
        found: found.to_string(),
    })
}
