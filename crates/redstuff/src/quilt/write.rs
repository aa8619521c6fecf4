//! Making quilts.

use super::{
    FILE_HEADER, IDENTIFIER_BYTES_MAX, INDEX_COLUMNS_MAX, INDEX_PREFIX, MASK_TAGS, QuiltFile,
    QuiltIndex, QuiltPatch, Shape, StoredTags, TAGS_BYTES_MAX, VERSION, bcs_string,
};
use crate::{ShardCount, SymbolSize, bcs::Wire, params::SYMBOL_SIZE_MAX};

/// Why files do not make a quilt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuiltWriteError {
    /// There is nothing to put in.
    #[error("a quilt has at least one file")]
    Empty,
    /// More files than columns.
    #[error("{found} files are too many for a quilt: at most {max}")]
    TooMany {
        /// How many there are.
        found: usize,
        /// How many there may be.
        max: usize,
    },
    /// An identifier that is not allowed.
    #[error("identifier {identifier:?} {reason}")]
    Identifier {
        /// The identifier.
        identifier: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Too many or too long tags.
    #[error("the tags of {identifier:?} take {found} bytes: at most {TAGS_BYTES_MAX}")]
    Tags {
        /// The file's identifier.
        identifier: String,
        /// Bytes the tags take.
        found: usize,
    },
    /// A file too large for its length field.
    #[error("file {identifier:?} is too large for a quilt")]
    FileTooLarge {
        /// The file's identifier.
        identifier: String,
    },
    /// All files together are too large.
    #[error("the files are too large for one quilt of {shards} shards")]
    TooLarge {
        /// The number of shards.
        shards: ShardCount,
    },
}

/// A quilt: the bytes of the blob, and what is where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quilt {
    blob: Vec<u8>,
    index: QuiltIndex,
    symbol_size: SymbolSize,
}

impl Quilt {
    /// Lays out files as a quilt for `n` shards.
    ///
    /// # Errors
    /// Identifiers or tags that are not allowed, too many or too large files.
    pub fn new(n: ShardCount, mut files: Vec<QuiltFile>) -> Result<Self, QuiltWriteError> {
        let max = n.columns() - 1;
        if files.len() > max {
            return Err(QuiltWriteError::TooMany { found: files.len(), max });
        }
        if files.is_empty() {
            return Err(QuiltWriteError::Empty);
        }
        files.sort_by(|a, b| a.identifier.cmp(&b.identifier));
        for pair in files.windows(2) {
            if pair[0].identifier == pair[1].identifier {
                return Err(bad_identifier(&pair[0].identifier, "is there twice"));
            }
        }
        let heads = files.iter().map(head).collect::<Result<Vec<_>, _>>()?;
        let patch = |file: &QuiltFile| QuiltPatch {
            identifier: file.identifier.clone(),
            tags: file.tags.clone(),
            columns: 0..0,
        };
        let mut index = QuiltIndex { patches: files.iter().map(patch).collect() };
        // Column numbers have a fixed width, so the size does not depend on them.
        let index_size = INDEX_PREFIX + index.to_bcs().len();
        let sizes: Vec<_> =
            heads.iter().zip(&files).map(|(head, file)| head.len() + file.data.len()).collect();
        let shape =
            choose_shape(n, index_size, &sizes).ok_or(QuiltWriteError::TooLarge { shards: n })?;

        let column = shape.column();
        let mut at = columns_of(index_size, column);
        for (patch, size) in index.patches.iter_mut().zip(&sizes) {
            let end = at + columns_of(*size, column);
            patch.columns = at..end;
            at = end;
        }
        Ok(Self {
            blob: fill(shape, &index, &heads, &files),
            index,
            symbol_size: shape.symbol_size,
        })
    }

    /// The bytes to store as a blob.
    #[must_use]
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// The bytes to store as a blob.
    #[must_use]
    pub fn into_blob(self) -> Vec<u8> {
        self.blob
    }

    /// What is where.
    #[must_use]
    pub fn index(&self) -> &QuiltIndex {
        &self.index
    }

    /// Bytes of one symbol of the blob.
    #[must_use]
    pub fn symbol_size(&self) -> SymbolSize {
        self.symbol_size
    }
}

