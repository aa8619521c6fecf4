//! What the gateway asks of the rest of the agent.

use std::{
    fmt,
    future::Future,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use futures_util::stream::{BoxStream, Stream, StreamExt};
use haulout_nix::{HashPart, NarHash, PathInfo, StoreDir};

use crate::api::{AgentState, AgentStatus, PeersReport, WhyReport};
use crate::blobs::{BlobBody, BlobError, BlobErrorKind};

/// Why a NAR stream cannot be continued. The gateway cuts the HTTP connection, Nix goes to its next
/// substituter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("NAR stream cut: {reason}")]
pub struct Cut {
    /// One clause for the log, such as "no source left".
    pub reason: String,
}

impl Cut {
    /// A cut with its reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// A NAR on its way to Nix.
pub struct NarBody {
    /// Bytes of the **whole** NAR (its NarSize), whatever offset was asked for.
    pub size: u64,
    /// The bytes from the asked offset to the end, exactly `size - from` of them, in pieces of any
    /// size (empty ones are skipped). An `Err` or an early end cuts the connection; nothing is sent
    /// after it. Dropping the stream means that the client went away.
    pub stream: BoxStream<'static, Result<Bytes, Cut>>,
}

impl NarBody {
    /// A body of `size` whole-NAR bytes from a stream.
    pub fn new(size: u64, stream: impl Stream<Item = Result<Bytes, Cut>> + Send + 'static) -> Self {
        Self { size, stream: stream.boxed() }
    }
}

impl fmt::Debug for NarBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NarBody").field("size", &self.size).finish_non_exhaustive()
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// The Nix of this machine.
    OwnNix,
    /// A machine without an agent, through the door.
    Guest,
    /// Another agent, which has this one among its caches.
    Agent,
}

/// The source of every answer the gateway gives.
///
/// Everything returned is already verified. `None` is "no" and becomes a 404: there is no error,
/// because Nix must never see one. The methods run on the gateway's runtime: they must not block. A
/// panic inside is caught, counted and becomes a 404 or a cut connection. Futures are dropped when
/// the client goes away.
pub trait Substituter: Send + Sync + 'static {
    /// The logical store directory that `nix-cache-info` states and narinfos are written for.
    fn store_dir(&self) -> &StoreDir;

    /// The verified description of a path, within the agent's time budget.
    fn path_info(&self, hash: HashPart) -> impl Future<Output = Option<Arc<PathInfo>>> + Send;

    /// The NAR of `path` with that hash, from byte `from` (0 = all of it; the gateway passes `from`
    /// only when it is less than the size where it could find that out, otherwise an empty stream
    /// is the right answer).
    ///
    /// Answer `Some` only when the first bytes are at hand: until then "no" costs Nix nothing,
    /// afterwards a cut.
    fn nar(
        &self,
        path: HashPart,
        nar_hash: NarHash,
        from: u64,
    ) -> impl Future<Output = Option<NarBody>> + Send;

    /// [`Substituter::path_info`] for somebody else than this machine's Nix, where that makes a
    /// difference.
    fn path_info_for(
        &self,
        client: Client,
        hash: HashPart,
    ) -> impl Future<Output = Option<Arc<PathInfo>>> + Send {
        let _ = client;
        self.path_info(hash)
    }

    /// [`Substituter::nar`] for somebody else than this machine's Nix, where that makes a
    /// difference.
    fn nar_for(
        &self,
        client: Client,
        path: HashPart,
        nar_hash: NarHash,
        from: u64,
    ) -> impl Future<Output = Option<NarBody>> + Send {
        let _ = client;
        self.nar(path, nar_hash, from)
    }

    /// Size of the NAR if it could be served, without starting a transfer (HEAD, range checks).
    fn nar_size(
        &self,
        path: HashPart,
        nar_hash: NarHash,
    ) -> impl Future<Output = Option<u64>> + Send {
        async move {
            let info = self.path_info(path).await?;
            (info.nar_hash == nar_hash).then_some(info.nar_size)
        }
    }

    /// The `.ls` listing of a path, JSON as Nix writes it.
    fn listing(&self, path: HashPart) -> impl Future<Output = Option<Bytes>> + Send {
        let _ = path;
        async { None }
    }

    /// The build log for a `.drv` or output base name (already checked to be a well-formed base
    /// name), as plain text.
    fn build_log(&self, name: &str) -> impl Future<Output = Option<Bytes>> + Send {
        let _ = name;
        async { None }
    }

    /// A blob of the Walrus network that this agent reads from, by its id. Errors are shown: see [`crate::BlobErrorKind`].
    fn blob(&self, id: [u8; 32]) -> impl Future<Output = Result<BlobBody, BlobError>> + Send {
        let _ = id;
        async { Err(BlobError::no_network()) }
    }

    /// The agent's state. The gateway overwrites `counters.http` and, when empty, `http_listen`.
    fn status(&self) -> impl Future<Output = AgentStatus> + Send;

    /// The peers known.
    fn peers(&self) -> impl Future<Output = PeersReport> + Send;

    /// What Nix would be told about a path and why.
    fn why(&self, path: HashPart) -> impl Future<Output = WhyReport> + Send;
}

