//! Accepting connections and seeing them off.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use hyper::{Request, Response, body::Incoming, server::conn::http1, service::Service};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::MissedTickBehavior,
};

use tokio_rustls::TlsAcceptor;

use crate::{
    Door, Substituter,
    body::ResponseBody,
    connection::{Entry, Leave, Registry, Socket},
    counters::OpenConnection,
    handler::Handler,
};

/// Most connections at a time. Nix opens 25 per process; a few dozen processes fit. At the limit
/// the longest idle connection has to go, and newcomers wait in the kernel's backlog.
pub const CONNECTIONS_MAX: usize = 1024;
/// Bytes of request header accepted; Nix sends about 200.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Header lines accepted.
const HEADER_LINES_MAX: usize = 64;
/// Bytes of response gathered before they must be written: small, because NAR pieces are large and
/// pass through whole.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;
/// How often overdue connections are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Longest time a TLS handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Pause after `accept` failed (no file descriptors left, most likely).
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// How the gateway behaves; the defaults are right for a desktop machine.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// `Priority` in `nix-cache-info`; lower is asked first, cache.nixos.org says 40.
    pub priority: u32,
    /// Names, besides `localhost` and the bound address, under which the control interface may be
    /// addressed.
    pub host_names: Vec<String>,
    /// Let clients that are not on this machine use the control interface (they may always use the
    /// substituter, if the port is open to them).
    pub remote_control: bool,
    /// Let clients that are not on this machine read `/metrics`.
    pub remote_metrics: bool,
    /// Most connections at a time.
    pub connections_max: usize,
    /// Longest time a request header may take to arrive, give or take five seconds.
    pub header_time: Duration,
    /// Longest time a connection may be kept open without a request. Generous: a client that reuses
    /// a connection in the moment it is closed has to retry.
    pub idle_time: Duration,
    /// How long open transfers may go on after a shutdown was asked for.
    pub drain_time: Duration,
    /// Set for a port that is open to other machines.
    pub door: Option<Door>,
    /// On which of this machine's addresses clients are taken; `None`: all that the port is open on.
    pub local: Option<LocalRule>,
}

/// Says whether a client that came in at an address of this machine's is taken. Asked for each connection.
#[derive(Clone)]
pub struct LocalRule(Arc<dyn Fn(IpAddr) -> bool + Send + Sync>);

impl LocalRule {
    /// Asks `allows`, which must not block.
    pub fn new(allows: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(allows))
    }
}

impl std::fmt::Debug for LocalRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LocalRule(..)")
    }
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            priority: 30,
            host_names: Vec::new(),
            remote_control: false,
            remote_metrics: false,
            connections_max: CONNECTIONS_MAX,
            header_time: Duration::from_secs(30),
            idle_time: Duration::from_secs(600),
            drain_time: Duration::from_secs(5),
            door: None,
            local: None,
        }
    }
}

/// Why the gateway stopped other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener cannot be used by the runtime.
    #[error("the listening socket cannot be used")]
    Listener(#[source] io::Error),
}

/// Serve until `shutdown` resolves, then let requests in hand finish within
/// [`GatewayConfig::drain_time`].
///
/// Runs on the caller's tokio runtime (I/O and time enabled) and spawns one task per connection
/// there; a current-thread runtime of its own gives the steadiest latency.
///
/// # Errors
/// Only when the listener is unusable. Trouble with single connections is theirs.
pub async fn serve<S: Substituter>(
    listener: std::net::TcpListener,
    substituter: Arc<S>,
    config: GatewayConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    listener.set_nonblocking(true).map_err(ServeError::Listener)?;
    let local = listener.local_addr().ok();
    let listener = TcpListener::from_std(listener).map_err(ServeError::Listener)?;
    let server = Server {
        handler: Handler::new(substituter, &config, local),
        registry: Arc::new(Registry::new()),
        slots: Arc::new(Semaphore::new(config.connections_max.max(1))),
        tasks: JoinSet::new(),
        config,
    };
    server.run(listener, shutdown).await;
    Ok(())
}

struct Server<S> {
    handler: Handler<S>,
    registry: Arc<Registry>,
    slots: Arc<Semaphore>,
    tasks: JoinSet<()>,
    config: GatewayConfig,
}

