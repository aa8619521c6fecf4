//! Blobs are stored, and paid for longer.

use super::{OnChain, Publisher, chain_failed, kind_of};
use crate::create::failed;
use haulout_depot::{BoxFuture, Certify, DepotError, Kind, Stored};
use haulout_sui::{
    ObjectId,
    tx::{Certification, SuiRegistrar},
};
use haulout_walrus::{
    Certified, ChainError, ChainReader, Registered, Registrar, Registration, StoreOptions,
    WriteError,
};
use redstuff::{BlobId, EncodedBlob, ShardCount, messages::ConfirmationCertificate};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

impl OnChain {
    /// Stores a file for so many epochs, unless an earlier run has.
    pub(super) async fn store_file(
        &self,
        file: &Path,
        epochs: u32,
        certify: Certify,
    ) -> Result<Stored, DepotError> {
        let publisher = self.publisher()?;
        let shards = self.shards().await?;
        let encoded = encode(shards, file.to_owned()).await?;
        let registration = registration(shards, &encoded, epochs)?;
        let blob = registration.blob;
        // What an earlier run has certified is there already.
        let existing = publisher.registrar.existing(&registration).await.map_err(chain_failed)?;
        if let Some(known) = existing.filter(|known| known.certified_epoch.is_some()) {
            return Ok(Stored { blob, object: known.object.0, end_epoch: known.end_epoch });
        }
        let journal = journal(publisher, certify, &blob)?;
        let options = StoreOptions { journal: journal.clone(), ..StoreOptions::permanent(epochs) };
        let later = Later { inner: &publisher.registrar, waiting: &self.waiting };
        let registrar: &dyn Registrar = match certify {
            Certify::Now => &publisher.registrar,
            Certify::WithUpdate => &later,
        };
        let stored = self.client.store(registrar, Arc::new(encoded), &options).await;
        let registered = stored.map_err(|error| not_stored(&blob, error))?.registered;
        if let Some(journal) = journal {
            // Done: the chain knows the blob now, and `existing` finds it there.
            let _ = std::fs::remove_file(journal);
        }
        Ok(Stored { blob, object: registered.object.0, end_epoch: registered.end_epoch })
    }

    /// Pays for a blob until `end_epoch`; gives when it ends now.
    pub(super) async fn extend_blob(
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
}

async fn encode(shards: ShardCount, path: PathBuf) -> Result<EncodedBlob, DepotError> {
    let encoding = move || {
        let failed =
            |kind, doing| DepotError::new(kind, format!("cannot {doing} {}", path.display()));
        let bytes =
            std::fs::read(&path).map_err(|error| failed(Kind::Local, "read").because(error))?;
        shards.encode(bytes).map_err(|error| failed(Kind::Refused, "encode").because(error))
    };
    tokio::task::spawn_blocking(encoding)
        .await
        .map_err(|error| DepotError::new(Kind::Local, "encoding ended early").because(error))?
}

fn registration(
    shards: ShardCount,
    encoded: &EncodedBlob,
    epochs: u32,
) -> Result<Registration, DepotError> {
    let metadata = encoded.metadata();
    let unencoded_length = metadata.unencoded_length();
    let encoded_length = shards
        .encoded_length(unencoded_length)
        .map_err(|error| DepotError::new(Kind::Refused, "the blob is too large").because(error))?;
    Ok(Registration {
        blob: *metadata.id(),
        root_hash: *metadata.root_hash(),
        unencoded_length,
        encoded_length,
        epochs,
        deletable: false,
    })
}

/// Where is kept what is under way. A certificate that waits for its update is only kept in memory, so
/// there is nothing to go on from.
fn journal(
    publisher: &Publisher,
    certify: Certify,
    blob: &BlobId,
) -> Result<Option<PathBuf>, DepotError> {
    let (Certify::Now, Some(directory)) = (certify, &publisher.journals) else { return Ok(None) };
    std::fs::create_dir_all(directory).map_err(|error| {
        DepotError::new(Kind::Local, format!("cannot make {}", directory.display())).because(error)
    })?;
    Ok(Some(directory.join(format!("{blob}.journal"))))
}

fn not_stored(blob: &BlobId, error: WriteError) -> DepotError {
    let kind = match &error {
        WriteError::Chain { source, .. } => kind_of(source.kind),
        WriteError::TooLarge(_) | WriteError::OtherNetwork { .. } => Kind::Refused,
        WriteError::Journal(_) | WriteError::Worker => Kind::Local,
        _ => Kind::Unavailable,
    };
    DepotError::new(kind, format!("cannot store blob {blob}")).because(error)
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
