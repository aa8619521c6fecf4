//! Store paths: `<store dir>/<32 nix32 characters>-<name>`.

use crate::nix32::{self, Nix32Error};
use std::{cmp::Ordering, fmt, str::FromStr, sync::Arc};

/// Most characters a store path's name may have (Nix's own limit: 255 less the hash part and `-`,
/// less room for `.lock` and the like).
pub const NAME_LEN_MAX: usize = 211;

/// Characters of a hash part.
pub const HASH_PART_LEN: usize = nix32::encoded_len(20);

/// Why a text is not a store path, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorePathError {
    /// The hash part is not 32 nix32 characters.
    #[error("the hash part is malformed")]
    HashPart(#[from] Nix32Error),
    /// No `-` after the 32 characters of the hash part.
    #[error("too short for a store path, or no '-' after the hash part")]
    Shape,
    /// The name is empty, longer than [`NAME_LEN_MAX`], or one that could be mistaken for a
    /// directory (`.`, `..`, or starting with `.-` or `..-`).
    #[error("the name is empty, longer than 211 characters, or made of leading dots")]
    Name,
    /// The name has a character outside `0-9 a-z A-Z + - . _ ? =`.
    #[error("character {index} of the name is not allowed in a store path")]
    NameCharacter {
        /// Position in the name.
        index: usize,
    },
    /// The path is not directly inside the store directory.
    #[error("not a path directly inside the store directory {store_dir}")]
    OutsideStore {
        /// The store directory that was expected.
        store_dir: String,
    },
    /// A store directory is not an absolute path in its shortest form.
    #[error("a store directory must be absolute, without '.', '..', '//' or a final '/'")]
    StoreDir,
}

/// The 20 bytes that identify a store path.
///
/// Ordered by bytes, so that the order agrees with [`HashPart::prefix`]; store paths themselves
/// are ordered by their text, as Nix does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashPart([u8; 20]);

impl HashPart {
    /// Wraps the bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// The first four bytes as a big-endian number: what peers exchange about their holdings.
    #[must_use]
    pub const fn prefix(&self) -> u32 {
        u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
}

impl fmt::Display for HashPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        nix32::write(&self.0, f)
    }
}

impl fmt::Debug for HashPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for HashPart {
    type Err = Nix32Error;

    fn from_str(text: &str) -> Result<Self, Nix32Error> {
        nix32::decode(text.as_bytes()).map(Self)
    }
}

/// The name of a store path: 1 to 211 characters of `0-9 a-z A-Z + - . _ ? =`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePathName(Arc<str>);

impl StorePathName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StorePathName {
    type Err = StorePathError;

    fn from_str(name: &str) -> Result<Self, StorePathError> {
        if name.is_empty() || name.len() > NAME_LEN_MAX {
            return Err(StorePathError::Name);
        }
        if let Some(index) = name.bytes().position(|b| !is_name_character(b)) {
            return Err(StorePathError::NameCharacter { index });
        }
        // Newer Nix versions refuse these, so that no prefix of a name up to a `-` is a directory
        // that every directory has.
        if matches!(name.split('-').next(), Some("." | "..")) {
            return Err(StorePathError::Name);
        }
        Ok(Self(name.into()))
    }
}

const fn is_name_character(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'_' | b'?' | b'=')
}

impl fmt::Display for StorePathName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StorePathName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A store path without its directory. The text form is the base name `<hash part>-<name>`, and
/// the order is that of the text. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StorePath {
    hash: HashPart,
    name: StorePathName,
}

impl StorePath {
    /// Joins the two parts.
    #[must_use]
    pub const fn new(hash: HashPart, name: StorePathName) -> Self {
        Self { hash, name }
    }

    /// The part that identifies the path.
    #[must_use]
    pub const fn hash_part(&self) -> HashPart {
        self.hash
    }

