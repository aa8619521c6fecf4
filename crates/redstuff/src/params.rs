//! What the number of shards decides: symbol counts, symbol sizes, limits.

use std::{fmt, num::NonZeroU16, ops::Range};

use crate::{Axis, AxisKind};

/// Symbols are made of 16-bit field elements, so their size is a multiple of this many bytes.
pub const SYMBOL_ALIGNMENT: u64 = 2;

/// Largest symbol, in bytes: the largest even number a `u16` holds.
pub const SYMBOL_SIZE_MAX: u16 = 65_534;

/// Bytes of one storage unit, the unit of Walrus' prices.
pub const STORAGE_UNIT: u64 = 1 << 20;

/// Bytes a hash pair adds to the billed size (two 32-byte roots).
const HASH_PAIR_BYTES: u64 = 64;

/// Bytes the blob id adds to the billed size.
const BLOB_ID_BYTES: u64 = 32;

/// The number of shards `n` of a committee, at least [`ShardCount::MIN`].
///
/// Both public networks use 1,000. The same bytes have different blob ids for different `n`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardCount(NonZeroU16);

/// The number of shards cannot be used with this code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShardCountError {
    /// Fewer shards than the code works with.
    #[error("{0} shards are too few: the code needs at least 4")]
    TooFew(u64),
    /// More shards than the field has room for.
    #[error("{0} shards are too many for a code over GF(2^16)")]
    TooMany(u64),
}

/// The blob is larger than `n` shards can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a blob of {length} bytes is too large for {shards} shards: at most {max}")]
pub struct TooLarge {
    /// The blob's length in bytes.
    pub length: u64,
    /// The largest length in bytes.
    pub max: u64,
    /// The number of shards.
    pub shards: ShardCount,
}

impl ShardCount {
    /// Fewest shards: with three or fewer no fault is tolerated and there is nothing to encode.
    pub const MIN: u16 = 4;

    /// The number of shards of Walrus Mainnet and Testnet.
    pub const PUBLIC: Self = match NonZeroU16::new(1000) {
        Some(n) => Self(n),
        None => unreachable!(),
    };

    /// Checks and wraps a number of shards.
    ///
    /// # Errors
    /// Fewer than [`Self::MIN`], or more than the field GF(2^16) has points for.
    pub fn new(n: u16) -> Result<Self, ShardCountError> {
        let too_few = || ShardCountError::TooFew(n.into());
        let count = Self(NonZeroU16::new(n).ok_or_else(too_few)?);
        if n < Self::MIN {
            return Err(too_few());
        }
        let supported = |axis| {
            let original = count.source_symbols(axis);
            reed_solomon_simd::ReedSolomonEncoder::supports(original, count.as_usize() - original)
        };
        if supported(AxisKind::Primary) && supported(AxisKind::Secondary) {
            Ok(count)
        } else {
            Err(ShardCountError::TooMany(n.into()))
        }
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0.get()
    }

    /// The number, as an index type.
    #[must_use]
    pub fn as_usize(self) -> usize {
        self.0.get().into()
    }

    /// `f`: how many shards may be faulty, `floor((n-1)/3)`.
    #[must_use]
    pub fn max_faulty(self) -> u16 {
        (self.get() - 1) / 3
    }

    /// `n - f`: how many shards are sure to be correct.
    #[must_use]
    pub fn min_correct(self) -> u16 {
        self.get() - self.max_faulty()
    }

    /// `kp = n - 2f`: rows of the source matrix.
    #[must_use]
    pub fn rows(self) -> usize {
        usize::from(self.get() - 2 * self.max_faulty())
    }

    /// `ks = n - f`: columns of the source matrix.
    #[must_use]
    pub fn columns(self) -> usize {
        self.min_correct().into()
    }

    /// Source symbols of the code along `axis`: `kp` for primary, `ks` for secondary.
    /// As many slivers of that axis rebuild the blob.
    #[must_use]
    pub fn source_symbols(self, axis: AxisKind) -> usize {
        match axis {
            AxisKind::Primary => self.rows(),
            AxisKind::Secondary => self.columns(),
        }
    }

    /// Symbols in one sliver of axis `A`: `ks` for primary, `kp` for secondary.
    #[must_use]
    pub fn sliver_symbols<A: Axis>(self) -> usize {
        self.source_symbols(A::KIND.other())
    }

