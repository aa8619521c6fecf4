//! The chain itself: executes, seals checkpoints, changes epochs.

use std::{collections::HashMap, sync::Arc};

use sui_sdk_types::{
    Address, Digest, EndOfEpochData, GasCostSummary, Object, ObjectData, Owner, SignedTransaction,
    Transaction,
};

use super::{
    Checkpoint, Epoch, Executed, History, Packages, Store,
    checkpoint::{Frame, seal},
    state::{state_contents, state_id},
    system,
    validators::Validators,
};
use crate::sui::{
    exec::{self, Env, Outcome},
    names::{CLOCK, SYSTEM_STATE, encode},
    walrus::BlobIndex,
};

/// What a chain starts with.
#[derive(Debug)]
pub(crate) struct Genesis {
    /// Validators' keys derive from it.
    pub(crate) seed: [u8; 32],
    /// Number of validators.
    pub(crate) validators: usize,
    /// Whether checkpoints commit to the objects they wrote (OCS).
    pub(crate) artifacts: bool,
    /// Reference gas price in MIST.
    pub(crate) gas_price: u64,
    pub(crate) objects: Vec<(ObjectData, Owner)>,
    pub(crate) packages: Packages,
    /// Milliseconds since 1970.
    pub(crate) now_ms: u64,
}

/// A transaction that did not get in, in words for its sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejected(pub(crate) String);

/// The chain.
#[derive(Debug)]
pub(crate) struct Chain {
    seed: [u8; 32],
    validator_count: usize,
    artifacts: bool,
    gas_price: u64,
    pub(crate) store: Store,
    pub(crate) packages: Packages,
    /// What Walrus' events say of blobs.
    pub(crate) blobs: BlobIndex,
    transactions: HashMap<Digest, Arc<Executed>>,
    checkpoints: History,
    epochs: Vec<Epoch>,
    validators: Validators,
    total_transactions: u64,
    epoch_gas: GasCostSummary,
}

impl Chain {
    /// A chain with its first checkpoint.
    pub(crate) fn new(genesis: Genesis) -> Self {
        let Genesis { seed, validators, artifacts, gas_price, objects, packages, now_ms } = genesis;
        let mut objects = objects;
        objects.sort_by_key(|(data, _)| data_id(data));
        let validator_count = validators;
        let validators = Validators::generate(&seed, 0, validator_count);
        let first = Epoch {
            committee: validators.committee().clone(),
            first_checkpoint: 0,
            last_checkpoint: None,
            start_ms: now_ms,
            end_ms: None,
        };
        let deposit = |data: &ObjectData| match data {
            ObjectData::Struct(data) if data.object_id() <= SYSTEM_LAST => 0,
            data => exec::metered_price(data),
        };
        let object = |previous, (data, owner): &(ObjectData, Owner)| {
            Object::new(data.clone(), *owner, previous, deposit(data))
        };
        let drafts: Vec<_> = objects.iter().map(|entry| object(Digest::ZERO, entry)).collect();
        let signed = system::genesis(&drafts);
        let digest = signed.transaction.digest();
        let objects = objects.iter().map(|entry| object(digest, entry)).collect();
        let outcome = exec::genesis_outcome(digest, objects);
        let mut chain = Self {
            seed,
            validator_count,
            artifacts,
            gas_price,
            store: Store::default(),
            packages,
            blobs: BlobIndex::default(),
            transactions: HashMap::new(),
            checkpoints: History::default(),
            epochs: vec![first],
            validators,
            total_transactions: 0,
            epoch_gas: GasCostSummary::default(),
        };
        let executed = chain.commit(digest, signed, outcome, now_ms);
        chain.seal(vec![executed], now_ms, None);
        chain
    }

    /// The digest of the first checkpoint.
    pub(crate) fn id(&self) -> Digest {
        self.checkpoints.first().map_or(Digest::ZERO, |first| first.digest)
    }

    pub(crate) fn gas_price(&self) -> u64 {
        self.gas_price
    }

    pub(crate) fn epochs(&self) -> &[Epoch] {
        &self.epochs
    }

    pub(crate) fn checkpoints(&self) -> &History {
        &self.checkpoints
    }

    pub(crate) fn transaction(&self, digest: &Digest) -> Option<&Arc<Executed>> {
        self.transactions.get(digest)
    }

    /// The current epoch's number.
    pub(crate) fn epoch(&self) -> u64 {
        self.epochs.len() as u64 - 1
    }

