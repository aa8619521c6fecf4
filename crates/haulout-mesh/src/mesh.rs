//! The handle, and the thread behind it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::{Duration, Instant};

use haulout_nix::{HashPart, PathInfo};
use haulout_swarm::choose::Ranking;
use haulout_swarm::directory::Directory;
use haulout_swarm::{Fault, PeerId};
use quinn::{Endpoint, TokioRuntime, VarInt};
use tokio::sync::{Notify, Semaphore, broadcast, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until, timeout};

use crate::api::{NarKey, Serve};
use crate::ask::{self, NarStream};
use crate::config::{MeshConfig, StaticPeer};
use crate::discovery::Discovery;
use crate::error::{RequestError, StartError};
use crate::frames::{self, NAR_TREE_BYTES_MAX, PATH_INFOS_BYTES_MAX, PATH_INFOS_MAX, Request};
use crate::narframe::FrameCache;
use crate::pressure::CpuGauge;
use crate::registry::{Dialled, Peers, Shared, code, lock};
use crate::session;
use crate::transport::{self, SILENT_AFTER, SOCKET_BUFFER};
use crate::tree::NarTree;
use crate::view::{MeshEvent, PeerView};

/// Sockets a mesh listens on at most.
const LISTEN_MAX: usize = 8;
/// Events a slow listener may lag behind before it misses some.
const EVENTS_MAX: usize = 256;
/// How often connections are looked at for silence, and caches for age.
const TICK: Duration = Duration::from_secs(1);
/// How long connections may take to close at shutdown.
const GOODBYE: Duration = Duration::from_millis(500);
/// Threads that are not needed end after this, and their stacks and contexts with them.
const BLOCKING_KEEP_ALIVE: Duration = Duration::from_secs(5);
/// First and longest pause between dials of a configured address whose key is not known.
const ANCHOR_PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

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
        let limits = &config.limits;
        let shared = Arc::new(Shared {
            id: config.identity.id(),
            serve,
            started: Instant::now(),
            endpoints: Mutex::default(),
            runtime: OnceLock::new(),
            peers: Mutex::new(Peers::default()),
            hints: RwLock::new(Directory::new()),
            events: broadcast::channel(EVENTS_MAX).0,
            wake: Notify::new(),
            frames: Arc::new(Semaphore::new(limits.frames)),
            cache: FrameCache::new(limits.compressed_cache_bytes, limits.compressed_cache_ttl),
            gauge: CpuGauge::default(),
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

    /// The same with the reasons, ranked for an answer of `bytes` (0: a question).
    #[must_use]
    pub fn candidates(&self, hash: &HashPart, bytes: u64) -> Ranking {
        self.inner.shared.candidates(hash.prefix(), bytes)
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
        let max = u16::try_from(max).unwrap_or(u16::MAX).clamp(1, PATH_INFOS_MAX);
        let request = Request::PathInfos { hash: *hash, max };
        let body =
            ask::short(&self.inner.shared, peer, request, PATH_INFOS_BYTES_MAX, deadline).await?;
        frames::decode_path_infos(&body, hash, max)
            .map_err(|error| RequestError::Protocol(error.to_string()))
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
            deadline,
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
        ask::range(&self.inner.shared, peer, *key, range.start, len, deadline).await
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

/// Binds every address; `[::]` falls back to IPv4 on machines without IPv6.
fn bind_all(listen: &[SocketAddr]) -> Result<Vec<transport::Bound>, StartError> {
    if listen.is_empty() {
        return Err(StartError::NoListenAddress);
    }
    if listen.len() > LISTEN_MAX {
        return Err(StartError::TooManyListenAddresses { given: listen.len(), max: LISTEN_MAX });
    }
    let mut bound = Vec::with_capacity(listen.len());
    for addr in listen {
        let any_v6 = addr.is_ipv6() && addr.ip().is_unspecified();
        let socket = transport::bind(*addr)
            .or_else(|error| {
                let without_v6 = error.kind() == std::io::ErrorKind::Unsupported
                    || error.raw_os_error() == Some(AF_NOT_SUPPORTED);
                if any_v6 && without_v6 {
                    transport::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port())))
                } else {
                    Err(error)
                }
            })
            .map_err(|source| StartError::Bind { addr: *addr, source })?;
        bound.push(socket);
    }
    if let Some(small) =
        bound.iter().map(|socket| socket.receive_buffer).min().filter(|size| *size < SOCKET_BUFFER)
    {
        tracing::warn!(
            granted = small,
            wanted = SOCKET_BUFFER,
            "the kernel limits UDP receive buffers; a busy machine will lose packets. hint: sysctl net.core.rmem_max={SOCKET_BUFFER} net.core.wmem_max={SOCKET_BUFFER}"
        );
    }
    Ok(bound)
}

