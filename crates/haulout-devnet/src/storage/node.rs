//! What a node answers: pure of sockets, so that a request is a value and so is its answer.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use haulout_walrus::bls;
use haulout_walrus::wire::{
    BlobStatus, DeletableCounts, EventId, StorageConfirmation, StoredOnNode,
};
use lru::LruCache;
use redstuff::bcs::Wire;
use redstuff::messages::{BlobPersistence, Confirmation, Intent, ProtocolMessage, SignedMessage};
use redstuff::{AxisKind, BlobId, Metadata, PairIndex, ShardCount, ShardIndex, UnverifiedMetadata};

use super::answer::{Answer, Refusal};
use super::chain::{BlobRecord, NodeChain};
use super::faults::{Faults, Switch};
use super::health;
use super::identity::Identity;
use super::route::{Route, SliverName};
use super::store::{Change, Store, StoreError};

/// Blobs whose parsed metadata is kept in memory, for all nodes together; each takes about
/// 70 bytes a shard.
const METADATA_CACHED: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// Parsed metadata, shared by the nodes of a committee: it is the same for all of them.
#[derive(Debug)]
pub(crate) struct MetadataCache(Mutex<LruCache<BlobId, Metadata>>);

impl Default for MetadataCache {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(METADATA_CACHED)))
    }
}

/// A request without its transport.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) route: Route,
    /// The `Content-Type`, if there is one.
    pub(crate) content_type: Option<String>,
    /// The `Authorization`, if there is one.
    pub(crate) authorization: Option<String>,
    pub(crate) body: Bytes,
}

/// What comes of it.
#[derive(Debug)]
pub(crate) enum Reply {
    /// This answer.
    Now(Answer),
    /// This answer, once the change is on disk.
    After(Change, Answer),
}

/// One storage node.
pub(crate) struct Node {
    pub(crate) identity: Identity,
    pub(crate) store: Store,
    pub(crate) switch: Switch,
    chain: Arc<dyn NodeChain>,
    cache: Arc<MetadataCache>,
    started: Instant,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// What the node has to store at present.
#[derive(Debug, Clone)]
pub(crate) struct Duty {
    pub(crate) epoch: u32,
    pub(crate) n: ShardCount,
    /// Shards of the current epoch, ascending.
    pub(crate) shards: Vec<ShardIndex>,
    /// Shards of the epoch before, which are still served until the next change.
    pub(crate) before: Vec<ShardIndex>,
}

impl Node {
    pub(crate) fn new(
        identity: Identity,
        store: Store,
        chain: Arc<dyn NodeChain>,
        cache: Arc<MetadataCache>,
        switch: Switch,
    ) -> Self {
        Self { identity, store, switch, chain, cache, started: Instant::now() }
    }

    pub(crate) fn chain(&self) -> &dyn NodeChain {
        &*self.chain
    }

    /// The shards of this node, which a committee knows by its BLS key.
    pub(crate) fn duty(&self) -> Duty {
        let me = self.identity.bls().public_key().to_bytes();
        let shards_in = |committee: &haulout_walrus::committee::Committee| {
            let member = committee.members.iter().find(|member| member.bls_public_key == me);
            let mut shards = member.map(|member| member.shards.clone()).unwrap_or_default();
            shards.sort_unstable();
            shards
        };
        let committee = self.chain.committee();
        let before = self.chain.previous_committee();
        Duty {
            epoch: committee.epoch,
            n: committee.n_shards,
            shards: shards_in(&committee),
            before: before.map(|before| shards_in(&before)).unwrap_or_default(),
        }
    }

    /// Answers a request. CPU and disk work is done right here.
    pub(crate) fn handle(&self, asked: &Asked) -> Reply {
        self.try_handle(asked).unwrap_or_else(|refusal| Reply::Now(refusal.into()))
    }

    fn try_handle(&self, asked: &Asked) -> Result<Reply, Refusal> {
        let faults = self.switch.get();
        Ok(Reply::Now(match &asked.route {
            Route::Health { detailed } => {
                Answer::success(health::report(self, *detailed, self.started.elapsed()))
            }
            Route::Metadata(blob) => self.get_metadata(blob, &faults)?,
            Route::MetadataStatus(blob) => {
                let stored = self.is_registered(blob) && self.metadata_bytes(blob)?.is_some();
                Answer::success(stored_on_node(stored))
            }
            Route::Sliver(name) => self.get_sliver(name, &faults)?,
            Route::SliverStatus(name) => self.sliver_status(name, &faults)?,
            Route::Status(blob) => Answer::success(self.blob_status(blob)),
            Route::Confirmation { blob, persistence, .. } => {
                self.confirm(blob, *persistence, &faults)?
            }
            Route::LegacySymbol { name, target } => self.legacy_symbol(name, *target, &faults)?,
            Route::Symbol(blob, id) => self.one_symbol(blob, *id, &faults)?,
            Route::Symbols { blob, filter, proof_axis } => {
                self.symbols(blob, filter, *proof_axis, &faults)?
            }
            Route::DecodingSymbols { blob, targets, axis } => {
                self.decoding_symbols(blob, targets, *axis, &faults)?
            }
            Route::InconsistencyProof(blob, axis) => self.attest_invalid(blob, *axis, asked)?,
            Route::SyncShard => self.sync_shard(asked)?,
            Route::PutMetadata(blob) => return self.put_metadata(blob, asked),
            Route::PutSliver(name) => return self.put_sliver(name, asked, &faults),
        }))
    }

