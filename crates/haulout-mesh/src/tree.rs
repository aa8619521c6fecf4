//! The BLAKE3 tree of a NAR: one chaining value per 64 KiB group, checked against the root.
//!
//! With it a receiver checks every group as it arrives, whoever sent it. The tree itself is checked once on receipt: its
//! groups must merge to its root, so a peer cannot mix groups of different trees. Whether the root belongs to the NAR that
//! was asked for is known only once the NAR's SHA-256 has been confirmed, or if the root came from a trusted place.

use blake3::hazmat::{self, HasherExt, Mode};

/// Bytes per group: 64 KiB costs 0.05 % of the NAR and verifies at memory speed.
pub const GROUP_SIZE: u64 = 64 << 10;

/// Longest tree that is sent or accepted: 2^19 groups, a NAR of 32 GiB, 16 MiB of hashes.
pub const GROUPS_MAX: usize = 1 << 19;

/// Why a tree was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The number of groups does not fit the NAR's size.
    #[error("tree has {given} groups, a NAR of {nar_size} bytes has {expected}")]
    Count {
        /// Groups in the tree.
        given: usize,
        /// Groups the NAR has.
        expected: u64,
        /// Size of the NAR in bytes.
        nar_size: u64,
    },
    /// The groups do not merge to the root.
    #[error("the groups of the tree do not merge to its root")]
    Root,
}

/// Root and group hashes of one NAR.
///
/// A NAR of one group (≤ 64 KiB) has the root itself as its only group, because BLAKE3 finalises a lone subtree as root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NarTree {
    /// BLAKE3 of the whole NAR.
    pub root: blake3::Hash,
    /// Chaining values of the 64 KiB groups in order.
    pub groups: Vec<[u8; 32]>,
}

/// How many groups a NAR of this size has (at least one).
#[must_use]
pub fn group_count(nar_size: u64) -> u64 {
    nar_size.div_ceil(GROUP_SIZE).max(1)
}

impl NarTree {
    /// The tree over group values computed elsewhere (a receiver has them all once it has checked every group).
    ///
    /// # Errors
    /// [`TreeError::Count`] when their number does not fit a NAR of `nar_size` bytes.
    pub fn from_groups(groups: Vec<[u8; 32]>, nar_size: u64) -> Result<Self, TreeError> {
        let expected = group_count(nar_size);
        if groups.len() as u64 != expected {
            return Err(TreeError::Count { given: groups.len(), expected, nar_size });
        }
        Ok(Self { root: merged_root(&groups, nar_size), groups })
    }

    /// Checks that the tree is one of a NAR of `nar_size` bytes: the right number of groups, merging to the root.
    ///
    /// # Errors
    /// [`TreeError`] says which of the two fails.
    pub fn check(&self, nar_size: u64) -> Result<(), TreeError> {
        let expected = group_count(nar_size);
        if self.groups.len() as u64 != expected {
            return Err(TreeError::Count { given: self.groups.len(), expected, nar_size });
        }
        if merged_root(&self.groups, nar_size) == self.root { Ok(()) } else { Err(TreeError::Root) }
    }

    /// Whether `data` is group number `index` of the NAR. `data` must be the whole group.
    #[must_use]
    pub fn group_holds(&self, index: u64, data: &[u8]) -> bool {
        let Some(expected) = usize::try_from(index).ok().and_then(|at| self.groups.get(at)) else {
            return false;
        };
        let only = self.groups.len() == 1;
        // BLAKE3 has no chaining value of nothing except as a root.
        (only || !data.is_empty())
            && data.len() as u64 <= GROUP_SIZE
            && group_value(index, data, only) == *expected
    }
}

/// Chaining value of a group, or the root hash if it is the only one.
fn group_value(index: u64, data: &[u8], only: bool) -> [u8; 32] {
    if only {
        return *blake3::hash(data).as_bytes();
    }
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(index.saturating_mul(GROUP_SIZE));
    hasher.update(data);
    hasher.finalize_non_root()
}

/// Root over at least one group; the count must fit `nar_size` (checked by the callers).
fn merged_root(groups: &[[u8; 32]], nar_size: u64) -> blake3::Hash {
    match groups {
        [] => blake3::Hash::from_bytes([0; 32]),
        [only] => blake3::Hash::from_bytes(*only),
        _ => {
            let (left, right, left_len) = halves(groups, nar_size);
            hazmat::merge_subtrees_root(
                &merged(left, left_len),
                &merged(right, nar_size - left_len),
                Mode::Hash,
            )
        }
    }
}

