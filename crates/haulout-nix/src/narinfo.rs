//! The narinfo text format.

use crate::PathInfo;

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
}

/// A narinfo: what is known about a path, and where and how its NAR can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NarInfo {
    /// What is known about the path.
    pub info: PathInfo,
    /// Where the NAR is, relative to the cache or absolute; not empty.
    pub url: String,
    /// How it is compressed there.
    pub compression: Compression,
}
