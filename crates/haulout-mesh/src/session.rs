//! Life of a connection: dial or accept, hello, proof of membership, the tasks that run on it, the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use haulout_swarm::directory::DirectoryError;
use haulout_swarm::holdings::{DELTA_BYTES_MAX, Message, SNAPSHOT_BYTES_MAX, Update};
use haulout_swarm::{Fault, PeerId};
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, VarInt};
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::api::Membership;
use crate::config::Strangers;
use crate::frames::{FrameError, HELLO_BODY_MAX, Hello, MINOR_VERSION, UNI_HOLDINGS, checked_len};
use crate::limit::Bucket;
use crate::membership::{EXPORTER_LABEL, EXPORTER_LEN, Role};
use crate::registry::{Adopted, DUPLICATE_GRACE, Dialled, Link, Shared, closed_with, code, lock};
use crate::serve;
use crate::tls::{SERVER_NAME, peer_of};
use crate::transport;
use crate::view::MeshEvent;

/// Pause between the starts of dials to several addresses of one peer.
const STAGGER: Duration = Duration::from_millis(30);
/// A QUIC handshake that the other side began must end within this.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// And then both hellos.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// Changes of our holdings are gathered this long before they are announced.
const ANNOUNCE_GATHER: Duration = Duration::from_millis(50);
/// One holdings message must be through within this.
const HOLDINGS_TIMEOUT: Duration = Duration::from_secs(30);
/// Holdings messages a peer may send: ten a second is what [`ANNOUNCE_GATHER`] and a busy store lead to.
const HOLDINGS_PER_SECOND: u32 = 25;
const HOLDINGS_BURST: u32 = 100;
/// Code on a holdings stream that we want started again with a snapshot.
const RESYNC: u32 = 1;
/// Pause before a holdings stream is opened again.
const RESYNC_PAUSE: Duration = Duration::from_millis(500);

/// Why a hello failed.
#[derive(Debug, thiserror::Error)]
enum HelloError {
    #[error("no hello in time")]
    Timeout,
    #[error("the connection broke during the hello: {0}")]
    Io(String),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the TLS session gives no keying material")]
    Exporter,
}

/// Dials a peer at several addresses, the next one starting a little after the last; the first that answers wins.
///
pub(crate) async fn dial(
    shared: &Arc<Shared>,
    expected: Option<PeerId>,
    addrs: &[SocketAddr],
) -> Dialled {
    let (connections, _) = shared.connection_counts(std::net::Ipv4Addr::UNSPECIFIED.into());
    let Ok(config) = transport::client_config(&shared.config.identity, expected, connections)
    else {
        return Dialled::Failed;
    };
    let mut attempts = JoinSet::new();
    for (index, addr) in addrs.iter().enumerate() {
        let Some(endpoint) = endpoint_for(shared, *addr) else {
            continue;
        };
        let (config, addr, limit) = (config.clone(), *addr, shared.config.dial_timeout);
        attempts.spawn(async move {
            sleep(STAGGER * u32::try_from(index).unwrap_or(u32::MAX)).await;
            let connecting = endpoint.connect_with(config, addr, SERVER_NAME).ok()?;
            timeout(limit, connecting).await.ok()?.ok()
        });
    }
    while let Some(attempt) = attempts.join_next().await {
        if let Ok(Some(conn)) = attempt {
            attempts.abort_all();
            let watched = conn.clone();
            return match established(shared, conn, Role::Dialler).await {
                Some(peer) => Dialled::Connected(peer),
                None if told_stranger(&watched) => Dialled::Unwelcome,
                None => Dialled::Failed,
            };
        }
    }
    Dialled::Failed
}

/// Whether the other end closed because we are strangers to its mesh.
fn told_stranger(conn: &Connection) -> bool {
    conn.close_reason().as_ref().and_then(closed_with) == Some(code::STRANGER)
}

/// The endpoint whose socket can reach this address.
fn endpoint_for(shared: &Shared, addr: SocketAddr) -> Option<Endpoint> {
    let endpoints = lock(&shared.endpoints);
    let local = |endpoint: &&Endpoint| endpoint.local_addr().ok();
    // A wildcard socket first: one bound to a single address reaches only its own network.
    let fits = |endpoint: &&Endpoint| {
        local(endpoint).is_some_and(|local| {
            local.is_ipv6() == addr.is_ipv6() || (local.is_ipv6() && local.ip().is_unspecified())
        })
    };
    let wildcard =
        |endpoint: &&Endpoint| local(endpoint).is_some_and(|local| local.ip().is_unspecified());
    endpoints
        .iter()
        .find(|endpoint| fits(endpoint) && wildcard(endpoint))
        .or_else(|| endpoints.iter().find(fits))
        .cloned()
}

