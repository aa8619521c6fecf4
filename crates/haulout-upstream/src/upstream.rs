//! One upstream: its store, its standing, what it said.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use haulout_nix::{HashPart, NarInfo, StoreDir, narinfo};
use tokio::sync::Semaphore;

use crate::cache_info::{CACHE_INFO, CACHE_INFO_BYTES_MAX, CacheInfo};
use crate::decompress::decoder;
use crate::error::Trouble;
use crate::health::{Health, Leave};
use crate::location::FileLocation;
use crate::memory::{Memory, Remembered};
use crate::store::{Got, Object, Store, Want};
use crate::{Found, Judge, Kind, UpstreamId, UpstreamStatus};

/// narinfos asked of one upstream at a time; Nix itself asks 25.
pub const QUESTIONS_MAX: usize = 32;
/// How long one question may take, whatever the asker's budget: the answer is remembered for the
/// next one.
pub(crate) const QUESTION_MAX: Duration = Duration::from_secs(10);
/// How long `nix-cache-info` is believed.
const INFO_FOR: Duration = Duration::from_secs(24 * 3600);

/// What one upstream says about a path.
pub(crate) enum Said {
    Found(Arc<Found>),
    Absent,
    Unknown(Trouble),
}

#[derive(Debug)]
pub(crate) struct Upstream {
    id: UpstreamId,
    kind: Kind,
    /// URL that narinfos may write in front of file names.
    base: String,
    store: Store,
    store_dir: StoreDir,
    /// `?priority=`.
    fixed_priority: Option<i64>,
    questions: Semaphore,
    /// Held while `nix-cache-info` is read.
    introduction: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    bytes: AtomicU64,
    found: AtomicU64,
    absent: AtomicU64,
    failed: AtomicU64,
}

#[derive(Debug)]
struct State {
    health: Health,
    memory: Memory,
    info: Option<(CacheInfo, Instant)>,
    /// Questions that were sent and not answered, at most [`QUESTIONS_MAX`].
    asked: HashMap<HashPart, Instant>,
}

