//! What upstreams said about hash parts, for a while. Pure: time is an argument.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use haulout_nix::HashPart;
use lru::LruCache;

use crate::Found;
use crate::store::Validator;

/// Answers kept per upstream: a closure of a desktop has some thousand paths. A narinfo takes
/// about 1 KiB.
const ANSWERS_MAX: NonZeroUsize = NonZeroUsize::new(8192).unwrap();

/// How long a narinfo is believed without asking again, if the cache does not say: what it says
/// about a path never changes in substance, but files are deleted.
pub(crate) const FOUND_FOR: Duration = Duration::from_secs(3600);
/// The bounds of what a cache may say about that.
const FOUND_RANGE: (Duration, Duration) =
    (Duration::from_secs(300), Duration::from_secs(24 * 3600));
/// How long "not here" is believed, if the cache does not say: long enough for all machines of a
/// site, short enough for somebody who waits for CI to upload.
pub(crate) const ABSENT_FOR: Duration = Duration::from_secs(60);
/// The bounds of what a cache may say about that.
const ABSENT_RANGE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));

/// What is remembered of one path at one upstream.
#[derive(Debug, Clone)]
pub(crate) enum Remembered {
    /// It is there.
    Found(Arc<Found>),
    /// It is not.
    Absent,
    /// It was there; ask whether that still holds.
    Stale(Arc<Found>, Validator),
    /// Nothing.
    Nothing,
}

struct Entry {
    until: Instant,
    found: Option<(Arc<Found>, Option<Validator>)>,
}

/// The answers of one upstream.
pub(crate) struct Memory {
    answers: LruCache<HashPart, Entry>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self { answers: LruCache::new(ANSWERS_MAX) }
    }

    pub(crate) fn get(&mut self, hash: &HashPart, now: Instant) -> Remembered {
        let Some(entry) = self.answers.get(hash) else { return Remembered::Nothing };
        match &entry.found {
            Some((found, _)) if now < entry.until => Remembered::Found(Arc::clone(found)),
            None if now < entry.until => Remembered::Absent,
            Some((found, Some(validator))) => {
                Remembered::Stale(Arc::clone(found), validator.clone())
            }
            _ => Remembered::Nothing,
        }
    }

    /// Remembers a narinfo; `lifetime` is what the cache says about it.
    pub(crate) fn found(
        &mut self,
        hash: HashPart,
        found: Arc<Found>,
        validator: Option<Validator>,
        lifetime: Option<Duration>,
        now: Instant,
    ) {
        let lifetime = lifetime.unwrap_or(FOUND_FOR).clamp(FOUND_RANGE.0, FOUND_RANGE.1);
        let entry = Entry { until: now + lifetime, found: Some((found, validator)) };
        self.answers.put(hash, entry);
    }

    /// Remembers that there is none.
    pub(crate) fn absent(&mut self, hash: HashPart, lifetime: Option<Duration>, now: Instant) {
        let lifetime = lifetime.unwrap_or(ABSENT_FOR).clamp(ABSENT_RANGE.0, ABSENT_RANGE.1);
        self.answers.put(hash, Entry { until: now + lifetime, found: None });
    }

    pub(crate) fn forget(&mut self, hash: &HashPart) {
        self.answers.pop(hash);
    }

    /// Makes an answer too old to be believed.
    #[cfg(test)]
    pub(crate) fn age(&mut self, hash: &HashPart) {
        if let Some(entry) = self.answers.get_mut(hash) {
            entry.until = Instant::now();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.answers.clear();
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("answers", &self.answers.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::found;

    fn after(now: Instant, seconds: u64) -> Instant {
        now + Duration::from_secs(seconds)
    }

    #[test]
    fn answers_age() {
        let (mut memory, now) = (Memory::new(), Instant::now());
        let (a, b, c) = (
            HashPart::from_bytes([1; 20]),
            HashPart::from_bytes([2; 20]),
            HashPart::from_bytes([3; 20]),
        );
        memory.found(a, found(), Some(Validator::Etag("\"x\"".into())), None, now);
        memory.found(b, found(), None, Some(Duration::from_secs(1)), now);
        memory.absent(c, Some(Duration::from_secs(u64::MAX / 4)), now);
        assert!(matches!(memory.get(&a, after(now, 3599)), Remembered::Found(_)));
        assert!(matches!(memory.get(&a, after(now, 3600)), Remembered::Stale(..)));
        assert!(matches!(memory.get(&b, after(now, 299)), Remembered::Found(_)), "at least 300 s");
        assert!(matches!(memory.get(&b, after(now, 300)), Remembered::Nothing));
        assert!(matches!(memory.get(&c, after(now, 599)), Remembered::Absent));
        assert!(matches!(memory.get(&c, after(now, 600)), Remembered::Nothing), "at most 600 s");
        memory.forget(&a);
        assert!(matches!(memory.get(&a, now), Remembered::Nothing));
    }
}
