//! What storage nodes learn from the chain.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use haulout_walrus::committee::Committee;
use redstuff::BlobId;

/// The id of an object on Sui.
pub type ObjectId = [u8; 32];

/// The chain as a storage node sees it. Asked at every request, so answers must be quick.
pub trait NodeChain: Send + Sync + 'static {
    /// The current Walrus epoch.
    fn epoch(&self) -> u32;

    /// The committee of the current epoch, members in on-chain order.
    fn committee(&self) -> Arc<Committee>;

    /// The committee before it, if there was one.
    fn previous_committee(&self) -> Option<Arc<Committee>>;

    /// Everything the chain knows of a blob; `None` if it was never registered.
    fn blob(&self, blob: &BlobId) -> Option<BlobRecord>;
}

/// The event that gave a blob its present state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventId {
    /// Digest of the transaction, in Base58.
    pub tx_digest: String,
    /// Number of the event in it.
    pub event_seq: u64,
}

/// Everything the chain knows of one blob.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlobRecord {
    /// Set if a quorum has said that the blob is inconsistent.
    pub invalid: Option<EventId>,
    /// The objects under which it is registered, deleted ones left out.
    pub objects: Vec<BlobObject>,
}

/// One `Blob` object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobObject {
    /// Its id.
    pub object_id: ObjectId,
    /// Whether its owner may delete it before its end.
    pub deletable: bool,
    /// The first epoch in which it is no longer stored.
    pub end_epoch: u32,
    /// The epoch in which it was certified, if it was.
    pub certified_epoch: Option<u32>,
    /// The event that registered or, later, certified or extended it.
    pub event: EventId,
}

impl BlobRecord {
    /// The objects that are still stored in `epoch`.
    pub fn live(&self, epoch: u32) -> impl Iterator<Item = &BlobObject> {
        self.objects.iter().filter(move |object| object.end_epoch > epoch)
    }

    /// Whether storage nodes take and serve the blob in `epoch`.
    #[must_use]
    pub fn is_registered(&self, epoch: u32) -> bool {
        self.invalid.is_none() && self.live(epoch).next().is_some()
    }

    /// Whether it is registered under this very object.
    #[must_use]
    pub fn is_object_registered(&self, object: &ObjectId, epoch: u32) -> bool {
        self.invalid.is_none() && self.live(epoch).any(|live| live.object_id == *object)
    }
}

/// A chain whose state is set by calls: for tests, and for committees without Sui.
#[derive(Debug)]
pub struct ManualChain(RwLock<State>);

#[derive(Debug)]
struct State {
    committee: Arc<Committee>,
    previous: Option<Arc<Committee>>,
    blobs: HashMap<BlobId, BlobRecord>,
    events: u64,
}

impl State {
    /// An event id no other event has: its number stands for the transaction's digest.
    fn event(&mut self) -> EventId {
        self.events += 1;
        let mut digest = [0xde; 32];
        digest[24..].copy_from_slice(&self.events.to_be_bytes());
        EventId { tx_digest: bs58::encode(digest).into_string(), event_seq: 0 }
    }
}

impl ManualChain {
    /// A chain in the committee's epoch, with no blobs.
    #[must_use]
    pub fn new(committee: Committee) -> Self {
        let committee = Arc::new(committee);
        Self(RwLock::new(State { committee, previous: None, blobs: HashMap::new(), events: 0 }))
    }

    fn read<T>(&self, with: impl FnOnce(&State) -> T) -> T {
        with(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn write<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Registers `blob` under a new object; a second call with the same object does nothing.
    pub fn register(&self, blob: BlobId, object_id: ObjectId, deletable: bool, end_epoch: u32) {
        self.write(|state| {
            let event = state.event();
            let record = state.blobs.entry(blob).or_default();
            if record.objects.iter().all(|object| object.object_id != object_id) {
                let certified_epoch = None;
                let object = BlobObject { object_id, deletable, end_epoch, certified_epoch, event };
                record.objects.push(object);
            }
        });
    }

    /// Certifies an object of `blob`; false if there is no such object.
    pub fn certify(&self, blob: &BlobId, object_id: &ObjectId) -> bool {
        self.write(|state| {
            let (event, epoch) = (state.event(), state.committee.epoch);
            let objects = state.blobs.get_mut(blob).map(|record| &mut record.objects);
            let object = objects.and_then(|all| all.iter_mut().find(|o| o.object_id == *object_id));
            object.map(|object| {
                object.certified_epoch.get_or_insert(epoch);
                object.event = event;
            })
        })
        .is_some()
    }

    /// Deletes an object of `blob`; false if there is no such object.
    pub fn delete(&self, blob: &BlobId, object_id: &ObjectId) -> bool {
        self.write(|state| {
            let Some(record) = state.blobs.get_mut(blob) else { return false };
            let before = record.objects.len();
            record.objects.retain(|object| object.object_id != *object_id);
            record.objects.len() < before
        })
    }

    /// Declares `blob` inconsistent.
    pub fn invalidate(&self, blob: BlobId) {
        self.write(|state| {
            let event = state.event();
            state.blobs.entry(blob).or_default().invalid = Some(event);
        });
    }

    /// Puts a record as it is, event ids included.
    pub fn insert(&self, blob: BlobId, record: BlobRecord) {
        self.write(|state| state.blobs.insert(blob, record));
    }

    /// Begins the epoch of `committee`; the present committee becomes the previous one.
    pub fn begin_epoch(&self, committee: Committee) {
        self.write(|state| {
            let last = std::mem::replace(&mut state.committee, Arc::new(committee));
            state.previous = Some(last);
        });
    }
}

impl NodeChain for ManualChain {
    fn epoch(&self) -> u32 {
        self.read(|state| state.committee.epoch)
    }

    fn committee(&self) -> Arc<Committee> {
        self.read(|state| state.committee.clone())
    }

    fn previous_committee(&self) -> Option<Arc<Committee>> {
        self.read(|state| state.previous.clone())
    }

    fn blob(&self, blob: &BlobId) -> Option<BlobRecord> {
        self.read(|state| state.blobs.get(blob).cloned())
    }
}
