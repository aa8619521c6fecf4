//! The proof as a document: plain bytes that peers hand on.
//!
//! ```text
//! "HOPR" 01                       magic, version
//! kind          u8                0 effects chain, 1 tree of written objects
//! object        block             BCS Object
//! summary       block             BCS SignedCheckpointSummary
//! kind 0: contents  block         BCS CheckpointContents
//!         effects   block         BCS TransactionEffects
//! kind 1: leaf      u64, root 32  place in the tree, its root
//!         path      count, then each 00 (empty) or 01 and 32 bytes
//! ratchet       count, then blocks: BCS SignedCheckpointSummary, oldest first
//! ```
//!
//! Numbers are little-endian; a count is a u32; a block is its length as u32, then the
//! bytes. The ratchet leads from the reader's epoch to that of `summary`.

use std::sync::Arc;

use sui_sdk_types::{
    Digest, Object, SignedCheckpointSummary, TransactionEffects,
    merkle::{MerkleProof, Node},
};

use super::{
    EPOCHS_KEPT, ProofError,
    bytes::{Reader, put_block, put_length},
    trust::{EpochEnd, SUMMARY_BYTES_MAX, parse_summary, summary_bytes},
};
use crate::{ObjectId, object_id::object_id};

/// Bytes of a whole document. A real one has 1 to 100 kB, and 14 kB per day that its
/// reader is behind.
pub const DOCUMENT_BYTES_MAX: usize = 16 << 20;
/// Links of the ratchet: what a machine keeps.
pub const RATCHET_MAX: usize = EPOCHS_KEPT;
/// Bytes of an object: 250 KiB of contents is the chain's limit, type and owner come on top.
const OBJECT_MAX: usize = 512 * 1024;
/// Bytes of a checkpoint's list of transactions: 10,000 with large signatures.
const CONTENTS_MAX: usize = 12 << 20;
/// Bytes of effects: ten times the chain's limit for users, for system transactions.
const EFFECTS_MAX: usize = 6 << 20;
/// Siblings on a path: a tree of 2^32 objects.
const PATH_MAX: usize = 32;

const MAGIC: &[u8; 4] = b"HOPR";
const VERSION: u8 = 1;

/// How the object hangs on the signed checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum Evidence {
    /// Checkpoint → list of transactions → effects → object. Any chain version has it.
    Effects {
        /// BCS `CheckpointContents`.
        contents: Vec<u8>,
        /// BCS `TransactionEffects`.
        effects_bytes: Vec<u8>,
        /// The same, read.
        effects: Box<TransactionEffects>,
    },
    /// Checkpoint → tree of the objects it wrote → object. Needs a chain that commits to
    /// the tree, and a node that serves paths.
    Tree {
        /// Place among the leaves.
        leaf: u64,
        /// Root of the tree.
        root: Digest,
        /// Siblings, leaf side first.
        path: MerkleProof,
    },
}

/// An object, the checkpoint that wrote it, and what ties the two together.
/// Read, but not verified: see [`ObjectProof::verify`].
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectProof {
    pub(super) object_bytes: Vec<u8>,
    pub(super) object: Object,
    pub(super) summary: SignedCheckpointSummary,
    pub(super) evidence: Evidence,
    pub(super) ratchet: Vec<Arc<EpochEnd>>,
}

fn read_bcs<T: serde::de::DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
    limit: usize,
) -> Result<T, ProofError> {
    if bytes.len() > limit {
        return Err(ProofError::TooLarge { what, len: bytes.len() as u64, limit: limit as u64 });
    }
    bcs::from_bytes(bytes)
        .map_err(|error| ProofError::Malformed { what, reason: error.to_string() })
}

/// Reads an object's BCS bytes.
pub(super) fn read_object(bytes: &[u8]) -> Result<Object, ProofError> {
    read_bcs("object", bytes, OBJECT_MAX)
}

/// Reads BCS effects.
pub(super) fn read_effects(bytes: &[u8]) -> Result<TransactionEffects, ProofError> {
    read_bcs("transaction effects", bytes, EFFECTS_MAX)
}

impl Evidence {
    /// The effects chain, from BCS bytes as full nodes send them.
    ///
    /// # Errors
    /// Effects that cannot be read, or parts beyond the limits.
    pub fn effects(contents: Vec<u8>, effects_bytes: Vec<u8>) -> Result<Self, ProofError> {
        if contents.len() > CONTENTS_MAX {
            return Err(ProofError::TooLarge {
                what: "list of transactions",
                len: contents.len() as u64,
                limit: CONTENTS_MAX as u64,
            });
        }
        let effects = Box::new(read_effects(&effects_bytes)?);
        Ok(Self::Effects { contents, effects_bytes, effects })
    }
}

impl ObjectProof {
    /// Puts the parts together.
    ///
    /// # Errors
    /// An object that cannot be read, or too large a one.
    pub fn new(
        object_bytes: Vec<u8>,
        summary: SignedCheckpointSummary,
        evidence: Evidence,
    ) -> Result<Self, ProofError> {
        let object = read_object(&object_bytes)?;
        Ok(Self { object_bytes, object, summary, evidence, ratchet: Vec::new() })
    }

