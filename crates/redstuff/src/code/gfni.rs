//! The field arithmetic with GFNI and AVX-512.
//!
//! Multiplying by a constant is linear over GF(2): a 16×16 bit matrix, applied as four
//! 8×8 ones to the low and high bytes of the elements. A block is one vector with the
//! low bytes in its lower half, so one product takes two instructions.

use std::sync::OnceLock;

use archmage::prelude::*;
use reed_solomon_simd::engine::{
    GF_MODULUS, GfElement,
    tables::{get_exp_log, get_skew, mul},
};

use super::{Block, field::Fft};

/// Skew factors kept as matrices: enough for codes whose decoder works on as many
/// shards, about 2,700 shards of a committee. 128 KiB.
const SKEWS: usize = 4096;

/// Multiplication by a constant: matrices low→low, high→low, low→high, high→high.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Matrices([u64; 4]);

impl Matrices {
    /// For the constant with this logarithm; the modulus stands for the constant zero.
    pub(super) fn new(log: GfElement) -> Self {
        Self::linear(|x| mul(x, log, &get_exp_log().exp, &get_exp_log().log))
    }

    /// For a skew factor, where the modulus stands for the constant zero.
    fn skew(log: GfElement) -> Self {
        if log == GF_MODULUS { Self([0; 4]) } else { Self::new(log) }
    }

    /// For any linear map.
    fn linear(map: impl Fn(GfElement) -> GfElement) -> Self {
        let mut rows = [[0u8; 8]; 4];
        for column in 0..16 {
            let [low, high] = map(1 << column).to_le_bytes();
            let from_high = column / 8;
            for bit in 0..8 {
                // The instruction wants the row for output bit 7 first.
                rows[from_high][7 - bit] |= (low >> bit & 1) << (column % 8);
                rows[2 + from_high][7 - bit] |= (high >> bit & 1) << (column % 8);
            }
        }
        Self(rows.map(u64::from_le_bytes))
    }
}

/// What the FFT needs.
pub(super) struct Tables {
    /// Proof that this CPU can do it.
    pub(super) token: X64V4xToken,
    skew: Vec<Matrices>,
}

/// The tables, if this CPU has what is needed and skew factors up to `end` are there.
pub(super) fn tables(end: usize) -> Option<&'static Tables> {
    static TABLES: OnceLock<Option<Tables>> = OnceLock::new();
    let make = || {
        let token = X64V4xToken::summon()?;
        let skew = get_skew().iter().take(SKEWS).map(|&log| Matrices::skew(log)).collect();
        Some(Tables { token, skew })
    };
    TABLES.get_or_init(make).as_ref().filter(|_| end <= SKEWS)
}

/// The matrices as vectors: for the byte's own half, and for the other half.
#[rite(v4x, import_intrinsics)]
fn vectors(Matrices(m): &Matrices) -> [__m512i; 2] {
    let word = |i: usize| m[i].cast_signed();
    let own =
        _mm512_set_epi64(word(3), word(3), word(3), word(3), word(0), word(0), word(0), word(0));
    let other =
        _mm512_set_epi64(word(2), word(2), word(2), word(2), word(1), word(1), word(1), word(1));
    [own, other]
}

/// Both products that make up `x * m`; their sum is the result.
#[rite(v4x, import_intrinsics)]
fn products(x: __m512i, m: [__m512i; 2]) -> [__m512i; 2] {
    let swapped = _mm512_shuffle_i64x2::<0x4e>(x, x);
    [_mm512_gf2p8affine_epi64_epi8::<0>(x, m[0]), _mm512_gf2p8affine_epi64_epi8::<0>(swapped, m[1])]
}

/// `x + y * m`
#[rite(v4x, import_intrinsics)]
fn add_product(x: __m512i, y: __m512i, m: [__m512i; 2]) -> __m512i {
    let [a, b] = products(y, m);
    _mm512_ternarylogic_epi64::<0x96>(x, a, b)
}

