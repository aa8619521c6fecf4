//! Quilts: many small files in one blob.
//!
//! Every file takes whole columns of the source matrix, so that it can be read from
//! the secondary slivers that are those columns. The first columns hold an index.

mod read;
mod write;

use std::{collections::BTreeMap, fmt, ops::Range, str::FromStr};

use data_encoding::BASE64URL_NOPAD;

use crate::{
    BlobId, ShardCount, SymbolSize,
    bcs::{BcsError, Reader, Wire, write_bytes, write_vec},
};

pub use read::{QuiltError, QuiltView};
pub use write::{Quilt, QuiltWriteError};

/// The only version of the layout.
const VERSION: u8 = 1;

/// Columns the index may take.
const INDEX_COLUMNS_MAX: usize = 10;

/// Version and length before the index.
const INDEX_PREFIX: usize = 5;

/// Version, length and mask before a file.
const FILE_HEADER: usize = 6;

/// Bit of a file's mask: there are tags.
const MASK_TAGS: u8 = 1;

/// Longest identifier, in bytes of its BCS form.
const IDENTIFIER_BYTES_MAX: usize = 65_534;

/// Longest tags, in bytes of their BCS form.
const TAGS_BYTES_MAX: usize = 65_535;

/// Tags of a file: short texts by name.
pub type Tags = BTreeMap<String, String>;

/// A file in a quilt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct QuiltFile {
    /// Its name, unique in the quilt.
    pub identifier: String,
    /// Its tags.
    pub tags: Tags,
    /// Its content.
    pub data: Vec<u8>,
}

/// Where a file of a quilt is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QuiltPatch {
    /// The file's name.
    pub identifier: String,
    /// The file's tags.
    pub tags: Tags,
    /// The columns, which are secondary sliver indices.
    pub columns: Range<u16>,
}

/// The list of files of a quilt, in the order of their identifiers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct QuiltIndex {
    patches: Vec<QuiltPatch>,
}

impl QuiltIndex {
    /// All files.
    #[must_use]
    pub fn patches(&self) -> &[QuiltPatch] {
        &self.patches
    }

    /// The file with this identifier.
    #[must_use]
    pub fn find(&self, identifier: &str) -> Option<&QuiltPatch> {
        self.patches.iter().find(|patch| patch.identifier == identifier)
    }

    /// The BCS form. It does not say where the first file begins.
    #[must_use]
    pub fn to_bcs(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let stored = |patch: &QuiltPatch| StoredPatch {
            end: patch.columns.end,
            identifier: patch.identifier.clone(),
            tags: StoredTags(patch.tags.clone()),
        };
        write_vec(&mut out, &self.patches.iter().map(stored).collect::<Vec<_>>());
        out
    }

    /// Reads the BCS form of an index that takes the columns before `first`, in a quilt of `columns` columns.
    ///
    /// # Errors
    /// Malformed, too many files, or columns out of order or out of range.
    pub fn from_bcs(input: &[u8], first: u16, columns: u16) -> Result<Self, BcsError> {
        let StoredIndex(stored) = StoredIndex::from_bcs(input)?;
        let mut start = first;
        let mut patches = Vec::with_capacity(stored.len());
        for StoredPatch { end, identifier, tags: StoredTags(tags) } in stored {
            if end <= start || end > columns {
                return Err(BcsError::Invalid("the columns of a quilt's files are out of order"));
            }
            patches.push(QuiltPatch { identifier, tags, columns: start..end });
            start = end;
        }
        Ok(Self { patches })
    }
}

struct StoredIndex(Vec<StoredPatch>);

