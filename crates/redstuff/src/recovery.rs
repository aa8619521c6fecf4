//! Rebuilding a sliver from symbols of slivers of the other axis.
//!
//! The symbol in row `i` and column `j` belongs to primary sliver `i` and to secondary
//! sliver `j`. Throughout, `T` is the axis of the *target*, the sliver to rebuild; the
//! symbols come from *source* slivers of the other axis.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    Axis, AxisKind, BlobId, ExpandedSliver, MerkleNode, MerkleProof, Metadata, Primary, Secondary,
    ShardCount, Sliver, SliverIndex, SymbolId,
    bcs::{BcsError, Reader, Wire, write_bytes, write_vec},
    code::Code,
    decode::decode_symbols,
    inconsistency::InconsistencyProof,
    sliver::Scratch,
};

/// Largest symbol that is parsed, in bytes.
const SYMBOL_BYTES_MAX: usize = u16::MAX as usize;

/// Most items in lists of symbols and of targets: as many as there can be shards.
const SYMBOLS_MAX: usize = u16::MAX as usize;

/// A symbol of a target sliver of axis `T`, without proof.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DecodingSymbol<T: Axis> {
    /// The sliver the symbol was taken from.
    pub source: SliverIndex<T::Other>,
    /// The symbol.
    pub data: Bytes,
}

impl<T: Axis> Wire for DecodingSymbol<T> {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.source.get().to_le_bytes());
        write_bytes(out, &self.data);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        Ok(Self {
            source: SliverIndex::new(reader.u16()?),
            data: reader.bytes("symbol bytes", SYMBOL_BYTES_MAX)?,
        })
    }
}

/// A symbol of a target sliver of axis `T` with a proof that it is in the source sliver.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecoverySymbol<T: Axis> {
    /// The symbol.
    pub symbol: DecodingSymbol<T>,
    /// The path to the source sliver's hash; the leaf's index is the target's index.
    pub proof: MerkleProof,
}

impl<T: Axis> Wire for RecoverySymbol<T> {
    fn write(&self, out: &mut Vec<u8>) {
        self.symbol.write(out);
        self.proof.write(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        Ok(Self { symbol: Wire::read(reader)?, proof: Wire::read(reader)? })
    }
}

/// A symbol for a target of either axis.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EitherDecodingSymbol {
    /// For a primary sliver, taken from a secondary one.
    Primary(DecodingSymbol<Primary>),
    /// For a secondary sliver, taken from a primary one.
    Secondary(DecodingSymbol<Secondary>),
}

impl Wire for EitherDecodingSymbol {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Primary(symbol) => {
                out.push(0);
                symbol.write(out);
            }
            Self::Secondary(symbol) => {
                out.push(1);
                symbol.write(out);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        match reader.variant()? {
            0 => Wire::read(reader).map(Self::Primary),
            1 => Wire::read(reader).map(Self::Secondary),
            found => Err(BcsError::UnknownVariant { what: "decoding symbol", found }),
        }
    }
}

/// A symbol with target and proof, as the recovery-symbols route answers it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GeneralRecoverySymbol {
    /// The symbol.
    pub symbol: EitherDecodingSymbol,
    /// Index of the target sliver on the axis the symbol is for.
    pub target: u16,
    /// The path to the source sliver's hash.
    pub proof: MerkleProof,
}

impl GeneralRecoverySymbol {
    /// Makes one of a symbol for `target`.
    #[must_use]
    pub fn new<T: Axis>(target: SliverIndex<T>, symbol: RecoverySymbol<T>) -> Self {
        let RecoverySymbol { symbol: DecodingSymbol { source, data }, proof } = symbol;
        let source = source.get();
        let symbol = match T::KIND {
            AxisKind::Primary => {
                let source = SliverIndex::new(source);
                EitherDecodingSymbol::Primary(DecodingSymbol { source, data })
            }
            AxisKind::Secondary => {
                let source = SliverIndex::new(source);
                EitherDecodingSymbol::Secondary(DecodingSymbol { source, data })
            }
        };
        Self { symbol, target: target.get(), proof }
    }

    /// Target and symbol, if the symbol is for axis `T`.
    #[must_use]
    pub fn into_typed<T: Axis>(self) -> Option<(SliverIndex<T>, RecoverySymbol<T>)> {
        let (source, data) = match (self.symbol, T::KIND) {
            (EitherDecodingSymbol::Primary(symbol), AxisKind::Primary) => {
                (symbol.source.get(), symbol.data)
            }
            (EitherDecodingSymbol::Secondary(symbol), AxisKind::Secondary) => {
                (symbol.source.get(), symbol.data)
            }
            _ => return None,
        };
        let symbol = DecodingSymbol { source: SliverIndex::new(source), data };
        Some((SliverIndex::new(self.target), RecoverySymbol { symbol, proof: self.proof }))
    }

