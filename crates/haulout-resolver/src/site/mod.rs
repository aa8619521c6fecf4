//! One download per site: what must come from outside is fetched by one agent and relayed to all.
//!
//! [`haulout_swarm::site`] has the rules; this is the engine that runs them. Somebody who wants a [`SiteObject`] calls
//! [`Site::stream`] or [`Site::document`]; the mesh hands requests of peers to [`Site::serve`]. Both meet at the same
//! segments: one `segment::Segment` holds what is here of each, one task fills it (from its home, or from an [`Outside`]),
//! any number of readers follow it while it grows.
//!
//! To plug in a new kind of thing from outside, implement [`Outside`] and give it to [`Site::add`]. Nothing that comes out
//! of here is verified: whoever wanted the object checks it, and says with [`Site::wrong`] when it is not what it should
//! be; the engine then finds out who lied.

pub(crate) mod ahead;
mod drive;
mod expiry;
mod liars;
pub(crate) mod nars;
mod room;
mod segment;
mod serve;
mod stream;
#[cfg(test)]
mod tests;
mod turns;
pub(crate) mod upstream;
pub mod walrus;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use haulout_cache::Spill;
use haulout_mesh::{Membership, SiteRequest};
use haulout_nix::HashPart;
use haulout_swarm::rate::Urgency;
use haulout_swarm::site::{
    Cut, DESCRIPTOR_MAX, Duty, DutyLimits, Fellows, OutsideId, SegmentKey, SiteKey,
};
use lru::LruCache;
use ring::digest::{Context, SHA256};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::limit::Intake;
use crate::peers::Peers;
use crate::stats::Stats;
pub use ahead::{AHEAD_BYTES, AheadLimits};
use segment::Segment;
pub use stream::SiteError;

/// Bytes of segments that are kept in memory, at most; beyond it nothing is fetched for others, and of what nobody reads
/// the least worth is let go of ([`haulout_swarm::site::Worth`]).
pub const MEMORY_BYTES: u64 = 96 << 20;
/// The least that [`MEMORY_BYTES`] may be set to: what one object has under way, and as much for others.
pub const MEMORY_MIN: u64 = 16 << 20;
/// Segments kept, at most: most are narinfos and small files.
const SEGMENTS_MAX: usize = 4_096;
/// Segments remembered as fetched from outside: of 64 GiB.
const FETCHED_MAX: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// Something that must come from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteObject {
    /// Its name.
    pub key: SiteKey,
    /// Its size; `None` for a document.
    pub size: Option<Cut>,
    /// Where it is to be had.
    pub outside: OutsideId,
    /// What else a home must know to fetch it, at most [`DESCRIPTOR_MAX`] bytes.
    pub descriptor: Bytes,
}

impl SiteObject {
    /// The object a peer asks about.
    fn of(request: &SiteRequest) -> Self {
        Self {
            key: request.segment.object,
            size: request.size,
            outside: request.outside,
            descriptor: request.descriptor.clone(),
        }
    }

    fn request(&self, index: u32, from: u64, urgency: Urgency) -> SiteRequest {
        debug_assert!(self.descriptor.len() <= DESCRIPTOR_MAX);
        SiteRequest {
            segment: self.key.segment(index),
            size: self.size,
            from,
            outside: self.outside,
            descriptor: self.descriptor.clone(),
            held: false,
            urgency,
            packed: false,
        }
    }

    /// Length of a segment; `None` for a document.
    fn segment_len(&self, index: u32) -> Option<u64> {
        let range = self.size?.range(index);
        Some(range.end - range.start)
    }
}

/// Why the outside gives nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutsideError {
    /// It was asked, and does not have it.
    #[error("is not there")]
    Absent,
    /// This agent does not fetch that: it does not know the object, or does not believe in it.
    #[error("is not fetched: {0}")]
    Refused(String),
    /// It could not be reached, or broke off.
    #[error("cannot be had: {0}")]
    Failed(String),
}

/// Bytes from outside.
pub type Body = BoxStream<'static, Result<Bytes, OutsideError>>;

