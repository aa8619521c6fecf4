//! The BLAKE3 trees this agent knows.

use std::sync::Arc;

use haulout_mesh::NarTree;
use haulout_nix::NarHash;

use crate::bounded::Bounded;
use crate::disk::Disk;

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
    disk: Disk,
}

impl Trees {
    pub(crate) fn new(disk: Disk) -> Self {
        Self { memory: Bounded::new(TREES_BYTES), disk }
    }

    /// A tree to offer to peers.
    pub(crate) fn get(&self, nar: &NarHash) -> Option<Arc<NarTree>> {
        if let Some(known) = self.memory.get(nar) {
            return Some(known.tree);
        }
        let tree = Arc::new(self.disk.tree(nar)?);
        self.keep(*nar, Arc::clone(&tree), false);
        Some(tree)
    }

    /// A tree that is known to belong to the NAR: every byte under it may be
    /// believed without hashing the whole again.
    pub(crate) fn proven(&self, nar: &NarHash) -> Option<Arc<NarTree>> {
        self.memory.get(nar).filter(|known| known.proven).map(|known| known.tree)
    }

    /// Remembers a tree. A proven one is not replaced by an unproven one.
    pub(crate) fn put(&self, nar: NarHash, nar_size: u64, tree: Arc<NarTree>, proven: bool) {
        if !proven && self.proven(&nar).is_some() {
            return;
        }
        self.disk.put_tree(&nar, nar_size, &tree);
        self.keep(nar, tree, proven);
    }

    fn keep(&self, nar: NarHash, tree: Arc<NarTree>, proven: bool) {
        let weight = tree.groups.len() * 32 + size_of::<NarTree>();
        self.memory.put(nar, KnownTree { tree, proven }, weight);
    }
}
