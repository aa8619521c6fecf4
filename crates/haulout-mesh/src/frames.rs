//! The wire format as pure functions: hello, requests, answers. Byte layouts and limits are in `docs/protocol.md`.
//!
//! All integers are big-endian. Every length is checked against a named limit before anything is allocated for it.

mod named;

use haulout_nix::{HashPart, NarHash, PathInfo};

use crate::api::NarKey;
use crate::archive::ProofQuestion;
use crate::info;
use crate::membership::PROOF_LEN;
use crate::siteframe::SiteRequest;
use crate::tree::{GROUPS_MAX, NarTree, group_count};
pub use named::{NAMED_BYTES_MAX, decode_named, encode_named};

/// Minor version of the protocol this code speaks; the major version is the ALPN's.
pub const MINOR_VERSION: u16 = 6;
/// First minor version with site requests and standings.
pub const MINOR_SITE: u16 = 1;
/// First minor version with questions for proofs of archives.
pub const MINOR_ARCHIVE: u16 = 2;
/// First minor version with NARs of others as site objects.
pub const MINOR_NARS: u16 = 2;
/// First minor version in which a site object can be asked for "only if you have it".
pub const MINOR_HELD: u16 = 3;
/// First minor version in which a request says that nobody waits for the answer yet.
pub const MINOR_AHEAD: u16 = 4;
/// First minor version with portions of holdings, and with questions for who holds something.
pub const MINOR_PORTIONS: u16 = 5;
/// First minor version in which the frames of a site object may be compressed.
pub const MINOR_PACKED: u16 = 6;
/// Longest hello body accepted (later versions may append fields).
pub const HELLO_BODY_MAX: usize = 256;
/// Longest request body accepted (later versions may append fields).
pub const REQUEST_BODY_MAX: usize = 256;
/// Bytes before a request's body: type and length.
pub const REQUEST_HEADER_LEN: usize = 3;
/// Most path infos in one answer.
pub const PATH_INFOS_MAX: u16 = 512;
/// Longest answer body to a question for path infos.
pub const PATH_INFOS_BYTES_MAX: usize = 2 << 20;
/// Longest answer body to a question for a tree: [`GROUPS_MAX`] groups.
pub const NAR_TREE_BYTES_MAX: usize = 32 + 4 + GROUPS_MAX * 32;
/// Kind of a one-way stream that carries holdings; other kinds are ignored.
pub const UNI_HOLDINGS: u8 = 1;
/// Kind of a one-way stream that carries one standing.
pub const UNI_STANDING: u8 = 2;
/// Kind of a one-way stream that carries a portion of the holdings, after the number of peers that the sender sees.
pub const UNI_PORTION: u8 = 3;

const MAGIC: [u8; 4] = *b"haul";
const FLAG_PROOF: u8 = 1;
const TYPE_PATH_INFOS: u8 = 1;
const TYPE_NAR_TREE: u8 = 2;
const TYPE_NAR_RANGE: u8 = 3;
const TYPE_SITE: u8 = 4;
const TYPE_ARCHIVE_PROOF: u8 = 5;
const TYPE_LOCATE: u8 = 6;

/// Why bytes from a peer are no frame of this protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes end too early.
    #[error("truncated {0}")]
    Truncated(&'static str),
    /// Bytes are left over where none may be.
    #[error("trailing bytes after {0}")]
    Trailing(&'static str),
    /// A length or count is above its limit.
    #[error("{what} of {given} is above the limit of {max}")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// What the peer said.
        given: u64,
        /// The limit.
        max: u64,
    },
    /// A value is not allowed where it stands.
    #[error("bad {0}")]
    Bad(&'static str),
}

/// The first message of each side, on the first bidirectional stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Minor version spoken by the sender; both use the lower one.
    pub minor: u16,
    /// Proof of membership, if the sender has a secret and wants to show it.
    pub proof: Option<[u8; PROOF_LEN]>,
}

/// One question, on a bidirectional stream of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Path infos for a hash part, and of its closure up to `max` in all.
    PathInfos {
        /// The asked path.
        hash: HashPart,
        /// Most infos wanted, 1 to [`PATH_INFOS_MAX`].
        max: u16,
    },
    /// The BLAKE3 tree of a NAR.
    NarTree(NarKey),
    /// A byte range of a NAR.
    NarRange {
        /// Which NAR.
        key: NarKey,
        /// First byte.
        start: u64,
        /// How many bytes, at least one, within the NAR.
        len: u64,
    },
    /// A segment of a site object: relay it, or fetch it for the site.
    Site(SiteRequest),
    /// The newest proof of an archive's state.
    ArchiveProof(ProofQuestion),
    /// Who holds what this prefix stands for, of those that the asked peer knows, itself included.
    Locate {
        /// As in holdings.
        prefix: u32,
    },
    /// A type this version does not know; answered with [`Status::Unsupported`].
    Unknown(u8),
}

/// First byte of every answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The answer follows.
    Ok,
    /// Not here, or not for you: the two are not told apart.
    No,
    /// At a limit; ask somebody else or later.
    Busy,
    /// Unknown request type.
    Unsupported,
    /// The request was malformed.
    BadRequest,
}

