//! A Walrus network as a place outside: what a home fetches from storage nodes, checks, keeps and gives.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use haulout_cache::{SliverCache, SliverKey};
use haulout_mesh::Membership;
use haulout_swarm::site::{OutsideId, SEGMENT_BYTES};
use haulout_walrus::{
    Client, HttpError, NodeError, NodeId, ReadError, SliverBody, SliverFetchError, Verdict,
};
use lru::LruCache;
use redstuff::bcs::Wire;
use redstuff::{AxisKind, BlobId, Metadata, MetadataWithId, PairIndex};
use tokio::time::{sleep, timeout};

use super::Counts;
use super::arriving::Arriving;
use super::names::{Named, metadata_object, named, sliver_object};
use crate::site::{Body, Outside, OutsideError, Site, SiteObject, held_as};

/// Blobs whose metadata is kept in memory: 66 KB each for 1,000 shards.
const METADATA_KEPT: NonZeroUsize = match NonZeroUsize::new(64) {
    Some(count) => count,
    None => NonZeroUsize::MIN,
};
/// Slivers of which it is remembered why they cannot be had: those of a few reads.
const FAILURES_KEPT: NonZeroUsize = match NonZeroUsize::new(4_096) {
    Some(count) => count,
    None => NonZeroUsize::MIN,
};
/// How often a home asks a busy node again, and the bounds of the pause: below the patience of those who wait.
const BUSY_RETRIES: u32 = 2;
const BUSY_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));
/// How long a node may take to begin to answer a home. Shorter than the patience of those who wait for the home, who then ask
/// the node themselves, and in the end do without this sliver.
const NODE_PATIENCE: Duration = Duration::from_secs(4);
/// How often metadata that came wrong by way of the site is asked for again.
const METADATA_TRIES: u32 = 3;
/// Bytes of slivers that may be on their way at the same time, unless a single one has more: they are in memory until they
/// are checked.
const ARRIVING_BYTES_MAX: u64 = 192 << 20;
/// How long a sliver of several segments stays in memory after it came: its other segments are asked for meanwhile.
const LINGER: Duration = Duration::from_secs(10);

/// Announces to everybody what is kept: prefixes that went, prefixes that came.
pub(super) type Announce = Box<dyn Fn(&[u32], &[u32]) + Send + Sync>;

/// A network, on one agent.
pub(super) struct Walrus {
    /// Reads from the nodes themselves.
    pub(super) direct: Client,
    pub(super) id: OutsideId,
    pub(super) site: Site,
    pub(super) counts: Counts,
    share: bool,
    cache: Option<Arc<SliverCache>>,
    announce: Announce,
    metadata: Mutex<LruCache<BlobId, Metadata>>,
    arriving: Mutex<HashMap<SliverKey, Arc<Arriving>>>,
    /// Why slivers could not be had from their nodes, until somebody asks.
    failures: Mutex<LruCache<SliverKey, NodeError>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn prefix(key: &SliverKey) -> u32 {
    held_as(key).prefix()
}

fn refused(why: &str) -> OutsideError {
    OutsideError::Refused(why.to_owned())
}

/// Whether bytes are the BCS of a sliver of the blob.
async fn is_sliver(metadata: &Metadata, axis: AxisKind, pair: PairIndex, raw: &Bytes) -> bool {
    let (metadata, raw) = (metadata.clone(), raw.clone());
    let check = move || haulout_walrus::is_sliver(&metadata, axis, pair, &raw);
    tokio::task::spawn_blocking(check).await.unwrap_or(false)
}

impl Walrus {
    pub(super) fn new(
        site: Site,
        direct: Client,
        id: OutsideId,
        (cache, share): (Option<Arc<SliverCache>>, bool),
        announce: Announce,
    ) -> Self {
        if let Some(cache) = &cache {
            let here = site.clone();
            let holders =
                move |key: &SliverKey| u32::try_from(here.holders(key)).unwrap_or(u32::MAX);
            cache.set_holders(Box::new(holders));
            if share {
                let kept: Vec<u32> = cache.keys().iter().map(prefix).collect();
                announce(&[], &kept);
            }
        }
        let (metadata, arriving) = (Mutex::new(LruCache::new(METADATA_KEPT)), Mutex::default());
        let (counts, failures) = (Counts::default(), Mutex::new(LruCache::new(FAILURES_KEPT)));
        Self { direct, id, site, counts, share, cache, announce, metadata, arriving, failures }
    }

