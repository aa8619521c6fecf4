//! A token bucket: so many at once, so many per second.

use std::sync::Mutex;
use std::time::Instant;

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

    fn take_at(&self, now: Instant) -> bool {
        let Ok(mut state) = self.state.lock() else {
            return false;
        };
        let (tokens, last) = *state;
        let grown = now
            .saturating_duration_since(last)
            .as_secs_f64()
            .mul_add(self.per_second, tokens)
            .min(self.burst);
        let granted = grown >= 1.0;
        *state = (if granted { grown - 1.0 } else { grown }, now);
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

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
}