    /// Which symbol of the expanded matrix this is.
    #[must_use]
    pub fn id(&self) -> SymbolId {
        match &self.symbol {
            EitherDecodingSymbol::Primary(symbol) => {
                SymbolId { primary: SliverIndex::new(self.target), secondary: symbol.source }
            }
            EitherDecodingSymbol::Secondary(symbol) => {
                SymbolId { primary: symbol.source, secondary: SliverIndex::new(self.target) }
            }
        }
    }
}

impl Wire for GeneralRecoverySymbol {
    fn write(&self, out: &mut Vec<u8>) {
        self.symbol.write(out);
        out.extend_from_slice(&self.target.to_le_bytes());
        self.proof.write(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        Ok(Self { symbol: Wire::read(reader)?, target: reader.u16()?, proof: Wire::read(reader)? })
    }
}

/// The answer of the recovery-symbols route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct RecoverySymbols(pub Vec<GeneralRecoverySymbol>);

impl Wire for RecoverySymbols {
    fn write(&self, out: &mut Vec<u8>) {
        write_vec(out, &self.0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        // Variant, source, length, target and path length take seven bytes at least.
        reader.vec("recovery symbols", 7, SYMBOLS_MAX).map(Self)
    }
}

/// The answer of the decoding-symbols route: symbols by index of the target sliver.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct DecodingSymbols(pub BTreeMap<u16, Vec<EitherDecodingSymbol>>);

impl Wire for DecodingSymbols {
    fn write(&self, out: &mut Vec<u8>) {
        // BCS orders a map by its keys' bytes, and these are little-endian.
        let mut entries: Vec<_> = self.0.iter().collect();
        entries.sort_by_key(|(target, _)| target.swap_bytes());
        crate::bcs::write_uleb(out, entries.len());
        for (target, symbols) in entries {
            out.extend_from_slice(&target.to_le_bytes());
            write_vec(out, symbols);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        let count = reader.count("target slivers", 3, SYMBOLS_MAX)?;
        let mut entries = BTreeMap::new();
        let mut last = None;
        for _ in 0..count {
            let target = reader.u16()?;
            let key = Some(target.swap_bytes());
            if key <= last {
                return Err(BcsError::Invalid("the keys of a map are not in order"));
            }
            last = key;
            entries.insert(target, reader.vec("decoding symbols", 4, SYMBOLS_MAX)?);
        }
        Ok(Self(entries))
    }
}

/// Why symbols cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// No sliver has this index.
    #[error(transparent)]
    OutOfRange(#[from] crate::OutOfRange),
    /// A symbol of another size than the blob's.
    #[error("a symbol has {found} bytes, not {expected}")]
    SymbolSize {
        /// Bytes of the blob's symbols.
        expected: usize,
        /// Bytes of this one.
        found: usize,
    },
    /// The symbol is not in the source sliver.
    #[error("a symbol's proof does not lead to the source sliver's hash")]
    Proof,
    /// A symbol was verified for another target or blob.
    #[error("a symbol belongs to another sliver")]
    OtherTarget,
    /// Fewer symbols than needed.
    #[error("{found} usable symbols are too few: {needed} are needed")]
    TooFew {
        /// Symbols from different slivers.
        found: usize,
        /// Symbols needed.
        needed: usize,
    },
    /// The rebuilt sliver is not the one in the metadata.
    #[error("the rebuilt sliver's hash is not the one in the metadata")]
    Hash,
}

impl<A: Axis> ExpandedSliver<A> {
    /// The symbol for a target sliver, without proof.
    ///
    /// # Errors
    /// There is no such target.
    pub fn decoding_symbol(
        &self,
        target: SliverIndex<A::Other>,
    ) -> Result<DecodingSymbol<A::Other>, RecoveryError> {
        target.check(self.sliver().shards())?;
        let data = Bytes::copy_from_slice(self.symbol(target).unwrap_or_default());
        Ok(DecodingSymbol { source: SliverIndex::new(self.sliver().index().get()), data })
    }

    /// The symbol for a target sliver, with proof.
    ///
    /// # Errors
    /// There is no such target.
    pub fn recovery_symbol(
        &self,
        target: SliverIndex<A::Other>,
    ) -> Result<RecoverySymbol<A::Other>, RecoveryError> {
        let symbol = self.decoding_symbol(target)?;
        let proof = self.tree().proof(target.as_usize()).ok_or(RecoveryError::Proof)?;
        Ok(RecoverySymbol { symbol, proof })
    }
}

/// A recovery symbol that is what its source sliver's writer committed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedSymbol<T: Axis> {
    blob: BlobId,
    n: ShardCount,
    target: SliverIndex<T>,
    content: RecoverySymbol<T>,
}

impl<T: Axis> VerifiedSymbol<T> {
    /// The sliver this symbol helps to rebuild.
    #[must_use]
    pub fn target(&self) -> SliverIndex<T> {
        self.target
    }

