//! Life of a connection: dial or accept, hello, proof of membership, the tasks that run on it, the end.

mod hello;
mod holdings;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use haulout_swarm::{Fault, PeerId};
use quinn::{Connection, Endpoint, Incoming, VarInt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::api::Membership;
use crate::config::Strangers;
use crate::membership::Role;
use crate::registry::{Adopted, Dialled, Link, Shared, closed_with, code, lock};
use crate::serve;
use crate::tls::{SERVER_NAME, peer_of};
use crate::transport;
use crate::view::MeshEvent;
use hello::{HelloError, hello};
pub(crate) use holdings::read_body;
use holdings::{accept_one_way, announce};

/// Pause between the starts of dials to several addresses of one peer.
const STAGGER: Duration = Duration::from_millis(30);
/// A QUIC handshake that the other side began must end within this.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// And then both hellos.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// Dials a peer at several addresses, the next one starting a little after the last; the first that answers wins.
///
pub(crate) async fn dial(
    shared: &Arc<Shared>,
    expected: Option<PeerId>,
    addrs: &[SocketAddr],
) -> Dialled {
    let peers = shared.peers_expected();
    let Ok(config) = transport::client_config(&shared.config.identity, expected, peers) else {
        return Dialled::Failed;
    };
    let mut attempts = JoinSet::new();
    let networks = shared.networks.now();
    let allowed = addrs.iter().filter(|addr| networks.allows_remote(**addr));
    for (index, addr) in allowed.enumerate() {
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
            return match established(
                shared,
                conn,
                Role::Dialler,
                transport::keep_alive(peers, Role::Dialler),
            )
            .await
            {
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
        // In a network that is not known nobody learns that anything is here.
        if incoming.local_ip().is_some_and(|ip| !shared.networks.now().allows_local(ip)) {
            incoming.ignore();
            continue;
        }
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
    let Some(mut server) = shared.server.get().cloned() else { return };
    let peers = shared.peers_expected();
    server.transport_config(transport::transport(peers, Role::Accepter));
    let Ok(connecting) = incoming.accept_with(Arc::new(server)) else {
        return;
    };
    if let Ok(Ok(conn)) = timeout(HANDSHAKE_TIMEOUT, connecting).await {
        established(shared, conn, Role::Accepter, transport::keep_alive(peers, Role::Accepter))
            .await;
    }
}

/// Everything after the handshake: hello, membership, adoption; then the connection runs on a task of its own.
async fn established(
    shared: &Arc<Shared>,
    conn: Connection,
    role: Role,
    keep_alive: Duration,
) -> Option<PeerId> {
    if conn.local_ip().is_some_and(|ip| !shared.networks.now().allows_local(ip)) {
        conn.close(VarInt::from_u32(code::SHUTDOWN), b"not on this network");
        return None;
    }
    let Some(peer) = peer_of(conn.peer_identity()) else {
        conn.close(VarInt::from_u32(code::PROTOCOL), b"no key");
        return None;
    };
    let greeted = timeout(HELLO_TIMEOUT, hello(shared, &conn, peer, role))
        .await
        .unwrap_or(Err(HelloError::Timeout));
    let (membership, minor) = match greeted {
        Ok(greeted) => greeted,
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
    let link = shared.new_link(conn, peer, membership, dialler, keep_alive, minor);
    match shared.adopt(&link) {
        Adopted::Kept(old) => {
            tracing::debug!(peer = %peer.short(), addr = %link.addr(), ?membership, ?role, "connected");
            shared.met();
            shared.emit(MeshEvent::Connected { peer, membership });
            if let Some(old) = old {
                shared.part_from(old);
            }
            tokio::spawn(run(Arc::clone(shared), link));
            Some(peer)
        }
        Adopted::Spare => {
            if let Some(kept) = shared.link(&peer) {
                tokio::spawn(probe(Arc::clone(shared), kept));
            }
            shared.part_from(Arc::clone(&link));
            tokio::spawn(run(Arc::clone(shared), link));
            Some(peer)
        }
        Adopted::Superseded => {
            if let Some(kept) = shared.link(&peer) {
                tokio::spawn(probe(Arc::clone(shared), kept));
            }
            // The other end may have asked something on it already: answer that, then close.
            let requests = tokio::spawn(accept_requests(Arc::clone(shared), Arc::clone(&link)));
            shared.part_from(link);
            drop(requests);
            Some(peer)
        }
        Adopted::Refused(reason) => {
            link.close(reason, "refused");
            None
        }
    }
}

/// Sends something on a connection that may be dead: one that is preferred to a new one, or whose peer announces other
/// addresses. A peer that has lost the connection (a crash, a restart) says so with a stateless reset; if nothing comes back
/// at all, the connection counts as silent. Either way the next dial is taken.
pub(crate) async fn probe(shared: Arc<Shared>, link: Arc<Link>) {
    /// A kind of one-way stream that every version ignores.
    const NOTHING: u8 = 0;
    /// A LAN answers in a millisecond, a busy machine on it in some hundred.
    const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
    let heard = || link.conn.stats().udp_rx.datagrams;
    let before = heard();
    // Without a free stream nothing can be sent, and nothing be learnt.
    let Ok(Ok(mut send)) = timeout(PROBE_TIMEOUT, link.conn.open_uni()).await else {
        return;
    };
    let _ = timeout(PROBE_TIMEOUT, async {
        let _ = send.write_all(&[NOTHING]).await;
        let _ = send.finish();
        send.stopped().await
    })
    .await;
    if heard() == before {
        link.silent.store(true, Ordering::Relaxed);
        shared.wake.notify_one();
    }
}

/// Runs an adopted connection to its end.
async fn run(shared: Arc<Shared>, link: Arc<Link>) {
    let mut tasks = JoinSet::new();
    tasks.spawn(accept_requests(Arc::clone(&shared), Arc::clone(&link)));
    tasks.spawn(accept_one_way(Arc::clone(&shared), Arc::clone(&link)));
    tasks.spawn(crate::site::announce(Arc::clone(&shared), Arc::clone(&link)));
    tasks.spawn(announce(Arc::clone(&shared), Arc::clone(&link)));
    let reason = link.conn.closed().await;
    drop(tasks);
    if shared.lost(&link, &reason) {
        shared.met();
        tracing::debug!(peer = %link.peer.short(), %reason, "connection ended");
        shared.emit(MeshEvent::Lost { peer: link.peer, reason: reason.to_string() });
    } else {
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
