//! Encoding: from a blob to its metadata and slivers.

use bytes::Bytes;
use rayon::prelude::*;

use crate::{
    Axis, AxisKind, BlobId, HashPair, Metadata, OutOfRange, PairIndex, Primary, Secondary,
    ShardCount, Sliver, SliverIndex, SymbolSize, TooLarge, UnverifiedMetadata,
    code::{Block, Code},
    hash::{self, EMPTY, Node},
    memory::{Memory, Shared},
    merkle, stream,
};

/// Rows whose leaf hashes are kept at once while the columns' trees are built; a power of two.
pub(crate) const GROUP: usize = 64;

/// The source matrix: the blob, padded with zeros.
#[derive(Debug, Clone)]
struct Source<B> {
    blob: B,
    /// Bytes of a row.
    width: usize,
    /// The row in which the blob ends, padded.
    last: Bytes,
    /// A row of padding.
    zeros: Bytes,
}

impl<B: AsRef<[u8]>> Source<B> {
    fn new(blob: B, width: usize) -> Self {
        let bytes = blob.as_ref();
        let mut last = bytes[bytes.len() / width * width..].to_vec();
        last.resize(width, 0);
        Self { blob, width, last: last.into(), zeros: vec![0; width].into() }
    }

    fn row(&self, index: usize) -> &[u8] {
        let (blob, start) = (self.blob.as_ref(), index * self.width);
        match blob.get(start..start + self.width) {
            Some(row) => row,
            None if start < blob.len() => &self.last,
            None => &self.zeros,
        }
    }
}

/// The sliver hashes of an encoding, by sliver index.
pub(crate) struct Roots {
    pub(crate) primary: Vec<Node>,
    pub(crate) secondary: Vec<Node>,
}

impl Roots {
    /// The metadata of a blob of `length` bytes, which is known to be allowed.
    pub(crate) fn verified(&self, n: ShardCount, length: u64) -> Metadata {
        let pairs = self.primary.iter().zip(self.secondary.iter().rev());
        let pair = |(&primary, &secondary): (&Node, &Node)| HashPair {
            primary: primary.into(),
            secondary: secondary.into(),
        };
        let metadata =
            UnverifiedMetadata { unencoded_length: length, hashes: pairs.map(pair).collect() };
        #[allow(clippy::expect_used, reason = "n roots of each kind and a checked length")]
        metadata.trust(n).expect("own metadata has the right form")
    }
}

/// The trees over the columns, built from groups of rows of leaf hashes so that only a
/// group has to be in memory.
pub(crate) struct ColumnTrees {
    n: usize,
    leaves: Vec<Node>,
    /// The roots over each group.
    tops: Vec<Node>,
}

impl ColumnTrees {
    pub(crate) fn new(n: usize) -> Self {
        let tops = Vec::with_capacity(n.div_ceil(GROUP) * n);
        Self { n, leaves: vec![EMPTY; GROUP.min(n) * n], tops }
    }

    /// Where the leaf hashes of the next group of `rows` rows go, row by row.
    pub(crate) fn leaves(&mut self, rows: usize) -> &mut [Node] {
        &mut self.leaves[..rows * self.n]
    }

    /// Takes the group's leaves, which are all there now.
    pub(crate) fn close_group(&mut self, rows: usize) {
        let full = GROUP.trailing_zeros() as usize;
        let height = if self.n > GROUP { full } else { merkle::depth(self.n) };
        reduce_columns(&mut self.leaves[..rows * self.n], self.n, height);
        self.tops.extend_from_slice(&self.leaves[..self.n]);
    }

    /// The roots, once all groups are there.
    pub(crate) fn finish(mut self) -> Vec<Node> {
        let groups = self.tops.len() / self.n;
        reduce_columns(&mut self.tops, self.n, merkle::depth(groups));
        self.tops.truncate(self.n);
        self.tops
    }
}

/// What one thread needs to expand and hash rows.
#[derive(Default)]
struct Workspace {
    blocks: Vec<Block>,
    right: Vec<u8>,
    tree: Vec<Node>,
}

impl Workspace {
    /// Expands rows: the other symbols of the first ones go to `kept` as far as that
    /// reaches, the hashes of all symbols to `leaves`, and the roots over these to `roots`.
    fn hash_rows(
        &mut self,
        (code, size): (Code, usize),
        rows: &[&[u8]],
        kept: &mut [u8],
        leaves: &mut [Node],
        roots: &mut [Node],
    ) {
        let length = code.recovery() * size * rows.len();
        if kept.len() == length {
            code.expand_and_hash(size, rows, kept, leaves, &mut self.blocks);
        } else {
            self.right.resize(length, 0);
            code.expand_and_hash(size, rows, &mut self.right, leaves, &mut self.blocks);
            kept.copy_from_slice(&self.right[..kept.len()]);
        }
        for (leaves, root) in leaves.chunks_exact(leaves.len() / rows.len()).zip(roots) {
            self.tree.clear();
            self.tree.extend_from_slice(leaves);
            *root = merkle::root_in_place(&mut self.tree);
        }
    }
}

