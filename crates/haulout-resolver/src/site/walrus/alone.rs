//! Blobs without a committee: for an agent that reaches neither the chain nor a storage node.
//!
//! A blob's metadata says how many shards there are and hashes to the blob's id; every sliver is checked against it. Who
//! has which shard need not be known: neighbours fetch for the site.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use haulout_swarm::site::OutsideId;
use lru::LruCache;
use redstuff::bcs::Wire;
use redstuff::{
    AxisKind, BlobId, Consistency, Metadata, MetadataWithId, Primary, ShardCount, Sliver,
    SliverIndex, UnverifiedSliver,
};

use super::names::{metadata_object, sliver_object};
use crate::bounded::Bounded;
use crate::site::Site;

/// Blobs whose metadata is kept.
const METADATA_KEPT: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// What verified slivers may take, in bytes: neighbouring reads share them.
const SLIVERS_BYTES: usize = 32 << 20;
/// Slivers asked for at the same time: each has another home.
const AT_ONCE: usize = 8;

/// Reads blobs from neighbours.
pub struct Alone {
    site: Site,
    outside: OutsideId,
    metadata: Mutex<LruCache<BlobId, Metadata>>,
    slivers: Bounded<(BlobId, u16), Sliver<Primary>>,
}

impl std::fmt::Debug for Alone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Alone").field("outside", &self.outside).finish_non_exhaustive()
    }
}

impl Alone {
    pub(super) fn new(site: Site, outside: OutsideId) -> Self {
        let metadata = Mutex::new(LruCache::new(METADATA_KEPT));
        Self { site, outside, metadata, slivers: Bounded::new(SLIVERS_BYTES) }
    }

    /// Some bytes of a blob; every sliver was verified.
    ///
    /// # Errors
    /// Why not, in words.
    pub async fn read_range(&self, blob: &BlobId, range: Range<u64>) -> Result<Bytes, String> {
        let metadata = self.metadata(blob).await?;
        if range.start > range.end || range.end > metadata.unencoded_length() {
            return Err("the blob is shorter than that".to_owned());
        }
        let rows: Vec<u16> = metadata.rows_of_range(range.clone()).collect();
        let exact: Result<Vec<_>, _> = stream::iter(rows)
            .map(|row| self.sliver(&metadata, row))
            .buffered(AT_ONCE)
            .try_collect()
            .await;
        let of = metadata.clone();
        match exact {
            Ok(slivers) => {
                computed(move || redstuff::read_range(&of, range, &slivers)).await.map(Bytes::from)
            }
            Err(_) => {
                let whole = self.whole(&metadata).await?;
                let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
                let part = whole.get(at(range.start)..at(range.end));
                part.map(Bytes::copy_from_slice).ok_or_else(|| "the blob is cut short".to_owned())
            }
        }
    }

    async fn metadata(&self, blob: &BlobId) -> Result<Metadata, String> {
        let kept = || self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept().get(blob).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let object = metadata_object(self.outside, blob);
        let bytes = self.site.document(object.clone()).await;
        let bytes = bytes.map_err(|error| format!("no metadata: {error}"))?;
        let verified = MetadataWithId::from_bcs(&bytes).ok().and_then(|found| {
            let n = ShardCount::new(u16::try_from(found.metadata.hashes.len()).ok()?).ok()?;
            found.verify(n, blob).ok()
        });
        let Some(metadata) = verified else {
            self.site.wrong(&object);
            return Err("a neighbour's metadata is not the blob's".to_owned());
        };
        kept().put(*blob, metadata.clone());
        Ok(metadata)
    }

    /// A primary sliver, verified.
    async fn sliver(&self, metadata: &Metadata, row: u16) -> Result<Sliver<Primary>, String> {
        let key = (*metadata.id(), row);
        if let Some(sliver) = self.slivers.get(&key) {
            return Ok(sliver);
        }
        let index = SliverIndex::<Primary>::new(row);
        let pair = index.pair(metadata.shards()).map_err(|error| error.to_string())?;
        let object = sliver_object(self.outside, metadata, AxisKind::Primary, pair);
        let object = object.ok_or("no such sliver")?;
        let pieces: Vec<Bytes> = self
            .site
            .stream(object.clone(), 0)
            .try_collect()
            .await
            .map_err(|error| format!("no sliver {row}: {error}"))?;
        let raw = match <[Bytes; 1]>::try_from(pieces) {
            Ok([whole]) => whole,
            Err(pieces) => pieces.concat().into(),
        };
        let of = metadata.clone();
        let verified = computed(move || {
            let sliver = UnverifiedSliver::<Primary>::from_shared_bcs(&raw)
                .map_err(|error| error.to_string())?;
            if sliver.index != index {
                return Err("another sliver came".to_owned());
            }
            sliver.verify(&of).map_err(|error| error.to_string())
        })
        .await;
        match verified {
            Ok(sliver) => {
                self.slivers.put(key, sliver.clone(), sliver.data().len());
                Ok(sliver)
            }
            Err(why) => {
                self.site.wrong(&object);
                Err(why)
            }
        }
    }

    /// The whole blob, from any slivers that suffice: some of those that hold its bytes are not to be had.
    async fn whole(&self, metadata: &Metadata) -> Result<Vec<u8>, String> {
        let n = metadata.shards();
        let mut have = metadata.padding_slivers();
        let known: Vec<u16> = have.iter().map(|sliver| sliver.index().get()).collect();
        let rest = (0..n.get()).filter(|row| !known.contains(row));
        let mut coming =
            stream::iter(rest).map(|row| self.sliver(metadata, row)).buffer_unordered(AT_ONCE);
        while have.len() < n.rows() {
            match coming.next().await {
                Some(Ok(sliver)) => have.push(sliver),
                Some(Err(_)) => {}
                None => return Err(format!("only {} of {} slivers", have.len(), n.rows())),
            }
        }
        let of = metadata.clone();
        computed(move || redstuff::decode(&of, &have, Consistency::Default)).await
    }
}

/// Work that takes the processor for a while.
async fn computed<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err("cut off".to_owned()),
    }
}
