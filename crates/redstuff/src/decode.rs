//! Decoding: from slivers back to the blob.

use std::{collections::BTreeMap, ops::Range};

use rayon::prelude::*;

use crate::{
    Axis, AxisKind, MerkleNode, Metadata, Primary, ShardCount, Sliver, SliverIndex, SymbolSize,
    TooLarge, UnverifiedSliver,
    code::{Code, Erasures},
    sliver::Scratch,
};

/// How thoroughly a decoded blob is checked for having been encoded correctly.
///
/// Verified slivers are what the blob's writer committed to, but a dishonest writer
/// can commit to slivers that do not fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Consistency {
    /// No check: readers with different slivers may get different bytes. For content
    /// that is verified in another way.
    Skip,
    /// All systematic primary slivers must have the hashes in the metadata: whoever
    /// succeeds gets the same bytes.
    #[default]
    Default,
    /// The bytes are encoded again and must have the blob id: an inconsistent blob is
    /// never read.
    Strict,
}

/// Why a blob could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer usable slivers than needed.
    #[error("{found} usable slivers are too few: {needed} are needed")]
    TooFew {
        /// Different slivers of the right shape.
        found: usize,
        /// Slivers needed.
        needed: usize,
    },
    /// A sliver belongs to another blob.
    #[error("a sliver belongs to another blob")]
    OtherBlob,
    /// The blob was not encoded correctly by whoever wrote it.
    #[error("the blob is encoded inconsistently")]
    Inconsistent,
    /// No such blob can exist.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The range does not lie within the blob.
    #[error("the range ends beyond the blob's {length} bytes")]
    Range {
        /// The blob's length in bytes.
        length: u64,
    },
}

/// Decodes a blob from verified slivers of one axis.
///
/// Duplicates and surplus slivers are ignored. With all systematic primary slivers
/// this is a copy.
///
/// # Errors
/// Too few slivers, slivers of another blob, or a check that fails.
pub fn decode<A: Axis>(
    metadata: &Metadata,
    slivers: &[Sliver<A>],
    check: Consistency,
) -> Result<Vec<u8>, DecodeError> {
    let mut blob = Vec::new();
    decode_into(metadata, slivers, check, &mut blob)?;
    Ok(blob)
}

/// Like [`decode`], into memory that may have been used before; its content is replaced.
///
/// # Errors
/// Too few slivers, slivers of another blob, or a check that fails; what is in `blob` then
/// must not be used.
pub fn decode_into<A: Axis>(
    metadata: &Metadata,
    slivers: &[Sliver<A>],
    check: Consistency,
    blob: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let mut known = BTreeMap::new();
    for sliver in slivers {
        if sliver.blob != *metadata.id() || sliver.n != metadata.shards() {
            return Err(DecodeError::OtherBlob);
        }
        known.entry(sliver.index.as_usize()).or_insert(&sliver.data[..]);
    }
    let n = metadata.shards();
    let used = choose::<A>(n, known)?;
    decode_known((n, A::KIND), metadata.symbol_size(), metadata.unencoded_length(), &used, blob);
    let verified = |row: usize| A::KIND == AxisKind::Primary && used.iter().any(|&(i, _)| i == row);
    match check {
        Consistency::Skip => Ok(()),
        Consistency::Default => check_rows(metadata, blob, verified),
        Consistency::Strict if n.blob_id(blob)? == *metadata.id() => Ok(()),
        Consistency::Strict => Err(DecodeError::Inconsistent),
    }
}

/// Decodes slivers that were not verified, for content whose hash the caller knows.
///
/// Slivers of the wrong shape, duplicates and surplus ones are ignored. The result
/// is only as good as the slivers: check it.
///
/// # Errors
/// Too few slivers of the right shape, or a length no blob has.
pub fn decode_unverified<A: Axis>(
    n: ShardCount,
    unencoded_length: u64,
    slivers: &[UnverifiedSliver<A>],
) -> Result<Vec<u8>, DecodeError> {
    let size = n.symbol_size(unencoded_length)?;
    let len = n.sliver_symbols::<A>() * size.as_usize();
    let mut known = BTreeMap::new();
    for sliver in slivers {
        let shape = sliver.data.len() == len && sliver.symbol_size == size.get();
        if shape && sliver.index.check(n).is_ok() {
            known.entry(sliver.index.as_usize()).or_insert(&sliver.data[..]);
        }
    }
    let used = choose::<A>(n, known)?;
    let mut blob = Vec::new();
    decode_known((n, A::KIND), size, unencoded_length, &used, &mut blob);
    Ok(blob)
}

/// The slivers to decode from: the systematic ones cost nothing and come first.
fn choose<A: Axis>(
    n: ShardCount,
    known: BTreeMap<usize, &[u8]>,
) -> Result<Vec<(usize, &[u8])>, DecodeError> {
    let (found, needed) = (known.len(), n.slivers_to_decode::<A>());
    if found < needed {
        return Err(DecodeError::TooFew { found, needed });
    }
    Ok(known.into_iter().take(needed).collect())
}