impl Upstream {
    pub(crate) fn new(
        id: UpstreamId,
        kind: Kind,
        base: String,
        store: Store,
        store_dir: StoreDir,
        fixed_priority: Option<i64>,
    ) -> Self {
        // A neighbour named itself; the others were named by this machine's administrator.
        let health = match kind {
            Kind::Neighbour => Health::unproven(Instant::now()),
            _ => Health::default(),
        };
        let memory = Memory::new();
        let state = State { health, memory, info: None, asked: HashMap::new() };
        Self {
            id,
            kind,
            base,
            store,
            store_dir,
            fixed_priority,
            questions: Semaphore::new(QUESTIONS_MAX),
            introduction: tokio::sync::Mutex::new(()),
            state: Mutex::new(state),
            bytes: AtomicU64::new(0),
            found: AtomicU64::new(0),
            absent: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    pub(crate) const fn id(&self) -> &UpstreamId {
        &self.id
    }

    pub(crate) const fn is_neighbour(&self) -> bool {
        matches!(self.kind, Kind::Neighbour)
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) const fn is_private(&self) -> bool {
        self.store.is_private()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lower is asked first. Before the cache has said: what Nix takes for it.
    pub(crate) fn priority(&self) -> i64 {
        let said = || self.state().info.as_ref().map_or(0, |(info, _)| info.priority);
        self.fixed_priority.unwrap_or_else(said)
    }

    /// Whether it would be asked now.
    pub(crate) fn available(&self) -> bool {
        self.state().health.available()
    }

    /// Whether it is time to see if it is back.
    pub(crate) fn probe_due(&self, now: Instant) -> bool {
        self.state().health.probe_due(now)
    }

    /// Sees whether it is back.
    pub(crate) async fn probe(&self) {
        self.state().info = None;
        if let Err(trouble) = self.introduce().await {
            tracing::debug!(upstream = %self.id, %trouble, "not back yet");
        }
    }

    pub(crate) fn hedge_after(&self) -> Duration {
        self.state().health.hedge_after()
    }

    pub(crate) fn count_bytes(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// An asker's patience is at its end. That counts against the upstream only if the question was
    /// out for `at_least`: what waited in our own queue is not its fault.
    pub(crate) fn kept_waiting(&self, hash: &HashPart, at_least: Duration) {
        let sent = self.state().asked.get(hash).copied();
        if sent.is_some_and(|sent| sent.elapsed() >= at_least) {
            self.report(&Trouble::Slow("did not answer within the time Nix is kept waiting"));
        }
    }

    pub(crate) fn report(&self, trouble: &Trouble) {
        self.failed.fetch_add(1, Relaxed);
        let mut state = self.state();
        let untried = state.info.is_none();
        state.health.trouble(Instant::now(), trouble, untried, jitter());
    }

    /// One request, with its effect on the standing.
    pub(crate) async fn get(&self, want: &Want<'_>) -> Result<Got, Trouble> {
        let began = Instant::now();
        let leave = self.state().health.leave(began);
        if let Leave::Wait(wait) = leave {
            let why = self.state().health.last_trouble().map(ToString::to_string);
            return Err(Trouble::LeftAlone { wait, why: why.unwrap_or_default() });
        }
        let got = self.store.get(want).await;
        match &got {
            Ok(_) => self.state().health.success(Some(began.elapsed())),
            Err(trouble) => self.report(trouble),
        }
        got
    }

    /// What is known without asking.
    pub(crate) fn remembered(&self, hash: &HashPart, now: Instant) -> Option<Said> {
        match self.state().memory.get(hash, now) {
            Remembered::Found(found) => Some(Said::Found(found)),
            Remembered::Absent => Some(Said::Absent),
            Remembered::Stale(..) | Remembered::Nothing => None,
        }
    }

    /// Asks for a narinfo.
    pub(crate) async fn narinfo(&self, hash: HashPart, judge: &Judge) -> Said {
        let asked = tokio::time::timeout(QUESTION_MAX, self.ask(hash, judge)).await;
        let said = asked.unwrap_or_else(|_| {
            let trouble = Trouble::Slow("did not finish an answer within 10 s");
            self.report(&trouble);
            Err(trouble)
        });
        match said {
            Ok(said) => said,
            Err(trouble) => Said::Unknown(trouble),
        }
    }

    async fn ask(&self, hash: HashPart, judge: &Judge) -> Result<Said, Trouble> {
        let _turn = self.questions.acquire().await.map_err(|_| Trouble::Busy)?;
        let _asked = Asked::note(self, hash);
        self.introduce().await?;
        let remembered = self.state().memory.get(&hash, Instant::now());
        let (stale, validator) = match remembered {
            Remembered::Found(found) => return Ok(Said::Found(found)),
            Remembered::Absent => return Ok(Said::Absent),
            Remembered::Stale(found, validator) => (Some(found), Some(validator)),
            Remembered::Nothing => (None, None),
        };
        let key = format!("{hash}.narinfo");
        let want = Want { key: &key, unless: validator.as_ref(), ..Want::default() };
        let now = Instant::now();
        match self.get(&want).await? {
            Got::Absent(lifetime) => {
                self.absent.fetch_add(1, Relaxed);
                self.state().memory.absent(hash, lifetime, now);
                Ok(Said::Absent)
            }
            Got::NotModified(lifetime) => {
                let found =
                    stale.ok_or_else(|| Trouble::Malformed("304 to a first question".into()))?;
                let again = Arc::clone(&found);
                self.state().memory.found(hash, again, validator, lifetime, now);
                Ok(Said::Found(found))
            }
            Got::Object(object) => {
                let (lifetime, validator) = (object.lifetime, object.validator.clone());
                let read = match self.read_narinfo(hash, object).await {
                    Ok(found) => found,
                    Err(trouble) => {
                        self.report(&trouble);
                        return Err(trouble);
                    }
                };
                if let Err(why) = judge(&read.narinfo.info) {
                    // For us it has none: nobody here would take it.
                    tracing::debug!(upstream = %self.id, path = %read.narinfo.info.path, why, "not believed");
                    self.absent.fetch_add(1, Relaxed);
                    self.state().memory.absent(hash, lifetime, now);
                    return Ok(Said::Absent);
                }
                self.found.fetch_add(1, Relaxed);
                let found = Arc::new(read);
                let kept = Arc::clone(&found);
                self.state().memory.found(hash, kept, validator, lifetime, now);
                Ok(Said::Found(found))
            }
        }
    }

    async fn read_narinfo(&self, hash: HashPart, object: Object) -> Result<Found, Trouble> {
        let text = self.small(object, narinfo::TEXT_BYTES_MAX).await?;
        let narinfo = NarInfo::parse(&text, &self.store_dir)
            .map_err(|error| Trouble::Malformed(format!("narinfo: {error}")))?;
        if narinfo.info.path.hash_part() != hash {
            return Err(Trouble::Malformed("narinfo: of another path than asked for".into()));
        }
        let file = FileLocation::of(&narinfo, self.id.clone(), &self.base)
            .map_err(|why| Trouble::Malformed(format!("narinfo: {why}")))?;
        Ok(Found { narinfo, file })
    }

    /// A small file as a whole, its transport compression undone.
    async fn small(&self, object: Object, bytes_max: usize) -> Result<Vec<u8>, Trouble> {
        if object.is_page {
            return Err(Trouble::Portal("a web page".into()));
        }
        let too_long = || Trouble::TooLong(bytes_max as u64);
        let mut body = object.body;
        let mut bytes = Vec::new();
        while let Some(piece) = body.next().await {
            let piece = piece?;
            self.count_bytes(piece.len());
            if bytes.len() + piece.len() > bytes_max {
                return Err(too_long());
            }
            bytes.extend_from_slice(&piece);
        }
        let Some(encoding) = object.encoding else { return Ok(bytes) };
        // At most `bytes_max` in and out: milliseconds.
        let mut plain = Vec::new();
        decoder(&encoding, bytes.as_slice())
            .and_then(|decoder| decoder.take(bytes_max as u64 + 1).read_to_end(&mut plain))
            .map_err(|error| Trouble::Malformed(format!("{encoding}: {error}")))?;
        if plain.len() > bytes_max { Err(too_long()) } else { Ok(plain) }
    }

    /// Reads `nix-cache-info` unless it is known; fails when the cache is not for us.
    pub(crate) async fn introduce(&self) -> Result<(), Trouble> {
        if self.introduced() {
            return Ok(());
        }
        let _alone = self.introduction.lock().await;
        if self.introduced() {
            return Ok(());
        }
        let checked = match self.get(&Want { key: CACHE_INFO, ..Want::default() }).await? {
            Got::Object(object) => match self.small(object, CACHE_INFO_BYTES_MAX).await {
                Ok(text) => {
                    let info = CacheInfo::parse(&String::from_utf8_lossy(&text));
                    info.check(&self.store_dir).map(|()| info).map_err(Trouble::Unusable)
                }
                Err(trouble) => Err(trouble),
            },
            Got::Absent(_) | Got::NotModified(_) => {
                let why = format!("it has no {CACHE_INFO}, or denies access to it");
                Err(Trouble::Unusable(why))
            }
        };
        match checked {
            Ok(info) => {
                self.state().info = Some((info, Instant::now()));
                Ok(())
            }
            Err(trouble) => {
                self.report(&trouble);
                Err(trouble)
            }
        }
    }

    /// Whether it said that it is a haulout agent.
    pub(crate) fn is_agent(&self) -> bool {
        self.state().info.as_ref().is_some_and(|(info, _)| info.agent)
    }

    fn introduced(&self) -> bool {
        self.state().info.as_ref().is_some_and(|(_, at)| at.elapsed() < INFO_FOR)
    }

    pub(crate) fn forget(&self, hash: &HashPart) {
        self.state().memory.forget(hash);
    }

    pub(crate) fn forget_all(&self) {
        self.state().memory.clear();
    }

    #[cfg(test)]
    pub(crate) fn age_memory(&self, hash: &HashPart) {
        self.state().memory.age(hash);
    }

    pub(crate) fn status(&self) -> UpstreamStatus {
        let now = Instant::now();
        let priority = self.priority();
        let state = self.state();
        UpstreamStatus {
            url: self.id.to_string(),
            kind: self.kind,
            priority,
            latency: state.health.latency(),
            left_alone: state.health.left_alone(now),
            trouble: state.health.last_trouble().map(ToString::to_string),
            found: self.found.load(Relaxed),
            absent: self.absent.load(Relaxed),
            failed: self.failed.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }
}

/// A question that is out.
struct Asked<'u>(&'u Upstream, HashPart);

impl<'u> Asked<'u> {
    fn note(upstream: &'u Upstream, hash: HashPart) -> Self {
        upstream.state().asked.insert(hash, Instant::now());
        Self(upstream, hash)
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.state().asked.remove(&self.1);
    }
}

/// A random number in 0..1; the standard library's hasher is seeded from the system's randomness.
fn jitter() -> f64 {
    (RandomState::new().build_hasher().finish() >> 11) as f64 / (1u64 << 53) as f64
}
