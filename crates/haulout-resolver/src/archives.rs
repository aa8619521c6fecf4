//! Archives: what no peer has, proven by an index whose root is on a chain.
//!
//! What an archive is and how it proves anything is behind [`Archive`]. Here is the order in which several are asked, how
//! long each may take, and what becomes of one that does not answer: it rests, and questions do not wait for it.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use haulout_gateway::api::SourceReport;
use haulout_mesh::{NarKey, ProofQuestion};
use haulout_nix::{HashPart, PathInfo};
use lru::LruCache;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::bounded::Bounded;
use crate::peers::Answer;
use crate::reasons::Reasons;
use crate::stats::Stats;
use crate::transfer::NarBytes;

/// The longest a question about a path waits for one archive: a page of its index and the way there, from storage nodes.
const INFO_BUDGET: Duration = Duration::from_secs(3);
/// The longest until the first bytes of a NAR's pack are under way.
const NAR_BUDGET: Duration = Duration::from_secs(6);
/// How long a NAR may stand still before it is had elsewhere.
const STALL: Duration = Duration::from_secs(12);
/// What remembered infos may take, in bytes: of some ten thousand paths.
const KNOWN_BYTES: usize = 12 << 20;
/// How long an info is used again without asking: Nix comes for the NAR within seconds.
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// Rests of an archive that failed: the first one, doubled with each failure in a row, and the longest.
const REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Closures looked up ahead at the same time, each a question at a time.
const AHEAD_AT_ONCE: usize = 8;
/// Paths that were looked up ahead and need not be again.
const AHEAD_KEPT: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();
/// NARs that an archive failed to give: had elsewhere the next time.
const FAILED_KEPT: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// How long.
const FAILED_FOR: Duration = Duration::from_secs(60);

/// An archive, as the resolver sees it. Whatever it says was verified, down from a proven root.
pub trait Archive: Send + Sync + 'static {
    /// What it says about a path, signed for this machine's Nix; `None`: it has it not, or may not introduce it here.
    /// An error says why it cannot be asked.
    fn path_info(&self, hash: HashPart) -> Answer<Result<Option<PathInfo>, String>>;

    /// The NAR from its start; `None`: it has not that very one. The stream ends well only if every byte was right.
    fn nar(&self, key: NarKey) -> Answer<Result<Option<NarBytes>, String>>;

    /// For status pages.
    fn report(&self) -> SourceReport;
}

/// The proofs of archives that this machine can hand on.
pub trait Proofs: Send + Sync + 'static {
    /// The newest proof that answers the question.
    fn proof(&self, question: ProofQuestion) -> Answer<Option<Bytes>>;
}

/// Whether one archive is asked.
#[derive(Debug, Default)]
struct Health {
    failures: u32,
    rests_until: Option<Instant>,
}

impl Health {
    fn is_resting(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }

    fn failed(&mut self, now: Instant) {
        let (least, most) = REST;
        let rest = least.saturating_mul(2_u32.saturating_pow(self.failures)).min(most);
        self.failures = self.failures.saturating_add(1);
        self.rests_until = Some(now + rest);
    }

    fn answered(&mut self) {
        *self = Self::default();
    }
}

struct One {
    archive: Arc<dyn Archive>,
    health: Mutex<Health>,
}

impl One {
    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        // Nothing panics while holding it.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks within a budget; `None`: no answer, which is noted.
    async fn ask<T>(
        &self,
        budget: Duration,
        answer: Answer<Result<T, String>>,
        failed: impl FnOnce(String),
    ) -> Option<T> {
        let why = match timeout(budget, answer).await {
            Ok(Ok(answer)) => {
                self.health().answered();
                return Some(answer);
            }
            Ok(Err(why)) => why,
            Err(_) => format!("no answer within {} s", budget.as_secs()),
        };
        self.health().failed(Instant::now());
        failed(why);
        None
    }
}

/// An info that an archive gave.
#[derive(Clone)]
struct Known {
    info: Arc<PathInfo>,
    from: usize,
    at: Instant,
}

/// All archives of this machine, in the order in which they are asked.
pub(crate) struct Archives {
    all: Vec<Arc<One>>,
    known: Bounded<HashPart, Known>,
    failed: Mutex<LruCache<NarKey, Instant>>,
    seen: Mutex<LruCache<HashPart, ()>>,
    ahead: Arc<Semaphore>,
    stats: Arc<Stats>,
    reasons: Arc<Reasons>,
}

