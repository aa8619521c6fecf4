//! Encoding: from a blob to its metadata and slivers.

use bytes::Bytes;
use rayon::prelude::*;

use crate::{
    Axis, AxisKind, BlobId, HashPair, Metadata, OutOfRange, PairIndex, Primary, Secondary,
    ShardCount, Sliver, SliverIndex, TooLarge, UnverifiedMetadata,
    code::{Block, Code},
    hash::{self, EMPTY, Node},
    merkle,
};

/// Rows whose leaf hashes are kept at once while the columns' trees are built; a power of two.
const GROUP: usize = 64;

/// The source matrix: the blob, padded with zeros.
struct Source<'a> {
    blob: &'a [u8],
    /// Bytes of a row.
    width: usize,
    /// The row in which the blob ends, padded.
    last: Vec<u8>,
    /// A row of padding.
    zeros: Vec<u8>,
}

impl<'a> Source<'a> {
    fn new(blob: &'a [u8], width: usize) -> Self {
        let (_, rest) = blob.split_at(blob.len() / width * width);
        let mut last = rest.to_vec();
        last.resize(width, 0);
        Self { blob, width, last, zeros: vec![0; width] }
    }

    fn row(&self, index: usize) -> &[u8] {
        let start = index * self.width;
        match self.blob.get(start..start + self.width) {
            Some(row) => row,
            None if start < self.blob.len() => &self.last,
            None => &self.zeros,
        }
    }
}

/// The sliver hashes of an encoding, by sliver index.
struct Roots {
    primary: Vec<Node>,
    secondary: Vec<Node>,
}

impl Roots {
    fn metadata(&self, length: u64) -> UnverifiedMetadata {
        let pairs = self.primary.iter().zip(self.secondary.iter().rev());
        let pair = |(&primary, &secondary): (&Node, &Node)| HashPair {
            primary: primary.into(),
            secondary: secondary.into(),
        };
        UnverifiedMetadata { unencoded_length: length, hashes: pairs.map(pair).collect() }
    }
}

/// What one thread needs to expand and hash rows.
#[derive(Default)]
struct Workspace {
    blocks: Vec<Block>,
    tree: Vec<Node>,
}

impl Workspace {
    /// Expands rows: their other symbols go to `right`, the hashes of all their symbols
    /// to `leaves`, and the roots over these to `roots`.
    fn hash_rows(
        &mut self,
        code: Code,
        size: usize,
        rows: &[&[u8]],
        right: &mut [u8],
        leaves: &mut [Node],
        roots: &mut [Node],
    ) {
        code.expand_rows(size, rows, right, &mut self.blocks);
        let right = right.chunks_exact(right.len() / rows.len());
        let leaves = leaves.chunks_exact_mut(leaves.len() / rows.len());
        for (((row, right), leaves), root) in rows.iter().zip(right).zip(leaves).zip(roots) {
            let (source, recovery) = leaves.split_at_mut(code.original());
            hash::leaves(row, size, source);
            hash::leaves(right, size, recovery);
            self.tree.clear();
            self.tree.extend_from_slice(leaves);
            *root = merkle::root_in_place(&mut self.tree);
        }
    }
}

/// Expands all `n` rows group by group and hashes every symbol once, for both trees.
///
/// `row(p)` is the first `ks` symbols of row `p`. `visit(p, right)` sees the other
/// symbols of the rows from `p` on, row by row.
fn hash_rows<'a>(
    n: ShardCount,
    size: usize,
    row: impl Fn(usize) -> &'a [u8] + Sync,
    mut visit: impl FnMut(usize, &[u8]),
) -> Roots {
    let code = Code::new(n, AxisKind::Secondary);
    let n = n.as_usize();
    let right_width = code.recovery() * size;
    let mut right = vec![0; GROUP.min(n) * right_width];
    let mut leaves = vec![EMPTY; GROUP.min(n) * n];
    let mut primary = vec![EMPTY; n];
    let mut tops = Vec::with_capacity(n.div_ceil(GROUP) * n);
    let batch = code.row_batch(size).min(GROUP);

    for (group, roots) in primary.chunks_mut(GROUP).enumerate() {
        let (start, count) = (group * GROUP, roots.len());
        let right = &mut right[..count * right_width];
        let leaves = &mut leaves[..count * n];
        let batches = right
            .par_chunks_mut(batch * right_width)
            .zip(leaves.par_chunks_mut(batch * n))
            .zip(roots.par_chunks_mut(batch));
        batches.enumerate().for_each_init(
            Workspace::default,
            |space, (i, ((right, leaves), roots))| {
                let first = start + i * batch;
                let rows: Vec<_> = (first..first + roots.len()).map(&row).collect();
                space.hash_rows(code, size, &rows, right, leaves, roots);
            },
        );
        visit(start, right);
        let height = if n > GROUP { GROUP.trailing_zeros() as usize } else { merkle::depth(n) };
        reduce_columns(leaves, n, height);
        tops.extend_from_slice(&leaves[..n]);
    }
    let groups = tops.len() / n;
    reduce_columns(&mut tops, n, merkle::depth(groups));
    tops.truncate(n);
    Roots { primary, secondary: tops }
}

