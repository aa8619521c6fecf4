//! From a hash part to a verified path info.
//!
//! Memory first, then the peers that claim to have it. "No" costs nothing
//! when every peer has declared its holdings, a round trip in a network of so
//! many that they declare them in parts, [`UNDECLARED_CAP`] when some
//! have not, and [`ASK_CAP`] when those that claim it are silent. A 404 would
//! stick in Nix for an hour, so a peer that claims it, is alive and is only
//! slow is waited for until [`ASK_TOTAL`]; once, and not again until it has
//! answered something.

mod answers;
mod ask;
mod doubts;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use haulout_nix::{HashPart, NarHash, PathInfo};
use haulout_swarm::PeerId;

use crate::disk::Disk;
use crate::peers::Peers;
use crate::reasons::Reasons;
use crate::stats::Stats;
use crate::trust::Trust;

use answers::Misses;
pub(crate) use answers::weight;
use answers::{Answers, Known};
use doubts::Doubts;

/// The longest a "no" takes while silent peers claim to have the path.
pub(crate) const ASK_CAP: Duration = Duration::from_millis(300);
/// The longest a "no" takes when one of them is alive, as its packets show:
/// on a machine with too much to do an answer takes a second now and then.
pub(crate) const ASK_TOTAL: Duration = Duration::from_millis(1500);
/// The longest a "no" takes while peers without declared holdings are asked.
pub(crate) const UNDECLARED_CAP: Duration = Duration::from_millis(20);
/// How long "the peers that claimed it said no" is believed.
pub(crate) const MISS_MEMORY: Duration = Duration::from_secs(2);
/// Peers asked about one path at most.
pub(crate) const ASKED_MAX: usize = 6;
/// Path infos asked for at once: the path and what its closure needs next.
pub(crate) const AHEAD_MAX: usize = 256;

/// A verified path info and who told us.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) info: Arc<PathInfo>,
    /// The peer it came from; `None` when it was remembered on disk.
    pub(crate) from: Option<PeerId>,
}

/// What one question is about: any NAR of the path, or one certain NAR.
type Question = (HashPart, Option<NarHash>);
type Flight = Shared<BoxFuture<'static, Option<Found>>>;
type WeakFlight = WeakShared<BoxFuture<'static, Option<Found>>>;

/// Finds path infos. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Lookup {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    peers: Arc<dyn Peers>,
    trust: Arc<ArcSwap<Trust>>,
    disk: Disk,
    answers: Answers,
    misses: Misses,
    doubts: Doubts,
    flights: Mutex<HashMap<Question, WeakFlight>>,
    stats: Arc<Stats>,
    reasons: Arc<Reasons>,
}

impl Lookup {
    pub(crate) fn new(
        peers: Arc<dyn Peers>,
        trust: Arc<ArcSwap<Trust>>,
        disk: Disk,
        stats: Arc<Stats>,
        reasons: Arc<Reasons>,
    ) -> Self {
        let inner = Inner {
            peers,
            trust,
            disk,
            answers: Answers::new(),
            misses: Misses::new(),
            doubts: Doubts::new(),
            flights: Mutex::new(HashMap::new()),
            stats,
            reasons,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The verified info of a path some peer can deliver. With `want`, only
    /// an info with that NarHash will do: two builders can make different
    /// NARs of one path, and the URL Nix holds names one of them.
    pub(crate) async fn path_info(&self, hash: HashPart, want: Option<NarHash>) -> Option<Found> {
        if let Some(found) = self.inner.remembered(&hash, want) {
            self.inner.stats.info_memory.one();
            return Some(found);
        }
        if self.inner.misses.contains(&hash, want) {
            return None;
        }
        let declared = self.inner.peers.who_has(&hash);
        if declared.is_empty()
            && self.inner.peers.undeclared().is_empty()
            && self.inner.peers.locate(&hash).is_none()
        {
            return None;
        }
        // Once known, still trusted, and somebody has it: no need to ask.
        if !declared.is_empty()
            && let Some(info) = self.inner.disk.info(&hash)
            && want.is_none_or(|want| want == info.nar_hash)
        {
            let found = Found { info, from: None };
            if self.inner.accept(&found) {
                self.inner.stats.info_cache.one();
                return Some(found);
            }
        }
        let found = self.fly((hash, want)).await;
        if found.is_some() {
            self.inner.stats.info_peers.one();
        }
        found
    }

    /// Forgets what was verified with other keys.
    pub(crate) fn forget_all(&self) {
        self.inner.answers.clear();
        self.inner.misses.clear();
    }

    /// Joins the question in flight, or asks it.
    fn fly(&self, question: Question) -> Flight {
        let mut flights = self.inner.flights.lock().unwrap_or_else(PoisonError::into_inner);
        // A question everybody walked away from is dead: its clocks ran on.
        if let Some(flight) = flights.get(&question).and_then(WeakShared::upgrade) {
            return flight;
        }
        let inner = Arc::clone(&self.inner);
        let flight = async move {
            let found = ask::ask_peers(&inner, question).await;
            inner.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&question);
            found
        };
        let flight = flight.boxed().shared();
        if flights.len() >= FLIGHTS_SWEEP {
            flights.retain(|_, flight| flight.upgrade().is_some());
        }
        if let Some(weak) = flight.downgrade() {
            flights.insert(question, weak);
        }
        flight
    }
}

/// Dead questions are swept out of the table when it has this many entries.
const FLIGHTS_SWEEP: usize = 1024;

impl Inner {
    fn deliverable(&self, hash: &HashPart, from: Option<PeerId>) -> bool {
        !self.peers.who_has(hash).is_empty()
            || from.is_some_and(|peer| self.peers.undeclared().contains(&peer))
    }

    /// An answer from memory that can be delivered now.
    fn remembered(&self, hash: &HashPart, want: Option<NarHash>) -> Option<Found> {
        let known = self.answers.get(hash)?;
        if want.is_some_and(|want| want != known.info().nar_hash) {
            return None;
        }
        match known {
            Known::Verified(found) => self.deliverable(hash, found.from).then_some(found),
            Known::Ahead(found) => {
                if !self.deliverable(hash, found.from) {
                    return None;
                }
                // Checked only now, because most of what is sent ahead is
                // never asked for.
                if self.accept(&found) {
                    return Some(found);
                }
                self.answers.remove(hash);
                None
            }
        }
    }

    /// Judges an info and remembers it if it is good. A genuine one shows who
    /// sent a forged one before.
    fn accept(&self, found: &Found) -> bool {
        match self.trust.load().judge(&found.info) {
            Ok(proof) => {
                if let Some(peer) = found.from {
                    self.doubts.believed(&peer);
                    self.disk.put_info(&found.info, &proof);
                }
                for liar in self.doubts.exposed_by(&found.info, &self.trust.load()) {
                    ask::expose(self, liar, &found.info);
                }
                self.answers.put(Known::Verified(found.clone()));
                true
            }
            Err(refusal) => {
                ask::refuse(self, found, refusal);
                false
            }
        }
    }
}
