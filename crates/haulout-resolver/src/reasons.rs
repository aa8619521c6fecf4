//! Why things went as they did: the latest events of each path, for `why`.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use haulout_nix::HashPart;

use crate::bounded::Bounded;

/// Events kept per path.
const EVENTS_MAX: usize = 16;
/// What all events together may take, in bytes.
const MEMORY_MAX: usize = 512 << 10;

/// Latest events kept over all paths, for the status page.
const LATEST_MAX: usize = 50;

/// The recent events of recent paths. Only what goes wrong or is decided
/// once is noted, so the hot path never comes here.
pub(crate) struct Reasons {
    events: Bounded<HashPart, Vec<String>>,
    latest: Mutex<VecDeque<(Instant, HashPart, String)>>,
}

impl Reasons {
    pub(crate) fn new() -> Self {
        Self { events: Bounded::new(MEMORY_MAX), latest: Mutex::default() }
    }

    /// Notes one event of a path.
    pub(crate) fn note(&self, path: &HashPart, event: String) {
        tracing::debug!(%path, "{event}");
        {
            let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            latest.truncate(LATEST_MAX - 1);
            latest.push_front((Instant::now(), *path, event.clone()));
        }
        let weight = EVENTS_MAX * 64;
        self.events.update(*path, weight, |old| {
            let mut events = old.unwrap_or_default();
            if events.len() == EVENTS_MAX {
                events.remove(0);
            }
            events.push(event);
            events
        });
    }

    /// The latest events of all paths, newest first, each with its age.
    pub(crate) fn latest(&self) -> Vec<(Duration, HashPart, String)> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.iter().map(|(at, path, event)| (at.elapsed(), *path, event.clone())).collect()
    }

    /// The events noted for a path, oldest first.
    pub(crate) fn of(&self, path: &HashPart) -> Vec<String> {
        self.events.get(path).unwrap_or_default()
    }
}
