//! NarHash and size of trees and streams.

use super::{Decoder, NarError, NarErrorKind, Visitor, dump};
use crate::NarHash;
use ring::digest::{Context, SHA256};
use std::{
    io::{self, Read, Write},
    path::Path,
};

/// Bytes read at a time.
const PIECE_BYTES: usize = 256 << 10;

/// The hash and the size of a NAR: the two things that a signature says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NarDigest {
    /// SHA-256.
    pub hash: NarHash,
    /// Bytes.
    pub size: u64,
}

/// Computes a [`NarDigest`] from pieces. As a [`Write`] it never fails.
#[derive(Clone)]
pub struct NarHasher {
    context: Context,
    size: u64,
}

impl NarHasher {
    /// A hasher that was given nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { context: Context::new(&SHA256), size: 0 }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, piece: &[u8]) {
        self.context.update(piece);
        self.size += piece.len() as u64;
    }

    /// Bytes taken so far.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The result.
    #[must_use]
    pub fn finish(self) -> NarDigest {
        NarDigest { hash: NarHash::from_digest(&self.context.finish()), size: self.size }
    }
}

impl Default for NarHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for NarHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NarHasher").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Write for NarHasher {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.update(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The digest of the NAR of the tree at `path`.
///
/// # Errors
/// As for [`dump`].
pub fn hash_path(path: &Path) -> io::Result<NarDigest> {
    let mut hasher = NarHasher::new();
    dump(path, &mut hasher)?;
    Ok(hasher.finish())
}

/// The digest of everything `reader` gives, whether it is a NAR or not (see [`check`]).
///
/// # Errors
/// From the reader.
pub fn hash_reader(mut reader: impl Read) -> io::Result<NarDigest> {
    let mut hasher = NarHasher::new();
    read_pieces(&mut reader, |piece| {
        hasher.update(piece);
        Ok(())
    })?;
    Ok(hasher.finish())
}

/// Reads `reader` to its end, refuses what is not exactly one well-formed NAR, and gives its
/// digest.
///
/// # Errors
/// From the reader, or for the first mistake in the NAR.
pub fn check(reader: impl Read) -> Result<NarDigest, NarError> {
    decode(reader, &mut ())
}

/// [`check`] with a visitor that is told what is in the NAR.
///
/// # Errors
/// As for [`check`], or when the visitor fails.
pub fn decode(mut reader: impl Read, visitor: &mut impl Visitor) -> Result<NarDigest, NarError> {
    let (mut hasher, mut decoder) = (NarHasher::new(), Decoder::new());
    let mut mistake = None;
    let read = read_pieces(&mut reader, |piece| {
        hasher.update(piece);
        decoder.push(piece, visitor).map_err(|error| {
            mistake = Some(error);
            io::ErrorKind::InvalidData.into()
        })
    });
    match (mistake, read) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => {
            Err(NarError { offset: decoder.offset(), kind: NarErrorKind::Read(error) })
        }
        (None, Ok(())) => decoder.finish().map(|()| hasher.finish()),
    }
}

/// Hands everything `reader` gives to `take`, in pieces of at most [`PIECE_BYTES`].
fn read_pieces(
    reader: &mut impl Read,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match reader.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(len) => take(&piece[..len])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
