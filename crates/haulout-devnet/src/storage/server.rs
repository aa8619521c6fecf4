//! A node's port: TLS, HTTP/1.1 and HTTP/2, limits, and the faults of the transport.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use redstuff::BlobId;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::answer::{Answer, Refusal};
use super::body::{self, BodyError, Budget, Outgoing};
use super::faults::{Faults, Pace, REFUSAL_BYTES_MAX, Refuse};
use super::identity::{Identity, IdentityError};
use super::node::{Asked, Node, Reply, internal};
use super::put::body_limit;
use super::route::{self, Route, RouteError};

/// Connections to one node at a time; more are closed at once.
const CONNECTIONS_MAX: usize = 1_024;

/// Streams on one HTTP/2 connection at a time, as real nodes have it.
const STREAMS_MAX: u32 = 1_000;

/// How long a client may take for the TLS handshake or for the head of an HTTP/1.1 request.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// Time between pings on an idle HTTP/2 connection.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Longest wait for a registration that a client may ask for.
const REGISTRATION_WAIT_MAX: Duration = Duration::from_secs(30);

/// How often the chain is looked at meanwhile.
const REGISTRATION_POLL: Duration = Duration::from_millis(20);

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1_024;

/// What all nodes of a committee share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) budget: Budget,
    /// Requests that are worked on at a time: verifying slivers takes a core each.
    pub(crate) workers: Arc<Semaphore>,
    /// Bytes of bodies that were sent.
    pub(crate) sent: Arc<AtomicU64>,
}

impl Default for Shared {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let workers = Arc::new(Semaphore::new(4 * cores));
        Self { budget: Budget::default(), workers, sent: Arc::default() }
    }
}

/// Everything one port needs.
#[derive(Clone)]
pub(crate) struct Port {
    pub(crate) node: Arc<Node>,
    pub(crate) shared: Shared,
    pub(crate) tls: TlsAcceptor,
    /// TLS under a key that is not the node's.
    pub(crate) impostor: TlsAcceptor,
}

/// TLS under `identity`, whose certificate (DER) is given.
pub(crate) fn acceptor(
    identity: &Identity,
    certificate: Vec<u8>,
) -> Result<TlsAcceptor, IdentityError> {
    let certificate = CertificateDer::from(certificate);
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.network_key_der()));
    let failed = |error: rustls::Error| IdentityError::Crypto(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .map_err(failed)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves until `stop` says so. While the node is down its port is closed, but kept.
pub(crate) async fn serve(
    mut socket: Held,
    first: TcpListener,
    port: Port,
    mut stop: watch::Receiver<bool>,
) {
    let switch = port.node.switch.clone();
    let (mut down, mut next) = (switch.watch_down(), Some(first));
    while !*stop.borrow() {
        if *down.borrow_and_update() {
            if next.take().is_some() {
                socket.hold();
            }
            switch.set_open(false);
            tokio::select! {
                _ = down.changed() => (),
                _ = stop.changed() => (),
            }
            continue;
        }
        match next.take().map_or_else(|| socket.listen(), Ok) {
            Ok(listener) => {
                switch.set_open(true);
                accept(&listener, &port, &mut down, &mut stop).await;
            }
            Err(error) => {
                tracing::error!(%error, address = %socket.address, "storage node cannot listen");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        }
        socket.hold();
    }
}

/// Takes connections until the node is to go down or stop; then all of them are cut.
async fn accept(
    listener: &TcpListener,
    port: &Port,
    down: &mut watch::Receiver<bool>,
    stop: &mut watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    while connections.try_join_next().is_some() {}
                    if connections.len() < CONNECTIONS_MAX {
                        connections.spawn(connection(stream, port.clone()));
                    }
                }
                // Out of descriptors, or the client is gone already.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            _ = down.changed() => if *down.borrow_and_update() { break },
            _ = stop.changed() => if *stop.borrow() { break },
        }
    }
    connections.shutdown().await;
}

/// A port that stays ours while nobody listens on it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) address: SocketAddr,
    socket: Option<TcpSocket>,
}

impl Held {
    /// Takes a port: `address`'s own, or any free one if that is 0.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = bound(address)?;
        Ok(Self { address: socket.local_addr()?, socket: Some(socket) })
    }

    /// Opens the port.
    pub(crate) fn listen(&mut self) -> io::Result<TcpListener> {
        let socket = self.socket.take().map_or_else(|| bound(self.address), Ok)?;
        socket.listen(BACKLOG)
    }

    fn hold(&mut self) {
        self.socket = bound(self.address).ok();
    }
}

fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn connection(stream: TcpStream, port: Port) {
    let _ = stream.set_nodelay(true);
    let tls = if port.node.switch.get().impostor { &port.impostor } else { &port.tls };
    let handshake = tokio::time::timeout(HANDSHAKE_TIME_MAX, tls.accept(stream)).await;
    let Ok(Ok(stream)) = handshake else { return };
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIME_MAX);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .adaptive_window(true)
        .keep_alive_interval(PING_INTERVAL);
    let service = hyper::service::service_fn(move |request| {
        let port = port.clone();
        async move { Ok::<_, Infallible>(respond(request, &port).await) }
    });
    // A client that breaks the protocol or hangs up is no event.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(request: Request<Incoming>, port: &Port) -> Response<Outgoing> {
    let faults = port.node.switch.get();
    if faults.silent {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(Duration::from_millis(faults.delay_ms)).await;
    if let Some(refuse) = &faults.refuse {
        return refusal(refuse, &faults);
    }
    let head = request.method() == Method::HEAD;
    let answer = if request.method() == Method::OPTIONS {
        Answer::empty(200)
            .header("access-control-allow-methods", "*")
            .header("access-control-allow-headers", "*")
    } else {
        answer(request, port).await
    };
    let permit = match answer.body.len() as u64 {
        0 => None,
        bytes => port.shared.budget.take(bytes).await,
    };
    let pace = Pace { bytes_per_second: faults.bytes_per_second };
    let length = answer.body.len();
    let body = if head { bytes::Bytes::new() } else { answer.body };
    let mut response =
        Response::new(Outgoing::new(body, 0, pace, permit).counted(&port.shared.sent));
    *response.status_mut() = status(answer.status);
    let headers = response.headers_mut();
    if let Some(content_type) = answer.content_type {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    cross_origin(headers);
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    response
}

/// Any page may ask, as real nodes allow.
fn cross_origin(headers: &mut hyper::HeaderMap) {
    let vary = "origin, access-control-request-method, access-control-request-headers";
    headers.insert(header::VARY, HeaderValue::from_static(vary));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// What a proxy in front of the node would say: text, no envelope.
fn refusal(refuse: &Refuse, faults: &Faults) -> Response<Outgoing> {
    let code = status(refuse.status);
    let text = code.canonical_reason().unwrap_or("refused").to_owned();
    let filler = refuse.body_bytes.min(REFUSAL_BYTES_MAX);
    let pace = Pace { bytes_per_second: faults.bytes_per_second };
    let mut response = Response::new(Outgoing::new(text.into(), filler, pace, None));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if let Some(seconds) = refuse.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

async fn answer(request: Request<Incoming>, port: &Port) -> Answer {
    let (parts, incoming) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    let route = match route::parse(parts.method.as_str(), parts.uri.path(), query) {
        Ok(route) => route,
        Err(RouteError::NotFound) => return Answer::empty(404),
        Err(RouteError::Method(allow)) => return Answer::empty(405).header("allow", allow),
        Err(RouteError::Bad(text)) => return Answer::text(400, text),
    };
    let text = |name: HeaderName| {
        parts.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let (content_type, authorization) = (text(header::CONTENT_TYPE), text(header::AUTHORIZATION));
    if let Route::Confirmation { blob, wait_ms, .. } = &route {
        wait_for_registration(&port.node, blob, *wait_ms).await;
    }
    let limit = body_limit(&route, port.node.chain().committee().n_shards);
    let (body, _permit) = match limit {
        // A body nobody asked for is not read; the connection deals with it.
        0 => (bytes::Bytes::new(), None),
        limit => match body::read(incoming, limit, &port.shared.budget).await {
            Ok(read) => read,
            Err(BodyError::TooLong) => return too_long(&route),
            Err(BodyError::Broken) => {
                return Answer::text(400, "Failed to buffer the request body: it ended early");
            }
        },
    };
    work(port, Asked { route, content_type, authorization, body }).await
}

/// Which it is depends on how the real service takes the body in.
fn too_long(route: &Route) -> Answer {
    match route {
        Route::PutSliver(_) | Route::InconsistencyProof(..) => {
            Answer::text(413, "Failed to buffer the request body: length limit exceeded")
        }
        _ => Refusal::body_too_long().into(),
    }
}

/// Answers on a thread that may block, and waits for the disk if something is stored.
async fn work(port: &Port, asked: Asked) -> Answer {
    let Ok(worker) = port.shared.workers.clone().acquire_owned().await else {
        return Refusal::internal().into();
    };
    let node = port.node.clone();
    let reply = tokio::task::spawn_blocking(move || {
        let _worker = worker;
        node.handle(&asked)
    });
    match reply.await {
        Ok(Reply::Now(answer)) => answer,
        Ok(Reply::After(change, answer)) => match port.node.store.apply(change).await {
            Ok(()) => answer,
            Err(error) => internal(error).into(),
        },
        Err(_) => Refusal::internal().into(),
    }
}

async fn wait_for_registration(node: &Node, blob: &BlobId, wait_ms: u64) {
    let wait = Duration::from_millis(wait_ms).min(REGISTRATION_WAIT_MAX);
    let registered = async {
        while !node.is_registered(blob) {
            tokio::time::sleep(REGISTRATION_POLL).await;
        }
    };
    if !wait.is_zero() {
        // The answer says whether it came.
        let _ = tokio::time::timeout(wait, registered).await;
    }
}