    pub(crate) fn record(&self, blob: &BlobId) -> Option<BlobRecord> {
        self.chain.blob(blob)
    }

    pub(crate) fn is_registered(&self, blob: &BlobId) -> bool {
        let epoch = self.chain.epoch();
        self.record(blob).is_some_and(|record| record.is_registered(epoch))
    }

    fn metadata_bytes(&self, blob: &BlobId) -> Result<Option<Bytes>, Refusal> {
        self.store.metadata(blob).map_err(internal)
    }

    /// Stored metadata in usable form.
    pub(crate) fn metadata(&self, blob: &BlobId) -> Result<Option<Metadata>, Refusal> {
        let lock = || self.cache.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = lock().get(blob).cloned();
        // The cache is everybody's: whether *this* node has it, only its store says.
        let Some(bytes) = self.metadata_bytes(blob)? else { return Ok(None) };
        if let Some(metadata) = cached {
            return Ok(Some(metadata));
        }
        let n = self.chain.committee().n_shards;
        let parsed =
            UnverifiedMetadata::from_shared_bcs(&bytes).map_err(|_| Refusal::internal())?;
        let metadata = parsed.verify(n, blob).map_err(|_| Refusal::internal())?;
        lock().put(*blob, metadata.clone());
        Ok(Some(metadata))
    }

    /// Remembers metadata that was just verified.
    pub(crate) fn cache_metadata(&self, metadata: Metadata) {
        let mut cache = self.cache.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.put(*metadata.id(), metadata);
    }

    fn get_metadata(&self, blob: &BlobId, faults: &Faults) -> Result<Answer, Refusal> {
        if !self.is_registered(blob) {
            return Err(Refusal::metadata_not_found());
        }
        if faults.denies(blob) {
            return Err(Refusal::metadata_blocked());
        }
        let bytes = self.metadata_bytes(blob)?.ok_or_else(Refusal::metadata_not_found)?;
        let mut body = Vec::with_capacity(32 + bytes.len());
        body.extend_from_slice(blob.as_bytes());
        body.extend_from_slice(&bytes);
        if let Some(lie) = faults.metadata {
            // Another blob's metadata under this blob's name: a client must look at the content.
            let other = self.store.blobs(&BlobId([0; 32]), 2).map_err(internal)?;
            let other = other.iter().find(|other| *other != blob);
            let other = other.map(|other| self.metadata_bytes(other)).transpose()?.flatten();
            let other = other.map(|bytes| [blob.as_bytes(), &bytes[..]].concat());
            body = lie.apply(&body, other.as_deref());
        }
        Ok(Answer::bcs(body))
    }

    /// Checks that a pair exists and that its shard is here, in either epoch.
    pub(crate) fn check_pair(&self, duty: &Duty, name: &SliverName) -> Result<ShardIndex, Refusal> {
        let out = |_| Refusal::index_out_of_range(name.pair.0, duty.n.get());
        let shard = name.pair.shard(duty.n, &name.blob).map_err(out)?;
        if duty.holds(shard) {
            Ok(shard)
        } else {
            Err(Refusal::shard_not_assigned(shard.0, duty.epoch))
        }
    }

    fn get_sliver(&self, name: &SliverName, faults: &Faults) -> Result<Answer, Refusal> {
        let duty = self.duty();
        let bytes = self.sliver_bytes(&duty, name, faults)?;
        Ok(Answer::bcs(match faults.slivers {
            None => bytes,
            Some(lie) => {
                let elsewhere = |shard: &ShardIndex| {
                    let pair = shard.pair(duty.n, &name.blob).ok()?;
                    (pair != name.pair).then_some(SliverName { pair, ..*name })
                };
                let other = duty.shards.iter().find_map(elsewhere);
                let other = other.map(|other| self.store.sliver(&other)).transpose();
                lie.apply(&bytes, other.map_err(internal)?.flatten().as_deref()).into()
            }
        }))
    }

    /// The stored sliver, if this node may and can serve it.
    pub(crate) fn sliver_bytes(
        &self,
        duty: &Duty,
        name: &SliverName,
        faults: &Faults,
    ) -> Result<Bytes, Refusal> {
        if name.pair.0 >= duty.n.get() {
            return Err(Refusal::index_out_of_range(name.pair.0, duty.n.get()));
        }
        if !self.is_registered(&name.blob) {
            return Err(Refusal::sliver_not_found());
        }
        if faults.denies(&name.blob) {
            return Err(Refusal::sliver_blocked());
        }
        let shard = self.check_pair(duty, name)?;
        if faults.missing_shards.contains(&shard.0) {
            return Err(Refusal::sliver_not_found());
        }
        self.store.sliver(name).map_err(internal)?.ok_or_else(Refusal::sliver_not_found)
    }