impl Status {
    /// The byte on the wire.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::No => 1,
            Self::Busy => 2,
            Self::Unsupported => 3,
            Self::BadRequest => 4,
        }
    }

    /// The status of a byte from the wire.
    ///
    /// # Errors
    /// [`FrameError::Bad`] for a byte without a meaning.
    pub const fn from_byte(byte: u8) -> Result<Self, FrameError> {
        Ok(match byte {
            0 => Self::Ok,
            1 => Self::No,
            2 => Self::Busy,
            3 => Self::Unsupported,
            4 => Self::BadRequest,
            _ => return Err(FrameError::Bad("status")),
        })
    }
}

/// Reads fields off the front of a slice.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], FrameError> {
        let (head, rest) =
            self.rest.split_at_checked(len).ok_or(FrameError::Truncated(self.what))?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (head, rest) =
            self.rest.split_first_chunk::<N>().ok_or(FrameError::Truncated(self.what))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FrameError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, FrameError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FrameError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FrameError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) const fn end(&self) -> Result<(), FrameError> {
        if self.rest.is_empty() { Ok(()) } else { Err(FrameError::Trailing(self.what)) }
    }
}

/// Checks a length a peer announced, before anything is allocated for it.
///
/// # Errors
/// [`FrameError::TooLarge`].
pub fn checked_len(what: &'static str, given: u32, max: usize) -> Result<usize, FrameError> {
    usize::try_from(given).ok().filter(|len| *len <= max).ok_or_else(|| FrameError::TooLarge {
        what,
        given: u64::from(given),
        max: max as u64,
    })
}

impl Hello {
    /// The message with its two-byte length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(48);
        body.extend(MAGIC);
        body.extend(self.minor.to_be_bytes());
        body.push(if self.proof.is_some() { FLAG_PROOF } else { 0 });
        body.extend(self.proof.iter().flatten());
        let mut out = Vec::with_capacity(2 + body.len());
        out.extend(u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend(body);
        out
    }

    /// Reads a body. Unknown flags and bytes after the known fields belong to later minor versions and are ignored.
    ///
    /// # Errors
    /// [`FrameError`] if a known field is missing or wrong.
    pub fn decode(body: &[u8]) -> Result<Self, FrameError> {
        let mut reader = Reader::new(body, "hello");
        if reader.array::<4>()? != MAGIC {
            return Err(FrameError::Bad("magic"));
        }
        let minor = reader.u16()?;
        let flags = reader.u8()?;
        let proof = if flags & FLAG_PROOF == 0 { None } else { Some(reader.array()?) };
        Ok(Self { minor, proof })
    }
}

fn put_key(out: &mut Vec<u8>, key: &NarKey) {
    out.extend(key.path.as_bytes());
    out.extend(key.nar_hash.as_bytes());
    out.extend(key.nar_size.to_be_bytes());
}

fn take_key(reader: &mut Reader<'_>) -> Result<NarKey, FrameError> {
    Ok(NarKey {
        path: HashPart::from_bytes(reader.array()?),
        nar_hash: NarHash::from_bytes(reader.array()?),
        nar_size: reader.u64()?,
    })
}

impl Request {
    /// The message: type, length, body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(80);
        let kind = match self {
            Self::PathInfos { hash, max } => {
                body.extend(hash.as_bytes());
                body.extend(max.to_be_bytes());
                TYPE_PATH_INFOS
            }
            Self::NarTree(key) => {
                put_key(&mut body, key);
                TYPE_NAR_TREE
            }
            Self::NarRange { key, start, len } => {
                put_key(&mut body, key);
                body.extend(start.to_be_bytes());
                body.extend(len.to_be_bytes());
                TYPE_NAR_RANGE
            }
            Self::Site(request) => {
                request.encode_to(&mut body);
                TYPE_SITE
            }
            Self::ArchiveProof(question) => {
                question.encode_to(&mut body);
                TYPE_ARCHIVE_PROOF
            }
            Self::Locate { prefix } => {
                body.extend(prefix.to_be_bytes());
                TYPE_LOCATE
            }
            Self::Unknown(kind) => *kind,
        };
        let mut out = Vec::with_capacity(REQUEST_HEADER_LEN + body.len());
        out.push(kind);
        out.extend(u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend(body);
        out
    }

    /// Length of the body announced by a request's header.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`].
    pub fn body_len(header: [u8; REQUEST_HEADER_LEN]) -> Result<usize, FrameError> {
        let [_, high, low] = header;
        checked_len("request", u32::from(u16::from_be_bytes([high, low])), REQUEST_BODY_MAX)
    }

