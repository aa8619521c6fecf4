//! Everything the tasks of one mesh share: who is known, who is connected, what they announced.
//!
//! Locks are held for look-ups only, never across an await or a call to `Serve`. Whoever needs both takes `hints` before
//! `peers`.

mod dialling;
mod duplicates;
mod link;
mod portions;
mod standing;
mod views;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use haulout_swarm::directory::Directory;
use haulout_swarm::peers::{PEERS_MAX, PeerTable};
use haulout_swarm::site::{Homes, Standing};
use haulout_swarm::{Fault, Now, PeerId};
use quinn::{Connection, Endpoint};
use tokio::sync::{Notify, Semaphore, broadcast, watch};

use crate::api::{Membership, Serve};
use crate::config::MeshConfig;
use crate::limit::Bucket;
use crate::line::Line;
use crate::narframe::FrameCache;
use crate::networks::{Networks, Snapshot};
use crate::pressure::CpuGauge;
use crate::view::MeshEvent;
use dialling::MISSED_FOR;
pub(crate) use duplicates::Adopted;
pub(crate) use link::{Link, Stats, closed_with};
pub(crate) use portions::Spread;

/// Why a connection is closed, as the QUIC application error code.
pub(crate) mod code {
    pub(crate) const SHUTDOWN: u32 = 0;
    pub(crate) const DUPLICATE: u32 = 1;
    pub(crate) const PROTOCOL: u32 = 2;
    pub(crate) const BANNED: u32 = 3;
    pub(crate) const FULL: u32 = 4;
    pub(crate) const STRANGER: u32 = 5;
    pub(crate) const SELF: u32 = 6;
    pub(crate) const TIMEOUT: u32 = 7;
}

/// Addresses kept for one peer: a few interfaces, IPv4 and IPv6.
const ADDRS_MAX: usize = 16;
/// Reasons kept for one peer.
const REASONS_MAX: usize = 8;

/// What is known of one peer.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) link: Option<Arc<Link>>,
    /// A second connection that we would give up, until the other end, whose word counts, has chosen.
    spare: Option<Arc<Link>>,
    pub(crate) addrs: Vec<SocketAddr>,
    /// Announced by mDNS right now.
    pub(crate) discovered: bool,
    /// Named in the configuration.
    pub(crate) fixed: bool,
    pub(crate) dialling: bool,
    pub(crate) next_dial: Instant,
    failures: u32,
    /// When its last connection broke off without a word; it may only be out of reach.
    missing_since: Option<Instant>,
    pub(crate) stats: Arc<Stats>,
    /// By [`Fault::index`].
    faults: [u64; Fault::ALL.len()],
    reasons: VecDeque<String>,
    membership: Membership,
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self {
            link: None,
            spare: None,
            addrs: Vec::new(),
            discovered: false,
            fixed: false,
            dialling: false,
            next_dial: now,
            failures: 0,
            missing_since: None,
            stats: Arc::default(),
            faults: [0; Fault::ALL.len()],
            reasons: VecDeque::new(),
            membership: Membership::Stranger,
        }
    }

    /// The connection to use: the spare one from the moment the present one is closed.
    pub(crate) fn link(&self) -> Option<&Arc<Link>> {
        self.links().next()
    }

    /// The present connection and the spare one.
    fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.link.iter().chain(&self.spare).filter(|link| link.alive())
    }

    /// Whether there is a reason to dial at all.
    fn wanted(&self) -> bool {
        (self.discovered || self.fixed || self.missing())
            && !self.addrs.is_empty()
            && !self.dialling
    }

    /// Whether it went without a goodbye, not too long ago.
    fn missing(&self) -> bool {
        self.missing_since.is_some_and(|since| since.elapsed() < MISSED_FOR)
    }
}

/// Peers by key, and their standing.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    pub(crate) entries: HashMap<PeerId, Entry>,
    pub(crate) table: PeerTable,
}

/// State of one mesh.
pub(crate) struct Shared {
    pub(crate) config: MeshConfig,
    pub(crate) id: PeerId,
    /// The networks this machine is in.
    pub(crate) networks: Networks,
    /// Where another machine with our key was seen.
    pub(crate) twin: Mutex<Option<IpAddr>>,
    pub(crate) serve: Arc<dyn Serve>,
    pub(crate) started: Instant,
    pub(crate) endpoints: Mutex<Vec<Endpoint>>,
    pub(crate) runtime: OnceLock<tokio::runtime::Handle>,
    /// How connections are accepted, once the mesh runs.
    pub(crate) server: OnceLock<quinn::ServerConfig>,
    pub(crate) peers: Mutex<Peers>,
    pub(crate) hints: RwLock<Directory>,
    pub(crate) events: broadcast::Sender<MeshEvent>,
    /// Wakes the task that dials.
    pub(crate) wake: Notify,
    /// Wakes whoever waits between tries when the machine's addresses change.
    pub(crate) network: Notify,
    pub(crate) frames: Arc<Semaphore>,
    /// Proofs of archives on their way out.
    pub(crate) proofs: Semaphore,
    pub(crate) cache: FrameCache,
    /// The limit on what is given to all peers together.
    pub(crate) upload: Arc<Line>,
    /// What this agent says about itself as a home, told to every peer.
    pub(crate) standing: watch::Sender<Standing>,
    /// Standings of this agent and of the connected peers. Taken after `peers` by whoever needs both.
    pub(crate) homes: Mutex<Homes>,
    /// Who is told how much of what is held here.
    pub(crate) spread: Spread,
    pub(crate) gauge: CpuGauge,
    pub(crate) dice: AtomicU64,
}

