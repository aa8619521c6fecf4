//! An archive whose blobs are on Walrus and whose state is on Sui.

mod store;
mod update;

use crate::read::{self, Check};
use bytes::Bytes;
use haulout_depot::{
    Blobs, BoxFuture, Certify, DepotError, Kind, LevelRecord, Registry, Standing, State, Stored,
    Update,
};
use haulout_sui::{
    ObjectId,
    archive::{ArchiveState, ArchiveTracker},
    chain::SuiChain,
    tx::{Certification, SuiRegistrar},
};
use haulout_walrus::{BlobName, ChainError, ChainErrorKind, ChainReader, Client};
use redstuff::{BlobId, ShardCount};
use std::{
    collections::HashMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How often a state is read again that should be newer, and how long apart.
const STATE_TRIES: u32 = 20;
const STATE_WAIT: Duration = Duration::from_millis(500);

/// Who publishes.
#[derive(Debug, Clone)]
pub struct Publisher {
    /// Makes the transactions.
    pub registrar: SuiRegistrar,
    /// The package of the archive contract.
    pub package: ObjectId,
    /// The publisher's cap.
    pub cap: ObjectId,
    /// Where the journals of blobs under way are kept.
    pub journals: Option<PathBuf>,
}

/// An archive on a network.
#[derive(Debug)]
pub struct OnChain {
    client: Arc<Client>,
    chain: Arc<SuiChain>,
    tracker: Arc<ArchiveTracker>,
    publisher: Option<Publisher>,
    /// Certificates of index blobs that wait for their update.
    waiting: Mutex<HashMap<ObjectId, Certification>>,
    /// The sequence that this process has itself brought about.
    expected: Mutex<u64>,
}

impl OnChain {
    /// The archive that `tracker` follows, with blobs through `client`; `publisher` for those who publish.
    #[must_use]
    pub fn new(
        client: Client,
        chain: Arc<SuiChain>,
        tracker: Arc<ArchiveTracker>,
        publisher: Option<Publisher>,
    ) -> Self {
        Self {
            client: Arc::new(client),
            chain,
            tracker,
            publisher,
            waiting: Mutex::default(),
            expected: Mutex::new(0),
        }
    }

    fn publisher(&self) -> Result<&Publisher, DepotError> {
        self.publisher.as_ref().ok_or_else(|| {
            DepotError::new(Kind::Refused, "there is no key or no publisher's cap to publish with")
        })
    }

    async fn shards(&self) -> Result<ShardCount, DepotError> {
        let view = self.client.committees(false).await.map_err(chain_failed)?;
        Ok(view.current.n_shards)
    }

    async fn blob_state(
        &self,
        object: [u8; 32],
    ) -> Result<Option<haulout_walrus::BlobState>, DepotError> {
        self.chain.blob(BlobName::Object(ObjectId(object))).await.map_err(chain_failed)
    }

    /// The newest proven state, at least as new as what this process has made itself.
    async fn newest(&self) -> Result<State, DepotError> {
        let expected = *self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        let mut attempt = 0;
        loop {
            let proven = self.tracker.poll().await.map_err(|error| {
                DepotError::new(
                    Kind::Unavailable,
                    format!("the state of archive {} cannot be proven", self.tracker.id()),
                )
                .because(error)
            })?;
            if proven.state.sequence >= expected || attempt == STATE_TRIES {
                return Ok(state(&proven.state));
            }
            attempt += 1;
            tokio::time::sleep(STATE_WAIT).await;
        }
    }
}

pub(crate) fn state(of: &ArchiveState) -> State {
    let level = |level: &haulout_sui::archive::Level| LevelRecord {
        root: level.root(),
        leaves: level.leaves,
        blob: level.index_blob,
        object: level.blob_object.0,
        size: level.index_size,
        end_epoch: level.end_epoch,
    };
    State {
        id: of.id.0,
        sequence: of.sequence,
        updated_ms: of.updated_ms,
        levels: of.levels.iter().map(level).collect(),
        frozen: of.frozen,
        store_dir: of.store_dir.clone(),
        name: of.name.clone(),
    }
}

const fn kind_of(kind: ChainErrorKind) -> Kind {
    match kind {
        ChainErrorKind::Unavailable => Kind::Unavailable,
        ChainErrorKind::NotFound => Kind::Missing,
        ChainErrorKind::Untrusted => Kind::Corrupt,
        ChainErrorKind::Refused | ChainErrorKind::Unsupported => Kind::Refused,
    }
}

fn chain_failed(error: ChainError) -> DepotError {
    DepotError::new(kind_of(error.kind), "the chain cannot be asked").because(error)
}

impl Blobs for OnChain {
    fn read(
        &self,
        blob: BlobId,
        _size: u64,
        range: Range<u64>,
    ) -> BoxFuture<'_, Result<Bytes, DepotError>> {
        // Checked against the index root by whoever asked.
        Box::pin(read::range(&self.client, blob, range, Check::No))
    }

    fn read_verified(
        &self,
        blob: BlobId,
        _size: u64,
        range: Range<u64>,
    ) -> BoxFuture<'_, Result<Bytes, DepotError>> {
        Box::pin(read::range(&self.client, blob, range, Check::Slivers))
    }

    fn store<'a>(
        &'a self,
        file: &'a Path,
        epochs: u32,
        certify: Certify,
    ) -> BoxFuture<'a, Result<Stored, DepotError>> {
        Box::pin(self.store_file(file, epochs, certify))
    }

    fn standing(
        &self,
        blob: BlobId,
        object: [u8; 32],
    ) -> BoxFuture<'_, Result<Standing, DepotError>> {
        Box::pin(async move {
            if object == [0; 32] {
                return Ok(Standing::Unknown);
            }
            let epoch = self.epoch().await?;
            Ok(match self.blob_state(object).await? {
                Some(state)
                    if state.blob == blob
                        && state.certified_epoch.is_some()
                        && state.end_epoch > epoch =>
                {
                    Standing::Until(state.end_epoch)
                }
                _ => Standing::Gone,
            })
        })
    }

    fn extend(
        &self,
        blob: BlobId,
        object: [u8; 32],
        end_epoch: u32,
    ) -> BoxFuture<'_, Result<u32, DepotError>> {
        Box::pin(self.extend_blob(blob, object, end_epoch))
    }

    fn blob_bytes_max(&self) -> BoxFuture<'_, Result<u64, DepotError>> {
        Box::pin(async { Ok(self.shards().await?.max_blob_size()) })
    }
}

impl Registry for OnChain {
    fn state(&self) -> BoxFuture<'_, Result<State, DepotError>> {
        Box::pin(self.newest())
    }

    fn epoch(&self) -> BoxFuture<'_, Result<u32, DepotError>> {
        Box::pin(async {
            let view = self.client.committees(false).await.map_err(chain_failed)?;
            Ok(view.epoch)
        })
    }

    fn update<'a>(
        &'a self,
        expected: u64,
        update: &'a Update,
    ) -> BoxFuture<'a, Result<u64, DepotError>> {
        Box::pin(self.apply(expected, update))
    }
}
