//! What is known about a blob besides its bytes: length and sliver hashes.

use std::{ops::Range, sync::Arc};

use crate::{
    Axis, AxisKind, BlobId, Digest, MerkleNode, PairIndex, Primary, ShardCount, Sliver,
    SliverIndex, SymbolSize, TooLarge, UnverifiedSliver,
    bcs::{BcsError, Reader, Wire, write_vec},
    blob_id::ENCODING_RS2,
    hash, merkle,
};

/// Most hash pairs in metadata: pair indices are 16 bits.
const HASH_PAIRS_MAX: usize = u16::MAX as usize;

/// Version number of the only metadata layout there is.
const METADATA_V1: u32 = 0;

/// The hashes of the two slivers of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashPair {
    /// Merkle root over the symbols of the expanded primary sliver.
    pub primary: MerkleNode,
    /// Merkle root over the symbols of the expanded secondary sliver.
    pub secondary: MerkleNode,
}

impl Wire for HashPair {
    fn write(&self, out: &mut Vec<u8>) {
        self.primary.write(out);
        self.secondary.write(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        Ok(Self { primary: Wire::read(reader)?, secondary: Wire::read(reader)? })
    }
}

/// Metadata as received: nothing about it is known to be true.
///
/// Its BCS form is the body of a metadata PUT. The encoding type is not a field as
/// there is only one, `RS2`; metadata with any other is refused when parsed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnverifiedMetadata {
    /// Length of the blob in bytes.
    pub unencoded_length: u64,
    /// The hashes of every sliver, by pair index.
    pub hashes: Vec<HashPair>,
}

/// Why metadata is not that of the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Made for another number of shards, or malformed.
    #[error("metadata has {found} hash pairs for {shards} shards")]
    HashCount {
        /// Pairs in the metadata.
        found: usize,
        /// The number of shards.
        shards: ShardCount,
    },
    /// No blob of this length can exist.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// Metadata of another blob, or altered.
    #[error("metadata is that of blob {found}, not {expected}")]
    WrongId {
        /// The id that was asked for.
        expected: BlobId,
        /// The id the metadata has.
        found: BlobId,
    },
}

impl UnverifiedMetadata {
    /// The Merkle root over the hash pairs; on chain it is given with the blob id.
    #[must_use]
    pub fn root_hash(&self) -> Digest {
        let leaf = |pair: &HashPair| {
            let mut both = [0; 64];
            both[..32].copy_from_slice(pair.primary.digest().as_bytes());
            both[32..].copy_from_slice(pair.secondary.digest().as_bytes());
            hash::leaf(&both)
        };
        Digest::new(merkle::root(self.hashes.iter().map(leaf).collect()))
    }

    /// The blob id this metadata has.
    #[must_use]
    pub fn blob_id(&self) -> BlobId {
        BlobId::compute(self.unencoded_length, &self.root_hash())
    }

    /// Checks that this is the metadata of blob `id` encoded for `n` shards.
    ///
    /// # Errors
    /// It is not.
    pub fn verify(self, n: ShardCount, id: &BlobId) -> Result<Metadata, MetadataError> {
        let metadata = self.trust(n)?;
        if metadata.id() == id {
            Ok(metadata)
        } else {
            Err(MetadataError::WrongId { expected: *id, found: *metadata.id() })
        }
    }

    /// Checks the form only and takes the blob id from the content: for one's own
    /// encodings, and for tests.
    ///
    /// # Errors
    /// The number of hash pairs or the length does not fit `n`.
    pub fn trust(self, n: ShardCount) -> Result<Metadata, MetadataError> {
        if self.hashes.len() != n.as_usize() {
            return Err(MetadataError::HashCount { found: self.hashes.len(), shards: n });
        }
        let symbol_size = n.symbol_size(self.unencoded_length)?;
        let root_hash = self.root_hash();
        let id = BlobId::compute(self.unencoded_length, &root_hash);
        Ok(Metadata(Arc::new(Inner { n, id, root_hash, symbol_size, content: self })))
    }
}

impl Wire for UnverifiedMetadata {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(METADATA_V1 as u8);
        out.push(ENCODING_RS2);
        out.extend_from_slice(&self.unencoded_length.to_le_bytes());
        write_vec(out, &self.hashes);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        let version = reader.variant()?;
        if version != METADATA_V1 {
            return Err(BcsError::UnknownVariant { what: "metadata version", found: version });
        }
        let encoding = reader.u8()?;
        if encoding != ENCODING_RS2 {
            return Err(BcsError::UnknownVariant { what: "encoding type", found: encoding.into() });
        }
        Ok(Self {
            unencoded_length: reader.u64()?,
            hashes: reader.vec("hash pairs", 2, HASH_PAIRS_MAX)?,
        })
    }
}

/// Metadata with the id it is said to be for: the body of a metadata GET.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MetadataWithId {
    /// The blob id.
    pub id: BlobId,
    /// The metadata.
    pub metadata: UnverifiedMetadata,
}

