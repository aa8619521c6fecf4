//! Transactions that the validators make themselves.

use sui_sdk_types::{
    Address, ChangeEpoch, ConsensusCommitPrologueV4, ConsensusDeterminedVersionAssignments, Digest,
    Ed25519PublicKey, Ed25519Signature, EndOfEpochTransactionKind, GasCostSummary, GasPayment,
    GenesisObject, GenesisTransaction, Object, ObjectReference, SignedTransaction, SimpleSignature,
    Transaction, TransactionExpiration, TransactionKind, UserSignature, hash::Hasher,
};

/// The protocol version that the chain says it has: the first of Sui's mainnet whose checkpoints
/// commit to the objects they wrote.
pub(crate) const PROTOCOL_VERSION: u64 = 128;

fn system(kind: TransactionKind) -> SignedTransaction {
    let nothing = ObjectReference::new(Address::ZERO, 0, Digest::ZERO);
    let gas_payment =
        GasPayment { objects: vec![nothing], owner: Address::ZERO, price: 1, budget: 0 };
    let signature = SimpleSignature::Ed25519 {
        signature: Ed25519Signature::new([0; 64]),
        public_key: Ed25519PublicKey::new([0; 32]),
    };
    let transaction = Transaction {
        kind,
        sender: Address::ZERO,
        gas_payment,
        expiration: TransactionExpiration::None,
    };
    SignedTransaction { transaction, signatures: vec![UserSignature::Simple(signature)] }
}

/// Creates everything there is at the start.
pub(crate) fn genesis(objects: &[Object]) -> SignedTransaction {
    let objects = objects
        .iter()
        .map(|object| GenesisObject::new(object.data().clone(), *object.owner()))
        .collect();
    system(TransactionKind::Genesis(GenesisTransaction { objects }))
}

/// Opens a commit and sets the clock.
pub(crate) fn prologue(epoch: u64, round: u64, commit_timestamp_ms: u64) -> SignedTransaction {
    let digest = |what: &str| {
        let mut hasher = Hasher::new();
        hasher.update(what);
        hasher.update(round.to_le_bytes());
        hasher.update(commit_timestamp_ms.to_le_bytes());
        hasher.finalize()
    };
    system(TransactionKind::ConsensusCommitPrologueV4(ConsensusCommitPrologueV4 {
        epoch,
        round,
        sub_dag_index: None,
        commit_timestamp_ms,
        consensus_commit_digest: digest("commit"),
        consensus_determined_version_assignments:
            ConsensusDeterminedVersionAssignments::CanceledTransactionsV2 {
                canceled_transactions: vec![],
            },
        additional_state_digest: digest("state"),
    }))
}

/// Ends an epoch.
pub(crate) fn change_epoch(next: u64, gas: &GasCostSummary, now_ms: u64) -> SignedTransaction {
    let change = ChangeEpoch {
        epoch: next,
        protocol_version: PROTOCOL_VERSION,
        storage_charge: gas.storage_cost,
        computation_charge: gas.computation_cost,
        storage_rebate: gas.storage_rebate,
        non_refundable_storage_fee: gas.non_refundable_storage_fee,
        epoch_start_timestamp_ms: now_ms,
        system_packages: vec![],
    };
    system(TransactionKind::EndOfEpoch(vec![EndOfEpochTransactionKind::ChangeEpoch(change)]))
}
