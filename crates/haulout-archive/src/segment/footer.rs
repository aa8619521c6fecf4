use super::{DIRECTORY_BYTES_MAX, LEAVES_MAX, PAGE_SHIFT_MAX};
use crate::{
    merkle::{self, Digest},
    wire::{Cursor, FormatError},
};

/// What a root blob ends with, in bytes.
pub const FOOTER_BYTES: usize = 92;

const MAGIC: &[u8; 8] = b"haulidx\0";
const VERSION: u16 = 1;

/// The end of a root blob. Its hash is the segment's root, so all in it is proven with the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// A page has two to the power of this many entries, the last one may have fewer.
    pub page_shift: u8,
    /// Number of entries, at least 1.
    pub leaves: u64,
    /// Bytes of the directory, which lies right before the footer.
    pub directory_len: u64,
    /// Root of the Merkle tree over the entries.
    pub tree_root: Digest,
    /// BLAKE2b-256 of the directory.
    pub directory_digest: Digest,
}

impl Footer {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.push(self.page_shift);
        out.push(0); // reserved
        out.extend_from_slice(&self.leaves.to_le_bytes());
        out.extend_from_slice(&self.directory_len.to_le_bytes());
        out.extend_from_slice(&self.tree_root);
        out.extend_from_slice(&self.directory_digest);
        let mut bytes = [0; FOOTER_BYTES];
        bytes.copy_from_slice(&out);
        bytes
    }

    /// Reads a footer and checks that it is the one with that root.
    ///
    /// # Errors
    /// Another root, another version, or a number out of its range.
    pub fn decode(bytes: &[u8], root: &Digest) -> Result<Self, FormatError> {
        let footer = Self::decode_unproven(bytes)?;
        if merkle::root(bytes) != *root {
            return Err(FormatError::Hash("an index footer"));
        }
        Ok(footer)
    }

    /// Reads a footer whose root the caller checks.
    pub(crate) fn decode_unproven(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new(bytes);
        if cursor.array::<8>("an index footer")? != *MAGIC {
            return Err(FormatError::Value("the magic number of an index"));
        }
        let version = cursor.u16("an index footer")?;
        if version != VERSION {
            return Err(FormatError::Version(version));
        }
        let page_shift = cursor.byte("an index footer")?;
        let reserved = cursor.byte("an index footer")?;
        let footer = Self {
            page_shift,
            leaves: cursor.u64("an index footer")?,
            directory_len: cursor.u64("an index footer")?,
            tree_root: cursor.array("an index footer")?,
            directory_digest: cursor.array("an index footer")?,
        };
        cursor.end("an index footer")?;
        if page_shift > PAGE_SHIFT_MAX || reserved != 0 {
            return Err(FormatError::Value("an index footer"));
        }
        if footer.leaves == 0 || footer.leaves > LEAVES_MAX {
            return Err(FormatError::Limit { what: "the number of entries", max: LEAVES_MAX });
        }
        if footer.directory_len > DIRECTORY_BYTES_MAX {
            return Err(FormatError::Limit { what: "the directory", max: DIRECTORY_BYTES_MAX });
        }
        Ok(footer)
    }

    /// The root that stands in the archive object.
    #[must_use]
    pub fn root(&self) -> Digest {
        merkle::root(&self.encode())
    }

    /// Number of pages.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.leaves.div_ceil(1 << self.page_shift)
    }

    /// Number of entries of a page.
    #[must_use]
    pub const fn page_leaves(&self, page: u64) -> u64 {
        let full = 1 << self.page_shift;
        let before = page.saturating_mul(full);
        let rest = self.leaves.saturating_sub(before);
        if rest < full { rest } else { full }
    }

    /// Where the directory is in a root blob of `size` bytes.
    ///
    /// # Errors
    /// When it would not fit.
    pub fn directory_range(&self, size: u64) -> Result<std::ops::Range<u64>, FormatError> {
        let end = size.checked_sub(FOOTER_BYTES as u64);
        let start = end.and_then(|end| end.checked_sub(self.directory_len));
        match (start, end) {
            (Some(start), Some(end)) => Ok(start..end),
            _ => Err(FormatError::Value("the place of the directory")),
        }
    }
}
