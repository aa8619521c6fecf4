//! Fetching what Nix will want next, before it asks.
//!
//! Nix asks for the narinfos of a closure one after the other and then for the NARs. So the narinfos that a narinfo refers to
//! are looked up at once, and the files of those that Nix really asked for are fetched while it still asks for others. Within
//! a budget: what Nix does not come for in time gives its room to the next, and what it does not want at all is dropped with
//! the segments nobody uses.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use haulout_nix::HashPart;
use lru::LruCache;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::upstream::Upstream;
use super::{SiteObject, lock};
use crate::local::LocalStore;

/// narinfos looked up ahead at the same time.
const INFOS_AT_ONCE: usize = 16;
/// narinfos that may wait to be looked up ahead: the largest closures.
const INFOS_MAX: usize = 16_384;
/// Files fetched ahead at the same time: the home of each is another one, and Nix itself fetches as many side by side.
const FILES_AT_ONCE: usize = 6;
/// Files that may wait.
const FILES_MAX: usize = 4_096;
/// Bytes fetched ahead that Nix has not come for yet, at most.
pub const AHEAD_BYTES: u64 = 48 << 20;
/// How long Nix may take to come for a file before its room goes to others.
const WANTED_WITHIN: Duration = Duration::from_secs(20);

/// How often an idle worker looks whether it is still needed.
const LET_GO: Duration = Duration::from_secs(10);

struct File {
    path: HashPart,
    object: SiteObject,
}

/// What is fetched ahead, and what was lately.
pub(crate) struct Ahead {
    upstream: Upstream,
    local: Arc<LocalStore>,
    state: Mutex<State>,
    news: Notify,
    budget: u64,
}

struct State {
    infos: VecDeque<HashPart>,
    seen: LruCache<HashPart, ()>,
    files: VecDeque<File>,
    /// Fetched and not asked for: what, how large, when.
    waiting: VecDeque<(HashPart, u64, Instant)>,
}

impl Ahead {
    /// Starts the workers; they end with the last handle. `budget` bytes may wait to be wanted; with 0 only narinfos are
    /// looked up ahead.
    pub(crate) fn start(upstream: Upstream, local: Arc<LocalStore>, budget: u64) -> Arc<Self> {
        let state = State {
            infos: VecDeque::new(),
            seen: LruCache::new(NonZeroUsize::new(INFOS_MAX).unwrap_or(NonZeroUsize::MIN)),
            files: VecDeque::new(),
            waiting: VecDeque::new(),
        };
        let ahead = Arc::new(Self {
            upstream,
            local,
            state: Mutex::new(state),
            news: Notify::new(),
            budget,
        });
        for _ in 0..INFOS_AT_ONCE {
            tokio::spawn(infos(Arc::downgrade(&ahead)));
        }
        if budget > 0 {
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
        if let Some(object) = object
            && state.files.len() < FILES_MAX
            && !state.files.iter().any(|file| file.path == path)
        {
            state.files.push_back(File { path, object });
        }
        drop(state);
        self.news.notify_waiters();
    }

    /// Nix asks for the NAR.
    pub(crate) fn nar_asked(&self, path: &HashPart) {
        let mut state = lock(&self.state);
        state.files.retain(|file| file.path != *path);
        state.waiting.retain(|(other, ..)| other != path);
        drop(state);
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

    /// The next file, if there is room for it.
    fn next_file(&self) -> Option<File> {
        let mut state = lock(&self.state);
        while state.waiting.front().is_some_and(|(.., since)| since.elapsed() > WANTED_WITHIN) {
            state.waiting.pop_front();
        }
        let waiting: u64 = state.waiting.iter().map(|(_, size, _)| size).sum();
        // The last first: Nix asks for narinfos from the top down, and for NARs from the bottom up.
        let size = state.files.back().map(|file| file.object.size.map_or(0, |cut| cut.size()))?;
        if waiting + size > self.budget {
            return None;
        }
        let file = state.files.pop_back()?;
        state.waiting.push_back((file.path, size, Instant::now()));
        Some(file)
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
        let Some(file) = ahead.next_file() else {
            drop(timeout(LET_GO, news).await);
            continue;
        };
        if ahead.upstream.site().is_busy() {
            // What Nix waits for comes first.
            sleep(Duration::from_millis(100)).await;
        }
        let mut bytes = Box::pin(ahead.upstream.site().stream(file.object, 0));
        // What came stays in its segments until it is asked for.
        while let Some(Ok(_)) = bytes.next().await {}
    }
}