/// Expands all `n` rows group by group and hashes every symbol once, for both trees.
///
/// `row(p)` is the first `ks` symbols of row `p`; the other symbols of the first rows are
/// kept in `kept`, as many rows as fit.
fn hash_rows<'a>(
    n: ShardCount,
    size: usize,
    row: impl Fn(usize) -> &'a [u8] + Sync,
    kept: &mut [u8],
) -> Roots {
    let code = Code::new(n, AxisKind::Secondary);
    let n = n.as_usize();
    let width = code.recovery() * size;
    let mut kept = kept.chunks_mut(GROUP * width);
    let mut columns = ColumnTrees::new(n);
    let mut primary = vec![EMPTY; n];
    let batch = code.row_batch(size).min(GROUP);

    for (group, roots) in primary.chunks_mut(GROUP).enumerate() {
        let start = group * GROUP;
        let leaves = columns.leaves(roots.len());
        let kept = kept.next().unwrap_or_default();
        let mut right: Vec<_> = kept.chunks_mut(batch * width).collect();
        right.resize_with(roots.len().div_ceil(batch), Default::default);
        let batches = right
            .into_par_iter()
            .zip(leaves.par_chunks_mut(batch * n))
            .zip(roots.par_chunks_mut(batch));
        batches.enumerate().for_each_init(
            Workspace::default,
            |space, (i, ((right, leaves), roots))| {
                let first = start + i * batch;
                let rows: Vec<_> = (first..first + roots.len()).map(&row).collect();
                space.hash_rows((code, size), &rows, right, leaves, roots);
            },
        );
        columns.close_group(roots.len());
    }
    Roots { primary, secondary: columns.finish() }
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
    /// Besides the blob about twice its size of memory is needed, but not more than a few MiB
    /// for 100 shards and 450 MiB for 1,000.
    ///
    /// # Errors
    /// The blob is too large for this number of shards.
    pub fn metadata(self, blob: &[u8]) -> Result<Metadata, TooLarge> {
        let size = self.symbol_size(blob.len() as u64)?;
        let source = Source::new(blob, self.columns() * size.as_usize());
        let below = (self.as_usize() - self.rows()) * source.width;
        if stream::memory(self, stream::SLICE_BYTES) < below {
            return stream::metadata(self, blob);
        }
        let (metadata, _) = self.expand(&source, size, None, &mut []);
        Ok(metadata)
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
    /// Besides the blob, whose memory is shared, the result takes about 2.5 times the
    /// blob's size of memory; little more is needed to make it.
    ///
    /// # Errors
    /// The blob is too large for this number of shards.
    pub fn encode(self, blob: impl Into<Bytes>) -> Result<EncodedBlob, TooLarge> {
        self.encode_with(blob.into(), None, None)
    }

    /// Like [`Self::encode`], in the memory of an earlier result, as far as nothing else
    /// uses that: for many blobs one after the other.
    ///
    /// # Errors
    /// The blob is too large for this number of shards.
    pub fn encode_reusing(
        self,
        blob: impl Into<Bytes>,
        previous: EncodedBlob,
    ) -> Result<EncodedBlob, TooLarge> {
        self.encode_with(blob.into(), previous.recovery.reclaim(), previous.right.reclaim())
    }

    fn encode_with(
        self,
        blob: Bytes,
        recovery: Option<Memory>,
        right: Option<Memory>,
    ) -> Result<EncodedBlob, TooLarge> {
        let size = self.symbol_size(blob.len() as u64)?;
        let right_width = (self.as_usize() - self.columns()) * size.as_usize();
        let mut right = Memory::new(self.rows() * right_width, right);
        let source = Source::new(blob, self.columns() * size.as_usize());
        let (metadata, recovery) = self.expand(&source, size, recovery, &mut right);
        Ok(EncodedBlob { metadata, source, recovery: recovery.into(), right: right.into() })
    }

    /// Expands the matrix: metadata and the rows below the source's, in the memory of
    /// `recovery` if there is enough. What is to the right of the source is kept in `right`,
    /// as many rows as fit.
    fn expand<B: AsRef<[u8]> + Sync>(
        self,
        source: &Source<B>,
        size: SymbolSize,
        recovery: Option<Memory>,
        right: &mut [u8],
    ) -> (Metadata, Memory) {
        let code = Code::new(self, AxisKind::Primary);
        let (size, width) = (size.as_usize(), source.width);
        let mut recovery = Memory::new(code.recovery() * width, recovery);
        let outputs = recovery.chunks_exact_mut(width).collect();
        code.encode_shards(size, |row| source.row(row), outputs);
        let row = |p: usize| match p.checked_sub(code.original()) {
            None => source.row(p),
            Some(p) => &recovery[p * width..][..width],
        };
        let roots = hash_rows(self, size, row, right);
        (roots.verified(self, source.blob.as_ref().len() as u64), recovery)
    }
}

/// How many columns [`EncodedBlob::slivers`] collects in one pass over the rows.
const COLUMNS_AT_ONCE: u16 = 8;

/// A blob's metadata and all its slivers. Cheap to clone.
///
/// It keeps the expanded rows. Primary slivers share its memory; secondary ones are
/// collected from the rows when asked for.
#[derive(Debug, Clone)]
pub struct EncodedBlob {
    metadata: Metadata,
    source: Source<Bytes>,
    /// The rows below the source matrix.
    recovery: Shared,
    /// The columns to the right of the source matrix, row by row.
    right: Shared,
}

impl EncodedBlob {
    /// The metadata.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The blob.
    #[must_use]
    pub fn blob(&self) -> &Bytes {
        &self.source.blob
    }

    /// One sliver.
    ///
    /// # Errors
    /// There is no sliver with this index.
    pub fn sliver<A: Axis>(&self, index: SliverIndex<A>) -> Result<Sliver<A>, OutOfRange> {
        index.check(self.metadata.shards())?;
        let [data] = match A::KIND {
            AxisKind::Primary => [self.row(index.as_usize())],
            AxisKind::Secondary => self.columns(index.get()),
        };
        Ok(self.wrap(index.get(), data))
    }

    fn wrap<A: Axis>(&self, index: u16, data: Bytes) -> Sliver<A> {
        Sliver {
            blob: *self.metadata.id(),
            n: self.metadata.shards(),
            symbol_size: self.metadata.symbol_size(),
            index: SliverIndex::new(index),
            data,
        }
    }

    fn row(&self, index: usize) -> Bytes {
        let Source { blob, width, last, zeros } = &self.source;
        if let Some(below) = index.checked_sub(self.metadata.shards().rows()) {
            return self.recovery.slice(below * width..(below + 1) * width);
        }
        let start = index * width;
        match start + width <= blob.len() {
            true => blob.slice(start..start + width),
            false if start < blob.len() => last.clone(),
            false => zeros.clone(),
        }
    }

    /// The data of `N` columns from `first` on; beyond the last column it is empty.
    fn columns<const N: usize>(&self, first: u16) -> [Bytes; N] {
        let n = self.metadata.shards();
        let size = self.metadata.symbol_size().as_usize();
        let (rows, source) = (n.rows(), n.columns());
        let right_width = (n.as_usize() - source) * size;
        let indices = usize::from(first)..n.as_usize().min(usize::from(first) + N);
        // One allocation for all: the allocator gives it back to the next run, where it would
        // return many smaller ones to the system.
        let mut data = Vec::with_capacity(indices.len() * rows * size);
        for index in indices {
            for row in 0..rows {
                data.extend_from_slice(match index.checked_sub(source) {
                    None => &self.source.row(row)[index * size..][..size],
                    Some(index) => &self.right[row * right_width + index * size..][..size],
                });
            }
        }
        let data = Bytes::from(data);
        std::array::from_fn(|i| {
            let at = |i: usize| data.len().min(i * rows * size);
            data.slice(at(i)..at(i + 1))
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
    pub fn slivers<A: Axis>(&self) -> impl Iterator<Item = Sliver<A>> {
        let n = self.metadata.shards().get();
        let run = move |first: u16| -> [Bytes; COLUMNS_AT_ONCE as usize] {
            match A::KIND {
                AxisKind::Primary => std::array::from_fn(|i| {
                    let index = usize::from(first) + i;
                    if index < usize::from(n) { self.row(index) } else { Bytes::new() }
                }),
                AxisKind::Secondary => self.columns(first),
            }
        };
        let wrap = |(index, data)| self.wrap(index, data);
        (0..n)
            .step_by(COLUMNS_AT_ONCE.into())
            .flat_map(move |first| (first..n).zip(run(first)))
            .map(wrap)
    }
}
