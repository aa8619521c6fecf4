//! Index types that cannot be taken for one another.
//!
//! A sliver has an index on its axis; a *pair* groups primary sliver `p` with
//! secondary sliver `n-1-p`; a pair lives on a *shard* that depends on the blob id.

use std::{cmp::Ordering, fmt, marker::PhantomData, str::FromStr};

use crate::{Axis, AxisKind, BlobId, Primary, Secondary, ShardCount};

/// An index at or beyond the number of shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("index {index} is out of range for {shards} shards")]
pub struct OutOfRange {
    /// The index.
    pub index: u16,
    /// The number of shards.
    pub shards: ShardCount,
}

fn check(index: u16, n: ShardCount) -> Result<u16, OutOfRange> {
    if index < n.get() { Ok(index) } else { Err(OutOfRange { index, shards: n }) }
}

/// Index of a sliver on axis `A`: a row (primary) or column (secondary) of the expanded matrix.
pub struct SliverIndex<A: Axis>(u16, PhantomData<A>);

/// Index of a sliver pair; what HTTP paths and metadata use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PairIndex(pub u16);

/// Index of a shard of the committee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardIndex(pub u16);

impl<A: Axis> SliverIndex<A> {
    /// Names the `index`-th sliver; whether it exists depends on the number of shards and is
    /// checked where both are known.
    #[must_use]
    pub const fn new(index: u16) -> Self {
        Self(index, PhantomData)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The number.
    #[must_use]
    pub fn as_usize(self) -> usize {
        self.0.into()
    }

    /// `self`, if it exists among `n` shards.
    ///
    /// # Errors
    /// The index is `n` or more.
    pub fn check(self, n: ShardCount) -> Result<Self, OutOfRange> {
        check(self.0, n).map(|_| self)
    }

    /// The pair this sliver belongs to.
    ///
    /// # Errors
    /// The index is `n` or more.
    pub fn pair(self, n: ShardCount) -> Result<PairIndex, OutOfRange> {
        let index = check(self.0, n)?;
        Ok(PairIndex(match A::KIND {
            AxisKind::Primary => index,
            AxisKind::Secondary => n.get() - 1 - index,
        }))
    }

    /// Whether the sliver holds source data as it is.
    #[must_use]
    pub fn is_systematic(self, n: ShardCount) -> bool {
        self.as_usize() < n.source_symbols(A::KIND)
    }
}

impl PairIndex {
    /// The sliver of this pair on axis `A`.
    ///
    /// # Errors
    /// The index is `n` or more.
    pub fn sliver<A: Axis>(self, n: ShardCount) -> Result<SliverIndex<A>, OutOfRange> {
        let index = check(self.0, n)?;
        Ok(SliverIndex::new(match A::KIND {
            AxisKind::Primary => index,
            AxisKind::Secondary => n.get() - 1 - index,
        }))
    }

    /// The shard that stores this pair of `blob`.
    ///
    /// # Errors
    /// The index is `n` or more.
    pub fn shard(self, n: ShardCount, blob: &BlobId) -> Result<ShardIndex, OutOfRange> {
        let pair = u32::from(check(self.0, n)?);
        let shard = (pair + u32::from(blob.rotation(n))) % u32::from(n.get());
        Ok(ShardIndex(narrow(shard)))
    }

    /// The number.
    #[must_use]
    pub fn as_usize(self) -> usize {
        self.0.into()
    }
}

impl ShardIndex {
    /// The pair of `blob` that this shard stores.
    ///
    /// # Errors
    /// The index is `n` or more.
    pub fn pair(self, n: ShardCount, blob: &BlobId) -> Result<PairIndex, OutOfRange> {
        let shard = u32::from(check(self.0, n)?);
        let count = u32::from(n.get());
        let pair = (count + shard - u32::from(blob.rotation(n))) % count;
        Ok(PairIndex(narrow(pair)))
    }
}

/// A remainder of a division by a `u16`.
fn narrow(value: u32) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

/// A symbol of the expanded matrix; text form `<primary>-<secondary>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SymbolId {
    /// The row.
    pub primary: SliverIndex<Primary>,
    /// The column.
    pub secondary: SliverIndex<Secondary>,
}

impl fmt::Display for SymbolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.primary, self.secondary)
    }
}

/// The text was not two decimal numbers joined by `-`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a symbol id is `<primary>-<secondary>`, two numbers up to 65535")]
pub struct BadSymbolId;

impl FromStr for SymbolId {
    type Err = BadSymbolId;

    fn from_str(text: &str) -> Result<Self, BadSymbolId> {
        let number = |part: &str| {
            let digits = part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse().ok().filter(|_| digits).ok_or(BadSymbolId)
        };
        let (primary, secondary) = text.split_once('-').ok_or(BadSymbolId)?;
        Ok(Self {
            primary: SliverIndex::new(number(primary)?),
            secondary: SliverIndex::new(number(secondary)?),
        })
    }
}

// Derives would ask the same of `A`, which is only a marker.
impl<A: Axis> Clone for SliverIndex<A> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<A: Axis> Copy for SliverIndex<A> {}
impl<A: Axis> PartialEq for SliverIndex<A> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<A: Axis> Eq for SliverIndex<A> {}
impl<A: Axis> PartialOrd for SliverIndex<A> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<A: Axis> Ord for SliverIndex<A> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}
impl<A: Axis> std::hash::Hash for SliverIndex<A> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl<A: Axis> fmt::Debug for SliverIndex<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", A::KIND, self.0)
    }
}
impl<A: Axis> fmt::Display for SliverIndex<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
impl fmt::Display for PairIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
impl fmt::Display for ShardIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