    /// The symbol and its proof.
    #[must_use]
    pub fn content(&self) -> &RecoverySymbol<T> {
        &self.content
    }
}

impl<T: Axis> RecoverySymbol<T> {
    /// Checks that this symbol of sliver `target` is in its source sliver.
    ///
    /// # Errors
    /// It is not, or an index or the size is wrong.
    pub fn verify(
        self,
        metadata: &Metadata,
        target: SliverIndex<T>,
    ) -> Result<VerifiedSymbol<T>, RecoveryError> {
        let n = metadata.shards();
        target.check(n)?;
        check_symbol(metadata, &self.symbol)?;
        let root = metadata.sliver_hash(self.symbol.source).ok_or(RecoveryError::Proof)?;
        if !self.proof.verifies(&self.symbol.data, target.as_usize(), n.as_usize(), root) {
            return Err(RecoveryError::Proof);
        }
        Ok(VerifiedSymbol { blob: *metadata.id(), n, target, content: self })
    }
}

fn check_symbol<T: Axis>(
    metadata: &Metadata,
    symbol: &DecodingSymbol<T>,
) -> Result<(), RecoveryError> {
    symbol.source.check(metadata.shards())?;
    let (expected, found) = (metadata.symbol_size().as_usize(), symbol.data.len());
    if found == expected { Ok(()) } else { Err(RecoveryError::SymbolSize { expected, found }) }
}

/// What verified symbols lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovered<T: Axis> {
    /// The sliver.
    Sliver(Sliver<T>),
    /// The blob's writer committed to a sliver that does not fit the others: here is the proof.
    Inconsistent(InconsistencyProof<T>),
}

/// Rebuilds a sliver from symbols with proofs. Duplicates and surplus symbols are ignored.
///
/// # Errors
/// Too few symbols, or symbols of another sliver.
pub fn recover<T: Axis>(
    metadata: &Metadata,
    target: SliverIndex<T>,
    symbols: &[VerifiedSymbol<T>],
) -> Result<Recovered<T>, RecoveryError> {
    let mut used = Vec::new();
    for symbol in symbols {
        let same_blob = symbol.blob == *metadata.id() && symbol.n == metadata.shards();
        if !same_blob || symbol.target != target {
            return Err(RecoveryError::OtherTarget);
        }
        used.push(&symbol.content.symbol);
    }
    match rebuild(metadata, target, used)? {
        Some(sliver) => Ok(Recovered::Sliver(sliver)),
        None => {
            let contents = symbols.iter().map(|symbol| symbol.content.clone());
            Ok(Recovered::Inconsistent(InconsistencyProof::collect(metadata, target, contents)))
        }
    }
}

/// Rebuilds a sliver from symbols without proofs; only the result is checked.
/// Symbols of the wrong size, duplicates and surplus ones are ignored.
///
/// # Errors
/// Too few symbols, or a result that is not the sliver: a symbol was a lie, or the blob is
/// inconsistent.
pub fn recover_unproven<T: Axis>(
    metadata: &Metadata,
    target: SliverIndex<T>,
    symbols: &[DecodingSymbol<T>],
) -> Result<Sliver<T>, RecoveryError> {
    let usable = symbols.iter().filter(|symbol| check_symbol(metadata, symbol).is_ok());
    rebuild(metadata, target, usable.collect())?.ok_or(RecoveryError::Hash)
}

/// Rebuilds a sliver from the first different symbols; `None` if its hash is not the committed one.
pub(crate) fn rebuild<T: Axis>(
    metadata: &Metadata,
    target: SliverIndex<T>,
    symbols: Vec<&DecodingSymbol<T>>,
) -> Result<Option<Sliver<T>>, RecoveryError> {
    let n = metadata.shards();
    target.check(n)?;
    let needed = n.sliver_symbols::<T>();
    let mut known = BTreeMap::new();
    for symbol in symbols {
        if known.len() < needed {
            known.entry(symbol.source.as_usize()).or_insert(&symbol.data[..]);
        }
    }
    if known.len() < needed {
        return Err(RecoveryError::TooFew { found: known.len(), needed });
    }
    let known: Vec<_> = known.into_iter().collect();
    let size = metadata.symbol_size();
    let data = decode_symbols(Code::new(n, T::KIND.other()), size.as_usize(), &known);
    let root = Scratch::default().root::<T>(n, size.as_usize(), &data);
    let authentic = metadata.sliver_hash(target) == Some(&MerkleNode::from(root));
    Ok(authentic.then(|| Sliver {
        blob: *metadata.id(),
        n,
        symbol_size: size,
        index: target,
        data: data.into(),
    }))
}
