//! Proofs that a segment has a path, or has it not, against nothing but the segment's root.
//!
//! A peer that holds an index can so answer one that does not, in about a kilobyte.

use crate::{
    Entry,
    merkle::{self, Digest, PATH_MAX, Tree},
    segment::{Directory, FOOTER_BYTES, Footer, Page},
    wire::{Cursor, FormatError, put_bytes, put_number},
};
use haulout_nix::HashPart;

/// Longest proof, in bytes: the longest entry with the longest paths.
pub const PROOF_BYTES_MAX: usize = crate::entry::ENTRY_BYTES_MAX + (16 << 10);

const ABSENT: u8 = 0;
const PRESENT: u8 = 1;

/// A proof about one key in one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    footer: Footer,
    claim: Claim,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Claim {
    /// The entry at a position.
    Present { index: u64, path: Vec<Digest>, entry: Vec<u8> },
    /// The neighbours of the place where the key would be: the one before and the one at `index`.
    Absent { index: u64, left: Option<Neighbour>, right: Option<Neighbour> },
}

/// An entry of which only the key is of interest.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Neighbour {
    key: [u8; 20],
    body: Digest,
    path: Vec<Digest>,
}

/// Why a proof was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProveError {
    /// The place is at the end of the page: the first entry of the next page is needed too.
    #[error("page {0} is needed as well")]
    NeedsPage(u64),
    /// The pages are not those that the directory names.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// Makes the proof about `key`. `tree` is the directory's [`Directory::page_tree`], `page` the page
/// that [`Directory::page_of`] names, `next` the one after it, where [`ProveError::NeedsPage`] asked for it.
///
/// # Errors
/// As the kinds of [`ProveError`] say.
pub fn prove(
    directory: &Directory,
    tree: &Tree,
    key: &HashPart,
    page: &Page,
    next: Option<&Page>,
) -> Result<Proof, ProveError> {
    let number = directory.page_of(key);
    let footer = directory.footer().clone();
    let start = number << footer.page_shift;
    let claim = match page.position(key) {
        Ok(at) => Claim::Present {
            index: start + at as u64,
            path: path_of(tree, number, page, at),
            entry: page.bytes(at).unwrap_or_default().to_vec(),
        },
        Err(at) => {
            let left =
                at.checked_sub(1).map(|left| neighbour(tree, number, page, left)).transpose()?;
            let right = if at < page.len() {
                Some(neighbour(tree, number, page, at)?)
            } else if number + 1 < footer.pages() {
                let next = next.ok_or(ProveError::NeedsPage(number + 1))?;
                Some(neighbour(tree, number + 1, next, 0)?)
            } else {
                None
            };
            Claim::Absent { index: start + at as u64, left, right }
        }
    };
    Ok(Proof { footer, claim })
}

/// The path from an entry of a page to the root of the whole tree.
fn path_of(tree: &Tree, number: u64, page: &Page, at: usize) -> Vec<Digest> {
    let mut path = Tree::new(page.leaves().to_vec()).path(at as u64);
    path.extend(tree.path(number));
    path
}

fn neighbour(tree: &Tree, number: u64, page: &Page, at: usize) -> Result<Neighbour, FormatError> {
    let bytes = page.bytes(at).ok_or(FormatError::Short("a page"))?;
    let (key, body) = bytes.split_first_chunk().ok_or(FormatError::Short("an entry"))?;
    Ok(Neighbour { key: *key, body: merkle::hash(&[body]), path: path_of(tree, number, page, at) })
}

