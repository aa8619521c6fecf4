//! One client connection: its socket, what it is doing, and who may be asked to leave.
//!
//! A header that never ends and a connection that is only held open are told apart here, by one
//! sweep over all connections every few seconds; arming a timer per request would cost more than
//! answering it.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
};

/// What is known of one open connection.
#[derive(Debug)]
pub(crate) struct State {
    /// Number in the registry.
    id: u64,
    epoch: Instant,
    /// A request is being answered.
    busy: AtomicBool,
    /// Bytes came in since the last request was answered (or since the beginning): a header is
    /// under way.
    header_begun: AtomicBool,
    /// Milliseconds after `epoch` when it was opened or became idle.
    since: AtomicU64,
    /// Wakes the task that owns the connection, which then looks at `leave`.
    pub(crate) wake: Notify,
    leave: AtomicBool,
}

/// How a connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// After the request in hand, if any.
    Gracefully,
    /// Now.
    Now,
}

impl State {
    /// Mark the beginning of a request; the mark is taken back when the value is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Busy {
        self.busy.store(true, Relaxed);
        self.header_begun.store(false, Relaxed);
        Busy(Arc::clone(self))
    }

    /// What the sweep or a shutdown decided; call after `wake`.
    pub(crate) fn how_to_leave(&self) -> Leave {
        if self.leave.load(Relaxed) { Leave::Now } else { Leave::Gracefully }
    }

    fn ask_to_leave(&self, how: Leave) {
        self.leave.store(how == Leave::Now, Relaxed);
        self.wake.notify_one();
    }

    fn idle_for(&self) -> Option<Duration> {
        let now = self.epoch.elapsed();
        (!self.busy.load(Relaxed))
            .then(|| now.saturating_sub(Duration::from_millis(self.since.load(Relaxed))))
    }
}

/// Held by everything that belongs to answering one request.
pub(crate) struct Busy(Arc<State>);

impl Drop for Busy {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.since.store(now, Relaxed);
        self.0.busy.store(false, Relaxed);
    }
}

/// All open connections.
#[derive(Debug)]
pub(crate) struct Registry {
    epoch: Instant,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next_id: u64,
    states: HashMap<u64, Arc<State>>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self { epoch: Instant::now(), open: Mutex::default() }
    }

    /// Enter a new connection; it leaves the registry when the returned value is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Entry {
        let since = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut open = self.lock();
        let id = open.next_id;
        open.next_id += 1;
        let state = Arc::new(State {
            id,
            epoch: self.epoch,
            busy: AtomicBool::new(false),
            header_begun: AtomicBool::new(false),
            since: AtomicU64::new(since),
            wake: Notify::new(),
            leave: AtomicBool::new(false),
        });
        open.states.insert(id, Arc::clone(&state));
        Entry { registry: Arc::clone(self), state }
    }

    /// Drop those whose header takes longer than `header`, close those idle for longer than `idle`.
    pub(crate) fn sweep(&self, header: Duration, idle: Duration) {
        for state in self.lock().states.values() {
            match state.idle_for() {
                Some(quiet) if quiet > header && state.header_begun.load(Relaxed) => {
                    state.ask_to_leave(Leave::Now)
                }
                Some(quiet) if quiet > idle => state.ask_to_leave(Leave::Gracefully),
                _ => {}
            }
        }
    }

    /// Make room: end the connection that has been idle the longest. `false` when all are at work.
    pub(crate) fn end_longest_idle(&self) -> bool {
        let open = self.lock();
        let longest = open
            .states
            .values()
            .filter_map(|state| Some((state.idle_for()?, state)))
            .max_by_key(|(quiet, _)| *quiet);
        if let Some((_, state)) = longest {
            state.ask_to_leave(Leave::Now);
        }
        longest.is_some()
    }

    /// Let every connection finish its request and go.
    pub(crate) fn end_all(&self) {
        for state in self.lock().states.values() {
            state.ask_to_leave(Leave::Gracefully);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place in the registry.
pub(crate) struct Entry {
    registry: Arc<Registry>,
    pub(crate) state: Arc<State>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.lock().states.remove(&self.state.id);
    }
}

/// The socket, noting when bytes come in.
pub(crate) struct Socket<T> {
    io: TokioIo<T>,
    state: Arc<State>,
}

impl<T> Socket<T> {
    pub(crate) fn new(stream: T, state: Arc<State>) -> Self {
        Self { io: TokioIo::new(stream), state }
    }
}

impl<T: AsyncRead + Unpin> Read for Socket<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        self.state.header_begun.store(true, Relaxed);
        Poll::Ready(result)
    }
}

impl<T: AsyncWrite + Unpin> Write for Socket<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_idle_goes_first_and_the_busy_stay() {
        let registry = Arc::new(Registry::new());
        let (first, second) = (registry.enter(), registry.enter());
        std::thread::sleep(Duration::from_millis(5));
        let busy = first.state.begin();
        assert!(registry.end_longest_idle());
        assert_eq!(
            (first.state.how_to_leave(), second.state.how_to_leave()),
            (Leave::Gracefully, Leave::Now)
        );
        drop(second);
        assert!(!registry.end_longest_idle());
        drop(busy);
        assert!(registry.end_longest_idle());
        drop(first);
        assert!(registry.lock().states.is_empty());
    }

    #[test]
    fn the_sweep_tells_slow_headers_from_idleness() {
        let registry = Arc::new(Registry::new());
        let (slow, idle) = (registry.enter(), registry.enter());
        slow.state.header_begun.store(true, Relaxed);
        std::thread::sleep(Duration::from_millis(20));
        registry.sweep(Duration::from_millis(5), Duration::from_secs(60));
        assert_eq!(
            (slow.state.how_to_leave(), idle.state.how_to_leave()),
            (Leave::Now, Leave::Gracefully)
        );
    }
}
