//! Everything the tasks of one mesh share: who is known, who is connected, what they announced.
//!
//! Locks are held for look-ups only, never across an await or a call to `Serve`. Whoever needs both takes `hints` before
//! `peers`.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use haulout_swarm::choose::{self, Ranking};
use haulout_swarm::directory::{Directory, DirectoryError};
use haulout_swarm::holdings::Message;
use haulout_swarm::peers::{PeerTable, SILENCE, State, Verdict};
use haulout_swarm::{Fault, Now, PeerId};
use quinn::{Connection, Endpoint, VarInt};
use tokio::sync::{Notify, Semaphore, broadcast};

use crate::api::{Asker, Membership, Serve};
use crate::config::MeshConfig;
use crate::limit::Bucket;
use crate::narframe::FrameCache;
use crate::pressure::CpuGauge;
use crate::view::{MeshEvent, PeerState, PeerView};

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
/// First pause after a failed dial; doubles.
const REDIAL_MIN: Duration = Duration::from_millis(500);
/// Longest pause between dials of a peer that does not answer.
const REDIAL_MAX: Duration = Duration::from_secs(60);
/// Pause after a peer closed the connection because we are strangers to its mesh.
const REDIAL_STRANGER: Duration = Duration::from_secs(300);
/// The peer with the larger key waits this long before it dials too: usually the other is faster, and no second
/// connection comes up. If the other cannot reach us (a closed port), our dial is the one that works.
const DIAL_SECOND: Duration = Duration::from_millis(150);
/// How long a superseded connection stays open for what is under way on it.
pub(crate) const DUPLICATE_GRACE: Duration = Duration::from_millis(1_500);

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
    pub(crate) stats: Arc<Stats>,
    /// NAR frames under way for this peer.
    pub(crate) frames: Arc<Semaphore>,
    pub(crate) requests: Bucket,
    /// Requests refused for their rate; when this runs out too, the peer is flooding.
    pub(crate) refusals: Bucket,
    pub(crate) silent: AtomicBool,
    /// Datagrams received, and when that number last changed.
    heard: Mutex<(u64, Instant)>,
    /// When a send last had to wait, in milliseconds since `born`, plus one.
    blocked_at: AtomicU64,
    born: Instant,
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

    fn alive(&self) -> bool {
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

/// What is known of one peer.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) link: Option<Arc<Link>>,
    pub(crate) addrs: Vec<SocketAddr>,
    /// Announced by mDNS right now.
    pub(crate) discovered: bool,
    /// Named in the configuration.
    pub(crate) fixed: bool,
    pub(crate) dialling: bool,
    pub(crate) next_dial: Instant,
    failures: u32,
    pub(crate) stats: Arc<Stats>,
    faults: u64,
    reasons: VecDeque<String>,
    membership: Membership,
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self {
            link: None,
            addrs: Vec::new(),
            discovered: false,
            fixed: false,
            dialling: false,
            next_dial: now,
            failures: 0,
            stats: Arc::default(),
            faults: 0,
            reasons: VecDeque::new(),
            membership: Membership::Stranger,
        }
    }

    fn link(&self) -> Option<&Arc<Link>> {
        self.link.as_ref().filter(|link| link.alive())
    }

    /// Whether there is a reason to dial at all.
    fn wanted(&self) -> bool {
        (self.discovered || self.fixed) && !self.addrs.is_empty() && !self.dialling
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
    pub(crate) serve: Arc<dyn Serve>,
    pub(crate) started: Instant,
    pub(crate) endpoints: Mutex<Vec<Endpoint>>,
    pub(crate) runtime: OnceLock<tokio::runtime::Handle>,
    pub(crate) peers: Mutex<Peers>,
    pub(crate) hints: RwLock<Directory>,
    pub(crate) events: broadcast::Sender<MeshEvent>,
    /// Wakes the task that dials.
    pub(crate) wake: Notify,
    pub(crate) frames: Arc<Semaphore>,
    pub(crate) cache: FrameCache,
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

/// What becomes of a new connection.
pub(crate) enum Adopted {
    /// It is the peer's connection now; the one it replaces, if any, is to be closed after a grace.
    Kept(Option<Arc<Link>>),
    /// Another connection of the same pair stays; close this one after a grace.
    Superseded,
    /// Close it at once with this code.
    Refused(u32),
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
    ) -> Arc<Link> {
        let stats = {
            let mut peers = self.lock_peers();
            let entry = peers.entries.entry(peer).or_insert_with(|| Entry::new(Instant::now()));
            Arc::clone(&entry.stats)
        };
        let limits = &self.config.limits;
        Arc::new(Link {
            conn,
            peer,
            membership,
            dialler,
            stats,
            frames: Arc::new(Semaphore::new(limits.frames_per_peer)),
            requests: Bucket::new(limits.requests_per_second, limits.request_burst),
            refusals: Bucket::new(limits.requests_per_second, limits.request_burst),
            silent: AtomicBool::new(false),
            heard: Mutex::new((0, Instant::now())),
            blocked_at: AtomicU64::new(0),
            born: Instant::now(),
        })
    }

    /// Whether one more peer may be remembered; forgets an unconnected, undiscovered one if need be.
    pub(crate) fn make_room(&self, peers: &mut Peers, peer: &PeerId) -> bool {
        if peers.entries.contains_key(peer) || peers.entries.len() < self.config.limits.peers {
            return true;
        }
        let victim = peers
            .entries
            .iter()
            .find(|(_, entry)| entry.link().is_none() && !entry.fixed && !entry.discovered)
            .map(|(peer, _)| *peer);
        victim.is_some_and(|victim| peers.entries.remove(&victim).is_some())
    }

    /// Takes a new connection in, or not. Of two connections of one pair both ends keep the one that the smaller key
    /// dialled; of two dialled by the same end, the newer (the other end has lost the older, or it would not dial).
    pub(crate) fn adopt(&self, link: &Arc<Link>) -> Adopted {
        if link.peer == self.id {
            return Adopted::Refused(code::SELF);
        }
        let now = self.now();
        let mut peers = self.lock_peers();
        if !self.make_room(&mut peers, &link.peer) {
            return Adopted::Refused(code::FULL);
        }
        if !peers.table.connected(link.peer, now) {
            return Adopted::Refused(code::BANNED);
        }
        let entry = peers.entries.entry(link.peer).or_insert_with(|| Entry::new(Instant::now()));
        entry.failures = 0;
        entry.membership = link.membership;
        let old = entry.link.take().filter(|old| old.alive());
        if let Some(old) = &old
            && old.dialler != link.dialler
            && old.dialler < link.dialler
            && !old.silent.load(Ordering::Relaxed)
        {
            entry.link = Some(Arc::clone(old));
            return Adopted::Superseded;
        }
        entry.link = Some(Arc::clone(link));
        let addr = link.addr();
        entry.addrs.retain(|known| *known != addr);
        if link.dialler == self.id {
            // It answered there: try it first next time.
            entry.addrs.insert(0, addr);
            entry.addrs.truncate(ADDRS_MAX);
        }
        Adopted::Kept(old)
    }

    /// Books the end of a connection. True if it was the peer's present one.
    pub(crate) fn lost(&self, link: &Arc<Link>, reason: &quinn::ConnectionError) -> bool {
        let mut peers = self.lock_peers();
        let Some(entry) = peers.entries.get_mut(&link.peer) else {
            return false;
        };
        if !entry.link.as_ref().is_some_and(|current| Arc::ptr_eq(current, link)) {
            return false;
        }
        entry.link = None;
        let pause = match closed_with(reason) {
            Some(code::STRANGER) => REDIAL_STRANGER,
            Some(code::SHUTDOWN | code::FULL) => REDIAL_MIN * 4,
            _ => REDIAL_MIN / 2,
        };
        entry.next_dial = Instant::now() + pause;
        peers.table.disconnected(&link.peer);
        drop(peers);
        let mut hints = write(&self.hints);
        // Unless the next connection is up already, and its holdings may be in.
        if self.link(&link.peer).is_none() {
            hints.remove_peer(&link.peer);
        }
        drop(hints);
        self.wake.notify_one();
        true
    }

    /// Learns where a peer is. `discovered` from mDNS, else from the configuration.
    pub(crate) fn learn(&self, peer: PeerId, addrs: &[SocketAddr], discovered: bool) {
        if peer == self.id {
            return;
        }
        let now = self.now();
        let mut peers = self.lock_peers();
        if !self.make_room(&mut peers, &peer) || !peers.table.discovered(peer, now) {
            return;
        }
        let smaller = self.id < peer;
        let entry = peers.entries.entry(peer).or_insert_with(|| {
            let mut entry = Entry::new(Instant::now());
            if !smaller {
                entry.next_dial += DIAL_SECOND;
            }
            entry
        });
        if discovered {
            entry.discovered = true;
        } else {
            entry.fixed = true;
        }
        let news = addrs.iter().any(|addr| !entry.addrs.contains(addr));
        if news {
            let mut merged: Vec<SocketAddr> = addrs.to_vec();
            merged.extend(entry.addrs.iter().filter(|addr| !addrs.contains(addr)));
            merged.truncate(ADDRS_MAX);
            entry.addrs = merged;
            // A new address is a new chance: forget how often the old ones failed.
            entry.failures = 0;
            if entry.link().is_none() && !entry.dialling {
                entry.next_dial =
                    Instant::now() + if smaller { Duration::ZERO } else { DIAL_SECOND };
            }
        }
        drop(peers);
        self.wake.notify_one();
    }

    /// A peer's announcement ended. A standing connection stays; without one, the peer is no longer dialled.
    pub(crate) fn unlearn(&self, peer: &PeerId) {
        let now = self.now();
        let mut peers = self.lock_peers();
        let Some(entry) = peers.entries.get_mut(peer) else {
            return;
        };
        entry.discovered = false;
        if entry.link().is_none() && !entry.fixed {
            entry.addrs.clear();
            peers.table.gone(peer, now);
        }
    }

    /// Peers to dial now, marked as being dialled, and when to look again.
    pub(crate) fn due(&self) -> (Vec<(PeerId, Vec<SocketAddr>)>, Option<Instant>) {
        let now = Instant::now();
        let table_now = self.now();
        let mut peers = self.lock_peers();
        let Peers { entries, table } = &mut *peers;
        let connected = entries.values().filter(|entry| entry.link().is_some()).count();
        let mut room = self.config.limits.connections.saturating_sub(connected);
        let mut due = Vec::new();
        let mut next: Option<Instant> = None;
        for (peer, entry) in entries.iter_mut() {
            let usable_link = entry.link().is_some_and(|link| !link.silent.load(Ordering::Relaxed));
            if usable_link || !entry.wanted() || room == 0 {
                continue;
            }
            if matches!(table.state(peer, table_now), Some(State::Banned { .. })) {
                entry.next_dial = entry.next_dial.max(now + REDIAL_MIN * 4);
            }
            if entry.next_dial <= now {
                entry.dialling = true;
                room -= 1;
                due.push((*peer, entry.addrs.clone()));
            } else {
                next = Some(next.map_or(entry.next_dial, |at| at.min(entry.next_dial)));
            }
        }
        (due, next)
    }

    /// Books the end of a dial.
    pub(crate) fn dialled(&self, peer: &PeerId, outcome: Dialled) {
        let mut peers = self.lock_peers();
        if let Some(entry) = peers.entries.get_mut(peer) {
            entry.dialling = false;
            entry.failures = match outcome {
                Dialled::Connected(_) => 0,
                _ => entry.failures.saturating_add(1),
            };
            let pause = match outcome {
                Dialled::Unwelcome => REDIAL_STRANGER,
                _ => redial_pause(entry.failures),
            };
            entry.next_dial = Instant::now() + pause;
        }
        drop(peers);
        self.wake.notify_one();
    }

    /// The peer's present connection.
    pub(crate) fn link(&self, peer: &PeerId) -> Option<Arc<Link>> {
        self.lock_peers().entries.get(peer)?.link().cloned()
    }

    /// Lets go of every socket, so that the ports are free while handles still exist.
    pub(crate) fn clear(&self) {
        lock(&self.endpoints).clear();
        let mut peers = self.lock_peers();
        for entry in peers.entries.values_mut() {
            entry.link = None;
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

    /// Connections and those from one address.
    pub(crate) fn connection_counts(&self, from: IpAddr) -> (usize, usize) {
        let peers = self.lock_peers();
        let links = peers.entries.values().filter_map(Entry::link);
        let from = from.to_canonical();
        links.fold((0, 0), |(all, same), link| {
            (all + 1, same + usize::from(link.addr().ip() == from))
        })
    }

    /// Applies holdings that arrived on `link`; ignored unless it is the peer's present connection. May take some
    /// milliseconds for a large snapshot: for a blocking thread.
    pub(crate) fn take_holdings(
        &self,
        link: &Arc<Link>,
        message: &Message,
    ) -> Result<(), DirectoryError> {
        let count = {
            // Both locks, in this order, so that the end of the connection cannot come between.
            let mut hints = write(&self.hints);
            let current = self.link(&link.peer);
            if !current.is_some_and(|current| Arc::ptr_eq(&current, link)) {
                return Ok(());
            }
            match message {
                Message::Snapshot(snapshot) => drop(hints.apply_snapshot(link.peer, snapshot)?),
                Message::Delta(delta) => hints.apply_delta(link.peer, delta)?,
            }
            hints.entries(&link.peer)
        };
        self.emit(MeshEvent::Holdings { peer: link.peer, count });
        Ok(())
    }

    pub(crate) fn blame(&self, peer: &PeerId, fault: Fault, detail: Option<&str>) {
        let now = self.now();
        let reason =
            detail.map_or_else(|| fault.to_string(), |detail| format!("{fault}: {detail}"));
        let (verdict, link) = {
            let mut peers = self.lock_peers();
            let Peers { entries, table } = &mut *peers;
            let Some(entry) = entries.get_mut(peer) else {
                return;
            };
            entry.faults += 1;
            if entry.reasons.len() == REASONS_MAX {
                entry.reasons.pop_front();
            }
            entry.reasons.push_back(reason.clone());
            (table.blame(peer, fault, now), entry.link().cloned())
        };
        let banned = matches!(verdict, Verdict::Banned { .. });
        if banned {
            tracing::warn!(peer = %peer.short(), %reason, "peer banned");
            if let Some(link) = link {
                link.close(code::BANNED, "banned");
            }
        } else {
            tracing::debug!(peer = %peer.short(), %reason, "peer blamed");
        }
        self.emit(MeshEvent::Blamed { peer: *peer, reason, banned });
    }

    pub(crate) fn emit(&self, event: MeshEvent) {
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }

    /// Peers to ask for a prefix and `bytes` of content, best first, with reasons.
    pub(crate) fn candidates(&self, prefix: u32, bytes: u64) -> Ranking {
        let random = self.random();
        let holders = read(&self.hints).who_has(prefix, random);
        if holders.is_empty() {
            return Ranking::default();
        }
        self.rank(holders, bytes, random)
    }

    fn rank(
        &self,
        candidates: impl IntoIterator<Item = PeerId>,
        bytes: u64,
        random: u64,
    ) -> Ranking {
        let now = self.now();
        let mut peers = self.lock_peers();
        let Peers { entries, table } = &mut *peers;
        let mut reachable: Vec<PeerId> = Vec::new();
        for peer in candidates {
            let Some(link) = entries.get(&peer).and_then(Entry::link) else { continue };
            if link.silent.load(Ordering::Relaxed) {
                continue;
            }
            // An answer that waits behind others on a busy line is late, not silent: packets arrive.
            if matches!(table.state(&peer, now), Some(State::Silent { .. }))
                && link.quiet_for(Instant::now()) < SILENCE
            {
                table.heard(&peer, now);
            }
            reachable.push(peer);
        }
        choose::rank(table, reachable, bytes, now, random)
    }

    pub(crate) fn hedge_delay(&self) -> Duration {
        choose::hedge_delay(self.lock_peers().table.first_byte())
    }

    /// Spreads choices; nothing secret hangs on it.
    fn random(&self) -> u64 {
        let step = self.dice.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (step ^ (step >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 27)
    }

    /// Connected, usable peers without holdings.
    pub(crate) fn unannounced(&self) -> Vec<PeerId> {
        let connected: Vec<PeerId> = self.links().iter().map(|link| link.peer).collect();
        let silent: Vec<PeerId> = {
            let hints = read(&self.hints);
            connected.into_iter().filter(|peer| hints.version(peer).is_none()).collect()
        };
        self.rank(silent, 0, self.random()).peers().collect()
    }

    pub(crate) fn views(&self) -> Vec<PeerView> {
        let now = self.now();
        let hints = read(&self.hints);
        let peers = self.lock_peers();
        let mut views: Vec<PeerView> = peers
            .entries
            .iter()
            .map(|(peer, entry)| view(peer, entry, &peers.table, &hints, now))
            .collect();
        views.sort_by_key(|view| (view.state != PeerState::Connected, view.id));
        views
    }
}

fn view(peer: &PeerId, entry: &Entry, table: &PeerTable, hints: &Directory, now: Now) -> PeerView {
    let link = entry.link();
    let banned_for = match table.state(peer, now) {
        Some(State::Banned { until, .. }) => Some(until.since(now)),
        _ => None,
    };
    let state = match link {
        _ if banned_for.is_some() => PeerState::Banned,
        Some(link) if link.silent.load(Ordering::Relaxed) => PeerState::Silent,
        Some(_) => PeerState::Connected,
        None if entry.dialling => PeerState::Dialling,
        None => PeerState::Known,
    };
    let mut addrs: Vec<SocketAddr> = link.map(|link| link.addr()).into_iter().collect();
    addrs.extend(entry.addrs.iter().filter(|addr| link.is_none_or(|link| link.addr() != **addr)));
    let wire = link.map(|link| link.conn.stats());
    PeerView {
        id: *peer,
        addrs,
        membership: link.map_or(entry.membership, |link| link.membership),
        state,
        rtt: link.map(|link| link.conn.rtt()),
        holdings: hints.version(peer).map(|_| hints.entries(peer)),
        bytes_given: entry.stats.given.load(Ordering::Relaxed),
        bytes_taken: entry.stats.taken.load(Ordering::Relaxed),
        wire_sent: wire.as_ref().map_or(0, |wire| wire.udp_tx.bytes),
        wire_received: wire.as_ref().map_or(0, |wire| wire.udp_rx.bytes),
        asked_us: entry.stats.asked_us.load(Ordering::Relaxed),
        asked_it: entry.stats.asked_it.load(Ordering::Relaxed),
        faults: entry.faults,
        banned_for,
        reasons: entry.reasons.iter().cloned().collect(),
        discovered: entry.discovered,
    }
}

fn redial_pause(failures: u32) -> Duration {
    REDIAL_MIN
        .saturating_mul(1_u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX))
        .min(REDIAL_MAX)
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

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}
