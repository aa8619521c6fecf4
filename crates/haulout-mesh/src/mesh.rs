//! The handle, and the thread behind it.

mod thread;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use haulout_nix::{HashPart, PathInfo};
use haulout_swarm::choose::Ranking;
use haulout_swarm::directory::Directory;
use haulout_swarm::peers::State;
use haulout_swarm::site::{SegmentKey, Standing, Turn};
use haulout_swarm::{Fault, PeerId};
use tokio::sync::{Notify, Semaphore, broadcast, oneshot, watch};

use crate::api::{NarKey, Serve};
use crate::archive::{PROOFS_AT_ONCE, ProofQuestion};
use crate::ask::{self, NarStream, Patience};
use crate::config::MeshConfig;
use crate::error::{RequestError, StartError};
use crate::frames::{self, NAR_TREE_BYTES_MAX, PATH_INFOS_BYTES_MAX, PATH_INFOS_MAX, Request};
use crate::narframe::FrameCache;
use crate::networks::{NetworkRules, Networks};
use crate::pressure::CpuGauge;
use crate::registry::{Peers, Shared, Spread, lock};
use crate::site::SiteStream;
use crate::siteframe::SiteRequest;
use crate::tree::NarTree;
use crate::view::{MeshEvent, PeerView};
use thread::{bind_all, thread_main};

/// Events a slow listener may lag behind before it misses some.
const EVENTS_MAX: usize = 256;

/// The running mesh. Cheap to clone, usable from any thread and any runtime.
///
/// The mesh ends with [`Mesh::shutdown`] or when the last handle is dropped.
#[derive(Clone)]
pub struct Mesh {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    addrs: Vec<SocketAddr>,
    quit: watch::Sender<bool>,
    done: watch::Receiver<bool>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.quit.send_replace(true);
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh")
            .field("id", &self.inner.shared.id)
            .field("addrs", &self.inner.addrs)
            .finish_non_exhaustive()
    }
}

