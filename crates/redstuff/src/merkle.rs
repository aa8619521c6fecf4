//! Merkle trees over symbols and over hash pairs.
//!
//! A level with an odd number of nodes, unless it is the root, gets one *empty* node
//! of 32 zero bytes at its end.

use crate::{
    bcs::{BcsError, Reader, Wire, write_vec},
    hash::{self, Digest, EMPTY, Node},
};

/// More levels than a tree over 2^32 leaves has: no honest proof is longer.
const PROOF_NODES_MAX: usize = 32;

/// A node as it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MerkleNode {
    /// Fills up an odd level; 32 zero bytes wherever it is hashed.
    Empty,
    /// A hash.
    Digest(Digest),
}

impl MerkleNode {
    /// The bytes that enter hashes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        match self {
            Self::Empty => Digest::new(EMPTY),
            Self::Digest(digest) => *digest,
        }
    }
}

impl From<Node> for MerkleNode {
    fn from(node: Node) -> Self {
        Self::Digest(Digest::new(node))
    }
}

impl From<Digest> for MerkleNode {
    fn from(digest: Digest) -> Self {
        Self::Digest(digest)
    }
}

impl Wire for MerkleNode {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Empty => out.push(0),
            Self::Digest(digest) => {
                out.push(1);
                out.extend_from_slice(digest.as_bytes());
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        match reader.variant()? {
            0 => Ok(Self::Empty),
            1 => Ok(Self::Digest(Digest::new(reader.array()?))),
            found => Err(BcsError::UnknownVariant { what: "Merkle node", found }),
        }
    }
}

/// The root over leaf hashes, without keeping the tree.
pub(crate) fn root(mut hashes: Vec<Node>) -> Node {
    root_in_place(&mut hashes)
}

/// The root over leaf hashes; leaves garbage behind.
pub(crate) fn root_in_place(hashes: &mut [Node]) -> Node {
    let mut count = hashes.len();
    while count > 1 {
        count = hash::parents(&mut hashes[..count]);
    }
    hashes.first().copied().unwrap_or(EMPTY)
}

/// A whole tree, for making proofs.
#[derive(Debug, Clone)]
pub struct MerkleTree {
    levels: Vec<Vec<Node>>,
}

impl MerkleTree {
    /// Builds the tree over the given leaves' contents.
    pub fn new<T: AsRef<[u8]>>(leaves: impl IntoIterator<Item = T>) -> Self {
        Self::from_leaf_hashes(leaves.into_iter().map(|leaf| hash::leaf(leaf.as_ref())).collect())
    }

    pub(crate) fn from_leaf_hashes(hashes: Vec<Node>) -> Self {
        let mut levels = vec![hashes];
        while let Some(last) = levels.last().filter(|last| last.len() > 1) {
            let mut next = last.clone();
            let count = hash::parents(&mut next);
            next.truncate(count);
            levels.push(next);
        }
        Self { levels }
    }

    /// The root; [`MerkleNode::Empty`] if there are no leaves.
    #[must_use]
    pub fn root(&self) -> MerkleNode {
        match self.levels.last().and_then(|top| top.first()) {
            Some(&node) => node.into(),
            None => MerkleNode::Empty,
        }
    }

    /// How many leaves there are.
    #[must_use]
    pub fn leaf_count(&self) -> usize {
        self.levels.first().map_or(0, Vec::len)
    }

    /// The proof for leaf `index`; `None` if there is no such leaf.
    #[must_use]
    pub fn proof(&self, index: usize) -> Option<MerkleProof> {
        if index >= self.leaf_count() {
            return None;
        }
        let below_root = self.levels.split_last().map_or(&[][..], |(_, rest)| rest);
        let sibling = |(height, level): (usize, &Vec<Node>)| {
            let node = level.get((index >> height) ^ 1);
            node.map_or(MerkleNode::Empty, |&node| node.into())
        };
        Some(MerkleProof { path: below_root.iter().enumerate().map(sibling).collect() })
    }
}

/// Proof that a leaf is in a tree: siblings from the leaf's level upwards.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MerkleProof {
    /// The siblings.
    pub path: Vec<MerkleNode>,
}

impl MerkleProof {
    /// Whether `leaf` is the content of leaf `index` of a tree of `leaf_count` leaves with that `root`.
    #[must_use]
    pub fn verifies(
        &self,
        leaf: &[u8],
        index: usize,
        leaf_count: usize,
        root: &MerkleNode,
    ) -> bool {
        self.verifies_hash(hash::leaf(leaf), index, leaf_count, root)
    }

    pub(crate) fn verifies_hash(
        &self,
        leaf: Node,
        mut index: usize,
        leaf_count: usize,
        root: &MerkleNode,
    ) -> bool {
        if index >= leaf_count || self.path.len() != depth(leaf_count) {
            return false;
        }
        let mut node = leaf;
        for sibling in &self.path {
            let sibling = *sibling.digest().as_bytes();
            node = if index.is_multiple_of(2) {
                hash::inner(&node, &sibling)
            } else {
                hash::inner(&sibling, &node)
            };
            index /= 2;
        }
        MerkleNode::from(node) == *root
    }
}

impl Wire for MerkleProof {
    fn write(&self, out: &mut Vec<u8>) {
        write_vec(out, &self.path);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        Ok(Self { path: reader.vec("Merkle proof nodes", 1, PROOF_NODES_MAX)? })
    }
}

/// Levels above the leaves: `ceil(log2(count))`.
pub(crate) fn depth(leaf_count: usize) -> usize {
    leaf_count.next_power_of_two().trailing_zeros() as usize
}
