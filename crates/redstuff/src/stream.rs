//! The metadata of a blob that is not in memory.
//!
//! The code treats every element of a symbol alike, so a blob can be encoded slice by
//! slice: the same few bytes of every symbol at a time. Only the states of the `n * n`
//! symbol hashes are carried from slice to slice.

use std::convert::Infallible;

use rayon::prelude::*;

use crate::{
    AxisKind, Metadata, ShardCount, TooLarge,
    code::{Block, Code},
    encode::{ColumnTrees, GROUP, Roots},
    hash::{EMPTY, Node, Unfinished},
    merkle,
};

/// Slices are made of this many bytes of every symbol: a block of the hash.
const SLICE_UNIT: usize = 128;

/// Bytes of every symbol in a slice if memory is no concern: the states of the hashes are
/// fetched seldom then, and for 100 shards the slice stays in the cache.
pub(crate) const SLICE_BYTES: usize = 512;

/// Bytes of memory to encode in slices of `step` bytes of every symbol.
pub(crate) fn memory(n: ShardCount, step: usize) -> usize {
    n.as_usize() * (n.columns() * step + n.as_usize() * STATE_BYTES)
}

/// Bytes of a symbol's hash, half done.
const STATE_BYTES: usize = 80;

/// The metadata of a blob in memory, in slices.
pub(crate) fn metadata(n: ShardCount, blob: &[u8]) -> Result<Metadata, TooLarge> {
    let read = |offset: u64, out: &mut [u8]| {
        // Only bytes of the blob are asked for, so their offsets fit.
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        out.copy_from_slice(&blob[start..][..out.len()]);
        Ok::<(), Infallible>(())
    };
    let memory = n.as_usize() * n.columns() * SLICE_BYTES;
    n.metadata_of_source(blob.len() as u64, memory, read).map_err(|error| match error {
        StreamError::TooLarge(error) => error,
        StreamError::Read(never) => match never {},
    })
}

/// Why the metadata of a stream could not be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError<E> {
    /// The blob is too large.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The source failed.
    #[error("the blob cannot be read")]
    Read(#[source] E),
}

/// The hashes of the symbols of one row, half done.
#[derive(Clone)]
struct Row {
    left: Unfinished,
    right: Unfinished,
}

/// One slice of the matrix.
struct Slice<'a> {
    code: Code,
    /// Bytes of each symbol in it.
    piece: usize,
    /// Whether it is the end of the symbols.
    last: bool,
    source: &'a [u8],
    recovery: &'a [u8],
}

impl Slice<'_> {
    fn row(&self, index: usize) -> &[u8] {
        let width = self.code.original() * self.piece;
        match (index * width).checked_sub(self.source.len()) {
            None => &self.source[index * width..][..width],
            Some(start) => &self.recovery[start..][..width],
        }
    }

    /// Continues the hashes of the rows from `first` on.
    fn absorb(&self, first: usize, rows: &mut [Row]) {
        let batch = self.code.row_batch(self.piece).min(GROUP);
        let width = self.code.recovery() * self.piece;
        let work = |space: &mut (Vec<Block>, Vec<u8>), (i, rows): (usize, &mut [Row])| {
            let (blocks, right) = space;
            let start = first + i * batch;
            let left: Vec<_> = (start..start + rows.len()).map(|row| self.row(row)).collect();
            right.resize(rows.len() * width, 0);
            self.code.expand_rows(self.piece, &left, right, blocks);
            for ((row, left), right) in rows.iter_mut().zip(left).zip(right.chunks_exact(width)) {
                row.left.update(left, self.piece, self.piece, self.last);
                row.right.update(right, self.piece, self.piece, self.last);
            }
        };
        rows.par_chunks_mut(batch).enumerate().for_each_init(Default::default, work);
    }
}

