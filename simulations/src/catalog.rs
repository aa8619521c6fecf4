//! What is wanted: store paths, their files and narinfos outside, cut into the pieces that have a home each.

use haulout_swarm::site::{Cut, SEGMENT_BYTES, SegmentKey, SiteKey, SiteKind};

use crate::fellows::FELLOWS_MIN;
use crate::random::{Random, mix};

/// A narinfo outside: about 1.95 kB (400 GB for 205 million of them at cache.nixos.org).
pub(crate) const NARINFO_BYTES: u32 = 1_950;
/// Unpacked bytes for each byte of an xz file: an update that took 1,183 MiB unpacked to 5,721 MiB.
pub(crate) const UNPACKED: f64 = 4.84;
/// Bytes on the wire between two peers for each unpacked byte, while the link is the limit: zstd at level 1.
pub(crate) const PEER_WIRE: f64 = 0.36;
/// Spread of file sizes (deviation of their logarithm). With a mean of 1.2 MB the median is 165 kB, and the largest of a
/// thousand some 80 MB, as in real closures: many small paths, a few that have most of the bytes.
const SIZE_SPREAD: f64 = 2.0;
/// The largest file, in bytes: some compilers and firmware blobs.
const SIZE_MAX: f64 = 250e6;

/// A store path that some machine wants.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    /// Compressed, as it comes from outside.
    pub(crate) file: u64,
    /// Unpacked.
    pub(crate) nar: u64,
    /// Its first segment in [`Catalog::pieces`]; the others follow.
    pub(crate) first: u32,
    pub(crate) segments: u32,
    /// The same of its NAR, for those that fetch it from peers; none if it is too small for that.
    pub(crate) first_part: u32,
    pub(crate) parts: u32,
}

/// What a piece is a piece of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A narinfo, whole.
    Document,
    /// A file outside.
    File,
    /// A NAR that peers hold.
    Nar,
}

/// What has a home of its own: the narinfo of a path, a segment of its file, or one of its NAR.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) key: SegmentKey,
    pub(crate) len: u32,
    pub(crate) kind: Kind,
    pub(crate) path: u32,
}

/// Everything that anybody wants in this run. Piece number `p` below the number of paths is the narinfo of path `p`.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    pub(crate) paths: Vec<Path>,
    pub(crate) pieces: Vec<Piece>,
    /// Files are taken unpacked from a gateway, which has them packed from outside.
    unpacked: bool,
}

impl Catalog {
    /// `count` paths with files of `bytes` together.
    pub(crate) fn new(random: &mut Random, count: u32, bytes: u64, unpacked: bool) -> Self {
        let mean = bytes as f64 / f64::from(count);
        let drawn: Vec<f64> = (0..count)
            .map(|_| (SIZE_SPREAD * random.normal()).exp().clamp(0.001, SIZE_MAX / mean))
            .collect();
        let scale = bytes as f64 / drawn.iter().sum::<f64>();
        let mut pieces: Vec<Piece> = (0..count)
            .map(|path| Piece {
                key: key(SiteKind::UpstreamNarinfo, path).segment(0),
                len: NARINFO_BYTES,
                kind: Kind::Document,
                path,
            })
            .collect();
        let mut paths = Vec::new();
        for (path, size) in (0..count).zip(drawn) {
            let file = ((size * scale) as u64).max(200);
            let nar = (file as f64 * UNPACKED) as u64;
            let whole = if unpacked { nar } else { file };
            let first = pieces.len() as u32;
            let segments = whole.div_ceil(SEGMENT_BYTES) as u32;
            for index in 0..segments {
                let range = Cut::new(whole).map_or(0..0, |cut| cut.range(index));
                pieces.push(Piece {
                    key: key(SiteKind::UpstreamFile, path).segment(index),
                    len: (range.end - range.start) as u32,
                    kind: Kind::File,
                    path,
                });
            }
            let first_part = pieces.len() as u32;
            let cut = Cut::of(SiteKind::Nar, nar).filter(|_| nar > FELLOWS_MIN);
            let parts = cut.map_or(0, Cut::count);
            for index in 0..parts {
                let range = cut.map_or(0..0, |cut| cut.range(index));
                pieces.push(Piece {
                    key: key(SiteKind::Nar, path).segment(index),
                    len: (range.end - range.start) as u32,
                    kind: Kind::Nar,
                    path,
                });
            }
            paths.push(Path { file, nar, first, segments, first_part, parts });
        }
        Self { paths, pieces, unpacked }
    }