impl Archives {
    pub(crate) fn new(
        archives: Vec<Arc<dyn Archive>>,
        stats: Arc<Stats>,
        reasons: Arc<Reasons>,
    ) -> Arc<Self> {
        let one = |archive| Arc::new(One { archive, health: Mutex::default() });
        Arc::new(Self {
            all: archives.into_iter().map(one).collect(),
            known: Bounded::new(KNOWN_BYTES),
            failed: Mutex::new(LruCache::new(FAILED_KEPT)),
            seen: Mutex::new(LruCache::new(AHEAD_KEPT)),
            ahead: Arc::new(Semaphore::new(AHEAD_AT_ONCE)),
            stats,
            reasons,
        })
    }

    /// What the first archive that has a path says about it.
    pub(crate) async fn path_info(&self, hash: HashPart) -> Option<Arc<PathInfo>> {
        let info = self.find(hash).await?.info;
        self.stats.info_archive.one();
        Some(info)
    }

    async fn find(&self, hash: HashPart) -> Option<Known> {
        if let Some(known) = self.known.get(&hash).filter(|known| known.at.elapsed() < KNOWN_FOR) {
            return Some(known);
        }
        for (from, one) in self.all.iter().enumerate() {
            if one.health().is_resting(Instant::now()) {
                continue;
            }
            let note = |why| self.reasons.note(&hash, format!("the archive did not answer: {why}"));
            let Some(Some(info)) = one.ask(INFO_BUDGET, one.archive.path_info(hash), note).await
            else {
                continue;
            };
            let known = Known { info: Arc::new(info), from, at: Instant::now() };
            self.known.put(hash, known.clone(), crate::lookup::weight(&known.info));
            return Some(known);
        }
        None
    }

    /// What Nix will ask next is looked up: it asks for one path after the other, and a page of the index serves many.
    pub(crate) fn look_ahead(self: &Arc<Self>, info: &PathInfo) {
        let Ok(permit) = Arc::clone(&self.ahead).try_acquire_owned() else { return };
        let wanted: Vec<HashPart> = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let references = info.references.iter().map(|reference| reference.hash_part());
            references.filter(|hash| seen.put(*hash, ()).is_none()).collect()
        };
        if wanted.is_empty() {
            return;
        }
        let archives = Arc::clone(self);
        tokio::spawn(async move {
            for hash in wanted {
                let _ = archives.find(hash).await;
            }
            drop(permit);
        });
    }

    /// The NAR, if an archive has it and did not just fail to give it.
    pub(crate) async fn open(self: Arc<Self>, key: NarKey) -> Option<NarBytes> {
        if self.has_failed(&key) {
            return None;
        }
        let known = self.find(key.path).await?;
        if known.info.nar_hash != key.nar_hash || known.info.nar_size != key.nar_size {
            return None;
        }
        let one = Arc::clone(self.all.get(known.from)?);
        let note = |why: String| {
            self.reasons.note(&key.path, format!("the archive gives no NAR: {why}"));
            self.fail(key);
        };
        let bytes = one.ask(NAR_BUDGET, one.archive.nar(key), note).await??;
        Some(self.watched(one, key, bytes))
    }

    /// The stream, with a clock, and with the lesson drawn from how it ends.
    fn watched(self: Arc<Self>, one: Arc<One>, key: NarKey, bytes: NarBytes) -> NarBytes {
        stream::unfold(Some((self, one, bytes)), move |state| async move {
            let (archives, one, mut bytes) = state?;
            let why = match timeout(STALL, bytes.next()).await {
                Ok(None) => {
                    archives.stats.nar_archive.one();
                    one.health().answered();
                    return None;
                }
                Ok(Some(Ok(piece))) => {
                    archives.stats.bytes_archive.add(piece.len() as u64);
                    return Some((Ok(piece), Some((archives, one, bytes))));
                }
                Ok(Some(Err(why))) => why,
                Err(_) => format!("nothing came for {} s", STALL.as_secs()),
            };
            archives.fail(key);
            one.health().failed(Instant::now());
            Some((Err(format!("from the archive: {why}")), None))
        })
        .boxed()
    }

    /// Forgets what was judged by other rules.
    pub(crate) fn forget_all(&self) {
        self.known.clear();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn fail(&self, key: NarKey) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).put(key, Instant::now());
    }

    fn has_failed(&self, key: &NarKey) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.peek(key).is_some_and(|at| at.elapsed() < FAILED_FOR)
    }

    /// For status pages.
    pub(crate) fn reports(&self) -> Vec<SourceReport> {
        let now = Instant::now();
        let report = |one: &Arc<One>| {
            let mut report = one.archive.report();
            if one.health().is_resting(now) {
                report.usable = false;
                report.detail = Some(match report.detail {
                    Some(detail) => format!("did not answer a moment ago; {detail}"),
                    None => "did not answer a moment ago".to_owned(),
                });
            }
            report
        };
        self.all.iter().map(report).collect()
    }
}

#[cfg(test)]
mod tests;
