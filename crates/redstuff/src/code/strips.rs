//! Encoding and decoding of long shards, strip by strip and on all cores.
//!
//! A *shard* here is a row or a column of the matrix: many symbols of `size` bytes.
//! The same piece of every shard makes a strip that fits the cache.

use rayon::prelude::*;

use super::{Block, Code, Erasures, Layout};
use crate::hash::{self, Node, Unfinished};

/// A piece of every shard: whole symbols, or a part of one large symbol.
#[derive(Debug, Clone, Copy)]
struct Strip {
    /// Where it begins in the shard, in bytes.
    offset: usize,
    /// Bytes of each symbol in it.
    piece: usize,
    /// How many symbols.
    count: usize,
}

impl Strip {
    fn len(&self) -> usize {
        self.piece * self.count
    }

    fn of<'a>(&self, shard: &'a [u8]) -> &'a [u8] {
        &shard[self.offset..][..self.len()]
    }

    fn layout(&self) -> Layout {
        Layout::new(self.piece)
    }

    fn blocks(&self) -> usize {
        self.layout().blocks(self.count)
    }
}

/// Parts of a symbol that take at most `blocks` blocks: offset and length.
fn parts(size: usize, blocks: usize) -> impl Iterator<Item = (usize, usize)> {
    let step = blocks * 64;
    (0..size).step_by(step).map(move |offset| (offset, step.min(size - offset)))
}

/// Cuts shards of `count` symbols of `size` bytes into strips of at most `blocks` blocks.
fn strips(size: usize, count: usize, blocks: usize) -> Vec<Strip> {
    if Layout::new(size).blocks(1) > blocks {
        let of_symbol = |c| {
            parts(size, blocks).map(move |(at, piece)| Strip {
                offset: c * size + at,
                piece,
                count: 1,
            })
        };
        return (0..count).flat_map(of_symbol).collect();
    }
    let step = Layout::new(size).count(blocks);
    (0..count)
        .step_by(step)
        .map(|c| Strip { offset: c * size, piece: size, count: step.min(count - c) })
        .collect()
}

/// Hands each strip its piece of every output shard.
fn split_outputs<'a>(strips: &[Strip], outputs: Vec<&'a mut [u8]>) -> Vec<Vec<&'a mut [u8]>> {
    let mut of_strip: Vec<_> = strips.iter().map(|_| Vec::with_capacity(outputs.len())).collect();
    for mut output in outputs {
        for (strip, pieces) in strips.iter().zip(&mut of_strip) {
            let (piece, rest) = output.split_at_mut(strip.len());
            pieces.push(piece);
            output = rest;
        }
    }
    of_strip
}

/// Grows the scratch space if need be; its content is arbitrary.
fn scratch(space: &mut Vec<Block>, blocks: usize) -> &mut [Block] {
    if space.len() < blocks {
        space.resize(blocks, [0; 64]);
    }
    &mut space[..blocks]
}

