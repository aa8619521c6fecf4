//! The one-dimensional Reed-Solomon code, over many symbols at once.
//!
//! Field, FFT and tables are those of `reed-solomon-simd` 3; the encoder and decoder
//! around them are ours because the crate's own copy every shard in and out, have one
//! symbol per call, and derive the erasure polynomial anew for each call. Here the
//! caller lays out whole strips of the matrix in one work space (see [`pack`]).

mod field;
#[cfg(target_arch = "x86_64")]
mod gfni;
mod pack;
mod strips;
#[cfg(test)]
mod tests;

use reed_solomon_simd::engine::{GF_MODULUS, GF_ORDER, GfElement};

use field::{Factor, Fft, xor};
pub(crate) use pack::Layout;

use crate::{AxisKind, ShardCount};

/// The unit the field arithmetic works on: 32 low bytes, then 32 high bytes.
pub(crate) type Block = [u8; 64];

/// Most bytes of work space for one strip: it should stay in a core's second-level cache.
const WORK_BYTES: usize = 512 << 10;

/// A code with `original` source symbols and `recovery` further ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Code {
    original: usize,
    recovery: usize,
    /// Which of the two constructions: they are different codes.
    high_rate: bool,
}

impl Code {
    /// The code along an axis: primary expands columns, secondary expands rows.
    pub(crate) fn new(n: ShardCount, axis: AxisKind) -> Self {
        let original = n.source_symbols(axis);
        let recovery = n.as_usize() - original;
        Self::with_counts(original, recovery)
    }

    pub(crate) fn with_counts(original: usize, recovery: usize) -> Self {
        let (o, r) = (original.next_power_of_two(), recovery.next_power_of_two());
        // For equal powers of two the seemingly wrong rate is what the network uses.
        let high_rate = o > r || (o == r && original <= recovery);
        Self { original, recovery, high_rate }
    }

    pub(crate) fn original(&self) -> usize {
        self.original
    }

    /// Size of one FFT.
    fn chunk(&self) -> usize {
        let count = if self.high_rate { self.recovery } else { self.original };
        count.next_power_of_two()
    }

    /// Shards of work space that [`Self::encode`] needs.
    pub(crate) fn encode_work(&self) -> usize {
        let count = if self.high_rate { self.original } else { self.recovery };
        count.next_multiple_of(self.chunk())
    }

    /// How many blocks per shard keep the encoder's work space in the cache; even, so that
    /// parts of symbols are made of whole blocks of the hash.
    pub(crate) fn encode_blocks(&self) -> usize {
        let blocks = WORK_BYTES / size_of::<Block>() / self.encode_work();
        (blocks & !1).max(2)
    }

    /// Encodes in place: source shards in `work[..original]`, afterwards the recovery
    /// shards in `work[..recovery]`, each of `blocks` blocks.
    pub(crate) fn encode(&self, work: &mut [Block], blocks: usize) {
        self.encode_with(work, blocks, |fft, work| fft.inverse(work, blocks));
    }

    /// Encodes source shards that are elsewhere; afterwards the recovery shards are in
    /// `work[..recovery]`, each of `blocks` blocks.
    pub(crate) fn encode_from(&self, sources: &[&[Block]], work: &mut [Block], blocks: usize) {
        self.encode_with(work, blocks, |fft, work| {
            fft.inverse_from(&sources[fft.start..][..fft.used], work, blocks);
        });
    }

    fn encode_with(&self, work: &mut [Block], blocks: usize, inverse: impl Fn(Fft, &mut [Block])) {
        assert_eq!(work.len(), self.encode_work() * blocks);
        work[self.original * blocks..].fill([0; 64]);
        if self.high_rate {
            self.encode_high(work, blocks, inverse);
        } else {
            self.encode_low(work, blocks, inverse);
        }
    }

    fn encode_high(&self, work: &mut [Block], blocks: usize, inverse: impl Fn(Fft, &mut [Block])) {
        let (chunk, shards) = (self.chunk(), self.encode_work());
        for start in (0..shards).step_by(chunk) {
            let present = (self.original - start).min(chunk);
            inverse(Fft { start, size: chunk, used: present, skew: start + chunk }, work);
            if start > 0 {
                let (first, rest) = work.split_at_mut(start * blocks);
                xor(&mut first[..chunk * blocks], &rest[..chunk * blocks]);
            }
        }
        let fft = Fft { start: 0, size: chunk, used: self.recovery, skew: 0 };
        fft.forward(work, blocks);
    }

