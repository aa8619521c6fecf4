//! What the index knows about one path, and its canonical bytes.
//!
//! The bytes are what the Merkle tree commits to, so there is exactly one form of every entry: the
//! decoder refuses everything that the encoder would not write.

use crate::{
    merkle::{self, Digest},
    wire::{Cursor, FormatError, put_bytes, put_number},
};
use haulout_nix::{
    ContentAddress, HashPart, NarHash, PathInfo, Signature, StorePath,
    keys::KEY_NAME_LEN_MAX,
    narinfo::{REFERENCES_MAX, SIGNATURES_MAX},
    store_path::{HASH_PART_LEN, NAME_LEN_MAX},
};

/// Longest entry, in bytes: the most references there may be, all with the longest names, fit.
pub const ENTRY_BYTES_MAX: usize = 4 << 20;

/// Most pieces into which one NAR is cut. Only NARs larger than a blob can be have more than one.
pub const EXTENTS_MAX: usize = 1024;

/// Longest text of a content address, in bytes.
const CA_BYTES_MAX: usize = 256;

const TOMBSTONE: u8 = 0;
const PATH: u8 = 1;

/// One entry: a path's hash part and what there is under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// By what it is found.
    pub key: HashPart,
    /// What is known.
    pub content: Content,
}

/// The content of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The path was in an older segment and is no longer in the archive.
    Tombstone,
    /// The path is in the archive.
    Path(Box<Path>),
}

/// A path of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// What a narinfo says: all signatures as they were found.
    pub info: PathInfo,
    /// Where its NAR is.
    pub nar: NarPlace,
    /// When somebody last asked for it, in days since 1970; 0 when unknown. A hint for those who
    /// decide what to keep.
    pub last_asked: u32,
}

/// Where the bytes of a NAR are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NarPlace {
    /// BLAKE3 of the NAR: the root of its hash tree.
    pub root: [u8; 32],
    /// How it is compressed.
    pub compression: Compression,
    /// The pieces, in order. Together they are the compressed NAR.
    pub extents: Vec<Extent>,
}

impl NarPlace {
    /// Bytes of the compressed NAR.
    #[must_use]
    pub fn stored_len(&self) -> u64 {
        self.extents.iter().map(|extent| extent.length).sum()
    }
}

/// How a NAR is compressed in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// As one or more zstd frames.
    Zstd,
}

/// Some bytes of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Position of the pack in the segment's table.
    pub pack: u32,
    /// First byte.
    pub offset: u64,
    /// Number of bytes, not 0.
    pub length: u64,
}

impl Entry {
    /// An entry for a path.
    #[must_use]
    pub fn path(path: Path) -> Self {
        Self { key: path.info.path.hash_part(), content: Content::Path(Box::new(path)) }
    }

    /// An entry that hides older ones.
    #[must_use]
    pub const fn tombstone(key: HashPart) -> Self {
        Self { key, content: Content::Tombstone }
    }

    /// The path, unless this is a tombstone.
    #[must_use]
    pub fn as_path(&self) -> Option<&Path> {
        match &self.content {
            Content::Tombstone => None,
            Content::Path(path) => Some(path),
        }
    }

