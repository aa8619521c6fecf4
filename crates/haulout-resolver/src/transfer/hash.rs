//! SHA-256 over a whole NAR, beside the async threads.
//!
//! Chunks are collected while a blocking thread hashes the ones before, so
//! a fast link makes large batches and a slow one costs no idle thread.

use bytes::Bytes;
use ring::digest::{Context, SHA256};
use tokio::task::JoinHandle;

/// Hand a batch to a blocking thread from this size on, in bytes: below,
/// the hand-over costs more than it hides.
const BATCH_MIN: usize = 256 << 10;
/// How much may wait for the hash before the feeder waits too, in bytes.
const BACKLOG_MAX: usize = 1 << 20;
/// Up to this size a whole NAR is hashed where it is, in bytes (about 0.1 ms).
const INLINE_MAX: usize = 128 << 10;

/// The running hash of one NAR.
pub(crate) struct WholeHash {
    state: State,
    backlog: Vec<Bytes>,
    waiting: usize,
}

enum State {
    Idle(Box<Context>),
    Busy(JoinHandle<Box<Context>>),
    /// The blocking thread was lost (the runtime shuts down): no hash will
    /// ever match.
    Lost,
}

impl WholeHash {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Idle(Box::new(Context::new(&SHA256))),
            backlog: Vec::new(),
            waiting: 0,
        }
    }

    /// Adds the next bytes of the NAR. Waits only while the hash is more
    /// than [`BACKLOG_MAX`] behind.
    pub(crate) async fn feed(&mut self, bytes: Bytes) {
        self.waiting += bytes.len();
        self.backlog.push(bytes);
        let finished = matches!(&self.state, State::Busy(job) if job.is_finished());
        if finished || self.waiting > BACKLOG_MAX {
            self.settle().await;
        }
        if self.waiting >= BATCH_MIN {
            self.launch();
        }
    }

    /// The digest over everything fed; `None` if it cannot be had.
    pub(crate) async fn finish(mut self) -> Option<[u8; 32]> {
        self.settle().await;
        if self.waiting > INLINE_MAX {
            self.launch();
            self.settle().await;
        }
        let State::Idle(mut context) = self.state else { return None };
        for bytes in &self.backlog {
            context.update(bytes);
        }
        context.finish().as_ref().try_into().ok()
    }

    fn launch(&mut self) {
        match std::mem::replace(&mut self.state, State::Lost) {
            State::Idle(mut context) => {
                let batch = std::mem::take(&mut self.backlog);
                self.waiting = 0;
                self.state = State::Busy(tokio::task::spawn_blocking(move || {
                    for bytes in &batch {
                        context.update(bytes);
                    }
                    context
                }));
            }
            State::Busy(job) => self.state = State::Busy(job),
            State::Lost => {
                self.backlog.clear();
                self.waiting = 0;
            }
        }
    }

    async fn settle(&mut self) {
        if let State::Busy(job) = &mut self.state {
            self.state = job.await.map_or(State::Lost, State::Idle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn any_chunking_gives_the_hash_of_the_whole() {
        let data: Vec<u8> = (0..3_000_017_u32).map(|i| (i % 251) as u8).collect();
        let expected: [u8; 32] = ring::digest::digest(&SHA256, &data).as_ref().try_into().unwrap();
        for step in [1 << 12, 65_536, 262_144, 1_000_003, data.len()] {
            let mut hash = WholeHash::new();
            for chunk in data.chunks(step) {
                hash.feed(Bytes::copy_from_slice(chunk)).await;
            }
            assert_eq!(hash.finish().await, Some(expected), "chunks of {step}");
        }
    }
}
