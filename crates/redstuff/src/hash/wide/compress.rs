//! BLAKE2b's compression function on eight hashes, and on twice eight.
//!
//! Each vector has one 64-bit word of eight hashes. Every step of a hash waits for the one
//! before, so eight hashes leave most of the CPU's vector units idle: a second octet, whose
//! steps do not depend on the first's, fills them. Both octets' states take all 32 registers;
//! message words are added from memory.

use archmage::prelude::*;

use super::Node;

/// Hashes in a vector.
pub(super) const LANES: usize = 8;

/// Bytes of a BLAKE2b block.
pub(super) const BLOCK: usize = 128;

/// Initial state without parameters.
pub(super) const IV: [u64; 8] = [
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
pub(super) const PARAMETERS: u64 = 0x0101_0020;

/// A word of a message. With as many values as there are words no index needs a check.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Word {
    W0,
    W1,
    W2,
    W3,
    W4,
    W5,
    W6,
    W7,
    W8,
    W9,
    W10,
    W11,
    W12,
    W13,
    W14,
    W15,
}

macro_rules! words {
    ($($w:ident)*) => { [$(Word::$w),*] };
}

/// In which order each round takes the message's words. A table and a loop instead of straight
/// code: so the compiler cannot compute one octet after the other to save registers.
static SIGMA: [[Word; 16]; 12] = [
    words!(W0 W1 W2 W3 W4 W5 W6 W7 W8 W9 W10 W11 W12 W13 W14 W15),
    words!(W14 W10 W4 W8 W9 W15 W13 W6 W1 W12 W0 W2 W11 W7 W5 W3),
    words!(W11 W8 W12 W0 W5 W2 W15 W13 W10 W14 W3 W6 W7 W1 W9 W4),
    words!(W7 W9 W3 W1 W13 W12 W11 W14 W2 W6 W5 W10 W4 W0 W15 W8),
    words!(W9 W0 W5 W7 W2 W4 W10 W15 W14 W1 W11 W12 W6 W8 W3 W13),
    words!(W2 W12 W6 W10 W0 W11 W8 W3 W4 W13 W7 W5 W15 W14 W1 W9),
    words!(W12 W5 W1 W15 W14 W13 W4 W10 W0 W7 W6 W3 W9 W2 W8 W11),
    words!(W13 W11 W7 W14 W12 W1 W3 W9 W5 W0 W15 W4 W8 W6 W2 W10),
    words!(W6 W15 W14 W9 W11 W3 W0 W8 W12 W2 W13 W7 W1 W4 W10 W5),
    words!(W10 W2 W8 W4 W7 W6 W1 W5 W15 W11 W9 W14 W3 W12 W13 W0),
    words!(W0 W1 W2 W3 W4 W5 W6 W7 W8 W9 W10 W11 W12 W13 W14 W15),
    words!(W14 W10 W4 W8 W9 W15 W13 W6 W1 W12 W0 W2 W11 W7 W5 W3),
];

/// Eight hashes.
pub(super) type State = [__m512i; 8];

/// A block of each of eight messages, word by word.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Message(pub(super) [[u64; LANES]; 16]);

impl Message {
    pub(super) const ZERO: Self = Self([[0; LANES]; 16]);
}

macro_rules! mix {
    ($v:ident, $m:ident, $s:ident, $at:literal, $q0:tt $q1:tt $q2:tt $q3:tt) => {
        add!($v, $m, $s, $at, $q0 $q1 $q2 $q3);
        turn!($v, 32, 24, $q0 $q1 $q2 $q3);
        add!($v, $m, $s, ($at + 1), $q0 $q1 $q2 $q3);
        turn!($v, 16, 63, $q0 $q1 $q2 $q3);
    };
}

macro_rules! add {
    ($v:ident, $m:ident, $s:ident, $at:tt, $q0:tt $q1:tt $q2:tt $q3:tt) => {
        add!(@ $v, $m[$s[$at]], $q0);
        add!(@ $v, $m[$s[$at + 2]], $q1);
        add!(@ $v, $m[$s[$at + 4]], $q2);
        add!(@ $v, $m[$s[$at + 6]], $q3);
    };
    (@ $v:ident, $m:ident[$word:expr], ($a:literal $b:literal $c:literal $d:literal)) => {
        let word = _mm512_loadu_si512(&$m.0[$word as usize]);
        $v[$a] = _mm512_add_epi64(_mm512_add_epi64($v[$a], word), $v[$b]);
    };
}