fn bad_identifier(identifier: &str, reason: &'static str) -> QuiltWriteError {
    QuiltWriteError::Identifier { identifier: identifier.to_owned(), reason }
}

/// What precedes a file's content.
fn head(file: &QuiltFile) -> Result<Vec<u8>, QuiltWriteError> {
    let text = &file.identifier;
    if text.is_empty() {
        return Err(bad_identifier(text, "is empty"));
    }
    if text.ends_with(char::is_whitespace) {
        return Err(bad_identifier(text, "ends with white space"));
    }
    if text.contains(char::is_control) {
        return Err(bad_identifier(text, "has a control character"));
    }
    let identifier = bcs_string(text);
    if identifier.len() > IDENTIFIER_BYTES_MAX {
        return Err(bad_identifier(text, "is too long"));
    }
    let mut extensions = Vec::new();
    push_sized(&mut extensions, &identifier);
    if !file.tags.is_empty() {
        let tags = StoredTags(file.tags.clone()).to_bcs();
        if tags.len() > TAGS_BYTES_MAX {
            let identifier = text.clone();
            return Err(QuiltWriteError::Tags { identifier, found: tags.len() });
        }
        push_sized(&mut extensions, &tags);
    }
    let too_large = || QuiltWriteError::FileTooLarge { identifier: text.clone() };
    let total = FILE_HEADER + extensions.len() + file.data.len();
    let length = u32::try_from(total).map_err(|_| too_large())? - FILE_HEADER as u32;
    let mut head = vec![VERSION];
    head.extend_from_slice(&length.to_le_bytes());
    head.push(if file.tags.is_empty() { 0 } else { MASK_TAGS });
    head.append(&mut extensions);
    Ok(head)
}

/// Appends a byte string of at most 65,535 bytes with its length as a `u16`.
fn push_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Columns that `size` bytes take. Only called for sizes that fit.
fn columns_of(size: usize, column: usize) -> u16 {
    u16::try_from(size.div_ceil(column)).unwrap_or(u16::MAX)
}

/// The smallest symbols with which everything fits.
fn choose_shape(n: ShardCount, index_size: usize, sizes: &[usize]) -> Option<Shape> {
    let fits = |symbol: usize| {
        let column = n.rows() * symbol;
        let index = index_size.div_ceil(column);
        let files: usize = sizes.iter().map(|size| size.div_ceil(column)).sum();
        column >= INDEX_PREFIX && index <= INDEX_COLUMNS_MAX && index + files <= n.columns()
    };
    // Whatever fits with some size also fits with a larger one.
    let (mut low, mut high) = (1, usize::from(SYMBOL_SIZE_MAX / 2));
    if !fits(high * 2) {
        return None;
    }
    while low < high {
        let middle = low.midpoint(high);
        if fits(middle * 2) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    let symbol_size = SymbolSize::new(u16::try_from(high * 2).ok()?)?;
    Some(Shape { n, symbol_size })
}

/// Writes everything into its columns.
fn fill(shape: Shape, index: &QuiltIndex, heads: &[Vec<u8>], files: &[QuiltFile]) -> Vec<u8> {
    let (rows, columns, symbol) = (shape.n.rows(), shape.n.columns(), shape.symbol_size.as_usize());
    let mut blob = vec![0; rows * columns * symbol];
    let mut write = |first: u16, parts: [&[u8]; 2]| {
        let mut at = usize::from(first) * shape.column();
        for mut part in parts {
            while !part.is_empty() {
                // Down a column symbol by symbol, then on to the next column.
                let (cell, within) = (at / symbol, at % symbol);
                let (column, row) = (cell / rows, cell % rows);
                let (now, rest) = part.split_at(part.len().min(symbol - within));
                blob[(row * columns + column) * symbol + within..][..now.len()]
                    .copy_from_slice(now);
                at += now.len();
                part = rest;
            }
        }
    };
    let index_bcs = index.to_bcs();
    let mut prefix = vec![VERSION];
    let length = u32::try_from(index_bcs.len()).unwrap_or(u32::MAX);
    prefix.extend_from_slice(&length.to_le_bytes());
    write(0, [&prefix, &index_bcs]);
    for ((patch, head), file) in index.patches.iter().zip(heads).zip(files) {
        write(patch.columns.start, [head, &file.data]);
    }
    blob
}
