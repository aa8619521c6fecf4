//! Objects proven to be on the chain, without believing whoever handed them over.
//!
//! A machine starts from a [pinned anchor](crate::network::TrustAnchor), walks from epoch
//! to epoch with [`Trust`] (each committee is named in a checkpoint that the one before
//! signed), and then checks an [`ObjectProof`]: the object's bytes, the signed checkpoint
//! that wrote them, and the hashes between the two. A proof is a document of plain bytes
//! that travels between peers; checking it needs no network.
//!
//! What a proof says is "written at checkpoint N", not "nothing newer": see
//! [`archive`](crate::archive) for what is done about freshness.

mod bytes;
mod committee;
mod contents;
mod document;
mod genesis;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod trust;
mod verify;

pub use committee::{COMMITTEE_MEMBERS_MAX, CommitteeError, committee_file, parse_committee};
pub use document::{DOCUMENT_BYTES_MAX, Evidence, ObjectProof, RATCHET_MAX};
pub use genesis::{GenesisParts, genesis_committee, system_inner_id};
pub use store::{StoreError, TrustStore};
pub use trust::{EPOCHS_KEPT, EpochEnd, Trust};
pub use verify::{Expected, ExpectedOwner, Verified};

use crate::ObjectId;

/// Why bytes are not a proof of what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The document ends early.
    #[error("the proof is truncated: it ends in the middle of {0}")]
    Truncated(&'static str),
    /// A part is longer than any real one.
    #[error("the proof's {what} has {len} bytes or entries; at most {limit} are accepted")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its length.
        len: u64,
        /// What is accepted.
        limit: u64,
    },
    /// Something follows the document.
    #[error("{0} bytes follow the end of the proof")]
    Trailing(usize),
    /// Another kind of file.
    #[error("these bytes are not an object proof")]
    NotAProof,
    /// A later form of the document.
    #[error("an object proof of version {0}; this program reads version 1")]
    Version(u8),
    /// A part that does not decode.
    #[error("the proof's {what} cannot be read: {reason}")]
    Malformed {
        /// Which part.
        what: &'static str,
        /// What its decoder said.
        reason: String,
    },
    /// Signed in an epoch whose committee is not known here.
    #[error(
        "signed in epoch {epoch}, but the committees known here are those of epochs {first} to {last}"
    )]
    UnknownEpoch {
        /// The proof's.
        epoch: u64,
        /// Oldest known.
        first: u64,
        /// Newest known.
        last: u64,
    },
    /// The signature is not that of a quorum.
    #[error(
        "checkpoint {sequence} is forged: no quorum of the committee of epoch {epoch} signed it"
    )]
    Forged {
        /// The checkpoint it claims to be.
        sequence: u64,
        /// The epoch it claims to be of.
        epoch: u64,
    },
    /// A link of the chain of committees that names no committee.
    #[error("checkpoint {sequence} does not end an epoch: it names no next committee")]
    NotEndOfEpoch {
        /// The checkpoint.
        sequence: u64,
    },
    /// A committee nobody can be in.
    #[error("the committee of epoch {epoch} is not usable: {reason}")]
    Committee {
        /// The epoch.
        epoch: u64,
        /// What is wrong.
        reason: CommitteeError,
    },
    /// Contents of another checkpoint.
    #[error("the list of transactions is not that of checkpoint {sequence}")]
    ContentsMismatch {
        /// The signed checkpoint.
        sequence: u64,
    },
    /// Effects of a transaction that is not in the checkpoint.
    #[error("the transaction's effects are not in checkpoint {sequence}")]
    EffectsNotInCheckpoint {
        /// The signed checkpoint.
        sequence: u64,
    },
    /// The transaction wrote something else.
    #[error("the transaction did not write object {id}")]
    NotWritten {
        /// The object.
        id: ObjectId,
    },
    /// The bytes differ from what was written.
    #[error("object {id} is forged: its bytes are not those that the transaction wrote")]
    ObjectMismatch {
        /// The object.
        id: ObjectId,
    },
    /// The path through the tree of written objects does not fit.
    #[error("object {id} is not among those that checkpoint {sequence} wrote: {reason}")]
    NotInTree {
        /// The object.
        id: ObjectId,
        /// The signed checkpoint.
        sequence: u64,
        /// What the check said.
        reason: String,
    },
    /// A genuine object, but not the one asked for.
    #[error("a proof of the foreign object {found}; {expected} was asked for")]
    ForeignObject {
        /// What was asked for.
        expected: ObjectId,
        /// What the proof is of.
        found: ObjectId,
    },
    /// A genuine object of another type.
    #[error("object {id} has the type {found}; {expected} was expected")]
    WrongType {
        /// The object.
        id: ObjectId,
        /// What was expected.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A genuine object owned by somebody else.
    #[error("object {id} is {found}; {expected} was expected")]
    WrongOwner {
        /// The object.
        id: ObjectId,
        /// What was expected.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A checkpoint that is not the pinned one.
    #[error("the checkpoint has the digest {found}; {expected} is pinned as trust anchor")]
    NotTheAnchor {
        /// The pinned digest.
        expected: String,
        /// What was handed over.
        found: String,
    },
    /// A pinned checkpoint that names no committee.
    #[error(
        "checkpoint {sequence} cannot be a trust anchor: only the last checkpoint of an epoch \
         and the first of the chain name a committee"
    )]
    AnchorWithoutCommittee {
        /// The pinned checkpoint.
        sequence: u64,
    },
}

#[cfg(feature = "chain")]
#[cfg(test)]
mod tests;
