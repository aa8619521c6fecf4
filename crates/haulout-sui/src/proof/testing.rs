//! A chain made to order: committees with real keys, signed checkpoints, proofs.
//! For tests here and in other crates; nothing in it is random.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use sui_crypto::bls12381::{Bls12381PrivateKey, ValidatorCommitteeSignatureAggregator};
use sui_sdk_types::{
    Address, CheckpointCommitment, CheckpointContents, CheckpointSummary,
    CheckpointTransactionInfo, Digest, EndOfEpochData, ExecutionStatus, GasCostSummary,
    IdOperation, Identifier, MoveStruct, Object, ObjectData, ObjectIn, ObjectOut, ObjectReference,
    Owner, SignedCheckpointSummary, StructTag, TransactionEffects, TransactionEffectsV2,
    ValidatorCommittee, ValidatorCommitteeMember, merkle::MerkleTree,
};

use super::{EpochEnd, Evidence, ObjectProof, Trust};
use crate::{ObjectId, object_id::address};

/// Validators of one epoch, keys and all.
#[derive(Debug)]
pub struct Validators {
    keys: Vec<Bls12381PrivateKey>,
    /// Their committee.
    pub committee: ValidatorCommittee,
}

impl Validators {
    /// `count` validators with equal stake; another `seed` gives other keys.
    ///
    /// # Panics
    /// Never: every seed is a valid key.
    #[must_use]
    pub fn new(epoch: u64, count: u16, seed: u8) -> Self {
        let mut keys: Vec<Bls12381PrivateKey> = (0..count)
            .map(|place| {
                let mut bytes = [seed.max(1); 32];
                bytes[0] = 1;
                bytes[1..3].copy_from_slice(&place.to_be_bytes());
                Bls12381PrivateKey::new(bytes).expect("below the group's order")
            })
            .collect();
        keys.sort_by(|a, b| a.public_key().as_bytes().cmp(b.public_key().as_bytes()));
        let members = keys
            .iter()
            .map(|key| ValidatorCommitteeMember { public_key: key.public_key(), stake: 10 })
            .collect();
        Self { keys, committee: ValidatorCommittee { epoch, members } }
    }

    /// Signed by the first `signers` of them.
    ///
    /// # Panics
    /// If they are no quorum.
    #[must_use]
    pub fn sign(&self, summary: CheckpointSummary, signers: usize) -> SignedCheckpointSummary {
        let mut aggregator = ValidatorCommitteeSignatureAggregator::new_checkpoint_summary(
            self.committee.clone(),
            &summary,
        )
        .expect("valid keys");
        for key in self.keys.iter().take(signers) {
            let mut signature = key.sign_checkpoint_summary(&summary);
            signature.epoch = self.committee.epoch;
            aggregator.add_signature(signature).expect("a member's signature");
        }
        let signature = aggregator.finish().expect("a quorum");
        SignedCheckpointSummary { checkpoint: summary, signature }
    }

    /// Signed by all but a third of them.
    #[must_use]
    pub fn sign_by_quorum(&self, summary: CheckpointSummary) -> SignedCheckpointSummary {
        self.sign(summary, self.keys.len() - (self.keys.len() - 1) / 3)
    }
}

/// A summary with the fields that matter set.
#[must_use]
pub fn summary(epoch: u64, sequence: u64) -> CheckpointSummary {
    CheckpointSummary {
        epoch,
        sequence_number: sequence,
        network_total_transactions: sequence,
        content_digest: Digest::ZERO,
        previous_digest: None,
        epoch_rolling_gas_cost_summary: GasCostSummary::default(),
        timestamp_ms: 1_700_000_000_000 + sequence * 250,
        checkpoint_commitments: Vec::new(),
        end_of_epoch_data: None,
        version_specific_data: Vec::new(),
    }
}

/// A chain of epochs with a checkpoint whenever one is asked for.
#[derive(Debug)]
pub struct Chain {
    /// The validators of the current epoch.
    pub validators: Validators,
    /// The committee the chain began with.
    pub anchor: ValidatorCommittee,
    /// The last checkpoint of every epoch so far.
    pub ends: Vec<Arc<EpochEnd>>,
    sequence: u64,
    count: u16,
}

impl Chain {
    /// A chain that begins in `epoch` with `count` validators.
    #[must_use]
    pub fn new(epoch: u64, count: u16) -> Self {
        let validators = Validators::new(epoch, count, 1);
        let anchor = validators.committee.clone();
        Self { validators, anchor, ends: Vec::new(), sequence: epoch * 1000, count }
    }

    /// What somebody knows who has seen nothing but the beginning.
    ///
    /// # Panics
    /// Never: the committee is a good one.
    #[must_use]
    pub fn trust(&self) -> Trust {
        Trust::from_committee(self.anchor.clone()).expect("a good committee")
    }

    fn next_summary(&mut self) -> CheckpointSummary {
        self.sequence += 1;
        summary(self.validators.committee.epoch, self.sequence)
    }

    /// Ends the epoch; the next has other validators.
    ///
    /// # Panics
    /// Never.
    pub fn next_epoch(&mut self) -> Arc<EpochEnd> {
        let epoch = self.validators.committee.epoch + 1;
        let seed = u8::try_from(epoch % 200).unwrap_or_default() + 2;
        let next = Validators::new(epoch, self.count, seed);
        let mut summary = self.next_summary();
        summary.end_of_epoch_data = Some(EndOfEpochData {
            next_epoch_committee: next.committee.members.clone(),
            next_epoch_protocol_version: 1,
            epoch_commitments: Vec::new(),
        });
        let signed = self.validators.sign_by_quorum(summary);
        let end = EpochEnd::new(signed.checkpoint, signed.signature).expect("has a BCS form");
        let end = Arc::new(end);
        self.ends.push(end.clone());
        self.validators = next;
        end
    }

