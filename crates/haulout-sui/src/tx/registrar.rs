//! Walrus' register and certify on a real chain, for `haulout walrus store` and publishers.

use std::{collections::HashMap, sync::Arc};

use haulout_walrus::{
    BlobName, BoxFuture, Certified, ChainError, ChainErrorKind, ChainReader, Registered, Registrar,
    Registration,
};
use redstuff::{BlobId, messages::ConfirmationCertificate};
use sui_sdk_types::Object;
use tokio::sync::Mutex;

use super::{Certification, Outcome, Request, TxError, Update, Wallet};
use crate::{
    ObjectId,
    chain::{SystemView, blob_state, chain_error},
    object_id::object_id,
    rpc::{Fault, RpcError},
};

/// Bytes of Walrus' unit of price.
const UNIT_BYTES: u64 = 1 << 20;
/// Blobs registered in one transaction: each takes two calls of 1,024 and its own arguments.
const BATCH_MAX: usize = 100;

/// Registers and certifies blobs in the name of a wallet.
#[derive(Debug, Clone)]
pub struct SuiRegistrar {
    wallet: Arc<Wallet>,
    owned: Arc<Mutex<Option<Owned>>>,
}

/// Blob objects of the account, by blob id: listed once, because an account that publishes has thousands.
type Owned = HashMap<BlobId, Vec<ObjectId>>;

impl SuiRegistrar {
    /// In the name of this wallet.
    #[must_use]
    pub fn new(wallet: Arc<Wallet>) -> Self {
        Self { wallet, owned: Arc::default() }
    }

    /// Objects of the account for a blob, as they were when the account was first looked at, or made since.
    async fn owned(&self, blob: &BlobId) -> Result<Vec<ObjectId>, RpcError> {
        let mut owned = self.owned.lock().await;
        if owned.is_none() {
            let account = crate::object_id::address(self.wallet.account());
            let mut by_blob = Owned::new();
            for state in self.wallet.chain().blobs_of(&account).await? {
                by_blob.entry(state.blob).or_default().extend(state.object);
            }
            *owned = Some(by_blob);
        }
        Ok(owned.as_ref().and_then(|owned| owned.get(blob)).cloned().unwrap_or_default())
    }

    /// The wallet.
    #[must_use]
    pub fn wallet(&self) -> &Arc<Wallet> {
        &self.wallet
    }

    /// What storing these blobs takes, FROST.
    ///
    /// # Errors
    /// The prices cannot be read.
    pub async fn price(&self, all: &[Registration]) -> Result<u64, TxError> {
        let view = self.wallet.chain().system(false).await?;
        Ok(all.iter().map(|one| cost(&view, one)).fold(0, u64::saturating_add))
    }

    /// Registers several blobs in as few transactions as it takes. Same order.
    ///
    /// # Errors
    /// As [`Wallet::run`]; those of earlier transactions are registered then.
    pub async fn register_all(&self, all: &[Registration]) -> Result<Vec<Registered>, TxError> {
        let mut registered = Vec::with_capacity(all.len());
        for batch in all.chunks(BATCH_MAX) {
            registered.extend(self.register_batch(batch).await?);
        }
        Ok(registered)
    }

    async fn register_batch(&self, batch: &[Registration]) -> Result<Vec<Registered>, TxError> {
        // A coin is an argument even where storage costs nothing.
        let wal = self.price(batch).await?.max(1);
        let request = Request {
            purpose: register_purpose(batch),
            wal,
            objects: Vec::new(),
            build: &|ptb| batch.iter().try_for_each(|one| ptb.register(one)),
        };
        let outcome = self.wallet.run(&request).await?;
        if let Some(owned) = self.owned.lock().await.as_mut() {
            let made = outcome.created_of("blob", "Blob").filter_map(|blob| blob_state(blob).ok());
            made.for_each(|state| owned.entry(state.blob).or_default().extend(state.object));
        }
        let mut blobs: Vec<&Object> = outcome.created_of("blob", "Blob").collect();
        batch
            .iter()
            .map(|one| {
                let place = blobs.iter().position(|object| {
                    blob_state(object)
                        .is_ok_and(|s| s.blob == one.blob && s.deletable == one.deletable)
                });
                place.and_then(|place| registered(blobs.swap_remove(place))).ok_or_else(|| {
                    TxError::Result {
                        what: request.purpose.clone(),
                        digest: outcome.digest.clone(),
                        missing: "blob object",
                    }
                })
            })
            .collect()
    }