    /// The name of a path's NAR among those that fetch it.
    pub(crate) fn part_key(&self, path: u32) -> SiteKey {
        key(SiteKind::Nar, path)
    }

    /// Bytes in one parcel between peers. Smaller ones change little and cost events; what is unpacked is more.
    pub(crate) fn parcel(&self, kind: Kind) -> u32 {
        if kind == Kind::Nar || self.unpacked { 1 << 20 } else { 256 << 10 }
    }

    /// What so many bytes of a piece take on the line outside.
    pub(crate) fn bytes_outside(&self, bytes: u32) -> u32 {
        if self.unpacked { (f64::from(bytes) / UNPACKED).ceil() as u32 } else { bytes }
    }

    /// How far such a number of bytes on the line outside goes in a piece.
    pub(crate) fn bytes_here(&self, bytes: u32) -> u32 {
        if self.unpacked { (f64::from(bytes) * UNPACKED) as u32 } else { bytes }
    }

    /// What so many bytes of a piece take on the way to a peer: what is not compressed already is compressed where the link is
    /// the limit, as it always is here.
    pub(crate) fn bytes_relayed(&self, kind: Kind, bytes: u32) -> u32 {
        let packs = kind == Kind::Nar || self.unpacked && kind == Kind::File;
        if packs { (f64::from(bytes) * PEER_WIRE).ceil() as u32 } else { bytes }
    }

    /// How far so many bytes of a file go in its NAR.
    pub(crate) fn unpacked(&self, bytes: u64) -> u64 {
        if self.unpacked { bytes } else { (bytes as f64 * UNPACKED) as u64 }
    }

    /// Bytes outside of a path: file and narinfo.
    pub(crate) fn outside_bytes(&self, path: u32) -> u64 {
        self.paths[path as usize].file + u64::from(NARINFO_BYTES)
    }
}

fn key(kind: SiteKind, path: u32) -> SiteKey {
    let mut id = [kind.to_byte(); 32];
    id[..8].copy_from_slice(&mix(u64::from(path)).to_be_bytes());
    SiteKey { kind, id }
}

/// The prefix under which a path shows in holdings.
pub(crate) const fn prefix(path: u32) -> u32 {
    mix(path as u64 | 1 << 50) as u32
}

/// Stands for the content of a piece before byte `at`: what lies between two offsets is the difference. A gap, a byte too
/// much or a wrong one gives another sum, as it would give another NarHash.
pub(crate) const fn content(piece: u64, at: u64) -> u64 {
    mix(piece << 34 ^ at)
}

/// What the whole of it must add up to.
pub(crate) const fn whole(piece: u64, len: u64) -> u64 {
    content(piece, len).wrapping_sub(content(piece, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_add_up_and_are_cut() {
        let catalog = Catalog::new(&mut Random::new(3, 0), 500, 600_000_000, false);
        let files: u64 = catalog.paths.iter().map(|path| path.file).sum();
        assert!(files.abs_diff(600_000_000) < 1_000_000, "{files}");
        for (number, path) in catalog.paths.iter().enumerate() {
            let pieces = &catalog.pieces[path.first as usize..][..path.segments as usize];
            assert_eq!(pieces.iter().map(|piece| u64::from(piece.len)).sum::<u64>(), path.file);
            assert!(
                pieces.iter().all(|piece| piece.path == number as u32 && piece.kind == Kind::File)
            );
        }
    }
}