/// Accepts connections until the endpoint closes.
pub(crate) async fn accept_all(
    shared: Arc<Shared>,
    endpoint: Endpoint,
    handshakes: Arc<Semaphore>,
) {
    let limits = shared.config.limits.clone();
    while let Some(incoming) = endpoint.accept().await {
        let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        // Under pressure only clients that prove their address get a handshake (and its two signatures).
        if handshakes.available_permits() < limits.handshakes / 2
            && !incoming.remote_address_validated()
        {
            let _ = incoming.retry();
            continue;
        }
        let (all, same) = shared.connection_counts(incoming.remote_address().ip());
        if all >= limits.connections || same >= limits.connections_per_address {
            incoming.refuse();
            continue;
        }
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            accept(&shared, incoming).await;
            drop(permit);
        });
    }
}

async fn accept(shared: &Arc<Shared>, incoming: Incoming) {
    let Ok(connecting) = incoming.accept() else {
        return;
    };
    if let Ok(Ok(conn)) = timeout(HANDSHAKE_TIMEOUT, connecting).await {
        established(shared, conn, Role::Accepter).await;
    }
}

/// Everything after the handshake: hello, membership, adoption; then the connection runs on a task of its own.
async fn established(shared: &Arc<Shared>, conn: Connection, role: Role) -> Option<PeerId> {
    let Some(peer) = peer_of(conn.peer_identity()) else {
        conn.close(VarInt::from_u32(code::PROTOCOL), b"no key");
        return None;
    };
    let greeted = timeout(HELLO_TIMEOUT, hello(shared, &conn, peer, role))
        .await
        .unwrap_or(Err(HelloError::Timeout));
    let membership = match greeted {
        Ok(membership) => membership,
        Err(error) => {
            tracing::debug!(peer = %peer.short(), %error, "hello failed");
            let close =
                if matches!(error, HelloError::Timeout) { code::TIMEOUT } else { code::PROTOCOL };
            conn.close(VarInt::from_u32(close), b"hello failed");
            return None;
        }
    };
    let closed_mesh =
        shared.config.secret.is_some() && shared.config.strangers == Strangers::Ignore;
    if membership == Membership::Stranger && closed_mesh {
        conn.close(VarInt::from_u32(code::STRANGER), b"not a member");
        return None;
    }
    let dialler = if role == Role::Dialler { shared.id } else { peer };
    let link = shared.new_link(conn, peer, membership, dialler);
    match shared.adopt(&link) {
        Adopted::Kept(old) => {
            tracing::debug!(peer = %peer.short(), addr = %link.addr(), ?membership, ?role, "connected");
            shared.emit(MeshEvent::Connected { peer, membership });
            if let Some(old) = old {
                close_later(old);
            }
            tokio::spawn(run(Arc::clone(shared), link));
            Some(peer)
        }
        Adopted::Superseded => {
            if let Some(kept) = shared.link(&peer) {
                poke(kept);
            }
            // The other end may have asked something on it already: answer that, then close.
            let requests = tokio::spawn(accept_requests(Arc::clone(shared), Arc::clone(&link)));
            close_later(link);
            drop(requests);
            Some(peer)
        }
        Adopted::Refused(reason) => {
            link.close(reason, "refused");
            None
        }
    }
}

/// Sends something on a connection that is preferred to a new one. If the peer has lost it (a crash, a restart), it says so
/// with a stateless reset, and its next dial is taken.
fn poke(link: Arc<Link>) {
    /// A kind of one-way stream that every version ignores.
    const NOTHING: u8 = 0;
    tokio::spawn(async move {
        if let Ok(mut send) = link.conn.open_uni().await {
            let _ = send.write_all(&[NOTHING]).await;
            let _ = send.finish();
            let _ = timeout(HELLO_TIMEOUT, send.stopped()).await;
        }
    });
}

fn close_later(link: Arc<Link>) {
    tokio::spawn(async move {
        sleep(DUPLICATE_GRACE).await;
        link.close(code::DUPLICATE, "another connection is in use");
    });
}