/// Merges rows of `width` nodes pairwise, `height` times; the result is in the first row.
fn reduce_columns(rows: &mut [Node], width: usize, height: usize) {
    for level in 0..height {
        rows.par_chunks_mut(width << (level + 1)).for_each(|rows| {
            let (left, rest) = rows.split_at_mut(width.min(rows.len()));
            let right = rest.get((width << level) - width..).and_then(|rest| rest.get(..width));
            hash::parents_across(left, right);
        });
    }
}

impl ShardCount {
    /// The metadata, and with it the id, of a blob, without its slivers.
    ///
    /// Needs about twice the blob's size of memory besides the blob.
    ///
    /// # Errors
    /// The blob is too large for this number of shards.
    pub fn metadata(self, blob: &[u8]) -> Result<Metadata, TooLarge> {
        let length = blob.len() as u64;
        let size = self.symbol_size(length)?.as_usize();
        let source = Source::new(blob, self.columns() * size);
        let code = Code::new(self, AxisKind::Primary);
        let mut recovery = vec![0; code.recovery() * source.width];
        let outputs = recovery.chunks_exact_mut(source.width).collect();
        code.encode_shards(size, |row| source.row(row), outputs);
        let row = |p: usize| match p.checked_sub(code.original()) {
            None => source.row(p),
            Some(p) => &recovery[p * source.width..][..source.width],
        };
        let roots = hash_rows(self, size, row, |_, _| {});
        Ok(self.own_metadata(&roots, length))
    }

    fn own_metadata(self, roots: &Roots, length: u64) -> Metadata {
        #[allow(
            clippy::expect_used,
            reason = "there are n roots of each kind and the length was checked"
        )]
        roots.metadata(length).trust(self).expect("own metadata has the right form")
    }

    /// The id of a blob.
    ///
    /// # Errors
    /// The blob is too large for this number of shards.
    pub fn blob_id(self, blob: &[u8]) -> Result<BlobId, TooLarge> {
        Ok(*self.metadata(blob)?.id())
    }

    /// Encodes a blob: metadata and all slivers.
    ///
    /// Needs about 4.6 times the blob's size of memory besides the blob; the result
    /// keeps 4.5 times.
    ///
    /// # Errors
    /// The blob is too large for this number of shards.
    pub fn encode(self, blob: &[u8]) -> Result<EncodedBlob, TooLarge> {
        let length = blob.len() as u64;
        let size = self.symbol_size(length)?.as_usize();
        let (n, rows, width) = (self.as_usize(), self.rows(), self.columns() * size);
        let mut primary = vec![0; n * width];
        primary[..blob.len()].copy_from_slice(blob);
        let (source, recovery) = primary.split_at_mut(rows * width);
        let source = &*source;
        Code::new(self, AxisKind::Primary).encode_shards(
            size,
            |row| &source[row * width..][..width],
            recovery.chunks_exact_mut(width).collect(),
        );

        let mut secondary = vec![0; n * rows * size];
        let row = |p: usize| &primary[p * width..][..width];
        let roots = hash_rows(self, size, row, |start, right| {
            let end = rows.min(start + GROUP);
            let right_width = (n - self.columns()) * size;
            // Column by column, so that what is written is contiguous.
            secondary.par_chunks_mut(rows * size).enumerate().for_each(|(j, sliver)| {
                for p in start..end {
                    let symbol = match j.checked_sub(self.columns()) {
                        None => &row(p)[j * size..][..size],
                        Some(j) => &right[(p - start) * right_width + j * size..][..size],
                    };
                    sliver[p * size..][..size].copy_from_slice(symbol);
                }
            });
        });
        Ok(EncodedBlob {
            metadata: self.own_metadata(&roots, length),
            primary: primary.into(),
            secondary: secondary.into(),
        })
    }
}

/// A blob's metadata and all its slivers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EncodedBlob {
    metadata: Metadata,
    primary: Bytes,
    secondary: Bytes,
}

impl EncodedBlob {
    /// The metadata.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// One sliver; shares the memory of all.
    ///
    /// # Errors
    /// There is no sliver with this index.
    pub fn sliver<A: Axis>(&self, index: SliverIndex<A>) -> Result<Sliver<A>, OutOfRange> {
        index.check(self.metadata.shards())?;
        let all = match A::KIND {
            AxisKind::Primary => &self.primary,
            AxisKind::Secondary => &self.secondary,
        };
        let len = self.metadata.sliver_len::<A>();
        let start = index.as_usize() * len;
        Ok(Sliver {
            blob: *self.metadata.id(),
            n: self.metadata.shards(),
            symbol_size: self.metadata.symbol_size(),
            index,
            data: all.slice(start..start + len),
        })
    }

    /// The two slivers of a pair.
    ///
    /// # Errors
    /// There is no pair with this index.
    pub fn pair(
        &self,
        index: PairIndex,
    ) -> Result<(Sliver<Primary>, Sliver<Secondary>), OutOfRange> {
        let n = self.metadata.shards();
        Ok((self.sliver(index.sliver(n)?)?, self.sliver(index.sliver(n)?)?))
    }

    /// All slivers of an axis, by sliver index.
    pub fn slivers<A: Axis>(&self) -> impl ExactSizeIterator<Item = Sliver<A>> {
        (0..self.metadata.shards().get()).map(|index| {
            #[allow(clippy::expect_used, reason = "the index is below the number of shards")]
            self.sliver(SliverIndex::new(index)).expect("index in range")
        })
    }
}