/// A place outside the site: binary caches, a Walrus network.
///
/// The object comes from anybody on the network: an implementation only ever contacts what it was itself configured with,
/// and refuses objects whose key does not fit what it finds out itself about the descriptor.
pub trait Outside: Send + Sync + 'static {
    /// The places it reaches, by the names that all agents use for them.
    fn ids(&self) -> Vec<OutsideId>;

    /// Those of them that the other agents are told of: from where this one fetches for them.
    fn announced(&self) -> Vec<OutsideId> {
        self.ids()
    }

    /// Opens `range` of the object; all of it, whatever its length, for a document (`None`). The stream ends after the
    /// last byte of the range. Has its own time-outs.
    fn fetch(
        &self,
        object: SiteObject,
        range: Option<Range<u64>>,
    ) -> BoxFuture<'static, Result<Body, OutsideError>>;

    /// Whether such a peer may have the object: what is private, and what comes from a cache that wants a password, is not
    /// for strangers. Asked for every request, also for what is here already.
    fn may_give(&self, object: &SiteObject, to: Membership) -> BoxFuture<'static, bool>;

    /// Whether this machine keeps the object itself. Answered from memory.
    fn keeps(&self, object: &SiteObject) -> bool {
        let _ = object;
        false
    }

    /// What this machine keeps of the object: all of it, found right before. `None` if it turns out not to be.
    fn kept(&self, object: SiteObject) -> BoxFuture<'static, Option<Bytes>> {
        let _ = object;
        Box::pin(async { None })
    }
}

/// Where the bytes of an object came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CameFrom {
    /// This machine kept it.
    Here,
    /// The outside, fetched by this agent.
    Outside,
    /// Peers, some of it at least.
    Peers,
}

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct Site {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    peers: RwLock<Arc<dyn Peers>>,
    outsides: RwLock<Vec<Arc<dyn Outside>>>,
    segments: Mutex<HashMap<SegmentKey, Arc<Segment>>>,
    duty: Mutex<Duty>,
    /// For which segments this agent went outside lately: to count those that it must have twice.
    fetched: Mutex<LruCache<SegmentKey, ()>>,
    /// How those fared that fetch at the same time.
    fellows: Mutex<Fellows>,
    /// Held while the standing is told, so that it is told in the order of its changes.
    announcing: Mutex<()>,
    /// Bytes of segments in memory, at most.
    memory: u64,
    stats: Arc<Stats>,
    begun: Instant,
    /// The limit on what comes from outside.
    download: Intake,
    /// The limit on what comes from peers.
    from_peers: Arc<Intake>,
    /// Where pieces go that others still want and that do not fit into memory.
    spill: OnceLock<Spill>,
    /// Where fetches run: requests of peers come in on the mesh's own thread.
    runtime: OnceLock<Handle>,
    /// Readers for this machine's Nix that wait for bytes.
    nix_waits: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// SHA-256 over these parts: how objects and places are named.
fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut id = [0; 32];
    id.copy_from_slice(context.finish().as_ref());
    id
}

