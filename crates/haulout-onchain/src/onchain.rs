//! An archive whose blobs are on Walrus and whose state is on Sui.

use crate::{
    create::failed,
    read::{self, Check},
};
use bytes::Bytes;
use haulout_depot::{
    Blobs, BoxFuture, Certify, DepotError, Kind, LevelRecord, Registry, Standing, State, Stored,
    Update,
};
use haulout_sui::{
    ObjectId,
    archive::{ArchiveState, ArchiveTracker},
    chain::SuiChain,
    tx::{self, Certification, Request, SuiRegistrar},
};
use haulout_walrus::{
    BlobName, Certified, ChainError, ChainErrorKind, ChainReader, Client, Registered, Registrar,
    Registration, StoreOptions, WriteError,
};
use redstuff::{BlobId, ShardCount, messages::ConfirmationCertificate};
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

    async fn store_file(
        &self,
        file: &Path,
        epochs: u32,
        certify: Certify,
    ) -> Result<Stored, DepotError> {
        let publisher = self.publisher()?;
        let shards = self.shards().await?;
        let path = file.to_owned();
        let encoding = move || {
            let bytes = std::fs::read(&path).map_err(|error| {
                DepotError::new(Kind::Local, format!("cannot read {}", path.display()))
                    .because(error)
            })?;
            shards.encode(bytes).map_err(|error| {
                DepotError::new(Kind::Refused, format!("cannot encode {}", path.display()))
                    .because(error)
            })
        };
        let encoded = tokio::task::spawn_blocking(encoding).await.map_err(|error| {
            DepotError::new(Kind::Local, "encoding ended early").because(error)
        })??;
        let metadata = encoded.metadata();
        let blob = *metadata.id();
        let registration = Registration {
            blob,
            root_hash: *metadata.root_hash(),
            unencoded_length: metadata.unencoded_length(),
            encoded_length: shards.encoded_length(metadata.unencoded_length()).map_err(
                |error| DepotError::new(Kind::Refused, "the blob is too large").because(error),
            )?,
            epochs,
            deletable: false,
        };
        // What an earlier run has certified is there already.
        let existing = publisher.registrar.existing(&registration).await.map_err(chain_failed)?;
        if let Some(known) = existing.filter(|known| known.certified_epoch.is_some()) {
            return Ok(Stored { blob, object: known.object.0, end_epoch: known.end_epoch });
        }
        let journal = match (certify, &publisher.journals) {
            (Certify::Now, Some(directory)) => {
                std::fs::create_dir_all(directory).map_err(|error| {
                    DepotError::new(Kind::Local, format!("cannot make {}", directory.display()))
                        .because(error)
                })?;
                Some(directory.join(format!("{blob}.journal")))
            }
            // The certificate is only kept in memory, so there is nothing to go on from.
            _ => None,
        };
        let options = StoreOptions { journal: journal.clone(), ..StoreOptions::permanent(epochs) };
        let later = Later { inner: &publisher.registrar, waiting: &self.waiting };
        let registrar: &dyn Registrar = match certify {
            Certify::Now => &publisher.registrar,
            Certify::WithUpdate => &later,
        };
        let stored =
            self.client.store(registrar, Arc::new(encoded), &options).await.map_err(|error| {
                let kind = match &error {
                    WriteError::Chain { source, .. } => kind_of(source.kind),
                    WriteError::TooLarge(_) | WriteError::OtherNetwork { .. } => Kind::Refused,
                    WriteError::Journal(_) | WriteError::Worker => Kind::Local,
                    _ => Kind::Unavailable,
                };
                DepotError::new(kind, format!("cannot store blob {blob}")).because(error)
            })?;
        if let Some(journal) = journal {
            // Done: the chain knows the blob now, and `existing` finds it there.
            let _ = std::fs::remove_file(journal);
        }
        Ok(Stored {
            blob,
            object: stored.registered.object.0,
            end_epoch: stored.registered.end_epoch,
        })
    }

    async fn blob_state(
        &self,
        object: [u8; 32],
    ) -> Result<Option<haulout_walrus::BlobState>, DepotError> {
        self.chain.blob(BlobName::Object(ObjectId(object))).await.map_err(chain_failed)
    }

    async fn extend_blob(
        &self,
        blob: BlobId,
        object: [u8; 32],
        end_epoch: u32,
    ) -> Result<u32, DepotError> {
        let publisher = self.publisher()?;
        let gone = || DepotError::new(Kind::Missing, format!("blob {blob} is no longer stored"));
        let state =
            self.blob_state(object).await?.filter(|state| state.blob == blob).ok_or_else(gone)?;
        if state.end_epoch >= end_epoch {
            return Ok(state.end_epoch);
        }
        let size = self.shards().await?.encoded_length(state.size).map_err(|error| {
            DepotError::new(Kind::Corrupt, format!("blob {blob} is too large")).because(error)
        })?;
        let epochs = end_epoch - state.end_epoch;
        let blobs = [(ObjectId(object), size)];
        publisher.registrar.extend(&blobs, epochs, end_epoch).await.map_err(failed)?;
        Ok(end_epoch)
    }

    /// The newest proven state, at least as new as what this process has made itself.
    async fn newest(&self) -> Result<State, DepotError> {
        let expected = *self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        for attempt in 0.. {
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
            tokio::time::sleep(STATE_WAIT).await;
        }
        unreachable!("the loop returns")
    }

    async fn apply(&self, expected: u64, update: &Update) -> Result<u64, DepotError> {
        let publisher = self.publisher()?;
        let (package, archive, cap) = (publisher.package, self.tracker.id(), publisher.cap);
        let done = match update {
            Update::Level { level, keep, place } => {
                let blob = ObjectId(level.stored.object);
                let call = tx::Update {
                    expected,
                    root: level.root,
                    leaves: level.leaves,
                    end_epoch: level.end_epoch,
                    keep: keep.clone(),
                    place: *place,
                };
                let certification =
                    self.waiting.lock().unwrap_or_else(PoisonError::into_inner).get(&blob).cloned();
                match certification {
                    Some(with) => {
                        publisher
                            .registrar
                            .certify_and_update(package, (archive, cap), &with, &call)
                            .await
                    }
                    None => {
                        let request = Request {
                            purpose: format!(
                                "update archive {archive} after sequence {expected} with {blob}"
                            ),
                            wal: 0,
                            objects: vec![(archive, true), (cap, false), (blob, false)],
                            build: &|ptb| ptb.archive_update(package, (0, 1, 2), &call),
                        };
                        publisher.registrar.wallet().run(&request).await
                    }
                }
            }
            Update::Extend { position, end_epoch } => {
                let blob =
                    self.newest().await?.levels.get(*position as usize).map(|level| level.object);
                let blob = blob
                    .map(ObjectId)
                    .ok_or_else(|| DepotError::new(Kind::Refused, "there is no such level"))?;
                let request = Request {
                    purpose: format!(
                        "extend level {position} of archive {archive} after sequence {expected}"
                    ),
                    wal: 0,
                    objects: vec![(archive, true), (cap, false), (blob, false)],
                    build: &|ptb| {
                        ptb.archive_extend(package, (0, 1, 2), (expected, *position, *end_epoch))
                    },
                };
                publisher.registrar.wallet().run(&request).await
            }
            Update::Beat => {
                let request = Request {
                    purpose: format!("beat of archive {archive} after sequence {expected}"),
                    wal: 0,
                    objects: vec![(archive, true), (cap, false)],
                    build: &|ptb| ptb.archive_beat(package, (0, 1), expected),
                };
                publisher.registrar.wallet().run(&request).await
            }
        };
        match done {
            Ok(_) => {
                let mut known = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
                *known = (*known).max(expected + 1);
                Ok(expected + 1)
            }
            // The contract says why in a number; the state says it for certain.
            Err(error) => match self.newest().await {
                Ok(state) if state.sequence != expected => {
                    let message = "somebody else published to the archive in the meantime";
                    Err(DepotError::new(Kind::Conflict, message).because(error))
                }
                _ => Err(failed(error)),
            },
        }
    }
}

/// Keeps certificates instead of sending them.
#[derive(Debug)]
struct Later<'a> {
    inner: &'a SuiRegistrar,
    waiting: &'a Mutex<HashMap<ObjectId, Certification>>,
}

impl Registrar for Later<'_> {
    fn existing<'a>(
        &'a self,
        registration: &'a Registration,
    ) -> BoxFuture<'a, Result<Option<Registered>, ChainError>> {
        self.inner.existing(registration)
    }

    fn register<'a>(
        &'a self,
        registration: &'a Registration,
    ) -> BoxFuture<'a, Result<Registered, ChainError>> {
        self.inner.register(registration)
    }

    fn certify<'a>(
        &'a self,
        object: ObjectId,
        certificate: &'a ConfirmationCertificate,
        bitmap: &'a [u8],
    ) -> BoxFuture<'a, Result<Certified, ChainError>> {
        Box::pin(async move {
            let with = Certification::new(object, certificate, bitmap);
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(object, with);
            let view = self.inner.wallet().chain().committees(false).await?;
            Ok(Certified { epoch: view.epoch, transaction: String::new() })
        })
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