    /// The cache's own figures: files and bytes.
    pub(super) fn kept_now(&self) -> (usize, u64) {
        self.cache.as_ref().map_or((0, 0), |cache| (cache.len(), cache.bytes()))
    }

    /// Keeps what was found right; nobody waits for the disk.
    pub(super) fn keep(self: &Arc<Self>, key: SliverKey, bytes: Bytes) {
        let Some(cache) = self.cache.clone() else { return };
        let walrus = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let new = !cache.contains(&key);
            let stored = cache.put(&key, &bytes);
            if walrus.share {
                let gone: Vec<u32> = stored.dropped.iter().map(prefix).collect();
                let come: Vec<u32> =
                    (new && stored.kept).then(|| prefix(&key)).into_iter().collect();
                (walrus.announce)(&gone, &come);
            }
        });
    }

    /// What the disk has under this name, and whether it was checked since the start.
    async fn on_disk(self: &Arc<Self>, key: SliverKey) -> Option<(Bytes, bool)> {
        let cache = self.cache.clone().filter(|cache| cache.contains(&key))?;
        let read = tokio::task::spawn_blocking(move || cache.get(&key)).await.ok()?;
        if read.is_none() && self.share {
            (self.announce)(&[prefix(&key)], &[]);
        }
        read.map(|kept| (kept.bytes.into(), kept.checked))
    }

    /// What was read from the disk was looked at.
    async fn judge_disk(self: &Arc<Self>, key: SliverKey, right: bool) {
        let Some(cache) = self.cache.clone() else { return };
        if right {
            return cache.mark_checked(&key);
        }
        tracing::warn!(dir = ?cache, "a sliver on disk is damaged and is dropped");
        let _ = tokio::task::spawn_blocking(move || cache.remove(&key)).await;
        if self.share {
            (self.announce)(&[prefix(&key)], &[]);
        }
    }

    /// What was kept and taken for right was not.
    pub(super) async fn drop_damaged(self: &Arc<Self>, key: SliverKey) {
        self.judge_disk(key, false).await;
    }

    async fn parse(&self, blob: &BlobId, raw: &[u8]) -> Option<Metadata> {
        let n = self.direct.committees(false).await.ok()?.current.n_shards;
        MetadataWithId::from_bcs(raw).ok()?.verify(n, blob).ok()
    }

    /// A blob's metadata as this machine keeps it: in memory or on disk.
    pub(super) async fn metadata_here(self: &Arc<Self>, blob: &BlobId) -> Option<Metadata> {
        let known = lock(&self.metadata).get(blob).cloned();
        if known.is_some() {
            return known;
        }
        let key = metadata_object(self.id, blob).key.id;
        let (raw, _) = self.on_disk(key).await?;
        let found = self.parse(blob, &raw).await;
        self.judge_disk(key, found.is_some()).await;
        self.remember(found?)
    }

    fn remember(&self, metadata: Metadata) -> Option<Metadata> {
        lock(&self.metadata).put(*metadata.id(), metadata.clone());
        Some(metadata)
    }

    /// The metadata to check slivers by: from here, else by way of the site, else from the nodes.
    async fn metadata(self: &Arc<Self>, blob: &BlobId) -> Result<Metadata, OutsideError> {
        if let Some(metadata) = self.metadata_here(blob).await {
            return Ok(metadata);
        }
        let object = metadata_object(self.id, blob);
        for _ in 0..METADATA_TRIES {
            let Ok(raw) = self.site.document(object.clone()).await else { break };
            if let Some(metadata) = self.parse(blob, &raw).await.and_then(|m| self.remember(m)) {
                return Ok(metadata);
            }
            self.site.find_liars(&object).await;
        }
        self.metadata_from_nodes(blob).await
    }

    /// The metadata from the nodes; kept.
    async fn metadata_from_nodes(
        self: &Arc<Self>,
        blob: &BlobId,
    ) -> Result<Metadata, OutsideError> {
        let metadata = self.direct.metadata(blob).await.map_err(|error| match error {
            ReadError::NotFound(_) => OutsideError::Absent,
            error => OutsideError::Failed(error.to_string()),
        })?;
        let raw = Bytes::from(metadata.with_id().to_bcs());
        self.counts.fetched(0, raw.len() as u64);
        self.keep(metadata_object(self.id, blob).key.id, raw);
        lock(&self.metadata).put(*blob, metadata.clone());
        Ok(metadata)
    }

    /// What a sliver's object stands for, if its name and size are right.
    async fn sliver(
        self: &Arc<Self>,
        object: &SiteObject,
    ) -> Result<(Metadata, AxisKind, PairIndex), OutsideError> {
        let Some(Named::Sliver(blob, axis, pair)) = named(object) else {
            return Err(refused("no such sliver"));
        };
        let metadata = self.metadata(&blob).await?;
        if usize::from(pair.0) >= metadata.shards().as_usize()
            || sliver_object(self.id, &metadata, axis, pair).as_ref() != Some(object)
        {
            return Err(refused("name or size do not fit the sliver"));
        }
        Ok((metadata, axis, pair))
    }

    /// The sliver on its way, begun if need be: however many want it, its node is asked once.
    fn arriving(
        self: &Arc<Self>,
        object: &SiteObject,
        len: u64,
        (metadata, axis, pair): (Metadata, AxisKind, PairIndex),
    ) -> Result<Arc<Arriving>, OutsideError> {
        let key = object.key.id;
        let arriving = {
            let mut all = lock(&self.arriving);
            if let Some(arriving) = all.get(&key) {
                return Ok(Arc::clone(arriving));
            }
            let held: u64 = all.values().map(|other| other.len()).sum();
            if held > 0 && held + len > ARRIVING_BYTES_MAX {
                return Err(OutsideError::Failed("too many slivers are on their way".to_owned()));
            }
            let arriving = Arriving::new(len);
            all.insert(key, Arc::clone(&arriving));
            arriving
        };
        let (walrus, filled) = (Arc::clone(self), Arc::clone(&arriving));
        tokio::spawn(async move {
            let end = walrus.fetch_sliver(&filled, key, (&metadata, axis, pair)).await;
            let linger = end.is_ok() && len > SEGMENT_BYTES;
            filled.end(end);
            if linger {
                sleep(LINGER).await;
            }
            lock(&walrus.arriving).remove(&key);
        });
        Ok(arriving)
    }

    /// Fetches a sliver from its node. Whatever is wrong with that node is its own matter, and the sliver is absent to the
    /// site: others would fare no better, and look for themselves.
    async fn fetch_sliver(
        self: &Arc<Self>,
        arriving: &Arriving,
        key: SliverKey,
        (metadata, axis, pair): (&Metadata, AxisKind, PairIndex),
    ) -> Result<(), OutsideError> {
        let (node, body) = match self.ask_node(metadata, axis, pair).await {
            Ok(found) => found,
            Err(SliverFetchError::Node(error)) => return Err(self.note(key, error)),
            Err(error) => return Err(OutsideError::Failed(error.to_string())),
        };
        let taken = arriving.take(body).await;
        self.counts.fetched(u64::from(taken.is_ok()), arriving.have());
        let raw = taken.map_err(|error| self.note(key, error))?;
        if !is_sliver(metadata, axis, pair, &raw).await {
            tracing::warn!(%node, blob = %metadata.id(), "a storage node sent a false sliver");
            return Err(self.note(key, NodeError::Malformed("a false sliver".to_owned())));
        }
        self.keep(key, raw);
        Ok(())
    }

    fn note(&self, key: SliverKey, error: NodeError) -> OutsideError {
        tracing::debug!(%error, "a storage node does not serve a sliver");
        lock(&self.failures).put(key, error);
        OutsideError::Absent
    }

    /// Why a sliver could not be had from its node, if this agent has asked.
    pub(super) fn failure(&self, key: &SliverKey) -> Option<NodeError> {
        lock(&self.failures).pop(key)
    }

    async fn ask_node(
        &self,
        metadata: &Metadata,
        axis: AxisKind,
        pair: PairIndex,
    ) -> Result<(NodeId, SliverBody), SliverFetchError> {
        let mut tries = 0;
        loop {
            let asked = timeout(NODE_PATIENCE, self.direct.sliver_from_owner(metadata, axis, pair));
            let late = || Err(NodeError::from(HttpError::Timeout("the answer")).into());
            let error = match asked.await.unwrap_or_else(|_| late()) {
                Err(SliverFetchError::Node(error)) if tries < BUSY_RETRIES => error,
                done => return done,
            };
            let Verdict::Busy(asked) = error.verdict() else { return Err(error.into()) };
            let (least, most) = BUSY_PAUSE;
            sleep(asked.unwrap_or(least).clamp(least, most)).await;
            tries += 1;
        }
    }
}