/// Exchanges hellos on the first bidirectional stream; the dialler speaks first.
///
/// The accepter shows its proof only to who has shown one: a stranger learns nothing to try guesses against.
async fn hello(
    shared: &Shared,
    conn: &Connection,
    peer: PeerId,
    role: Role,
) -> Result<Membership, HelloError> {
    let mut exporter = [0; EXPORTER_LEN];
    conn.export_keying_material(&mut exporter, EXPORTER_LABEL, b"")
        .map_err(|_| HelloError::Exporter)?;
    let (dialler, accepter) =
        if role == Role::Dialler { (shared.id, peer) } else { (peer, shared.id) };
    let secret = shared.config.secret.as_ref();
    let own = secret.map(|secret| secret.prove(role, &exporter, &dialler, &accepter));
    let judge = |theirs: &Hello| {
        let proven = secret.zip(theirs.proof.as_ref()).is_some_and(|(secret, proof)| {
            secret.verify(role.other(), &exporter, &dialler, &accepter, proof)
        });
        if proven { Membership::Member } else { Membership::Stranger }
    };
    if role == Role::Dialler {
        let (mut send, mut recv) = conn.open_bi().await.map_err(io)?;
        send.write_all(&Hello { minor: MINOR_VERSION, proof: own }.encode()).await.map_err(io)?;
        let _ = send.finish();
        Ok(judge(&read_hello(&mut recv).await?))
    } else {
        let (mut send, mut recv) = conn.accept_bi().await.map_err(io)?;
        let membership = judge(&read_hello(&mut recv).await?);
        let proof = own.filter(|_| membership == Membership::Member);
        send.write_all(&Hello { minor: MINOR_VERSION, proof }.encode()).await.map_err(io)?;
        let _ = send.finish();
        Ok(membership)
    }
}

fn io(error: impl std::fmt::Display) -> HelloError {
    HelloError::Io(error.to_string())
}

async fn read_hello(recv: &mut RecvStream) -> Result<Hello, HelloError> {
    let len = recv.read_u16().await.map_err(io)?;
    let len = checked_len("hello", u32::from(len), HELLO_BODY_MAX)?;
    let mut body = vec![0; len];
    recv.read_exact(&mut body).await.map_err(io)?;
    Ok(Hello::decode(&body)?)
}

/// Runs an adopted connection to its end.
async fn run(shared: Arc<Shared>, link: Arc<Link>) {
    let mut tasks = JoinSet::new();
    tasks.spawn(accept_requests(Arc::clone(&shared), Arc::clone(&link)));
    tasks.spawn(accept_holdings(Arc::clone(&shared), Arc::clone(&link)));
    tasks.spawn(announce(Arc::clone(&shared), Arc::clone(&link)));
    let reason = link.conn.closed().await;
    drop(tasks);
    if shared.lost(&link, &reason) {
        tracing::debug!(peer = %link.peer.short(), %reason, "connection ended");
        shared.emit(MeshEvent::Lost { peer: link.peer, reason: reason.to_string() });
    } else if closed_with(&reason).is_none() {
        tracing::trace!(peer = %link.peer.short(), %reason, "superseded connection ended");
    }
}

async fn accept_requests(shared: Arc<Shared>, link: Arc<Link>) {
    while let Ok((send, recv)) = link.conn.accept_bi().await {
        link.stats.asked_us.fetch_add(1, Ordering::Relaxed);
        if link.requests.take() {
            tokio::spawn(serve::answer(Arc::clone(&shared), Arc::clone(&link), send, recv));
        } else if link.refusals.take() {
            serve::refuse(send, recv);
        } else {
            shared.blame(&link.peer, Fault::ProtocolViolation, Some("flood of requests"));
            return;
        }
    }
}

/// Reads the peer's one-way streams, one at a time; a later one replaces the earlier.
async fn accept_holdings(shared: Arc<Shared>, link: Arc<Link>) {
    let bucket = Bucket::new(HOLDINGS_PER_SECOND, HOLDINGS_BURST);
    while let Ok(mut recv) = link.conn.accept_uni().await {
        match read_holdings(&shared, &link, &mut recv, &bucket).await {
            Ok(()) => {}
            Err(HoldingsEnd::Resync) => {
                let _ = recv.stop(VarInt::from_u32(RESYNC));
            }
            Err(HoldingsEnd::NoRoom) => return,
            Err(HoldingsEnd::Bad(reason)) => {
                shared.blame(&link.peer, Fault::ProtocolViolation, Some(&reason));
                return;
            }
        }
    }
}

/// Why reading a holdings stream ended before the peer ended it.
enum HoldingsEnd {
    /// A delta without its base: the peer should start again.
    Resync,
    /// The directory is full: do without this peer's holdings.
    NoRoom,
    Bad(String),
}

