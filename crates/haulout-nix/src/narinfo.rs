//! The narinfo text format: strict in, canonical out.
//!
//! Nix's own parser takes a line apart by position: the value starts two bytes after the start of
//! the `:`, whatever is there. So a missing space, a CR, or a blank line is not cosmetic: it
//! swallows the next line or loses a signature, and versions of Nix differ in what they make of
//! it. Here all of that is an error, and what is sent on is always written anew.

use crate::{
    ContentAddress, NarHash, PathInfo, Signature, StoreDir, StorePath,
    content_address::ContentAddressError,
    hash::{AnyHash, HashError},
    keys::KeyError,
    store_path::StorePathError,
};
use std::fmt::{self, Write};

mod parse;

#[cfg(test)]
mod tests;

/// Longest narinfo text that is looked at, in bytes. The longest real ones (system profiles with
/// thousands of references) have some hundred KiB.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// Most references of one path.
pub const REFERENCES_MAX: usize = 16_384;

/// Most signatures of one path. Each may cost an Ed25519 check; real paths have one to four.
pub const SIGNATURES_MAX: usize = 64;

/// Longest URL, in bytes.
pub const URL_BYTES_MAX: usize = 4096;

/// Longest name of a compression method, in bytes.
const COMPRESSION_BYTES_MAX: usize = 32;

/// The MIME type of a narinfo.
pub const CONTENT_TYPE: &str = "text/x-nix-narinfo";

/// How the NAR behind a narinfo's URL is compressed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Raw NAR.
    None,
    /// `xz`.
    Xz,
    /// `zstd`.
    Zstd,
    /// `bzip2`; also what a missing or empty field means.
    Bzip2,
    /// `gzip`.
    Gzip,
    /// `br`.
    Brotli,
    /// A method that Nix may know and we do not: 1 to 32 characters of `a-z 0-9 -`.
    Other(Box<str>),
}

impl Compression {
    /// The name in a narinfo.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::None => "none",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A narinfo: what is known about a path, and where and how its NAR can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NarInfo {
    /// What is known about the path.
    pub info: PathInfo,
    /// Where the NAR is, relative to the cache or absolute; not empty, no white space.
    pub url: String,
    /// How it is compressed there.
    pub compression: Compression,
    /// Hash of the compressed file. Nix does not check it.
    pub file_hash: Option<AnyHash>,
    /// Bytes of the compressed file. Nix shows progress by it and does not check it.
    pub file_size: Option<u64>,
}

impl NarInfo {
    /// Parses a narinfo. References come out sorted and unique; unknown fields are ignored.
    ///
    /// The signatures are not checked, and neither is whether the path is the one asked for.
    ///
    /// # Errors
    /// Everything that Nix 2.34 refuses, and everything that its versions read differently.
    pub fn parse(text: &[u8], dir: &StoreDir) -> Result<Self, NarInfoError> {
        parse::parse(text, dir)
    }

    /// The narinfo of a path whose raw NAR is at [`raw_url`].
    #[must_use]
    pub fn raw(info: PathInfo) -> Self {
        Self {
            url: raw_url(&info),
            compression: Compression::None,
            file_hash: None,
            file_size: Some(info.nar_size),
            info,
        }
    }

    /// The canonical text: fields in the order of Nix's own writer, one `\n` after each.
    #[must_use]
    pub fn to_text(&self, dir: &StoreDir) -> String {
        let mut text = String::with_capacity(512 + 64 * self.info.references.len());
        // Writing to a String cannot fail.
        let _ = self.write_to(dir, &mut text);
        text
    }

    fn write_to(&self, dir: &StoreDir, out: &mut String) -> fmt::Result {
        let Self { info, url, compression, file_hash, file_size } = self;
        writeln!(out, "StorePath: {dir}/{}", info.path)?;
        writeln!(out, "URL: {url}")?;
        writeln!(out, "Compression: {compression}")?;
        if let Some(hash) = file_hash {
            writeln!(out, "FileHash: {hash}")?;
        }
        if let Some(size) = file_size {
            writeln!(out, "FileSize: {size}")?;
        }
        writeln!(out, "NarHash: {}", info.nar_hash)?;
        writeln!(out, "NarSize: {}", info.nar_size)?;
        // With a space even when there are none, or Nix takes the next line for the value.
        out.write_str("References: ")?;
        for (i, reference) in info.references.iter().enumerate() {
            write!(out, "{}{reference}", if i > 0 { " " } else { "" })?;
        }
        out.write_char('\n')?;
        if let Some(deriver) = &info.deriver {
            writeln!(out, "Deriver: {deriver}")?;
        }
        for signature in &info.signatures {
            writeln!(out, "Sig: {signature}")?;
        }
        if let Some(ca) = &info.ca {
            writeln!(out, "CA: {ca}")?;
        }
        Ok(())
    }
}

/// The relative URL under which an agent serves the raw NAR of a path:
/// `nar/<hash part>-<nar hash>.nar`. It says all that is needed to find the NAR again, because Nix
/// keeps narinfos for 30 days and agents restart more often.
#[must_use]
pub fn raw_url(info: &PathInfo) -> String {
    format!("nar/{}-{}.nar", info.path.hash_part(), info.nar_hash.to_nix32())
}

/// Why a text is not a narinfo. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NarInfoError {
    /// Longer than [`TEXT_BYTES_MAX`].
    #[error("longer than {TEXT_BYTES_MAX} bytes")]
    TooLong,
    /// Not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// The last line does not end with a newline.
    #[error("no newline at the end")]
    NoFinalNewline,
    /// A blank line, or one without a colon and a space after the key.
    #[error("line {line} is not of the form 'Key: value'")]
    Line {
        /// The line.
        line: usize,
    },
    /// A carriage return, tab, NUL or other control character.
    #[error("line {line} has a control character")]
    ControlCharacter {
        /// The line.
        line: usize,
    },
    /// A field that may be there once is there again.
    #[error("field {field} is there twice")]
    Duplicate {
        /// Name of the field.
        field: &'static str,
    },
    /// A required field is missing or empty.
    #[error("field {field} is missing or empty")]
    Missing {
        /// Name of the field.
        field: &'static str,
    },
    /// A size is no plain decimal number, or `NarSize` is zero.
    #[error("field {field} is not a size in bytes")]
    Size {
        /// Name of the field.
        field: &'static str,
    },
    /// A store path is malformed or in another store directory.
    #[error("field {field} has a bad store path")]
    Path {
        /// Name of the field.
        field: &'static str,
        /// What is wrong with it.
        source: StorePathError,
    },
    /// A hash is malformed.
    #[error("field {field} has a bad hash")]
    Hash {
        /// Name of the field.
        field: &'static str,
        /// What is wrong with it.
        source: HashError,
    },
    /// A signature is malformed.
    #[error("a signature is corrupt")]
    Signature(#[from] KeyError),
    /// The content address is malformed.
    #[error("the content address is corrupt")]
    ContentAddress(#[from] ContentAddressError),
    /// The URL is longer than [`URL_BYTES_MAX`] or has white space.
    #[error("the URL has white space or is longer than {URL_BYTES_MAX} bytes")]
    Url,
    /// The compression method is no plain name.
    #[error("the compression method is not a name")]
    Compression,
    /// More references than [`REFERENCES_MAX`], or more signatures than [`SIGNATURES_MAX`].
    #[error("field {field} has more than {max} values")]
    TooMany {
        /// Name of the field.
        field: &'static str,
        /// The limit.
        max: usize,
    },
}