    /// Appends the canonical bytes.
    ///
    /// # Errors
    /// When the entry breaks a limit of the format, or its references are not sorted and unique
    /// (see [`PathInfo::normalise`]).
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), FormatError> {
        let start = out.len();
        out.extend_from_slice(self.key.as_bytes());
        match &self.content {
            Content::Tombstone => out.push(TOMBSTONE),
            Content::Path(path) => {
                out.push(PATH);
                if path.info.path.hash_part() != self.key {
                    return Err(FormatError::Value("the key of an entry"));
                }
                encode_path(path, out)?;
            }
        }
        limit(out.len() - start, ENTRY_BYTES_MAX, "an entry")
    }

    /// Reads the canonical bytes, all of them.
    ///
    /// # Errors
    /// When they are not what [`Entry::encode`] would write.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        limit(bytes.len(), ENTRY_BYTES_MAX, "an entry")?;
        let mut cursor = Cursor::new(bytes);
        let key = HashPart::from_bytes(cursor.array("a hash part")?);
        let content = match cursor.byte("an entry")? {
            TOMBSTONE => Content::Tombstone,
            PATH => Content::Path(Box::new(decode_path(key, &mut cursor)?)),
            _ => return Err(FormatError::Value("the kind of an entry")),
        };
        cursor.end("an entry")?;
        Ok(Self { key, content })
    }

    /// The hash part at the front of an entry's bytes.
    pub(crate) fn key_of(bytes: &[u8]) -> Result<HashPart, FormatError> {
        Cursor::new(bytes).array("a hash part").map(HashPart::from_bytes)
    }

    /// The Merkle leaf of an entry's bytes. Its key stands in the clear beside the hash of the
    /// rest, so that a neighbour in an absence proof is 52 bytes and not a whole entry.
    ///
    /// # Errors
    /// When the bytes are shorter than a key.
    pub fn leaf(bytes: &[u8]) -> Result<Digest, FormatError> {
        let (key, rest) = bytes.split_first_chunk::<20>().ok_or(FormatError::Short("an entry"))?;
        Ok(merkle::leaf(key, &merkle::hash(&[rest])))
    }
}

fn limit(len: usize, max: usize, what: &'static str) -> Result<(), FormatError> {
    if len > max { Err(FormatError::Limit { what, max: max as u64 }) } else { Ok(()) }
}

fn encode_path(path: &Path, out: &mut Vec<u8>) -> Result<(), FormatError> {
    let Path { info, nar, last_asked } = path;
    limit(info.references.len(), REFERENCES_MAX, "the number of references")?;
    limit(info.signatures.len(), SIGNATURES_MAX, "the number of signatures")?;
    limit(nar.extents.len(), EXTENTS_MAX, "the number of pieces")?;
    if !info.references.is_sorted_by(|a, b| a < b) {
        return Err(FormatError::Order("references"));
    }
    if nar.extents.is_empty() || nar.extents.iter().any(|extent| extent.length == 0) {
        return Err(FormatError::Value("a piece of a NAR"));
    }
    put_bytes(out, info.path.name().as_bytes());
    out.extend_from_slice(info.nar_hash.as_bytes());
    out.extend_from_slice(&nar.root);
    put_number(out, info.nar_size);
    out.push(match nar.compression {
        Compression::None => 0,
        Compression::Zstd => 1,
    });
    put_number(out, nar.extents.len() as u64);
    for extent in &nar.extents {
        put_number(out, extent.pack.into());
        put_number(out, extent.offset);
        put_number(out, extent.length);
    }
    put_number(out, info.references.len() as u64);
    for reference in &info.references {
        put_path(out, reference);
    }
    match &info.deriver {
        None => out.push(0),
        Some(deriver) => {
            out.push(1);
            put_path(out, deriver);
        }
    }
    put_bytes(out, info.ca.map(|ca| ca.to_string()).unwrap_or_default().as_bytes());
    put_number(out, info.signatures.len() as u64);
    for signature in &info.signatures {
        put_bytes(out, signature.name().as_bytes());
        out.extend_from_slice(signature.as_bytes());
    }
    put_number(out, (*last_asked).into());
    Ok(())
}

fn put_path(out: &mut Vec<u8>, path: &StorePath) {
    out.extend_from_slice(path.hash_part().as_bytes());
    put_bytes(out, path.name().as_bytes());
}

