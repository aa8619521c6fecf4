//! From a run to its effects.

use std::collections::{BTreeMap, BTreeSet};

use sui_sdk_types::{
    Address, BalanceChange, ChangedObject, Digest, ExecutionError, ExecutionStatus, GasCostSummary,
    IdOperation, Object, ObjectData, ObjectIn, ObjectOut, Owner, StructTag, Transaction,
    TransactionEffects, TransactionEffectsV2, TransactionEvents, TransactionKind, TypeTag,
    UnchangedConsensusKind, UnchangedConsensusObject,
};

use super::{
    check::{Inputs, coin_value},
    gas, ptb,
    session::{Env, Live, Now, Session, Slot, struct_data},
};
use crate::sui::names::{DENY_LIST, decode, encode};

/// What a transaction did.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) effects: TransactionEffects,
    pub(crate) events: Option<TransactionEvents>,
    pub(crate) inputs: Vec<Object>,
    pub(crate) written: Vec<Object>,
    pub(crate) removed: Vec<Address>,
    /// Dynamic fields that were read and not written.
    pub(crate) loaded: Vec<(Address, u64)>,
    pub(crate) balance_changes: Vec<BalanceChange>,
}

/// Who pays.
struct Charge {
    coin: Address,
    budget: u64,
    computation: u64,
}

/// Runs a checked transaction. A run that fails is an outcome too: only gas is paid.
pub(crate) fn execute(env: Env<'_>, transaction: &Transaction, inputs: &Inputs) -> Outcome {
    let payment = &transaction.gas_payment;
    let TransactionKind::ProgrammableTransaction(program) = &transaction.kind else {
        return finish(Session::new(env), ExecutionStatus::Success, None, &[], &[]).0;
    };
    let readonly: Vec<_> =
        inputs.objects.iter().filter(|(_, w)| !w).map(|(object, _)| object.clone()).collect();
    let mut session = begin(env, inputs, payment.budget);
    let coin = inputs.gas.first().map(Object::object_id);
    let mut charge = Charge {
        coin: coin.unwrap_or(Address::ZERO),
        budget: payment.budget,
        computation: gas::units(&program.commands) * payment.price,
    };
    let deny_list = uses_other_coins(inputs);
    let failed = match ptb::run(&mut session, program, coin) {
        Ok(()) => {
            let status = ExecutionStatus::Success;
            let (outcome, fits) = finish(session, status, Some(&charge), &readonly, deny_list);
            if fits {
                return outcome;
            }
            (ExecutionError::InsufficientGas, None)
        }
        Err(failed) => (failed.error, failed.command),
    };
    let (error, command) = failed;
    charge.computation = gas::FAILED_UNITS * payment.price;
    let status = ExecutionStatus::Failure { error, command };
    let session = begin(env, inputs, payment.budget);
    finish(session, status, Some(&charge), &readonly, deny_list).0
}

/// A session with the inputs in it and the budget set aside.
fn begin<'a>(env: Env<'a>, inputs: &Inputs, budget: u64) -> Session<'a> {
    let mut session = Session::new(env);
    for (object, writable) in &inputs.objects {
        session.load(object, *writable, *writable);
    }
    let mut total = 0u64;
    for (number, coin) in inputs.gas.iter().enumerate() {
        session.load(coin, true, true);
        total = total.saturating_add(coin_value(coin, &StructTag::gas_coin()).unwrap_or(0));
        if number > 0 {
            session.delete(coin.object_id());
        }
    }
    if let Some(coin) = inputs.gas.first() {
        let id = coin.object_id();
        session.write(id, &(id, total.saturating_sub(budget)));
    }
    session
}

/// The deny list counts as read when a coin other than SUI goes in.
fn uses_other_coins(inputs: &Inputs) -> &'static [Address] {
    let other = inputs.objects.iter().any(|(object, _)| {
        let type_ = object.as_struct().map(|data| data.object_type());
        type_.is_some_and(|t| t.is_coin().is_some() && *t != StructTag::gas_coin())
    });
    if other { &[DENY_LIST] } else { &[] }
}

