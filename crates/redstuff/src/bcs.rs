//! A small, strict, bounded BCS codec.
//!
//! Own code rather than the `bcs` crate: no value may make us allocate more than
//! the input is long, slivers must be readable without copying, and maps and
//! lengths that are not canonical are refused with errors that say so.

use bytes::Bytes;

/// Why bytes are not the BCS form of a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BcsError {
    /// The input ended early.
    #[error("input ends {missing} bytes too early")]
    Truncated {
        /// How many bytes were missing at least.
        missing: usize,
    },
    /// The value ended before the input did.
    #[error("{0} bytes too many after the value")]
    Trailing(usize),
    /// A length or count that is not the shortest ULEB128 form or does not fit 31 bits.
    #[error("malformed length")]
    BadLength,
    /// A length or count above what the type allows.
    #[error("{what}: {found} is more than the limit of {max}")]
    TooMany {
        /// What was counted.
        what: &'static str,
        /// The number found.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// An enum variant or version byte that does not exist.
    #[error("{what}: there is no variant {found}")]
    UnknownVariant {
        /// The type.
        what: &'static str,
        /// The variant number.
        found: u32,
    },
    /// A field with a value the type does not allow.
    #[error("{0}")]
    Invalid(&'static str),
}

/// A value with a BCS form.
pub trait Wire: Sized {
    /// Appends the BCS form.
    fn write(&self, out: &mut Vec<u8>);

    /// Reads a value off the front of the input.
    ///
    /// # Errors
    /// The input is not the BCS form of such a value.
    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError>;

    /// The BCS form.
    #[must_use]
    fn to_bcs(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// Reads a value that must fill `input`; byte strings are copied.
    ///
    /// # Errors
    /// The input is not the BCS form of such a value, or longer.
    fn from_bcs(input: &[u8]) -> Result<Self, BcsError> {
        Reader::new(input).finish(Self::read)
    }

    /// Reads a value that must fill `input`; byte strings share its memory.
    ///
    /// # Errors
    /// The input is not the BCS form of such a value, or longer.
    fn from_shared_bcs(input: &Bytes) -> Result<Self, BcsError> {
        Reader { rest: input, owner: Some(input) }.finish(Self::read)
    }
}

/// Reads BCS off the front of a slice.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    owner: Option<&'a Bytes>,
}

impl<'a> Reader<'a> {
    /// Starts at the beginning of `input`.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Self {
        Self { rest: input, owner: None }
    }

    /// Bytes not yet read.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn finish<T>(
        mut self,
        read: impl FnOnce(&mut Self) -> Result<T, BcsError>,
    ) -> Result<T, BcsError> {
        let value = read(&mut self)?;
        match self.rest.len() {
            0 => Ok(value),
            rest => Err(BcsError::Trailing(rest)),
        }
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], BcsError> {
        let missing = BcsError::Truncated { missing: len.saturating_sub(self.rest.len()) };
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(missing)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], BcsError> {
        let missing = BcsError::Truncated { missing: N.saturating_sub(self.rest.len()) };
        let (taken, rest) = self.rest.split_first_chunk().ok_or(missing)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// A `u8`.
    ///
    /// # Errors
    /// The input is too short.
    pub fn u8(&mut self) -> Result<u8, BcsError> {
        self.array().map(u8::from_le_bytes)
    }

    /// A `u16`.
    ///
    /// # Errors
    /// The input is too short.
    pub fn u16(&mut self) -> Result<u16, BcsError> {
        self.array().map(u16::from_le_bytes)
    }

    /// A `u32`.
    ///
    /// # Errors
    /// The input is too short.
    pub fn u32(&mut self) -> Result<u32, BcsError> {
        self.array().map(u32::from_le_bytes)
    }

    /// A `u64`.
    ///
    /// # Errors
    /// The input is too short.
    pub fn u64(&mut self) -> Result<u64, BcsError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A ULEB128 number below 2^31, in its shortest form.
    fn uleb(&mut self) -> Result<u32, BcsError> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(BcsError::BadLength);
                }
                return u32::try_from(value)
                    .ok()
                    .filter(|&value| i32::try_from(value).is_ok())
                    .ok_or(BcsError::BadLength);
            }
        }
        Err(BcsError::BadLength)
    }

    /// An enum's variant number.
    ///
    /// # Errors
    /// The input is too short or the number malformed.
    pub fn variant(&mut self) -> Result<u32, BcsError> {
        self.uleb()
    }

    /// The length of a byte string or the count of a vector of items of at least
    /// `item` bytes each, checked against `max` and against what is left of the input.
    ///
    /// # Errors
    /// The number is malformed, above `max`, or more than the input can hold.
    pub fn count(
        &mut self,
        what: &'static str,
        item: usize,
        max: usize,
    ) -> Result<usize, BcsError> {
        let found = usize::try_from(self.uleb()?).map_err(|_| BcsError::BadLength)?;
        if found > max {
            return Err(BcsError::TooMany { what, found, max });
        }
        match found.saturating_mul(item).checked_sub(self.rest.len()) {
            Some(missing) if missing > 0 => Err(BcsError::Truncated { missing }),
            _ => Ok(found),
        }
    }

    /// A byte string of at most `max` bytes, borrowed.
    ///
    /// # Errors
    /// Too long, or the input too short.
    pub fn byte_slice(&mut self, what: &'static str, max: usize) -> Result<&'a [u8], BcsError> {
        let len = self.count(what, 1, max)?;
        self.take(len)
    }

    /// A byte string of at most `max` bytes; shares the input's memory where it can.
    ///
    /// # Errors
    /// Too long, or the input too short.
    pub fn bytes(&mut self, what: &'static str, max: usize) -> Result<Bytes, BcsError> {
        let slice = self.byte_slice(what, max)?;
        Ok(match self.owner {
            Some(owner) => owner.slice_ref(slice),
            None => Bytes::copy_from_slice(slice),
        })
    }

    /// A UTF-8 string of at most `max` bytes.
    ///
    /// # Errors
    /// Too long, not UTF-8, or the input too short.
    pub fn string(&mut self, what: &'static str, max: usize) -> Result<String, BcsError> {
        let bytes = self.byte_slice(what, max)?;
        match str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(BcsError::Invalid("a string is not UTF-8")),
        }
    }

    /// A vector of at most `max` items that take at least `item` bytes each.
    ///
    /// # Errors
    /// Too many items, or one of them malformed.
    pub fn vec<T: Wire>(
        &mut self,
        what: &'static str,
        item: usize,
        max: usize,
    ) -> Result<Vec<T>, BcsError> {
        let count = self.count(what, item, max)?;
        (0..count).map(|_| T::read(self)).collect()
    }
}

/// Appends a length, count or variant number.
///
/// Everything this crate writes is far below the 2^31 that BCS allows.
pub fn write_uleb(out: &mut Vec<u8>, value: usize) {
    let mut value = value;
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a byte string.
pub fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_uleb(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends a vector.
pub fn write_vec<T: Wire>(out: &mut Vec<u8>, items: &[T]) {
    write_uleb(out, items.len());
    for item in items {
        item.write(out);
    }
}