    /// The chain as a transaction with this digest sees it.
    pub(crate) fn env<'a>(&'a self, digest: Digest, transaction: &Transaction) -> Env<'a> {
        let (store, packages, epoch) = (&self.store, &self.packages, self.epoch());
        Env { store, packages, epoch, sender: transaction.sender, digest }
    }

    /// Executes a transaction in a checkpoint of its own. The same transaction again gives the
    /// same answer and changes nothing.
    ///
    /// # Errors
    /// If it is not valid. One that fails while running is in the checkpoint, and pays.
    pub(crate) fn submit(
        &mut self,
        signed: SignedTransaction,
        now_ms: u64,
    ) -> Result<Arc<Executed>, Rejected> {
        let digest = signed.transaction.digest();
        if let Some(executed) = self.transactions.get(&digest) {
            return Ok(executed.clone());
        }
        exec::signatures(&signed)
            .map_err(|error| Rejected(format!("Invalid user signature: {error}")))?;
        let inputs = self.check(&signed.transaction, digest)?;
        let now_ms = self.not_before_last(now_ms);
        let prologue = self.prologue(now_ms);
        // The prologue has moved the clock: a transaction that reads it sees the new one.
        let inputs = match inputs {
            inputs if inputs.reads_clock() => self.check(&signed.transaction, digest)?,
            inputs => inputs,
        };
        let env = self.env(digest, &signed.transaction);
        let outcome = exec::execute(env, &signed.transaction, &inputs);
        let executed = self.commit(digest, signed, outcome, now_ms);
        self.seal(vec![prologue, executed.clone()], now_ms, None);
        Ok(executed)
    }

    /// Checks and runs a transaction without signatures and without a trace.
    ///
    /// # Errors
    /// If it is not valid.
    pub(crate) fn simulate(&self, transaction: &Transaction) -> Result<Outcome, Rejected> {
        let digest = transaction.digest();
        let inputs = self.check(transaction, digest)?;
        Ok(exec::execute(self.env(digest, transaction), transaction, &inputs))
    }

    fn check(&self, transaction: &Transaction, digest: Digest) -> Result<exec::Inputs, Rejected> {
        exec::check(self.env(digest, transaction), transaction, self.gas_price)
            .map_err(|error| Rejected(format!("Error checking transaction input objects: {error}")))
    }

    /// Lets time pass: a checkpoint in which only the clock moves.
    pub(crate) fn tick(&mut self, now_ms: u64) {
        let now_ms = self.not_before_last(now_ms);
        let prologue = self.prologue(now_ms);
        self.seal(vec![prologue], now_ms, None);
    }

    /// The same history with other validators behind it: what an attacker can make who has
    /// everything but the keys. Objects, transactions and ids are the same, signatures and the
    /// committees that ends of epochs name are not.
    pub(crate) fn fork(&self, seed: [u8; 32]) -> Self {
        let validators = |epoch: u64| Validators::generate(&seed, epoch, self.validator_count);
        let mut fork = Self {
            seed,
            store: self.store.clone(),
            packages: self.packages.clone(),
            blobs: self.blobs.clone(),
            transactions: self.transactions.clone(),
            checkpoints: History::default(),
            epochs: self.epochs.clone(),
            validators: validators(self.epoch()),
            epoch_gas: self.epoch_gas.clone(),
            ..*self
        };
        for (number, epoch) in (0..).zip(&mut fork.epochs) {
            epoch.committee = validators(number).committee().clone();
        }
        let mut signing = validators(0);
        let mut previous = None;
        for checkpoint in self.checkpoints.iter() {
            let mut copy = Checkpoint::clone(checkpoint);
            let epoch = copy.summary.epoch;
            if signing.committee().epoch != epoch {
                signing = validators(epoch);
            }
            if let Some(end) = &mut copy.summary.end_of_epoch_data {
                end.next_epoch_committee = validators(epoch + 1).committee().members.clone();
            }
            // Of one that was forgotten only the digest is left: that of the chain it was on.
            let number = copy.summary.sequence_number;
            if let Some((before, digest)) = previous
                && before + 1 == number
            {
                copy.summary.previous_digest = Some(digest);
            }
            copy.signature = signing.sign(&copy.summary);
            copy.digest = copy.summary.digest();
            previous = Some((number, copy.digest));
            fork.checkpoints.push(Arc::new(copy));
        }
        fork
    }

    /// Ends Sui's epoch: a last checkpoint that names the next committee.
    pub(crate) fn end_epoch(&mut self, now_ms: u64) {
        let now_ms = self.not_before_last(now_ms);
        let prologue = self.prologue(now_ms);
        let next = self.epoch() + 1;
        let validators = Validators::generate(&self.seed, next, self.validator_count);
        let signed = system::change_epoch(next, &self.epoch_gas, now_ms);
        let digest = signed.transaction.digest();
        let env = self.env(digest, &signed.transaction);
        let outcome = {
            let state = state_contents(validators.committee(), self.gas_price, now_ms);
            exec::system_change(env, vec![(state_id(), state)], &[SYSTEM_STATE])
        };
        let change = self.commit(digest, signed, outcome, now_ms);
        let data = EndOfEpochData {
            next_epoch_committee: validators.committee().members.clone(),
            next_epoch_protocol_version: system::PROTOCOL_VERSION,
            epoch_commitments: vec![],
        };
        self.seal(vec![prologue, change], now_ms, Some(data));
        let last = self.checkpoints.len() as u64 - 1;
        if let Some(epoch) = self.epochs.last_mut() {
            (epoch.last_checkpoint, epoch.end_ms) = (Some(last), Some(now_ms));
        }
        self.epochs.push(Epoch {
            committee: validators.committee().clone(),
            first_checkpoint: last + 1,
            last_checkpoint: None,
            start_ms: now_ms,
            end_ms: None,
        });
        self.validators = validators;
        self.epoch_gas = GasCostSummary::default();
    }

    fn prologue(&mut self, now_ms: u64) -> Arc<Executed> {
        let round = self.checkpoints.len() as u64;
        let signed = system::prologue(self.epoch(), round, now_ms);
        let digest = signed.transaction.digest();
        let env = self.env(digest, &signed.transaction);
        let outcome = exec::system_change(env, vec![(CLOCK, encode(&(CLOCK, now_ms)))], &[]);
        self.commit(digest, signed, outcome, now_ms)
    }

    fn not_before_last(&self, now_ms: u64) -> u64 {
        self.checkpoints.last().map_or(now_ms, |last| last.summary.timestamp_ms.max(now_ms))
    }

    fn commit(
        &mut self,
        digest: Digest,
        signed: SignedTransaction,
        outcome: Outcome,
        timestamp_ms: u64,
    ) -> Arc<Executed> {
        for id in &outcome.removed {
            self.store.remove(*id);
        }
        for object in &outcome.written {
            if let ObjectData::Package(package) = object.data()
                && self.packages.get(package.id).is_none()
            {
                self.packages.insert(package.id, exec::kind_of(package), package.id);
            }
            self.store.write(object.clone());
        }
        if let Some(events) = &outcome.events {
            self.blobs.apply(self.packages.walrus(), &digest, &events.0);
        }
        let executed = Arc::new(Executed {
            digest,
            signed,
            effects: outcome.effects,
            events: outcome.events,
            inputs: outcome.inputs,
            written: outcome.written,
            loaded: outcome.loaded,
            balance_changes: outcome.balance_changes,
            checkpoint: self.checkpoints.len() as u64,
            timestamp_ms,
        });
        self.transactions.insert(digest, executed.clone());
        executed
    }

    fn seal(
        &mut self,
        transactions: Vec<Arc<Executed>>,
        timestamp_ms: u64,
        end_of_epoch: Option<EndOfEpochData>,
    ) {
        self.total_transactions += transactions.len() as u64;
        for executed in &transactions {
            let gas = executed.effects.gas_summary();
            let sum = &mut self.epoch_gas;
            sum.computation_cost += gas.computation_cost;
            sum.storage_cost += gas.storage_cost;
            sum.storage_rebate += gas.storage_rebate;
            sum.non_refundable_storage_fee += gas.non_refundable_storage_fee;
        }
        let frame = Frame {
            epoch: self.epoch(),
            sequence_number: self.checkpoints.len() as u64,
            previous: self.checkpoints.last().map(|last| last.digest),
            network_total_transactions: self.total_transactions,
            epoch_gas: self.epoch_gas.clone(),
            timestamp_ms,
            end_of_epoch,
            artifacts: self.artifacts,
            validators: &self.validators,
        };
        let checkpoint = seal(frame, transactions);
        if let Some(forgotten) = self.checkpoints.push(Arc::new(checkpoint)) {
            self.forget(&forgotten);
        }
    }

    /// Forgets the transactions of a checkpoint, and what they wrote that has changed since.
    fn forget(&mut self, checkpoint: &Checkpoint) {
        for executed in &checkpoint.transactions {
            self.transactions.remove(&executed.digest);
            for object in &executed.written {
                self.store.forget_version(object.object_id(), object.version());
            }
        }
    }
}

fn data_id(data: &ObjectData) -> Address {
    match data {
        ObjectData::Struct(data) => data.object_id(),
        ObjectData::Package(package) => package.id,
    }
}

/// Objects up to here belong to the system and have no deposit.
const SYSTEM_LAST: Address = Address::from_static("0xffff");
