//! Walrus as a place outside: slivers and metadata, each fetched once for the site.
//!
//! Every sliver is an object of its own, with a home of its own; the home fetches it from the storage node that has it, checks
//! it against the blob's metadata, and relays it. Readers check it again: a peer's sliver is believed no more than a node's.
//! A peer that asks can only make a home fetch public blobs from the nodes the home itself knows from its chain.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use haulout_cache::SliverCache;
use haulout_mesh::Membership;
use haulout_swarm::site::{Cut, OutsideId, SiteKey, SiteKind};
use haulout_walrus::{
    Client, HttpError, Node, NodeError, ReadError, SliverFetchError, Source, Verdict,
};
use lru::LruCache;
use redstuff::bcs::Wire;
use redstuff::{
    AxisKind, BlobId, Metadata, MetadataWithId, PairIndex, Primary, Secondary, ShardCount,
};
use ring::digest::{Context, SHA256};

use super::{Body, Outside, OutsideError, Site, SiteError, SiteObject};

/// Blobs whose metadata is kept in memory: 66 KB each for 1,000 shards.
const METADATA_KEPT: NonZeroUsize = match NonZeroUsize::new(64) {
    Some(count) => count,
    None => NonZeroUsize::MIN,
};

/// Bytes of a sliver's descriptor: blob, axis, pair.
const SLIVER_DESCRIPTOR: usize = 32 + 1 + 2;

/// A network as an agent of a site has it.
#[derive(Clone)]
pub struct SiteWalrus {
    /// Reads from the whole site: what a neighbour has, or is about to fetch, does not come from outside.
    pub client: Client,
    outside: Arc<Walrus>,
}