    /// Certifies a blob.
    ///
    /// # Errors
    /// As [`Wallet::run`].
    pub async fn certify_blob(&self, with: &Certification) -> Result<Outcome, TxError> {
        let request = Request {
            purpose: format!("certify blob object {} {}", with.blob, hash(&with.message)),
            wal: 0,
            objects: vec![(with.blob, true)],
            build: &|ptb| ptb.certify(0, with),
        };
        self.wallet.run(&request).await
    }

    /// Certifies an index blob and makes it an archive's new level, both or neither.
    /// `objects` are the archive and the publisher's cap.
    ///
    /// # Errors
    /// As [`Wallet::run`].
    pub async fn certify_and_update(
        &self,
        package: ObjectId,
        (archive, cap): (ObjectId, ObjectId),
        with: &Certification,
        update: &Update,
    ) -> Result<Outcome, TxError> {
        let request = Request {
            purpose: format!(
                "certify blob object {} and update archive {archive} after sequence {}",
                with.blob, update.expected
            ),
            wal: 0,
            objects: vec![(archive, true), (cap, false), (with.blob, true)],
            build: &|ptb| {
                ptb.certify(2, with)?;
                ptb.archive_update(package, (0, 1, 2), update)
            },
        };
        self.wallet.run(&request).await
    }

    /// Extends the storage of certified blobs by `epochs`, all or none. `sizes` are their
    /// encoded lengths, which decide the price; `until` makes the purpose unique: the epoch
    /// that the first of them will last until.
    ///
    /// # Errors
    /// As [`Wallet::run`].
    pub async fn extend(
        &self,
        blobs: &[(ObjectId, u64)],
        epochs: u32,
        until: u32,
    ) -> Result<Outcome, TxError> {
        let view = self.wallet.chain().system(false).await?;
        let wal = blobs
            .iter()
            .map(|(_, size)| storage_cost(&view, *size, epochs))
            .fold(0, u64::saturating_add)
            .max(1);
        let ids: Vec<u8> = blobs.iter().flat_map(|(id, _)| id.0).collect();
        let request = Request {
            purpose: format!(
                "extend {} blobs by {epochs} epochs until {until} ({})",
                blobs.len(),
                hash(&ids)
            ),
            wal,
            objects: blobs.iter().map(|(id, _)| (*id, true)).collect(),
            build: &|ptb| (0..blobs.len()).try_for_each(|place| ptb.extend_blob(place, epochs)),
        };
        self.wallet.run(&request).await
    }
}

/// Short and unique enough to tell purposes apart.
fn hash(bytes: &[u8]) -> String {
    let digest = sui_sdk_types::hash::Hasher::digest(bytes);
    data_encoding::HEXLOWER.encode(&digest.inner()[..8])
}

fn register_purpose(batch: &[Registration]) -> String {
    let one = |r: &Registration| {
        let kind = if r.deletable { "deletable" } else { "permanent" };
        format!("{} for {} epochs, {kind}", r.blob, r.epochs)
    };
    match batch {
        [only] => format!("register blob {}", one(only)),
        _ => {
            let all: Vec<String> = batch.iter().map(one).collect();
            format!("register {} blobs ({})", batch.len(), hash(all.join(";").as_bytes()))
        }
    }
}

fn storage_cost(view: &SystemView, encoded_length: u64, epochs: u32) -> u64 {
    let units = encoded_length.div_ceil(UNIT_BYTES);
    units.saturating_mul(view.storage_price).saturating_mul(u64::from(epochs))
}

