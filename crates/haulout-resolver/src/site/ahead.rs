//! Fetching what Nix will want next, before it asks.
//!
//! Nix asks for the narinfos of a closure one after the other and then for the NARs. So the narinfos that a narinfo refers to
//! are looked up at once, and the files of those that Nix really asked for are fetched while it still asks for others. Within
//! a budget: what Nix does not come for in time gives its room to the next. When it neither asks nor takes anything for a while
//! (it was a dry run, or somebody stopped it), whatever waits is dropped and what is under way is cut off.

mod wishes;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use haulout_nix::HashPart;
use haulout_swarm::Now;
use haulout_swarm::site::Cut;
use lru::LruCache;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, interval, sleep, timeout};

use self::wishes::{Next, Wishes};
use super::upstream::Upstream;
use super::{SiteObject, lock};
use crate::local::LocalStore;

/// narinfos looked up ahead at the same time.
const INFOS_AT_ONCE: usize = 16;
/// While Nix waits for something, a file fetched ahead counts for so many.
const WAITING_WEIGHT: u64 = 4;
/// narinfos that may wait to be looked up ahead: the largest closures.
const INFOS_MAX: usize = 16_384;
/// Files fetched ahead at the same time: the home of each is another one, and Nix itself fetches as many side by side.
const FILES_AT_ONCE: usize = 16;
/// KiB of files fetched ahead at the same time: enough for any line, and the first of them are there soon. A larger file goes
/// alone.
const KIB_AT_ONCE: u32 = 8 << 10;
/// Bytes fetched ahead that Nix has not come for yet, at most.
pub const AHEAD_BYTES: u64 = 48 << 20;
/// How often it is looked whether what is being fetched is still wanted.
const WANTED_EVERY: Duration = Duration::from_secs(1);
/// How often an idle worker looks whether it is still needed.
const LET_GO: Duration = Duration::from_secs(10);

/// How much is fetched before Nix asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AheadLimits {
    /// Bytes that may wait to be wanted; with 0 only narinfos are looked up ahead.
    pub bytes: u64,
    /// Bytes per second; `None`: no limit.
    pub bytes_per_second: Option<u64>,
}

impl Default for AheadLimits {
    fn default() -> Self {
        Self { bytes: AHEAD_BYTES, bytes_per_second: None }
    }
}

/// What is fetched ahead, and what was lately.
pub(crate) struct Ahead {
    upstream: Upstream,
    local: Arc<LocalStore>,
    state: Mutex<State>,
    news: Notify,
    begun: Instant,
    under_way: Semaphore,
}

struct State {
    infos: VecDeque<HashPart>,
    seen: LruCache<HashPart, ()>,
    files: Wishes<(HashPart, SiteObject)>,
    /// NAR bytes that Nix had been given when it was last looked.
    taken: u64,
}

impl Ahead {
    /// Starts the workers; they end with the last handle.
    pub(crate) fn start(
        upstream: Upstream,
        local: Arc<LocalStore>,
        limits: AheadLimits,
    ) -> Arc<Self> {
        let state = State {
            infos: VecDeque::new(),
            seen: LruCache::new(NonZeroUsize::new(INFOS_MAX).unwrap_or(NonZeroUsize::MIN)),
            files: Wishes::new(limits.bytes, limits.bytes_per_second),
            taken: 0,
        };
        let ahead = Arc::new(Self {
            upstream,
            local,
            state: Mutex::new(state),
            news: Notify::new(),
            begun: Instant::now(),
            under_way: Semaphore::new(KIB_AT_ONCE as usize),
        });
        for _ in 0..INFOS_AT_ONCE {
            tokio::spawn(infos(Arc::downgrade(&ahead)));
        }
        if limits.bytes > 0 {
            for _ in 0..FILES_AT_ONCE {
                tokio::spawn(files(Arc::downgrade(&ahead)));
            }
        }
        ahead
    }

