//! Reading quilts, whole or from the columns at hand.

use std::ops::Range;

use super::{
    FILE_HEADER, INDEX_COLUMNS_MAX, INDEX_PREFIX, MASK_TAGS, QuiltFile, QuiltIndex, QuiltPatch,
    Shape, StoredTags, Tags, VERSION,
};
use crate::{
    Metadata, Secondary, ShardCount, Sliver,
    bcs::{BcsError, Reader, Wire},
};

/// Why something cannot be read from a quilt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuiltError {
    /// The blob's length is not that of a quilt.
    #[error("a blob of {0} bytes is not a quilt")]
    NotAQuilt(u64),
    /// Another version than 1, or no quilt at all.
    #[error("quilt version {0} is unknown")]
    Version(u8),
    /// A length that does not fit in the columns there are.
    #[error("{0} does not fit in its columns")]
    Oversized(&'static str),
    /// A column that is needed is not at hand.
    #[error("column {0} is missing")]
    MissingColumn(u16),
    /// A range of columns that is empty or goes beyond the last.
    #[error("columns {}..{} are not in the quilt", .0.start, .0.end)]
    BadColumns(Range<u16>),
    /// A sliver of another blob or shape.
    #[error("a sliver belongs to another blob")]
    OtherBlob,
    /// Malformed index, identifier or tags.
    #[error("malformed quilt")]
    Bcs(#[from] BcsError),
}

/// A quilt of which some columns are at hand.
#[derive(Debug, Clone)]
pub struct QuiltView<'a> {
    shape: Shape,
    columns: Columns<'a>,
}