/// EAFNOSUPPORT on Linux: the kernel has no IPv6.
const AF_NOT_SUPPORTED: i32 = 97;

type Ready = oneshot::Sender<Result<Vec<SocketAddr>, StartError>>;

/// The mesh thread: a current-thread runtime and the endpoints on it.
fn thread_main(
    shared: &Arc<Shared>,
    sockets: Vec<transport::Bound>,
    ready: Ready,
    quitting: watch::Receiver<bool>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(shared.config.limits.blocking_threads.max(1))
        .thread_name("haulout-mesh-io")
        .thread_keep_alive(BLOCKING_KEEP_ALIVE)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(StartError::Thread(error)));
            return;
        }
    };
    let _ = shared.runtime.set(runtime.handle().clone());
    runtime.block_on(async {
        match open(shared, sockets) {
            Ok((endpoints, addrs)) => {
                lock(&shared.endpoints).clone_from(&endpoints);
                let discovery = Discovery::start(shared, &addrs);
                let _ = ready.send(Ok(addrs));
                serve_until_quit(shared, &endpoints, quitting).await;
                drop(discovery);
                for endpoint in &endpoints {
                    endpoint.close(VarInt::from_u32(code::SHUTDOWN), b"goodbye");
                }
                let all_idle = async {
                    for endpoint in &endpoints {
                        endpoint.wait_idle().await;
                    }
                };
                let _ = timeout(GOODBYE, all_idle).await;
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    });
    shared.clear();
    runtime.shutdown_timeout(GOODBYE);
}

fn open(
    shared: &Arc<Shared>,
    sockets: Vec<transport::Bound>,
) -> Result<(Vec<Endpoint>, Vec<SocketAddr>), StartError> {
    let limits = &shared.config.limits;
    let mut endpoints = Vec::with_capacity(sockets.len());
    let mut addrs = Vec::with_capacity(sockets.len());
    for bound in sockets {
        let server = transport::server_config(&shared.config.identity, limits.handshakes)?;
        let endpoint = Endpoint::new(
            transport::endpoint_config(&shared.config.identity),
            Some(server),
            bound.socket,
            Arc::new(TokioRuntime),
        )
        .map_err(StartError::Thread)?;
        addrs.push(endpoint.local_addr().map_err(StartError::Thread)?);
        endpoints.push(endpoint);
    }
    Ok((endpoints, addrs))
}

/// Runs every standing task until the handle says quit.
async fn serve_until_quit(
    shared: &Arc<Shared>,
    endpoints: &[Endpoint],
    mut quitting: watch::Receiver<bool>,
) {
    let handshakes = Arc::new(Semaphore::new(shared.config.limits.handshakes));
    let mut tasks = tokio::task::JoinSet::new();
    for endpoint in endpoints {
        tasks.spawn(session::accept_all(
            Arc::clone(shared),
            endpoint.clone(),
            Arc::clone(&handshakes),
        ));
    }
    for fixed in &shared.config.static_peers {
        match fixed.key {
            Some(key) => shared.learn(key, &[fixed.addr], false),
            None => {
                tasks.spawn(keep_anchor(Arc::clone(shared), fixed.clone()));
            }
        }
    }
    tasks.spawn(keep_dialling(Arc::clone(shared)));
    tasks.spawn(keep_tidy(Arc::clone(shared)));
    let _ = quitting.wait_for(|quit| *quit).await;
}

/// Dials every known peer that is not connected, with growing pauses.
async fn keep_dialling(shared: Arc<Shared>) {
    loop {
        let (due, next) = shared.due();
        for (peer, addrs) in due {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                let outcome = session::dial(&shared, Some(peer), &addrs).await;
                shared.dialled(&peer, outcome);
            });
        }
        let later = async {
            match next {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.wake.notified() => {}
            () = later => {}
        }
    }
}

/// Keeps a connection to a configured address whose key is not known.
async fn keep_anchor(shared: Arc<Shared>, fixed: StaticPeer) {
    let (mut pause, longest) = ANCHOR_PAUSE;
    loop {
        if let Dialled::Connected(peer) = session::dial(&shared, None, &[fixed.addr]).await {
            pause = ANCHOR_PAUSE.0;
            while let Some(link) = shared.link(&peer) {
                link.conn.closed().await;
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// Notices silence, and lets caches age.
async fn keep_tidy(shared: Arc<Shared>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let links = shared.links();
        let silent_after = transport::keep_alive(links.len()) * SILENT_AFTER + TICK / 2;
        let now = Instant::now();
        let mut changed = false;
        for link in &links {
            if link.quiet_for(now) > silent_after {
                changed |= !link.silent.swap(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
        if changed {
            // A silent peer may have moved: dial its other addresses.
            shared.wake.notify_one();
        }
        shared.measure(&links);
        shared.cache.expire();
    }
}