fn cost(view: &SystemView, registration: &Registration) -> u64 {
    let units = registration.encoded_length.div_ceil(UNIT_BYTES);
    storage_cost(view, registration.encoded_length, registration.epochs)
        .saturating_add(units.saturating_mul(view.write_price))
}

fn registered(object: &Object) -> Option<Registered> {
    let state = blob_state(object).ok()?;
    Some(Registered {
        object: object_id(object.object_id()),
        epoch: state.registered_epoch,
        end_epoch: state.end_epoch,
        deletable: state.deletable,
        certified_epoch: state.certified_epoch,
    })
}

fn as_chain_error(error: TxError) -> ChainError {
    match error {
        TxError::Rpc(error) => chain_error(error),
        error => {
            let kind = match error.fault() {
                Fault::Unavailable => ChainErrorKind::Unavailable,
                Fault::NotFound => ChainErrorKind::NotFound,
                Fault::Unsupported => ChainErrorKind::Unsupported,
                Fault::Refused => ChainErrorKind::Refused,
                Fault::Untrusted => ChainErrorKind::Untrusted,
            };
            ChainError::new(kind, error.to_string()).because(error)
        }
    }
}

impl Registrar for SuiRegistrar {
    fn existing<'a>(
        &'a self,
        registration: &'a Registration,
    ) -> BoxFuture<'a, Result<Option<Registered>, ChainError>> {
        Box::pin(async move {
            let chain = self.wallet.chain();
            let view = chain.system(false).await.map_err(chain_error)?;
            let until = view.committees.epoch.saturating_add(registration.epochs);
            let mut blobs = Vec::new();
            for object in self.owned(&registration.blob).await.map_err(chain_error)? {
                // As it is now: it may have been certified, extended or burned since.
                blobs.extend(chain.blob(BlobName::Object(object)).await?);
            }
            let fitting = blobs.into_iter().filter(|state| {
                state.blob == registration.blob
                    && state.deletable == registration.deletable
                    && state.end_epoch >= until
            });
            let best = fitting.max_by_key(|state| (state.certified_epoch, state.end_epoch));
            Ok(best.and_then(|state| {
                Some(Registered {
                    object: state.object?,
                    epoch: state.registered_epoch,
                    end_epoch: state.end_epoch,
                    deletable: state.deletable,
                    certified_epoch: state.certified_epoch,
                })
            }))
        })
    }

    fn register<'a>(
        &'a self,
        registration: &'a Registration,
    ) -> BoxFuture<'a, Result<Registered, ChainError>> {
        Box::pin(async move {
            let batch = std::slice::from_ref(registration);
            let mut registered = self.register_batch(batch).await.map_err(as_chain_error)?;
            registered.pop().ok_or_else(|| {
                ChainError::new(ChainErrorKind::Untrusted, "registering made no blob object")
            })
        })
    }

    fn certify<'a>(
        &'a self,
        object: ObjectId,
        certificate: &'a ConfirmationCertificate,
        bitmap: &'a [u8],
    ) -> BoxFuture<'a, Result<Certified, ChainError>> {
        Box::pin(async move {
            let with = Certification::new(object, certificate, bitmap);
            let outcome = self.certify_blob(&with).await.map_err(as_chain_error)?;
            let node = |node: crate::rpc::Node| async move { node.read(object).await };
            let nodes = self.wallet.chain().nodes();
            let blob = nodes.first("read the blob", node).await.map_err(chain_error)?;
            let epoch = blob_state(&blob).ok().and_then(|state| state.certified_epoch);
            let epoch = epoch.ok_or_else(|| {
                let message =
                    format!("blob object {object} is not certified after {}", outcome.digest);
                ChainError::new(ChainErrorKind::Untrusted, message)
            })?;
            Ok(Certified { epoch, transaction: outcome.digest })
        })
    }
}