#[derive(Debug, Clone)]
enum Columns<'a> {
    Blob(&'a [u8]),
    Slivers(Vec<Option<&'a [u8]>>),
}

fn shape_of(n: ShardCount, length: u64) -> Result<Shape, QuiltError> {
    let not_a_quilt = QuiltError::NotAQuilt(length);
    match n.symbol_size(length) {
        Ok(symbol_size) if n.source_symbol_count() * symbol_size.as_u64() == length => {
            Ok(Shape { n, symbol_size })
        }
        _ => Err(not_a_quilt),
    }
}

impl<'a> QuiltView<'a> {
    /// Views a whole blob.
    ///
    /// # Errors
    /// The length is not that of a quilt.
    pub fn of_blob(n: ShardCount, blob: &'a [u8]) -> Result<Self, QuiltError> {
        let shape = shape_of(n, blob.len() as u64)?;
        Ok(Self { shape, columns: Columns::Blob(blob) })
    }

    /// Views some secondary slivers. The index is in the first up to ten of them; for a
    /// file its own columns are enough.
    ///
    /// # Errors
    /// The length is not that of a quilt, or a sliver is of another blob.
    pub fn of_slivers(
        metadata: &Metadata,
        slivers: &'a [Sliver<Secondary>],
    ) -> Result<Self, QuiltError> {
        let shape = shape_of(metadata.shards(), metadata.unencoded_length())?;
        let mut columns = vec![None; shape.columns().into()];
        for sliver in slivers {
            if sliver.blob() != metadata.id() {
                return Err(QuiltError::OtherBlob);
            }
            // Others hold no source data.
            if let Some(column) = columns.get_mut(sliver.index().as_usize()) {
                *column = Some(&sliver.data()[..]);
            }
        }
        Ok(Self { shape, columns: Columns::Slivers(columns) })
    }

    /// Appends column `index` to `out`.
    fn append_column(&self, index: u16, out: &mut Vec<u8>) -> Result<(), QuiltError> {
        match &self.columns {
            Columns::Slivers(columns) => {
                let column = columns.get(usize::from(index)).copied().flatten();
                out.extend_from_slice(column.ok_or(QuiltError::MissingColumn(index))?);
            }
            Columns::Blob(blob) => {
                let symbol = self.shape.symbol_size.as_usize();
                let width = self.shape.n.columns() * symbol;
                let start = usize::from(index) * symbol;
                for row in blob.chunks_exact(width) {
                    out.extend_from_slice(&row[start..start + symbol]);
                }
            }
        }
        Ok(())
    }

    /// The first `length` bytes of the columns from `first` on. The caller has checked
    /// that there are as many.
    fn gather(&self, first: u16, length: usize) -> Result<Vec<u8>, QuiltError> {
        let columns = length.div_ceil(self.shape.column());
        let mut out = Vec::with_capacity(columns * self.shape.column());
        for index in (first..self.shape.columns()).take(columns) {
            self.append_column(index, &mut out)?;
        }
        out.truncate(length);
        Ok(out)
    }

    /// How many columns the index takes, as the first column says.
    ///
    /// # Errors
    /// The first column is missing, or is not that of a quilt.
    pub fn index_columns(&self) -> Result<u16, QuiltError> {
        let columns = self.index_size()?.div_ceil(self.shape.column());
        u16::try_from(columns).map_err(|_| QuiltError::Oversized("the index"))
    }

    /// Bytes of the index with its prefix, checked against the columns it may take.
    fn index_size(&self) -> Result<usize, QuiltError> {
        let most = INDEX_COLUMNS_MAX.min(self.shape.columns().into()) * self.shape.column();
        let prefix = self.gather(0, INDEX_PREFIX)?;
        let mut reader = Reader::new(&prefix);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(QuiltError::Version(version));
        }
        usize::try_from(reader.u32()?)
            .ok()
            .and_then(|length| length.checked_add(INDEX_PREFIX))
            .filter(|&size| size <= most)
            .ok_or(QuiltError::Oversized("the index"))
    }

    /// The index.
    ///
    /// # Errors
    /// A column of the index is missing or malformed.
    pub fn index(&self) -> Result<QuiltIndex, QuiltError> {
        let bytes = self.gather(0, self.index_size()?)?;
        let first = self.index_columns()?;
        Ok(QuiltIndex::from_bcs(&bytes[INDEX_PREFIX..], first, self.shape.columns())?)
    }

    /// A file of the index.
    ///
    /// # Errors
    /// See [`Self::file_at`].
    pub fn file(&self, patch: &QuiltPatch) -> Result<QuiltFile, QuiltError> {
        self.file_at(patch.columns.clone())
    }

    /// The file that takes the given columns (those of a patch id).
    ///
    /// # Errors
    /// A column is missing, or there is no file.
    pub fn file_at(&self, columns: Range<u16>) -> Result<QuiltFile, QuiltError> {
        if columns.is_empty() || columns.end > self.shape.columns() {
            return Err(QuiltError::BadColumns(columns));
        }
        let room = columns.len() * self.shape.column();
        let header = self.gather(columns.start, FILE_HEADER.min(room))?;
        let mut reader = Reader::new(&header);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(QuiltError::Version(version));
        }
        let size = usize::try_from(reader.u32()?)
            .ok()
            .and_then(|length| length.checked_add(FILE_HEADER))
            .filter(|&size| size <= room)
            .ok_or(QuiltError::Oversized("a file"))?;
        let mask = reader.u8()?;
        let bytes = self.gather(columns.start, size)?;
        let mut reader = Reader::new(&bytes[FILE_HEADER..]);
        let identifier = sized(&mut reader)?;
        let identifier = Identifier::from_bcs(identifier)?.0;
        let tags = if mask & MASK_TAGS == 0 {
            Tags::new()
        } else {
            StoredTags::from_bcs(sized(&mut reader)?)?.0
        };
        let data = reader.take(reader.remaining())?.to_vec();
        Ok(QuiltFile { identifier, tags, data })
    }
}

/// A byte string with its length as a `u16`.
fn sized<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], BcsError> {
    let length = reader.u16()?;
    reader.take(length.into())
}

struct Identifier(String);

impl Wire for Identifier {
    fn write(&self, out: &mut Vec<u8>) {
        crate::bcs::write_bytes(out, self.0.as_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        reader.string("identifier bytes", super::IDENTIFIER_BYTES_MAX).map(Self)
    }
}