    /// Nix asked for this narinfo, and it came from outside.
    pub(crate) fn info_asked(&self, path: HashPart) {
        let object = self.upstream.object(&path);
        let references = self.upstream.references(&path);
        let now = self.now();
        let mut state = lock(&self.state);
        state.files.active(now);
        self.queue_infos(&mut state, references.clone());
        if let Some(object) = object {
            let size = object.size.map_or(0, Cut::size);
            state.files.add(path, references, size, (path, object), now);
        }
        drop(state);
        self.news.notify_waiters();
    }

    /// Nix asks for the NAR.
    pub(crate) fn nar_asked(&self, path: &HashPart) {
        lock(&self.state).files.asked(path, self.now());
        self.news.notify_waiters();
    }

    fn now(&self) -> Now {
        Now::from_start(self.begun.elapsed())
    }

    /// Whether Nix is still at it; what it has not come for is forgotten if not.
    fn is_wanted(&self) -> bool {
        let (now, taken) = (self.now(), self.upstream.bytes_taken());
        let mut state = lock(&self.state);
        if taken != std::mem::replace(&mut state.taken, taken) {
            // One large NAR may take it longer than it is waited for between two questions.
            state.files.active(now);
        }
        let wanted = state.files.is_active(now);
        if !wanted {
            for path in std::mem::take(&mut state.infos) {
                state.seen.pop(&path);
            }
        }
        wanted
    }

    fn queue_infos(&self, state: &mut State, paths: Vec<HashPart>) {
        for path in paths {
            let known = state.seen.put(path, ()).is_some();
            let wanted =
                !known && !self.local.contains(&path) && !self.upstream.site().is_held(&path);
            if wanted && state.infos.len() < INFOS_MAX {
                state.infos.push_back(path);
            }
        }
    }
}

/// Looks up narinfos until nobody holds the handle any more.
async fn infos(ahead: std::sync::Weak<Ahead>) {
    while let Some(ahead) = ahead.upgrade() {
        let news = ahead.news.notified();
        ahead.is_wanted();
        let next = lock(&ahead.state).infos.pop_front();
        match next {
            Some(path) => {
                let held = ahead.upstream.site().is_found(&path).await;
                if !held && ahead.upstream.look_ahead(path).await {
                    let references = ahead.upstream.references(&path);
                    ahead.queue_infos(&mut lock(&ahead.state), references);
                    ahead.news.notify_waiters();
                }
            }
            // The handle is let go of now and then.
            None => drop(timeout(LET_GO, news).await),
        }
    }
}

/// Fetches files, the same.
async fn files(ahead: std::sync::Weak<Ahead>) {
    while let Some(ahead) = ahead.upgrade() {
        let news = ahead.news.notified();
        ahead.is_wanted();
        let next = lock(&ahead.state).files.next(ahead.now());
        let (path, object) = match next {
            Next::Fetch(file) => file,
            Next::After(wait) => {
                drop(timeout(wait.min(LET_GO), news).await);
                continue;
            }
            Next::Nothing => {
                drop(timeout(LET_GO, news).await);
                continue;
            }
        };
        let kib = object.size.map_or(0, Cut::size) >> 10;
        // What Nix waits for comes first: meanwhile less is under way.
        let kib = if ahead.upstream.site().nix_waits() { kib * WAITING_WEIGHT } else { kib };
        let share = u32::try_from(kib).map_or(KIB_AT_ONCE, |kib| kib.clamp(1, KIB_AT_ONCE));
        // In the order in which they are asked for.
        let _under_way = ahead.under_way.acquire_many(share).await;
        if !lock(&ahead.state).files.is_ahead(&path) {
            // Nix came for it meanwhile, and may have it by now.
            continue;
        }
        if ahead.upstream.site().is_busy() {
            // Memory is short: whoever reads makes room first.
            sleep(Duration::from_millis(100)).await;
        }
        let mut bytes = Box::pin(ahead.upstream.site().stream_ahead(object));
        let mut look = interval(WANTED_EVERY);
        loop {
            tokio::select! {
                // What came stays in its segments until it is asked for.
                piece = bytes.next() => if !matches!(piece, Some(Ok(_))) { break },
                _ = look.tick() => if !ahead.is_wanted() {
                    tracing::debug!("what was being fetched ahead is not wanted any more");
                    break;
                },
            }
        }
    }
}
