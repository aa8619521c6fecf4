//! NARs from peers: verified while they arrive, delivered in order.
//!
//! One task per NAR writes into a `ring::Ring`; every HTTP response that
//! wants the NAR reads from it. The task lives as long as anybody reads (and
//! a little longer, for a client that comes back), so nobody is the leader
//! whose departure would hurt.

mod budget;
mod claims;
mod dispute;
mod distrust;
mod feed;
mod fellows;
mod flow;
mod gate;
mod hash;
pub(crate) mod holders;
mod large;
mod multi;
mod outside;
mod ring;
mod roster;
mod single;
mod sink;
mod small;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use haulout_gateway::Client;
use haulout_mesh::{NarKey, NarTree};
use haulout_nix::{NarHash, PathInfo, StorePath};
use haulout_swarm::rate::Urgency;
use haulout_swarm::{Fault, PeerId};
use tokio::time::{Instant, timeout};

pub use budget::{BUDGET_BYTES, Budget, WINDOW_MAX, WINDOW_MIN};
pub(crate) use fellows::NarFellows;
pub use outside::NarBytes;
pub(crate) use outside::NarOutside;
pub use ring::CutReason;
pub(crate) use ring::Reader;

use crate::bounded::Bounded;
use crate::keep::{Keeper, Provenance};
use crate::limit::Intake;
use crate::peers::Peers;
use crate::reasons::Reasons;
use crate::stats::Stats;
use crate::trees::Trees;
use claims::Ahead;
use dispute::Spools;
use distrust::Distrust;
use ring::Ring;
use roster::Roster;

/// How long a transfer nobody reads is kept waiting for its reader to return.
pub const ABANDONED: Duration = Duration::from_secs(4);
/// How long a request waits for memory before it is answered "no".
pub const MEMORY_PATIENCE: Duration = Duration::from_secs(10);
/// A reader may join a transfer that is at most this far behind the offset it
/// wants, in bytes; else it gets a transfer of its own.
pub const JOIN_AHEAD: u64 = 4 << 20;

/// What is called when a NAR has been received whole.
pub(crate) type Received = Box<dyn Fn(&NarKey) + Send + Sync>;

/// Where bytes go besides to their readers.
pub(crate) struct Aside<'a> {
    /// For disputed NARs.
    pub(crate) spool_dir: &'a Path,
    /// For NARs that stay.
    pub(crate) keeper: Option<Arc<Keeper>>,
}

/// All transfers of the agent.
#[derive(Clone)]
pub(crate) struct Transfers {
    pub(crate) shared: Arc<Shared>,
}

/// What every transfer needs.
pub(crate) struct Shared {
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) budget: Budget,
    pub(crate) trees: Arc<Trees>,
    pub(crate) ahead: Ahead,
    pub(crate) distrust: Distrust,
    pub(crate) spools: Spools,
    pub(crate) stats: Arc<Stats>,
    pub(crate) reasons: Arc<Reasons>,
    flights: Mutex<HashMap<NarKey, Flight>>,
    keeper: Option<Arc<Keeper>>,
    /// Where NARs come from that no peer has, once that is known.
    pub(crate) outside: OnceLock<Arc<dyn NarOutside>>,
    /// Those that fetch from the same holders, once that is known.
    pub(crate) fellows: OnceLock<Arc<dyn NarFellows>>,
    /// The limit on what comes from peers, once that is known.
    pub(crate) limit: OnceLock<Arc<Intake>>,
    /// What holders promised, for those that fetch together.
    pub(crate) promises: Bounded<NarHash, holders::Promise>,
    received: Received,
}

/// A running transfer, as others see it.
struct Flight {
    ring: Weak<Ring>,
    path: StorePath,
    begun: Instant,
    sources: Arc<Mutex<BTreeSet<PeerId>>>,
}

/// One running transfer, for status pages.
pub(crate) struct Progress {
    pub(crate) path: StorePath,
    pub(crate) sources: Vec<PeerId>,
    pub(crate) done: u64,
    pub(crate) size: u64,
    pub(crate) running: Duration,
}

impl Shared {
    /// NAR bytes came from a peer: counts them, and waits as the limit says.
    /// True if it had to.
    pub(crate) async fn took(&self, bytes: u64) -> bool {
        self.stats.bytes_in.add(bytes);
        match self.limit.get() {
            Some(limit) => limit.took(bytes, Urgency::Awaited).await,
            None => false,
        }
    }

    /// A peer told an untruth about this NAR.
    pub(crate) fn convict(&self, peer: PeerId, key: NarKey, fault: Fault) {
        if self.distrust.has(peer, key.nar_hash) {
            // Found out and reported already.
            return;
        }
        self.reasons.note(&key.path, format!("peer {} lied: {fault}", peer.short()));
        self.stats.lies.one();
        self.distrust.add(peer, key.nar_hash);
        self.peers.blame(peer, fault);
    }
}

