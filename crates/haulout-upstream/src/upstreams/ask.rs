//! Questions about paths: each asked once at a time, of one upstream after the other.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use futures_util::stream::{FuturesUnordered, StreamExt};
use haulout_nix::HashPart;

use super::{Answer, UpstreamId, Upstreams};
use crate::error::Trouble;
use crate::upstream::Said;

/// A question that was out for less says more about the asker than about the upstream.
const BLAME_FROM: Duration = Duration::from_millis(150);
/// Questions that are open at a time; further ones are answered "unknown" at once.
const FLIGHTS_MAX: usize = 1024;

/// A question that is out, and its answer.
pub(super) type Flight = Shared<BoxFuture<'static, Answer>>;

impl Upstreams {
    /// Asks for a path, waiting no longer than `budget`. A question that takes longer goes on
    /// behind the asker's back, for at most ten seconds, and its answer is there for the next one.
    pub async fn narinfo(&self, hash: HashPart, budget: Duration) -> Answer {
        if let Some(answer) = self.remembered(&hash) {
            return answer;
        }
        let Some(flight) = self.fly(hash) else { return Answer::Unknown(Trouble::Busy) };
        match tokio::time::timeout(budget, flight).await {
            Ok(answer) => answer,
            Err(_) => {
                self.list().iter().for_each(|upstream| upstream.kept_waiting(&hash, BLAME_FROM));
                Answer::Unknown(Trouble::OverBudget)
            }
        }
    }

    /// Asks one upstream only, waiting no longer than `budget`.
    pub async fn narinfo_from(&self, id: &UpstreamId, hash: HashPart, budget: Duration) -> Answer {
        let Some(upstream) = self.get(id) else {
            return Answer::Unknown(Trouble::Unusable(
                "it is not an upstream of this machine".into(),
            ));
        };
        let judge = Arc::clone(&self.inner.options.judge);
        // A task of its own: the answer is remembered even if it comes too late for this asker.
        let asked = Arc::clone(&upstream);
        let task = tokio::spawn(async move { asked.narinfo(hash, &*judge).await });
        match tokio::time::timeout(budget, task).await {
            Ok(Ok(Said::Found(found))) => Answer::Found(found),
            Ok(Ok(Said::Absent)) => Answer::Absent,
            Ok(Ok(Said::Unknown(trouble))) => Answer::Unknown(trouble),
            Ok(Err(_)) => Answer::Unknown(Trouble::Busy),
            Err(_) => {
                upstream.kept_waiting(&hash, BLAME_FROM);
                Answer::Unknown(Trouble::OverBudget)
            }
        }
    }

    /// What is known of a path without asking anybody; `None`: it would have to be asked.
    #[must_use]
    pub fn remembered(&self, hash: &HashPart) -> Option<Answer> {
        let now = Instant::now();
        let list = self.order(now);
        let mut unknown = false;
        for upstream in &list {
            match upstream.remembered(hash, now) {
                Some(Said::Found(found)) => return Some(Answer::Found(found)),
                Some(Said::Absent) => {}
                Some(Said::Unknown(_)) | None => unknown = true,
            }
        }
        (!unknown && list.len() == self.list().len()).then_some(Answer::Absent)
    }

    /// Joins the question in flight, or asks it; `None`: too many are.
    fn fly(&self, hash: HashPart) -> Option<Flight> {
        let mut flights = self.inner.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&hash) {
            return Some(flight.clone());
        }
        if flights.len() >= FLIGHTS_MAX {
            return None;
        }
        let asking = self.clone();
        // A task of its own: an asker that gives up does not take the question along.
        let task = tokio::spawn(async move {
            let answer = asking.ask_all(hash).await;
            asking.inner.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&hash);
            answer
        });
        let flight =
            task.map(|done| done.unwrap_or(Answer::Unknown(Trouble::Busy))).boxed().shared();
        flights.insert(hash, flight.clone());
        Some(flight)
    }

    /// Asks one after the other by priority, the next one as soon as the one before says no or
    /// takes longer than it usually does. The first that has it wins.
    async fn ask_all(&self, hash: HashPart) -> Answer {
        let all = self.list().len();
        let list = self.order(Instant::now());
        let mut trouble = (list.len() < all).then_some(Trouble::LeftAlone {
            wait: Duration::ZERO,
            why: "earlier trouble".to_owned(),
        });
        let mut waiting = list.into_iter();
        let mut asked = FuturesUnordered::new();
        loop {
            let mut hedge = Duration::MAX;
            if let Some(upstream) = waiting.next() {
                hedge = upstream.hedge_after();
                let judge = Arc::clone(&self.inner.options.judge);
                asked.push(async move { upstream.narinfo(hash, &*judge).await });
            } else if asked.is_empty() {
                break;
            }
            let first = match waiting.len() {
                0 => asked.next().await,
                _ => tokio::time::timeout(hedge, asked.next()).await.unwrap_or(None),
            };
            match first {
                Some(Said::Found(found)) => return Answer::Found(found),
                Some(Said::Unknown(why)) => trouble = Some(why),
                Some(Said::Absent) | None => {}
            }
        }
        trouble.map_or(Answer::Absent, Answer::Unknown)
    }
}
