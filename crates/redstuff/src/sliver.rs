//! Slivers, before and after they are known to be authentic.

use bytes::Bytes;
use rayon::prelude::*;

use crate::{
    Axis, BlobId, MerkleNode, MerkleTree, Metadata, OutOfRange, Primary, Secondary, ShardCount,
    SliverIndex, SymbolSize,
    bcs::{BcsError, Reader, Wire, write_bytes},
    code::{Block, Code},
    hash::{EMPTY, Node},
    merkle,
};

/// Most bytes of any sliver there can be: as many symbols as there are shards.
const SLIVER_BYTES_MAX: usize = u16::MAX as usize * u16::MAX as usize;

/// A sliver as received: the body of a sliver GET or PUT. Any field may be a lie.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnverifiedSliver<A: Axis> {
    /// The symbols, one after the other.
    pub data: Bytes,
    /// Bytes of one symbol.
    pub symbol_size: u16,
    /// Which sliver it is said to be.
    pub index: SliverIndex<A>,
}

/// Why a sliver is not one of the blob's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SliverError {
    /// There is no sliver with this index.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// Symbols of another size than the blob's.
    #[error("symbols of {found} bytes, not {expected}")]
    SymbolSize {
        /// The blob's symbol size.
        expected: SymbolSize,
        /// The sliver's.
        found: u16,
    },
    /// Not the right number of symbols.
    #[error("a sliver of {found} bytes, not {expected}")]
    Length {
        /// Bytes such a sliver has.
        expected: usize,
        /// Bytes it has.
        found: usize,
    },
    /// The content is not what the metadata committed to.
    #[error("the sliver's hash is not the one in the metadata")]
    Hash,
}

impl<A: Axis> UnverifiedSliver<A> {
    /// Checks index and sizes, not the content.
    ///
    /// # Errors
    /// No sliver of this blob has that shape.
    pub fn check_shape(&self, metadata: &Metadata) -> Result<(), SliverError> {
        self.index.check(metadata.shards())?;
        let expected = metadata.symbol_size();
        if self.symbol_size != expected.get() {
            return Err(SliverError::SymbolSize { expected, found: self.symbol_size });
        }
        let (expected, found) = (metadata.sliver_len::<A>(), self.data.len());
        if found != expected {
            return Err(SliverError::Length { expected, found });
        }
        Ok(())
    }

    /// The hash that metadata of `n` shards has for a sliver with this content: the Merkle
    /// root over all its `n` symbols.
    ///
    /// # Errors
    /// The content does not have the shape of a sliver for `n` shards.
    pub fn root(&self, n: ShardCount) -> Result<MerkleNode, SliverError> {
        let symbols = n.sliver_symbols::<A>();
        let wrong = |expected| SliverError::Length { expected, found: self.data.len() };
        let size = SymbolSize::new(self.symbol_size).ok_or_else(|| wrong(0))?.as_usize();
        if self.data.len() != symbols * size {
            return Err(wrong(symbols * size));
        }
        Ok(Scratch::default().root::<A>(n, size, &self.data).into())
    }

    /// Checks the sliver against the metadata. This encodes it and hashes all its symbols.
    ///
    /// # Errors
    /// It is not a sliver of this blob.
    pub fn verify(self, metadata: &Metadata) -> Result<Sliver<A>, SliverError> {
        let mut space = Scratch::default();
        self.verify_with(metadata, &mut space)
    }

    fn verify_with(
        self,
        metadata: &Metadata,
        space: &mut Scratch,
    ) -> Result<Sliver<A>, SliverError> {
        self.check_shape(metadata)?;
        let size = metadata.symbol_size().as_usize();
        let root = space.root::<A>(metadata.shards(), size, &self.data);
        if metadata.sliver_hash(self.index) != Some(&MerkleNode::from(root)) {
            return Err(SliverError::Hash);
        }
        Ok(Sliver {
            blob: *metadata.id(),
            n: metadata.shards(),
            symbol_size: metadata.symbol_size(),
            index: self.index,
            data: self.data,
        })
    }

    /// Verifies many slivers on all cores; the results are in the same order.
    pub fn verify_all(
        slivers: Vec<Self>,
        metadata: &Metadata,
    ) -> Vec<Result<Sliver<A>, SliverError>> {
        let verify = |space: &mut Scratch, sliver: Self| sliver.verify_with(metadata, space);
        slivers.into_par_iter().map_init(Scratch::default, verify).collect()
    }
}

impl<A: Axis> Wire for UnverifiedSliver<A> {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(out, &self.data);
        out.extend_from_slice(&self.symbol_size.to_le_bytes());
        out.extend_from_slice(&self.index.get().to_le_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        let data = reader.bytes("sliver bytes", SLIVER_BYTES_MAX)?;
        let symbol_size = reader.u16()?;
        if symbol_size == 0 {
            return Err(BcsError::Invalid("a symbol size is zero"));
        }
        Ok(Self { data, symbol_size, index: SliverIndex::new(reader.u16()?) })
    }
}

/// Work space for hashing slivers, to be used again.
#[derive(Default)]
pub(crate) struct Scratch {
    blocks: Vec<Block>,
    recovery: Vec<u8>,
    hashes: Vec<Node>,
}