/// `shard *= m`
#[arcane(import_intrinsics)]
pub(super) fn multiply(_token: X64V4xToken, m: &Matrices, shard: &mut [Block]) {
    let m = vectors(m);
    for block in shard {
        let [a, b] = products(_mm512_loadu_si512(block), m);
        _mm512_storeu_si512(block, _mm512_xor_si512(a, b));
    }
}

/// `x ^= y`
#[arcane(import_intrinsics)]
pub(super) fn xor(_token: X64V4xToken, x: &mut [Block], y: &[Block]) {
    for (x, y) in x.iter_mut().zip(y) {
        let sum = _mm512_xor_si512(_mm512_loadu_si512(x), _mm512_loadu_si512(y));
        _mm512_storeu_si512(x, sum);
    }
}

/// Splits a group of shards into four quarters.
fn quarters(group: &mut [Block]) -> [&mut [Block]; 4] {
    let quarter = group.len() / 4;
    let (ab, cd) = group.split_at_mut(2 * quarter);
    let (a, b) = ab.split_at_mut(quarter);
    let (c, d) = cd.split_at_mut(quarter);
    [a, b, c, d]
}

/// In-place FFT of `data`, the shards `fft` covers, two layers at a time.
#[arcane(import_intrinsics)]
pub(super) fn fft(
    _token: X64V4xToken,
    tables: &Tables,
    data: &mut [Block],
    blocks: usize,
    fft: Fft,
) {
    let mut dist4 = fft.size;
    let mut dist = fft.size / 4;
    while dist != 0 {
        for (group, first) in data.chunks_mut(dist4 * blocks).zip((0..fft.used).step_by(dist4)) {
            let base = first + dist + fft.skew - 1;
            let m01 = vectors(&tables.skew[base]);
            let m02 = vectors(&tables.skew[base + dist]);
            let m23 = vectors(&tables.skew[base + dist * 2]);
            let [s0, s1, s2, s3] = quarters(group);
            for (((s0, s1), s2), s3) in s0.iter_mut().zip(s1).zip(s2).zip(s3) {
                let (x2, x3) = (_mm512_loadu_si512(s2), _mm512_loadu_si512(s3));
                let x0 = add_product(_mm512_loadu_si512(s0), x2, m02);
                let x1 = add_product(_mm512_loadu_si512(s1), x3, m02);
                let (x2, x3) = (_mm512_xor_si512(x2, x0), _mm512_xor_si512(x3, x1));
                let x0 = add_product(x0, x1, m01);
                let x2 = add_product(x2, x3, m23);
                _mm512_storeu_si512(s0, x0);
                _mm512_storeu_si512(s1, _mm512_xor_si512(x1, x0));
                _mm512_storeu_si512(s2, x2);
                _mm512_storeu_si512(s3, _mm512_xor_si512(x3, x2));
            }
        }
        dist4 = dist;
        dist /= 4;
    }
    if dist4 == 2 {
        for (pair, first) in data.chunks_mut(2 * blocks).zip((0..fft.used).step_by(2)) {
            let m = vectors(&tables.skew[first + fft.skew]);
            let (s0, s1) = pair.split_at_mut(blocks);
            for (s0, s1) in s0.iter_mut().zip(s1) {
                let x1 = _mm512_loadu_si512(s1);
                let x0 = add_product(_mm512_loadu_si512(s0), x1, m);
                _mm512_storeu_si512(s0, x0);
                _mm512_storeu_si512(s1, _mm512_xor_si512(x1, x0));
            }
        }
    }
}

/// Two layers of the inverse FFT on a block of each of four shards.
#[rite(v4x, import_intrinsics)]
fn inverse([x0, x1, x2, x3]: [__m512i; 4], [m01, m02, m23]: [[__m512i; 2]; 3]) -> [__m512i; 4] {
    let x1 = _mm512_xor_si512(x1, x0);
    let x3 = _mm512_xor_si512(x3, x2);
    let x0 = add_product(x0, x1, m01);
    let x2 = add_product(x2, x3, m23);
    let (x2, x3) = (_mm512_xor_si512(x2, x0), _mm512_xor_si512(x3, x1));
    [add_product(x0, x2, m02), add_product(x1, x3, m02), x2, x3]
}

