//! What a node says, as far as it is used here.

use sui_rpc::proto::sui::rpc::v2;
use sui_sdk_types::{Digest, Object, SignedCheckpointSummary, ValidatorCommittee};

use crate::rpc::RpcError;

/// What a node says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// Digest of the chain's first checkpoint.
    pub chain: Digest,
    /// The current epoch.
    pub epoch: u64,
    /// The newest checkpoint.
    pub checkpoint: u64,
}

/// Which checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointAt {
    /// By number.
    Sequence(u64),
    /// By digest.
    Digest(Digest),
}

/// What a node says about an epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct EpochInfo {
    /// The epoch.
    pub epoch: u64,
    /// Its last checkpoint, once it is over.
    pub last_checkpoint: Option<u64>,
    /// MIST per unit of computation.
    pub gas_price: Option<u64>,
    /// Its committee; not proven by anything.
    pub committee: Option<ValidatorCommittee>,
}

/// A checkpoint's parts. BCS where digests are taken of them.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedParts {
    /// Summary and signature.
    pub signed: SignedCheckpointSummary,
    /// BCS `CheckpointContents`, if asked for.
    pub contents: Option<Vec<u8>>,
}

/// A transaction that was executed.
#[derive(Debug, Clone, PartialEq)]
pub struct TxInfo {
    /// The checkpoint it is in; `None` as long as it is in none.
    pub checkpoint: Option<u64>,
    /// BCS `TransactionEffects`.
    pub effects: Vec<u8>,
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Executed {
    /// The checkpoint it is in; `None` as long as it is in none.
    pub checkpoint: Option<u64>,
    /// BCS `TransactionEffects`.
    pub effects: Vec<u8>,
    /// What it cost.
    pub gas: Gas,
    /// Why it failed, if it did.
    pub failure: Option<RpcError>,
}

/// An object of an account.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnedObject(pub Object);

/// What a transaction costs, in MIST.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gas {
    /// Burnt or paid to validators.
    pub computation: u64,
    /// Deposit for the bytes of the objects written.
    pub storage: u64,
    /// Deposit given back for those overwritten or deleted.
    pub rebate: u64,
}

impl Gas {
    /// What leaves the account, in MIST; negative if more is given back.
    #[must_use]
    pub fn net(&self) -> i128 {
        i128::from(self.computation) + i128::from(self.storage) - i128::from(self.rebate)
    }
}

/// What effects say that the transaction cost.
pub(super) fn gas(effects: &v2::TransactionEffects) -> Gas {
    let used = effects.gas_used();
    Gas {
        computation: used.computation_cost(),
        storage: used.storage_cost(),
        rebate: used.storage_rebate(),
    }
}
