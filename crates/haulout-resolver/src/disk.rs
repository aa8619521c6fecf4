//! What is remembered over a restart: verified infos, trees, NARs.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use haulout_cache::{Cache, CachedNar, NarWriter, StoredTree, UnixTime};
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

    /// Calls `found` with every info there is. It must not use the cache.
    pub(crate) fn each_info(&self, mut found: impl FnMut(&PathInfo)) {
        if let Some(cache) = &self.0 {
            cache.each_narinfo(|cached| found(&cached.info));
        }
    }

    /// Whether there are NARs at all.
    pub(crate) fn has_nars(&self) -> bool {
        self.0.as_ref().is_some_and(|cache| cache.stats().nars > 0)
    }

    /// Whether the NAR is here; no disk access.
    pub(crate) fn has_nar(&self, nar: &NarHash) -> bool {
        self.0.as_ref().is_some_and(|cache| cache.has_nar(nar).is_some())
    }

    /// The NAR, hashed at least once since the start (blocking: the first
    /// time the whole file is read).
    pub(crate) fn nar(&self, nar: &NarHash) -> Option<CachedNar> {
        self.0.as_ref()?.nar(nar, now()).filter(CachedNar::check)
    }

    /// Begins to add a NAR (blocking).
    pub(crate) fn begin_nar(&self, nar: &NarHash, size: u64) -> Option<NarWriter> {
        self.0.as_ref()?.begin_nar(nar, size, now())
    }

    /// Keeps what was written, which hashes to `nar` (blocking).
    pub(crate) fn finish_nar(&self, writer: NarWriter, nar: &NarHash, holders: u32) -> bool {
        writer.finish(nar, holders, now())
    }

    /// Changes when a NAR has gone.
    pub(crate) fn nars_lost(&self) -> u64 {
        self.0.as_ref().map_or(0, Cache::nars_lost)
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
