//! Checkpoints: what happened, and the commitments that validators sign.

use std::{collections::BTreeMap, sync::Arc};

use sui_sdk_types::{
    Address, BalanceChange, CheckpointCommitment, CheckpointContents, CheckpointSummary,
    CheckpointTransactionInfo, Digest, EndOfEpochData, GasCostSummary, Object, ObjectReference,
    SignedTransaction, TransactionEffects, TransactionEvents, TransactionKind,
    ValidatorAggregatedSignature, ValidatorCommittee, hash::Hasher, merkle::MerkleTree,
};

use super::validators::Validators;
use crate::sui::names::encode;

/// A transaction in a checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct Executed {
    pub(crate) digest: Digest,
    pub(crate) signed: SignedTransaction,
    pub(crate) effects: TransactionEffects,
    pub(crate) events: Option<TransactionEvents>,
    pub(crate) inputs: Vec<Object>,
    pub(crate) written: Vec<Object>,
    /// Dynamic fields that were read and not written.
    pub(crate) loaded: Vec<(Address, u64)>,
    pub(crate) balance_changes: Vec<BalanceChange>,
    pub(crate) checkpoint: u64,
    pub(crate) timestamp_ms: u64,
}

/// A certified checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoint {
    pub(crate) digest: Digest,
    pub(crate) summary: CheckpointSummary,
    pub(crate) signature: ValidatorAggregatedSignature,
    pub(crate) contents: CheckpointContents,
    pub(crate) transactions: Vec<Arc<Executed>>,
    /// What it wrote: the latest state of every object, ascending by id.
    pub(crate) written: Vec<ObjectReference>,
}

impl Checkpoint {
    /// Whether it is more than the clock moving on, or an epoch ending.
    pub(crate) fn has_users_transaction(&self) -> bool {
        self.transactions.iter().any(|executed| {
            let kind = &executed.signed.transaction.kind;
            matches!(kind, TransactionKind::ProgrammableTransaction(_))
        })
    }
}

/// An epoch of Sui.
#[derive(Debug, Clone)]
pub(crate) struct Epoch {
    pub(crate) committee: ValidatorCommittee,
    pub(crate) first_checkpoint: u64,
    /// Set when it has ended.
    pub(crate) last_checkpoint: Option<u64>,
    pub(crate) start_ms: u64,
    pub(crate) end_ms: Option<u64>,
}

/// What a checkpoint is made of besides its transactions.
pub(crate) struct Frame<'a> {
    pub(crate) epoch: u64,
    pub(crate) sequence_number: u64,
    pub(crate) previous: Option<Digest>,
    pub(crate) network_total_transactions: u64,
    /// Gas of the epoch so far, this checkpoint included.
    pub(crate) epoch_gas: GasCostSummary,
    pub(crate) timestamp_ms: u64,
    pub(crate) end_of_epoch: Option<EndOfEpochData>,
    /// Whether the summary commits to what was written, so that objects can be proven one by one.
    pub(crate) artifacts: bool,
    pub(crate) validators: &'a Validators,
}

/// Builds and certifies a checkpoint.
pub(crate) fn seal(frame: Frame<'_>, transactions: Vec<Arc<Executed>>) -> Checkpoint {
    let infos = transactions.iter().map(|executed| {
        let signatures = executed.signed.signatures.clone();
        CheckpointTransactionInfo::new(executed.digest, executed.effects.digest(), signatures)
    });
    let contents = CheckpointContents::new_v1(infos.collect());
    let written = written(&transactions);
    let checkpoint_commitments = match frame.artifacts {
        true => vec![CheckpointCommitment::CheckpointArtifacts { digest: artifacts(&written) }],
        false => vec![],
    };
    let summary = CheckpointSummary {
        epoch: frame.epoch,
        sequence_number: frame.sequence_number,
        network_total_transactions: frame.network_total_transactions,
        content_digest: contents.digest(),
        previous_digest: frame.previous,
        epoch_rolling_gas_cost_summary: frame.epoch_gas,
        timestamp_ms: frame.timestamp_ms,
        checkpoint_commitments,
        end_of_epoch_data: frame.end_of_epoch,
        // Version 1, no randomness rounds.
        version_specific_data: vec![0, 0],
    };
    let signature = frame.validators.sign(&summary);
    Checkpoint { digest: summary.digest(), summary, signature, contents, transactions, written }
}

/// The tree over what a checkpoint wrote. Objects that it deleted or wrapped are not in it.
pub(crate) fn tree(written: &[ObjectReference]) -> MerkleTree {
    MerkleTree::build_from_serialized(written.iter().map(encode).collect::<Vec<_>>())
}

fn artifacts(written: &[ObjectReference]) -> Digest {
    let root = Digest::new(tree(written).root().bytes());
    Hasher::digest(encode(&vec![root]))
}

fn written(transactions: &[Arc<Executed>]) -> Vec<ObjectReference> {
    let mut latest: BTreeMap<Address, (u64, Digest)> = BTreeMap::new();
    for executed in transactions {
        for object in &executed.written {
            latest.insert(object.object_id(), (object.version(), object.digest()));
        }
    }
    latest.into_iter().map(|(id, (v, digest))| ObjectReference::new(id, v, digest)).collect()
}