    /// Writes an object in a checkpoint and proves it in the way asked for.
    ///
    /// # Panics
    /// Never.
    pub fn write(&mut self, object: &Object, tree: bool) -> ObjectProof {
        let others: Vec<Object> = (100..105).map(|n| plain_object(n, 7, Vec::new())).collect();
        let transaction = object.previous_transaction();
        let effects = effects(transaction, object.version(), others.iter().chain([object]));
        let contents =
            contents(&[TransactionEffects::V2(Box::new(empty_effects())), effects.clone()]);
        let mut summary = self.next_summary();
        summary.content_digest = contents.digest();
        let mut references: Vec<ObjectReference> = others
            .iter()
            .chain([object])
            .map(|o| ObjectReference::new(o.object_id(), o.version(), o.digest()))
            .collect();
        references.sort_by_key(|reference| *reference.object_id());
        let merkle = MerkleTree::build_from_unserialized(&references).expect("BCS");
        let root = Digest::new(merkle.root().bytes());
        let digest = Digest::new(
            sui_sdk_types::hash::Hasher::digest(bcs::to_bytes(&vec![root]).expect("BCS"))
                .into_inner(),
        );
        summary.checkpoint_commitments = vec![CheckpointCommitment::CheckpointArtifacts { digest }];
        let evidence = if tree {
            let leaf = references
                .iter()
                .position(|reference| *reference.object_id() == object.object_id())
                .expect("it is among them");
            Evidence::Tree {
                leaf: leaf as u64,
                root,
                path: merkle.get_proof(leaf).expect("a leaf"),
            }
        } else {
            Evidence::effects(
                bcs::to_bytes(&contents).expect("BCS"),
                bcs::to_bytes(&effects).expect("BCS"),
            )
            .expect("within the limits")
        };
        let signed = self.validators.sign_by_quorum(summary);
        ObjectProof::new(bcs::to_bytes(object).expect("BCS"), signed, evidence)
            .expect("within the limits")
    }
}

/// Effects that wrote these objects.
fn effects<'a>(
    transaction: Digest,
    version: u64,
    objects: impl Iterator<Item = &'a Object>,
) -> TransactionEffects {
    let mut effects = empty_effects();
    effects.transaction_digest = transaction;
    effects.lamport_version = version;
    effects.changed_objects = objects
        .map(|object| sui_sdk_types::ChangedObject {
            object_id: object.object_id(),
            input_state: ObjectIn::NotExist,
            output_state: ObjectOut::ObjectWrite {
                digest: object.digest(),
                owner: *object.owner(),
            },
            id_operation: IdOperation::Created,
        })
        .collect();
    TransactionEffects::V2(Box::new(effects))
}

/// A transaction that wrote these objects, alone in its checkpoint.
#[must_use]
pub fn first_transaction(objects: &[Object]) -> (TransactionEffects, CheckpointContents) {
    let effects = effects(Digest::new([1; 32]), 1, objects.iter());
    let contents = contents(std::slice::from_ref(&effects));
    (effects, contents)
}

/// Effects of a transaction that did nothing.
#[must_use]
pub fn empty_effects() -> TransactionEffectsV2 {
    TransactionEffectsV2 {
        status: ExecutionStatus::Success,
        epoch: 0,
        gas_used: GasCostSummary::default(),
        transaction_digest: Digest::new([9; 32]),
        gas_object_index: None,
        events_digest: None,
        dependencies: Vec::new(),
        lamport_version: 1,
        changed_objects: Vec::new(),
        unchanged_consensus_objects: Vec::new(),
        auxiliary_data_digest: None,
    }
}

fn contents(all: &[TransactionEffects]) -> CheckpointContents {
    CheckpointContents::new_v1(
        all.iter()
            .map(|effects| {
                let transaction = *effects.transaction_digest();
                CheckpointTransactionInfo::new(transaction, effects.digest(), Vec::new())
            })
            .collect(),
    )
}

/// A shared Move object of the type `0x77::archive::Archive` with these contents after
/// its id.
#[must_use]
pub fn plain_object(id: u8, version: u64, rest: Vec<u8>) -> Object {
    let id = ObjectId([id; 32]);
    let bytes = [&id.0[..], &rest].concat();
    move_object(("archive", "Archive"), version, bytes, Owner::Shared(1))
}

/// A Move object of a type of the package `0x77`.
///
/// # Panics
/// If `contents` are shorter than an id, or the names are no identifiers.
#[must_use]
pub fn move_object(
    (module, name): (&str, &str),
    version: u64,
    contents: Vec<u8>,
    owner: Owner,
) -> Object {
    let tag = StructTag::new(
        address(PACKAGE),
        Identifier::new(module).expect("an identifier"),
        Identifier::new(name).expect("an identifier"),
        Vec::new(),
    );
    let value = MoveStruct::new(tag, false, version, contents).expect("starts with an id");
    let [transaction, ..] = version.to_le_bytes();
    Object::new(ObjectData::Struct(value), owner, Digest::new([transaction; 32]), 1_000)
}

/// The package of [`plain_object`].
pub const PACKAGE: ObjectId = ObjectId([0x77; 32]);

/// The account `0x88…`.
#[must_use]
pub fn account() -> Address {
    Address::new([0x88; 32])
}
