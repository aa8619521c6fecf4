//! Compressing a NAR into a file, with both hashes on the way.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::str::FromStr;

use haulout_nix::nar::{NarDigest, NarHasher};
use haulout_nix::{Compression, NarHash};

use super::place::Temporary;

/// How NARs are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    None,
    /// zstd at a level from 1 to 19.
    Zstd(i32),
    /// xz at a preset from 0 to 9: smallest and slowest, what Nix does by default.
    Xz(u32),
}

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 256 * 1024;
/// zstd's own default: several times as fast as the network it goes to.
const ZSTD_LEVEL: i32 = 3;
/// xz's own default.
const XZ_PRESET: u32 = 6;

/// Why a text is no packing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a compression: zstd, xz or none, a level may follow as in zstd:9")]
pub struct ParsePackingError;

impl FromStr for Packing {
    type Err = ParsePackingError;

    fn from_str(text: &str) -> Result<Self, ParsePackingError> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => {
                (name, Some(level.parse::<u8>().map_err(|_| ParsePackingError)?))
            }
            None => (text, None),
        };
        match (name, level) {
            ("none", None) => Ok(Self::None),
            ("zstd", None) => Ok(Self::Zstd(ZSTD_LEVEL)),
            ("zstd", Some(level @ 1..=19)) => Ok(Self::Zstd(level.into())),
            ("xz", None) => Ok(Self::Xz(XZ_PRESET)),
            ("xz", Some(preset @ 0..=9)) => Ok(Self::Xz(preset.into())),
            _ => Err(ParsePackingError),
        }
    }
}

impl Packing {
    pub(super) const fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Zstd(_) => ".zst",
            Self::Xz(_) => ".xz",
        }
    }

    pub(super) const fn compression(self) -> Compression {
        match self {
            Self::None => Compression::None,
            Self::Zstd(_) => Compression::Zstd,
            Self::Xz(_) => Compression::Xz,
        }
    }
}

/// A NAR as a file that has no name yet.
pub(super) struct Packed {
    pub(super) file: Temporary,
    pub(super) nar: NarDigest,
    pub(super) file_hash: NarHash,
    pub(super) file_size: u64,
}

pub(super) fn pack(
    packing: Packing,
    mut file: Temporary,
    dump: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<Packed> {
    let out = Hashed {
        inner: BufWriter::with_capacity(BUFFER_BYTES, file.file()?),
        hasher: NarHasher::new(),
    };
    let (out, nar) = match packing {
        Packing::None => fill(out, dump)?,
        Packing::Zstd(level) => {
            let (encoder, nar) = fill(zstd::Encoder::new(out, level)?, dump)?;
            (encoder.finish()?, nar)
        }
        Packing::Xz(preset) => {
            let options = lzma_rust2::XzOptions::with_preset(preset);
            let (encoder, nar) = fill(lzma_rust2::XzWriter::new(out, options)?, dump)?;
            (encoder.finish()?, nar)
        }
    };
    let Hashed { inner, hasher } = out;
    let whole = hasher.finish();
    inner.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(Packed { file, nar, file_hash: whole.hash, file_size: whole.size })
}

fn fill<W: Write>(
    encoder: W,
    dump: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<(W, NarDigest)> {
    let mut out = Hashed { inner: encoder, hasher: NarHasher::new() };
    dump(&mut out)?;
    Ok((out.inner, out.hasher.finish()))
}

/// Hashes what passes through.
struct Hashed<W> {
    inner: W,
    hasher: NarHasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// What [`pack`] writes to.
pub(super) type Out = File;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packings_as_people_write_them() {
        for (text, packing) in [
            ("none", Packing::None),
            ("zstd", Packing::Zstd(3)),
            ("zstd:19", Packing::Zstd(19)),
            ("xz", Packing::Xz(6)),
            ("xz:0", Packing::Xz(0)),
        ] {
            assert_eq!(text.parse(), Ok(packing));
        }
        for text in ["", "zst", "zstd:0", "zstd:20", "xz:10", "none:1", "zstd:", "bzip2"] {
            assert_eq!(text.parse::<Packing>(), Err(ParsePackingError), "{text}");
        }
    }
}