/// Writes all changes down. The second value: whether they fit into the budget.
fn finish(
    session: Session<'_>,
    status: ExecutionStatus,
    charge: Option<&Charge>,
    readonly: &[Object],
    configs: &[Address],
) -> (Outcome, bool) {
    let env = session.env;
    let (mut slots, events) = session.into_parts();
    let before: Vec<&Object> = slots.values().filter_map(|slot| slot.before.as_ref()).collect();
    let version = before.iter().map(|object| object.version()).max().unwrap_or(0) + 1;
    let dependencies: BTreeSet<Digest> =
        before.iter().map(|object| object.previous_transaction()).collect();
    let fields = slots.values().filter(|slot| !slot.dirty).filter_map(|slot| slot.before.as_ref());
    let fields = fields.filter(|object| matches!(object.owner(), Owner::Object(_)));
    let loaded = fields.map(|object| (object.object_id(), object.version())).collect();
    slots
        .retain(|_, slot| slot.dirty && !matches!((&slot.now, slot.created), (Now::Deleted, true)));

    let metered = charge.is_some();
    let mut written = BTreeMap::new();
    let mut deposits = 0;
    for (id, slot) in &slots {
        if let Some((data, owner)) = new_version(slot, version) {
            let deposit = if metered { gas::metered_price(&data) } else { 0 };
            deposits += deposit;
            written.insert(*id, Object::new(data, owner, env.digest, deposit));
        }
    }
    let old = slots.values().filter_map(|slot| slot.before.as_ref());
    let old: u64 = if metered { old.map(Object::storage_rebate).sum() } else { 0 };
    let (gas_used, fits) = match charge {
        None => (GasCostSummary::default(), true),
        Some(charge) => {
            let gas_used = gas::summary(charge.computation, deposits, old);
            let fits = gas::needed(&gas_used) <= charge.budget;
            pay(&mut written, charge, &gas_used);
            (gas_used, fits)
        }
    };

    let changed_objects: Vec<_> =
        slots.iter().map(|(id, slot)| changed(*id, slot, written.get(id))).collect();
    let gas_object_index = charge.and_then(|charge| {
        changed_objects.iter().position(|c| c.object_id == charge.coin).map(|i| i as u32)
    });
    let reads = readonly.iter().filter(|object| matches!(object.owner(), Owner::Shared(_)));
    let unchanged_consensus_objects = reads
        .map(|object| UnchangedConsensusObject {
            object_id: object.object_id(),
            kind: UnchangedConsensusKind::ReadOnlyRoot {
                version: object.version(),
                digest: object.digest(),
            },
        })
        .chain(configs.iter().map(|id| UnchangedConsensusObject {
            object_id: *id,
            kind: UnchangedConsensusKind::PerEpochConfig,
        }))
        .collect();
    let succeeded = status == ExecutionStatus::Success;
    let events = (succeeded && !events.is_empty()).then_some(TransactionEvents(events));
    let effects = TransactionEffectsV2 {
        status,
        epoch: env.epoch,
        gas_used,
        transaction_digest: env.digest,
        gas_object_index,
        events_digest: events.as_ref().map(TransactionEvents::digest),
        dependencies: dependencies.into_iter().collect(),
        lamport_version: version,
        changed_objects,
        unchanged_consensus_objects,
        auxiliary_data_digest: None,
    };
    let removed: Vec<_> = slots.keys().filter(|id| !written.contains_key(id)).copied().collect();
    let inputs: Vec<_> = slots.into_values().filter_map(|slot| slot.before).collect();
    let written: Vec<_> = written.into_values().collect();
    let balance_changes = balance_changes(&inputs, &written);
    let inputs = inputs.into_iter().chain(readonly.iter().cloned()).collect();
    let effects = TransactionEffects::V2(Box::new(effects));
    (Outcome { effects, events, inputs, written, removed, loaded, balance_changes }, fits)
}

fn new_version(slot: &Slot, version: u64) -> Option<(ObjectData, Owner)> {
    match &slot.now {
        Now::Live(live) => {
            let owner = match live.owner? {
                // Shared just now.
                Owner::Shared(0) => Owner::Shared(version),
                owner => owner,
            };
            struct_data(live, version).map(|data| (data, owner))
        }
        Now::Package(package) => Some((ObjectData::Package(package.clone()), Owner::Immutable)),
        Now::Wrapped | Now::Deleted => None,
    }
}