/// What [`Site`] sees of it.
pub(super) struct WalrusOutside(pub(super) Arc<Walrus>);

impl Outside for WalrusOutside {
    fn ids(&self) -> Vec<OutsideId> {
        vec![self.0.id]
    }

    fn fetch(
        &self,
        object: SiteObject,
        range: Option<Range<u64>>,
    ) -> BoxFuture<'static, Result<Body, OutsideError>> {
        let walrus = Arc::clone(&self.0);
        async move {
            match (named(&object), object.size, range) {
                (Some(Named::Metadata(blob)), None, _) => {
                    if metadata_object(walrus.id, &blob) != object {
                        return Err(refused("the name does not fit the blob"));
                    }
                    let metadata = match walrus.metadata_here(&blob).await {
                        Some(metadata) => metadata,
                        None => walrus.metadata_from_nodes(&blob).await?,
                    };
                    let raw = Bytes::from(metadata.with_id().to_bcs());
                    Ok(stream::once(async { Ok(raw) }).boxed() as Body)
                }
                (Some(Named::Sliver(..)), Some(cut), Some(range)) => {
                    let sliver = walrus.sliver(&object).await?;
                    if range.start > range.end || range.end > cut.size() {
                        return Err(refused("beyond the sliver"));
                    }
                    Ok(walrus.arriving(&object, cut.size(), sliver)?.follow(range))
                }
                _ => Err(refused("no such object")),
            }
        }
        .boxed()
    }

    /// Blobs are public.
    fn may_give(&self, _: &SiteObject, _: Membership) -> BoxFuture<'static, bool> {
        let share = self.0.share;
        async move { share }.boxed()
    }

    fn keeps(&self, object: &SiteObject) -> bool {
        self.0.cache.as_ref().is_some_and(|cache| cache.contains(&object.key.id))
    }

    fn kept(&self, object: SiteObject) -> BoxFuture<'static, Option<Bytes>> {
        let walrus = Arc::clone(&self.0);
        async move {
            let key = object.key.id;
            let (raw, checked) = walrus.on_disk(key).await?;
            if checked {
                return Some(raw);
            }
            let right = match named(&object)? {
                Named::Metadata(blob) => walrus.parse(&blob, &raw).await.is_some(),
                Named::Sliver(..) => {
                    // Without the metadata it cannot be told: then it is nobody's.
                    let (metadata, axis, pair) = walrus.sliver(&object).await.ok()?;
                    is_sliver(&metadata, axis, pair, &raw).await
                }
            };
            walrus.judge_disk(key, right).await;
            right.then_some(raw)
        }
        .boxed()
    }
}
