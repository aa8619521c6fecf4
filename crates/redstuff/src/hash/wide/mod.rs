//! BLAKE2b hashes side by side with AVX-512: sixteen, or eight where no more are left.
//!
//! The messages are loaded as they lie in memory and transposed in registers. The
//! intrinsics are safe behind the token that proves the CPU has them.

mod compress;

use archmage::prelude::*;

use self::compress::{
    BLOCK, IV, LANES, Message, PARAMETERS, State, compress, compress_two, digests, splat, start,
    transpose,
};
use super::{EMPTY, INNER, Node};

/// Hashes computed at once.
const PAIR: usize = 2 * LANES;

/// Proof that this CPU has what is needed here.
pub(super) fn token() -> Option<X64V4xToken> {
    X64V4xToken::summon()
}

/// Which bytes of a block belong to the message: all between `from` and `to`, as masks
/// of its two halves.
fn masks(from: usize, to: usize) -> [u64; 2] {
    let below = |end: usize| if end >= BLOCK { u128::MAX } else { (1 << end) - 1 };
    let mask = below(to) & !below(from);
    [mask as u64, (mask >> 64) as u64]
}

/// A block at the beginning or end of all symbols: what is beyond is zero.
#[cold]
fn edge(data: &[u8], at: usize) -> [u8; BLOCK] {
    std::array::from_fn(|i| (at + i).checked_sub(1).and_then(|i| data.get(i)).copied().unwrap_or(0))
}

/// Loads 128 bytes of `data` from `at - 1` on, those of `mask` only.
#[rite(v4x, import_intrinsics)]
fn load_block(data: &[u8], at: usize, mask: [u64; 2]) -> [__m512i; 2] {
    let at_edge;
    let block = match data.get(at.wrapping_sub(1)..).and_then(<[u8]>::first_chunk::<BLOCK>) {
        Some(block) => block,
        None => {
            at_edge = edge(data, at);
            &at_edge
        }
    };
    let ([low, high], _) = block.as_chunks::<64>() else {
        return [_mm512_setzero_si512(); 2];
    };
    [_mm512_maskz_loadu_epi8(mask[0], low), _mm512_maskz_loadu_epi8(mask[1], high)]
}

/// Equally long symbols.
#[derive(Clone, Copy)]
struct Symbols<'a> {
    bytes: &'a [u8],
    /// How far apart they begin.
    stride: usize,
    /// How many there are.
    count: usize,
}

/// Loads a block of the symbols from `first` on. Lanes without a symbol repeat the last.
#[rite(v4x, import_intrinsics)]
fn load(symbols: Symbols<'_>, first: usize, block: usize, mask: [u64; 2], m: &mut Message) {
    let at = |lane: usize| (first + lane).min(symbols.count - 1) * symbols.stride + block;
    let [l0, h0] = load_block(symbols.bytes, at(0), mask);
    let [l1, h1] = load_block(symbols.bytes, at(1), mask);
    let [l2, h2] = load_block(symbols.bytes, at(2), mask);
    let [l3, h3] = load_block(symbols.bytes, at(3), mask);
    let [l4, h4] = load_block(symbols.bytes, at(4), mask);
    let [l5, h5] = load_block(symbols.bytes, at(5), mask);
    let [l6, h6] = load_block(symbols.bytes, at(6), mask);
    let [l7, h7] = load_block(symbols.bytes, at(7), mask);
    let (low, high) = m.0.split_at_mut(8);
    store(transpose([l0, l1, l2, l3, l4, l5, l6, l7]), low);
    store(transpose([h0, h1, h2, h3, h4, h5, h6, h7]), high);
}

