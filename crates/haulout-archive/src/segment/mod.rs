//! An index segment: entries in pages of 2^k, sorted by hash part, and what is needed to find them.
//!
//! ```text
//! root blob:  [pages, unless they are in parts] [pack chunks] [directory] [footer]
//! part blobs: [pages]
//! ```
//!
//! Everything is found from the footer, whose hash is the root in the archive object: a reader takes
//! the last bytes of the blob, then the directory, then single pages. It never needs to trust where
//! they came from.

mod directory;
mod footer;
mod page;
mod write;

pub use directory::{
    BlobRecord, ChunkRecord, Directory, PagePlace, PageRecord, PartRecord, Totals,
};
pub use footer::{FOOTER_BYTES, Footer};
pub use page::Page;
pub use write::{SegmentWriter, page_shift_for};

use crate::wire::FormatError;

/// Most entries of a page, as a power of two.
pub const PAGE_SHIFT_MAX: u8 = 10;

/// Most bytes of a page, compressed or not. Ordinary pages have tens of KiB; only the references of
/// thousands of system profiles side by side would come near.
pub const PAGE_BYTES_MAX: usize = 32 << 20;

/// Most entries of a segment: ten times what cache.nixos.org has.
pub const LEAVES_MAX: u64 = 1 << 32;

/// Pack records of a chunk.
pub const CHUNK_PACKS: usize = 4096;

/// Most packs of a segment.
pub const PACKS_MAX: u64 = 1 << 28;

/// Most parts of a segment.
pub const PARTS_MAX: usize = 1 << 16;

/// Longest directory, in bytes: that of 2^32 entries in pages of 256.
pub const DIRECTORY_BYTES_MAX: u64 = 1 << 30;

/// Compresses one piece (a page or a chunk) of the segment.
fn deflate(raw: &[u8]) -> Result<Vec<u8>, FormatError> {
    // Higher levels gain 2 % on hashes and signatures, which are most of it.
    zstd::bulk::compress(raw, 9).map_err(|_| FormatError::Value("a page to be compressed"))
}

/// Decompresses one piece that must have exactly `len` bytes.
fn inflate(stored: &[u8], len: usize, what: &'static str) -> Result<Vec<u8>, FormatError> {
    if len > PAGE_BYTES_MAX {
        return Err(FormatError::Limit { what, max: PAGE_BYTES_MAX as u64 });
    }
    let raw = zstd::bulk::decompress(stored, len).map_err(|_| FormatError::Value(what))?;
    if raw.len() == len { Ok(raw) } else { Err(FormatError::Value(what)) }
}

#[cfg(test)]
mod tests;