impl<S: Substituter> Server<S> {
    async fn run(mut self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let mut sweep = tokio::time::interval(
            SWEEP_EVERY.min(self.config.header_time.max(Duration::from_millis(10))),
        );
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                _ = sweep.tick() => self.registry.sweep(self.config.header_time, self.config.idle_time),
                Some(_) = self.tasks.join_next() => {}
                (stream, peer) = accept(&listener, &self.registry) => tokio::select! {
                    biased;
                    () = &mut shutdown => break,
                    Some(slot) = room(&self.slots, &self.registry) => self.welcome(stream, peer, slot),
                },
            }
        }
        drop(listener);
        self.registry.end_all();
        let all_gone = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(self.config.drain_time, all_gone).await.is_err() {
            tracing::info!(
                open = self.tasks.len(),
                "cutting transfers that outlasted the shutdown"
            );
            self.tasks.shutdown().await;
        }
    }

    fn welcome(&mut self, stream: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
        let door = self.config.door.as_ref();
        if door.is_some_and(|door| !door.admits(peer)) {
            tracing::debug!(%peer, "not from a network that may come in");
            return;
        }
        // Whose own address is unknown has gone already.
        let local = self.config.local.as_ref();
        if local.is_some_and(|rule| !stream.local_addr().is_ok_and(|addr| (rule.0)(addr.ip()))) {
            tracing::debug!(%peer, "not on a network that is known");
            return;
        }
        let tls = door.and_then(|door| door.tls.clone());
        // Without it a small answer waits for the acknowledgement of the one before: 40 ms per
        // request.
        let _ = stream.set_nodelay(true);
        let entry = self.registry.enter();
        let handler = self.handler.clone();
        self.tasks.spawn(async move {
            let _slot = slot;
            let Some(tls) = tls else { return attend(stream, peer, entry, handler).await };
            let shaken = TlsAcceptor::from(tls).accept(stream);
            match tokio::time::timeout(HANDSHAKE_MAX, shaken).await {
                Ok(Ok(stream)) => attend(stream, peer, entry, handler).await,
                Ok(Err(error)) => tracing::debug!(%error, %peer, "TLS failed"),
                Err(_) => tracing::debug!(%peer, "TLS took too long"),
            }
        });
    }
}

/// The next connection; trouble that is not about a single one is slept over.
async fn accept(listener: &TcpListener, registry: &Registry) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                registry.end_longest_idle();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A place for the connection just accepted. At the limit an idle connection is sent away for it;
/// with none idle it waits, and with it, in the kernel, everybody behind it.
async fn room(slots: &Arc<Semaphore>, registry: &Registry) -> Option<OwnedSemaphorePermit> {
    loop {
        if let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
            return Some(slot);
        }
        registry.end_longest_idle();
        match tokio::time::timeout(ACCEPT_PAUSE, Arc::clone(slots).acquire_owned()).await {
            Ok(slot) => return slot.ok(),
            Err(_) => continue,
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// One connection from its first to its last byte.
async fn attend<S: Substituter>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    peer: SocketAddr,
    entry: Entry,
    handler: Handler<S>,
) {
    let _open = OpenConnection::new(Arc::clone(handler.counters()));
    let state = Arc::clone(&entry.state);
    let service = ConnectionService { handler, peer, entry };
    let mut connection = pin!(
        http1::Builder::new()
            .max_buf_size(WRITE_BUFFER_BYTES)
            .max_header_size(HEADER_BYTES_MAX)
            .max_headers(HEADER_LINES_MAX)
            .serve_connection(Socket::new(stream, Arc::clone(&state)), service)
    );
    loop {
        tokio::select! {
            biased;
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, %peer, "connection ended early");
                }
                break;
            }
            () = state.wake.notified() => match state.how_to_leave() {
                Leave::Now => break,
                Leave::Gracefully => connection.as_mut().graceful_shutdown(),
            },
        }
    }
}

/// The handler together with what is known of the connection.
struct ConnectionService<S> {
    handler: Handler<S>,
    peer: SocketAddr,
    entry: Entry,
}

impl<S: Substituter> Service<Request<Incoming>> for ConnectionService<S> {
    type Response = Response<ResponseBody>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let busy = self.entry.state.begin();
        let handler = self.handler.clone();
        let peer = self.peer;
        Box::pin(
            async move { Ok(handler.answer(request, peer).await.map(|body| body.holding(busy))) },
        )
    }
}
