//! Packs: blobs that hold compressed NARs.
//!
//! A pack has no header. It is zstd frames one after the other, so `zstd -dc` of a pack gives its
//! NARs one after the other, and a byte range of it, as the index names it, gives one of them.

use crate::entry::{EXTENTS_MAX, Extent};
use haulout_nix::{
    HashPart, PathInfo,
    nar::{NarDigest, NarHasher},
};
use std::{
    collections::HashMap,
    io::{self, Write},
};

/// A pack is closed when it has reached this many bytes: below 142 MB the fixed price of a blob is
/// more than a tenth of it, and far above a failed upload costs too much.
pub const TARGET_BYTES: u64 = 128 << 20;

/// Largest pack, in bytes; NARs that are larger when compressed are cut.
pub const PACK_BYTES_MAX: u64 = 256 << 20;

/// Level of compression unless set: written once, read often; above it only time grows.
pub const LEVEL: i32 = 9;

/// What became of a NAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compressed {
    /// Bytes written.
    pub length: u64,
    /// NarHash and size of what went in.
    pub digest: NarDigest,
    /// BLAKE3 of what went in.
    pub root: [u8; 32],
}

/// Compresses a NAR and computes its hashes on the way. The same bytes in give the same bytes out.
pub struct NarCompressor<W: Write> {
    encoder: zstd::Encoder<'static, Counter<W>>,
    hasher: NarHasher,
    root: blake3::Hasher,
}

impl<W: Write> std::fmt::Debug for NarCompressor<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NarCompressor").field("taken", &self.hasher.size()).finish_non_exhaustive()
    }
}

impl<W: Write> NarCompressor<W> {
    /// A compressor into `out`. `nar_size` is what will be written to it.
    ///
    /// # Errors
    /// When zstd refuses the level.
    pub fn new(out: W, nar_size: u64, level: i32) -> io::Result<Self> {
        let mut encoder = zstd::Encoder::new(Counter { out, written: 0 }, level)?;
        encoder.set_pledged_src_size(Some(nar_size))?;
        // NarHash and BLAKE3 check more than zstd's own checksum would.
        encoder.include_checksum(false)?;
        Ok(Self { encoder, hasher: NarHasher::new(), root: blake3::Hasher::new() })
    }

    /// Ends the NAR.
    ///
    /// # Errors
    /// When the last bytes cannot be written, or fewer than `nar_size` came.
    pub fn finish(self) -> io::Result<(Compressed, W)> {
        let Counter { out, written } = self.encoder.finish()?;
        let root = *self.root.finalize().as_bytes();
        Ok((Compressed { length: written, digest: self.hasher.finish(), root }, out))
    }
}

impl<W: Write> Write for NarCompressor<W> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let taken = self.encoder.write(piece)?;
        let piece = piece.get(..taken).unwrap_or(piece);
        self.hasher.update(piece);
        self.root.update(piece);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}

struct Counter<W> {
    out: W,
    written: u64,
}

impl<W: Write> Write for Counter<W> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let taken = self.out.write(piece)?;
        self.written += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Decides which bytes go into which pack. NARs must be placed, and written, in order.
#[derive(Debug, Clone)]
pub struct Planner {
    target: u64,
    max: u64,
    pack: u32,
    filled: u64,
}

/// A NAR that even the largest packs cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a compressed NAR of {length} bytes would need more than {EXTENTS_MAX} packs of {max} bytes"
)]
pub struct TooLarge {
    length: u64,
    max: u64,
}

impl Planner {
    /// Packs of about `target` bytes and never more than `max`, which is what the network takes as
    /// one blob or less.
    #[must_use]
    pub fn new(target: u64, max: u64) -> Self {
        let max = max.max(1);
        Self { target: target.clamp(1, max), max, pack: 0, filled: 0 }
    }

    /// Where a compressed NAR of `length` bytes (not 0) goes. When a pack number is larger than all
    /// before it, the packs below it are complete.
    ///
    /// # Errors
    /// When it would be cut into more than [`EXTENTS_MAX`] pieces.
    pub fn place(&mut self, length: u64) -> Result<Vec<Extent>, TooLarge> {
        if length.div_ceil(self.max) >= EXTENTS_MAX as u64 {
            return Err(TooLarge { length, max: self.max });
        }
        let fits = self.filled + length <= self.max;
        if self.filled > 0 && (self.filled >= self.target || !fits) {
            self.close();
        }
        let mut extents = Vec::with_capacity(1);
        let mut rest = length;
        while rest > 0 {
            if self.filled == self.max {
                self.close();
            }
            let piece = rest.min(self.max - self.filled);
            extents.push(Extent { pack: self.pack, offset: self.filled, length: piece });
            self.filled += piece;
            rest -= piece;
        }
        Ok(extents)
    }

    const fn close(&mut self) {
        self.pack += 1;
        self.filled = 0;
    }
}

/// The order in which paths should go into packs: what a path needs comes right before it, so that
/// a closure lies in few places. The same paths and roots give the same order, however they are listed.
///
/// Gives positions in `infos`. Paths under no root come last, by their text.
#[must_use]
pub fn packing_order(infos: &[PathInfo], roots: &[HashPart]) -> Vec<usize> {
    let by_hash: HashMap<HashPart, usize> =
        infos.iter().enumerate().map(|(i, info)| (info.path.hash_part(), i)).collect();
    let mut starts: Vec<usize> =
        roots.iter().filter_map(|root| by_hash.get(root)).copied().collect();
    starts.sort_by(|a, b| path_of(infos, *a).cmp(&path_of(infos, *b)));
    let mut others: Vec<usize> = (0..infos.len()).collect();
    others.sort_by(|a, b| path_of(infos, *a).cmp(&path_of(infos, *b)));

    let mut seen = vec![false; infos.len()];
    let mut order = Vec::with_capacity(infos.len());
    // Depth first, with a stack of our own: closures may be deep.
    let mut stack: Vec<(usize, usize)> = Vec::new();
    for start in starts.into_iter().chain(others) {
        visit(start, &mut seen, &mut stack);
        while let Some((at, next)) = stack.last_mut() {
            let at = *at;
            let Some(reference) = infos.get(at).and_then(|info| info.references.get(*next)) else {
                order.push(at);
                stack.pop();
                continue;
            };
            *next += 1;
            if let Some(reference) = by_hash.get(&reference.hash_part()) {
                visit(*reference, &mut seen, &mut stack);
            }
        }
    }
    order
}

fn path_of(infos: &[PathInfo], at: usize) -> Option<&haulout_nix::StorePath> {
    infos.get(at).map(|info| &info.path)
}

fn visit(at: usize, seen: &mut [bool], stack: &mut Vec<(usize, usize)>) {
    if let Some(seen) = seen.get_mut(at).filter(|seen| !**seen) {
        *seen = true;
        stack.push((at, 0));
    }
}

#[cfg(test)]
mod tests;
