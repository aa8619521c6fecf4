//! Names of site objects and of their segments.

use std::fmt;
use std::ops::Range;

/// Bytes per segment of a large object. 335 ms at 100 Mbit/s: long against the round trip that each range request costs,
/// short against the time a lost home may cost. Part of the protocol: all agents of a site cut alike.
pub const SEGMENT_BYTES: u64 = 4 << 20;

/// Bytes per segment of a NAR that several machines fetch from its holders at the same time. 9 ms at 1 Gbit/s, against a round
/// trip of less than one: small, so that within the few megabytes that a stream may be ahead of its reader there are segments
/// of all fetchers, and each of them has something to give to the others.
pub const NAR_SEGMENT_BYTES: u64 = 1 << 20;

/// Largest object, in bytes: as large as the largest NAR with a tree.
pub const OBJECT_MAX: u64 = 32 << 30;

/// Largest document (an object whose size is not known before it is here), in bytes. narinfos have a few kilobytes, the
/// metadata of a blob of 1,000 shards 66 KB.
pub const DOCUMENT_MAX: u64 = 1 << 20;

/// Longest descriptor, in bytes: with the rest of a request it stays below the 256 that a request body may have.
pub const DESCRIPTOR_MAX: usize = 160;

/// What kind of thing an object is. The numbers are the ones on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SiteKind {
    /// A narinfo of an upstream binary cache: a document.
    UpstreamNarinfo,
    /// A (compressed) NAR file of an upstream binary cache.
    UpstreamFile,
    /// A Walrus sliver.
    Sliver,
    /// The metadata of a Walrus blob: a document.
    BlobMetadata,
    /// A small document of an archive: an object, a proof.
    ArchiveDocument,
    /// A NAR that others on the network hold: it comes from them, and not from outside. Its homes are those that fetch now.
    Nar,
}

impl SiteKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::UpstreamNarinfo,
        Self::UpstreamFile,
        Self::Sliver,
        Self::BlobMetadata,
        Self::ArchiveDocument,
        Self::Nar,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::UpstreamNarinfo => 1,
            Self::UpstreamFile => 2,
            Self::Sliver => 3,
            Self::BlobMetadata => 4,
            Self::ArchiveDocument => 5,
            Self::Nar => 6,
        }
    }

    /// Bytes per segment.
    #[must_use]
    pub const fn segment_bytes(self) -> u64 {
        match self {
            Self::Nar => NAR_SEGMENT_BYTES,
            _ => SEGMENT_BYTES,
        }
    }

    /// The kind of a number; `None` for kinds of later versions.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.to_byte() == byte)
    }
}

/// Names a place outside the site: an upstream cache, a Walrus network. Agents that are configured alike name it alike (a
/// hash of its canonical address); nothing can be contacted by knowing the name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutsideId([u8; 32]);

impl OutsideId {
    /// Takes the hash.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 32 bits: what a [`super::Standing`] lists. A collision costs one refused request.
    #[must_use]
    pub const fn tag(&self) -> u32 {
        let [a, b, c, d, ..] = self.0;
        u32::from_be_bytes([a, b, c, d])
    }
}

impl fmt::Debug for OutsideId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutsideId({:08x})", self.tag())
    }
}

/// One object: all agents that want it name it alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteKey {
    /// What it is.
    pub kind: SiteKind,
    /// A hash that names it. How it is made is the business of the kind's code, which must put everything into it that
    /// makes two contents different (for an upstream's file: the cache, the path, the file's name, hash and size).
    pub id: [u8; 32],
}

impl SiteKey {
    /// The key of one of its segments.
    #[must_use]
    pub const fn segment(self, index: u32) -> SegmentKey {
        SegmentKey { object: self, index }
    }
}

impl fmt::Debug for SiteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.id;
        write!(f, "{:?}({:08x})", self.kind, u32::from_be_bytes([a, b, c, d]))
    }
}

/// One segment of an object: the unit that has a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentKey {
    /// Of which object.
    pub object: SiteKey,
    /// Its number, from 0. A document has only number 0.
    pub index: u32,
}

impl SegmentKey {
    /// The bytes that the homes are ranked by: kind, id, index (big-endian).
    #[must_use]
    pub fn rendezvous(&self) -> [u8; 37] {
        let mut bytes = [0; 37];
        bytes[0] = self.object.kind.to_byte();
        bytes[1..33].copy_from_slice(&self.object.id);
        bytes[33..].copy_from_slice(&self.index.to_be_bytes());
        bytes
    }
}

/// How an object of a known size is cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    size: u64,
    segment: u64,
}

impl Cut {
    /// The cut of an object of `size` bytes into segments of [`SEGMENT_BYTES`]; `None` if it is empty or larger than
    /// [`OBJECT_MAX`].
    #[must_use]
    pub const fn new(size: u64) -> Option<Self> {
        Self::into_segments(size, SEGMENT_BYTES)
    }

    /// The cut of an object of such a kind.
    #[must_use]
    pub const fn of(kind: SiteKind, size: u64) -> Option<Self> {
        Self::into_segments(size, kind.segment_bytes())
    }

    const fn into_segments(size: u64, segment: u64) -> Option<Self> {
        if size == 0 || size > OBJECT_MAX { None } else { Some(Self { size, segment }) }
    }

    /// Size of the object in bytes.
    #[must_use]
    pub const fn size(self) -> u64 {
        self.size
    }

    /// Bytes per segment; the last one may have fewer.
    #[must_use]
    pub const fn segment_bytes(self) -> u64 {
        self.segment
    }

    /// Number of segments, at least 1.
    #[must_use]
    pub const fn count(self) -> u32 {
        // At most 32,768: the size is bounded.
        self.size.div_ceil(self.segment) as u32
    }

    /// Where in the object a segment lies; empty beyond the last.
    #[must_use]
    pub fn range(self, index: u32) -> Range<u64> {
        let start = (u64::from(index) * self.segment).min(self.size);
        start..(start + self.segment).min(self.size)
    }

    /// The segment that holds a byte of the object.
    #[must_use]
    pub const fn segment_of(self, offset: u64) -> u32 {
        (offset / self.segment) as u32
    }
}