    fn sliver_status(&self, name: &SliverName, faults: &Faults) -> Result<Answer, Refusal> {
        let shard = self.check_pair(&self.duty(), name)?;
        let stored = self.is_registered(&name.blob)
            && !faults.missing_shards.contains(&shard.0)
            && self.store.has_all([*name]).map_err(internal)?;
        Ok(Answer::success(stored_on_node(stored)))
    }

    fn blob_status(&self, blob: &BlobId) -> BlobStatus {
        self.record(blob).map_or(BlobStatus::Nonexistent, |r| status(&r, self.chain.epoch()))
    }

    fn confirm(
        &self,
        blob: &BlobId,
        persistence: BlobPersistence,
        faults: &Faults,
    ) -> Result<Answer, Refusal> {
        let duty = self.duty();
        let record = self.record(blob).ok_or_else(Refusal::not_registered)?;
        let registered = record.is_registered(duty.epoch)
            && match &persistence {
                BlobPersistence::Permanent => true,
                BlobPersistence::Deletable(object) => {
                    record.is_object_registered(object, duty.epoch)
                }
            };
        if !registered {
            return Err(Refusal::not_registered());
        }
        let lost = duty.shards.iter().any(|shard| faults.missing_shards.contains(&shard.0));
        let names = duty.shards.iter().filter_map(|shard| shard.pair(duty.n, blob).ok());
        let names = names.flat_map(|pair| both(blob, pair));
        if lost || !self.store.has_all(names).map_err(internal)? {
            return Err(Refusal::missing_slivers());
        }
        let signed = self.sign(duty.epoch, Confirmation { blob: *blob, persistence }, faults);
        Ok(Answer::success(StorageConfirmation { signed }))
    }

    /// Signs a message of this epoch.
    pub(crate) fn sign<T: Intent>(&self, epoch: u32, content: T, faults: &Faults) -> SignedMessage {
        let message = ProtocolMessage { epoch, content }.to_bcs();
        let wrong = faults.wrong_signature.then(|| bls::SecretKey::from_seed(&[7; 32]).ok());
        let key = wrong.flatten().unwrap_or_else(|| self.identity.bls().clone());
        SignedMessage { signature: key.sign(&message), message }
    }
}

impl Duty {
    /// Whether slivers of this shard are here, or may still be.
    pub(crate) fn holds(&self, shard: ShardIndex) -> bool {
        self.shards.binary_search(&shard).is_ok() || self.before.binary_search(&shard).is_ok()
    }
}

/// Both slivers of a pair.
pub(crate) fn both(blob: &BlobId, pair: PairIndex) -> [SliverName; 2] {
    [AxisKind::Primary, AxisKind::Secondary].map(|axis| SliverName { blob: *blob, pair, axis })
}

fn stored_on_node(stored: bool) -> StoredOnNode {
    if stored { StoredOnNode::Stored } else { StoredOnNode::Nonexistent }
}

/// Says what went wrong in the log, where an operator would look for it.
pub(crate) fn internal(error: StoreError) -> Refusal {
    tracing::error!(%error, "storage node");
    Refusal::internal()
}

/// The state of a blob as nodes tell it.
fn status(record: &BlobRecord, epoch: u32) -> BlobStatus {
    let event = |event: &super::chain::EventId| EventId {
        tx_digest: event.tx_digest.clone(),
        event_seq: event.event_seq.to_string(),
    };
    if let Some(invalid) = &record.invalid {
        return BlobStatus::Invalid { event: event(invalid) };
    }
    let count = |certified: bool| {
        let deletable = record.live(epoch).filter(|object| object.deletable);
        let counted = deletable.filter(|object| !certified || object.certified_epoch.is_some());
        u32::try_from(counted.count()).unwrap_or(u32::MAX)
    };
    let deletable_counts = DeletableCounts {
        count_deletable_total: count(false),
        count_deletable_certified: count(true),
    };
    let initial_certified_epoch = record.live(epoch).filter_map(|o| o.certified_epoch).min();
    // The certified object that lasts longest counts, or else the registered one that does.
    let permanent = record.live(epoch).filter(|object| !object.deletable);
    let best = permanent.max_by_key(|object| (object.certified_epoch.is_some(), object.end_epoch));
    match best {
        Some(object) => BlobStatus::Permanent {
            end_epoch: object.end_epoch,
            is_certified: object.certified_epoch.is_some(),
            status_event: event(&object.event),
            deletable_counts,
            initial_certified_epoch,
        },
        None if deletable_counts.count_deletable_total > 0 => {
            BlobStatus::Deletable { initial_certified_epoch, deletable_counts }
        }
        None => BlobStatus::Nonexistent,
    }
}