impl Proof {
    /// The entry of `key` in the segment with that root; `None` when it is proven that there is none.
    ///
    /// # Errors
    /// When the proof proves nothing about this key in this segment.
    pub fn verify(&self, root: &Digest, key: &HashPart) -> Result<Option<Entry>, FormatError> {
        if self.footer.root() != *root {
            return Err(FormatError::Hash("an index footer"));
        }
        match &self.claim {
            Claim::Present { index, path, entry } => {
                self.climbs(Entry::leaf(entry)?, *index, path)?;
                let entry = Entry::decode(entry)?;
                if entry.key == *key {
                    Ok(Some(entry))
                } else {
                    Err(FormatError::Value("the key of a proof"))
                }
            }
            Claim::Absent { index, left, right } => {
                let leaves = self.footer.leaves;
                let gap = FormatError::Value("the gap of an absence proof");
                if *index > leaves
                    || left.is_some() != (*index > 0)
                    || right.is_some() != (*index < leaves)
                {
                    return Err(gap);
                }
                if let Some(left) = left {
                    self.climbs(left.leaf(), index - 1, &left.path)?;
                    if left.key >= *key.as_bytes() {
                        return Err(gap);
                    }
                }
                if let Some(right) = right {
                    self.climbs(right.leaf(), *index, &right.path)?;
                    if right.key <= *key.as_bytes() {
                        return Err(gap);
                    }
                }
                Ok(None)
            }
        }
    }

    fn climbs(&self, leaf: Digest, index: u64, path: &[Digest]) -> Result<(), FormatError> {
        match merkle::climb(leaf, index, self.footer.leaves, path) {
            Some(root) if root == self.footer.tree_root => Ok(()),
            _ => Err(FormatError::Hash("a Merkle path")),
        }
    }

    /// The bytes for the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.footer.encode().to_vec();
        match &self.claim {
            Claim::Present { index, path, entry } => {
                out.push(PRESENT);
                put_number(&mut out, *index);
                put_path(&mut out, path);
                put_bytes(&mut out, entry);
            }
            Claim::Absent { index, left, right } => {
                out.push(ABSENT);
                put_number(&mut out, *index);
                for neighbour in [left, right].into_iter().flatten() {
                    out.extend_from_slice(&neighbour.key);
                    out.extend_from_slice(&neighbour.body);
                    put_path(&mut out, &neighbour.path);
                }
            }
        }
        out
    }

    /// Reads a proof. It proves nothing before [`Proof::verify`].
    ///
    /// # Errors
    /// When the bytes are no proof.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() > PROOF_BYTES_MAX {
            return Err(FormatError::Limit { what: "a proof", max: PROOF_BYTES_MAX as u64 });
        }
        let mut cursor = Cursor::new(bytes);
        let footer = Footer::decode_unproven(cursor.take(FOOTER_BYTES, "a proof")?)?;
        let kind = cursor.byte("a proof")?;
        let index = cursor.number(footer.leaves, "a proof's position")?;
        let claim = match kind {
            PRESENT => {
                let path = path(&mut cursor)?;
                let len = cursor.count(crate::entry::ENTRY_BYTES_MAX, "an entry")?;
                Claim::Present { index, path, entry: cursor.take(len, "an entry")?.to_vec() }
            }
            ABSENT => {
                let left = if index > 0 { Some(Neighbour::decode(&mut cursor)?) } else { None };
                let right = if index < footer.leaves {
                    Some(Neighbour::decode(&mut cursor)?)
                } else {
                    None
                };
                Claim::Absent { index, left, right }
            }
            _ => return Err(FormatError::Value("the kind of a proof")),
        };
        cursor.end("a proof")?;
        Ok(Self { footer, claim })
    }
}

impl Neighbour {
    fn leaf(&self) -> Digest {
        merkle::leaf(&self.key, &self.body)
    }

    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            key: cursor.array("a neighbour")?,
            body: cursor.array("a neighbour")?,
            path: path(cursor)?,
        })
    }
}

fn put_path(out: &mut Vec<u8>, path: &[Digest]) {
    out.push(path.len() as u8);
    for digest in path {
        out.extend_from_slice(digest);
    }
}

fn path(cursor: &mut Cursor<'_>) -> Result<Vec<Digest>, FormatError> {
    let count = usize::from(cursor.byte("a Merkle path")?);
    if count > PATH_MAX {
        return Err(FormatError::Limit {
            what: "the length of a Merkle path",
            max: PATH_MAX as u64,
        });
    }
    (0..count).map(|_| cursor.array("a Merkle path")).collect()
}