    /// The same proof for somebody whose newest committee is older than the proof's: with
    /// these links, oldest first, of which at most [`RATCHET_MAX`] are taken.
    #[must_use]
    pub fn with_ratchet(mut self, links: Vec<Arc<EpochEnd>>) -> Self {
        self.ratchet = links
            .into_iter()
            .filter(|link| link.epoch() < self.summary.checkpoint.epoch)
            .take(RATCHET_MAX)
            .collect();
        self
    }

    /// The object it claims to prove.
    #[must_use]
    pub fn object_id(&self) -> ObjectId {
        object_id(self.object.object_id())
    }

    /// The object's version it claims to prove.
    #[must_use]
    pub fn object_version(&self) -> u64 {
        self.object.version()
    }

    /// The object it claims to prove, unverified.
    #[cfg(test)]
    pub(crate) fn object(&self) -> &Object {
        &self.object
    }

    /// Its BCS bytes.
    #[cfg(test)]
    pub(crate) fn object_bytes(&self) -> &[u8] {
        &self.object_bytes
    }

    /// The signed checkpoint, unverified.
    #[cfg(test)]
    pub(crate) fn summary(&self) -> &SignedCheckpointSummary {
        &self.summary
    }

    /// The epoch in which it claims to have been signed.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.summary.checkpoint.epoch
    }

    /// The checkpoint it claims to be from.
    #[must_use]
    pub fn checkpoint(&self) -> u64 {
        self.summary.checkpoint.sequence_number
    }

    /// The pinned checkpoint with this digest, if it is among the links.
    #[must_use]
    pub fn anchor(&self, digest: &[u8; 32]) -> Option<&EpochEnd> {
        let is_pinned = |link: &&Arc<EpochEnd>| link.summary().digest().inner() == digest;
        self.ratchet.iter().find(is_pinned).map(AsRef::as_ref)
    }

    /// How the object hangs on the checkpoint.
    #[must_use]
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Writes the document.
    ///
    /// # Errors
    /// A summary without a BCS form; no real one is.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ProofError> {
        let mut out = Vec::with_capacity(self.object_bytes.len() + 4096);
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        out.push(match self.evidence {
            Evidence::Effects { .. } => 0,
            Evidence::Tree { .. } => 1,
        });
        put_block(&mut out, &self.object_bytes);
        put_block(&mut out, &summary_bytes(&self.summary)?);
        match &self.evidence {
            Evidence::Effects { contents, effects_bytes, .. } => {
                put_block(&mut out, contents);
                put_block(&mut out, effects_bytes);
            }
            Evidence::Tree { leaf, root, path } => {
                out.extend_from_slice(&leaf.to_le_bytes());
                out.extend_from_slice(root.inner());
                put_length(&mut out, path.path().len());
                for node in path.path() {
                    match node {
                        Node::Empty => out.push(0),
                        Node::Digest(digest) => {
                            out.push(1);
                            out.extend_from_slice(digest);
                        }
                    }
                }
            }
        }
        put_length(&mut out, self.ratchet.len());
        for link in &self.ratchet {
            put_block(&mut out, link.as_bytes());
        }
        Ok(out)
    }

    /// Reads a document. Memory is bounded by the document's own length.
    ///
    /// # Errors
    /// Truncated, too large, of another version, or with a part that cannot be read.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ProofError> {
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(ProofError::TooLarge {
                what: "document",
                len: bytes.len() as u64,
                limit: DOCUMENT_BYTES_MAX as u64,
            });
        }
        let mut reader = Reader::new(bytes);
        if reader.array("header")? != *MAGIC {
            return Err(ProofError::NotAProof);
        }
        match reader.byte("header")? {
            VERSION => {}
            version => return Err(ProofError::Version(version)),
        }
        let kind = reader.byte("header")?;
        let object = reader.block(OBJECT_MAX, "object")?.to_vec();
        let summary = parse_summary(reader.block(SUMMARY_BYTES_MAX, "checkpoint summary")?)?;
        let evidence = match kind {
            0 => Evidence::effects(
                reader.block(CONTENTS_MAX, "list of transactions")?.to_vec(),
                reader.block(EFFECTS_MAX, "transaction effects")?.to_vec(),
            )?,
            1 => read_tree(&mut reader)?,
            other => {
                return Err(ProofError::Malformed {
                    what: "header",
                    reason: format!("evidence of kind {other} is not known here"),
                });
            }
        };
        let links = reader.length(RATCHET_MAX, "ratchet")?;
        let ratchet = (0..links)
            .map(|_| {
                EpochEnd::from_bytes(reader.block(SUMMARY_BYTES_MAX, "ratchet")?).map(Arc::new)
            })
            .collect::<Result<_, _>>()?;
        reader.end()?;
        let proof = Self::new(object, summary, evidence)?;
        Ok(Self { ratchet, ..proof })
    }
}

fn read_tree(reader: &mut Reader<'_>) -> Result<Evidence, ProofError> {
    const WHAT: &str = "path in the tree";
    let leaf = reader.long(WHAT)?;
    let root = Digest::new(reader.array(WHAT)?);
    let path = (0..reader.length(PATH_MAX, WHAT)?)
        .map(|_| match reader.byte(WHAT)? {
            0 => Ok(Node::Empty),
            1 => reader.array(WHAT).map(Node::Digest),
            other => {
                Err(ProofError::Malformed { what: WHAT, reason: format!("a node of kind {other}") })
            }
        })
        .collect::<Result<_, _>>()?;
    Ok(Evidence::Tree { leaf, root, path: MerkleProof::new(path) })
}