impl Scratch {
    /// Fills `self.hashes` with the leaf hashes of the expanded sliver.
    fn leaves<A: Axis>(&mut self, n: ShardCount, size: usize, data: &[u8]) {
        let code = Code::new(n, A::KIND.other());
        self.recovery.resize(code.recovery() * size, 0);
        self.hashes.resize(n.as_usize(), EMPTY);
        let (recovery, hashes) = (&mut self.recovery, &mut self.hashes);
        code.expand_and_hash(size, &[data], recovery, hashes, &mut self.blocks);
    }

    /// The hash of a sliver.
    pub(crate) fn root<A: Axis>(&mut self, n: ShardCount, size: usize, data: &[u8]) -> Node {
        self.leaves::<A>(n, size, data);
        merkle::root_in_place(&mut self.hashes)
    }
}

/// A sliver that belongs to a blob: it was verified, or it comes from our own encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sliver<A: Axis> {
    pub(crate) blob: BlobId,
    pub(crate) n: ShardCount,
    pub(crate) symbol_size: SymbolSize,
    pub(crate) index: SliverIndex<A>,
    pub(crate) data: Bytes,
}

impl<A: Axis> Sliver<A> {
    /// The blob.
    #[must_use]
    pub fn blob(&self) -> &BlobId {
        &self.blob
    }

    /// Which of the blob's slivers this is.
    #[must_use]
    pub fn index(&self) -> SliverIndex<A> {
        self.index
    }

    /// The number of shards.
    #[must_use]
    pub fn shards(&self) -> ShardCount {
        self.n
    }

    /// Bytes of one symbol.
    #[must_use]
    pub fn symbol_size(&self) -> SymbolSize {
        self.symbol_size
    }

    /// The symbols, one after the other.
    #[must_use]
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The same content in its wire type. Shares the memory.
    #[must_use]
    pub fn to_unverified(&self) -> UnverifiedSliver<A> {
        UnverifiedSliver {
            data: self.data.clone(),
            symbol_size: self.symbol_size.get(),
            index: self.index,
        }
    }

    /// The BCS form: the body of a sliver GET or PUT.
    #[must_use]
    pub fn to_bcs(&self) -> Vec<u8> {
        self.to_unverified().to_bcs()
    }

    /// All `n` symbols and their Merkle tree, for making recovery symbols.
    #[must_use]
    pub fn expand(&self) -> ExpandedSliver<A> {
        let mut space = Scratch::default();
        let size = self.symbol_size.as_usize();
        space.leaves::<A>(self.n, size, &self.data);
        ExpandedSliver {
            sliver: self.clone(),
            recovery: space.recovery,
            tree: MerkleTree::from_leaf_hashes(space.hashes),
        }
    }
}

/// A sliver with all its `n` symbols and the Merkle tree over them.
#[derive(Debug, Clone)]
pub struct ExpandedSliver<A: Axis> {
    sliver: Sliver<A>,
    recovery: Vec<u8>,
    tree: MerkleTree,
}

impl<A: Axis> ExpandedSliver<A> {
    /// The sliver.
    #[must_use]
    pub fn sliver(&self) -> &Sliver<A> {
        &self.sliver
    }

    /// The tree over the symbols; its root is the sliver's hash.
    #[must_use]
    pub fn tree(&self) -> &MerkleTree {
        &self.tree
    }

    /// The symbol shared with sliver `index` of the other axis; `None` if there is no such sliver.
    #[must_use]
    pub fn symbol(&self, index: SliverIndex<A::Other>) -> Option<&[u8]> {
        let (size, at) = (self.sliver.symbol_size.as_usize(), index.as_usize());
        let source = self.sliver.data.len() / size;
        let mut symbols = match at.checked_sub(source) {
            None => self.sliver.data.chunks_exact(size).skip(at),
            Some(at) => self.recovery.chunks_exact(size).skip(at),
        };
        symbols.next()
    }
}

/// A sliver of either axis, as in shard synchronisation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AnySliver {
    /// A row.
    Primary(UnverifiedSliver<Primary>),
    /// A column.
    Secondary(UnverifiedSliver<Secondary>),
}

impl Wire for AnySliver {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Primary(sliver) => {
                out.push(0);
                sliver.write(out);
            }
            Self::Secondary(sliver) => {
                out.push(1);
                sliver.write(out);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        match reader.variant()? {
            0 => Wire::read(reader).map(Self::Primary),
            1 => Wire::read(reader).map(Self::Secondary),
            found => Err(BcsError::UnknownVariant { what: "sliver", found }),
        }
    }
}

/// Both slivers of a pair, as received.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnverifiedPair {
    /// The row.
    pub primary: UnverifiedSliver<Primary>,
    /// The column.
    pub secondary: UnverifiedSliver<Secondary>,
}

impl Wire for UnverifiedPair {
    fn write(&self, out: &mut Vec<u8>) {
        self.primary.write(out);
        self.secondary.write(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        Ok(Self { primary: Wire::read(reader)?, secondary: Wire::read(reader)? })
    }
}
