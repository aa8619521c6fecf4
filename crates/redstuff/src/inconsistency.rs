//! Proofs that a blob was encoded incorrectly.
//!
//! Symbols that provably are in their source slivers determine the target sliver. If
//! that is not the sliver the metadata commits to, whoever wrote the blob did not
//! follow the encoding.

use std::collections::BTreeSet;

use crate::{
    Axis, AxisKind, Metadata, Primary, RecoveryError, RecoverySymbol, Secondary, SliverIndex,
    bcs::{BcsError, Reader, Wire, write_vec},
    recovery::rebuild,
};

/// Most symbols in a proof: as many as there can be shards.
const SYMBOLS_MAX: usize = u16::MAX as usize;

/// Symbols that contradict the committed hash of a sliver of axis `T`.
///
/// The BCS form is the body of the inconsistency-proof route, where the axis is in the path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InconsistencyProof<T: Axis> {
    /// The sliver that is not what it should be.
    pub target: SliverIndex<T>,
    /// Exactly as many of its symbols as determine it.
    pub symbols: Vec<RecoverySymbol<T>>,
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Too few, too many or repeated symbols.
    #[error("{found} different symbols, not {needed}")]
    Count {
        /// Different symbols there are, or all if there are too many.
        found: usize,
        /// Symbols a proof has.
        needed: usize,
    },
    /// A symbol is not in its source sliver.
    #[error("a symbol cannot be used")]
    Symbol(#[from] RecoveryError),
    /// The symbols lead to the committed sliver.
    #[error("the sliver is consistent with the metadata")]
    Consistent,
}

impl<T: Axis> InconsistencyProof<T> {
    /// Takes the first different symbols, as many as a proof has.
    pub(crate) fn collect(
        metadata: &Metadata,
        target: SliverIndex<T>,
        symbols: impl IntoIterator<Item = RecoverySymbol<T>>,
    ) -> Self {
        let mut seen = BTreeSet::new();
        let fresh = symbols.into_iter().filter(|symbol| seen.insert(symbol.symbol.source));
        let needed = metadata.shards().sliver_symbols::<T>();
        Self { target, symbols: fresh.take(needed).collect() }
    }

    /// Checks that this proves the blob inconsistent.
    ///
    /// # Errors
    /// It does not.
    pub fn verify(&self, metadata: &Metadata) -> Result<(), ProofError> {
        let needed = metadata.shards().sliver_symbols::<T>();
        let different: BTreeSet<_> = self.symbols.iter().map(|s| s.symbol.source).collect();
        if self.symbols.len() != needed || different.len() != needed {
            let found =
                if self.symbols.len() > needed { self.symbols.len() } else { different.len() };
            return Err(ProofError::Count { found, needed });
        }
        for symbol in &self.symbols {
            symbol.clone().verify(metadata, self.target)?;
        }
        let symbols = self.symbols.iter().map(|symbol| &symbol.symbol).collect();
        match rebuild(metadata, self.target, symbols)? {
            Some(_) => Err(ProofError::Consistent),
            None => Ok(()),
        }
    }
}

impl<T: Axis> Wire for InconsistencyProof<T> {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.target.get().to_le_bytes());
        write_vec(out, &self.symbols);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        Ok(Self {
            target: SliverIndex::new(reader.u16()?),
            // Source, length and path length take four bytes at least.
            symbols: reader.vec("recovery symbols", 4, SYMBOLS_MAX)?,
        })
    }
}

/// A proof about a sliver of either axis.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AnyInconsistencyProof {
    /// About a primary sliver.
    Primary(InconsistencyProof<Primary>),
    /// About a secondary sliver.
    Secondary(InconsistencyProof<Secondary>),
}

impl AnyInconsistencyProof {
    /// The axis of the target.
    #[must_use]
    pub fn axis(&self) -> AxisKind {
        match self {
            Self::Primary(_) => AxisKind::Primary,
            Self::Secondary(_) => AxisKind::Secondary,
        }
    }

    /// Checks that this proves the blob inconsistent.
    ///
    /// # Errors
    /// It does not.
    pub fn verify(&self, metadata: &Metadata) -> Result<(), ProofError> {
        match self {
            Self::Primary(proof) => proof.verify(metadata),
            Self::Secondary(proof) => proof.verify(metadata),
        }
    }
}

impl Wire for AnyInconsistencyProof {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Primary(proof) => {
                out.push(0);
                proof.write(out);
            }
            Self::Secondary(proof) => {
                out.push(1);
                proof.write(out);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        match reader.variant()? {
            0 => Wire::read(reader).map(Self::Primary),
            1 => Wire::read(reader).map(Self::Secondary),
            found => Err(BcsError::UnknownVariant { what: "inconsistency proof", found }),
        }
    }
}
