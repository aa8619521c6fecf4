//! A node's metadata and slivers on disk.
//!
//! One redb file a node: a write is on disk, whole, before it is acknowledged, and a kill at
//! any moment leaves the last committed state. Writes that arrive while another is being
//! synced go into the next transaction together: thousands of small slivers do not cost a
//! sync each.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, TableDefinition};
use redstuff::{AxisKind, BlobId, PairIndex};
use tokio::sync::oneshot;

use super::route::SliverName;

/// Blob id to BCS metadata, as it was PUT.
const METADATA: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("metadata");

/// Blob id, axis and pair (big-endian) to BCS sliver, as it was PUT.
const SLIVERS: TableDefinition<'_, &[u8; 35], &[u8]> = TableDefinition::new("sliver");

/// Bytes of pages that redb keeps in memory, for each node: a committee has up to hundreds.
const PAGE_CACHE_BYTES: usize = 2 << 20;

/// How often, and at most how many times, closing looks whether the store is still in use.
const CLOSE_POLL: Duration = Duration::from_millis(5);
const CLOSE_POLLS_MAX: u32 = 2_000;

/// Something failed in the file.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the node's store failed: {0}")]
pub struct StoreError(String);

fn failed(error: impl Into<redb::Error>) -> StoreError {
    StoreError(error.into().to_string())
}

/// A change to the store.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Metadata(BlobId, Bytes),
    Sliver(SliverName, Bytes),
    DropBlob(BlobId),
    DropPair(BlobId, PairIndex),
}

type Acknowledge = oneshot::Sender<Result<(), StoreError>>;

/// The store of one node. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: Database,
    /// Changes that wait for the next transaction; at most one for each request under way.
    waiting: Mutex<Vec<(Change, Acknowledge)>>,
    /// Held by whoever writes.
    writing: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(name: &SliverName) -> [u8; 35] {
    let mut key = [0; 35];
    key[..32].copy_from_slice(name.blob.as_bytes());
    key[32] = u8::from(name.axis == AxisKind::Secondary);
    key[33..].copy_from_slice(&name.pair.0.to_be_bytes());
    key
}