#[rite(v4x, import_intrinsics)]
fn store(words: [__m512i; 8], out: &mut [[u64; LANES]]) {
    for (out, word) in out.iter_mut().zip(words) {
        _mm512_storeu_si512(out, word);
    }
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

/// Hashes a piece of up to sixteen symbols from `first` on, preceded by one byte that is
/// given in `carried`; `m` is work space.
#[rite(v4x, import_intrinsics)]
fn absorb(
    h: &mut [State; 2],
    carried: [__m512i; 2],
    piece: Piece,
    symbols: Symbols<'_>,
    first: usize,
    m: &mut [Message; 2],
) {
    let two = symbols.count - first > LANES;
    for block in (0..piece.length).step_by(BLOCK) {
        let end = piece.length.min(block + BLOCK);
        let mask = masks(usize::from(block == 0), end - block);
        load(symbols, first, block, mask, &mut m[0]);
        if two {
            load(symbols, first + LANES, block, mask, &mut m[1]);
        }
        if block == 0 {
            for (m, carried) in m.iter_mut().zip(carried) {
                let first = _mm512_or_si512(_mm512_loadu_si512(&m.0[0]), carried);
                _mm512_storeu_si512(&mut m.0[0], first);
            }
        }
        let count = (piece.before + end) as u64;
        let last = piece.last && end == piece.length;
        if two {
            compress_two(h, m, count, last);
        } else {
            compress(&mut h[0], &m[0], count, last);
        }
    }
}

/// Writes the digests of up to sixteen hashes.
#[rite(v4x, import_intrinsics)]
fn write(h: &[State; 2], out: &mut [Node]) {
    let (first, second) = out.split_at_mut(LANES.min(out.len()));
    digests(&h[0], first);
    if !second.is_empty() {
        digests(&h[1], second);
    }
}

/// See [`super::leaves`].
#[arcane(import_intrinsics)]
pub(super) fn leaves(_token: X64V4xToken, symbols: &[u8], size: usize, out: &mut [Node]) {
    // The message is a zero byte and the symbol.
    let piece = Piece { before: 0, length: size + 1, last: true };
    let symbols = Symbols { bytes: symbols, stride: size, count: out.len() };
    let mut m = [Message::ZERO; 2];
    for (group, out) in out.chunks_mut(PAIR).enumerate() {
        let mut h = [start(); 2];
        absorb(&mut h, [_mm512_setzero_si512(); 2], piece, symbols, group * PAIR, &mut m);
        write(&h, out);
    }
}

/// Eight hashes, half done.
#[derive(Clone, Copy)]
struct Octet {
    h: [[u64; LANES]; 8],
    /// The last byte seen: the hash's blocks begin one byte before the symbols' pieces.
    carried: [u64; LANES],
}

/// See [`super::Unfinished`].
#[derive(Clone)]
pub(crate) struct Unfinished {
    token: X64V4xToken,
    count: usize,
    before: usize,
    octets: Vec<[Octet; 2]>,
}

impl Unfinished {
    pub(super) fn new(token: X64V4xToken, count: usize) -> Self {
        let mut h = IV.map(|word| [word; LANES]);
        h[0] = [IV[0] ^ PARAMETERS; LANES];
        // The prefix of leaves is a zero byte.
        let octet = Octet { h, carried: [0; LANES] };
        Self { token, count, before: 0, octets: vec![[octet; 2]; count.div_ceil(PAIR)] }
    }

    pub(super) fn update(&mut self, pieces: &[u8], stride: usize, size: usize, last: bool) {
        let length = if last { size + 1 } else { size };
        let piece = Piece { before: self.before, length, last };
        let symbols = Symbols { bytes: pieces, stride, count: self.count };
        update(self.token, &mut self.octets, piece, symbols, size);
        self.before += length;
    }

    pub(super) fn finish(&self, out: &mut [Node]) {
        for (octet, out) in self.octets.as_flattened().iter().zip(out.chunks_mut(LANES)) {
            for (lane, out) in out.iter_mut().enumerate() {
                for (word, bytes) in octet.h.iter().zip(out.as_chunks_mut::<8>().0) {
                    *bytes = word[lane].to_le_bytes();
                }
            }
        }
    }
}

/// Takes the next `size` bytes of every symbol.
#[arcane(import_intrinsics)]
fn update(
    _token: X64V4xToken,
    octets: &mut [[Octet; 2]],
    piece: Piece,
    symbols: Symbols<'_>,
    size: usize,
) {
    let mut m = [Message::ZERO; 2];
    for (group, pair) in octets.iter_mut().enumerate() {
        let first = group * PAIR;
        let mut h = [start(); 2];
        let mut carried = [_mm512_setzero_si512(); 2];
        for ((h, carried), octet) in h.iter_mut().zip(&mut carried).zip(pair.iter()) {
            for (h, words) in h.iter_mut().zip(&octet.h) {
                *h = _mm512_loadu_si512(words);
            }
            *carried = _mm512_loadu_si512(&octet.carried);
        }
        absorb(&mut h, carried, piece, symbols, first, &mut m);
        for (h, octet) in h.iter().zip(pair.iter_mut()) {
            for (h, words) in h.iter().zip(&mut octet.h) {
                _mm512_storeu_si512(words, *h);
            }
        }
        let carried = pair.iter_mut().flat_map(|octet| &mut octet.carried);
        for (carried, symbol) in carried.zip(first..symbols.count) {
            *carried = symbols.bytes[symbol * symbols.stride + size - 1].into();
        }
    }
}

/// The message of eight inner nodes, given the pairs as rows of 64 bytes.
#[rite(v4x, import_intrinsics)]
fn inner_message(rows: [__m512i; 8], m: &mut Message) {
    let w = transpose(rows);
    // The message is one byte and the pair, so all words move by a byte. The words after
    // them stay zero.
    let first = _mm512_or_si512(_mm512_slli_epi64::<8>(w[0]), splat(INNER.into()));
    _mm512_storeu_si512(&mut m.0[0], first);
    for i in 1..8 {
        _mm512_storeu_si512(&mut m.0[i], _mm512_shldi_epi64::<8>(w[i], w[i - 1]));
    }
    _mm512_storeu_si512(&mut m.0[8], _mm512_srli_epi64::<56>(w[7]));
}

/// Hashes the messages of up to sixteen inner nodes.
#[rite(v4x, import_intrinsics)]
fn inner(m: &[Message; 2], out: &mut [Node]) {
    let mut h = [start(); 2];
    if out.len() > LANES {
        compress_two(&mut h, m, 65, true);
    } else {
        compress(&mut h[0], &m[0], 65, true);
    }
    write(&h, out);
}

/// See [`super::parents`].
#[arcane(import_intrinsics)]
pub(super) fn parents(_token: X64V4xToken, nodes: &mut [Node]) -> usize {
    let count = nodes.len().div_ceil(2);
    let mut m = [Message::ZERO; 2];
    for first in (0..count).step_by(PAIR) {
        let from = &nodes[2 * first..];
        let mut padded;
        let from = match from.first_chunk::<{ 2 * PAIR }>() {
            Some(from) => from,
            None => {
                padded = [EMPTY; 2 * PAIR];
                padded[..from.len()].copy_from_slice(from);
                &padded
            }
        };
        let (pairs, _) = from.as_flattened().as_chunks::<64>();
        for (m, pairs) in m.iter_mut().zip(pairs.chunks_exact(LANES)) {
            let mut rows = [_mm512_setzero_si512(); 8];
            for (row, pair) in rows.iter_mut().zip(pairs) {
                *row = _mm512_loadu_si512(pair);
            }
            inner_message(rows, m);
        }
        inner(&m, &mut nodes[first..count.min(first + PAIR)]);
    }
    count
}

/// See [`super::parents_across`].
#[arcane(import_intrinsics)]
pub(super) fn parents_across(_token: X64V4xToken, left: &mut [Node], right: Option<&[Node]>) {
    let mut m = [Message::ZERO; 2];
    for (group, out) in left.chunks_mut(PAIR).enumerate() {
        let right = right.map(|right| &right[group * PAIR..]);
        for (octet, m) in m.iter_mut().enumerate() {
            let mut rows = [_mm512_setzero_si512(); 8];
            for (lane, row) in rows.iter_mut().enumerate() {
                let lane = (octet * LANES + lane).min(out.len() - 1);
                let low = _mm512_castsi256_si512(_mm256_loadu_si256(&out[lane]));
                let high = right.map_or(EMPTY, |right| right[lane]);
                *row = _mm512_inserti64x4::<1>(low, _mm256_loadu_si256(&high));
            }
            inner_message(rows, m);
        }
        inner(&m, out);
    }
}
