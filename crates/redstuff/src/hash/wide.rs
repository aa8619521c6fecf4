//! Eight BLAKE2b hashes side by side with AVX-512.
//!
//! Each vector has one 64-bit word of eight hashes. The messages are loaded as they lie
//! in memory and transposed in registers. The intrinsics are safe behind the token that
//! proves the CPU has them.

use archmage::prelude::*;

use super::{EMPTY, INNER, Node};

/// Hashes computed at once.
const LANES: usize = 8;

/// Bytes of a BLAKE2b block.
const BLOCK: usize = 128;

/// Initial state without parameters.
const IV: [u64; 8] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];

/// Parameters: 32 bytes of digest, fan-out 1, depth 1.
const PARAMETERS: u64 = 0x0101_0020;

/// Proof that this CPU has what is needed here.
pub(super) fn token() -> Option<X64V4xToken> {
    X64V4xToken::summon()
}

macro_rules! mix {
    ($v:ident, $a:literal, $b:literal, $c:literal, $d:literal, $x:expr, $y:expr) => {
        $v[$a] = _mm512_add_epi64(_mm512_add_epi64($v[$a], $v[$b]), $x);
        $v[$d] = _mm512_ror_epi64::<32>(_mm512_xor_si512($v[$d], $v[$a]));
        $v[$c] = _mm512_add_epi64($v[$c], $v[$d]);
        $v[$b] = _mm512_ror_epi64::<24>(_mm512_xor_si512($v[$b], $v[$c]));
        $v[$a] = _mm512_add_epi64(_mm512_add_epi64($v[$a], $v[$b]), $y);
        $v[$d] = _mm512_ror_epi64::<16>(_mm512_xor_si512($v[$d], $v[$a]));
        $v[$c] = _mm512_add_epi64($v[$c], $v[$d]);
        $v[$b] = _mm512_ror_epi64::<63>(_mm512_xor_si512($v[$b], $v[$c]));
    };
}

macro_rules! round {
    ($v:ident, $m:ident, $s0:literal $s1:literal $s2:literal $s3:literal
     $s4:literal $s5:literal $s6:literal $s7:literal $s8:literal $s9:literal
     $s10:literal $s11:literal $s12:literal $s13:literal $s14:literal $s15:literal) => {
        mix!($v, 0, 4, 8, 12, $m[$s0], $m[$s1]);
        mix!($v, 1, 5, 9, 13, $m[$s2], $m[$s3]);
        mix!($v, 2, 6, 10, 14, $m[$s4], $m[$s5]);
        mix!($v, 3, 7, 11, 15, $m[$s6], $m[$s7]);
        mix!($v, 0, 5, 10, 15, $m[$s8], $m[$s9]);
        mix!($v, 1, 6, 11, 12, $m[$s10], $m[$s11]);
        mix!($v, 2, 7, 8, 13, $m[$s12], $m[$s13]);
        mix!($v, 3, 4, 9, 14, $m[$s14], $m[$s15]);
    };
}

