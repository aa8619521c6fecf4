//! The resolver as the gateway knows it.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use haulout_gateway::api::{AgentStatus, PeersReport, WhyReport};
use haulout_gateway::{BlobBody, BlobError, Client, NarBody, Substituter};
use haulout_mesh::NarKey;
use haulout_nix::{HashPart, NarHash, PathInfo, StoreDir, StorePath};
use redstuff::BlobId;

use crate::logs;
use crate::report;
use crate::resolver::Resolver;

/// Largest listing that is made, in bytes of NAR layout: a path with 100,000
/// files has about 10 MB of it.
const LISTING_MAX: usize = 16 << 20;

impl Substituter for Resolver {
    fn store_dir(&self) -> &StoreDir {
        &self.inner.store.store_dir
    }

    async fn path_info(&self, hash: HashPart) -> Option<Arc<PathInfo>> {
        Self::path_info(self, hash).await
    }

    async fn nar(&self, path: HashPart, nar_hash: NarHash, from: u64) -> Option<NarBody> {
        Self::nar(self, path, nar_hash, from).await
    }

    async fn path_info_for(&self, client: Client, hash: HashPart) -> Option<Arc<PathInfo>> {
        Self::path_info_for(self, client, hash).await
    }

    async fn nar_for(
        &self,
        client: Client,
        path: HashPart,
        nar_hash: NarHash,
        from: u64,
    ) -> Option<NarBody> {
        Self::nar_for(self, client, path, nar_hash, from).await
    }

    async fn nar_size(&self, path: HashPart, nar_hash: NarHash) -> Option<u64> {
        Some(self.origin(path, Some(nar_hash)).await?.info().nar_size)
    }

    async fn listing(&self, path: HashPart) -> Option<Bytes> {
        let inner = Arc::clone(&self.inner);
        // Only for what the own store holds: nobody should download a NAR
        // for its table of contents.
        let make = move || {
            let info = inner.local.info(&path)?;
            inner.trust.load().judge(&info).ok()?;
            let key = NarKey { path, nar_hash: info.nar_hash, nar_size: info.nar_size };
            let layout = inner.local.layout(&key).ok()?;
            if layout.memory_bytes() > LISTING_MAX {
                return None;
            }
            serde_json::to_vec(&layout.listing()).ok().map(Bytes::from)
        };
        tokio::task::spawn_blocking(make).await.ok()?
    }

    async fn build_log(&self, name: &str) -> Option<Bytes> {
        let named: StorePath = name.parse().ok()?;
        let inner = Arc::clone(&self.inner);
        let read = move || {
            let derivation = if named.name().ends_with(".drv") {
                named
            } else {
                // Logs are kept by what was built, and Nix may ask by what came of it.
                let info = inner.local.info(&named.hash_part())?;
                info.deriver.clone().filter(|_| info.path == named)?
            };
            logs::read(&inner.store, &derivation)
        };
        tokio::task::spawn_blocking(read).await.ok()?
    }

    async fn blob(&self, id: [u8; 32]) -> Result<BlobBody, BlobError> {
        match self.walrus() {
            Some(walrus) => walrus.body(BlobId(id)).await,
            None => Err(BlobError::no_network()),
        }
    }

    async fn status(&self) -> AgentStatus {
        let about = self.inner.about.lock().unwrap_or_else(PoisonError::into_inner).clone();
        report::status(&self.inner, about)
    }

    async fn peers(&self) -> PeersReport {
        report::peers(&self.inner)
    }

    async fn why(&self, path: HashPart) -> WhyReport {
        report::why(self, path).await
    }
}
