//! Fetching what Nix will want next, before it asks.
//!
//! Nix asks for the narinfos of a closure one after the other and then for the NARs. So the narinfos that a narinfo refers to
//! are looked up at once, and the files of those that Nix really asked for are fetched while it still asks for others. Within
//! a budget: what Nix does not come for in time gives its room to the next, and what it does not want at all is dropped with
//! the segments nobody uses.

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
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use self::wishes::{Next, Wishes};
use super::upstream::Upstream;
use super::{SiteObject, lock};
use crate::local::LocalStore;

/// narinfos looked up ahead at the same time.
const INFOS_AT_ONCE: usize = 16;
/// narinfos that may wait to be looked up ahead: the largest closures.
const INFOS_MAX: usize = 16_384;
/// Files fetched ahead at the same time: the home of each is another one, and Nix itself fetches as many side by side.
const FILES_AT_ONCE: usize = 6;
/// Bytes fetched ahead that Nix has not come for yet, at most.
pub const AHEAD_BYTES: u64 = 48 << 20;
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
}

struct State {
    infos: VecDeque<HashPart>,
    seen: LruCache<HashPart, ()>,
    files: Wishes<SiteObject>,
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
        };
        let ahead = Arc::new(Self {
            upstream,
            local,
            state: Mutex::new(state),
            news: Notify::new(),
            begun: Instant::now(),
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
        let mut state = lock(&self.state);
        self.queue_infos(&mut state, references);
        if let Some(object) = object {
            state.files.add(path, object.size.map_or(0, Cut::size), object);
        }
        drop(state);
        self.news.notify_waiters();
    }

    /// Nix asks for the NAR.
    pub(crate) fn nar_asked(&self, path: &HashPart) {
        lock(&self.state).files.asked(path);
        self.news.notify_waiters();
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
        let next = lock(&ahead.state).infos.pop_front();
        match next {
            Some(path) => {
                if ahead.upstream.look_ahead(path).await {
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
        let now = Now::from_start(ahead.begun.elapsed());
        let next = lock(&ahead.state).files.next(now);
        let object = match next {
            Next::Fetch(object) => object,
            Next::After(wait) => {
                drop(timeout(wait.min(LET_GO), news).await);
                continue;
            }
            Next::Nothing => {
                drop(timeout(LET_GO, news).await);
                continue;
            }
        };
        if ahead.upstream.site().is_busy() {
            // What Nix waits for comes first.
            sleep(Duration::from_millis(100)).await;
        }
        let mut bytes = Box::pin(ahead.upstream.site().stream_ahead(object));
        // What came stays in its segments until it is asked for.
        while let Some(Ok(_)) = bytes.next().await {}
    }
}