impl Transfers {
    pub(crate) fn new(
        peers: Arc<dyn Peers>,
        budget: Budget,
        trees: Arc<Trees>,
        stats: Arc<Stats>,
        reasons: Arc<Reasons>,
        aside: Aside<'_>,
        received: Received,
    ) -> Self {
        let shared = Shared {
            peers,
            budget,
            trees,
            ahead: Ahead::new(),
            distrust: Distrust::new(),
            spools: Spools::new(aside.spool_dir),
            stats,
            reasons,
            flights: Mutex::new(HashMap::new()),
            keeper: aside.keeper,
            outside: OnceLock::new(),
            fellows: OnceLock::new(),
            limit: OnceLock::new(),
            promises: Bounded::new(holders::PROMISES_BYTES),
            received,
        };
        Self { shared: Arc::new(shared) }
    }

    /// This NAR will probably be asked for soon: lets its holders prepare.
    pub(crate) fn prepare(&self, info: &PathInfo) {
        claims::prepare(&self.shared, key_of(info));
    }

    /// Where NARs come from that no peer has, from now on.
    pub(crate) fn set_outside(&self, outside: Arc<dyn NarOutside>) {
        let _ = self.shared.outside.set(outside);
    }

    /// How fast bytes may come from peers, from now on.
    pub(crate) fn set_limit(&self, limit: Arc<Intake>) {
        let _ = self.shared.limit.set(limit);
    }

    /// Who else fetches, from now on.
    pub(crate) fn set_fellows(&self, fellows: Arc<dyn NarFellows>) {
        let _ = self.shared.fellows.set(fellows);
    }

    /// The verified NAR from byte `from` on, for this machine's Nix.
    #[cfg(test)]
    pub(crate) async fn open(
        &self,
        info: &PathInfo,
        hint: Option<PeerId>,
        from: u64,
    ) -> Option<Reader> {
        self.open_for(Client::OwnNix, info, hint, from).await
    }

    /// The verified NAR from byte `from` on. `None`: it cannot be had. The
    /// answer comes when the first bytes are at hand.
    pub(crate) async fn open_for(
        &self,
        client: Client,
        info: &PathInfo,
        hint: Option<PeerId>,
        from: u64,
    ) -> Option<Reader> {
        let key = key_of(info);
        if from > key.nar_size || (from > 0 && self.shared.distrust.is_tainted(key.nar_hash)) {
            return None;
        }
        let (mut reader, joined) = self.reader(key, info, hint, from, client);
        if reader.ready().await {
            if joined {
                self.shared.stats.nar_shared.one();
            }
            return Some(reader);
        }
        if !joined {
            return None;
        }
        // The transfer we joined failed before it reached us. One of our own
        // may still succeed: it does not inherit that one's dead sources.
        drop(reader);
        if from > 0 && self.shared.distrust.is_tainted(key.nar_hash) {
            return None;
        }
        let (mut reader, _) = self.reader(key, info, hint, from, client);
        if reader.ready().await { Some(reader) } else { None }
    }

    /// What is running now.
    pub(crate) fn progress(&self) -> Vec<Progress> {
        let flights = self.shared.flights.lock().unwrap_or_else(PoisonError::into_inner);
        let one = |(key, flight): (&NarKey, &Flight)| {
            Some(Progress {
                path: flight.path.clone(),
                sources: flight
                    .sources
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .iter()
                    .copied()
                    .collect(),
                done: flight.ring.upgrade()?.head(),
                size: key.nar_size,
                running: flight.begun.elapsed(),
            })
        };
        flights.iter().filter_map(one).collect()
    }

    /// Joins the running transfer or starts one; says which.
    fn reader(
        &self,
        key: NarKey,
        info: &PathInfo,
        hint: Option<PeerId>,
        from: u64,
        client: Client,
    ) -> (Reader, bool) {
        let mut flights = self.shared.flights.lock().unwrap_or_else(PoisonError::into_inner);
        let running = flights.get(&key).and_then(|flight| flight.ring.upgrade());
        if let Some(reader) = running.and_then(|ring| ring.join(from, JOIN_AHEAD)) {
            return (reader, true);
        }
        // Only under a proven tree can bytes be believed without the ones
        // before them; otherwise all are fetched and those before discarded.
        let proven = if from == 0 { None } else { self.shared.trees.proven(&key.nar_hash) };
        let start = if proven.is_some() { from - from % gate::GROUP } else { 0 };
        let (ring, reader) = Ring::with_reader(start, WINDOW_MIN, from);
        if let Some(keeper) = self.shared.keeper.as_ref().filter(|_| start == 0) {
            let here = !self.shared.peers.who_has(&key.path).is_empty();
            let from = if here { Provenance::Peers } else { Provenance::Outside };
            ring.tap(keeper.begin(info, from, client));
        }
        let sources = Arc::new(Mutex::default());
        let flight = Flight {
            ring: Arc::downgrade(&ring),
            path: info.path.clone(),
            begun: Instant::now(),
            sources: Arc::clone(&sources),
        };
        flights.insert(key, flight);
        drop(flights);
        let job = Job { shared: Arc::clone(&self.shared), key, hint, start, proven, sources };
        tokio::spawn(job.run(ring));
        (reader, false)
    }
}