/// Decodes from exactly as many different slivers as needed.
fn decode_known(
    (n, axis): (ShardCount, AxisKind),
    size: SymbolSize,
    length: u64,
    known: &[(usize, &[u8])],
    blob: &mut Vec<u8>,
) {
    let (rows, width, size) = (n.rows(), n.columns() * size.as_usize(), size.as_usize());
    #[allow(clippy::expect_used, reason = "slivers of that many bytes are in memory")]
    let length = usize::try_from(length).expect("the blob's length fits the address space");
    match axis {
        AxisKind::Primary if known.iter().all(|&(index, _)| index < rows) => {
            blob.clear();
            blob.reserve_exact(length);
            for &(_, row) in known {
                blob.extend_from_slice(&row[..width.min(length - blob.len())]);
            }
        }
        AxisKind::Primary => {
            prepare(blob, rows * width);
            fill_missing(Code::new(n, axis), size, known, blob, width);
            blob.truncate(length);
        }
        AxisKind::Secondary => {
            let height = rows * size;
            let mut columns = vec![None; n.columns()];
            for &(index, data) in known {
                if let Some(column) = columns.get_mut(index) {
                    *column = Some(data);
                }
            }
            let absent = columns.iter().enumerate().filter(|(_, column)| column.is_none());
            let absent: Vec<_> = absent.map(|(index, _)| index).collect();
            let mut decoded = vec![0; absent.len() * height];
            let outputs = absent.iter().copied().zip(decoded.chunks_exact_mut(height));
            decode_missing(Code::new(n, axis), size, known, outputs.collect());
            for (index, data) in absent.into_iter().zip(decoded.chunks_exact(height)) {
                columns[index] = Some(data);
            }
            prepare(blob, length);
            blob.par_chunks_mut(width).enumerate().for_each(|(row, out)| {
                for (column, out) in columns.iter().flatten().zip(out.chunks_mut(size)) {
                    out.copy_from_slice(&column[row * size..][..out.len()]);
                }
            });
        }
    }
}

/// Makes room for `length` bytes that will all be written.
pub(crate) fn prepare(blob: &mut Vec<u8>, length: usize) {
    if blob.capacity() < length {
        // Fresh zeroed memory costs nothing until it is touched.
        *blob = vec![0; length];
    } else {
        blob.resize(length, 0);
    }
}

/// Decodes source shards that are not known.
fn decode_missing(
    code: Code,
    size: usize,
    known: &[(usize, &[u8])],
    missing: Vec<(usize, &mut [u8])>,
) {
    if !missing.is_empty() {
        let erasures = Erasures::new(code, known.iter().map(|&(index, _)| index));
        erasures.decode_shards(size, known, missing);
    }
}

/// Puts all source shards of `width` bytes into `out`: known ones copied, missing ones decoded.
fn fill_missing(code: Code, size: usize, known: &[(usize, &[u8])], out: &mut [u8], width: usize) {
    let mut shards: Vec<Option<&mut [u8]>> = out.chunks_exact_mut(width).map(Some).collect();
    for &(index, data) in known {
        if let Some(shard) = shards.get_mut(index).and_then(Option::take) {
            shard.copy_from_slice(data);
        }
    }
    let missing = shards.into_iter().enumerate().filter_map(|(i, shard)| Some((i, shard?)));
    decode_missing(code, size, known, missing.collect());
}

/// Decodes one code word: `known` symbols of `size` bytes to all source symbols.
pub(crate) fn decode_symbols(code: Code, size: usize, known: &[(usize, &[u8])]) -> Vec<u8> {
    let mut out = vec![0; code.original() * size];
    fill_missing(code, size, known, &mut out, size);
    out
}

/// Checks the hashes of the systematic primary slivers that were not verified before.
fn check_rows(
    metadata: &Metadata,
    blob: &[u8],
    verified: impl Fn(usize) -> bool + Sync,
) -> Result<(), DecodeError> {
    let (n, size) = (metadata.shards(), metadata.symbol_size().as_usize());
    let width = metadata.sliver_len::<Primary>();
    let good = |space: &mut Scratch, row: u16| {
        if verified(row.into()) {
            return true;
        }
        let start = blob.len().min(usize::from(row) * width);
        let data = &blob[start..blob.len().min(start + width)];
        let root = if data.len() == width {
            space.root::<Primary>(n, size, data)
        } else {
            let mut padded = data.to_vec();
            padded.resize(width, 0);
            space.root::<Primary>(n, size, &padded)
        };
        let index = SliverIndex::<Primary>::new(row);
        metadata.sliver_hash(index) == Some(&MerkleNode::from(root))
    };
    let rows = u16::try_from(n.rows()).unwrap_or(u16::MAX);
    let all = (0..rows).into_par_iter().map_init(Scratch::default, good).all(|good| good);
    if all { Ok(()) } else { Err(DecodeError::Inconsistent) }
}

/// Reads bytes `range` of a blob from the systematic primary slivers that hold them.
///
/// [`Metadata::rows_of_range`] says which those are. The whole blob's consistency is
/// not checked.
///
/// # Errors
/// A range beyond the blob's end, a sliver that is missing or of another blob.
pub fn read_range(
    metadata: &Metadata,
    range: Range<u64>,
    slivers: &[Sliver<Primary>],
) -> Result<Vec<u8>, DecodeError> {
    let length = metadata.unencoded_length();
    if range.end > length {
        return Err(DecodeError::Range { length });
    }
    if slivers.iter().any(|sliver| sliver.blob != *metadata.id()) {
        return Err(DecodeError::OtherBlob);
    }
    let rows = metadata.rows_of_range(range.clone());
    let width = metadata.sliver_len::<Primary>() as u64;
    let needed = rows.len();
    let mut out = Vec::new();
    for (found, row) in rows.enumerate() {
        let sliver = slivers.iter().find(|sliver| sliver.index.get() == row);
        let data = &sliver.ok_or(DecodeError::TooFew { found, needed })?.data;
        let start = u64::from(row) * width;
        let within =
            |at: u64| usize::try_from(at.clamp(start, start + width) - start).unwrap_or(data.len());
        out.extend_from_slice(&data[within(range.start)..within(range.end)]);
    }
    Ok(out)
}