impl Site {
    /// An engine without peers or outsides; willing to fetch for others or not, with room for so many bytes of pieces
    /// ([`MEMORY_BYTES`], not less than [`MEMORY_MIN`]).
    pub fn new(stats: Arc<Stats>, willing: bool, memory: u64) -> Self {
        let inner = Inner {
            peers: RwLock::new(Arc::new(crate::peers::NoPeers)),
            outsides: RwLock::default(),
            segments: Mutex::default(),
            duty: Mutex::new(Duty::new(DutyLimits::default(), willing)),
            fetched: Mutex::new(LruCache::new(FETCHED_MAX)),
            fellows: Mutex::default(),
            announcing: Mutex::default(),
            memory: memory.max(MEMORY_MIN),
            stats,
            begun: Instant::now(),
            download: Intake::new(),
            from_peers: Arc::new(Intake::new()),
            spill: OnceLock::new(),
            runtime: OnceLock::new(),
            nix_waits: AtomicUsize::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The mesh, once it runs. To be called on the runtime that fetches shall run on.
    pub fn set_peers(&self, peers: Arc<dyn Peers>) {
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(expiry::sweep(Arc::downgrade(&self.inner)));
            let _ = self.inner.runtime.set(runtime);
        }
        *self.inner.peers.write().unwrap_or_else(PoisonError::into_inner) = peers;
        self.inner.announce();
    }

    /// Lets go of the peers and of every place outside, which hold on to this engine themselves.
    pub(crate) fn close(&self) {
        let nobody: Arc<dyn Peers> = Arc::new(crate::peers::NoPeers);
        *self.inner.peers.write().unwrap_or_else(PoisonError::into_inner) = nobody;
        self.inner.outsides.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Adds a place outside.
    pub fn add(&self, outside: Arc<dyn Outside>) {
        self.inner.outsides.write().unwrap_or_else(PoisonError::into_inner).push(outside);
        self.inner.announce();
    }

    /// Tells the peers again from where this agent fetches, after an [`Outside`] changed its mind.
    pub fn outsides_changed(&self) {
        self.inner.announce();
    }

    /// Limits what comes from outside, in bytes per second; `None`: no limit.
    pub fn limit_download(&self, bytes_per_second: Option<u64>) {
        self.inner.download.set(bytes_per_second);
    }

    /// The limit on what comes from peers, for everybody who takes it.
    pub(crate) fn peers_limit(&self) -> &Arc<Intake> {
        &self.inner.from_peers
    }

    /// Bytes of pieces kept for others: in memory, on the disk.
    pub(crate) fn kept(&self) -> (u64, u64) {
        let (held, _) = self.inner.held();
        (held.in_memory + held.leaving, held.on_disk)
    }

    /// Pieces that others still want and that do not fit into memory go there from now on. Only the first call counts.
    pub fn keep_on_disk(&self, spill: Spill) {
        let _ = self.inner.spill.set(spill);
    }

    /// Whether this agent fetches for others from now on.
    pub fn set_willing(&self, willing: bool) {
        lock(&self.inner.duty).set_willing(willing);
        self.inner.announce();
    }

    /// Whether a peer can serve this path: then nothing of it is to come from outside.
    pub(crate) fn is_held(&self, path: &HashPart) -> bool {
        self.holders_of(path) > 0
    }

    /// How many peers can serve this path, as far as is known.
    pub(crate) fn holders_of(&self, path: &HashPart) -> usize {
        self.inner.peers().who_has(path).len()
    }

    /// How many others fetch from a place, for themselves or for all.
    pub(crate) fn others(&self, place: OutsideId) -> usize {
        self.inner.peers().others(place.tag())
    }

    /// Whether the beginning of an object is here, or on its way.
    pub(crate) fn is_here(&self, object: &SiteObject) -> bool {
        let first = self.inner.known(&object.key.segment(0));
        first.is_some_and(|segment| segment.object == *object && segment.is_alive())
    }

    /// The same, when nobody known can: the homes of its entry are asked who can.
    pub(crate) async fn is_found(&self, path: &HashPart) -> bool {
        if !self.is_held(path)
            && let Some(locate) = self.inner.peers().locate(path)
        {
            locate.await;
        }
        self.is_held(path)
    }

    /// Whether much of the memory for segments is in use.
    pub(crate) fn is_busy(&self) -> bool {
        let held: u64 = lock(&self.inner.segments)
            .values()
            .filter(|segment| segment.idle_since().is_none())
            .map(|segment| segment.bytes().in_memory)
            .sum();
        held > self.inner.memory / 2
    }

    /// Whether this machine's Nix waits for something that is on its way.
    pub(crate) fn nix_waits(&self) -> bool {
        self.inner.nix_waits.load(Ordering::Relaxed) > 0
    }

    /// Whether anything can be fetched from this place, by this agent.
    pub fn reaches(&self, outside: OutsideId) -> bool {
        self.inner.outside(outside).is_some()
    }

    /// Whether this machine kept an object that was just read.
    pub(crate) fn came_from_here(&self, object: &SiteObject) -> bool {
        self.of(object, |segment| segment.came_from()) == Some(CameFrom::Here)
    }

    /// Whether no byte of an object that was just read came from a peer.
    pub(crate) fn is_own(&self, object: &SiteObject) -> bool {
        self.of(object, |segment| segment.came_from()).is_some_and(|from| from < CameFrom::Peers)
    }

    /// Counts an object that was just read: where its bytes came from, and from here if it is read again. `None` if it is no
    /// longer in memory.
    pub(crate) fn attribute(&self, object: &SiteObject) -> Option<CameFrom> {
        self.of(object, |segment| segment.attribute())
    }

    /// The farthest that a segment of the object came from.
    fn of(&self, object: &SiteObject, ask: impl Fn(&Segment) -> CameFrom) -> Option<CameFrom> {
        let count = object.size.map_or(1, Cut::count);
        let segments = lock(&self.inner.segments);
        let of = (0..count).filter_map(|index| segments.get(&object.key.segment(index)));
        of.map(|segment| ask(segment)).max()
    }

    /// How many peers announce that they hold an object of this id, as far as 32 bits tell.
    pub(crate) fn holders(&self, id: &[u8; 32]) -> usize {
        self.holders_of(&held_as(id))
    }

    /// Forgets an object.
    pub fn forget(&self, object: &SiteObject) {
        self.inner.forget(object);
    }
}

impl Inner {
    /// Runs something on the agent's runtime, whatever thread this is.
    fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        match self.runtime.get() {
            Some(runtime) => runtime.spawn(work),
            None => tokio::spawn(work),
        }
    }

    /// The same for what blocks.
    fn spawn_blocking(&self, work: impl FnOnce() + Send + 'static) {
        match self.runtime.get() {
            Some(runtime) => runtime.spawn_blocking(work),
            None => tokio::task::spawn_blocking(work),
        };
    }

    fn peers(&self) -> Arc<dyn Peers> {
        Arc::clone(&self.peers.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn outside(&self, id: OutsideId) -> Option<Arc<dyn Outside>> {
        let all = self.outsides.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|outside| outside.ids().contains(&id)).cloned()
    }

    fn announce(&self) {
        let _in_order = lock(&self.announcing);
        let all = self.outsides.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut tags: Vec<u32> = Vec::new();
        for id in all.iter().flat_map(|outside| outside.announced()) {
            if !tags.contains(&id.tag()) {
                tags.push(id.tag());
            }
        }
        tags.truncate(haulout_swarm::site::OUTSIDES_MAX);
        self.peers().set_standing(lock(&self.duty).is_willing(), &tags);
    }

    fn now(&self) -> haulout_swarm::Now {
        haulout_swarm::Now::from_start(self.begun.elapsed())
    }

    /// The segment, made if need be.
    fn segment(self: &Arc<Self>, object: &SiteObject, index: u32) -> Arc<Segment> {
        if lock(&self.segments).len() >= SEGMENTS_MAX {
            self.make_room(SEGMENTS_MAX * 3 / 4);
        }
        let mut segments = lock(&self.segments);
        if let Some(segment) = segments.get(&object.key.segment(index))
            && segment.object == *object
        {
            return Arc::clone(segment);
        }
        let segment = Arc::new(Segment::new(object.clone(), index));
        segments.insert(object.key.segment(index), Arc::clone(&segment));
        segment
    }

    /// A segment that something is here of.
    fn known(&self, key: &SegmentKey) -> Option<Arc<Segment>> {
        lock(&self.segments).get(key).cloned()
    }

    fn forget(&self, object: &SiteObject) {
        lock(&self.segments).retain(|key, _| key.object != object.key);
    }

    /// Removes one segment that ended badly, so that the next who wants it starts afresh.
    fn drop_failed(&self, segment: &Arc<Segment>) {
        let mut segments = lock(&self.segments);
        let key = segment.key();
        if segments.get(&key).is_some_and(|kept| Arc::ptr_eq(kept, segment)) {
            segments.remove(&key);
        }
    }
}

/// What an object that is no store path goes by in holdings: the first bytes of its id.
pub(crate) fn held_as(id: &[u8; 32]) -> HashPart {
    let mut part = [0; 20];
    part.copy_from_slice(&id[..20]);
    HashPart::from_bytes(part)
}
