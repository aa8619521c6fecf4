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
        let shards = work.len() / blocks;
        let mut data = ShardsRefMut::new(shards, blocks, work);
        library().fft(&mut data, self.start, self.size, self.used, self.skew);
    }

    /// In-place inverse FFT of shards of `blocks` blocks.
    pub(super) fn inverse(self, work: &mut [Block], blocks: usize) {
        #[cfg(target_arch = "x86_64")]
        if let Some(tables) = gfni::tables(self.skew + self.size) {
            return gfni::ifft(tables.token, tables, self.of(work, blocks), blocks, self);
        }
        let shards = work.len() / blocks;
        let mut data = ShardsRefMut::new(shards, blocks, work);
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
