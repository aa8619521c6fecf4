//! FFT and multiplication over GF(2^16) on blocks.
//!
//! Where the CPU has GFNI and AVX-512, a multiplication by a constant is two 8×8 bit
//! matrix products per block ([`gfni`]); elsewhere the engines of `reed-solomon-simd`
//! do it. The results are the same.

use std::sync::OnceLock;

use reed_solomon_simd::engine::{DefaultEngine, Engine, GF_ORDER, GfElement, ShardsRefMut};

use super::Block;

/// The way to compute on this CPU.
fn library() -> &'static DefaultEngine {
    static ENGINE: OnceLock<DefaultEngine> = OnceLock::new();
    ENGINE.get_or_init(DefaultEngine::new)
}

#[cfg(target_arch = "x86_64")]
use super::gfni;

/// Which shards of a work space an FFT covers, and with which skew.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fft {
    /// The first shard.
    pub(super) start: usize,
    /// How many shards: a power of two.
    pub(super) size: usize,
    /// How many of them are not zero (before an inverse FFT) or wanted (after an FFT).
    pub(super) used: usize,
    /// Offset in the table of skew factors.
    pub(super) skew: usize,
}

impl Fft {
    /// In-place FFT of shards of `blocks` blocks.
    pub(super) fn forward(self, work: &mut [Block], blocks: usize) {
        #[cfg(target_arch = "x86_64")]
        if let Some(tables) = gfni::tables(self.skew + self.size) {
            return gfni::fft(tables.token, tables, self.of(work, blocks), blocks, self);
        }
        self.forward_by_library(work, blocks);
    }

    fn forward_by_library(self, work: &mut [Block], blocks: usize) {
        let mut data = ShardsRefMut::new(work.len() / blocks, blocks, work);
        library().fft(&mut data, self.start, self.size, self.used, self.skew);
    }

    /// In-place inverse FFT of shards of `blocks` blocks.
    pub(super) fn inverse(self, work: &mut [Block], blocks: usize) {
        #[cfg(target_arch = "x86_64")]
        if let Some(tables) = gfni::tables(self.skew + self.size) {
            return gfni::ifft(tables.token, tables, self.of(work, blocks), blocks, self, 0);
        }
        self.inverse_by_library(work, blocks);
    }

    /// Inverse FFT of the used shards, which are elsewhere, into `work`, where the others are.
    pub(super) fn inverse_from(self, sources: &[&[Block]], work: &mut [Block], blocks: usize) {
        // Groups of four are read from where they are, the rest is copied.
        #[cfg(target_arch = "x86_64")]
        let tables = gfni::tables(self.skew + self.size).filter(|_| self.size >= 4);
        #[cfg(target_arch = "x86_64")]
        let done = if tables.is_some() { sources.len() / 4 * 4 } else { 0 };
        #[cfg(not(target_arch = "x86_64"))]
        let done = 0;
        for (source, shard) in
            sources.iter().zip(work[self.start * blocks..].chunks_exact_mut(blocks)).skip(done)
        {
            shard.copy_from_slice(source);
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(tables) = tables {
            let (token, data) = (tables.token, self.of(work, blocks));
            gfni::ifft_from(token, tables, sources, data, blocks, self);
            return gfni::ifft(token, tables, data, blocks, self, done);
        }
        self.inverse_by_library(work, blocks);
    }

    fn inverse_by_library(self, work: &mut [Block], blocks: usize) {
        let mut data = ShardsRefMut::new(work.len() / blocks, blocks, work);
        library().ifft(&mut data, self.start, self.size, self.used, self.skew);
    }

    #[cfg(target_arch = "x86_64")]
    fn of(self, work: &mut [Block], blocks: usize) -> &mut [Block] {
        &mut work[self.start * blocks..][..self.size * blocks]
    }
}

/// A constant to multiply with, given by its logarithm, made ready.
#[derive(Debug, Clone, Copy)]
pub(super) struct Factor {
    log: GfElement,
    #[cfg(target_arch = "x86_64")]
    matrices: gfni::Matrices,
}

impl Factor {
    pub(super) fn new(log: GfElement) -> Self {
        Self {
            log,
            #[cfg(target_arch = "x86_64")]
            matrices: gfni::Matrices::new(log),
        }
    }

    /// `shard *= self`
    pub(super) fn multiply(&self, shard: &mut [Block]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(tables) = gfni::tables(0) {
            return gfni::multiply(tables.token, &self.matrices, shard);
        }
        library().mul(shard, self.log);
    }
}

/// `x ^= y`
pub(super) fn xor(x: &mut [Block], y: &[Block]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(tables) = gfni::tables(0) {
        return gfni::xor(tables.token, x, y);
    }
    for (x, y) in x.as_flattened_mut().iter_mut().zip(y.as_flattened()) {
        *x ^= y;
    }
}

/// Logarithms of the factors that the erased positions lead to; `nonzero` is how many
/// of the positions may be erased.
pub(super) fn eval_poly(erased: &mut [GfElement; GF_ORDER], nonzero: usize) {
    DefaultEngine::eval_poly(erased, nonzero);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blocks(seed: u64, count: usize) -> Vec<Block> {
        let byte =
            |i: usize| (seed ^ i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0];
        (0..count).map(|block| std::array::from_fn(|i| byte(64 * block + i))).collect()
    }

    proptest! {
        // On CPUs without GFNI both ways are the same one.
        #[test]
        fn both_ways_agree(
            seed in any::<u64>(),
            log_size in 0..7u32,
            chunk in 0..3usize,
            blocks_per_shard in 1..4usize,
            used in any::<prop::sample::Index>(),
            log: GfElement,
            whole: bool,
        ) {
            let size = 1 << log_size;
            let skew = if whole { 0 } else { (chunk + 1) * size };
            let fft = Fft { start: chunk * size, size, used: 1 + used.index(size), skew };
            let mut data = blocks(seed, 3 * size * blocks_per_shard);
            let unused = (fft.start + fft.used) * blocks_per_shard..(fft.start + size) * blocks_per_shard;
            data[unused.clone()].fill([0; 64]);
            let (mut a, mut b) = (data.clone(), data.clone());
            let mut c = blocks(!seed, data.len());
            c[unused.clone()].fill([0; 64]);
            let shards = data.chunks(blocks_per_shard).skip(fft.start).take(fft.used);
            fft.inverse_from(&shards.collect::<Vec<_>>(), &mut c, blocks_per_shard);
            fft.inverse(&mut a, blocks_per_shard);
            fft.inverse_by_library(&mut b, blocks_per_shard);
            prop_assert_eq!(&a, &b);
            let whole = fft.start * blocks_per_shard..(fft.start + size) * blocks_per_shard;
            prop_assert_eq!(&a[whole.clone()], &c[whole]);
            fft.forward(&mut a, blocks_per_shard);
            fft.forward_by_library(&mut b, blocks_per_shard);
            a[unused.clone()].fill([0; 64]);
            b[unused].fill([0; 64]);
            prop_assert_eq!(&a, &b);
            let (mut a, mut b) = (data.clone(), data.clone());
            Factor::new(log).multiply(&mut a);
            library().mul(&mut b, log);
            prop_assert_eq!(&a, &b);
            xor(&mut a, &data);
            for (b, data) in b.as_flattened_mut().iter_mut().zip(data.as_flattened()) {
                *b ^= data;
            }
            prop_assert_eq!(a, b);
        }
    }
}