/// Chaining value over a non-root subtree. Depth is at most log2 of [`GROUPS_MAX`].
fn merged(groups: &[[u8; 32]], len: u64) -> hazmat::ChainingValue {
    if let [only] = groups {
        return *only;
    }
    let (left, right, left_len) = halves(groups, len);
    hazmat::merge_subtrees_non_root(
        &merged(left, left_len),
        &merged(right, len - left_len),
        Mode::Hash,
    )
}

/// Splits at the boundary BLAKE3 uses: the left half is the largest power of two of chunks below the whole.
fn halves(groups: &[[u8; 32]], len: u64) -> (&[[u8; 32]], &[[u8; 32]], u64) {
    let left_len = hazmat::left_subtree_len(len);
    let at = usize::try_from(left_len / GROUP_SIZE).unwrap_or(usize::MAX).min(groups.len());
    let (left, right) = groups.split_at(at);
    (left, right, left_len)
}

/// Builds a [`NarTree`] from the NAR's bytes in order, whatever the size of the pieces.
#[derive(Debug)]
pub struct NarTreeBuilder {
    hasher: blake3::Hasher,
    in_group: u64,
    len: u64,
    groups: Vec<[u8; 32]>,
}

impl Default for NarTreeBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl NarTreeBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new() -> Self {
        Self { hasher: blake3::Hasher::new(), in_group: 0, len: 0, groups: Vec::new() }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.in_group == GROUP_SIZE {
                self.close_group();
            }
            let room = usize::try_from(GROUP_SIZE - self.in_group).unwrap_or(usize::MAX);
            let (now, later) = data.split_at(room.min(data.len()));
            self.hasher.update(now);
            self.in_group += now.len() as u64;
            self.len += now.len() as u64;
            data = later;
        }
    }

    /// Ends a full group that is known not to be the last one (so never the only one).
    fn close_group(&mut self) {
        self.groups.push(self.hasher.finalize_non_root());
        self.hasher = blake3::Hasher::new();
        self.hasher.set_input_offset(self.len);
        self.in_group = 0;
    }

    /// The tree of everything taken so far.
    #[must_use]
    pub fn finish(mut self) -> NarTree {
        let last = if self.groups.is_empty() {
            *self.hasher.finalize().as_bytes()
        } else {
            self.hasher.finalize_non_root()
        };
        self.groups.push(last);
        NarTree { root: merged_root(&self.groups, self.len), groups: self.groups }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 31 + at / 977) as u8).collect()
    }

    #[test]
    fn the_root_is_plain_blake3_at_every_awkward_size() {
        let group = GROUP_SIZE as usize;
        for len in [
            0,
            1,
            1024,
            group - 1,
            group,
            group + 1,
            2 * group,
            3 * group + 5,
            7 * group,
            8 * group + 1,
            13 * group,
        ] {
            let data = bytes(len);
            let mut builder = NarTreeBuilder::new();
            for piece in data.chunks(10_007) {
                builder.update(piece);
            }
            let tree = builder.finish();
            assert_eq!(tree.root, blake3::hash(&data), "{len}");
            tree.check(len as u64).unwrap();
            assert_eq!(NarTree::from_groups(tree.groups.clone(), len as u64).unwrap(), tree);
            for (index, piece) in data.chunks(group).enumerate() {
                assert!(tree.group_holds(index as u64, piece), "{len} {index}");
                let mut wrong = piece.to_vec();
                wrong[0] ^= 1;
                assert!(!tree.group_holds(index as u64, &wrong));
            }
        }
    }

    #[test]
    fn forged_trees_are_refused() {
        let data = bytes(5 * GROUP_SIZE as usize + 9);
        let mut builder = NarTreeBuilder::new();
        builder.update(&data);
        let tree = builder.finish();
        let size = data.len() as u64;
        let mut swapped = tree.clone();
        swapped.groups.swap(0, 1);
        assert_eq!(swapped.check(size), Err(TreeError::Root));
        let mut short = tree.clone();
        short.groups.pop();
        assert!(matches!(short.check(size), Err(TreeError::Count { .. })));
        assert!(matches!(tree.check(size + GROUP_SIZE), Err(TreeError::Count { .. })));
        assert!(!tree.group_holds(6, &data[..10]));
        assert!(!tree.group_holds(u64::MAX, &data[..10]));
        assert!(!tree.group_holds(0, &data));
    }
}
