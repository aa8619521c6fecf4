//! From the model to messages, under a mask.

use prost_types::Timestamp;
use sui_rpc::{
    field::FieldMaskTree,
    merge::Merge,
    proto::sui::rpc::v2::{
        self as rpc, Checkpoint as CheckpointMessage, Epoch as EpochMessage, ExecutedTransaction,
        Object as ObjectMessage, ObjectReference, ObjectSet, ProtocolConfig, TransactionEffects,
        TransactionEvents, UserSignature,
    },
};
use sui_sdk_types::{Object, StructTag};

use super::{json, view::View};
use crate::sui::{
    exec::coin_value,
    model::{Checkpoint, Epoch, Executed},
};

/// The protocol version that the node reports.
const PROTOCOL_VERSION: u64 = 128;

pub(super) fn timestamp(ms: u64) -> Timestamp {
    let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    // Below 1e9.
    let nanos = i32::try_from(ms % 1_000 * 1_000_000).unwrap_or(0);
    Timestamp { seconds, nanos }
}

/// An object, with its value as JSON where its layout is known.
pub(super) fn object(object: &Object, mask: &FieldMaskTree) -> ObjectMessage {
    let mut message = bare_object(object, mask);
    if let Some(data) = object.as_struct().filter(|_| mask.contains("json")) {
        message.json = json::render(data.object_type(), data.contents()).map(Box::new);
    }
    message
}

/// An object as it comes in sets: without JSON.
fn bare_object(object: &Object, mask: &FieldMaskTree) -> ObjectMessage {
    let mut message = ObjectMessage::merge_from(object.clone(), mask);
    let Some(data) = object.as_struct() else { return message };
    if mask.contains("balance") && data.object_type().is_coin().is_some() {
        message.balance = coin_value(object, data.object_type());
    }
    message
}

/// How much of a transaction is told: alone it comes with what can be derived from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Alone,
    InCheckpoint,
    /// Just executed or simulated: in no checkpoint yet.
    Fresh,
}

pub(super) fn transaction(
    executed: &Executed,
    mask: &FieldMaskTree,
    place: Place,
) -> ExecutedTransaction {
    let mut message = ExecutedTransaction::default();
    if mask.contains("digest") {
        message.digest = Some(executed.digest.to_string());
    }
    if let Some(mask) = mask.subtree("transaction") {
        let transaction = executed.signed.transaction.clone();
        message.transaction = Some(rpc::Transaction::merge_from(transaction, &mask));
    }
    if let Some(mask) = mask.subtree("signatures") {
        let signatures = executed.signed.signatures.iter().cloned();
        message.signatures = signatures.map(|s| UserSignature::merge_from(s, &mask)).collect();
    }
    if let Some(mask) = mask.subtree("effects") {
        message.effects = Some(effects(executed, &mask, place));
    }
    if let Some(mask) = mask.subtree("events")
        && let Some(events) = &executed.events
    {
        let mut rendered = TransactionEvents::merge_from(events.clone(), &mask);
        if mask.contains("events.json") || mask.contains("events") {
            for (message, event) in rendered.events.iter_mut().zip(&events.0) {
                message.json = json::render(&event.type_, &event.contents).map(Box::new);
            }
        }
        message.events = Some(rendered);
    }
    if place != Place::Fresh {
        if mask.contains("checkpoint") {
            message.checkpoint = Some(executed.checkpoint);
        }
        if mask.contains("timestamp") {
            message.timestamp = Some(timestamp(executed.timestamp_ms));
        }
    }
    if mask.contains("balance_changes") {
        let changes = executed.balance_changes.iter().cloned();
        message.balance_changes = changes.map(Into::into).collect();
    }
    if let Some(mask) = mask.subtree("objects.objects")
        && place != Place::InCheckpoint
    {
        message.objects = Some(object_set(executed.inputs.iter().chain(&executed.written), &mask));
    }
    message
}