/// The compression function. A macro, because it must be inlined for the message words
/// to stay in registers and for those known to be zero to vanish.
macro_rules! compress {
    ($h:ident, $m:ident, $count:expr, $last:expr) => {
        let flag = if $last { u64::MAX } else { 0 };
        let mut v = [
            $h[0],
            $h[1],
            $h[2],
            $h[3],
            $h[4],
            $h[5],
            $h[6],
            $h[7],
            splat(IV[0]),
            splat(IV[1]),
            splat(IV[2]),
            splat(IV[3]),
            splat(IV[4] ^ $count),
            splat(IV[5]),
            splat(IV[6] ^ flag),
            splat(IV[7]),
        ];
        round!(v, $m, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        round!(v, $m, 14 10 4 8 9 15 13 6 1 12 0 2 11 7 5 3);
        round!(v, $m, 11 8 12 0 5 2 15 13 10 14 3 6 7 1 9 4);
        round!(v, $m, 7 9 3 1 13 12 11 14 2 6 5 10 4 0 15 8);
        round!(v, $m, 9 0 5 7 2 4 10 15 14 1 11 12 6 8 3 13);
        round!(v, $m, 2 12 6 10 0 11 8 3 4 13 7 5 15 14 1 9);
        round!(v, $m, 12 5 1 15 14 13 4 10 0 7 6 3 9 2 8 11);
        round!(v, $m, 13 11 7 14 12 1 3 9 5 0 15 4 8 6 2 10);
        round!(v, $m, 6 15 14 9 11 3 0 8 12 2 13 7 1 4 10 5);
        round!(v, $m, 10 2 8 4 7 6 1 5 15 11 9 14 3 12 13 0);
        round!(v, $m, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        round!(v, $m, 14 10 4 8 9 15 13 6 1 12 0 2 11 7 5 3);
        for i in 0..8 {
            $h[i] = _mm512_ternarylogic_epi64::<0x96>($h[i], v[i], v[i + 8]);
        }
    };
}

#[rite(v4x, import_intrinsics)]
fn splat(word: u64) -> __m512i {
    _mm512_set1_epi64(word.cast_signed())
}

#[rite(v4x, import_intrinsics)]
fn start() -> [__m512i; 8] {
    let mut h = [splat(IV[0] ^ PARAMETERS); 8];
    for i in 1..8 {
        h[i] = splat(IV[i]);
    }
    h
}

/// Turns eight rows of eight words into eight vectors of one word of each row.
#[rite(v4x, import_intrinsics)]
fn transpose(r: [__m512i; 8]) -> [__m512i; 8] {
    let even = [
        _mm512_unpacklo_epi64(r[0], r[1]),
        _mm512_unpacklo_epi64(r[2], r[3]),
        _mm512_unpacklo_epi64(r[4], r[5]),
        _mm512_unpacklo_epi64(r[6], r[7]),
    ];
    let odd = [
        _mm512_unpackhi_epi64(r[0], r[1]),
        _mm512_unpackhi_epi64(r[2], r[3]),
        _mm512_unpackhi_epi64(r[4], r[5]),
        _mm512_unpackhi_epi64(r[6], r[7]),
    ];
    let [w0, w2, w4, w6] = quarters(even);
    let [w1, w3, w5, w7] = quarters(odd);
    [w0, w1, w2, w3, w4, w5, w6, w7]
}

/// Transposes 128-bit quarters.
#[rite(v4x, import_intrinsics)]
fn quarters(t: [__m512i; 4]) -> [__m512i; 4] {
    let a = _mm512_shuffle_i64x2::<0x88>(t[0], t[1]);
    let b = _mm512_shuffle_i64x2::<0x88>(t[2], t[3]);
    let c = _mm512_shuffle_i64x2::<0xdd>(t[0], t[1]);
    let d = _mm512_shuffle_i64x2::<0xdd>(t[2], t[3]);
    [
        _mm512_shuffle_i64x2::<0x88>(a, b),
        _mm512_shuffle_i64x2::<0x88>(c, d),
        _mm512_shuffle_i64x2::<0xdd>(a, b),
        _mm512_shuffle_i64x2::<0xdd>(c, d),
    ]
}

/// Writes the digests of the first `out.len()` lanes.
#[rite(v4x, import_intrinsics)]
fn finish(h: &[__m512i; 8], out: &mut [Node]) {
    let even = [_mm512_unpacklo_epi64(h[0], h[1]), _mm512_unpacklo_epi64(h[2], h[3])];
    let odd = [_mm512_unpackhi_epi64(h[0], h[1]), _mm512_unpackhi_epi64(h[2], h[3])];
    let low = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
    let high = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
    let a = _mm512_permutex2var_epi64(even[0], low, even[1]);
    let b = _mm512_permutex2var_epi64(odd[0], low, odd[1]);
    let c = _mm512_permutex2var_epi64(even[0], high, even[1]);
    let d = _mm512_permutex2var_epi64(odd[0], high, odd[1]);
    let pairs = [
        _mm512_shuffle_i64x2::<0x44>(a, b),
        _mm512_shuffle_i64x2::<0xee>(a, b),
        _mm512_shuffle_i64x2::<0x44>(c, d),
        _mm512_shuffle_i64x2::<0xee>(c, d),
    ];
    let mut bytes = [[0u8; 64]; 4];
    for (bytes, pair) in bytes.iter_mut().zip(pairs) {
        _mm512_storeu_si512(bytes, pair);
    }
    let len = out.len() * 32;
    out.as_flattened_mut().copy_from_slice(&bytes.as_flattened()[..len]);
}

/// Which bytes of a block belong to the message: all between `from` and `to`, as masks
/// of its two halves.
fn masks(from: usize, to: usize) -> [u64; 2] {
    let below = |end: usize| if end >= BLOCK { u128::MAX } else { (1 << end) - 1 };
    let mask = below(to) & !below(from);
    [mask as u64, (mask >> 64) as u64]
}

/// Loads 128 bytes of `data` from `at - 1` on, those of `mask` only.
#[rite(v4x, import_intrinsics)]
fn load_block(data: &[u8], at: usize, mask: [u64; 2]) -> [__m512i; 2] {
    let whole = at.checked_sub(1).and_then(|start| data.get(start..)?.first_chunk::<BLOCK>());
    if let Some(bytes) = whole {
        let ([low, high], _) = bytes.as_chunks::<64>() else {
            return [_mm512_setzero_si512(); 2];
        };
        return [_mm512_maskz_loadu_epi8(mask[0], low), _mm512_maskz_loadu_epi8(mask[1], high)];
    }
    // Before the first or beyond the last byte there is nothing to load.
    let mut low = [0; 64];
    let mut high = [0; 64];
    for (i, byte) in low.iter_mut().chain(&mut high).enumerate() {
        *byte = (at + i).checked_sub(1).and_then(|i| data.get(i)).copied().unwrap_or(0);
    }
    [_mm512_maskz_loadu_epi8(mask[0], &low), _mm512_maskz_loadu_epi8(mask[1], &high)]
}

/// Which bytes of a message are being hashed.
#[derive(Clone, Copy)]
struct Piece {
    /// Bytes hashed before.
    before: usize,
    /// Bytes to hash now: the one carried over and those of the symbol.
    length: usize,
    /// Whether they are the last.
    last: bool,
}

/// Hashes a piece of the symbols `first..first + lanes`, which begin `stride` bytes apart,
/// preceded by one byte that is given in `carried`.
#[rite(v4x, import_intrinsics)]
fn absorb(
    h: &mut [__m512i; 8],
    carried: __m512i,
    piece: Piece,
    symbols: &[u8],
    stride: usize,
    first: usize,
    lanes: usize,
) {
    for block in (0..piece.length).step_by(BLOCK) {
        let end = piece.length.min(block + BLOCK);
        let mask = masks(usize::from(block == 0), end - block);
        let mut low = [_mm512_setzero_si512(); 8];
        let mut high = [_mm512_setzero_si512(); 8];
        for lane in 0..LANES {
            // Lanes without a symbol repeat the last.
            let index = first + lane.min(lanes - 1);
            [low[lane], high[lane]] = load_block(symbols, index * stride + block, mask);
        }
        let [m0, m1, m2, m3, m4, m5, m6, m7] = transpose(low);
        let [m8, m9, m10, m11, m12, m13, m14, m15] = transpose(high);
        let m0 = if block == 0 { _mm512_or_si512(m0, carried) } else { m0 };
        let m = [m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15];
        let count = (piece.before + end) as u64;
        compress!(h, m, count, piece.last && end == piece.length);
    }
}

/// See [`super::leaves`].
#[arcane(import_intrinsics)]
pub(super) fn leaves(_token: X64V4xToken, symbols: &[u8], size: usize, out: &mut [Node]) {
    // The message is a zero byte and the symbol.
    let piece = Piece { before: 0, length: size + 1, last: true };
    for (group, out) in out.chunks_mut(LANES).enumerate() {
        let mut h = start();
        let zero = _mm512_setzero_si512();
        absorb(&mut h, zero, piece, symbols, size, group * LANES, out.len());
        finish(&h, out);
    }
}

/// Eight hashes, half done.
#[derive(Clone)]
struct Lanes {
    h: [[u64; 8]; 8],
    /// The last byte seen: the hash's blocks begin one byte before the symbols' pieces.
    carried: [u64; 8],
}

/// See [`super::Unfinished`].
#[derive(Clone)]
pub(crate) struct Unfinished {
    token: X64V4xToken,
    count: usize,
    before: usize,
    lanes: Vec<Lanes>,
}

impl Unfinished {
    pub(super) fn new(token: X64V4xToken, count: usize) -> Self {
        let mut h = IV.map(|word| [word; 8]);
        h[0] = [IV[0] ^ PARAMETERS; 8];
        // The prefix of leaves is a zero byte.
        let lanes = vec![Lanes { h, carried: [0; 8] }; count.div_ceil(LANES)];
        Self { token, count, before: 0, lanes }
    }

    pub(super) fn update(&mut self, pieces: &[u8], stride: usize, size: usize, last: bool) {
        let length = if last { size + 1 } else { size };
        let piece = Piece { before: self.before, length, last };
        update(self.token, &mut self.lanes, self.count, piece, pieces, (stride, size));
        self.before += length;
    }

    pub(super) fn finish(&self, out: &mut [Node]) {
        for (lanes, out) in self.lanes.iter().zip(out.chunks_mut(LANES)) {
            for (lane, out) in out.iter_mut().enumerate() {
                for (word, bytes) in lanes.h.iter().zip(out.as_chunks_mut::<8>().0) {
                    *bytes = word[lane].to_le_bytes();
                }
            }
        }
    }
}

/// Takes the next piece of every symbol.
#[arcane(import_intrinsics)]
fn update(
    _token: X64V4xToken,
    states: &mut [Lanes],
    count: usize,
    piece: Piece,
    pieces: &[u8],
    (stride, size): (usize, usize),
) {
    for (group, state) in states.iter_mut().enumerate() {
        let first = group * LANES;
        let lanes = LANES.min(count - first);
        let mut h = start();
        for (h, words) in h.iter_mut().zip(&state.h) {
            *h = _mm512_loadu_si512(words);
        }
        absorb(&mut h, _mm512_loadu_si512(&state.carried), piece, pieces, stride, first, lanes);
        for (h, words) in h.iter().zip(&mut state.h) {
            _mm512_storeu_si512(words, *h);
        }
        for (lane, carried) in state.carried.iter_mut().enumerate().take(lanes) {
            *carried = pieces[(first + lane) * stride + size - 1].into();
        }
    }
}

/// Hashes eight pairs of nodes, given as rows of 64 bytes.
#[rite(v4x, import_intrinsics)]
fn inner(rows: [__m512i; 8], out: &mut [Node]) {
    let w = transpose(rows);
    let zero = _mm512_setzero_si512();
    let mut m = [zero; 16];
    // The message is one byte and the pair, so all words move by a byte.
    m[0] = _mm512_or_si512(_mm512_slli_epi64::<8>(w[0]), splat(INNER.into()));
    for i in 1..8 {
        m[i] = _mm512_shldi_epi64::<8>(w[i], w[i - 1]);
    }
    m[8] = _mm512_srli_epi64::<56>(w[7]);
    let mut h = start();
    compress!(h, m, 65, true);
    finish(&h, out);
}

/// See [`super::parents`].
#[arcane(import_intrinsics)]
pub(super) fn parents(_token: X64V4xToken, nodes: &mut [Node]) -> usize {
    let count = nodes.len().div_ceil(2);
    for first in (0..count).step_by(LANES) {
        let lanes = LANES.min(count - first);
        let mut pairs = [EMPTY; 2 * LANES];
        let from = &nodes[2 * first..];
        let given = from.len().min(2 * LANES);
        let mut rows = [_mm512_setzero_si512(); 8];
        let bytes = if given == 2 * LANES {
            from[..given].as_flattened()
        } else {
            pairs[..given].copy_from_slice(&from[..given]);
            pairs.as_flattened()
        };
        for (row, pair) in rows.iter_mut().zip(bytes.as_chunks::<64>().0) {
            *row = _mm512_loadu_si512(pair);
        }
        inner(rows, &mut nodes[first..first + lanes]);
    }
    count
}

/// See [`super::parents_across`].
#[arcane(import_intrinsics)]
pub(super) fn parents_across(_token: X64V4xToken, left: &mut [Node], right: Option<&[Node]>) {
    for (group, out) in left.chunks_mut(LANES).enumerate() {
        let right = right.map(|right| &right[group * LANES..]);
        let mut rows = [_mm512_setzero_si512(); 8];
        for (lane, row) in rows.iter_mut().enumerate() {
            let lane = lane.min(out.len() - 1);
            let low = _mm512_castsi256_si512(_mm256_loadu_si256(&out[lane]));
            let high = right.map_or(EMPTY, |right| right[lane]);
            *row = _mm512_inserti64x4::<1>(low, _mm256_loadu_si256(&high));
        }
        inner(rows, out);
    }
}
