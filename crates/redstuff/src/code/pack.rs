//! How symbols are laid out in 64-byte blocks.
//!
//! The code works on 16-bit elements, each independently of the others. Within a
//! symbol, full 64-byte blocks hold 32 low bytes, then 32 high bytes; a shorter last
//! block of `L` bytes holds `L/2` low, then `L/2` high bytes. When several symbols
//! share a shard, their short ends are packed together so that no work is done on
//! filling.

use super::Block;

/// The layout of symbols of one size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    size: usize,
    /// Full blocks in a symbol.
    full: usize,
    /// Elements after the full blocks; at most 31.
    tail: usize,
}

impl Layout {
    pub(crate) fn new(size: usize) -> Self {
        debug_assert!(size.is_multiple_of(2));
        Self { size, full: size / 64, tail: size % 64 / 2 }
    }

    /// Whether symbols are made of whole blocks.
    pub(crate) fn is_whole(&self) -> bool {
        self.tail == 0
    }

    /// A symbol's blocks, if it is made of whole ones: then they lie in it as in a shard.
    pub(crate) fn whole<'a>(&self, symbol: &'a [u8]) -> Option<&'a [Block]> {
        self.is_whole().then_some(symbol.as_chunks().0)
    }

    /// Blocks that `count` symbols take.
    pub(crate) fn blocks(&self, count: usize) -> usize {
        count * self.full + (count * self.tail).div_ceil(32)
    }

    /// Most symbols that fit in `blocks` blocks, at least one.
    pub(crate) fn count(&self, blocks: usize) -> usize {
        (blocks * 32 / (self.full * 32 + self.tail)).max(1)
    }

    /// Writes symbols that follow each other in `symbols`, starting with symbol `first` of the shard.
    pub(crate) fn pack(&self, symbols: &[u8], first: usize, count: usize, out: &mut [Block]) {
        if self.tail == 0 {
            out.as_flattened_mut()[first * self.size..][..symbols.len()].copy_from_slice(symbols);
            return;
        }
        let (full, ends) = out.split_at_mut(count * self.full);
        for (i, symbol) in symbols.chunks_exact(self.size).enumerate() {
            let (head, end) = symbol.split_at(self.full * 64);
            let (low, high) = end.split_at(self.tail);
            let index = first + i;
            copy_blocks(&mut full[index * self.full..][..self.full], head.as_chunks().0);
            self.for_tail(index, |block, at, part| {
                copy_short(&mut ends[block][at..][..part.len()], &low[part.clone()]);
                copy_short(&mut ends[block][32 + at..][..part.len()], &high[part]);
            });
        }
    }

    /// Reads symbols `first..` of a shard of `count` symbols into `symbols`, one after the other.
    pub(crate) fn unpack(&self, blocks: &[Block], first: usize, count: usize, symbols: &mut [u8]) {
        if self.tail == 0 {
            let from = &blocks.as_flattened()[first * self.size..];
            symbols.copy_from_slice(&from[..symbols.len()]);
            return;
        }
        let (full, ends) = blocks.split_at(count * self.full);
        for (i, symbol) in symbols.chunks_exact_mut(self.size).enumerate() {
            let (head, end) = symbol.split_at_mut(self.full * 64);
            let (low, high) = end.split_at_mut(self.tail);
            let index = first + i;
            copy_blocks(head.as_chunks_mut().0, &full[index * self.full..][..self.full]);
            self.for_tail(index, |block, at, part| {
                copy_short(&mut low[part.clone()], &ends[block][at..][..part.len()]);
                copy_short(&mut high[part.clone()], &ends[block][32 + at..][..part.len()]);
            });
        }
    }

    /// Calls `f` with the block, the offset in it, and the elements of the symbol's end
    /// that go there: one call, or two where it crosses into the next block.
    #[inline]
    fn for_tail(&self, index: usize, mut f: impl FnMut(usize, usize, std::ops::Range<usize>)) {
        let start = index * self.tail;
        let (block, at) = (start / 32, start % 32);
        let here = self.tail.min(32 - at);
        f(block, at, 0..here);
        if here < self.tail {
            f(block + 1, 0, here..self.tail);
        }
    }
}

/// Copies a few blocks without calling a function for it.
#[inline]
fn copy_blocks(to: &mut [Block], from: &[Block]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

/// Copies at most 32 bytes without calling a function for it: two moves that may overlap.
#[inline]
fn copy_short(to: &mut [u8], from: &[u8]) {
    if !(copy_ends::<16>(to, from) || copy_ends::<8>(to, from) || copy_ends::<4>(to, from)) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from;
        }
    }
}

/// Copies the first and the last `N` bytes, if there are as many.
#[inline]
fn copy_ends<const N: usize>(to: &mut [u8], from: &[u8]) -> bool {
    if let (Some(to), Some(from)) = (to.first_chunk_mut::<N>(), from.first_chunk()) {
        *to = *from;
    }
    match (to.last_chunk_mut::<N>(), from.last_chunk()) {
        (Some(to), Some(from)) => {
            *to = *from;
            true
        }
        _ => false,
    }
}
