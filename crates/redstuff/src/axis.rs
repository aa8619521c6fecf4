//! The two directions of the code.
//!
//! The source matrix has `kp` rows and `ks` columns. A *primary* sliver is a row of
//! the expanded matrix, a *secondary* sliver a column. Everything that differs
//! between the two carries the axis in its type, so that a row is never taken for
//! a column.

use std::{fmt, str::FromStr};

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Primary {}
    impl Sealed for super::Secondary {}
}

/// One of the two axes, as a type. Implemented by [`Primary`] and [`Secondary`] only.
pub trait Axis:
    sealed::Sealed
    + Copy
    + Eq
    + Ord
    + std::hash::Hash
    + fmt::Debug
    + Default
    + Send
    + Sync
    + Unpin
    + 'static
{
    /// The other axis.
    type Other: Axis<Other = Self>;
    /// The axis as a value.
    const KIND: AxisKind;
}

/// Rows: a primary sliver has `ks` symbols, `kp` of them rebuild the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Primary;

/// Columns: a secondary sliver has `kp` symbols, `ks` of them rebuild the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Secondary;

impl Axis for Primary {
    type Other = Secondary;
    const KIND: AxisKind = AxisKind::Primary;
}

impl Axis for Secondary {
    type Other = Primary;
    const KIND: AxisKind = AxisKind::Secondary;
}

/// One of the two axes, as a value (the `{sliver_type}` of HTTP paths).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AxisKind {
    /// See [`Primary`].
    Primary,
    /// See [`Secondary`].
    Secondary,
}

impl AxisKind {
    /// The other axis.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Primary => Self::Secondary,
            Self::Secondary => Self::Primary,
        }
    }

    /// `primary` or `secondary`, the text of HTTP paths.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        }
    }
}

impl fmt::Display for AxisKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text was neither `primary` nor `secondary`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sliver type is `primary` or `secondary`")]
pub struct UnknownAxis;

impl FromStr for AxisKind {
    type Err = UnknownAxis;

    fn from_str(text: &str) -> Result<Self, UnknownAxis> {
        match text {
            "primary" => Ok(Self::Primary),
            "secondary" => Ok(Self::Secondary),
            _ => Err(UnknownAxis),
        }
    }
}