fn key_of(info: &PathInfo) -> NarKey {
    NarKey { path: info.path.hash_part(), nar_hash: info.nar_hash, nar_size: info.nar_size }
}

/// One transfer.
struct Job {
    shared: Arc<Shared>,
    key: NarKey,
    hint: Option<PeerId>,
    start: u64,
    proven: Option<Arc<NarTree>>,
    sources: Arc<Mutex<BTreeSet<PeerId>>>,
}

/// Readers of a transfer that is no longer under way do not wait for ever, whatever became of it.
struct Ends(Arc<Ring>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.finish(Err(CutReason::NoSource));
    }
}

impl Job {
    async fn run(self, ring: Arc<Ring>) {
        let _ends = Ends(Arc::clone(&ring));
        let end = tokio::select! {
            end = self.fetch(Arc::clone(&ring)) => end,
            () = abandoned(&ring) => Err(CutReason::NoSource),
        };
        match end {
            Ok(()) => self.shared.stats.nar_peers.one(),
            Err(why) => {
                self.shared.stats.nar_failed.one();
                self.shared.reasons.note(&self.key.path, format!("NAR not delivered: {why}"));
                if why == CutReason::WrongHash {
                    self.shared.distrust.taint(self.key.nar_hash);
                }
            }
        }
        // Out of the table before the end is told, so that a retry starts
        // afresh.
        {
            let mut flights = self.shared.flights.lock().unwrap_or_else(PoisonError::into_inner);
            if flights
                .get(&self.key)
                .is_some_and(|other| std::ptr::eq(other.ring.as_ptr(), Arc::as_ptr(&ring)))
            {
                flights.remove(&self.key);
            }
        }
        ring.finish(end);
        if end.is_ok() {
            (self.shared.received)(&self.key);
        }
    }

    async fn fetch(&self, ring: Arc<Ring>) -> Result<(), CutReason> {
        let shared = &self.shared;
        let mut roster =
            Roster::new(Arc::clone(shared), self.key, self.hint, Arc::clone(&self.sources));
        let small = self.key.nar_size <= small::SMALL_MAX;
        // A hedged small NAR is there twice for a moment.
        let (want, least) = if small {
            (2 * self.key.nar_size, 2 * self.key.nar_size)
        } else {
            (WINDOW_MAX, WINDOW_MIN)
        };
        let lease =
            shared.budget.reserve(want, least, MEMORY_PATIENCE).await.ok_or(CutReason::NoSource)?;
        let memory = lease.bytes();
        // A large NAR may hold as much again out of order.
        ring.hold(lease, if small { memory } else { memory / 2 });
        if small {
            let pieces = match outside::small_kept(shared, self.key).await {
                None => fellows::small(shared, self.key).await,
                kept => kept,
            };
            if let Some(pieces) = pieces {
                for piece in pieces {
                    ring.push(piece).await;
                }
                return Ok(());
            }
            let done = small::run(shared, self.key, &mut roster, &ring).await;
            if let (Ok(()), Some(fellows)) = (&done, shared.fellows.get()) {
                fellows.confirmed(self.key);
            }
            return match done {
                Err(CutReason::NoSource) => outside::small(shared, self.key, &ring).await,
                done => done,
            };
        }
        let proven = self.proven.clone();
        let tree =
            large::run(shared, self.key, self.start, proven, &mut roster, ring, memory).await?;
        if let Some(tree) = tree {
            shared.trees.put(self.key.nar_hash, self.key.nar_size, Arc::new(tree), true);
        }
        Ok(())
    }
}

/// Resolves when nobody has read for [`ABANDONED`].
async fn abandoned(ring: &Ring) {
    loop {
        let moved = ring.moved();
        if ring.readers() > 0 {
            moved.await;
        } else if timeout(ABANDONED, moved).await.is_err() && ring.readers() == 0 {
            return;
        }
    }
}
