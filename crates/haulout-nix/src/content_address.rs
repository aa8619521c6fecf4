//! Content addresses: the `CA` of a path, from which its store path can be computed again.

use crate::{
    StoreDir, StorePath, StorePathName,
    hash::{AnyHash, HashAlgorithm, HashError},
};
use ring::digest;
use std::{fmt, str::FromStr};

/// How the content was turned into the bytes that were hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// The bytes of a file that may refer to other paths (`toFile`, derivations). SHA-256 only.
    Text,
    /// The bytes of a file.
    Flat,
    /// The NAR.
    Nar,
    /// A git tree object.
    Git,
}

/// A content address: `text:sha256:…`, `fixed:<algorithm>:…`, `fixed:r:<algorithm>:…` or
/// `fixed:git:<algorithm>:…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentAddress {
    method: Method,
    hash: AnyHash,
}

/// Why a text is not a content address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContentAddressError {
    /// Starts with neither `text:` nor `fixed:`.
    #[error("a content address starts with 'text:' or 'fixed:'")]
    Method,
    /// `text:` with anything but SHA-256.
    #[error("text content addresses use sha256 only")]
    TextAlgorithm,
    /// The hash is malformed.
    #[error("the hash of the content address is malformed")]
    Hash(#[from] HashError),
}

impl ContentAddress {
    /// Joins the parts; `None` for `Text` with anything but SHA-256.
    #[must_use]
    pub fn new(method: Method, hash: AnyHash) -> Option<Self> {
        let allowed = method != Method::Text || hash.algorithm() == HashAlgorithm::Sha256;
        allowed.then_some(Self { method, hash })
    }

    /// How the content was hashed.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.method
    }

    /// The hash of the content.
    #[must_use]
    pub const fn hash(&self) -> &AnyHash {
        &self.hash
    }

    /// The store path of content with this address, name and references (sorted, without the path
    /// itself; `self_reference` says whether the content refers to itself).
    ///
    /// `None` for what cannot exist: a `Text` that refers to itself, or any reference with a
    /// method other than `Text` and SHA-256 of the NAR.
    #[must_use]
    pub fn store_path(
        &self,
        dir: &StoreDir,
        name: StorePathName,
        references: &[&StorePath],
        self_reference: bool,
    ) -> Option<StorePath> {
        let (kind, inner) = self.kind_and_inner(dir, references, self_reference)?;
        Some(dir.make_path(&kind, &inner, name))
    }

    fn kind_and_inner(
        &self,
        dir: &StoreDir,
        references: &[&StorePath],
        self_reference: bool,
    ) -> Option<(String, [u8; 32])> {
        let base = match (self.method, self.hash.algorithm()) {
            (Method::Text, _) if self_reference => return None,
            (Method::Text, _) => "text",
            (Method::Nar, HashAlgorithm::Sha256) => "source",
            _ if self_reference || !references.is_empty() => return None,
            _ => return Some(("output:out".to_owned(), self.fixed_output_inner())),
        };
        let mut kind = base.to_owned();
        for reference in references {
            kind.push(':');
            dir.push_path(&mut kind, reference);
        }
        if self_reference {
            kind.push_str(":self");
        }
        Some((kind, self.hash.as_bytes().try_into().ok()?))
    }

    fn fixed_output_inner(&self) -> [u8; 32] {
        let algorithm = self.hash.algorithm().as_str();
        let inner = format!("fixed:out:{}{algorithm}:{}:", self.fixed_prefix(), self.hash.to_hex());
        let mut bytes = [0u8; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, inner.as_bytes()).as_ref());
        bytes
    }

    const fn fixed_prefix(&self) -> &'static str {
        match self.method {
            Method::Text | Method::Flat => "",
            Method::Nar => "r:",
            Method::Git => "git:",
        }
    }
}

impl fmt::Display for ContentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.method {
            Method::Text => write!(f, "text:{}", self.hash),
            _ => write!(f, "fixed:{}{}", self.fixed_prefix(), self.hash),
        }
    }
}

impl FromStr for ContentAddress {
    type Err = ContentAddressError;

    fn from_str(text: &str) -> Result<Self, ContentAddressError> {
        let (method, hash) = if let Some(hash) = text.strip_prefix("text:") {
            (Method::Text, hash)
        } else {
            let fixed = text.strip_prefix("fixed:").ok_or(ContentAddressError::Method)?;
            match fixed.split_once(':') {
                Some(("r", hash)) => (Method::Nar, hash),
                Some(("git", hash)) => (Method::Git, hash),
                _ => (Method::Flat, fixed),
            }
        };
        // The SRI form is not a part of this grammar; its base64 may not hide behind the colon.
        if !hash.contains(':') {
            return Err(HashError::NoAlgorithm.into());
        }
        Self::new(method, hash.parse()?).ok_or(ContentAddressError::TextAlgorithm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_survive_a_round_trip() {
        let sha256 = "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73";
        let sha1 = "sha1:143xibwh31h9bvxzalr0sjvbbvpa6ffs";
        for text in [
            format!("text:{sha256}"),
            format!("fixed:{sha256}"),
            format!("fixed:r:{sha256}"),
            format!("fixed:r:{sha1}"),
            format!("fixed:git:{sha1}"),
        ] {
            let ca: ContentAddress = text.parse().unwrap();
            assert_eq!(ca.to_string(), text);
        }
        for text in [
            String::new(),
            "fixed:".to_owned(),
            "fixed:r:".to_owned(),
            format!("text:{sha1}"),
            format!("text:r:{sha256}"),
            format!("fixed:x:{sha256}"),
            format!("fixed:r:r:{sha256}"),
            "fixed:sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".to_owned(),
            sha256.to_owned(),
        ] {
            assert!(text.parse::<ContentAddress>().is_err(), "{text}");
        }
    }
}
