//! An archive as an agent has it: read only, and never waited for.
//!
//! Its state is the newest that was proven, by whomever: full nodes and peers are asked beside this. Its bytes come
//! through a client that may take slivers from neighbours.

use crate::{
    onchain::state,
    read::{self, Check},
};
use bytes::Bytes;
use haulout_depot::{Blobs, BoxFuture, DepotError, Kind, Registry, State, Update};
use haulout_sui::archive::ArchiveTracker;
use haulout_walrus::Client;
use redstuff::BlobId;
use std::{
    fmt,
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// Some bytes of a blob by another way, for when the client has none.
pub trait OtherWay: Send + Sync + fmt::Debug {
    /// The bytes, each sliver verified.
    fn read(&self, blob: BlobId, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, String>>;
}

/// An archive that is followed.
#[derive(Debug)]
pub struct Following {
    tracker: Arc<ArchiveTracker>,
    ways: OnceLock<Ways>,
    bytes: AtomicU64,
}

/// How blobs are read.
#[derive(Debug)]
struct Ways {
    client: Client,
    other: Option<Arc<dyn OtherWay>>,
}

impl Following {
    /// The archive that `tracker` knows. Nothing can be read before [`Following::connect`].
    #[must_use]
    pub fn new(tracker: Arc<ArchiveTracker>) -> Self {
        Self { tracker, ways: OnceLock::new(), bytes: AtomicU64::new(0) }
    }

    /// Blobs are read through `client` from now on, or else by the other way. Only the first call counts.
    pub fn connect(&self, client: Client, other: Option<Arc<dyn OtherWay>>) {
        let _ = self.ways.set(Ways { client, other });
    }

    /// Bytes that were read, of packs and of the index.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    async fn read_range(
        &self,
        blob: BlobId,
        range: Range<u64>,
        check: Check,
    ) -> Result<Bytes, DepotError> {
        let ways = self
            .ways
            .get()
            .ok_or_else(|| DepotError::new(Kind::Unavailable, "the agent is still starting"))?;
        let bytes = match read::range(&ways.client, blob, range.clone(), check).await {
            Ok(bytes) => bytes,
            Err(error) => {
                let Some(other) = ways.other.as_ref().filter(|_| error.kind != Kind::Corrupt)
                else {
                    return Err(error);
                };
                other.read(blob, range).await.map_err(|why| {
                    tracing::debug!(%blob, why, "and not by the other way");
                    error
                })?
            }
        };
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

impl Blobs for Following {
    fn read(
        &self,
        blob: BlobId,
        _size: u64,
        range: Range<u64>,
    ) -> BoxFuture<'_, Result<Bytes, DepotError>> {
        Box::pin(self.read_range(blob, range, Check::No))
    }

    fn read_verified(
        &self,
        blob: BlobId,
        _size: u64,
        range: Range<u64>,
    ) -> BoxFuture<'_, Result<Bytes, DepotError>> {
        Box::pin(self.read_range(blob, range, Check::Slivers))
    }
}

impl Registry for Following {
    fn state(&self) -> BoxFuture<'_, Result<State, DepotError>> {
        Box::pin(async {
            let proven = self.tracker.newest().ok_or_else(|| {
                let message = format!("archive {} has not been proven yet", self.tracker.id());
                DepotError::new(Kind::Unavailable, message)
            })?;
            Ok(state(&proven.state))
        })
    }

    fn epoch(&self) -> BoxFuture<'_, Result<u32, DepotError>> {
        Box::pin(async { Err(DepotError::new(Kind::Unavailable, "the epoch is not asked for")) })
    }

    fn update<'a>(&'a self, _: u64, _: &'a Update) -> BoxFuture<'a, Result<u64, DepotError>> {
        Box::pin(async { Err(DepotError::new(Kind::Refused, "an agent does not change archives")) })
    }
}