impl Wire for StoredIndex {
    fn write(&self, out: &mut Vec<u8>) {
        write_vec(out, &self.0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        // End, empty identifier and no tags take four bytes.
        reader.vec("files in a quilt", 4, u16::MAX.into()).map(Self)
    }
}

struct StoredPatch {
    end: u16,
    identifier: String,
    tags: StoredTags,
}

impl Wire for StoredPatch {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.end.to_le_bytes());
        write_bytes(out, self.identifier.as_bytes());
        self.tags.write(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        Ok(Self {
            end: reader.u16()?,
            identifier: reader.string("identifier bytes", IDENTIFIER_BYTES_MAX)?,
            tags: Wire::read(reader)?,
        })
    }
}

struct StoredTags(Tags);

/// The BCS form of a string.
fn bcs_string(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 3);
    write_bytes(&mut out, text.as_bytes());
    out
}

impl Wire for StoredTags {
    fn write(&self, out: &mut Vec<u8>) {
        // BCS orders a map by the bytes of its keys, length included.
        let mut entries: Vec<_> =
            self.0.iter().map(|(key, value)| (bcs_string(key), value)).collect();
        entries.sort();
        crate::bcs::write_uleb(out, entries.len());
        for (key, value) in entries {
            out.extend_from_slice(&key);
            write_bytes(out, value.as_bytes());
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        let count = reader.count("tags", 2, TAGS_BYTES_MAX)?;
        let mut tags = Tags::new();
        let mut last = None;
        for _ in 0..count {
            let key = reader.string("tag bytes", TAGS_BYTES_MAX)?;
            let bytes = Some(bcs_string(&key));
            if bytes <= last {
                return Err(BcsError::Invalid("the keys of a map are not in order"));
            }
            last = bytes;
            tags.insert(key, reader.string("tag bytes", TAGS_BYTES_MAX)?);
        }
        Ok(Self(tags))
    }
}

/// The shape of a quilt: how many columns of how many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    n: ShardCount,
    symbol_size: SymbolSize,
}

impl Shape {
    /// Bytes in a column.
    fn column(&self) -> usize {
        self.n.rows() * self.symbol_size.as_usize()
    }

    fn columns(&self) -> u16 {
        self.n.min_correct()
    }
}

/// Which columns of which quilt hold a file. Text form: 50 characters of URL-safe base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuiltPatchId {
    /// The quilt's blob id.
    pub quilt: BlobId,
    /// The first column.
    pub start: u16,
    /// The column after the last.
    pub end: u16,
}

impl QuiltPatchId {
    /// The id of a file of a quilt.
    #[must_use]
    pub fn new(quilt: BlobId, columns: &Range<u16>) -> Self {
        Self { quilt, start: columns.start, end: columns.end }
    }

    /// The columns.
    #[must_use]
    pub fn columns(&self) -> Range<u16> {
        self.start..self.end
    }
}

impl Wire for QuiltPatchId {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.quilt.as_bytes());
        out.push(VERSION);
        out.extend_from_slice(&self.start.to_le_bytes());
        out.extend_from_slice(&self.end.to_le_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        let quilt = BlobId(reader.array()?);
        let version = reader.u8()?;
        if version != VERSION {
            let found = version.into();
            return Err(BcsError::UnknownVariant { what: "quilt version", found });
        }
        Ok(Self { quilt, start: reader.u16()?, end: reader.u16()? })
    }
}

impl fmt::Display for QuiltPatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        BASE64URL_NOPAD.encode_display(&self.to_bcs()).fmt(f)
    }
}

/// The text was not a patch id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a quilt patch id is 50 characters of URL-safe base64 without padding")]
pub struct BadPatchId;

impl FromStr for QuiltPatchId {
    type Err = BadPatchId;

    fn from_str(text: &str) -> Result<Self, BadPatchId> {
        let mut bytes = [0; 37];
        if BASE64URL_NOPAD.decode_len(text.len()) != Ok(bytes.len()) {
            return Err(BadPatchId);
        }
        BASE64URL_NOPAD.decode_mut(text.as_bytes(), &mut bytes).map_err(|_| BadPatchId)?;
        Self::from_bcs(&bytes).map_err(|_| BadPatchId)
    }
}
