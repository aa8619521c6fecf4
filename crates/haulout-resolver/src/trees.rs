//! The BLAKE3 trees this agent knows.

use std::sync::Arc;

use haulout_mesh::NarTree;
use haulout_nix::NarHash;

use crate::bounded::Bounded;

/// What all trees together may take, in bytes: those of 16 GiB of NARs.
const TREES_BYTES: usize = 8 << 20;

/// A tree, and whether its NAR was seen whole under its NarHash.
#[derive(Clone, Debug)]
pub(crate) struct KnownTree {
    pub(crate) tree: Arc<NarTree>,
    /// The bytes under this tree hashed to the NarHash, here.
    pub(crate) proven: bool,
}

/// Trees by NarHash.
pub(crate) struct Trees {
    memory: Bounded<NarHash, KnownTree>,
}

impl Trees {
    pub(crate) fn new() -> Self {
        Self { memory: Bounded::new(TREES_BYTES) }
    }

    /// A tree to offer to peers.
    pub(crate) fn get(&self, nar: &NarHash) -> Option<Arc<NarTree>> {
        self.memory.get(nar).map(|known| known.tree)
    }

    /// A tree that is known to belong to the NAR: every byte under it may be
    /// believed without hashing the whole again.
    pub(crate) fn proven(&self, nar: &NarHash) -> Option<Arc<NarTree>> {
        self.memory.get(nar).filter(|known| known.proven).map(|known| known.tree)
    }

    /// Remembers a tree. A proven one is not replaced by an unproven one.
    pub(crate) fn put(&self, nar: NarHash, tree: Arc<NarTree>, proven: bool) {
        if !proven && self.proven(&nar).is_some() {
            return;
        }
        let weight = tree.groups.len() * 32 + size_of::<NarTree>();
        self.memory.put(nar, KnownTree { tree, proven }, weight);
    }

    /// What is held: trees, bytes.
    pub(crate) fn memory(&self) -> (usize, usize) {
        (self.memory.len(), self.memory.weight())
    }
}
