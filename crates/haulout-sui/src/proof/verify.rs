//! From a document to an object that is known to have been on the chain.

use std::fmt;

use sui_sdk_types::{
    Address, Digest, Object, ObjectChange, ObjectReference, ObjectType, Owner,
    SignedCheckpointSummary, TransactionEffects, proof::OcsInclusionProof,
};

use super::{Evidence, ObjectProof, ProofError, Trust, contents};
use crate::{
    ObjectId,
    object_id::{address, object_id},
};

/// What the reader wants a proof of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The object.
    pub id: ObjectId,
    /// Its Move type: package that defined it (if pinned), module, name. `None`: any; the
    /// reader checks it itself.
    pub type_: Option<(Option<ObjectId>, &'static str, &'static str)>,
    /// Who must own it.
    pub owner: ExpectedOwner,
}

/// Who must own an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedOwner {
    /// Anybody; the reader checks it itself.
    Anybody,
    /// Nobody: shared, or frozen for ever.
    SharedOrFrozen,
    /// Another object, of which it is a dynamic field.
    Object(ObjectId),
}

/// An object that was on the chain, with these bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// The object.
    pub object: Object,
    /// The checkpoint that wrote it.
    pub checkpoint: u64,
    /// That checkpoint's epoch.
    pub epoch: u64,
    /// That checkpoint's time, milliseconds since 1970.
    pub timestamp_ms: u64,
}

impl ObjectProof {
    /// Checks everything, with nothing but the committees known here. Links of the ratchet
    /// that verify stay in `trust` even if the rest fails.
    ///
    /// # Errors
    /// Each way to be wrong has its own [`ProofError`].
    pub fn verify(&self, trust: &mut Trust, expected: &Expected) -> Result<Verified, ProofError> {
        for link in &self.ratchet {
            if link.epoch() >= trust.last_epoch() {
                trust.advance(link.as_ref().clone())?;
            }
        }
        trust.verify_summary(&self.summary)?;
        self.verify_evidence()?;
        check_expected(&self.object, expected)?;
        let summary = &self.summary.checkpoint;
        Ok(Verified {
            object: self.object.clone(),
            checkpoint: summary.sequence_number,
            epoch: summary.epoch,
            timestamp_ms: summary.timestamp_ms,
        })
    }

    fn verify_evidence(&self) -> Result<(), ProofError> {
        let id = self.object.object_id();
        let sequence = self.summary.checkpoint.sequence_number;
        let digest = object_digest(&self.object_bytes);
        match &self.evidence {
            Evidence::Effects { contents, effects_bytes, effects } => {
                check_effects(&self.summary, contents, effects_bytes)?;
                match written(effects, &id) {
                    Some((version, written))
                        if version == self.object.version() && written == digest =>
                    {
                        Ok(())
                    }
                    Some(_) => Err(ProofError::ObjectMismatch { id: object_id(id) }),
                    None => Err(ProofError::NotWritten { id: object_id(id) }),
                }
            }
            Evidence::Tree { leaf, root, path } => {
                let proof = OcsInclusionProof {
                    merkle_proof: path.clone(),
                    leaf_index: *leaf,
                    tree_root: *root,
                };
                let reference = ObjectReference::new(id, self.object.version(), digest);
                proof.verify(&self.summary.checkpoint, &reference).map_err(|error| {
                    ProofError::NotInTree { id: object_id(id), sequence, reason: error.to_string() }
                })
            }
        }
    }
}

/// That the checkpoint lists a transaction with these effects.
pub(super) fn check_effects(
    signed: &SignedCheckpointSummary,
    listed: &[u8],
    effects_bytes: &[u8],
) -> Result<(), ProofError> {
    let sequence = signed.checkpoint.sequence_number;
    if contents::digest(listed) != signed.checkpoint.content_digest {
        return Err(ProofError::ContentsMismatch { sequence });
    }
    let effects = contents::salted("TransactionEffects::", effects_bytes);
    if contents::contain(listed, &effects)? {
        Ok(())
    } else {
        Err(ProofError::EffectsNotInCheckpoint { sequence })
    }
}

/// Digest of an object, from its BCS bytes.
pub(super) fn object_digest(bytes: &[u8]) -> Digest {
    contents::salted("Object::", bytes)
}

/// Version and digest that a transaction gave an object.
pub(super) fn written(effects: &TransactionEffects, id: &Address) -> Option<(u64, Digest)> {
    effects.object_changes().find_map(|change| match change {
        ObjectChange::Created { object_id, output_version, output_digest, .. }
        | ObjectChange::Mutated { object_id, output_version, output_digest, .. }
        | ObjectChange::Unwrapped { object_id, output_version, output_digest, .. }
            if object_id == id =>
        {
            Some((output_version, *output_digest))
        }
        _ => None,
    })
}

fn check_expected(object: &Object, expected: &Expected) -> Result<(), ProofError> {
    let id: ObjectId = object_id(object.object_id());
    if id != expected.id {
        return Err(ProofError::ForeignObject { expected: expected.id, found: id });
    }
    if let Some(type_) = expected.type_ {
        check_type(object, type_)?;
    }
    check_owner(object, expected.owner)
}

fn check_type(
    object: &Object,
    (package, module, name): (Option<ObjectId>, &str, &str),
) -> Result<(), ProofError> {
    let matches = match object.object_type() {
        ObjectType::Struct(tag) => {
            tag.module().as_str() == module
                && tag.name().as_str() == name
                && package.is_none_or(|package| address(package) == *tag.address())
        }
        ObjectType::Package => false,
    };
    if !matches {
        return Err(ProofError::WrongType {
            id: object_id(object.object_id()),
            expected: match package {
                Some(package) => format!("{package}::{module}::{name}"),
                None => format!("{module}::{name}"),
            },
            found: match object.object_type() {
                ObjectType::Struct(tag) => tag.to_string(),
                ObjectType::Package => "package".to_owned(),
            },
        });
    }
    Ok(())
}

fn check_owner(object: &Object, expected: ExpectedOwner) -> Result<(), ProofError> {
    let owned_as_expected = match (expected, object.owner()) {
        (ExpectedOwner::Anybody, _) => true,
        (ExpectedOwner::SharedOrFrozen, Owner::Shared(_) | Owner::Immutable) => true,
        (ExpectedOwner::Object(parent), Owner::Object(found)) => *found == address(parent),
        _ => false,
    };
    if owned_as_expected {
        return Ok(());
    }
    Err(ProofError::WrongOwner {
        id: object_id(object.object_id()),
        expected: expected.to_string(),
        found: match object.owner() {
            Owner::Shared(_) => "shared".to_owned(),
            Owner::Immutable => "frozen".to_owned(),
            Owner::Address(address) => format!("owned by the account {address}"),
            Owner::Object(parent) => format!("owned by the object {parent}"),
            _ => "owned in another way".to_owned(),
        },
    })
}

impl fmt::Display for ExpectedOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anybody => f.write_str("owned by anybody"),
            Self::SharedOrFrozen => f.write_str("shared or frozen"),
            Self::Object(parent) => write!(f, "owned by the object {parent}"),
        }
    }
}