impl Code {
    /// Computes all recovery shards of long source shards of symbols of `size` bytes.
    pub(crate) fn encode_shards<'a>(
        &self,
        size: usize,
        source: impl Fn(usize) -> &'a [u8] + Sync,
        recovery: Vec<&mut [u8]>,
    ) {
        let count = source(0).len() / size;
        let strips = strips(size, count, self.encode_blocks());
        let outputs = split_outputs(&strips, recovery);
        strips.into_par_iter().zip(outputs).for_each_init(Vec::new, |space, (strip, outputs)| {
            let (layout, blocks) = (strip.layout(), strip.blocks());
            let work = scratch(space, self.encode_work() * blocks);
            let whole = |i| layout.whole(strip.of(source(i)));
            if let Some(sources) = (0..self.original).map(whole).collect::<Option<Vec<_>>>() {
                self.encode_from(&sources, work, blocks);
            } else {
                for (i, shard) in work.chunks_exact_mut(blocks).take(self.original).enumerate() {
                    layout.pack(strip.of(source(i)), 0, strip.count, shard);
                }
                self.encode(work, blocks);
            }
            for (shard, output) in work.chunks_exact(blocks).zip(outputs) {
                layout.unpack(shard, 0, strip.count, output);
            }
        });
    }

    /// The parts in which large symbols are best expanded: offset and length.
    pub(crate) fn parts(&self, size: usize) -> impl Iterator<Item = (usize, usize)> {
        parts(size, self.encode_blocks())
    }

    /// Expands a part of each symbol of some rows: each of `rows` is the source symbols of
    /// one code word; its recovery symbols go to the same part of `recovery`, one row after
    /// the other.
    pub(crate) fn expand_part<'a>(
        &self,
        (offset, piece): (usize, usize),
        size: usize,
        rows: &[&'a [u8]],
        recovery: &mut [u8],
        space: &mut Vec<Block>,
    ) {
        let width = self.recovery * size;
        let layout = Layout::new(piece);
        let batch = self.row_batch(piece);
        for (rows, output) in rows.chunks(batch).zip(recovery.chunks_mut(batch * width)) {
            let count = rows.len();
            let blocks = layout.blocks(count);
            let work = scratch(space, self.encode_work() * blocks);
            let part = |row: &'a [u8], i: usize| &row[i * size + offset..][..piece];
            let whole = |i| match *rows {
                [row] => layout.whole(part(row, i)),
                _ => None,
            };
            if let Some(sources) = (0..self.original).map(whole).collect::<Option<Vec<_>>>() {
                self.encode_from(&sources, work, blocks);
            } else {
                for (i, shard) in work.chunks_exact_mut(blocks).take(self.original).enumerate() {
                    for (r, row) in rows.iter().enumerate() {
                        layout.pack(part(row, i), r, count, shard);
                    }
                }
                self.encode(work, blocks);
            }
            for (i, shard) in work.chunks_exact(blocks).take(self.recovery).enumerate() {
                for (r, row) in output.chunks_exact_mut(width).enumerate() {
                    let symbol = &mut row[i * size + offset..][..piece];
                    layout.unpack(shard, r, count, symbol);
                }
            }
        }
    }

    /// Expands rows: see [`Self::expand_part`].
    pub(crate) fn expand_rows(
        &self,
        size: usize,
        rows: &[&[u8]],
        recovery: &mut [u8],
        space: &mut Vec<Block>,
    ) {
        for part in self.parts(size) {
            self.expand_part(part, size, rows, recovery, space);
        }
    }

    /// Expands rows and hashes all their symbols: the hashes of each row go to `leaves`, one
    /// row after the other.
    pub(crate) fn expand_and_hash(
        &self,
        size: usize,
        rows: &[&[u8]],
        recovery: &mut [u8],
        leaves: &mut [Node],
        space: &mut Vec<Block>,
    ) {
        let (width, count) = (self.recovery * size, self.original + self.recovery);
        if self.parts(size).count() == 1 {
            self.expand_rows(size, rows, recovery, space);
            let outputs = recovery.chunks_exact(width).zip(leaves.chunks_exact_mut(count));
            for (row, (recovery, leaves)) in rows.iter().zip(outputs) {
                let (left, right) = leaves.split_at_mut(self.original);
                hash::leaves(row, size, left);
                hash::leaves(recovery, size, right);
            }
            return;
        }
        // Rows of large symbols do not fit the cache: each part is hashed while it is there.
        let outputs = recovery.chunks_exact_mut(width).zip(leaves.chunks_exact_mut(count));
        for (row, (recovery, leaves)) in rows.iter().zip(outputs) {
            let mut left = Unfinished::new(self.original);
            let mut right = Unfinished::new(self.recovery);
            for (offset, piece) in self.parts(size) {
                self.expand_part((offset, piece), size, &[*row], recovery, space);
                let last = offset + piece == size;
                left.update(&row[offset..], size, piece, last);
                right.update(&recovery[offset..], size, piece, last);
            }
            let (to_left, to_right) = leaves.split_at_mut(self.original);
            left.finish(to_left);
            right.finish(to_right);
        }
    }

    /// How many rows [`Self::expand_rows`] does best at once.
    pub(crate) fn row_batch(&self, size: usize) -> usize {
        let layout = Layout::new(size);
        // Long symbols of whole blocks are best read where they are.
        if layout.is_whole() && layout.blocks(1) >= 4 {
            1
        } else {
            layout.count(self.encode_blocks())
        }
    }

    /// Recovery symbols.
    pub(crate) fn recovery(&self) -> usize {
        self.recovery
    }
}

impl Erasures {
    /// Computes missing source shards of symbols of `size` bytes from known ones.
    pub(crate) fn decode_shards(
        &self,
        size: usize,
        known: &[(usize, &[u8])],
        missing: Vec<(usize, &mut [u8])>,
    ) {
        let Some((_, first)) = known.first() else {
            return;
        };
        let strips = strips(size, first.len() / size, self.blocks());
        let (symbols, outputs): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
        let outputs = split_outputs(&strips, outputs);
        strips.into_par_iter().zip(outputs).for_each_init(Vec::new, |space, (strip, outputs)| {
            let (layout, blocks) = (strip.layout(), strip.blocks());
            let work = scratch(space, self.work() * blocks);
            work.fill([0; 64]);
            for &(symbol, shard) in known {
                let to = &mut work[self.position(symbol) * blocks..][..blocks];
                layout.pack(strip.of(shard), 0, strip.count, to);
            }
            self.decode(work, blocks);
            for (&symbol, output) in symbols.iter().zip(outputs) {
                let from = &work[self.position(symbol) * blocks..][..blocks];
                layout.unpack(from, 0, strip.count, output);
            }
        });
    }
}
