//! A limit on bytes per second that several wait for: fairly among peers, and what somebody waits for before what nobody does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use haulout_swarm::rate::{FairLine, Turn, Urgency};
use haulout_swarm::{Now, PeerId};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

/// The limit. Its rule is [`FairLine`]; this gives it a clock.
#[derive(Debug)]
pub struct Line {
    state: Mutex<State>,
    begun: Instant,
}

#[derive(Debug)]
struct State {
    line: FairLine<oneshot::Sender<()>>,
    /// Somebody is handing out turns.
    driven: bool,
}

impl Line {
    /// A limit of so many bytes per second; `None`: none.
    #[must_use]
    pub fn new(bytes_per_second: Option<u64>) -> Arc<Self> {
        let state = State { line: FairLine::new(bytes_per_second), driven: false };
        Arc::new(Self { state: Mutex::new(state), begun: Instant::now() })
    }

    /// Bytes per second.
    #[must_use]
    pub fn rate(&self) -> Option<u64> {
        self.lock().line.rate()
    }

    /// Changes the limit, also for those that wait.
    pub fn set(&self, bytes_per_second: Option<u64>) {
        self.lock().line.set(bytes_per_second);
    }

    /// Waits until so many bytes of a peer may go. False if nothing is limited. Within a runtime.
    pub async fn turn(self: &Arc<Self>, peer: PeerId, urgency: Urgency, bytes: u64) -> bool {
        let turn = {
            let mut state = self.lock();
            if state.line.rate().is_none() {
                return false;
            }
            let (go, turn) = oneshot::channel();
            state.line.push(peer, urgency, bytes, go);
            if !std::mem::replace(&mut state.driven, true) {
                tokio::spawn(Arc::clone(self).drive());
            }
            turn
        };
        // Without anybody to hand out turns the runtime is ending.
        let _ = turn.await;
        true
    }

    /// Hands out turns as long as anybody waits.
    async fn drive(self: Arc<Self>) {
        loop {
            let wait = {
                let mut state = self.lock();
                let now = Now::from_start(self.begun.elapsed());
                match state.line.turn(now, |ticket| !ticket.is_closed()) {
                    Turn::Go(ticket) => {
                        // Who has gone meanwhile has no use for it.
                        let _ = ticket.send(());
                        continue;
                    }
                    Turn::Wait(wait) => wait,
                    Turn::Nobody => {
                        state.driven = false;
                        return;
                    }
                }
            };
            sleep(wait).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_awaited_gets_eight_times_as_much_and_everything_alone() {
        let line = Line::new(Some(1_000_000));
        let peer = PeerId::from_bytes([1; 32]);
        let got = [Urgency::Ahead, Urgency::Awaited].map(|urgency| {
            let (line, got) = (Arc::clone(&line), Arc::new(AtomicU64::new(0)));
            let count = Arc::clone(&got);
            let flow = tokio::spawn(async move {
                while line.turn(peer, urgency, 10_000).await {
                    count.fetch_add(10_000, Ordering::Relaxed);
                }
            });
            (got, flow)
        });
        sleep(Duration::from_secs(9)).await;
        let so_far = |n: usize| got[n].0.load(Ordering::Relaxed);
        assert!(so_far(0).abs_diff(1_000_000) < 60_000, "{}", so_far(0));
        assert!(so_far(1).abs_diff(8_000_000) < 200_000, "{}", so_far(1));
        got[1].1.abort();
        let before = so_far(0);
        sleep(Duration::from_secs(5)).await;
        assert!((so_far(0) - before).abs_diff(5_000_000) < 60_000);
        line.set(None);
        sleep(Duration::from_secs(1)).await;
        assert!(got[0].1.is_finished() && !line.turn(peer, Urgency::Awaited, 1).await);
    }
}
