//! The stream of one NAR, written once, read by everybody who asked for it.
//!
//! The writer is the transfer's task; readers are HTTP responses. The ring
//! keeps the last bytes written, up to a fixed capacity, so that a second
//! reader can join close behind the first. A reader that stops reading while
//! another wants to go on is detached: it must start a transfer of its own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::budget::Lease;
use crate::keep::Tap;

/// How long one slow reader may hold up a faster one.
pub(crate) const SLOW_READER: Duration = Duration::from_secs(1);

/// Why a stream ended before its last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutReason {
    /// No source could continue.
    #[error("no source is left that could continue")]
    NoSource,
    /// The whole does not hash to NarHash.
    #[error("the whole does not have the promised hash")]
    WrongHash,
    /// The reader lagged behind the others; it may begin again at its offset.
    #[error("this reader was too slow for the others")]
    Detached,
    /// The path was deleted or altered while it was read.
    #[error("the path changed while it was read")]
    Changed,
}

#[derive(Debug)]
struct Inner {
    chunks: VecDeque<Bytes>,
    /// NAR offset of the first byte of `chunks`.
    base: u64,
    /// NAR offset after the last byte of `chunks`.
    head: u64,
    readers: Vec<(u64, u64)>,
    /// Where the last reader stood when nobody else was left: the stream
    /// waits there for somebody to come back.
    floor: u64,
    next_reader: u64,
    end: Option<Result<(), CutReason>>,
    /// Bytes the ring may hold.
    capacity: u64,
    lease: Option<Lease>,
    /// Writes everything to the cache, too.
    tap: Option<Tap>,
}

/// A bounded stream with one writer and any number of readers.
#[derive(Debug)]
pub(crate) struct Ring {
    inner: Mutex<Inner>,
    /// Something was written, or the stream ended.
    news: Notify,
    /// A reader moved, came or left.
    moved: Notify,
}

impl Ring {
    /// A ring that begins at NAR offset `start` and holds `capacity` bytes.
    pub(crate) fn new(start: u64, capacity: u64) -> Self {
        Self {
            inner: Mutex::new(Inner {
                chunks: VecDeque::new(),
                base: start,
                head: start,
                readers: Vec::new(),
                next_reader: 0,
                end: None,
                floor: start,
                capacity,
                lease: None,
                tap: None,
            }),
            news: Notify::new(),
            moved: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while holding the lock; if something did, the
        // numbers are still consistent after every statement.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends the next bytes, waiting while the ring is full of bytes some
    /// reader still needs. `false` when the stream was ended meanwhile.
    pub(crate) async fn push(&self, bytes: Bytes) -> bool {
        loop {
            let moved = self.moved.notified();
            let contested = {
                let mut inner = self.lock();
                if inner.end.is_some() {
                    return false;
                }
                inner.evict(bytes.len() as u64);
                if inner.chunks.is_empty() || inner.held() + bytes.len() as u64 <= inner.capacity {
                    inner.head += bytes.len() as u64;
                    if let Some(tap) = &mut inner.tap {
                        tap.offer(&bytes);
                    }
                    inner.chunks.push_back(bytes);
                    drop(inner);
                    self.news.notify_waiters();
                    return true;
                }
                inner.contested()
            };
            if !contested {
                moved.await;
            } else if tokio::time::timeout(SLOW_READER, moved).await.is_err() {
                self.lock().detach_slowest();
                self.news.notify_waiters();
            }
        }
    }

    /// Gives the ring the transfer's memory, for as long as anybody reads from
    /// it, and says how much of it is the ring's own.
    pub(crate) fn hold(&self, lease: Lease, capacity: u64) {
        let mut inner = self.lock();
        inner.capacity = capacity;
        inner.lease = Some(lease);
        drop(inner);
        self.moved.notify_waiters();
    }

    /// What is pushed from now on (from the first byte on) goes there, too.
    pub(crate) fn tap(&self, tap: Option<Tap>) {
        self.lock().tap = tap;
    }

    /// Ends the stream for all readers, once they have read what is there.
    pub(crate) fn finish(&self, end: Result<(), CutReason>) {
        let tap = {
            let mut inner = self.lock();
            inner.end.get_or_insert(end);
            inner.tap.take()
        };
        if let Some(tap) = tap.filter(|_| end.is_ok()) {
            tap.good();
        }
        self.news.notify_waiters();
        self.moved.notify_waiters();
    }

    /// NAR offset after the last byte written.
    pub(crate) fn head(&self) -> u64 {
        self.lock().head
    }

    /// How many readers there are.
    pub(crate) fn readers(&self) -> usize {
        self.lock().readers.len()
    }

    /// Waits until a reader moved, came or left since `notified` was made.
    pub(crate) fn moved(&self) -> tokio::sync::futures::Notified<'_> {
        self.moved.notified()
    }

    /// A ring as [`Ring::new`] makes it, with its first reader from `from`.
    pub(crate) fn with_reader(start: u64, capacity: u64, from: u64) -> (Arc<Self>, Reader) {
        let ring = Arc::new(Self::new(start, capacity));
        let reader = ring.add(&mut ring.lock(), from);
        (ring, reader)
    }

    fn add(self: &Arc<Self>, inner: &mut Inner, from: u64) -> Reader {
        let id = inner.next_reader;
        inner.next_reader += 1;
        inner.readers.push((id, from));
        Reader { ring: Arc::clone(self), id, position: from }
    }

    /// A reader from NAR offset `from`; `None` if the ring no longer has it,
    /// ended badly, or is more than `ahead` bytes short of it.
    pub(crate) fn join(self: &Arc<Self>, from: u64, ahead: u64) -> Option<Reader> {
        let mut inner = self.lock();
        let within = inner.base <= from && from <= inner.head.saturating_add(ahead);
        if !within || matches!(inner.end, Some(Err(_))) {
            return None;
        }
        let reader = self.add(&mut inner, from);
        drop(inner);
        self.moved.notify_waiters();
        Some(reader)
    }
}

impl Inner {
    fn held(&self) -> u64 {
        self.head - self.base
    }

