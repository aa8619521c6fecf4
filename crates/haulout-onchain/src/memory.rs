//! Slivers and metadata that were just fetched, kept for a moment.
//!
//! A NAR is read in pieces, and neighbouring pieces share slivers; every piece needs the metadata. What
//! is kept was not verified yet: the client does that each time. An answer is kept under the node that
//! gave it, so a lie is only ever met again by asking the liar again.

use bytes::Bytes;
use haulout_walrus::{BoxFuture, Node, NodeError, Source};
use lru::LruCache;
use redstuff::{AxisKind, BlobId, Metadata, PairIndex, ShardCount};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Most bytes that are kept.
const BYTES_MAX: usize = 48 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Metadata([u8; 32], BlobId),
    Sliver([u8; 32], BlobId, bool, PairIndex),
}

/// A [`Source`] in front of another one.
pub struct RecentBytes {
    inner: Arc<dyn Source>,
    kept: Mutex<Kept>,
}

struct Kept {
    entries: LruCache<Key, Bytes>,
    bytes: usize,
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
        Self { inner, kept: Mutex::new(Kept { entries: LruCache::unbounded(), bytes: 0 }) }
    }

    fn get(&self, key: &Key) -> Option<Bytes> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).entries.get(key).cloned()
    }

    fn keep(&self, key: Key, bytes: &Bytes) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += bytes.len();
        if let Some(old) = kept.entries.put(key, bytes.clone()) {
            kept.bytes -= old.len();
        }
        while kept.bytes > BYTES_MAX {
            let Some((_, oldest)) = kept.entries.pop_lru() else { break };
            kept.bytes -= oldest.len();
        }
    }
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
            let primary = axis == AxisKind::Primary;
            let key = Key::Sliver(node.info.node_id.0, *metadata.id(), primary, pair);
            if let Some(bytes) = self.get(&key) {
                return Ok(bytes);
            }
            let bytes = self.inner.sliver(node, metadata, axis, pair).await?;
            self.keep(key, &bytes);
            Ok(bytes)
        })
    }
}
