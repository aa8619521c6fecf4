//! Compressed frames that the next asker may want.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Encoding, Frame};

/// Compressed frames for the next asker: bounded in bytes, forgotten some time after their last use.
///
/// They go by the NAR's hash and where they begin (frames are aligned), or, pieces of site objects, by their own hash. Whoever
/// asks has been admitted before.
#[derive(Debug)]
pub struct FrameCache {
    bytes_max: usize,
    ttl: Duration,
    inner: Mutex<CacheInner>,
}

#[derive(Debug, Default)]
struct CacheInner {
    frames: HashMap<([u8; 32], u64), Cached>,
    bytes: usize,
}

#[derive(Debug)]
struct Cached {
    data: Bytes,
    raw_len: usize,
    used: Instant,
}

impl FrameCache {
    /// An empty cache with these bounds.
    #[must_use]
    pub fn new(bytes_max: usize, ttl: Duration) -> Self {
        Self { bytes_max, ttl, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, CacheInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The compressed frame at `position`, if it was kept and has this raw length.
    #[must_use]
    pub fn get(&self, of: &[u8; 32], position: u64, raw_len: usize) -> Option<Frame> {
        let mut inner = self.lock();
        let cached = inner.frames.get_mut(&(*of, position))?;
        if cached.raw_len != raw_len {
            return None;
        }
        cached.used = Instant::now();
        Some(Frame { encoding: Encoding::Zstd, data: cached.data.clone(), raw_len })
    }

    /// Keeps a compressed frame.
    pub fn put(&self, of: &[u8; 32], position: u64, frame: &Frame) {
        if frame.encoding != Encoding::Zstd || frame.data.len() > self.bytes_max / 16 {
            return;
        }
        let mut inner = self.lock();
        if inner.bytes + frame.data.len() > self.bytes_max {
            inner.expire(Instant::now(), self.ttl / 2);
            // Still full of fresh frames: keep those, they are as likely to be asked again.
            if inner.bytes + frame.data.len() > self.bytes_max {
                return;
            }
        }
        let cached =
            Cached { data: frame.data.clone(), raw_len: frame.raw_len, used: Instant::now() };
        inner.bytes += frame.data.len();
        if let Some(old) = inner.frames.insert((*of, position), cached) {
            inner.bytes -= old.data.len();
        }
    }

    /// Forgets what has not been used for long; called about once a second.
    pub fn expire(&self) {
        let mut inner = self.lock();
        if !inner.frames.is_empty() {
            inner.expire(Instant::now(), self.ttl);
        }
    }

    /// Bytes kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }
}

impl CacheInner {
    fn expire(&mut self, now: Instant, ttl: Duration) {
        let mut freed = 0;
        self.frames.retain(|_, cached| {
            let keep = now.saturating_duration_since(cached.used) < ttl;
            if !keep {
                freed += cached.data.len();
            }
            keep
        });
        self.bytes -= freed;
        if self.frames.is_empty() {
            self.frames.shrink_to_fit();
        }
    }
}
