//! Blob ids and their three forms: 32 bytes, text, on-chain number.

use std::{fmt, str::FromStr};

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{Digest, ShardCount, hash};

/// The encoding type every blob has today: RedStuff with Reed-Solomon codes (`RS2`).
pub const ENCODING_RS2: u8 = 1;

/// The 32 bytes that name a blob: a hash of encoding type, length and root hash.
///
/// [`Display`](fmt::Display) and [`FromStr`] use the text form, 43 characters of
/// URL-safe base64 without padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(pub [u8; 32]);

/// The text was not a blob id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlobIdError {
    /// Not the text form.
    #[error("a blob id is 43 characters of URL-safe base64 without padding")]
    Text,
    /// Not a number below 2^256.
    #[error("an on-chain blob id is a decimal number below 2^256")]
    Number,
}

impl BlobId {
    /// The id of a blob of `length` bytes whose hash pairs have the Merkle root `root`.
    #[must_use]
    pub fn compute(length: u64, root: &Digest) -> Self {
        let mut input = [0; 41];
        input[0] = ENCODING_RS2;
        input[1..9].copy_from_slice(&length.to_le_bytes());
        input[9..].copy_from_slice(root.as_bytes());
        Self(hash::blake2b256(&input))
    }

    /// The bytes. On chain the id is a `u256` with these as its little-endian bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The shard that stores pair 0: the bytes as a *big-endian* number modulo `n`.
    #[must_use]
    pub fn rotation(&self, n: ShardCount) -> u16 {
        let n = u32::from(n.get());
        let rest = self.0.iter().fold(0, |acc, &byte| (acc * 256 + u32::from(byte)) % n);
        u16::try_from(rest).unwrap_or(u16::MAX)
    }

    /// The on-chain form: the bytes as a little-endian number, in decimal.
    #[must_use]
    pub fn to_decimal(&self) -> String {
        let mut number = self.0;
        let mut digits = Vec::new();
        while number.iter().any(|&byte| byte != 0) {
            let mut rest = 0;
            for byte in number.iter_mut().rev() {
                let value = rest * 256 + u32::from(*byte);
                *byte = u8::try_from(value / 10).unwrap_or(u8::MAX);
                rest = value % 10;
            }
            digits.push(char::from_digit(rest, 10).unwrap_or('0'));
        }
        if digits.is_empty() {
            digits.push('0');
        }
        digits.iter().rev().collect()
    }

    /// Reads the on-chain form.
    ///
    /// # Errors
    /// Anything but decimal digits, or a number of 2^256 or more.
    pub fn from_decimal(text: &str) -> Result<Self, BlobIdError> {
        // 2^256 has 78 digits; leading zeros are nobody's form.
        if text.is_empty() || text.len() > 78 || (text.len() > 1 && text.starts_with('0')) {
            return Err(BlobIdError::Number);
        }
        let mut number = [0; 32];
        for digit in text.chars() {
            let mut carry = digit.to_digit(10).ok_or(BlobIdError::Number)?;
            for byte in &mut number {
                let [low, high, ..] = (u32::from(*byte) * 10 + carry).to_le_bytes();
                *byte = low;
                carry = high.into();
            }
            if carry != 0 {
                return Err(BlobIdError::Number);
            }
        }
        Ok(Self(number))
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        BASE64URL_NOPAD.encode_display(&self.0).fmt(f)
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({self})")
    }
}

impl FromStr for BlobId {
    type Err = BlobIdError;

    fn from_str(text: &str) -> Result<Self, BlobIdError> {
        let mut id = [0; 32];
        if BASE64URL_NOPAD.decode_len(text.len()) != Ok(id.len()) {
            return Err(BlobIdError::Text);
        }
        match BASE64URL_NOPAD.decode_mut(text.as_bytes(), &mut id) {
            Ok(_) => Ok(Self(id)),
            Err(_) => Err(BlobIdError::Text),
        }
    }
}

impl Serialize for BlobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = BlobId;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a blob id in URL-safe base64")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<BlobId, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor).map_err(D::Error::custom)
    }
}