impl Mesh {
    /// Opens the sockets and starts the mesh thread; returns once it listens.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: MeshConfig, serve: Arc<dyn Serve>) -> Result<Self, StartError> {
        let sockets = bind_all(&config.listen)?;
        let networks = match &config.networks {
            Some(networks) => networks.clone(),
            None => {
                let interfaces = config.interfaces.clone();
                Networks::start(NetworkRules { interfaces, ..NetworkRules::default() })
                    .map_err(StartError::Thread)?
            }
        };
        let limits = &config.limits;
        let shared = Arc::new(Shared {
            id: config.identity.id(),
            networks,
            twin: Mutex::default(),
            serve,
            started: Instant::now(),
            endpoints: Mutex::default(),
            runtime: OnceLock::new(),
            server: OnceLock::new(),
            peers: Mutex::new(Peers::default()),
            hints: RwLock::new(Directory::new()),
            events: broadcast::channel(EVENTS_MAX).0,
            wake: Notify::new(),
            network: Notify::new(),
            frames: Arc::new(Semaphore::new(limits.frames)),
            proofs: Semaphore::new(PROOFS_AT_ONCE),
            cache: FrameCache::new(limits.compressed_cache_bytes, limits.compressed_cache_ttl),
            gauge: CpuGauge::default(),
            upload: crate::line::Line::new(config.upload),
            standing: watch::channel(Standing::default()).0,
            homes: Mutex::default(),
            spread: Spread::new(config.identity.id(), limits.full_peers),
            dice: AtomicU64::new(u64::from(std::process::id()) << 32),
            config,
        });
        let (quit, quitting) = watch::channel(false);
        let (finished, done) = watch::channel(false);
        let (ready, started) = oneshot::channel();
        let thread_shared = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("haulout-mesh".to_owned())
            .spawn(move || {
                thread_main(&thread_shared, sockets, ready, quitting);
                finished.send_replace(true);
            })
            .map_err(StartError::Thread)?;
        let addrs = started
            .await
            .unwrap_or_else(|_| Err(StartError::Thread(std::io::ErrorKind::BrokenPipe.into())))?;
        Ok(Self { inner: Arc::new(Inner { shared, addrs, quit, done }) })
    }

    /// This machine's own key.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.inner.shared.id
    }

    /// Everybody known, connected ones first.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerView> {
        self.inner.shared.views()
    }

    /// Connected, usable peers whose announced holdings contain this path, best first. From memory, about a microsecond;
    /// a hint, not a promise.
    #[must_use]
    pub fn who_has(&self, hash: &HashPart) -> Vec<PeerId> {
        self.candidates(hash, 0).peers().collect()
    }

    /// Whether some peers have told only a part of their holdings, so that [`Mesh::locate`] may find what no holdings name:
    /// in a large network. From memory.
    #[must_use]
    pub fn knows_in_part(&self) -> bool {
        self.inner.shared.knows_in_part()
    }

    /// Asks those who should know who holds this path. [`Mesh::who_has`] knows more afterwards, for some minutes. At most
    /// 150 ms; usually a round trip.
    pub async fn locate(&self, hash: &HashPart) {
        crate::locate::locate(&self.inner.shared, hash.prefix()).await;
    }

    /// Whether a peer is said to hold this path by others, and has never announced it here: then its "no" is no fault.
    #[must_use]
    pub fn is_hearsay(&self, peer: &PeerId, hash: &HashPart) -> bool {
        self.inner.shared.is_hearsay(peer, hash.prefix())
    }

    /// The same with the reasons, ranked for an answer of `bytes` (0: a question).
    #[must_use]
    pub fn candidates(&self, hash: &HashPart, bytes: u64) -> Ranking {
        self.inner.shared.candidates(hash.prefix(), bytes)
    }

    /// As [`Mesh::who_has`], for fetching instead of asking: without peers that failed so often in a row that they rest for
    /// longer than `patience`. A "no" to a question may stick in Nix for an hour, so there they stay a last resort; a NAR
    /// that cannot be had is simply fetched elsewhere.
    #[must_use]
    pub fn who_sends(&self, hash: &HashPart, patience: Duration) -> Vec<PeerId> {
        let latest = self.inner.shared.now() + patience;
        let rests = |state: Option<State>| matches!(state, Some(State::BackingOff { until, .. }) if until > latest);
        let candidates = self.candidates(hash, 0).candidates;
        candidates.into_iter().filter(|one| !rests(one.last_resort)).map(|one| one.peer).collect()
    }

    /// How long to wait for a first byte before asking a second peer, from what was measured.
    #[must_use]
    pub fn hedge_delay(&self) -> Duration {
        self.inner.shared.hedge_delay()
    }

    /// Connected, usable peers that announce nothing: the only ones worth asking without a hint.
    #[must_use]
    pub fn unannounced(&self) -> Vec<PeerId> {
        self.inner.shared.unannounced()
    }

    /// Asks one peer for the path info of `hash` and those of its closure, at most `max` in all. The first is the asked one.
    /// Well-formed, not verified: check the signatures.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn path_infos(
        &self,
        peer: &PeerId,
        hash: &HashPart,
        max: usize,
        deadline: Duration,
    ) -> Result<Vec<PathInfo>, RequestError> {
        self.path_infos_patiently(peer, hash, max, Patience::until(deadline)).await
    }

    /// The same with two clocks: a peer from which nothing at all comes is given up sooner than one that is alive and
    /// merely slow.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn path_infos_patiently(
        &self,
        peer: &PeerId,
        hash: &HashPart,
        max: usize,
        patience: Patience,
    ) -> Result<Vec<PathInfo>, RequestError> {
        let max = u16::try_from(max).unwrap_or(u16::MAX).clamp(1, PATH_INFOS_MAX);
        let request = Request::PathInfos { hash: *hash, max };
        let shared = &self.inner.shared;
        let body = ask::short(shared, peer, request, PATH_INFOS_BYTES_MAX, patience).await;
        let body = self.or_denied(body, peer, hash)?;
        let infos = frames::decode_path_infos(&body, hash, max)
            .map_err(|error| RequestError::Protocol(error.to_string()))?;
        shared.described(peer, infos.iter().map(|info| info.path.hash_part().prefix()));
        Ok(infos)
    }

    /// Who says no to a path is not held to have it by hearsay any more.
    fn or_denied<T>(
        &self,
        answer: Result<T, RequestError>,
        peer: &PeerId,
        hash: &HashPart,
    ) -> Result<T, RequestError> {
        if matches!(answer, Err(RequestError::No)) {
            self.inner.shared.denied(peer, hash.prefix());
        }
        answer
    }

    /// Asks one peer for the BLAKE3 tree of a NAR. Its groups fit its root; whether the root is the NAR's is not known yet.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn nar_tree(
        &self,
        peer: &PeerId,
        key: &NarKey,
        deadline: Duration,
    ) -> Result<NarTree, RequestError> {
        let body = ask::short(
            &self.inner.shared,
            peer,
            Request::NarTree(*key),
            NAR_TREE_BYTES_MAX,
            Patience::until(deadline),
        )
        .await?;
        frames::decode_nar_tree(&body, key.nar_size)
            .map_err(|error| RequestError::Protocol(error.to_string()))
    }

    /// Asks one peer for a byte range of a NAR; returns when the peer has said yes. Bytes are not verified.
    /// Dropping the stream stops the transfer.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn nar_range(
        &self,
        peer: &PeerId,
        key: &NarKey,
        range: Range<u64>,
        deadline: Duration,
    ) -> Result<NarStream, RequestError> {
        let len = range.end.saturating_sub(range.start);
        let answer = ask::range(&self.inner.shared, peer, *key, range.start, len, deadline).await;
        self.or_denied(answer, peer, &key.path)
    }

    /// Asks one peer for a segment of a site object, which it relays or fetches; returns when it has begun to answer.
    /// Bytes are not verified. Dropping the stream stops it.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn site(
        &self,
        peer: &PeerId,
        request: SiteRequest,
        deadline: Duration,
    ) -> Result<SiteStream, RequestError> {
        crate::site::ask(&self.inner.shared, peer, request, deadline).await
    }

    /// Asks one peer for the newest proof of an archive. Unverified.
    ///
    /// # Errors
    /// [`RequestError`]; [`RequestError::No`] when it has nothing newer.
    pub async fn archive_proof(
        &self,
        peer: &PeerId,
        question: ProofQuestion,
        deadline: Duration,
    ) -> Result<Bytes, RequestError> {
        crate::archive::ask(&self.inner.shared, peer, question, deadline).await
    }

    /// Says from now on, to everybody, whether this machine fetches site objects for others, and from which places
    /// ([`haulout_swarm::site::OutsideId::tag`]; at most [`haulout_swarm::site::OUTSIDES_MAX`]). At first it does not.
    pub fn set_standing(&self, willing: bool, outsides: &[u32]) {
        self.inner.shared.set_standing(willing, outsides);
    }

    /// The first `most` agents whose turn it is to fetch this segment from a place outside (its tag), the home first; this
    /// machine is among them if it is willing.
    #[must_use]
    pub fn homes(&self, segment: &SegmentKey, outside: u32, most: usize) -> Vec<PeerId> {
        self.inner.shared.homes(segment, outside, most)
    }

    /// How many others named this place (its tag) in their standings, whether they fetch for others or not: as many may want
    /// what comes from there.
    #[must_use]
    pub fn others(&self, outside: u32) -> usize {
        self.inner.shared.others(outside)
    }

    /// Marks those of a ranking that were here before this agent came.
    #[must_use]
    pub fn turns(&self, ranking: &[PeerId]) -> Vec<Turn> {
        self.inner.shared.turns(ranking)
    }

    /// What a peer said about fetching for others; `None` before it said anything.
    #[must_use]
    pub fn standing_of(&self, peer: &PeerId) -> Option<Standing> {
        self.inner.shared.standing_of(peer)
    }

    /// Reports what a peer did wrong; it may be banned for it.
    pub fn blame(&self, peer: &PeerId, fault: Fault) {
        self.inner.shared.blame(peer, fault, None);
    }

    /// What happens from now on. A slow reader misses events rather than holding anybody up.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<MeshEvent> {
        self.inner.shared.events.subscribe()
    }

    /// The address of another machine that was seen with this machine's key, if any.
    #[must_use]
    pub fn twin(&self) -> Option<IpAddr> {
        *lock(&self.inner.shared.twin)
    }

    /// The UDP addresses in use.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.inner.addrs.clone()
    }

    /// Says goodbye to everybody and ends the mesh thread; waits at most about a second.
    pub async fn shutdown(&self) {
        self.inner.quit.send_replace(true);
        let mut done = self.inner.done.clone();
        let _ = done.wait_for(|done| *done).await;
    }
}
