//! An archive as a source of paths for an agent: kept up to date, judged by a policy, signed for this
//! host's Nix.

use crate::{Blobs, DepotError, Found, Kind, NarStream, Reader, Registry};
use haulout_nix::{HashPart, KeySet, NarHash, PathInfo, SecretKey, StoreDir};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a state is used before a newer one is asked for.
const FRESH: Duration = Duration::from_secs(60);

/// What an archive may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// Only paths that one of these keys signed, or whose content address fixes their content.
    Signed(KeySet),
    /// Everything: its publisher is believed as the keys in nix.conf are.
    All,
}

impl Policy {
    fn accepts(&self, dir: &StoreDir, info: &PathInfo) -> bool {
        match self {
            Self::All => true,
            Self::Signed(keys) => {
                let fixed =
                    info.content_address_fixes_nar_hash() && info.content_address_holds(dir);
                fixed || info.verified_by(dir, keys).is_some()
            }
        }
    }
}

/// An archive that an agent asks.
pub struct ArchiveSource {
    blobs: Arc<dyn Blobs>,
    registry: Arc<dyn Registry>,
    store_dir: StoreDir,
    policy: Mutex<Arc<Policy>>,
    host_key: Arc<SecretKey>,
    open: Mutex<Option<(Instant, Arc<Reader>)>>,
    /// Held by whoever asks for a newer state.
    refreshing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for ArchiveSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveSource").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl ArchiveSource {
    /// Nothing is read yet. `host_key` signs what was verified; `store_dir` is this machine's.
    #[must_use]
    pub fn new(
        blobs: Arc<dyn Blobs>,
        registry: Arc<dyn Registry>,
        store_dir: StoreDir,
        policy: Policy,
        host_key: Arc<SecretKey>,
    ) -> Self {
        let (refreshing, policy) = (tokio::sync::Mutex::new(()), Mutex::new(Arc::new(policy)));
        Self { blobs, registry, store_dir, policy, host_key, open: Mutex::new(None), refreshing }
    }

    /// Judges by another policy from now on.
    pub fn set_policy(&self, policy: Policy) {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
    }

    /// Opens the newest state at once, so that questions find it open.
    ///
    /// # Errors
    /// When it cannot be read. What was open before goes on serving.
    pub async fn refresh(&self) -> Result<(), DepotError> {
        let _one = self.refreshing.lock().await;
        let known = self.opened().map(|(_, reader)| reader);
        let reader = self.read(known.as_deref()).await?;
        self.keep(Arc::new(reader));
        Ok(())
    }

    fn opened(&self) -> Option<(Instant, Arc<Reader>)> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The archive as last proven. When that is too long ago, or never was, it is read anew; if that
    /// fails the last state goes on serving.
    async fn reader(&self) -> Result<Arc<Reader>, DepotError> {
        let fresh = |(at, _): &(Instant, Arc<Reader>)| at.elapsed() < FRESH;
        if let Some((_, reader)) = self.opened().filter(fresh) {
            return Ok(reader);
        }
        // One asks, the others go on with what is there.
        let _one = match (self.refreshing.try_lock(), self.opened()) {
            (Ok(guard), _) => guard,
            (Err(_), Some((_, reader))) => return Ok(reader),
            (Err(_), None) => self.refreshing.lock().await,
        };
        if let Some((_, reader)) = self.opened().filter(fresh) {
            return Ok(reader);
        }
        let known = self.opened().map(|(_, reader)| reader);
        match self.read(known.as_deref()).await {
            Ok(reader) => {
                let reader = Arc::new(reader);
                self.keep(Arc::clone(&reader));
                Ok(reader)
            }
            Err(error) => {
                let known = known.ok_or(error)?;
                self.keep(Arc::clone(&known));
                Ok(known)
            }
        }
    }

    fn keep(&self, reader: Arc<Reader>) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), reader));
    }

    async fn read(&self, known: Option<&Reader>) -> Result<Reader, DepotError> {
        let state = self.registry.state().await?;
        if state.store_dir != self.store_dir.as_str() {
            let message = format!(
                "the archive is for {}, this machine has {}",
                state.store_dir, self.store_dir
            );
            return Err(DepotError::new(Kind::Refused, message));
        }
        match known {
            // An archive never goes back.
            Some(known) if known.state().sequence > state.sequence => {
                Err(DepotError::new(Kind::Corrupt, "an older state of the archive was given"))
            }
            Some(known) => known.advance(state).await,
            None => Reader::open(Arc::clone(&self.blobs), state).await,
        }
    }

    /// A path that the archive has and the policy allows, with its NAR's whereabouts.
    async fn found(&self, hash: &HashPart) -> Result<Option<(Arc<Reader>, Found)>, DepotError> {
        let reader = self.reader().await?;
        let found = reader.find(hash).await?;
        let policy = Arc::clone(&self.policy.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(found
            .filter(|found| policy.accepts(&self.store_dir, &found.path.info))
            .map(|found| (reader, found)))
    }

    /// What the archive says about a path, with this host's signature; `None` when it has it not, or
    /// may not say so.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub async fn path_info(&self, hash: &HashPart) -> Result<Option<PathInfo>, DepotError> {
        let Some((_, found)) = self.found(hash).await? else { return Ok(None) };
        let mut info = found.path.info;
        info.signatures.push(info.sign(&self.store_dir, &self.host_key));
        info.normalise();
        Ok(Some(info))
    }

    /// The NAR of a path if it has that hash, with its size.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub async fn nar(
        &self,
        hash: &HashPart,
        nar_hash: &NarHash,
    ) -> Result<Option<(u64, NarStream)>, DepotError> {
        match self.found(hash).await? {
            Some((reader, found)) if found.path.info.nar_hash == *nar_hash => {
                Ok(Some((found.path.info.nar_size, reader.nar(&found).await?)))
            }
            _ => Ok(None),
        }
    }
}
