//! Walrus' committees and blobs, read from full nodes, for `haulout-walrus`.
//!
//! Without [proofs](SuiChain::with_proofs) full nodes are believed. A wrong committee can only
//! stall: blobs are checked against their ids, nodes against the keys in the committee, and
//! certificates by the contract.

mod memory;
mod source;
mod view;

use std::{
    fmt,
    path::Path,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use haulout_walrus::{
    BlobName, BlobState, BoxFuture, ChainError, ChainErrorKind, ChainReader,
    committee::CommitteeView,
};
use sui_sdk_types::{Address, Object};
use tokio::sync::Mutex;

use memory::Memory;
use source::Source;
pub use view::SystemView;
use view::read_view;

use crate::{
    Network, ObjectId,
    prover::Prover,
    rpc::{Fault, Node, Nodes, RpcError},
    walrus_types::{Blob, SharedBlob, decode},
};

/// A view is read anew after this long at the latest.
const VIEW_AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// The same once the clock says that the epoch may have changed, and while shards are moving (hours on mainnet): those who
/// read blobs meanwhile ask for the committees with every sliver.
const CHANGING_AGE_MAX: Duration = Duration::from_secs(30);
/// `refresh` reads anew, but not more often than this.
const REFRESH_MIN: Duration = Duration::from_secs(2);
/// While no full node answers, the last view is used, and they are asked again this often. Committees hold for
/// two weeks, and a wrong one can only stall.
const RETRY: Duration = Duration::from_secs(30);

/// Walrus on a Sui network.
pub struct SuiChain {
    nodes: Nodes,
    network: Network,
    /// Proves what is read; `None`: full nodes are believed.
    prover: Option<Arc<Prover>>,
    /// Whose blobs can be found by blob id.
    owner: Option<Address>,
    cache: Mutex<Option<Cached>>,
    /// Where committees are kept between runs, if anywhere.
    memory: Option<Memory>,
}

/// The last view.
struct Cached {
    read: Instant,
    /// When reading it anew failed last.
    failed: Option<Instant>,
    view: SystemView,
}

impl fmt::Debug for SuiChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SuiChain").field("network", &self.network.name).finish()
    }
}

impl SuiChain {
    /// Prepares to read; nothing is sent yet.
    #[must_use]
    pub fn new(network: &Network) -> Self {
        Self {
            nodes: Nodes::new(network),
            network: network.clone(),
            prover: None,
            owner: None,
            cache: Mutex::new(None),
            memory: None,
        }
    }

    /// Keeps the committees below a state directory, for a start at which no full node answers: storage
    /// nodes and neighbours can be read from all the same.
    #[must_use]
    pub fn with_memory(mut self, state: &Path) -> Self {
        self.memory = Some(Memory::new(state, self.network.system_object));
        self
    }

    /// Believes only what is proven: committees, keys, addresses and prices hang on the
    /// trust anchor then, at three requests for each storage node and reading.
    #[must_use]
    pub fn with_proofs(mut self, prover: Arc<Prover>) -> Self {
        self.prover = Some(prover);
        self
    }

    /// Also finds the blobs of this account by their blob id.
    #[must_use]
    pub fn with_owner(mut self, owner: Address) -> Self {
        self.owner = Some(owner);
        self
    }

