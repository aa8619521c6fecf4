//! Numbers, texts and byte strings of the format.

/// Why bytes are not what the format says. The same for everything in this crate: whoever made such
/// bytes is wrong or lies, and there is nothing to repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The bytes end too early.
    #[error("the bytes end in the middle of {0}")]
    Short(&'static str),
    /// There are bytes after the end.
    #[error("there are bytes after the end of {0}")]
    Trailing(&'static str),
    /// A value is not allowed where it stands.
    #[error("{0} is not what it may be")]
    Value(&'static str),
    /// A number is above its limit.
    #[error("{what} is above its limit of {max}")]
    Limit {
        /// What is too large.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// Made by a later version of the format.
    #[error("format version {0} is not known; this program reads version 1")]
    Version(u16),
    /// A hash does not match: the bytes are not those that were promised.
    #[error("the hash of {0} does not match")]
    Hash(&'static str),
    /// Keys do not rise.
    #[error("{0} are not in order")]
    Order(&'static str),
}

/// Appends a number: seven bits a byte, lowest first, the high bit says that more follow.
pub(crate) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a length and the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads from the front of a slice.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], FormatError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(FormatError::Short(what))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], FormatError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(FormatError::Short(what))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn byte(&mut self, what: &'static str) -> Result<u8, FormatError> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, FormatError> {
        self.array(what).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, FormatError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, FormatError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A number of [`put_number`], in its shortest form only: every value has one encoding, or two
    /// entries that mean the same would have different hashes.
    pub(crate) fn number(&mut self, max: u64, what: &'static str) -> Result<u64, FormatError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 || byte == 0 && shift > 0 {
                return Err(FormatError::Value(what));
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return if number > max {
                    Err(FormatError::Limit { what, max })
                } else {
                    Ok(number)
                };
            }
        }
        Err(FormatError::Value(what))
    }

    /// As [`Cursor::number`], for lengths and counts.
    pub(crate) fn count(&mut self, max: usize, what: &'static str) -> Result<usize, FormatError> {
        self.number(max as u64, what).map(|number| number as usize)
    }

    /// A length and as many bytes of UTF-8.
    pub(crate) fn text(&mut self, max: usize, what: &'static str) -> Result<&'a str, FormatError> {
        let len = self.count(max, what)?;
        std::str::from_utf8(self.take(len, what)?).map_err(|_| FormatError::Value(what))
    }

    pub(crate) const fn end(&self, what: &'static str) -> Result<(), FormatError> {
        if self.rest.is_empty() { Ok(()) } else { Err(FormatError::Trailing(what)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_survive(number: u64) {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            let mut cursor = Cursor::new(&bytes);
            prop_assert_eq!(cursor.number(u64::MAX, "n"), Ok(number));
            prop_assert_eq!(cursor.remaining(), 0);
        }

        #[test]
        fn accepted_numbers_have_one_form(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut cursor = Cursor::new(&bytes);
            if let Ok(number) = cursor.number(u64::MAX, "n") {
                let mut again = Vec::new();
                put_number(&mut again, number);
                prop_assert_eq!(&bytes[..bytes.len() - cursor.remaining()], &again[..]);
            }
        }
    }

    #[test]
    fn long_and_large_numbers_are_refused() {
        for bytes in [
            &[0x80, 0x00][..],
            &[0xff; 11],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        ] {
            assert_eq!(Cursor::new(bytes).number(u64::MAX, "n"), Err(FormatError::Value("n")));
        }
        assert_eq!(Cursor::new(&[0x80]).number(9, "n"), Err(FormatError::Short("n")));
        assert_eq!(
            Cursor::new(&[10]).number(9, "n"),
            Err(FormatError::Limit { what: "n", max: 9 })
        );
    }
}