impl ShardCount {
    /// The metadata, and with it the id, of a blob of `length` bytes that is read piece by piece.
    ///
    /// `read(offset, buffer)` has to fill the buffer; every byte is asked for once, in
    /// many small pieces if `memory` (in bytes) is much smaller than the blob. Besides `memory` about
    /// `80 * n * n` bytes are needed, 80 MB for 1,000 shards, whatever the blob's size.
    ///
    /// # Errors
    /// The blob is too large for this number of shards, or reading fails.
    pub fn metadata_of_source<E>(
        self,
        length: u64,
        memory: usize,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Metadata, StreamError<E>> {
        let size = self.symbol_size(length)?.as_usize();
        let (n, rows, columns) = (self.as_usize(), self.rows(), self.columns());
        let step = memory / (n * columns) / SLICE_UNIT * SLICE_UNIT;
        let step = step.max(SLICE_UNIT).min(size);
        let (down, across) =
            (Code::new(self, AxisKind::Primary), Code::new(self, AxisKind::Secondary));
        let row = Row { left: Unfinished::new(columns), right: Unfinished::new(across.recovery()) };
        let mut states = vec![row; n];
        let mut source = vec![0; rows * columns * step];
        let mut recovery = vec![0; down.recovery() * columns * step];
        let mut roots = None;
        for at in (0..size).step_by(step) {
            let piece = step.min(size - at);
            let source = &mut source[..rows * columns * piece];
            read_slice(length, (size, at, piece), source, &mut read).map_err(StreamError::Read)?;
            let recovery = &mut recovery[..down.recovery() * columns * piece];
            let source_row = |row: usize| &source[row * columns * piece..][..columns * piece];
            down.encode_shards(
                piece,
                source_row,
                recovery.chunks_exact_mut(columns * piece).collect(),
            );
            let last = at + piece == size;
            let slice = Slice { code: across, piece, last, source, recovery };
            if last {
                roots = Some(finish(&slice, n, &mut states));
            } else {
                slice.absorb(0, &mut states);
            }
        }
        #[allow(clippy::expect_used, reason = "a symbol has at least two bytes")]
        let roots = roots.expect("there is a last slice");
        Ok(roots.verified(self, length))
    }
}

/// Reads `piece` bytes from `at` on of every symbol; beyond the blob's end there are zeros.
fn read_slice<E>(
    length: u64,
    (size, at, piece): (usize, usize, usize),
    out: &mut [u8],
    read: &mut impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<(), E> {
    // Whole symbols follow each other and can be read at once.
    let run = if piece == size { out.len() } else { piece };
    for (index, out) in out.chunks_mut(run).enumerate() {
        let start = (index as u64 * size as u64).saturating_add(at as u64);
        let there = length.saturating_sub(start).min(out.len() as u64);
        let (given, padding) = out.split_at_mut(usize::try_from(there).unwrap_or(run));
        padding.fill(0);
        if !given.is_empty() {
            read(start, given)?;
        }
    }
    Ok(())
}

/// Absorbs the last slice group by group and builds the trees.
fn finish(slice: &Slice<'_>, n: usize, states: &mut [Row]) -> Roots {
    let mut primary = vec![EMPTY; n];
    let mut columns = ColumnTrees::new(n);
    let groups = states.chunks_mut(GROUP).zip(primary.chunks_mut(GROUP));
    for (group, (states, roots)) in groups.enumerate() {
        slice.absorb(group * GROUP, states);
        let leaves = columns.leaves(states.len());
        let rows = states.par_iter().zip(leaves.par_chunks_mut(n)).zip(roots.par_iter_mut());
        rows.for_each_init(Vec::new, |tree: &mut Vec<Node>, ((state, leaves), root)| {
            let (left, right) = leaves.split_at_mut(slice.code.original());
            state.left.finish(left);
            state.right.finish(right);
            tree.clear();
            tree.extend_from_slice(leaves);
            *root = merkle::root_in_place(tree);
        });
        columns.close_group(states.len());
    }
    Roots { primary, secondary: columns.finish() }
}