fn effects(executed: &Executed, mask: &FieldMaskTree, place: Place) -> TransactionEffects {
    let mut message = TransactionEffects::merge_from(&executed.effects, mask);
    if mask.contains("unchanged_loaded_runtime_objects") {
        let loaded = executed.loaded.iter().map(|(id, version)| {
            let mut reference = ObjectReference::default();
            reference.object_id = Some(id.to_string());
            reference.version = Some(*version);
            reference
        });
        message.unchanged_loaded_runtime_objects = loaded.collect();
    }
    if place == Place::InCheckpoint {
        return message;
    }
    // Types are not part of effects: a node looks them up.
    for change in &mut message.changed_objects {
        let id = change.object_id.as_deref().unwrap_or_default();
        let mut objects = executed.written.iter().chain(&executed.inputs);
        let found = objects.find(|object| object.object_id().to_string() == id);
        change.object_type = found.map(|object| match object.as_struct() {
            Some(data) => data.object_type().to_string(),
            None => "package".into(),
        });
    }
    message
}

fn object_set<'a>(objects: impl Iterator<Item = &'a Object>, mask: &FieldMaskTree) -> ObjectSet {
    let mut set = ObjectSet::default();
    set.objects = objects.map(|object| bare_object(object, mask)).collect();
    set
}

pub(super) fn checkpoint(
    view: &View<'_>,
    checkpoint: &Checkpoint,
    mask: &FieldMaskTree,
) -> CheckpointMessage {
    let mut message = CheckpointMessage::default();
    message.merge(&checkpoint.summary, mask);
    message.merge(view.signature(checkpoint), mask);
    message.merge(view.contents(checkpoint), mask);
    if let Some(mask) = mask.subtree("transactions") {
        let transactions = checkpoint.transactions.iter();
        message.transactions =
            transactions.map(|tx| transaction(tx, &mask, Place::InCheckpoint)).collect();
    }
    if let Some(mask) = mask.subtree("objects.objects") {
        let mut objects: Vec<Object> = checkpoint
            .transactions
            .iter()
            .flat_map(|tx| tx.inputs.iter().chain(&tx.written))
            .map(|object| view.distort(object))
            .collect();
        objects.sort_by_key(|object| (object.object_id(), object.version()));
        objects.dedup_by_key(|object| (object.object_id(), object.version()));
        message.objects = Some(object_set(objects.iter(), &mask));
    }
    message
}

pub(super) fn epoch(view: &View<'_>, epoch: &Epoch, mask: &FieldMaskTree) -> EpochMessage {
    let number = epoch.committee.epoch;
    let mut full = EpochMessage::default();
    full.epoch = Some(number);
    full.committee = Some(epoch.committee.clone().into());
    full.first_checkpoint = Some(epoch.first_checkpoint);
    full.last_checkpoint = epoch.last_checkpoint;
    full.start = Some(timestamp(epoch.start_ms));
    full.end = epoch.end_ms.map(timestamp);
    full.reference_gas_price = Some(view.chain.gas_price());
    let mut config = ProtocolConfig::default();
    config.protocol_version = Some(PROTOCOL_VERSION);
    let artifacts = !view.latest().summary.checkpoint_commitments.is_empty();
    let flag = "include_checkpoint_artifacts_digest_in_summary".to_owned();
    config.feature_flags.insert(flag, artifacts);
    for (name, value) in
        [("max_tx_size_bytes", "131072"), ("max_gas_computation_bucket", "5000000")]
    {
        config.attributes.insert(name.into(), value.into());
    }
    full.protocol_config = Some(config);
    EpochMessage::merge_from(&full, mask)
}

/// Whether an object's type is `wanted`, or any instance of it if it was named without parameters.
pub(super) fn is_of_type(object: &Object, wanted: &StructTag) -> bool {
    object.as_struct().is_some_and(|data| {
        let type_ = data.object_type();
        (type_.address(), type_.module(), type_.name())
            == (wanted.address(), wanted.module(), wanted.name())
            && (wanted.type_params().is_empty() || type_.type_params() == wanted.type_params())
    })
}