/// Gives the rest of the budget back to the gas coin, wherever the transaction has put it.
fn pay(written: &mut BTreeMap<Address, Object>, charge: &Charge, gas: &GasCostSummary) {
    let Some(coin) = written.get(&charge.coin) else { return };
    let Some(data) = coin.as_struct() else { return };
    let value = decode::<(Address, u64)>(data.contents()).map_or(0, |(_, value)| value);
    let back = (charge.budget + gas.storage_rebate)
        .saturating_sub(gas.computation_cost + gas.storage_cost);
    let live = Live {
        type_: data.object_type().clone(),
        public: true,
        contents: encode(&(charge.coin, value.saturating_add(back))),
        owner: None,
    };
    let new = struct_data(&live, data.version()).map(|data| {
        let (owner, previous) = (*coin.owner(), coin.previous_transaction());
        Object::new(data, owner, previous, coin.storage_rebate())
    });
    if let Some(new) = new {
        written.insert(charge.coin, new);
    }
}

fn changed(object_id: Address, slot: &Slot, written: Option<&Object>) -> ChangedObject {
    let input_state = slot.before.as_ref().map_or(ObjectIn::NotExist, |object| ObjectIn::Exist {
        version: object.version(),
        digest: object.digest(),
        owner: *object.owner(),
    });
    let output_state = match written {
        None => ObjectOut::NotExist,
        Some(object) => match object.data() {
            ObjectData::Package(package) => {
                ObjectOut::PackageWrite { version: package.version, digest: object.digest() }
            }
            ObjectData::Struct(_) => {
                ObjectOut::ObjectWrite { digest: object.digest(), owner: *object.owner() }
            }
        },
    };
    let id_operation = match (&slot.now, slot.created) {
        (Now::Deleted, _) => IdOperation::Deleted,
        (_, true) => IdOperation::Created,
        _ => IdOperation::None,
    };
    ChangedObject { object_id, input_state, output_state, id_operation }
}

/// How much every address has more or less of every coin.
fn balance_changes(before: &[Object], after: &[Object]) -> Vec<BalanceChange> {
    let mut changes: BTreeMap<(Address, TypeTag), i128> = BTreeMap::new();
    for (objects, sign) in [(before, -1i128), (after, 1)] {
        for object in objects {
            let Owner::Address(owner) = object.owner() else { continue };
            let Some(data) = object.as_struct() else { continue };
            let Some(coin) = data.object_type().is_coin() else { continue };
            let value = coin_value(object, data.object_type()).unwrap_or(0);
            *changes.entry((*owner, coin.clone())).or_default() += sign * i128::from(value);
        }
    }
    let change = |((address, coin_type), amount)| BalanceChange { address, coin_type, amount };
    changes.into_iter().filter(|(_, amount)| *amount != 0).map(change).collect()
}

/// The first transaction of a chain: everything is there.
pub(crate) fn genesis_outcome(digest: Digest, objects: Vec<Object>) -> Outcome {
    let changed = |object: &Object| {
        let slot =
            Slot { before: None, created: true, writable: true, dirty: true, now: Now::Wrapped };
        changed(object.object_id(), &slot, Some(object))
    };
    let mut objects = objects;
    objects.sort_by_key(Object::object_id);
    let effects = TransactionEffectsV2 {
        status: ExecutionStatus::Success,
        epoch: 0,
        gas_used: GasCostSummary::default(),
        transaction_digest: digest,
        gas_object_index: None,
        events_digest: None,
        dependencies: vec![],
        lamport_version: 1,
        changed_objects: objects.iter().map(changed).collect(),
        unchanged_consensus_objects: vec![],
        auxiliary_data_digest: None,
    };
    Outcome {
        effects: TransactionEffects::V2(Box::new(effects)),
        events: None,
        inputs: vec![],
        balance_changes: vec![],
        written: objects,
        removed: vec![],
        loaded: vec![],
    }
}

/// A system transaction: gives objects new contents, and counts others as written.
pub(crate) fn system_change(
    env: Env<'_>,
    contents: Vec<(Address, Vec<u8>)>,
    also: &[Address],
) -> Outcome {
    let mut session = Session::new(env);
    for (id, contents) in contents {
        if let Some(object) = env.store.get(id) {
            session.load(object, true, true);
            session.overwrite(id, contents);
        }
    }
    for object in also.iter().filter_map(|id| env.store.get(*id)) {
        session.load(object, true, true);
    }
    finish(session, ExecutionStatus::Success, None, &[], &[]).0
}
