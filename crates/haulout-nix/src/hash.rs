//! Hashes as Nix writes them.

use crate::nix32;
use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use std::{fmt, str::FromStr};

/// Why a text is not a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// No `<algorithm>:` or `<algorithm>-` in front.
    #[error("a hash needs its algorithm in front, as in sha256:…")]
    NoAlgorithm,
    /// An algorithm this crate does not know, or not the one wanted here.
    #[error("the hash algorithm is unknown or not allowed here")]
    Algorithm,
    /// The length fits none of the encodings (hex, nix32, base64), or the digits are wrong.
    #[error("not a well-formed hash in hex, nix32 or base64")]
    Digits,
}

/// A hash algorithm known to Nix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashAlgorithm {
    /// Only in old fixed-output derivations.
    Md5,
    /// In old fixed-output derivations and git trees.
    Sha1,
    /// The default for everything.
    Sha256,
    /// In some fixed-output derivations.
    Sha512,
    /// Behind an experimental feature in Nix.
    Blake3,
}

impl HashAlgorithm {
    /// Bytes of a hash.
    #[must_use]
    pub const fn len_bytes(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 | Self::Blake3 => 32,
            Self::Sha512 => 64,
        }
    }

    /// The name in hashes and fingerprints.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Blake3 => "blake3",
        }
    }

    fn parse(name: &str) -> Result<Self, HashError> {
        [Self::Md5, Self::Sha1, Self::Sha256, Self::Sha512, Self::Blake3]
            .into_iter()
            .find(|algorithm| algorithm.as_str() == name)
            .ok_or(HashError::Algorithm)
    }
}

/// A hash by any algorithm. Display is `<algorithm>:<nix32>`; parsing takes that, hex and base64
/// (told apart by length, as Nix does), and the SRI form `<algorithm>-<base64>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AnyHash {
    algorithm: HashAlgorithm,
    /// The bytes beyond the algorithm's length are zero.
    bytes: [u8; 64],
}

impl AnyHash {
    /// Wraps the bytes of a hash; `None` when there are not as many as the algorithm gives.
    #[must_use]
    pub fn new(algorithm: HashAlgorithm, bytes: &[u8]) -> Option<Self> {
        let mut padded = [0u8; 64];
        if bytes.len() != algorithm.len_bytes() {
            return None;
        }
        padded[..bytes.len()].copy_from_slice(bytes);
        Some(Self { algorithm, bytes: padded })
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// The bytes, as many as the algorithm gives.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.len_bytes()]
    }

    /// The bytes in hex.
    #[must_use]
    pub fn to_hex(&self) -> String {
        HEXLOWER.encode(self.as_bytes())
    }

    fn parse_digits(algorithm: HashAlgorithm, digits: &str, sri: bool) -> Result<Self, HashError> {
        let len = algorithm.len_bytes();
        let mut bytes = [0u8; 64];
        let digits = digits.as_bytes();
        let decoded = match digits.len() {
            n if n == BASE64.encode_len(len) => {
                BASE64.decode(digits).ok().filter(|decoded| decoded.len() == len)
            }
            _ if sri => None,
            n if n == 2 * len => HEXLOWER_PERMISSIVE.decode(digits).ok(),
            _ => {
                nix32::decode_into(digits, &mut bytes[..len]).map_err(|_| HashError::Digits)?;
                return Ok(Self { algorithm, bytes });
            }
        };
        bytes[..len].copy_from_slice(&decoded.ok_or(HashError::Digits)?);
        Ok(Self { algorithm, bytes })
    }
}

impl fmt::Display for AnyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.algorithm.as_str())?;
        nix32::write(self.as_bytes(), f)
    }
}

impl fmt::Debug for AnyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AnyHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        let at = text.find([':', '-']).ok_or(HashError::NoAlgorithm)?;
        let algorithm = HashAlgorithm::parse(&text[..at])?;
        Self::parse_digits(algorithm, &text[at + 1..], text.as_bytes()[at] == b'-')
    }
}

/// The SHA-256 of a NAR: what signatures vouch for.
///
/// Parses `sha256:<nix32>`, `sha256:<hex>`, `sha256:<base64>` and `sha256-<base64>`; Display is
/// `sha256:<nix32>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NarHash([u8; 32]);

impl NarHash {
    /// Wraps the bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash of these bytes.
    #[must_use]
    pub fn of(nar: &[u8]) -> Self {
        Self::from_digest(&ring::digest::digest(&ring::digest::SHA256, nar))
    }

    /// Takes a finished SHA-256 computation; an algorithm of another length would be a mistake of
    /// the programmer.
    #[must_use]
    pub fn from_digest(digest: &ring::digest::Digest) -> Self {
        let mut bytes = [0u8; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }

    /// The 52 nix32 characters without `sha256:`, as used in NAR URLs.
    #[must_use]
    pub fn to_nix32(&self) -> String {
        nix32::encode(&self.0)
    }

    /// Reads the 52 characters of [`NarHash::to_nix32`].
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn from_nix32(text: &str) -> Result<Self, nix32::Nix32Error> {
        nix32::decode(text.as_bytes()).map(Self)
    }
}

impl fmt::Display for NarHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        nix32::write(&self.0, f)
    }
}

impl fmt::Debug for NarHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NarHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        let any: AnyHash = text.parse()?;
        if any.algorithm != HashAlgorithm::Sha256 {
            return Err(HashError::Algorithm);
        }
        let mut bytes = [0u8; 32];
        bytes.copy_from_slice(any.as_bytes());
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const EMPTY: &str = "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73";

    #[test]
    fn all_spellings_mean_the_same() {
        let hash = NarHash::of(b"");
        assert_eq!(hash.to_string(), EMPTY);
        for text in [
            EMPTY.to_owned(),
            format!("sha256:{EMPTY_HEX}"),
            format!("sha256:{}", EMPTY_HEX.to_uppercase()),
            format!("sha256:{}", BASE64.encode(hash.as_bytes())),
            format!("sha256-{}", BASE64.encode(hash.as_bytes())),
        ] {
            assert_eq!(text.parse(), Ok(hash), "{text}");
        }
        assert_eq!(NarHash::from_nix32(&hash.to_nix32()), Ok(hash));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            EMPTY_HEX,
            "sha256:",
            "sha256-",
            "sha1:143xibwh31h9bvxzalr0sjvbbvpa6ffs",
            "sha257:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
            "sha256:zmdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
            "sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=",
            "sha256: 0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
        ] {
            assert!(text.parse::<NarHash>().is_err(), "{text}");
        }
    }
}
