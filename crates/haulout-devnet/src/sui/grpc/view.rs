//! What a node shows of the chain: all of it, or what its faults leave.

use std::sync::Arc;

use sui_sdk_types::{
    Address, CheckpointContents, Digest, MoveStruct, Object, ObjectData, Owner,
    ValidatorAggregatedSignature,
};
use tonic::Status;

use super::{errors::not_found, faults::FaultState};
use crate::sui::{
    model::{Chain, Checkpoint, Epoch, Executed},
    names::CLOCK,
};

pub(super) struct View<'a> {
    pub(super) chain: &'a Chain,
    faults: FaultState,
    height: u64,
}

impl<'a> View<'a> {
    pub(super) fn new(chain: &'a Chain, faults: FaultState) -> Self {
        let height = chain.checkpoints().len() as u64 - 1;
        let height = faults.stale_at.map_or(height, |stale| stale.min(height));
        Self { chain, faults, height }
    }

    pub(super) fn faults(&self) -> FaultState {
        self.faults
    }

    /// The lowest checkpoint that the node has.
    pub(super) fn lowest(&self) -> u64 {
        self.pruned_below().max(self.chain.checkpoints().lowest()).min(self.height)
    }

    /// What the node was told to have forgotten: everything below.
    fn pruned_below(&self) -> u64 {
        self.faults.pruned_below.unwrap_or(0).min(self.height)
    }

    /// Whether the node was not told to hide what is in this checkpoint.
    fn shows(&self, number: u64) -> bool {
        (self.pruned_below()..=self.height).contains(&number)
    }

    pub(super) fn latest(&self) -> &'a Arc<Checkpoint> {
        self.chain.checkpoints().up_to(self.height)
    }

    pub(super) fn checkpoint(&self, number: u64) -> Result<&'a Arc<Checkpoint>, Status> {
        let found = self.chain.checkpoints().get(number).filter(|_| self.shows(number));
        found.ok_or_else(|| not_found(format!("Checkpoint {number} not found")))
    }

    pub(super) fn checkpoint_by_digest(
        &self,
        digest: &Digest,
    ) -> Result<&'a Arc<Checkpoint>, Status> {
        let all = self.chain.checkpoints().iter();
        let mut shown = all.filter(|checkpoint| self.shows(checkpoint.summary.sequence_number));
        let found = shown.find(|checkpoint| checkpoint.digest == *digest);
        found.ok_or_else(|| not_found(format!("Checkpoint {digest} not found")))
    }

    pub(super) fn transaction(&self, digest: &Digest) -> Result<&'a Arc<Executed>, Status> {
        self.chain
            .transaction(digest)
            .filter(|executed| self.shows(executed.checkpoint))
            .ok_or_else(|| not_found(format!("Transaction {digest} not found")))
    }

    /// An epoch that has begun, as far as the node knows: it may have ended since.
    pub(super) fn epoch(&self, number: Option<u64>) -> Option<Epoch> {
        let current = self.latest().summary.epoch;
        let ended = self.latest().summary.end_of_epoch_data.is_some();
        let current = if ended { current + 1 } else { current };
        let number = number.unwrap_or(current);
        let mut epoch =
            self.chain.epochs().get(number as usize).filter(|_| number <= current)?.clone();
        if epoch.last_checkpoint.is_some_and(|last| last > self.height) {
            (epoch.last_checkpoint, epoch.end_ms) = (None, None);
        }
        Some(epoch)
    }

    /// An object as the chain has it.
    pub(super) fn true_object(
        &self,
        id: Address,
        version: Option<u64>,
    ) -> Result<&'a Object, Status> {
        let store = &self.chain.store;
        let shown = |object: &&Object| {
            let digest = object.previous_transaction();
            // A transaction that the chain has forgotten is older than anything a node may hide.
            self.chain.transaction(&digest).is_none_or(|tx| tx.checkpoint <= self.height)
        };
        match version {
            Some(version) => store
                .version(id, version)
                .filter(shown)
                .ok_or_else(|| not_found(format!("Object {id} with version {version} not found"))),
            None => {
                let mut found = match self.faults.stale_at {
                    None => store.get(id),
                    Some(_) => store.at_or_before(id, u64::MAX),
                };
                while let Some(object) = found.filter(|object| !shown(object)) {
                    let below = object.version().checked_sub(1);
                    found = below.and_then(|below| store.at_or_before(id, below));
                }
                found.ok_or_else(|| not_found(format!("Object {id} not found")))
            }
        }
    }

    /// An object as the node tells it.
    pub(super) fn object(&self, id: Address, version: Option<u64>) -> Result<Object, Status> {
        let object = match self.faults.other_object {
            true => self.true_object(CLOCK, None)?,
            false => self.true_object(id, version)?,
        };
        Ok(self.distort(object))
    }

    /// What a lying node makes of an object.
    pub(super) fn distort(&self, object: &Object) -> Object {
        let faults = self.faults;
        let mut owner = *object.owner();
        if faults.wrong_owner {
            owner = Owner::Address(Address::from_static("0xbad"));
        }
        let mut data = object.data().clone();
        if let ObjectData::Struct(inner) = &data {
            let version = inner.version() + u64::from(faults.wrong_version);
            let mut contents = inner.contents().to_vec();
            if faults.forged_object
                && contents.len() > Address::LENGTH
                && let Some(last) = contents.last_mut()
            {
                *last ^= 1;
            }
            let (type_, public) = (inner.object_type().clone(), inner.has_public_transfer());
            if let Some(inner) = MoveStruct::new(type_, public, version, contents) {
                data = ObjectData::Struct(inner);
            }
        }
        Object::new(data, owner, object.previous_transaction(), object.storage_rebate())
    }

    /// A checkpoint's signature as the node tells it.
    pub(super) fn signature(&self, checkpoint: &Checkpoint) -> ValidatorAggregatedSignature {
        let mut signature = checkpoint.signature.clone();
        if self.faults.bad_signature {
            let mut bytes = *signature.signature.inner();
            bytes[47] ^= 1;
            signature.signature = sui_sdk_types::Bls12381Signature::new(bytes);
        }
        signature
    }

    /// A checkpoint's contents as the node tells them.
    pub(super) fn contents(&self, checkpoint: &Checkpoint) -> CheckpointContents {
        let contents = checkpoint.contents.clone();
        match self.faults.truncated_proof {
            false => contents,
            true => {
                let mut transactions = contents.transactions().to_vec();
                transactions.pop();
                CheckpointContents::new_v1(transactions)
            }
        }
    }
}