impl MetadataWithId {
    /// Checks that this is the metadata of blob `id` encoded for `n` shards.
    ///
    /// # Errors
    /// It is not, or it is said to be for another blob.
    pub fn verify(self, n: ShardCount, id: &BlobId) -> Result<Metadata, MetadataError> {
        if self.id != *id {
            return Err(MetadataError::WrongId { expected: *id, found: self.id });
        }
        self.metadata.verify(n, id)
    }
}

impl Wire for MetadataWithId {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.id.as_bytes());
        self.metadata.write(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        Ok(Self { id: BlobId(reader.array()?), metadata: Wire::read(reader)? })
    }
}

/// Metadata that belongs to a blob id, for a known number of shards. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata(Arc<Inner>);

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    n: ShardCount,
    id: BlobId,
    root_hash: Digest,
    symbol_size: SymbolSize,
    content: UnverifiedMetadata,
}

impl Metadata {
    /// The blob id.
    #[must_use]
    pub fn id(&self) -> &BlobId {
        &self.0.id
    }

    /// The number of shards.
    #[must_use]
    pub fn shards(&self) -> ShardCount {
        self.0.n
    }

    /// Length of the blob in bytes.
    #[must_use]
    pub fn unencoded_length(&self) -> u64 {
        self.0.content.unencoded_length
    }

    /// Bytes of one symbol.
    #[must_use]
    pub fn symbol_size(&self) -> SymbolSize {
        self.0.symbol_size
    }

    /// The Merkle root over the hash pairs.
    #[must_use]
    pub fn root_hash(&self) -> &Digest {
        &self.0.root_hash
    }

    /// The hashes of every sliver, by pair index.
    #[must_use]
    pub fn hashes(&self) -> &[HashPair] {
        &self.0.content.hashes
    }

    /// The content, for sending.
    #[must_use]
    pub fn as_unverified(&self) -> &UnverifiedMetadata {
        &self.0.content
    }

    /// The content with the id, as a storage node or peer answers it.
    #[must_use]
    pub fn with_id(&self) -> MetadataWithId {
        MetadataWithId { id: *self.id(), metadata: self.0.content.clone() }
    }

    /// Bytes in a sliver of axis `A`.
    #[must_use]
    pub fn sliver_len<A: Axis>(&self) -> usize {
        self.shards().sliver_symbols::<A>() * self.symbol_size().as_usize()
    }

    /// The committed hash of a sliver; `None` if the index is out of range.
    #[must_use]
    pub fn sliver_hash<A: Axis>(&self, index: SliverIndex<A>) -> Option<&MerkleNode> {
        let PairIndex(pair) = index.pair(self.shards()).ok()?;
        let pair = self.hashes().get(usize::from(pair))?;
        Some(match A::KIND {
            AxisKind::Primary => &pair.primary,
            AxisKind::Secondary => &pair.secondary,
        })
    }

    /// The systematic primary slivers that hold the bytes `range` of the blob.
    #[must_use]
    pub fn rows_of_range(&self, range: Range<u64>) -> Range<u16> {
        let range = range.start..range.end.min(self.unencoded_length());
        self.shards().rows_of_range(self.symbol_size(), range)
    }

    /// How many systematic primary slivers hold bytes of the blob; the rest are all
    /// zeros and need not be fetched: see [`Self::padding_sliver`].
    #[must_use]
    pub fn occupied_rows(&self) -> u16 {
        self.rows_of_range(0..self.unencoded_length()).end
    }

    /// A systematic primary sliver that lies wholly in the zero padding behind the
    /// blob. It still has to be verified: whoever encoded the blob may have put
    /// something else there.
    #[must_use]
    pub fn padding_sliver(&self, index: SliverIndex<Primary>) -> Option<UnverifiedSliver<Primary>> {
        let padding = index.get() >= self.occupied_rows() && index.is_systematic(self.shards());
        padding.then(|| UnverifiedSliver {
            data: vec![0; self.sliver_len::<Primary>()].into(),
            symbol_size: self.symbol_size().get(),
            index,
        })
    }

    /// The systematic primary slivers in the zero padding, verified: those that the writer
    /// did leave zero. All have the same content, so this costs as much as verifying one.
    #[must_use]
    pub fn padding_slivers(&self) -> Vec<Sliver<Primary>> {
        let rows = self.shards().rows();
        let first = SliverIndex::new(self.occupied_rows());
        let Some(zeros) = self.padding_sliver(first) else { return Vec::new() };
        let Ok(root) = zeros.root(self.shards()) else { return Vec::new() };
        let indices = (usize::from(first.get())..rows).filter_map(|row| u16::try_from(row).ok());
        let zero = |&index: &SliverIndex<Primary>| self.sliver_hash(index) == Some(&root);
        let sliver = |index| Sliver {
            blob: *self.id(),
            n: self.shards(),
            symbol_size: self.symbol_size(),
            index,
            data: zeros.data.clone(),
        };
        indices.map(SliverIndex::new).filter(zero).map(sliver).collect()
    }
}