/// The factors of two layers of the inverse FFT for the group that begins at shard `first`.
#[rite(v4x, import_intrinsics)]
fn factors(tables: &Tables, first: usize, dist: usize, skew: usize) -> [[__m512i; 2]; 3] {
    let base = first + dist + skew - 1;
    [base, base + dist, base + dist * 2].map(|at| vectors(&tables.skew[at]))
}

/// The first two layers of the inverse FFT of `sources`, at least four of them, into `data`; the
/// shards beyond are not touched.
#[arcane(import_intrinsics)]
pub(super) fn ifft_from(
    _token: X64V4xToken,
    tables: &Tables,
    sources: &[&[Block]],
    data: &mut [Block],
    blocks: usize,
    fft: Fft,
) {
    let groups = data.chunks_mut(4 * blocks).zip(sources.as_chunks::<4>().0).enumerate();
    for (group, (data, [s0, s1, s2, s3])) in groups {
        let m = factors(tables, 4 * group, 1, fft.skew);
        let [d0, d1, d2, d3] = quarters(data);
        let from = s0.iter().zip(*s1).zip(*s2).zip(*s3);
        let to = d0.iter_mut().zip(d1).zip(d2).zip(d3);
        for ((((s0, s1), s2), s3), (((d0, d1), d2), d3)) in from.zip(to) {
            let x = [
                _mm512_loadu_si512(s0),
                _mm512_loadu_si512(s1),
                _mm512_loadu_si512(s2),
                _mm512_loadu_si512(s3),
            ];
            let [x0, x1, x2, x3] = inverse(x, m);
            _mm512_storeu_si512(d0, x0);
            _mm512_storeu_si512(d1, x1);
            _mm512_storeu_si512(d2, x2);
            _mm512_storeu_si512(d3, x3);
        }
    }
}

/// In-place inverse FFT of `data`, the shards `fft` covers, two layers at a time; the first
/// two are done already for the first `done` shards.
#[arcane(import_intrinsics)]
pub(super) fn ifft(
    _token: X64V4xToken,
    tables: &Tables,
    data: &mut [Block],
    blocks: usize,
    fft: Fft,
    done: usize,
) {
    let mut dist = 1;
    while dist * 4 <= fft.size {
        let dist4 = dist * 4;
        let skip = if dist == 1 { done / 4 } else { 0 };
        let groups = data.chunks_mut(dist4 * blocks).zip((0..fft.used).step_by(dist4)).skip(skip);
        for (group, first) in groups {
            let m = factors(tables, first, dist, fft.skew);
            let [s0, s1, s2, s3] = quarters(group);
            for (((s0, s1), s2), s3) in s0.iter_mut().zip(s1).zip(s2).zip(s3) {
                let x = [
                    _mm512_loadu_si512(s0),
                    _mm512_loadu_si512(s1),
                    _mm512_loadu_si512(s2),
                    _mm512_loadu_si512(s3),
                ];
                let [x0, x1, x2, x3] = inverse(x, m);
                _mm512_storeu_si512(s0, x0);
                _mm512_storeu_si512(s1, x1);
                _mm512_storeu_si512(s2, x2);
                _mm512_storeu_si512(s3, x3);
            }
        }
        dist = dist4;
    }
    if dist < fft.size {
        let m = vectors(&tables.skew[dist + fft.skew - 1]);
        let (low, high) = data.split_at_mut(dist * blocks);
        for (s0, s1) in low.iter_mut().zip(high) {
            let x0 = _mm512_loadu_si512(s0);
            let x1 = _mm512_xor_si512(_mm512_loadu_si512(s1), x0);
            _mm512_storeu_si512(s0, add_product(x0, x1, m));
            _mm512_storeu_si512(s1, x1);
        }
    }
}
