//! A random number generator whose output never changes with a library's
//! version: the same seed must give the same store paths everywhere.

/// SplitMix64 (Steele, Lea, Flood 2014). Good enough to shape test data, and
/// not for anything else.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    /// A stream for one purpose: the same parts give the same stream.
    pub(crate) fn new(seed: u64, parts: &[&[u8]]) -> Self {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        context.update(&seed.to_le_bytes());
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let digest = context.finish();
        let mut first = [0; 8];
        first.copy_from_slice(&digest.as_ref()[..8]);
        Self(u64::from_le_bytes(first))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which must not be 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        // The high half of the product: no division, bias below 2^-32 here.
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// From 0 up to but not including 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// About normally distributed: mean 0, deviation 1. The sum of twelve
    /// uniform numbers, because `ln` and `cos` differ between machines.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// About log-normal: `2^(mean + deviation * normal)`, rounded down.
    pub(crate) fn log_normal(&mut self, mean_log2: f64, deviation_log2: f64) -> u64 {
        let exponent = (mean_log2 + deviation_log2 * self.normal()).clamp(0.0, 40.0);
        let whole = exponent.floor();
        // Between two powers of two a straight line does.
        ((1.0 + (exponent - whole)) * (1u64 << whole as u32) as f64) as u64
    }
}