/// How a dial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialled {
    /// There is a connection with this peer now.
    Connected(PeerId),
    /// Nobody answered, or not in our language.
    Failed,
    /// The peer is in a mesh that we are not in.
    Unwelcome,
}

impl Shared {
    pub(crate) fn now(&self) -> Now {
        Now::from_start(self.started.elapsed())
    }

    pub(crate) fn lock_peers(&self) -> MutexGuard<'_, Peers> {
        lock(&self.peers)
    }

    pub(crate) fn new_link(
        &self,
        conn: Connection,
        peer: PeerId,
        membership: Membership,
        dialler: PeerId,
        keep_alive: Duration,
        minor: u16,
    ) -> Arc<Link> {
        // Nothing is kept of a peer before its connection is adopted.
        let known = self.lock_peers().entries.get(&peer).map(|entry| Arc::clone(&entry.stats));
        let stats = known.unwrap_or_default();
        let limits = &self.config.limits;
        Arc::new(Link {
            conn,
            peer,
            membership,
            dialler,
            keep_alive,
            minor,
            upload: Line::new(self.config.upload_per_peer),
            stats,
            frames: Arc::new(Semaphore::new(limits.frames_per_peer)),
            requests: Bucket::new(limits.requests_per_second, limits.request_burst),
            refusals: Bucket::new(limits.requests_per_second, limits.request_burst),
            silent: AtomicBool::new(false),
            wants_all: AtomicBool::new(false),
            asked_all: AtomicBool::new(false),
            heard: Mutex::new((0, Instant::now())),
            blocked_at: AtomicU64::new(0),
            born: Instant::now(),
        })
    }

    /// Whether one more peer may be remembered; forgets one without a connection if need be: first such that are not
    /// announced, then those that could not be reached. Invented announcements do not keep out who is really there:
    /// a `proven` peer displaces even those that were not dialled yet.
    fn make_room(&self, peers: &mut Peers, peer: &PeerId, proven: bool) -> bool {
        let max = self.config.limits.peers.min(PEERS_MAX);
        if peers.entries.contains_key(peer) || peers.entries.len() < max {
            return true;
        }
        let victim = peers
            .entries
            .iter()
            .filter(|(_, entry)| entry.link().is_none() && !entry.fixed && !entry.dialling)
            .filter(|(_, entry)| proven || !entry.discovered || entry.failures > 0)
            .max_by_key(|(_, entry)| (!entry.discovered, entry.failures))
            .map(|(peer, _)| *peer);
        victim.is_some_and(|victim| peers.entries.remove(&victim).is_some())
    }

    /// Whether other peers have all connections that are allowed, in all or from this address. Looked at before a handshake
    /// too; but many can be under way at once.
    fn crowded(&self, peers: &Peers, new: &Link) -> bool {
        let limits = &self.config.limits;
        let ip = new.addr().ip();
        let others = || {
            let others = peers.entries.iter().filter(|(peer, _)| **peer != new.peer);
            others.filter_map(|(_, entry)| entry.link())
        };
        others().count() >= limits.connections
            || others().filter(|link| link.addr().ip() == ip).count()
                >= limits.connections_per_address
    }

    /// The peer's present connection.
    pub(crate) fn link(&self, peer: &PeerId) -> Option<Arc<Link>> {
        self.lock_peers().entries.get(peer)?.link().cloned()
    }

    /// Ends the connections over networks that are not known any more.
    pub(crate) fn close_unknown(&self, networks: &Snapshot) {
        let every: Vec<Arc<Link>> = {
            let peers = self.lock_peers();
            peers.entries.values().flat_map(Entry::links).cloned().collect()
        };
        for link in every {
            if link.local_ip().is_some_and(|ip| !networks.allows_local(ip)) {
                link.close(code::SHUTDOWN, "not on this network");
            }
        }
    }

    /// A number that need not be secret.
    pub(crate) fn roll(&self) -> u64 {
        self.dice.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }

    /// Lets go of every socket, so that the ports are free while handles still exist.
    pub(crate) fn clear(&self) {
        lock(&self.endpoints).clear();
        let mut peers = self.lock_peers();
        for entry in peers.entries.values_mut() {
            (entry.link, entry.spare) = (None, None);
        }
    }

    /// Every present connection.
    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        self.lock_peers().entries.values().filter_map(Entry::link).cloned().collect()
    }

    /// Tells the peer table how far the connected peers are.
    pub(crate) fn measure(&self, links: &[Arc<Link>]) {
        let mut peers = self.lock_peers();
        for link in links {
            peers.table.measured_rtt(&link.peer, link.conn.rtt());
        }
    }

    /// How many peers there are here, connected or announced.
    pub(crate) fn peers_expected(&self) -> usize {
        self.lock_peers().entries.len()
    }

    /// Connections and those from one address.
    pub(crate) fn connection_counts(&self, from: IpAddr) -> (usize, usize) {
        let peers = self.lock_peers();
        let links = peers.entries.values().filter_map(Entry::link);
        let from = from.to_canonical();
        links.fold((0, 0), |(all, same), link| {
            (all + 1, same + usize::from(link.addr().ip() == from))
        })
    }

    pub(crate) fn emit(&self, event: MeshEvent) {
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}
