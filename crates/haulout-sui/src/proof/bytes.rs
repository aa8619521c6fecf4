//! Length-prefixed bytes with named limits: how the parts of a document lie.

use super::ProofError;

/// Takes fields off the front of a document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], ProofError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(ProofError::Truncated(what))?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], ProofError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    pub(super) fn byte(&mut self, what: &'static str) -> Result<u8, ProofError> {
        self.array(what).map(|[byte]: [u8; 1]| byte)
    }

    pub(super) fn long(&mut self, what: &'static str) -> Result<u64, ProofError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count or length of at most `limit`.
    pub(super) fn length(&mut self, limit: usize, what: &'static str) -> Result<usize, ProofError> {
        let len = u32::from_le_bytes(self.array(what)?);
        usize::try_from(len).ok().filter(|&len| len <= limit).ok_or_else(|| ProofError::TooLarge {
            what,
            len: len.into(),
            limit: limit as u64,
        })
    }

    /// Bytes with their length in front.
    pub(super) fn block(
        &mut self,
        limit: usize,
        what: &'static str,
    ) -> Result<&'a [u8], ProofError> {
        let len = self.length(limit, what)?;
        self.take(len, what)
    }

    /// A BCS length: ULEB128 of at most 32 bits.
    pub(super) fn uleb(&mut self, what: &'static str) -> Result<usize, ProofError> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.byte(what)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value)
                    .ok()
                    .and_then(|value| usize::try_from(value).ok())
                    .ok_or_else(|| ProofError::TooLarge {
                        what,
                        len: value,
                        limit: u32::MAX.into(),
                    });
            }
        }
        Err(ProofError::TooLarge { what, len: value, limit: u32::MAX.into() })
    }

    pub(super) fn end(self) -> Result<(), ProofError> {
        if self.0.is_empty() { Ok(()) } else { Err(ProofError::Trailing(self.0.len())) }
    }
}

/// Appends bytes with their length in front. Lengths above 4 GiB cannot occur: every
/// caller's parts are bounded far below.
pub(super) fn put_block(out: &mut Vec<u8>, block: &[u8]) {
    put_length(out, block.len());
    out.extend_from_slice(block);
}

pub(super) fn put_length(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
}