    fn encode_low(&self, work: &mut [Block], blocks: usize, inverse: impl Fn(Fft, &mut [Block])) {
        let (chunk, shards) = (self.chunk(), self.encode_work());
        inverse(Fft { start: 0, size: chunk, used: self.original, skew: 0 }, work);
        for start in (chunk..shards).step_by(chunk) {
            work.copy_within(..chunk * blocks, start * blocks);
        }
        for start in (0..shards).step_by(chunk) {
            let wanted = (self.recovery - start).min(chunk);
            let fft = Fft { start, size: chunk, used: wanted, skew: start + chunk };
            fft.forward(work, blocks);
        }
    }
}

/// A decoder for one set of known symbols, for any number of strips.
pub(crate) struct Erasures {
    code: Code,
    /// Which symbols are known, in the work space's order.
    known: Vec<bool>,
    /// What to multiply known positions with beforehand, and missing source symbols
    /// with afterwards.
    factors: Vec<Factor>,
}

impl Erasures {
    /// Prepares decoding from the `known` symbols, at least as many as there are originals.
    pub(crate) fn new(code: Code, known: impl IntoIterator<Item = usize>) -> Self {
        let end = code.chunk() + if code.high_rate { code.original } else { code.recovery };
        let mut this = Self { code, known: vec![false; end], factors: Vec::new() };
        for symbol in known {
            let position = this.position(symbol);
            this.known[position] = true;
        }
        let mut erased: Box<[GfElement; GF_ORDER]> = Box::new([0; GF_ORDER]);
        let (head, tail) = (0..end, if code.high_rate { 0 } else { 1 });
        // Positions between the two kinds of symbols are known zeros in the low-rate
        // code and erased ones in the high-rate code; beyond the end it is the reverse.
        let gap = if code.high_rate { code.recovery } else { code.original };
        for position in head {
            let padding = (gap..code.chunk()).contains(&position);
            erased[position] = if padding {
                GfElement::from(code.high_rate)
            } else {
                GfElement::from(!this.known[position])
            };
        }
        erased[end..].fill(tail);
        let nonzero = if code.high_rate { end } else { GF_ORDER };
        field::eval_poly(&mut erased, nonzero);
        let factor = |(&log, &known): (&GfElement, &bool)| {
            Factor::new(if known { log } else { GF_MODULUS - log })
        };
        this.factors = erased.iter().zip(&this.known).map(factor).collect();
        this
    }

    /// Where symbol `symbol` lives in the work space.
    pub(crate) fn position(&self, symbol: usize) -> usize {
        match (self.code.high_rate, symbol.checked_sub(self.code.original)) {
            (false, None) => symbol,
            (false, Some(recovery)) => self.code.chunk() + recovery,
            (true, None) => self.code.chunk() + symbol,
            (true, Some(recovery)) => recovery,
        }
    }

    /// Whether source symbol `symbol` has to be computed.
    pub(crate) fn is_missing(&self, symbol: usize) -> bool {
        !self.known[self.position(symbol)]
    }

    /// Shards of work space that [`Self::decode`] needs.
    pub(crate) fn work(&self) -> usize {
        self.known.len().next_power_of_two()
    }

    /// How many blocks per shard keep the decoder's work space in the cache.
    pub(crate) fn blocks(&self) -> usize {
        (WORK_BYTES / size_of::<Block>() / self.work()).max(1)
    }

    /// Decodes in place: known shards at their [`Self::position`], all else zero;
    /// afterwards the missing source shards at theirs.
    pub(crate) fn decode(&self, work: &mut [Block], blocks: usize) {
        let (shards, end) = (self.work(), self.known.len());
        assert_eq!(work.len(), shards * blocks);
        for (position, _) in self.known.iter().enumerate().filter(|(_, known)| **known) {
            self.factors[position].multiply(shard(work, position, blocks));
        }
        let fft = Fft { start: 0, size: shards, used: end, skew: 0 };
        fft.inverse(work, blocks);
        for i in 1..shards {
            let width = 1 << i.trailing_zeros();
            let (before, after) = work.split_at_mut(i * blocks);
            xor(&mut before[(i - width) * blocks..], &after[..width * blocks]);
        }
        fft.forward(work, blocks);
        for symbol in (0..self.code.original).filter(|&symbol| self.is_missing(symbol)) {
            let position = self.position(symbol);
            self.factors[position].multiply(shard(work, position, blocks));
        }
    }
}

fn shard(work: &mut [Block], position: usize, blocks: usize) -> &mut [Block] {
    &mut work[position * blocks..][..blocks]
}
