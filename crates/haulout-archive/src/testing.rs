//! Generated entries, for tests, benches and the example. The same number gives the same entry.

use crate::entry::{Compression, Entry, Extent, NarPlace, Path};
use haulout_nix::{HashPart, NarHash, PathInfo, Signature, StorePath};

/// Bytes that follow from a number.
fn bytes<const N: usize>(kind: u8, number: u64) -> [u8; N] {
    let mut out = [0; N];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[kind]).update(&number.to_le_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

const WORDS: [&str; 16] = [
    "lib",
    "python3.13",
    "perl5.40",
    "rust",
    "haskell",
    "gnome",
    "kde",
    "texlive",
    "linux",
    "node",
    "ocaml",
    "go",
    "gtk",
    "qt",
    "font",
    "kernel",
];

fn store_path(hash: [u8; 20], number: u64, suffix: &str) -> Option<StorePath> {
    let [a, b, c, d] = bytes::<4>(b'n', number);
    let first = WORDS.get(usize::from(a) % WORDS.len())?;
    let second = WORDS.get(usize::from(b) % WORDS.len())?;
    let name = format!("{first}-{second}{number}-{}.{}{suffix}", c % 20, d % 40).parse().ok()?;
    Some(StorePath::new(HashPart::from_bytes(hash), name))
}

/// The path of a number: hash parts are spread evenly, as real ones are.
#[must_use]
pub fn path(number: u64) -> StorePath {
    let hash = bytes(b'h', number);
    store_path(hash, number, "").unwrap_or_else(|| unreachable!("generated names are allowed"))
}

/// An entry of a number, like those of cache.nixos.org: about five references, most of them to a
/// few hundred paths that everything needs; one signature; seldom a content address.
#[must_use]
pub fn entry(number: u64, paths: u64) -> Entry {
    let [kind, count, day, ..] = bytes::<8>(b'k', number);
    let mut references: Vec<StorePath> = (0..u64::from(count % 10))
        .map(|i| {
            let pick = u64::from_le_bytes(bytes(b'r', number.wrapping_mul(16) + i));
            path(if i % 3 == 2 { pick % paths.max(1) } else { pick % paths.clamp(1, 300) })
        })
        .collect();
    references.sort();
    references.dedup();
    let nar_hash = NarHash::from_bytes(bytes(b's', number));
    let size = u64::from_le_bytes(bytes(b'z', number)) % 20_000_000 + 120;
    let signature = Signature::new("cache.nixos.org-1", bytes(b'x', number)).ok();
    let ca = if kind == 0 { format!("fixed:r:{nar_hash}").parse().ok() } else { None };
    let info = PathInfo {
        path: path(number),
        nar_hash,
        nar_size: size,
        references,
        deriver: (kind % 8 != 0).then(|| store_path(bytes(b'd', number), number, ".drv")).flatten(),
        signatures: signature.into_iter().collect(),
        ca,
    };
    let extent = Extent {
        pack: (number / 55) as u32,
        offset: number % 55 * 2_300_000,
        length: size / 4 + 30,
    };
    let nar = NarPlace {
        root: bytes(b'b', number),
        compression: Compression::Zstd,
        extents: vec![extent],
    };
    Entry::path(Path { info, nar, last_asked: 20_000 + u32::from(day) })
}

/// The packs into which [`entry`] points.
pub fn packs(paths: u64) -> impl Iterator<Item = crate::segment::BlobRecord> {
    (0..paths.div_ceil(55)).map(|number| crate::segment::BlobRecord {
        blob_id: bytes(b'p', number),
        object: bytes(b'o', number),
        size: 134_000_000 + number,
        end_epoch: 60,
    })
}

/// Sorted numbers of `paths` entries, by their keys.
#[must_use]
pub fn sorted(paths: u64) -> Vec<u64> {
    let mut numbers: Vec<([u8; 20], u64)> = (0..paths).map(|n| (bytes(b'h', n), n)).collect();
    numbers.sort_unstable();
    numbers.into_iter().map(|(_, number)| number).collect()
}

/// A segment in one blob.
#[derive(Debug, Clone)]
pub struct Segment {
    /// The blob.
    pub blob: Vec<u8>,
    /// Its root.
    pub root: crate::Digest,
}

impl Segment {
    /// Writes entries, which must be in order, into one blob.
    ///
    /// # Errors
    /// As the writer.
    pub fn write(
        entries: impl IntoIterator<Item = Entry>,
        packs: impl IntoIterator<Item = crate::segment::BlobRecord>,
        page_shift: u8,
    ) -> Result<Self, crate::FormatError> {
        let mut writer = crate::segment::SegmentWriter::new(page_shift);
        let mut blob = Vec::new();
        for entry in entries {
            blob.extend(writer.push(&entry)?.unwrap_or_default());
        }
        blob.extend(writer.last_page()?.unwrap_or_default());
        let (rest, footer) = writer.finish(packs, &[])?;
        blob.extend(rest);
        Ok(Self { blob, root: footer.root() })
    }
}
