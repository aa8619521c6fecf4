//! A second thread that dumps the next entries of a directory while the first dumps these.

use super::{dump::dump_entries, tree::Entries};
use rustix::fd::{AsFd, OwnedFd};
use std::{
    io::{self, Write},
    ops::Range,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

/// What a helper makes ahead at most, in bytes: many small files. A group that turns out to be
/// larger is left to the first thread, for which it is as quick.
const AHEAD_BYTES_MAX: usize = 2 << 20;

/// Some entries of one directory.
pub(super) struct Part {
    pub(super) directory: Arc<OwnedFd>,
    pub(super) entries: Arc<Entries>,
    pub(super) range: Range<usize>,
    pub(super) depth: usize,
}

/// A part that was handed over; every one must be given to [`Helper::finish`].
pub(super) struct Started(());

/// The thread, started when it is first needed.
#[derive(Default)]
pub(super) struct Helper {
    running: Option<Running>,
    busy: bool,
}

struct Running {
    parts: SyncSender<Part>,
    made: Receiver<Option<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Helper {
    /// Whether it has nothing to do.
    pub(super) const fn is_free(&self) -> bool {
        !self.busy
    }

    /// Hands a part over; `None` when that is not possible.
    pub(super) fn start(&mut self, part: Part) -> Option<Started> {
        if self.busy {
            return None;
        }
        if self.running.is_none() {
            self.running = Running::start().ok();
        }
        self.running.as_ref()?.parts.send(part).ok()?;
        self.busy = true;
        Some(Started(()))
    }

    /// Waits for the part. `None`: it must be done without help.
    pub(super) fn finish(&mut self, _: Started) -> Option<Vec<u8>> {
        self.busy = false;
        self.running.as_ref()?.made.recv().ok()?
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if let Some(Running { parts, made, thread }) = self.running.take() {
            drop((parts, made));
            // It ends after the part it has, if any; a panic there concerns nobody.
            let _ = thread.join();
        }
    }
}

impl Running {
    fn start() -> io::Result<Self> {
        let (parts, to_do) = sync_channel::<Part>(1);
        let (done, made) = sync_channel(1);
        let work = move || {
            while let Ok(part) = to_do.recv() {
                if done.send(make(&part)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("nar-helper".into()).spawn(work)?;
        Ok(Self { parts, made, thread })
    }
}

fn make(part: &Part) -> Option<Vec<u8>> {
    let mut out = Limited(Vec::new());
    let directory = part.directory.as_fd();
    dump_entries(directory, &part.entries, part.range.clone(), part.depth, &mut out).ok()?;
    Some(out.0)
}

/// A vector that does not grow beyond [`AHEAD_BYTES_MAX`].
struct Limited(Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > AHEAD_BYTES_MAX - self.0.len() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