    /// How many slivers of axis `A` rebuild a blob; equally many symbols rebuild a sliver of the other axis.
    #[must_use]
    pub fn slivers_to_decode<A: Axis>(self) -> usize {
        self.source_symbols(A::KIND)
    }

    /// `kp * ks`: symbols of the source matrix.
    #[must_use]
    pub fn source_symbol_count(self) -> u64 {
        self.rows() as u64 * self.columns() as u64
    }

    /// Largest blob in bytes.
    #[must_use]
    pub fn max_blob_size(self) -> u64 {
        self.source_symbol_count() * u64::from(SYMBOL_SIZE_MAX)
    }

    /// Largest sliver in bytes (either axis; a primary one with the largest symbols).
    #[must_use]
    pub fn max_sliver_size(self) -> u64 {
        self.columns() as u64 * u64::from(SYMBOL_SIZE_MAX)
    }

    /// Symbol size for a blob of `length` bytes.
    ///
    /// # Errors
    /// The blob is larger than [`Self::max_blob_size`].
    pub fn symbol_size(self, length: u64) -> Result<SymbolSize, TooLarge> {
        let exact = length.max(1).div_ceil(self.source_symbol_count());
        exact
            .checked_next_multiple_of(SYMBOL_ALIGNMENT)
            .and_then(|size| u16::try_from(size).ok())
            .and_then(SymbolSize::new)
            .ok_or_else(|| TooLarge { length, max: self.max_blob_size(), shards: self })
    }

    /// Billed bytes of metadata: `64 n + 32` for each shard.
    #[must_use]
    pub fn metadata_length(self) -> u64 {
        u64::from(self.get()) * HASH_PAIR_BYTES + BLOB_ID_BYTES
    }

    /// Bytes of all slivers of a blob of `length` bytes.
    ///
    /// # Errors
    /// The blob is larger than [`Self::max_blob_size`].
    pub fn slivers_length(self, length: u64) -> Result<u64, TooLarge> {
        let symbols = (self.rows() + self.columns()) as u64;
        Ok(u64::from(self.get()) * symbols * self.symbol_size(length)?.as_u64())
    }

    /// Billed bytes of a blob of `length` bytes: slivers and, once per shard, metadata.
    ///
    /// # Errors
    /// The blob is larger than [`Self::max_blob_size`].
    pub fn encoded_length(self, length: u64) -> Result<u64, TooLarge> {
        Ok(self.slivers_length(length)? + u64::from(self.get()) * self.metadata_length())
    }

    /// Storage units (MiB begun) a blob of `length` bytes is billed for.
    ///
    /// # Errors
    /// The blob is larger than [`Self::max_blob_size`].
    pub fn storage_units(self, length: u64) -> Result<u64, TooLarge> {
        Ok(self.encoded_length(length)?.div_ceil(STORAGE_UNIT))
    }

    /// Systematic primary slivers that hold the bytes `range` of any blob with this
    /// symbol size: the rows to fetch for a partial read. Empty for an empty range.
    #[must_use]
    pub fn rows_of_range(self, symbol_size: SymbolSize, range: Range<u64>) -> Range<u16> {
        let row = self.columns() as u64 * symbol_size.as_u64();
        let limit = self.rows() as u64;
        if range.is_empty() {
            return 0..0;
        }
        let cap = |row: u64| u16::try_from(row.min(limit)).unwrap_or(u16::MAX);
        cap(range.start / row)..cap(range.end.div_ceil(row))
    }
}

impl fmt::Debug for ShardCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShardCount({})", self.0)
    }
}

impl fmt::Display for ShardCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl TryFrom<u16> for ShardCount {
    type Error = ShardCountError;

    fn try_from(n: u16) -> Result<Self, ShardCountError> {
        Self::new(n)
    }
}

/// Bytes of one symbol: even, not zero, at most [`SYMBOL_SIZE_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SymbolSize(NonZeroU16);

impl SymbolSize {
    /// Wraps an even, non-zero size.
    #[must_use]
    pub fn new(size: u16) -> Option<Self> {
        NonZeroU16::new(size).filter(|size| size.get().is_multiple_of(2)).map(Self)
    }

    /// The size in bytes.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0.get()
    }

    /// The size in bytes.
    #[must_use]
    pub fn as_usize(self) -> usize {
        self.0.get().into()
    }

    /// The size in bytes.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        self.0.get().into()
    }
}

impl fmt::Display for SymbolSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
