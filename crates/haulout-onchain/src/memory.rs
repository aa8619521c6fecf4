//! Slivers and metadata that were just fetched, kept for a moment.
//!
//! A NAR is read in pieces, and neighbouring pieces share slivers; every piece needs the metadata. A sliver is verified
//! once, when it comes (by the source, if that is what it does), and kept under its blob; so whoever reads through this may
//! take slivers as they are ([`haulout_walrus::ReadOptions::content`]). Metadata is kept as it came, under the node that gave it,
//! so that a lie is only ever met again by asking the liar again; and as the client verified it, once it asks for slivers by it.

use bytes::Bytes;
use haulout_walrus::{
    Blame, BoxFuture, Node, NodeError, Piece, ReadError, Source, is_sliver, limits::SPOILT_RETRIES,
};
use lru::LruCache;
use redstuff::{AxisKind, BlobId, Metadata, PairIndex, ShardCount};
use std::{
    collections::HashMap,
    fmt,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};
use tokio::sync::Mutex as AsyncMutex;

/// Most bytes that are kept.
const BYTES_MAX: usize = 48 << 20;
/// Blobs whose metadata is kept as it was verified: 66 KB each for 1,000 shards.
const METADATA_MAX: NonZeroUsize = NonZeroUsize::new(32).unwrap();

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Metadata([u8; 32], BlobId),
    Sliver(BlobId, bool, PairIndex),
}

/// A [`Source`] in front of another one.
pub struct RecentBytes {
    inner: Arc<dyn Source>,
    kept: Mutex<Kept>,
    /// Whoever wants a sliver brings it along: not verified anew for every piece that is read.
    metadata: Mutex<LruCache<BlobId, Metadata>>,
    /// Slivers under way: who else wants one waits for it.
    coming: Mutex<HashMap<Key, Weak<AsyncMutex<()>>>>,
}

struct Kept {
    entries: LruCache<Key, Bytes>,
    bytes: usize,
    /// When something was last wanted.
    used: Instant,
}

impl fmt::Debug for RecentBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecentBytes").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl RecentBytes {
    /// In front of `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Source>) -> Self {
        let kept =
            Mutex::new(Kept { entries: LruCache::unbounded(), bytes: 0, used: Instant::now() });
        let metadata = Mutex::new(LruCache::new(METADATA_MAX));
        Self { inner, kept, metadata, coming: Mutex::default() }
    }

    /// Forgets everything if nothing was wanted for so long: for programs that run on.
    pub fn forget_after(&self, unused: Duration) {
        let mut kept = self.kept();
        if kept.used.elapsed() >= unused {
            kept.entries.clear();
            kept.bytes = 0;
            self.metadata().clear();
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn metadata(&self) -> MutexGuard<'_, LruCache<BlobId, Metadata>> {
        self.metadata.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &Key) -> Option<Bytes> {
        let mut kept = self.kept();
        kept.used = Instant::now();
        kept.entries.get(key).cloned()
    }

    fn keep(&self, key: Key, bytes: &Bytes) {
        let mut kept = self.kept();
        kept.bytes += bytes.len();
        if let Some(old) = kept.entries.put(key, bytes.clone()) {
            kept.bytes -= old.len();
        }
        while kept.bytes > BYTES_MAX {
            let Some((_, oldest)) = kept.entries.pop_lru() else { break };
            kept.bytes -= oldest.len();
        }
    }

    /// Held by whoever fetches this.
    fn turn(&self, key: &Key) -> Arc<AsyncMutex<()>> {
        let mut coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = coming.get(key).and_then(Weak::upgrade) {
            return turn;
        }
        coming.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        coming.insert(key.clone(), Arc::downgrade(&turn));
        turn
    }
}

/// Verifies a sliver, beside the async threads.
async fn checked(metadata: &Metadata, axis: AxisKind, pair: PairIndex, bytes: &Bytes) -> bool {
    let (of, copy) = (metadata.clone(), bytes.clone());
    let check = move || is_sliver(&of, axis, pair, &copy);
    tokio::task::spawn_blocking(check).await.unwrap_or(false)
}

impl Source for RecentBytes {
    fn metadata<'a>(
        &'a self,
        node: &'a Arc<Node>,
        n: ShardCount,
        blob: &'a BlobId,
    ) -> BoxFuture<'a, Result<Bytes, NodeError>> {
        Box::pin(async move {
            let key = Key::Metadata(node.info.node_id.0, *blob);
            if let Some(bytes) = self.get(&key) {
                return Ok(bytes);
            }
            let bytes = self.inner.metadata(node, n, blob).await?;
            self.keep(key, &bytes);
            Ok(bytes)
        })
    }

    fn sliver<'a>(
        &'a self,
        node: &'a Arc<Node>,
        metadata: &'a Metadata,
        axis: AxisKind,
        pair: PairIndex,
    ) -> BoxFuture<'a, Result<Bytes, NodeError>> {
        Box::pin(async move {
            let key = Key::Sliver(*metadata.id(), axis == AxisKind::Primary, pair);
            self.metadata().get_or_insert(*metadata.id(), || metadata.clone());
            if let Some(bytes) = self.get(&key) {
                return Ok(bytes);
            }
            let turn = self.turn(&key);
            let _turn = turn.lock().await;
            if let Some(bytes) = self.get(&key) {
                return Ok(bytes);
            }
            for _ in 0..=SPOILT_RETRIES {
                let bytes = self.inner.sliver(node, metadata, axis, pair).await?;
                if self.inner.is_checked(metadata, axis, pair)
                    || checked(metadata, axis, pair, &bytes).await
                {
                    self.keep(key, &bytes);
                    return Ok(bytes);
                }
                tracing::warn!(node = %node.info.node_id, blob = %metadata.id(), "a false sliver");
                match self.inner.wrong(Piece::Sliver(metadata, axis, pair)).await {
                    Blame::Node => break,
                    // Whoever brought it was found out; the node may well have the right one.
                    Blame::OnTheWay => {}
                }
            }
            Err(NodeError::Malformed("a false sliver".to_owned()))
        })
    }

    fn metadata_anywhere<'a>(
        &'a self,
        n: ShardCount,
        blob: &'a BlobId,
    ) -> Option<BoxFuture<'a, Result<Bytes, ReadError>>> {
        self.inner.metadata_anywhere(n, blob)
    }

    fn known_metadata(&self, blob: &BlobId) -> Option<Metadata> {
        self.metadata().get(blob).cloned()
    }

    fn is_checked(&self, _: &Metadata, _: AxisKind, _: PairIndex) -> bool {
        true
    }

    fn wrong<'a>(&'a self, what: Piece<'a>) -> BoxFuture<'a, Blame> {
        self.inner.wrong(what)
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }
}