    /// The full nodes.
    #[must_use]
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// System, prices and committees; from memory if that is new enough.
    ///
    /// # Errors
    /// No full node gave a usable answer.
    pub async fn system(&self, refresh: bool) -> Result<SystemView, RpcError> {
        let mut cache = self.cache.lock().await;
        if let Some(Cached { read, failed, view }) = cache.as_ref() {
            let age_max = match (refresh, view.may_have_changed()) {
                (true, _) => REFRESH_MIN,
                (false, true) => CHANGING_AGE_MAX,
                (false, false) => VIEW_AGE_MAX,
            };
            let is_new = read.elapsed() < age_max;
            if is_new || failed.is_some_and(|failed| failed.elapsed() < RETRY) {
                return Ok(view.clone());
            }
        }
        let (system, staking) = (self.network.system_object, self.network.staking_object);
        let prover = self.prover.as_ref();
        let read = |node: Node| async move {
            read_view(&Source { node: &node, prover }, system, staking).await
        };
        match (self.nodes.first("read Walrus' committee", read).await, cache.as_mut()) {
            (Ok(view), _) => {
                *cache = Some(Cached { read: Instant::now(), failed: None, view: view.clone() });
                Ok(view)
            }
            (Err(error), Some(cached)) if error.fault == Fault::Unavailable => {
                tracing::debug!(%error, "an older committee is used");
                cached.failed = Some(Instant::now());
                Ok(cached.view.clone())
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The committees; those of an earlier run while no full node has answered yet.
    async fn committees_or_kept(&self, refresh: bool) -> Result<CommitteeView, RpcError> {
        let Some(memory) = &self.memory else {
            return self.system(refresh).await.map(|view| view.committees);
        };
        let failed = || memory.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed().is_some_and(|failed| failed.elapsed() < RETRY)
            && let Some(kept) = memory.load()
        {
            return Ok(kept);
        }
        match self.system(refresh).await {
            Ok(view) => {
                *failed() = None;
                memory.keep(&view.committees);
                Ok(view.committees)
            }
            Err(error) if error.fault == Fault::Unavailable => {
                let kept = memory.load().ok_or(error)?;
                tracing::info!(
                    epoch = kept.epoch,
                    "no full node answers: the kept committee is used"
                );
                *failed() = Some(Instant::now());
                Ok(kept)
            }
            Err(error) => Err(error),
        }
    }

    async fn blob_object(&self, id: ObjectId) -> Result<Option<BlobState>, RpcError> {
        let read = |node: Node| async move {
            match node.read(id).await {
                Ok(object) => blob_state(&object)
                    .map(Some)
                    .map_err(|reason| RpcError::new(Fault::Untrusted, node.url(), reason)),
                Err(error) if error.fault == Fault::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        };
        self.nodes.first("read the blob object", read).await
    }

    /// The blobs of an account, as states.
    ///
    /// # Errors
    /// No full node gave a usable answer.
    pub async fn blobs_of(&self, owner: &Address) -> Result<Vec<BlobState>, RpcError> {
        let view = self.system(false).await?;
        let type_ = format!("{}::blob::Blob", view.type_package);
        let list = |node: Node| {
            let type_ = type_.clone();
            async move { node.owned(owner, &type_).await }
        };
        let owned = self.nodes.first("list the account's blobs", list).await?;
        Ok(owned.iter().filter_map(|object| blob_state(&object.0).ok()).collect())
    }
}

/// What a `Blob`, or the `SharedBlob` round one, says.
pub(crate) fn blob_state(object: &Object) -> Result<BlobState, String> {
    let value = object.as_struct().ok_or("a package, not a blob")?;
    let tag = value.object_type();
    let blob: Blob = match (tag.module().as_str(), tag.name().as_str()) {
        ("blob", "Blob") => decode("blob", value.contents()),
        ("shared_blob", "SharedBlob") => {
            decode("shared blob", value.contents()).map(|shared: SharedBlob| shared.blob)
        }
        _ => return Err(format!("an object of type {tag}, not a blob")),
    }
    .map_err(|error| error.to_string())?;
    Ok(BlobState {
        blob: blob.blob_id,
        object: Some(blob.id),
        size: blob.size,
        registered_epoch: blob.registered_epoch,
        certified_epoch: blob.certified_epoch,
        end_epoch: blob.storage.end_epoch,
        deletable: blob.deletable,
    })
}

/// As the Walrus client sees it.
pub(crate) fn chain_error(error: RpcError) -> ChainError {
    let kind = match error.fault {
        Fault::Unavailable => ChainErrorKind::Unavailable,
        Fault::NotFound => ChainErrorKind::NotFound,
        Fault::Unsupported => ChainErrorKind::Unsupported,
        Fault::Refused => ChainErrorKind::Refused,
        Fault::Untrusted => ChainErrorKind::Untrusted,
    };
    ChainError::new(kind, error.to_string())
}

impl ChainReader for SuiChain {
    fn committees(&self, refresh: bool) -> BoxFuture<'_, Result<CommitteeView, ChainError>> {
        Box::pin(async move { self.committees_or_kept(refresh).await.map_err(chain_error) })
    }

    fn blob(&self, name: BlobName) -> BoxFuture<'_, Result<Option<BlobState>, ChainError>> {
        Box::pin(async move {
            match (name, self.owner) {
                (BlobName::Object(id), _) => self.blob_object(id).await.map_err(chain_error),
                (BlobName::Id(id), Some(owner)) => {
                    let blobs = self.blobs_of(&owner).await.map_err(chain_error)?;
                    let longest = blobs.into_iter().filter(|state| state.blob == id);
                    Ok(longest
                        .max_by_key(|state| (state.certified_epoch.is_some(), state.end_epoch)))
                }
                (BlobName::Id(_), None) => Err(ChainError::new(
                    ChainErrorKind::Unsupported,
                    "Sui has no index of blobs by blob id: ask the storage nodes, or name the blob \
                     by its object id",
                )),
            }
        })
    }
}

#[cfg(test)]
mod tests;
