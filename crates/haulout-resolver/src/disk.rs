//! What is remembered over a restart: verified infos and trees.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use haulout_cache::{Cache, StoredTree, UnixTime};
use haulout_mesh::NarTree;
use haulout_nix::{HashPart, NarHash, PathInfo};

use crate::trust::Proof;

/// Trees of NARs smaller than this are computed again rather than kept, in
/// groups: a mebibyte takes 0.2 ms.
const GROUPS_MIN: usize = 16;

/// The cache on disk, if there is one.
#[derive(Clone, Default)]
pub(crate) struct Disk(Option<Cache>);

impl Disk {
    pub(crate) fn new(cache: Option<Cache>) -> Self {
        Self(cache)
    }

    /// The info of a path. Whether it is still believed is for the caller to
    /// check: keys can be withdrawn.
    pub(crate) fn info(&self, hash: &HashPart) -> Option<Arc<PathInfo>> {
        self.0.as_ref()?.narinfo(hash).map(|cached| Arc::new(cached.info))
    }

    pub(crate) fn put_info(&self, info: &PathInfo, proof: &Proof) {
        if let Some(cache) = &self.0 {
            let verified_by = match proof {
                Proof::Signed(key) => key,
                Proof::ContentAddressed => "ca",
            };
            cache.put_narinfo(info, verified_by, now());
        }
    }

    pub(crate) fn tree(&self, nar: &NarHash) -> Option<NarTree> {
        let stored = self.0.as_ref()?.tree(nar)?;
        let tree = NarTree { root: stored.root.into(), groups: stored.groups };
        tree.check(stored.nar_size).is_ok().then_some(tree)
    }

    pub(crate) fn put_tree(&self, nar: &NarHash, nar_size: u64, tree: &NarTree) {
        if let Some(cache) = self.0.as_ref().filter(|_| tree.groups.len() >= GROUPS_MIN) {
            let stored =
                StoredTree { nar_size, root: *tree.root.as_bytes(), groups: tree.groups.clone() };
            cache.put_tree(nar, &stored, now());
        }
    }

    /// Writes what has gathered (blocking).
    pub(crate) fn tick(&self) {
        if let Some(cache) = &self.0 {
            cache.tick(now());
        }
    }

    /// The cache itself.
    pub(crate) fn cache(&self) -> Option<&Cache> {
        self.0.as_ref()
    }
}

fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}