async fn read_holdings(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    recv: &mut RecvStream,
    bucket: &Bucket,
) -> Result<(), HoldingsEnd> {
    match timeout(HOLDINGS_TIMEOUT, recv.read_u8()).await {
        Ok(Ok(UNI_HOLDINGS)) => {}
        // Kinds this version does not know, and streams that ended, are nothing to complain about.
        _ => {
            let _ = recv.stop(VarInt::from_u32(0));
            return Ok(());
        }
    }
    let max = SNAPSHOT_BYTES_MAX.max(DELTA_BYTES_MAX);
    loop {
        // Between messages the stream may rest for ever.
        let Ok(len) = recv.read_u32().await else {
            return Ok(());
        };
        let len = checked_len("holdings", len, max)
            .map_err(|error| HoldingsEnd::Bad(error.to_string()))?;
        if !bucket.take() {
            return Err(HoldingsEnd::Bad("flood of holdings".to_owned()));
        }
        let Ok(Ok(body)) = timeout(HOLDINGS_TIMEOUT, read_body(recv, len)).await else {
            return Ok(());
        };
        let (shared, link) = (Arc::clone(shared), Arc::clone(link));
        let applied = tokio::task::spawn_blocking(move || {
            let message =
                Message::decode(&body).map_err(|error| HoldingsEnd::Bad(error.to_string()))?;
            shared.take_holdings(&link, &message).map_err(|error| match error {
                DirectoryError::NoSnapshot | DirectoryError::WrongBase { .. } => {
                    HoldingsEnd::Resync
                }
                DirectoryError::Full => HoldingsEnd::NoRoom,
                error => HoldingsEnd::Bad(error.to_string()),
            })
        });
        applied.await.unwrap_or(Err(HoldingsEnd::NoRoom))?;
    }
}

/// Reads exactly `len` bytes, growing the buffer as they arrive rather than trusting the length.
pub(crate) async fn read_body(recv: &mut RecvStream, len: usize) -> std::io::Result<BytesMut> {
    /// What is set aside before anything has arrived.
    const AHEAD: usize = 256 << 10;
    let mut body = BytesMut::with_capacity(len.min(AHEAD));
    while body.len() < len {
        let missing = len - body.len();
        let mut limited = bytes::BufMut::limit(&mut body, missing);
        if recv.read_buf(&mut limited).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(body)
}

/// Tells the peer what we hold, and then what changes.
async fn announce(shared: Arc<Shared>, link: Arc<Link>) {
    let serve = Arc::clone(&shared.serve);
    let audience = link.membership;
    let Ok(Some(feed)) = tokio::task::spawn_blocking(move || serve.holdings(audience)).await else {
        return;
    };
    while link.conn.close_reason().is_none() {
        let Ok(mut send) = link.conn.open_uni().await else {
            return;
        };
        if send.write_all(&[UNI_HOLDINGS]).await.is_ok() {
            let _ = push(&feed, &mut send).await;
        }
        // The peer lost track (or the stream broke): begin again with a snapshot.
        sleep(RESYNC_PAUSE).await;
    }
}

/// Pushes a snapshot and deltas until the stream ends.
async fn push(feed: &Arc<crate::api::HoldingsFeed>, send: &mut SendStream) -> Option<()> {
    let mut changed = feed.subscribe();
    let mut known = None;
    loop {
        changed.mark_unchanged();
        let source = Arc::clone(feed);
        let (version, bytes) = tokio::task::spawn_blocking(move || {
            let (version, update) = source.since(known);
            let bytes = match update {
                Update::Nothing => None,
                Update::Delta(delta) => Some(delta.encode()),
                Update::Snapshot(snapshot) => Some(snapshot.encode()),
            };
            (version, bytes)
        })
        .await
        .ok()?;
        if let Some(bytes) = bytes {
            let started = Instant::now();
            let len = u32::try_from(bytes.len()).ok()?.to_be_bytes();
            timeout(HOLDINGS_TIMEOUT, async {
                send.write_all(&len).await?;
                send.write_chunk(bytes.into()).await
            })
            .await
            .ok()?
            .ok()?;
            tracing::trace!(took = ?started.elapsed(), "holdings sent");
            known = Some(version);
        }
        tokio::select! {
            more = changed.changed() => more.ok()?,
            // The peer stopped the stream: it wants a snapshot.
            _ = send.stopped() => return None,
        }
        sleep(ANNOUNCE_GATHER).await;
    }
}
