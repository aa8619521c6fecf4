//! Whether to ask an upstream now, and how long to wait for it: a circuit breaker and a latency
//! estimate. Pure: time and randomness are arguments.

use std::time::{Duration, Instant};

use haulout_swarm::estimate::Histogram;

use crate::error::{Trouble, Weight};

/// Failures in a row that open the circuit. One may be a hiccup; three are not.
pub const FAILURES_MAX: u32 = 3;
/// The first time an upstream is left alone.
pub const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest an upstream is left alone for failures: a laptop that comes back from a train finds
/// its caches within a minute.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The longest `Retry-After` that is obeyed; a mistaken or malicious one must not last for days.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// An answer that took longer than this came, but was of no use to whoever waited: it does not make
/// up for failures.
pub const LATE: Duration = Duration::from_secs(1);
/// What is assumed of an upstream before the first answer.
pub const LATENCY_UNKNOWN: Duration = Duration::from_millis(150);
/// The least and the most that is waited for one upstream before the next is asked beside it.
const HEDGE_RANGE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Whether a request may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leave {
    /// Yes.
    Ask,
    /// No, not for this long.
    Wait(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Circuit {
    /// Asked freely; so many failures in a row.
    Closed(u32),
    /// Not asked before this instant; opened so many times in a row.
    Open { until: Instant, times: u32 },
    /// One request is out to see whether it is back.
    Probing { since: Instant, times: u32 },
}

/// A probe that never reports (its asker went away) is forgotten after this.
const PROBE_MAX: Duration = Duration::from_secs(20);

/// The standing of one upstream.
#[derive(Debug, Clone)]
pub struct Health {
    circuit: Circuit,
    latency: Histogram,
    last: Option<Trouble>,
}

impl Default for Health {
    fn default() -> Self {
        Self { circuit: Circuit::Closed(0), latency: Histogram::default(), last: None }
    }
}

impl Health {
    /// Of one that has to answer a first time before anybody waits for it.
    #[must_use]
    pub fn unproven(now: Instant) -> Self {
        Self { circuit: Circuit::Open { until: now, times: 0 }, ..Self::default() }
    }

    /// Asks for leave to send a request. `Ask` may make the request the probe of an open circuit,
    /// so the answer must be reported with [`Health::success`] or [`Health::trouble`].
    pub fn leave(&mut self, now: Instant) -> Leave {
        match self.circuit {
            Circuit::Closed(_) => Leave::Ask,
            Circuit::Open { until, .. } if now < until => Leave::Wait(until - now),
            Circuit::Probing { since, .. } if now < since + PROBE_MAX => {
                Leave::Wait(since + PROBE_MAX - now)
            }
            Circuit::Open { times, .. } | Circuit::Probing { times, .. } => {
                self.circuit = Circuit::Probing { since: now, times };
                Leave::Ask
            }
        }
    }

    /// Whether questions go there: nothing was wrong lately. Nobody has to wait for an upstream
    /// that may still be bad, so its probe is made behind everybody's back.
    #[must_use]
    pub const fn available(&self) -> bool {
        matches!(self.circuit, Circuit::Closed(_))
    }

    /// Whether it is time to see if it is back.
    #[must_use]
    pub fn probe_due(&self, now: Instant) -> bool {
        match self.circuit {
            Circuit::Closed(_) => false,
            Circuit::Open { until, .. } => now >= until,
            Circuit::Probing { since, .. } => now >= since + PROBE_MAX,
        }
    }

    /// It answered (a 404 is an answer), the header after `latency`.
    pub fn success(&mut self, latency: Option<Duration>) {
        let late = latency.is_some_and(|latency| latency > LATE);
        self.circuit = match self.circuit {
            Circuit::Closed(failures) if late => Circuit::Closed(failures),
            Circuit::Open { .. } if late => self.circuit,
            Circuit::Probing { .. } if late => Circuit::Closed(FAILURES_MAX - 1),
            _ => Circuit::Closed(0),
        };
        if let Some(latency) = latency {
            self.latency.add(latency);
        }
    }

    /// It did not answer as it should. `jitter` is a random number in 0..1; it spreads the
    /// returns of many machines over half the pause. An upstream that never worked (`untried`) needs
    /// to fail only once.
    pub fn trouble(&mut self, now: Instant, trouble: &Trouble, untried: bool, jitter: f64) {
        let (times, at_least) = match (trouble.weight(), self.circuit) {
            (Weight::None, _) => return,
            (Weight::Failure, Circuit::Closed(failures))
                if failures + 1 < FAILURES_MAX && !untried =>
            {
                self.circuit = Circuit::Closed(failures + 1);
                self.last = Some(trouble.clone());
                return;
            }
            // Requests that were out when the circuit opened fail too: no news.
            (Weight::Failure, Circuit::Open { .. }) => return,
            (Weight::Failure, Circuit::Closed(_)) => (0, None),
            (Weight::Failure, Circuit::Probing { times, .. }) => (times + 1, None),
            (Weight::Stop(pause), Circuit::Closed(_)) => (0, pause),
            (Weight::Stop(pause), Circuit::Open { times, .. } | Circuit::Probing { times, .. }) => {
                (times + 1, pause)
            }
        };
        let pause = PAUSE_MIN.saturating_mul(1 << times.min(10)).min(PAUSE_MAX);
        let pause = pause.mul_f64(0.75 + 0.5 * jitter.clamp(0.0, 1.0));
        let pause = pause.max(at_least.unwrap_or_default().min(RETRY_AFTER_MAX));
        let until = match self.circuit {
            Circuit::Open { until, .. } => until.max(now + pause),
            _ => now + pause,
        };
        self.circuit = Circuit::Open { until, times };
        self.last = Some(trouble.clone());
    }

    /// The last trouble, kept for reports after it is over.
    #[must_use]
    pub const fn last_trouble(&self) -> Option<&Trouble> {
        self.last.as_ref()
    }

    /// For how much longer it is left alone.
    #[must_use]
    pub fn left_alone(&self, now: Instant) -> Option<Duration> {
        match self.circuit {
            Circuit::Open { until, .. } => until.checked_duration_since(now),
            _ => None,
        }
    }

    /// The median time to an answer, once there was one.
    #[must_use]
    pub fn latency(&self) -> Option<Duration> {
        self.latency.percentile(50)
    }

    /// How long to wait for it before another upstream is asked beside it: nine of ten answers
    /// come within that time.
    #[must_use]
    pub fn hedge_after(&self) -> Duration {
        let usual = self.latency.percentile(90).unwrap_or(LATENCY_UNKNOWN);
        usual.clamp(HEDGE_RANGE.0, HEDGE_RANGE.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DOWN: Trouble = Trouble::Status(500);

    fn later(now: Instant, seconds: f64) -> Instant {
        now + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn three_failures_open_it_and_one_success_closes_it() {
        let (mut health, now) = (Health::default(), Instant::now());
        health.trouble(now, &DOWN, false, 0.5);
        health.trouble(now, &DOWN, false, 0.5);
        health.success(None);
        for _ in 0..2 {
            health.trouble(now, &DOWN, false, 0.5);
            assert_eq!(health.leave(now), Leave::Ask);
        }
        health.trouble(now, &DOWN, false, 0.5);
        assert_eq!(health.leave(now), Leave::Wait(PAUSE_MIN));
        assert!(!health.available() && !health.probe_due(now));
        let now = later(now, 1.0);
        assert_eq!(health.leave(now), Leave::Ask);
        assert!(matches!(health.leave(now), Leave::Wait(_)), "one probe at a time");
        health.success(Some(Duration::from_millis(3)));
        assert_eq!(health.leave(now), Leave::Ask);
    }

    #[test]
    fn one_that_never_worked_needs_to_fail_only_once() {
        let (mut health, now) = (Health::default(), Instant::now());
        health.trouble(now, &DOWN, true, 0.5);
        assert!(!health.available() && !health.probe_due(now));
        assert!(health.probe_due(later(now, 1.0)));
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        for _ in 0..FAILURES_MAX {
            health.trouble(now, &DOWN, false, 0.5);
        }
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let Leave::Wait(pause) = health.leave(now) else { panic!("open") };
            pauses.push(pause.as_secs());
            now += pause;
            assert_eq!(health.leave(now), Leave::Ask);
            health.trouble(now, &DOWN, false, 0.5);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn retry_after_is_obeyed_within_reason() {
        let limited = |seconds| Trouble::RateLimited {
            status: 429,
            retry_after: Some(Duration::from_secs(seconds)),
        };
        for (asked, given) in [(120, 120), (1_000_000_000, RETRY_AFTER_MAX.as_secs())] {
            let (mut health, now) = (Health::default(), Instant::now());
            health.trouble(now, &limited(asked), false, 0.0);
            assert_eq!(health.leave(now), Leave::Wait(Duration::from_secs(given)));
        }
        let (mut health, now) = (Health::default(), Instant::now());
        health.trouble(now, &Trouble::RateLimited { status: 429, retry_after: None }, false, 0.5);
        assert_eq!(health.leave(now), Leave::Wait(PAUSE_MIN));
    }

    #[test]
    fn a_lost_probe_is_replaced() {
        let (mut health, now) = (Health::default(), Instant::now());
        health.trouble(now, &Trouble::Portal("x".into()), false, 0.5);
        let now = now + HOPELESS_TEST;
        assert_eq!(health.leave(now), Leave::Ask);
        assert!(matches!(health.leave(now), Leave::Wait(_)));
        assert_eq!(health.leave(now + PROBE_MAX), Leave::Ask);
    }

    const HOPELESS_TEST: Duration = Duration::from_secs(60);

    proptest! {
        /// Whatever happens, an upstream that is well again is asked again within the longest pause.
        #[test]
        fn nobody_is_forgotten(events in prop::collection::vec((0u8..4, 0u64..100_000), 0..50)) {
            let (mut health, mut now) = (Health::default(), Instant::now());
            for (kind, after) in events {
                now += Duration::from_millis(after);
                match kind {
                    0 => health.success(Some(Duration::from_millis(after))),
                    1 => health.trouble(now, &DOWN, false, 1.0),
                    2 => health.trouble(now, &Trouble::RateLimited {
                        status: 503, retry_after: Some(Duration::from_secs(after)) }, false, 1.0),
                    _ => drop(health.leave(now)),
                }
                if let Some(pause) = health.left_alone(now) {
                    prop_assert!(pause <= RETRY_AFTER_MAX);
                }
                prop_assert!(health.hedge_after() <= HEDGE_RANGE.1);
            }
            let later = now + RETRY_AFTER_MAX + PROBE_MAX;
            prop_assert!(health.available() || health.probe_due(later));
        }
    }
}