impl Store {
    /// Opens the store in directory `dir`, which must exist, or makes it.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        let db = Database::builder()
            .set_cache_size(PAGE_CACHE_BYTES)
            .create(dir.join("slivers.redb"))
            .map_err(failed)?;
        let transaction = db.begin_write().map_err(failed)?;
        transaction.open_table(METADATA).map_err(failed)?;
        transaction.open_table(SLIVERS).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        let (waiting, writing) = (Mutex::default(), Mutex::default());
        Ok(Self(Arc::new(Inner { db, waiting, writing })))
    }

    /// Waits until nobody uses the store any more, and closes the file.
    pub(crate) async fn close(self) {
        let mut inner = self.0;
        // Whoever still holds it finishes a request or a transaction.
        for _ in 0..CLOSE_POLLS_MAX {
            match Arc::try_unwrap(inner) {
                Ok(_) => return,
                Err(shared) => inner = shared,
            }
            tokio::time::sleep(CLOSE_POLL).await;
        }
    }

    /// BCS metadata of a blob.
    pub(crate) fn metadata(&self, blob: &BlobId) -> Result<Option<Bytes>, StoreError> {
        let table = self.0.db.begin_read().map_err(failed)?.open_table(METADATA).map_err(failed)?;
        let value = table.get(blob.as_bytes()).map_err(failed)?;
        Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
    }

    /// A sliver in BCS.
    pub(crate) fn sliver(&self, name: &SliverName) -> Result<Option<Bytes>, StoreError> {
        let table = self.0.db.begin_read().map_err(failed)?.open_table(SLIVERS).map_err(failed)?;
        let value = table.get(&key(name)).map_err(failed)?;
        Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
    }

    /// Whether all of these slivers are there.
    pub(crate) fn has_all(
        &self,
        names: impl IntoIterator<Item = SliverName>,
    ) -> Result<bool, StoreError> {
        let table = self.0.db.begin_read().map_err(failed)?.open_table(SLIVERS).map_err(failed)?;
        for name in names {
            if table.get(&key(&name)).map_err(failed)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether any of these slivers is there.
    pub(crate) fn has_any(
        &self,
        names: impl IntoIterator<Item = SliverName>,
    ) -> Result<bool, StoreError> {
        let table = self.0.db.begin_read().map_err(failed)?.open_table(SLIVERS).map_err(failed)?;
        for name in names {
            if table.get(&key(&name)).map_err(failed)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The ids of blobs with metadata, from `from` on, in order, at most `max`.
    pub(crate) fn blobs(&self, from: &BlobId, max: usize) -> Result<Vec<BlobId>, StoreError> {
        let table = self.0.db.begin_read().map_err(failed)?.open_table(METADATA).map_err(failed)?;
        let range = table.range::<&[u8; 32]>(from.as_bytes()..).map_err(failed)?;
        range
            .take(max)
            .map(|entry| entry.map(|(key, _)| BlobId(*key.value())).map_err(failed))
            .collect()
    }

    /// Makes a change; it is on disk when this returns.
    pub(crate) async fn apply(&self, change: Change) -> Result<(), StoreError> {
        let (done, acknowledged) = oneshot::channel();
        lock(&self.0.waiting).push((change, done));
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.write_waiting());
        acknowledged.await.unwrap_or_else(|_| Err(StoreError("the writer is gone".to_owned())))
    }

    fn write_waiting(&self) {
        let _writing = lock(&self.0.writing);
        let batch = std::mem::take(&mut *lock(&self.0.waiting));
        if batch.is_empty() {
            return; // An earlier writer took ours along.
        }
        let result = self.write(batch.iter().map(|(change, _)| change));
        for (_, done) in batch {
            // Whoever asked may have hung up; the change is made all the same.
            let _ = done.send(result.clone());
        }
    }

    fn write<'a>(&self, changes: impl Iterator<Item = &'a Change>) -> Result<(), StoreError> {
        let transaction = self.0.db.begin_write().map_err(failed)?;
        {
            let mut metadata = transaction.open_table(METADATA).map_err(failed)?;
            let mut slivers = transaction.open_table(SLIVERS).map_err(failed)?;
            for change in changes {
                match change {
                    Change::Metadata(blob, bytes) => {
                        metadata.insert(blob.as_bytes(), bytes.as_ref()).map_err(failed)?;
                    }
                    Change::Sliver(name, bytes) => {
                        slivers.insert(&key(name), bytes.as_ref()).map_err(failed)?;
                    }
                    Change::DropBlob(blob) => {
                        metadata.remove(blob.as_bytes()).map_err(failed)?;
                        let name = |pair, axis| SliverName { blob: *blob, pair, axis };
                        let first = key(&name(PairIndex(0), AxisKind::Primary));
                        let last = key(&name(PairIndex(u16::MAX), AxisKind::Secondary));
                        slivers
                            .retain_in::<&[u8; 35], _>(&first..=&last, |_, _| false)
                            .map_err(failed)?;
                    }
                    Change::DropPair(blob, pair) => {
                        for axis in [AxisKind::Primary, AxisKind::Secondary] {
                            let name = SliverName { blob: *blob, pair: *pair, axis };
                            slivers.remove(&key(&name)).map_err(failed)?;
                        }
                    }
                }
            }
        }
        transaction.commit().map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn name(blob: BlobId, pair: u16, axis: AxisKind) -> SliverName {
        SliverName { blob, pair: PairIndex(pair), axis }
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (BlobId([1; 32]), BlobId([2; 32]));
        let store = Store::open(dir.path()).unwrap();
        let puts = (0..40_u16).map(|pair| {
            let axis = if pair % 2 == 0 { AxisKind::Primary } else { AxisKind::Secondary };
            let blob = if pair < 20 { a } else { b };
            let bytes = Bytes::from(pair.to_be_bytes().repeat(100));
            let store = store.clone();
            tokio::spawn(
                async move { store.apply(Change::Sliver(name(blob, pair, axis), bytes)).await },
            )
        });
        for put in puts.collect::<Vec<_>>() {
            put.await.unwrap().unwrap();
        }
        store.apply(Change::Metadata(a, Bytes::from_static(b"m"))).await.unwrap();
        store.apply(Change::DropBlob(b)).await.unwrap();
        store.apply(Change::DropPair(a, PairIndex(2))).await.unwrap();
        store.close().await;

        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.metadata(&a).unwrap().unwrap(), "m");
        assert_eq!(store.blobs(&BlobId([0; 32]), 10).unwrap(), [a]);
        let sliver = store.sliver(&name(a, 7, AxisKind::Secondary)).unwrap().unwrap();
        assert_eq!(sliver, 7_u16.to_be_bytes().repeat(100));
        assert_eq!(store.sliver(&name(a, 7, AxisKind::Primary)).unwrap(), None);
        assert_eq!(store.sliver(&name(a, 2, AxisKind::Primary)).unwrap(), None);
        assert_eq!(store.sliver(&name(b, 20, AxisKind::Primary)).unwrap(), None);
        let odd = |pair| name(a, pair, AxisKind::Secondary);
        assert!(store.has_all([odd(1), odd(3), odd(19)]).unwrap());
        assert!(!store.has_all([odd(1), odd(2)]).unwrap());
    }
}
