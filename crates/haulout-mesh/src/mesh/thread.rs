//! The mesh thread: sockets, standing tasks, and the end of both.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{Endpoint, TokioRuntime, VarInt};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until, timeout};

use crate::config::StaticPeer;
use crate::discovery::{self, Discovery};
use crate::error::StartError;
use crate::registry::{Dialled, Shared, code, lock};
use crate::session;
use crate::transport::{self, SILENT_AFTER, SOCKET_BUFFER};

/// Sockets a mesh listens on at most.
const LISTEN_MAX: usize = 8;
/// How often connections are looked at for silence, and caches for age.
const TICK: Duration = Duration::from_secs(1);
/// How long connections may take to close at shutdown.
const GOODBYE: Duration = Duration::from_millis(500);
/// Threads that are not needed end after this, and their stacks and contexts with them.
const BLOCKING_KEEP_ALIVE: Duration = Duration::from_secs(5);
/// First and longest pause between dials of a configured address whose key is not known.
const ANCHOR_PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(8));

/// Binds every address; `[::]` falls back to IPv4 on machines without IPv6.
pub(super) fn bind_all(listen: &[SocketAddr]) -> Result<Vec<transport::Bound>, StartError> {
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
pub(super) fn thread_main(
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
        // Only the blocking threads: this one carries what the machine itself fetches, too.
        .on_thread_start(give_way)
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
                discovery.stop().await;
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

/// Reading and compressing for others gives way to what this machine does, at the processor and (the kernel derives it) at
/// the disk.
fn give_way() {
    /// Half of the way down: a machine that computes for days still serves.
    const NICE: i32 = 10;
    // On Linux this is about the calling thread alone. Where it is not possible, nothing is lost but politeness.
    let _ = rustix::process::setpriority_process(None, NICE);
}

fn open(
    shared: &Arc<Shared>,
    sockets: Vec<transport::Bound>,
) -> Result<(Vec<Endpoint>, Vec<SocketAddr>), StartError> {
    let limits = &shared.config.limits;
    let mut endpoints = Vec::with_capacity(sockets.len());
    let mut addrs = Vec::with_capacity(sockets.len());
    let server = transport::server_config(&shared.config.identity, limits.handshakes)?;
    let server = shared.server.get_or_init(|| server);
    for bound in sockets {
        let endpoint = Endpoint::new(
            transport::endpoint_config(&shared.config.identity),
            Some(server.clone()),
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
            Some(key) => drop(shared.learn(key, &[fixed.addr], false)),
            None => {
                tasks.spawn(keep_anchor(Arc::clone(shared), fixed.clone()));
            }
        }
    }
    tasks.spawn(keep_dialling(Arc::clone(shared)));
    tasks.spawn(keep_tidy(Arc::clone(shared)));
    tasks.spawn(discovery::follow_networks(Arc::clone(shared)));
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
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).min(longest),
            () = shared.network.notified() => pause = ANCHOR_PAUSE.0,
        }
    }
}

/// Notices silence, and lets caches age.
async fn keep_tidy(shared: Arc<Shared>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let links = shared.links();
        let now = Instant::now();
        let mut changed = false;
        for link in &links {
            if link.quiet_for(now) > link.keep_alive * SILENT_AFTER + TICK / 2 {
                changed |= !link.silent.swap(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
        if changed {
            // A silent peer may have moved: dial its other addresses.
            shared.wake.notify_one();
        }
        shared.measure(&links);
        shared.cache.expire();
        crate::narframe::release_buffers();
    }
}
