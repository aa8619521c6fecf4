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
        self.faults.pruned_below.unwrap_or(0).min(self.height)
    }

    pub(super) fn latest(&self) -> &'a Arc<Checkpoint> {
        &self.chain.checkpoints()[self.height as usize]
    }

    pub(super) fn checkpoint(&self, number: u64) -> Result<&'a Arc<Checkpoint>, Status> {
        let shown = (self.lowest()..=self.height).contains(&number);
        let found = self.chain.checkpoints().get(number as usize).filter(|_| shown);
        found.ok_or_else(|| not_found(format!("Checkpoint {number} not found")))
    }

    pub(super) fn checkpoint_by_digest(
        &self,
        digest: &Digest,
    ) -> Result<&'a Arc<Checkpoint>, Status> {
        let shown = &self.chain.checkpoints()[self.lowest() as usize..=self.height as usize];
        let found = shown.iter().find(|checkpoint| checkpoint.digest == *digest);
        found.ok_or_else(|| not_found(format!("Checkpoint {digest} not found")))
    }

    pub(super) fn transaction(&self, digest: &Digest) -> Result<&'a Arc<Executed>, Status> {
        self.chain
            .transaction(digest)
            .filter(|executed| (self.lowest()..=self.height).contains(&executed.checkpoint))
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
            self.chain.transaction(&digest).is_some_and(|tx| tx.checkpoint <= self.height)
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
