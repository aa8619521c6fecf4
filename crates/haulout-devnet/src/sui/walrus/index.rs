//! What Walrus' events say about blobs: what storage nodes go by.

use std::collections::HashMap;

use haulout_sui::walrus_types::{BlobCertified, BlobDeleted, BlobRegistered, InvalidBlobId};
use redstuff::BlobId;
use sui_sdk_types::{Address, Digest, Event};

use crate::{
    storage::{BlobObject, BlobRecord, EventId},
    sui::names::decode,
};

/// Blobs by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct BlobIndex(HashMap<BlobId, BlobRecord>);

impl BlobIndex {
    pub(crate) fn get(&self, blob: &BlobId) -> Option<&BlobRecord> {
        self.0.get(blob)
    }

    /// Takes in the events of a transaction.
    pub(crate) fn apply(&mut self, walrus: Address, transaction: &Digest, events: &[Event]) {
        for (number, event) in events.iter().enumerate() {
            let type_ = &event.type_;
            if *type_.address() != walrus || type_.module().as_str() != "events" {
                continue;
            }
            let id = EventId { tx_digest: transaction.to_string(), event_seq: number as u64 };
            match type_.name().as_str() {
                "BlobRegistered" => decode(&event.contents).map(|e| self.registered(&e, id)),
                "BlobCertified" => decode(&event.contents).map(|e| self.certified(&e, id)),
                "BlobDeleted" => decode(&event.contents).map(|e| self.deleted(&e)),
                "InvalidBlobID" => decode(&event.contents).map(|e| self.invalid(&e, id)),
                _ => None,
            };
        }
    }

    fn registered(&mut self, event: &BlobRegistered, id: EventId) {
        self.0.entry(event.blob_id).or_default().objects.push(BlobObject {
            object_id: event.object_id.0,
            deletable: event.deletable,
            end_epoch: event.end_epoch,
            certified_epoch: None,
            event: id,
        });
    }

    fn certified(&mut self, event: &BlobCertified, id: EventId) {
        let objects = self.0.get_mut(&event.blob_id).map(|record| record.objects.iter_mut());
        for object in objects.into_iter().flatten() {
            if object.object_id == event.object_id.0 {
                object.certified_epoch = Some(event.epoch);
                object.end_epoch = event.end_epoch;
                object.event = id.clone();
            }
        }
    }

    fn deleted(&mut self, event: &BlobDeleted) {
        if let Some(record) = self.0.get_mut(&event.blob_id) {
            record.objects.retain(|object| object.object_id != event.object_id.0);
        }
    }

    fn invalid(&mut self, event: &InvalidBlobId, id: EventId) {
        self.0.entry(event.blob_id).or_default().invalid = Some(id);
    }
}