impl SiteWalrus {
    /// Makes a network one of the site's places outside.
    ///
    /// `direct` reads from the storage nodes; `network` names their network, alike on all agents (the id of its System
    /// object).
    /// What this agent fetches as a home it keeps in `cache`, if there is one.
    pub fn join(
        site: &Site,
        direct: &Client,
        network: &[u8],
        cache: Option<Arc<SliverCache>>,
    ) -> Self {
        let id = OutsideId::from_bytes(hash(&[b"haulout walrus 1\0", network]));
        let metadata = Mutex::new(LruCache::new(METADATA_KEPT));
        let (slivers, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        let direct = direct.clone();
        let outside = Arc::new(Walrus { direct, id, metadata, cache, slivers, bytes });
        site.add(Arc::new(WalrusOutside(Arc::clone(&outside))));
        let source = SiteSource { site: site.clone(), id };
        Self { client: outside.direct.clone().with_source(Arc::new(source)), outside }
    }

    /// Slivers this agent has fetched from storage nodes, for itself and for others.
    pub fn slivers_fetched(&self) -> u64 {
        self.outside.slivers.load(Ordering::Relaxed)
    }

    /// Bytes this agent has fetched from storage nodes, metadata included.
    pub fn bytes_fetched(&self) -> u64 {
        self.outside.bytes.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for SiteWalrus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SiteWalrus").field("outside", &self.outside.id).finish_non_exhaustive()
    }
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut id = [0; 32];
    id.copy_from_slice(context.finish().as_ref());
    id
}

fn axis_byte(axis: AxisKind) -> u8 {
    match axis {
        AxisKind::Primary => 0,
        AxisKind::Secondary => 1,
    }
}

/// A blob's metadata as an object of the site.
fn metadata_object(outside: OutsideId, blob: &BlobId) -> SiteObject {
    let id = hash(&[b"metadata\0", outside.as_bytes(), blob.as_bytes()]);
    SiteObject {
        key: SiteKey { kind: SiteKind::BlobMetadata, id },
        size: None,
        outside,
        descriptor: Bytes::copy_from_slice(blob.as_bytes()),
    }
}

/// A sliver as an object of the site: its BCS, as storage nodes answer it.
fn sliver_object(
    outside: OutsideId,
    metadata: &Metadata,
    axis: AxisKind,
    PairIndex(pair): PairIndex,
) -> Option<SiteObject> {
    let mut descriptor = metadata.id().as_bytes().to_vec();
    descriptor.push(axis_byte(axis));
    descriptor.extend_from_slice(&pair.to_le_bytes());
    let id = hash(&[b"sliver\0", outside.as_bytes(), &descriptor]);
    let data = match axis {
        AxisKind::Primary => metadata.sliver_len::<Primary>(),
        AxisKind::Secondary => metadata.sliver_len::<Secondary>(),
    };
    Some(SiteObject {
        key: SiteKey { kind: SiteKind::Sliver, id },
        size: Some(Cut::new(bcs_len(data))?),
        outside,
        descriptor: descriptor.into(),
    })
}

/// Bytes of the BCS of a sliver of so many: length, data, symbol size, index.
fn bcs_len(data: usize) -> u64 {
    let bits = usize::BITS - data.max(1).leading_zeros();
    u64::from(bits.div_ceil(7)) + data as u64 + 4
}

struct Walrus {
    direct: Client,
    id: OutsideId,
    metadata: Mutex<LruCache<BlobId, Metadata>>,
    cache: Option<Arc<SliverCache>>,
    slivers: AtomicU64,
    bytes: AtomicU64,
}

struct WalrusOutside(Arc<Walrus>);

/// Whether bytes are the BCS of a sliver of the blob.
async fn is_sliver(metadata: &Metadata, axis: AxisKind, pair: PairIndex, raw: Bytes) -> bool {
    let metadata = metadata.clone();
    let check = move || haulout_walrus::is_sliver(&metadata, axis, pair, &raw);
    tokio::task::spawn_blocking(check).await.unwrap_or(false)
}

impl Walrus {
    /// The verified metadata of a blob: from memory, or from the nodes.
    async fn metadata(&self, blob: &BlobId) -> Result<Metadata, OutsideError> {
        let kept = || self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept().get(blob).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let key = metadata_object(self.id, blob).key.id;
        let n = self.direct.committees(false).await.map(|view| view.current.n_shards);
        if let (Ok(n), Some(bytes)) = (n, self.cached(key).await) {
            match MetadataWithId::from_bcs(&bytes).ok().and_then(|found| found.verify(n, blob).ok())
            {
                Some(metadata) => {
                    kept().put(*blob, metadata.clone());
                    return Ok(metadata);
                }
                None => self.drop_cached(key),
            }
        }
        let metadata = self.direct.metadata(blob).await.map_err(|error| match error {
            ReadError::NotFound(_) => OutsideError::Absent,
            error => OutsideError::Failed(error.to_string()),
        })?;
        let bytes = Bytes::from(metadata.with_id().to_bcs());
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.keep(key, bytes);
        kept().put(*blob, metadata.clone());
        Ok(metadata)
    }

    /// What is kept on disk under this name. Not verified.
    async fn cached(&self, key: [u8; 32]) -> Option<Vec<u8>> {
        let cache = self.cache.clone()?;
        tokio::task::spawn_blocking(move || cache.get(&key)).await.ok().flatten()
    }

    fn drop_cached(&self, key: [u8; 32]) {
        if let Some(cache) = self.cache.clone() {
            tokio::task::spawn_blocking(move || cache.remove(&key));
        }
    }

    /// Keeps what was fetched; nobody waits for the disk.
    fn keep(&self, key: [u8; 32], bytes: Bytes) {
        if let Some(cache) = self.cache.clone() {
            tokio::task::spawn_blocking(move || cache.put(&key, &bytes));
        }
    }

