//! A token bucket: so many at once, so many per second.

use std::sync::Mutex;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) struct Bucket {
    per_second: f64,
    burst: f64,
    state: Mutex<(f64, Instant)>,
}

impl Bucket {
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        Self {
            per_second: f64::from(per_second),
            burst: f64::from(burst),
            state: Mutex::new((f64::from(burst), Instant::now())),
        }
    }

    /// Takes one token if there is one.
    pub(crate) fn take(&self) -> bool {
        self.take_at(Instant::now())
    }

    /// Takes `cost` tokens, going into debt if need be; returns how long to wait until the debt is paid off.
    pub(crate) fn charge(&self, cost: usize) -> Duration {
        self.charge_at(cost, Instant::now())
    }

    fn charge_at(&self, cost: usize, now: Instant) -> Duration {
        let Ok(mut state) = self.state.lock() else {
            return Duration::ZERO;
        };
        let tokens = self.grown(*state, now) - cost as f64;
        *state = (tokens, now);
        Duration::try_from_secs_f64(-tokens / self.per_second).unwrap_or(Duration::ZERO)
    }

    fn grown(&self, (tokens, last): (f64, Instant), now: Instant) -> f64 {
        now.saturating_duration_since(last)
            .as_secs_f64()
            .mul_add(self.per_second, tokens)
            .min(self.burst)
    }

    fn take_at(&self, now: Instant) -> bool {
        let Ok(mut state) = self.state.lock() else {
            return false;
        };
        let grown = self.grown(*state, now);
        let granted = grown >= 1.0;
        *state = (if granted { grown - 1.0 } else { grown }, now);
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let bucket = Bucket::new(10, 5);
        let start = Instant::now();
        assert_eq!((0..20).filter(|_| bucket.take_at(start)).count(), 5);
        let later = start + Duration::from_millis(350);
        assert_eq!((0..20).filter(|_| bucket.take_at(later)).count(), 3);
        let much_later = later + Duration::from_secs(60);
        assert_eq!((0..20).filter(|_| bucket.take_at(much_later)).count(), 5);
    }

    #[test]
    fn a_debt_is_waited_for() {
        let bucket = Bucket::new(10, 50);
        let start = Instant::now();
        assert_eq!(bucket.charge_at(50, start), Duration::ZERO);
        assert_eq!(bucket.charge_at(20, start), Duration::from_secs(2));
        assert_eq!(bucket.charge_at(5, start), Duration::from_millis(2_500));
        let later = start + Duration::from_secs(60);
        assert_eq!(bucket.charge_at(50, later), Duration::ZERO, "paid off, and full again");
        assert_eq!(bucket.charge_at(10, later), Duration::from_secs(1));
    }
}
