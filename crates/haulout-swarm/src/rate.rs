//! A limit on bytes per second: how long must this wait?
//!
//! A virtual line: every byte occupies it for its time. Whoever sends books first and waits then, so those that share a
//! limiter are served in the order in which they came, a frame each, whatever their number: that is the fair share. A line
//! that was idle lets [`BURST`] of its time through at once.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::Now;

/// What may pass at once after idleness, as time at the full rate: short, or a limited uplink's queue fills.
pub const BURST: Duration = Duration::from_millis(100);

/// One limit. Without a rate it lets everything through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limiter {
    rate: Option<NonZeroU64>,
    free_at: Now,
}

impl Limiter {
    /// A limit of so many bytes per second; `None` or 0: none.
    #[must_use]
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self { rate: bytes_per_second.and_then(NonZeroU64::new), free_at: Now::START }
    }

    /// Changes the limit; what was booked stays booked.
    pub fn set(&mut self, bytes_per_second: Option<u64>) {
        self.rate = bytes_per_second.and_then(NonZeroU64::new);
    }

    /// Books `bytes` and says how long to wait before they may go (or, for what has arrived, before more is taken).
    pub fn book(&mut self, bytes: u64, now: Now) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let seconds = bytes as f64 / rate.get() as f64;
        // Absurd sizes wait for ever rather than overflow.
        let time = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let now_or_earlier = Now::from_start(now.since_start().saturating_sub(BURST));
        let start = self.free_at.max(now_or_earlier);
        self.free_at = start + time;
        self.free_at.since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Now {
        Now::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn no_limit_no_wait() {
        assert_eq!(Limiter::new(None).book(u64::MAX, at(0)), Duration::ZERO);
        assert_eq!(Limiter::new(Some(0)).book(u64::MAX, at(0)), Duration::ZERO);
    }

    #[test]
    fn two_that_share_get_half_each() {
        let mut limit = Limiter::new(Some(1_000_000));
        let (mut a, mut b, mut now) = (0u64, 0u64, at(1_000));
        while now < at(11_000) {
            let wait = limit.book(10_000, now);
            a += 10_000;
            let other = limit.book(10_000, now);
            b += 10_000;
            now = now + wait.max(other);
        }
        assert_eq!(a, b);
        assert!((a + b).abs_diff(10_000_000) < 200_000, "{}", a + b);
    }

    proptest! {
        /// Whoever waits as told never gets more through than rate × time and one burst.
        #[test]
        fn the_rate_holds(steps in prop::collection::vec((1u64..300_000, 0u64..50), 1..200)) {
            let rate = 2_000_000;
            let mut limit = Limiter::new(Some(rate));
            let start = at(10_000);
            let (mut now, mut passed) = (start, 0u64);
            for (bytes, pause) in steps {
                now = now + Duration::from_millis(pause);
                let wait = limit.book(bytes, now);
                now = now + wait;
                passed += bytes;
                let allowed = rate as f64 * (now.since(start) + BURST).as_secs_f64();
                prop_assert!(passed as f64 <= allowed + 1.0, "{passed} > {allowed}");
            }
        }
    }
}