macro_rules! turn {
    ($v:ident, $r1:literal, $r2:literal, $($q:tt)*) => {
        $(turn!(@d $v, $r1, $q);)*
        $(turn!(@c $v, $q);)*
        $(turn!(@b $v, $r2, $q);)*
    };
    (@d $v:ident, $r:literal, ($a:literal $b:literal $c:literal $d:literal)) => {
        $v[$d] = _mm512_ror_epi64::<$r>(_mm512_xor_si512($v[$d], $v[$a]));
    };
    (@c $v:ident, ($a:literal $b:literal $c:literal $d:literal)) => {
        $v[$c] = _mm512_add_epi64($v[$c], $v[$d]);
    };
    (@b $v:ident, $r:literal, ($a:literal $b:literal $c:literal $d:literal)) => {
        $v[$b] = _mm512_ror_epi64::<$r>(_mm512_xor_si512($v[$b], $v[$c]));
    };
}

/// Half a round: the columns of the state.
macro_rules! columns {
    ($v:ident, $m:ident, $s:ident) => {
        mix!($v, $m, $s, 0, (0 4 8 12) (1 5 9 13) (2 6 10 14) (3 7 11 15));
    };
}

/// The other half: the diagonals.
macro_rules! diagonals {
    ($v:ident, $m:ident, $s:ident) => {
        mix!($v, $m, $s, 8, (0 5 10 15) (1 6 11 12) (2 7 8 13) (3 4 9 14));
    };
}

#[rite(v4x, import_intrinsics)]
pub(super) fn splat(word: u64) -> __m512i {
    _mm512_set1_epi64(word.cast_signed())
}

/// The state before the first block.
#[rite(v4x, import_intrinsics)]
pub(super) fn start() -> State {
    let mut h = [splat(IV[0] ^ PARAMETERS); 8];
    for i in 1..8 {
        h[i] = splat(IV[i]);
    }
    h
}

/// The working state of a block that ends after `count` bytes of the messages.
#[rite(v4x, import_intrinsics)]
fn working(h: &State, count: u64, last: bool) -> [__m512i; 16] {
    let flag = if last { u64::MAX } else { 0 };
    [
        h[0],
        h[1],
        h[2],
        h[3],
        h[4],
        h[5],
        h[6],
        h[7],
        splat(IV[0]),
        splat(IV[1]),
        splat(IV[2]),
        splat(IV[3]),
        splat(IV[4] ^ count),
        splat(IV[5]),
        splat(IV[6] ^ flag),
        splat(IV[7]),
    ]
}

#[rite(v4x, import_intrinsics)]
fn fold(h: &mut State, v: &[__m512i; 16]) {
    for i in 0..8 {
        h[i] = _mm512_ternarylogic_epi64::<0x96>(h[i], v[i], v[i + 8]);
    }
}

/// Takes a block of eight messages.
#[rite(v4x, import_intrinsics)]
pub(super) fn compress(h: &mut State, m: &Message, count: u64, last: bool) {
    let mut v = working(h, count, last);
    for s in &SIGMA {
        columns!(v, m, s);
        diagonals!(v, m, s);
    }
    fold(h, &v);
}

/// Takes a block of sixteen messages.
#[rite(v4x, import_intrinsics)]
pub(super) fn compress_two(
    [h0, h1]: &mut [State; 2],
    [m0, m1]: &[Message; 2],
    count: u64,
    last: bool,
) {
    let mut v0 = working(h0, count, last);
    let mut v1 = working(h1, count, last);
    for s in &SIGMA {
        columns!(v0, m0, s);
        columns!(v1, m1, s);
        diagonals!(v0, m0, s);
        diagonals!(v1, m1, s);
    }
    fold(h0, &v0);
    fold(h1, &v1);
}

/// Turns eight rows of eight words into eight vectors of one word of each row.
#[rite(v4x, import_intrinsics)]
pub(super) fn transpose(r: [__m512i; 8]) -> [__m512i; 8] {
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
pub(super) fn digests(h: &State, out: &mut [Node]) {
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
    if let Some(out) = out.first_chunk_mut::<LANES>() {
        let (out, _) = out.as_flattened_mut().as_chunks_mut::<64>();
        for (out, pair) in out.iter_mut().zip(pairs) {
            _mm512_storeu_si512(out, pair);
        }
        return;
    }
    let mut bytes = [[0u8; 64]; 4];
    for (bytes, pair) in bytes.iter_mut().zip(pairs) {
        _mm512_storeu_si512(bytes, pair);
    }
    let len = out.len() * 32;
    out.as_flattened_mut().copy_from_slice(&bytes.as_flattened()[..len]);
}