    async fn fetch(&self, object: &SiteObject) -> Result<Bytes, OutsideError> {
        let refused = |why: &str| OutsideError::Refused(why.to_owned());
        let (id, rest) = object
            .descriptor
            .split_first_chunk::<32>()
            .ok_or_else(|| refused("the descriptor is too short"))?;
        let blob = BlobId(*id);
        if object.key.kind == SiteKind::BlobMetadata {
            if metadata_object(self.id, &blob) != *object {
                return Err(refused("the name does not fit the blob"));
            }
            return Ok(self.metadata(&blob).await?.with_id().to_bcs().into());
        }
        let &[axis @ (0 | 1), low, high] = rest else { return Err(refused("no such sliver")) };
        debug_assert_eq!(object.descriptor.len(), SLIVER_DESCRIPTOR);
        let axis = if axis == 0 { AxisKind::Primary } else { AxisKind::Secondary };
        let pair = PairIndex(u16::from_le_bytes([low, high]));
        let metadata = self.metadata(&blob).await?;
        if sliver_object(self.id, &metadata, axis, pair).as_ref() != Some(object) {
            return Err(refused("name or size do not fit the sliver"));
        }
        if let Some(bytes) = self.cached(object.key.id).await.map(Bytes::from) {
            if is_sliver(&metadata, axis, pair, bytes.clone()).await {
                return Ok(bytes);
            }
            self.drop_cached(object.key.id);
        }
        let fetched = self.direct.sliver_from_owner(&metadata, axis, pair).await;
        let fetched = fetched.map_err(|error| match error {
            SliverFetchError::Node(error) if error.verdict() == Verdict::Missing => {
                OutsideError::Absent
            }
            error => OutsideError::Failed(error.to_string()),
        })?;
        self.slivers.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(fetched.len() as u64, Ordering::Relaxed);
        self.keep(object.key.id, fetched.clone());
        Ok(fetched)
    }
}

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
            let whole = walrus.fetch(&object).await?;
            let part = match range {
                None => whole,
                Some(range) => {
                    let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
                    let (start, end) = (at(range.start), at(range.end));
                    if start > end || end > whole.len() {
                        return Err(OutsideError::Refused("beyond the sliver".to_owned()));
                    }
                    whole.slice(start..end)
                }
            };
            Ok(stream::once(async { Ok(part) }).boxed() as Body)
        }
        .boxed()
    }

    /// Blobs are public.
    fn may_give(&self, _: &SiteObject, _: Membership) -> BoxFuture<'static, bool> {
        async { true }.boxed()
    }
}

/// Slivers and metadata by way of the site.
struct SiteSource {
    site: Site,
    id: OutsideId,
}

impl std::fmt::Debug for SiteSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SiteSource").field("outside", &self.id).finish_non_exhaustive()
    }
}

/// What the site could not bring, as a storage node would have said it.
fn as_node(error: SiteError) -> NodeError {
    match error {
        SiteError::Absent => NodeError::Refused {
            status: 404,
            reason: None,
            message: "the site says that its node does not have it".to_owned(),
            retry_after: None,
        },
        SiteError::Failed => HttpError::Cut("nobody on the site could bring it".into()).into(),
    }
}

impl Source for SiteSource {
    fn metadata<'a>(
        &'a self,
        _node: &'a Arc<Node>,
        _n: ShardCount,
        blob: &'a BlobId,
    ) -> BoxFuture<'a, Result<Bytes, NodeError>> {
        let object = metadata_object(self.id, blob);
        self.site.document(object).map(|answer| answer.map_err(as_node)).boxed()
    }

    fn sliver<'a>(
        &'a self,
        _node: &'a Arc<Node>,
        metadata: &'a Metadata,
        axis: AxisKind,
        pair: PairIndex,
    ) -> BoxFuture<'a, Result<Bytes, NodeError>> {
        let object = sliver_object(self.id, metadata, axis, pair);
        async move {
            let object = object.ok_or_else(|| as_node(SiteError::Failed))?;
            let stream = self.site.stream(object, 0);
            let pieces: Vec<Bytes> = stream.try_collect().await.map_err(as_node)?;
            Ok(match <[Bytes; 1]>::try_from(pieces) {
                Ok([whole]) => whole,
                Err(pieces) => pieces.concat().into(),
            })
        }
        .boxed()
    }

    fn is_shared(&self) -> bool {
        true
    }

    /// The home checks what it fetches: a false sliver is a peer's lie.
    fn is_nodes_fault(&self, metadata: &Metadata, axis: AxisKind, pair: PairIndex) -> bool {
        if let Some(object) = sliver_object(self.id, metadata, axis, pair) {
            self.site.wrong(&object);
        }
        false
    }
}

#[cfg(test)]
#[path = "walrus_tests.rs"]
mod tests;