    /// The part for people.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The same as a checked name.
    #[must_use]
    pub const fn path_name(&self) -> &StorePathName {
        &self.name
    }

    /// True for `.drv` paths.
    #[must_use]
    pub fn is_derivation(&self) -> bool {
        self.name().ends_with(".drv")
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.hash, self.name)
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for StorePath {
    type Err = StorePathError;

    fn from_str(base_name: &str) -> Result<Self, StorePathError> {
        let (hash, rest) =
            base_name.split_at_checked(HASH_PART_LEN).ok_or(StorePathError::Shape)?;
        let name = rest.strip_prefix('-').ok_or(StorePathError::Shape)?;
        Ok(Self { hash: hash.parse()?, name: name.parse()? })
    }
}

impl Ord for StorePath {
    fn cmp(&self, other: &Self) -> Ordering {
        // The order of the nix32 texts is that of the bytes back to front.
        let text_order = self.hash.0.iter().rev().cmp(other.hash.0.iter().rev());
        text_order.then_with(|| self.name.cmp(&other.name))
    }
}

impl PartialOrd for StorePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The logical store directory, almost always `/nix/store`. It is part of every path's identity,
/// also when the files are elsewhere (a chroot store). Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StoreDir(Arc<str>);

impl StoreDir {
    /// The directory without a final slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads a full path such as `/nix/store/<hash>-<name>`.
    ///
    /// # Errors
    /// When it is not directly inside this directory, or its base name is not a store path's.
    pub fn parse_path(&self, path: &str) -> Result<StorePath, StorePathError> {
        path.strip_prefix(&*self.0)
            .and_then(|rest| rest.strip_prefix('/'))
            .ok_or_else(|| StorePathError::OutsideStore { store_dir: self.0.to_string() })?
            .parse()
    }

    /// The full path as text.
    #[must_use]
    pub fn display(&self, path: &StorePath) -> String {
        let mut text = String::with_capacity(self.0.len() + 2 + HASH_PART_LEN + path.name().len());
        self.push_path(&mut text, path);
        text
    }

    /// Appends the full path to `text`.
    pub fn push_path(&self, text: &mut String, path: &StorePath) {
        use fmt::Write;
        // Writing to a String cannot fail.
        let _ = write!(text, "{}/{path}", self.0);
    }

    /// The store path whose fingerprint is `<kind>:sha256:<hex of inner>:<store dir>:<name>`, the
    /// rule behind every kind of store path (`text`, `source`, `output:out`, …).
    #[must_use]
    pub fn make_path(&self, kind: &str, inner: &[u8; 32], name: StorePathName) -> StorePath {
        let fingerprint = self.fingerprint(kind, inner, &name);
        let digest = ring::digest::digest(&ring::digest::SHA256, fingerprint.as_bytes());
        let mut hash = [0u8; 20];
        for (i, byte) in digest.as_ref().iter().enumerate() {
            hash[i % 20] ^= byte;
        }
        StorePath { hash: HashPart(hash), name }
    }

    pub(crate) fn fingerprint(&self, kind: &str, inner: &[u8; 32], name: &StorePathName) -> String {
        let hex = data_encoding::HEXLOWER.encode(inner);
        format!("{kind}:sha256:{hex}:{}:{name}", self.0)
    }
}

impl Default for StoreDir {
    fn default() -> Self {
        Self("/nix/store".into())
    }
}

impl fmt::Display for StoreDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for StoreDir {
    type Err = StorePathError;

    fn from_str(dir: &str) -> Result<Self, StorePathError> {
        let rest = dir.strip_prefix('/').ok_or(StorePathError::StoreDir)?;
        let well_formed = |part: &str| !matches!(part, "" | "." | "..");
        if !rest.split('/').all(well_formed) || rest.bytes().any(|b| b.is_ascii_control()) {
            return Err(StorePathError::StoreDir);
        }
        Ok(Self(dir.into()))
    }
}

#[cfg(test)]
mod tests;
