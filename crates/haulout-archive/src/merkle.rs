//! The Merkle tree of a segment.
//!
//! BLAKE2b-256, as everything on Sui and Walrus, so that a contract could check a proof. Leaves and
//! nodes are told apart by a first byte. A level with an odd number of nodes passes its last one up
//! unchanged, so the tree over all leaves is the tree over pages of 2^k leaves: a page is a subtree.

use blake2b_simd::Params;
use std::fmt;

/// 32 bytes of BLAKE2b.
pub type Digest = [u8; 32];

/// First byte of a leaf.
const LEAF: u8 = 0;
/// First byte of an inner node.
const NODE: u8 = 1;
/// First byte of a root.
const ROOT: u8 = 2;

/// Most nodes on a path: enough for 2^40 leaves.
pub const PATH_MAX: usize = 40;

/// BLAKE2b-256 of the parts, one after the other.
#[must_use]
pub fn hash(parts: &[&[u8]]) -> Digest {
    let mut state = Params::new().hash_length(32).to_state();
    for part in parts {
        state.update(part);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(state.finalize().as_bytes());
    digest
}

/// The leaf of an entry: key and hash of the rest.
#[must_use]
pub fn leaf(key: &[u8; 20], body: &Digest) -> Digest {
    hash(&[&[LEAF], key, body])
}

/// The node above two others.
#[must_use]
pub fn node(left: &Digest, right: &Digest) -> Digest {
    hash(&[&[NODE], left, right])
}

/// The root of a segment: the footer holds the root of its tree and the number of leaves.
#[must_use]
pub fn root(footer: &[u8]) -> Digest {
    hash(&[&[ROOT], footer])
}

/// All levels of a tree, leaves first.
#[derive(Clone, PartialEq, Eq)]
pub struct Tree {
    levels: Vec<Vec<Digest>>,
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("leaves", &self.len()).finish_non_exhaustive()
    }
}

impl Tree {
    /// Builds the tree. At most twice the leaves are held.
    #[must_use]
    pub fn new(leaves: Vec<Digest>) -> Self {
        let mut levels = vec![leaves];
        while let Some(last) = levels.last().filter(|last| last.len() > 1) {
            let next = last
                .chunks(2)
                .map(|pair| match pair {
                    [left, right] => node(left, right),
                    [alone] => *alone,
                    _ => unreachable!("chunks of two"),
                })
                .collect();
            levels.push(next);
        }
        Self { levels }
    }

    /// Number of leaves.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.levels.first().map_or(0, Vec::len) as u64
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The root; of an empty tree, zeros.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or([0; 32])
    }

    /// The siblings on the way from leaf `index` to the root, lowest first. Levels on which the
    /// node has no sibling have none here either. Empty when there is no such leaf.
    #[must_use]
    pub fn path(&self, index: u64) -> Vec<Digest> {
        let mut at = index as usize;
        let mut path = Vec::with_capacity(self.levels.len());
        for level in &self.levels {
            if at >= level.len() {
                return Vec::new();
            }
            path.extend(level.get(at ^ 1));
            at /= 2;
        }
        path
    }
}

/// The root to which a leaf and the siblings on its path lead, in a tree of `leaves` leaves.
/// `None` when the number of siblings does not fit the position.
#[must_use]
pub fn climb(mut digest: Digest, mut index: u64, leaves: u64, path: &[Digest]) -> Option<Digest> {
    if index >= leaves {
        return None;
    }
    let mut width = leaves;
    let mut siblings = path.iter();
    while width > 1 {
        if index ^ 1 < width {
            let sibling = siblings.next()?;
            digest = if index & 1 == 0 { node(&digest, sibling) } else { node(sibling, &digest) };
        }
        index /= 2;
        width = width.div_ceil(2);
    }
    siblings.next().is_none().then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: u64) -> Vec<Digest> {
        (0..count).map(|i| hash(&[&i.to_le_bytes()])).collect()
    }

    #[test]
    fn every_path_of_every_small_tree_leads_to_the_root() {
        for count in 1..70u64 {
            let all = leaves(count);
            let tree = Tree::new(all.clone());
            for (i, leaf) in (0u64..).zip(&all) {
                let path = tree.path(i);
                assert_eq!(climb(*leaf, i, count, &path), Some(tree.root()));
                // Another place, another number of leaves, a shorter or a longer path: no.
                assert_ne!(climb(*leaf, i ^ 1, count, &path), Some(tree.root()), "{count} {i}");
                assert_eq!(climb(*leaf, count, count, &path), None);
                let longer = [path.clone(), vec![[0; 32]]].concat();
                assert_eq!(climb(*leaf, i, count, &longer), None);
                if let Some((_, shorter)) = path.split_last() {
                    assert_eq!(climb(*leaf, i, count, shorter), None);
                }
            }
            assert!(tree.path(count).is_empty());
        }
    }

    #[test]
    fn pages_are_subtrees() {
        for (count, page) in [(1u64, 4usize), (4, 4), (5, 4), (37, 8), (64, 16), (1000, 16)] {
            let all = leaves(count);
            let pages = all.chunks(page).map(|page| Tree::new(page.to_vec()).root()).collect();
            assert_eq!(Tree::new(pages).root(), Tree::new(all).root());
        }
    }

    #[test]
    fn blake2b_256_known_answer() {
        // Of nothing, from RFC 7693's algorithm with a 32-byte output.
        let expected = "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8";
        assert_eq!(data_encoding::HEXLOWER.encode(&hash(&[])), expected);
    }
}