    /// Reads the body of a request of type `kind`. Bytes after the known fields belong to later minor versions.
    ///
    /// # Errors
    /// [`FrameError`] if a known field is missing or out of range.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Self, FrameError> {
        let mut reader = Reader::new(body, "request");
        Ok(match kind {
            TYPE_PATH_INFOS => {
                let hash = HashPart::from_bytes(reader.array()?);
                let max = reader.u16()?;
                if max == 0 {
                    return Err(FrameError::Bad("count of path infos"));
                }
                Self::PathInfos { hash, max: max.min(PATH_INFOS_MAX) }
            }
            TYPE_NAR_TREE => Self::NarTree(take_key(&mut reader)?),
            TYPE_NAR_RANGE => {
                let key = take_key(&mut reader)?;
                let (start, len) = (reader.u64()?, reader.u64()?);
                if !range_fits(&key, start, len) {
                    return Err(FrameError::Bad("range"));
                }
                Self::NarRange { key, start, len }
            }
            TYPE_SITE => match SiteRequest::decode(&mut reader)? {
                Some(request) => Self::Site(request),
                // A kind of object of a later version: we cannot fetch it.
                None => Self::Unknown(TYPE_SITE),
            },
            TYPE_ARCHIVE_PROOF => Self::ArchiveProof(ProofQuestion::decode(&mut reader)?),
            TYPE_LOCATE => Self::Locate { prefix: reader.u32()? },
            other => Self::Unknown(other),
        })
    }
}

/// Whether a range is not empty and lies within the NAR.
pub(crate) fn range_fits(key: &NarKey, start: u64, len: u64) -> bool {
    len > 0 && start.checked_add(len).is_some_and(|end| end <= key.nar_size)
}

/// Body of the answer to [`Request::PathInfos`]; stops before [`PATH_INFOS_BYTES_MAX`] and [`PATH_INFOS_MAX`].
///
/// `None` if not even the first fits, or there is none.
#[must_use]
pub fn encode_path_infos(infos: &[PathInfo]) -> Option<Vec<u8>> {
    let mut out = vec![0, 0];
    let mut count = 0_u16;
    for info in infos.iter().take(usize::from(PATH_INFOS_MAX)) {
        let Ok(bytes) = info::encode(info) else { break };
        if out.len() + 4 + bytes.len() > PATH_INFOS_BYTES_MAX {
            break;
        }
        out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend(bytes);
        count += 1;
    }
    if count == 0 {
        return None;
    }
    if let Some(head) = out.first_chunk_mut::<2>() {
        *head = count.to_be_bytes();
    }
    Some(out)
}

/// Reads the answer to a question for at most `max` infos about `asked`: at least one, the first being the asked one.
///
/// # Errors
/// [`FrameError`].
pub fn decode_path_infos(
    body: &[u8],
    asked: &HashPart,
    max: u16,
) -> Result<Vec<PathInfo>, FrameError> {
    if body.len() > PATH_INFOS_BYTES_MAX {
        return Err(too_large("path infos", body.len(), PATH_INFOS_BYTES_MAX));
    }
    let mut reader = Reader::new(body, "path infos");
    let count = reader.u16()?;
    if count == 0 {
        return Err(FrameError::Bad("count of path infos"));
    }
    if count > max {
        return Err(too_large("count of path infos", usize::from(count), usize::from(max)));
    }
    let mut infos = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let len = checked_len("path info", reader.u32()?, info::ENCODED_MAX)?;
        infos.push(info::decode(reader.take(len)?)?);
    }
    reader.end()?;
    if infos.first().is_some_and(|first| first.path.hash_part() != *asked) {
        return Err(FrameError::Bad("path info: not the one that was asked for"));
    }
    Ok(infos)
}

/// Body of the answer to [`Request::NarTree`], or `None` if the tree is too long to send.
#[must_use]
pub fn encode_nar_tree(tree: &NarTree) -> Option<Vec<u8>> {
    if tree.groups.is_empty() || tree.groups.len() > GROUPS_MAX {
        return None;
    }
    let mut out = Vec::with_capacity(36 + tree.groups.len() * 32);
    out.extend(tree.root.as_bytes());
    out.extend(u32::try_from(tree.groups.len()).ok()?.to_be_bytes());
    for group in &tree.groups {
        out.extend(group);
    }
    Some(out)
}

/// Reads a tree and checks it against the NAR's size and its own root.
///
/// # Errors
/// [`FrameError`].
pub fn decode_nar_tree(body: &[u8], nar_size: u64) -> Result<NarTree, FrameError> {
    let mut reader = Reader::new(body, "tree");
    let root = blake3::Hash::from_bytes(reader.array()?);
    let count = checked_len("tree", reader.u32()?, GROUPS_MAX)?;
    if count as u64 != group_count(nar_size) {
        return Err(FrameError::Bad("tree: not the NAR's number of groups"));
    }
    let groups: Vec<[u8; 32]> = reader.take(count.saturating_mul(32))?.as_chunks::<32>().0.to_vec();
    reader.end()?;
    let tree = NarTree { root, groups };
    tree.check(nar_size).map_err(|_| FrameError::Bad("tree: groups do not merge to the root"))?;
    Ok(tree)
}

pub(crate) const fn too_large(what: &'static str, given: usize, max: usize) -> FrameError {
    FrameError::TooLarge { what, given: given as u64, max: max as u64 }
}

#[cfg(test)]
mod tests;