    fn slowest(&self) -> u64 {
        self.readers.iter().map(|(_, at)| *at).min().unwrap_or(self.floor)
    }

    /// Makes room for `coming` bytes by dropping what every reader has read.
    fn evict(&mut self, coming: u64) {
        let slowest = self.slowest();
        while self.held() + coming > self.capacity {
            let Some(first) = self.chunks.front() else { break };
            let after = self.base + first.len() as u64;
            if after > slowest {
                break;
            }
            self.base = after;
            self.chunks.pop_front();
        }
    }

    /// Does one reader hold up another that has read everything?
    fn contested(&self) -> bool {
        self.readers.iter().any(|(_, at)| *at >= self.head) && self.slowest() < self.head
    }

    fn detach_slowest(&mut self) {
        let slowest = self.slowest();
        if self.contested() {
            self.readers.retain(|(_, at)| *at != slowest);
        }
    }

    fn read(&self, position: u64) -> Option<Bytes> {
        let mut at = self.base;
        for chunk in &self.chunks {
            let after = at + chunk.len() as u64;
            if position < after {
                let skip = usize::try_from(position - at).ok()?;
                return Some(chunk.slice(skip..));
            }
            at = after;
        }
        None
    }
}

/// One reader of a [`Ring`].
#[derive(Debug)]
pub(crate) struct Reader {
    ring: Arc<Ring>,
    id: u64,
    position: u64,
}

impl Reader {
    /// The next bytes; `None` at the end of the NAR. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, CutReason> {
        loop {
            let news = self.ring.news.notified();
            {
                let mut inner = self.ring.lock();
                let Some(slot) = inner.readers.iter().position(|(id, _)| *id == self.id) else {
                    return Err(CutReason::Detached);
                };
                if let Some(bytes) = inner.read(self.position) {
                    self.position += bytes.len() as u64;
                    inner.readers[slot].1 = self.position;
                    drop(inner);
                    self.ring.moved.notify_waiters();
                    return Ok(Some(bytes));
                }
                match inner.end {
                    Some(Ok(())) => return Ok(None),
                    Some(Err(why)) => return Err(why),
                    None => {}
                }
            }
            news.await;
        }
    }

    /// Waits until [`Reader::next`] would answer at once. `false` if the
    /// answer would be that the stream is cut.
    pub(crate) async fn ready(&mut self) -> bool {
        loop {
            let news = self.ring.news.notified();
            {
                let inner = self.ring.lock();
                if self.position < inner.head {
                    return true;
                }
                if let Some(end) = inner.end {
                    return end.is_ok();
                }
            }
            news.await;
        }
    }

    /// NAR offset of the next byte.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut inner = self.ring.lock();
        inner.readers.retain(|(id, _)| *id != self.id);
        if inner.readers.is_empty() {
            inner.floor = self.position.min(inner.head);
        }
        drop(inner);
        self.ring.moved.notify_waiters();
    }
}
