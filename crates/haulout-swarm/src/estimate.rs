//! Small running estimates: a smoothed mean, and a histogram that gives percentiles.

use std::time::Duration;

/// Weight of a new sample in [`Ewma`]: the last eight samples carry two thirds of the weight, so a peer that
/// becomes slow is noticed within some requests, and one odd sample does not decide.
const EWMA_WEIGHT: f64 = 0.125;

/// An exponentially weighted moving average. Empty until the first sample, which it takes as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Ewma(Option<f64>);

impl Ewma {
    /// Takes a sample; what is not a finite number is ignored.
    pub fn add(&mut self, sample: f64) {
        if sample.is_finite() {
            self.0 = Some(self.0.map_or(sample, |mean| mean + EWMA_WEIGHT * (sample - mean)));
        }
    }

    /// The mean, if there was a sample.
    #[must_use]
    pub const fn get(self) -> Option<f64> {
        self.0
    }
}

/// Samples below 16 us share the lowest bucket.
const LOWEST_OCTAVE: u32 = 4;
/// Samples above 2^26 us (67 s) share the highest bucket.
const OCTAVES: u32 = 22;
/// Buckets in each power of two: a percentile is at most a quarter too high.
const PER_OCTAVE: u32 = 4;
const BUCKETS: usize = (1 + OCTAVES * PER_OCTAVE) as usize;

/// When this many samples are in, all counts are halved: older ones fade, and counters stay small.
const SAMPLES_MAX: u32 = 512;

/// How long things took, in buckets that grow geometrically. 182 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: [u16; BUCKETS],
    total: u32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], total: 0 }
    }
}

impl Histogram {
    /// Takes one measured span.
    pub fn add(&mut self, span: Duration) {
        if self.total >= SAMPLES_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().map(|count| u32::from(*count)).sum();
        }
        self.counts[Self::bucket(span)] += 1;
        self.total += 1;
    }

    /// How many samples it weighs, at most 512.
    #[must_use]
    pub const fn samples(&self) -> u32 {
        self.total
    }

    /// The span that `percent` of the samples do not exceed (upper edge of the bucket); `None` without samples.
    #[must_use]
    pub fn percentile(&self, percent: u32) -> Option<Duration> {
        if self.total == 0 {
            return None;
        }
        let wanted = (u64::from(self.total) * u64::from(percent.min(100))).div_ceil(100).max(1);
        let mut seen = 0u64;
        let bucket = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        });
        bucket.map(Self::upper_edge)
    }

    fn bucket(span: Duration) -> usize {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        if micros < 1 << LOWEST_OCTAVE {
            return 0;
        }
        let octave = micros.ilog2();
        let quarter = (micros >> (octave - 2)) & 3;
        let bucket = 1 + (octave - LOWEST_OCTAVE) * PER_OCTAVE + quarter as u32;
        (bucket as usize).min(BUCKETS - 1)
    }

    fn upper_edge(bucket: usize) -> Duration {
        let Some(step) = (bucket as u32).checked_sub(1) else {
            return Duration::from_micros(1 << LOWEST_OCTAVE);
        };
        let (octave, quarter) = (LOWEST_OCTAVE + step / PER_OCTAVE, u64::from(step % PER_OCTAVE));
        Duration::from_micros((5 + quarter) << (octave - 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn empty_ones_say_so() {
        assert_eq!(Ewma::default().get(), None);
        assert_eq!(Histogram::default().percentile(85), None);
    }

    #[test]
    fn ewma_follows() {
        let mut mean = Ewma::default();
        mean.add(f64::NAN);
        mean.add(10.0);
        assert_eq!(mean.get(), Some(10.0));
        (0..50).for_each(|_| mean.add(20.0));
        assert!(mean.get().unwrap() > 19.9);
    }

    #[test]
    fn old_samples_fade() {
        let mut spans = Histogram::default();
        (0..1000).for_each(|_| spans.add(Duration::from_millis(1)));
        (0..2000).for_each(|_| spans.add(Duration::from_millis(100)));
        assert!(spans.percentile(20).unwrap() >= Duration::from_millis(100));
    }

    proptest! {
        #[test]
        fn percentile_is_close_above(micros in prop::collection::vec(16u64..60_000_000, 1..400), percent in 1u32..=100) {
            let mut spans = Histogram::default();
            micros.iter().for_each(|m| spans.add(Duration::from_micros(*m)));
            let mut sorted = micros.clone();
            sorted.sort_unstable();
            let exact = sorted[(sorted.len() * percent as usize).div_ceil(100) - 1];
            let found = spans.percentile(percent).unwrap().as_micros() as u64;
            prop_assert!(found > exact && found * 4 <= exact * 5 + 8, "{found} for {exact}");
        }

        #[test]
        fn any_span_has_a_bucket(span: Duration) {
            let mut spans = Histogram::default();
            spans.add(span);
            prop_assert!(spans.percentile(0).is_some());
        }
    }
}