/// Stands in for a substituter that is still starting: "no" to everything until
/// [`LateSubstituter::set`] is called.
///
/// Nix remembers a refused connection far worse than a 404, so the port opens before the store
/// database is read.
pub struct LateSubstituter<S> {
    store_dir: StoreDir,
    inner: OnceLock<Arc<S>>,
}

impl<S> LateSubstituter<S> {
    /// Nothing yet; `store_dir` is what `nix-cache-info` says from the first moment on.
    pub fn new(store_dir: StoreDir) -> Self {
        Self { store_dir, inner: OnceLock::new() }
    }

    /// From now on the real one answers. A second call changes nothing and returns `false`.
    pub fn set(&self, substituter: Arc<S>) -> bool {
        self.inner.set(substituter).is_ok()
    }

    /// The real one, once it is there.
    pub fn get(&self) -> Option<&Arc<S>> {
        self.inner.get()
    }
}

impl<S: Substituter> Substituter for LateSubstituter<S> {
    fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    async fn path_info(&self, hash: HashPart) -> Option<Arc<PathInfo>> {
        self.inner.get()?.path_info(hash).await
    }

    async fn nar(&self, path: HashPart, nar_hash: NarHash, from: u64) -> Option<NarBody> {
        self.inner.get()?.nar(path, nar_hash, from).await
    }

    async fn path_info_for(&self, client: Client, hash: HashPart) -> Option<Arc<PathInfo>> {
        self.inner.get()?.path_info_for(client, hash).await
    }

    async fn nar_for(
        &self,
        client: Client,
        path: HashPart,
        nar_hash: NarHash,
        from: u64,
    ) -> Option<NarBody> {
        self.inner.get()?.nar_for(client, path, nar_hash, from).await
    }

    async fn nar_size(&self, path: HashPart, nar_hash: NarHash) -> Option<u64> {
        self.inner.get()?.nar_size(path, nar_hash).await
    }

    async fn listing(&self, path: HashPart) -> Option<Bytes> {
        self.inner.get()?.listing(path).await
    }

    async fn build_log(&self, name: &str) -> Option<Bytes> {
        self.inner.get()?.build_log(name).await
    }

    async fn blob(&self, id: [u8; 32]) -> Result<BlobBody, BlobError> {
        match self.inner.get() {
            Some(inner) => inner.blob(id).await,
            None => Err(BlobError {
                kind: BlobErrorKind::Unavailable,
                text: "the agent is still starting".to_owned(),
                hint: Some("ask again in a moment".to_owned()),
            }),
        }
    }

    async fn status(&self) -> AgentStatus {
        match self.inner.get() {
            Some(inner) => inner.status().await,
            None => AgentStatus {
                version: env!("CARGO_PKG_VERSION").into(),
                pid: std::process::id(),
                state: AgentState::Starting,
                store: crate::api::StoreReport {
                    dir: self.store_dir.as_str().into(),
                    ..Default::default()
                },
                ..Default::default()
            },
        }
    }

    async fn peers(&self) -> PeersReport {
        match self.inner.get() {
            Some(inner) => inner.peers().await,
            None => PeersReport::default(),
        }
    }

    async fn why(&self, path: HashPart) -> WhyReport {
        match self.inner.get() {
            Some(inner) => inner.why(path).await,
            None => WhyReport {
                path: path.to_string(),
                summary: "the agent is still starting".into(),
                ..Default::default()
            },
        }
    }
}
