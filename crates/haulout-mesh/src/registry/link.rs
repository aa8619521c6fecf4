//! One authenticated connection, and what is measured on it.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use haulout_swarm::PeerId;
use quinn::{Connection, VarInt};
use tokio::sync::Semaphore;

use super::lock;
use crate::api::{Asker, Membership};
use crate::limit::Bucket;
use crate::line::Line;

/// Counters of one peer that outlive its connections.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) given: AtomicU64,
    pub(crate) taken: AtomicU64,
    pub(crate) asked_us: AtomicU64,
    pub(crate) asked_it: AtomicU64,
}

/// One authenticated connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) conn: Connection,
    pub(crate) peer: PeerId,
    pub(crate) membership: Membership,
    /// Which end opened it: decides between two connections of one pair.
    pub(crate) dialler: PeerId,
    /// How often we touch it when it is quiet.
    pub(crate) keep_alive: Duration,
    /// The limit on what is given to this peer.
    pub(crate) upload: Arc<Line>,
    /// Minor version that both ends speak.
    pub(crate) minor: u16,
    pub(crate) stats: Arc<Stats>,
    /// NAR frames under way for this peer.
    pub(crate) frames: Arc<Semaphore>,
    pub(crate) requests: Bucket,
    /// Requests refused for their rate; when this runs out too, the peer is flooding.
    pub(crate) refusals: Bucket,
    pub(crate) silent: AtomicBool,
    /// The peer does not want a portion of our holdings, but all of them.
    pub(crate) wants_all: AtomicBool,
    /// We said so of its holdings.
    pub(crate) asked_all: AtomicBool,
    /// Datagrams received, and when that number last changed.
    pub(super) heard: Mutex<(u64, Instant)>,
    /// When a send last had to wait, in milliseconds since `born`, plus one.
    pub(super) blocked_at: AtomicU64,
    pub(super) born: Instant,
}

impl Link {
    pub(crate) fn addr(&self) -> SocketAddr {
        canonical(self.conn.remote_address())
    }

    pub(crate) fn asker(&self) -> Asker {
        Asker { peer: self.peer, membership: self.membership, addr: self.addr() }
    }

    pub(crate) fn close(&self, code: u32, reason: &str) {
        self.conn.close(VarInt::from_u32(code), reason.as_bytes());
    }

    pub(super) fn alive(&self) -> bool {
        self.conn.close_reason().is_none()
    }

    pub(crate) fn note_blocked(&self) {
        let millis = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.blocked_at.store(millis + 1, Ordering::Relaxed);
    }

    /// Whether bytes wait for this connection: a send had to wait just now, or a queue stands on the path.
    pub(crate) fn send_blocked(&self) -> bool {
        /// A NAR asked right after another meets the same link.
        const RECENT_MS: u64 = 50;
        /// A round trip this much above the shortest is a queue.
        const QUEUE: Duration = Duration::from_millis(1);
        let at = self.blocked_at.load(Ordering::Relaxed);
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1;
        (at != 0 && now.saturating_sub(at) < RECENT_MS)
            || self.conn.rtt().saturating_sub(self.conn.min_rtt()) > QUEUE
    }

    /// This machine's address on the path.
    pub(crate) fn local_ip(&self) -> Option<IpAddr> {
        self.conn.local_ip().map(|ip| ip.to_canonical())
    }

    /// Looks whether anything arrived since the last look; returns how long nothing has.
    pub(crate) fn quiet_for(&self, now: Instant) -> Duration {
        let datagrams = self.conn.stats().udp_rx.datagrams;
        let mut heard = lock(&self.heard);
        if heard.0 != datagrams {
            *heard = (datagrams, now);
            self.silent.store(false, Ordering::Relaxed);
        }
        now.saturating_duration_since(heard.1)
    }
}

/// The code the other end closed the connection with.
pub(crate) fn closed_with(reason: &quinn::ConnectionError) -> Option<u32> {
    match reason {
        quinn::ConnectionError::ApplicationClosed(close) => {
            u32::try_from(close.error_code.into_inner()).ok()
        }
        _ => None,
    }
}

/// An IPv4 address that came in on an IPv6 socket, as IPv4.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, addr.port())),
        IpAddr::V6(_) => addr,
    }
}