fn decode_path(key: HashPart, cursor: &mut Cursor<'_>) -> Result<Path, FormatError> {
    let path = store_path(key, cursor)?;
    let nar_hash = NarHash::from_bytes(cursor.array("a NAR hash")?);
    let root = cursor.array("a NAR root")?;
    let nar_size = cursor.number(u64::MAX, "a NAR size")?;
    let compression = match cursor.byte("a compression")? {
        0 => Compression::None,
        1 => Compression::Zstd,
        _ => return Err(FormatError::Value("a compression")),
    };
    let extents = extents(cursor)?;
    let references = references(cursor)?;
    let deriver = match cursor.byte("a deriver")? {
        0 => None,
        1 => {
            let hash = HashPart::from_bytes(cursor.array("a deriver")?);
            Some(store_path(hash, cursor)?)
        }
        _ => return Err(FormatError::Value("a deriver")),
    };
    let ca = content_address(cursor)?;
    let signatures = signatures(cursor)?;
    let last_asked = cursor.number(u32::MAX.into(), "a day")? as u32;
    let info = PathInfo { path, nar_hash, nar_size, references, deriver, signatures, ca };
    Ok(Path { info, nar: NarPlace { root, compression, extents }, last_asked })
}

fn store_path(hash: HashPart, cursor: &mut Cursor<'_>) -> Result<StorePath, FormatError> {
    let name = cursor.text(NAME_LEN_MAX, "a name")?;
    let name = name.parse().map_err(|_| FormatError::Value("a name"))?;
    Ok(StorePath::new(hash, name))
}

fn extents(cursor: &mut Cursor<'_>) -> Result<Vec<Extent>, FormatError> {
    let count = cursor.count(EXTENTS_MAX, "the number of pieces")?;
    if count == 0 {
        return Err(FormatError::Value("the number of pieces"));
    }
    let mut extents = Vec::with_capacity(count);
    let mut total = 0u64;
    for _ in 0..count {
        let pack = cursor.number(u32::MAX.into(), "a pack")? as u32;
        let offset = cursor.number(u64::MAX, "an offset")?;
        let length = cursor.number(u64::MAX, "a length")?;
        let value = FormatError::Value("a piece of a NAR");
        total = total.checked_add(length).ok_or(value)?;
        if length == 0 || offset.checked_add(length).is_none() {
            return Err(value);
        }
        extents.push(Extent { pack, offset, length });
    }
    Ok(extents)
}

fn references(cursor: &mut Cursor<'_>) -> Result<Vec<StorePath>, FormatError> {
    let count = cursor.count(REFERENCES_MAX, "the number of references")?;
    // A reference has 22 bytes at least, so the input bounds what is allocated.
    let mut references: Vec<StorePath> = Vec::with_capacity(count.min(cursor.remaining() / 22));
    for _ in 0..count {
        let hash = HashPart::from_bytes(cursor.array("a reference")?);
        let reference = store_path(hash, cursor)?;
        if references.last().is_some_and(|last| *last >= reference) {
            return Err(FormatError::Order("references"));
        }
        references.push(reference);
    }
    Ok(references)
}

fn content_address(cursor: &mut Cursor<'_>) -> Result<Option<ContentAddress>, FormatError> {
    let text = cursor.text(CA_BYTES_MAX, "a content address")?;
    if text.is_empty() {
        return Ok(None);
    }
    let value = FormatError::Value("a content address");
    let ca: ContentAddress = text.parse().map_err(|_| value)?;
    // The parser takes hashes in several forms; here only the canonical one may stand.
    if ca.to_string() == text { Ok(Some(ca)) } else { Err(value) }
}

fn signatures(cursor: &mut Cursor<'_>) -> Result<Vec<Signature>, FormatError> {
    let count = cursor.count(SIGNATURES_MAX, "the number of signatures")?;
    let mut signatures = Vec::with_capacity(count);
    for _ in 0..count {
        let name = cursor.text(KEY_NAME_LEN_MAX, "a key's name")?;
        let signature = Signature::new(name, cursor.array("a signature")?);
        signatures.push(signature.map_err(|_| FormatError::Value("a key's name"))?);
    }
    Ok(signatures)
}

const _: () = assert!(HASH_PART_LEN == 32, "hash parts are 20 bytes");

#[cfg(test)]
mod tests;
