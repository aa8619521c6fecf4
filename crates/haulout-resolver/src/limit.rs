//! A limit on what comes in.

use std::sync::{Mutex, PoisonError};

use haulout_swarm::Now;
use haulout_swarm::rate::Limiter;
use tokio::time::{Instant, sleep};

/// Who takes bytes waits here before it takes more: its source feels that.
#[derive(Debug)]
pub(crate) struct Intake {
    line: Mutex<Limiter>,
    begun: Instant,
}

impl Intake {
    /// Without a limit.
    pub(crate) fn new() -> Self {
        Self { line: Mutex::default(), begun: Instant::now() }
    }

    /// Bytes per second; `None`: no limit.
    pub(crate) fn set(&self, bytes_per_second: Option<u64>) {
        self.line.lock().unwrap_or_else(PoisonError::into_inner).set(bytes_per_second);
    }

    /// Books bytes that came, and waits until more may be taken. True if it had
    /// to.
    pub(crate) async fn took(&self, bytes: u64) -> bool {
        let now = Now::from_start(self.begun.elapsed());
        let wait = self.line.lock().unwrap_or_else(PoisonError::into_inner).book(bytes, now);
        if !wait.is_zero() {
            sleep(wait).await;
        }
        !wait.is_zero()
    }
}
