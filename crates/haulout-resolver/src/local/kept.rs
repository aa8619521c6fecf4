//! NARs in the cache: what this machine can give although its own store does
//! not have it (any more, or not yet).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use haulout_cache::CachedNar;
use haulout_mesh::NarKey;
use haulout_nix::{HashPart, NarHash, PathInfo};

use super::index::{Checked, Standing};
use super::{LocalStore, SharePolicy};
use crate::disk::Disk;

#[derive(Clone, Copy)]
struct Entry {
    nar: NarHash,
    standing: Standing,
}

/// The paths whose NARs are in the cache. As many at most as the cache holds
/// NARs (100,000), in about 80 bytes each.
pub(super) struct Kept {
    disk: Disk,
    paths: RwLock<HashMap<HashPart, Entry>>,
    /// [`Disk::nars_lost`] when it was last looked.
    lost: AtomicU64,
}

impl Kept {
    /// Reads what is there (blocking).
    pub(super) fn open(disk: Disk, policy: &SharePolicy) -> Self {
        let mut paths = HashMap::new();
        if disk.has_nars() {
            disk.each_info(|info| {
                let entry = Entry { nar: info.nar_hash, standing: standing(policy, info) };
                paths.insert(info.path.hash_part(), entry);
            });
            paths.retain(|_, entry| disk.has_nar(&entry.nar));
            paths.shrink_to_fit();
        }
        let lost = AtomicU64::new(disk.nars_lost());
        Self { disk, paths: RwLock::new(paths), lost }
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<HashPart, Entry>> {
        self.paths.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<HashPart, Entry>> {
        self.paths.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The info of a path whose NAR is here.
    pub(super) fn info(&self, hash: &HashPart) -> Option<Arc<PathInfo>> {
        let nar = self.read().get(hash)?.nar;
        self.disk.info(hash).filter(|info| info.nar_hash == nar && self.disk.has_nar(&nar))
    }

    /// What the sharing rule says of it.
    pub(super) fn standing(&self, hash: &HashPart) -> Option<Standing> {
        self.read().get(hash).map(|entry| entry.standing)
    }

    /// Opens exactly this NAR (blocking; see [`Disk::nar`]).
    pub(super) fn open_nar(&self, key: &NarKey) -> Option<CachedNar> {
        self.read().get(&key.path).filter(|entry| entry.nar == key.nar_hash)?;
        self.disk.nar(&key.nar_hash).filter(|nar| nar.size() == key.nar_size)
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<(HashPart, Standing)> {
        self.read().iter().map(|(hash, entry)| (*hash, entry.standing)).collect()
    }

    /// Notes what a check said. Gives the standing before.
    fn set_checked(&self, hash: &HashPart, checked: Checked) -> Option<Standing> {
        let mut paths = self.write();
        let entry = paths.get_mut(hash)?;
        let before = entry.standing;
        entry.standing.checked = checked;
        Some(before)
    }

    /// Judges all by another rule. Gives their standings before and after.
    fn judge_again(&self, policy: &SharePolicy) -> [Vec<(HashPart, Standing)>; 2] {
        let before = self.all();
        for (hash, _) in &before {
            let Some(info) = self.disk.info(hash) else { continue };
            if let Some(entry) = self.write().get_mut(hash) {
                entry.standing = standing(policy, &info);
            }
        }
        [before, self.all()]
    }

    /// Takes out what the cache no longer has.
    fn sweep(&self) -> Vec<(HashPart, Standing)> {
        let lost = self.disk.nars_lost();
        if self.lost.swap(lost, Ordering::Relaxed) == lost {
            return Vec::new();
        }
        let mut gone = Vec::new();
        self.write().retain(|hash, entry| {
            let here = self.disk.has_nar(&entry.nar);
            if !here {
                gone.push((*hash, entry.standing));
            }
            here
        });
        gone
    }
}

fn standing(policy: &SharePolicy, info: &PathInfo) -> Standing {
    let names = info.signatures.iter().map(haulout_nix::Signature::name);
    Standing::new(policy.classify(names, info.ca.is_some()))
}

impl LocalStore {
    /// The info of a path whose NAR is in the cache.
    pub(crate) fn kept_info(&self, hash: &HashPart) -> Option<Arc<PathInfo>> {
        self.kept.info(hash)
    }

    /// Every path whose NAR is in the cache.
    pub(crate) fn kept_paths(&self) -> impl Iterator<Item = (HashPart, NarHash)> {
        let all: Vec<_> = self.kept.read().iter().map(|(hash, entry)| (*hash, entry.nar)).collect();
        all.into_iter()
    }

    /// The NAR of this path is in the cache, and its info with it: from now on
    /// it is given and announced like a path of the store.
    pub(crate) fn keep(&self, info: &PathInfo) {
        let policy = self.policy.load_full();
        let (hash, standing) = (info.path.hash_part(), standing(&policy, info));
        let old = self.kept.write().insert(hash, Entry { nar: info.nar_hash, standing });
        let gone: Vec<_> = old.map(|old| (hash, old.standing)).into_iter().collect();
        self.announce(&policy, &gone, &[(hash, standing)]);
    }

    /// No longer announces what the cache has dropped.
    pub(super) fn sweep_kept(&self) {
        let gone = self.kept.sweep();
        if !gone.is_empty() {
            self.announce(&self.policy.load(), &gone, &[]);
        }
    }

    /// Announces everything in the cache, at the start.
    pub(super) fn announce_kept(&self) {
        self.announce(&self.policy.load(), &[], &self.kept.all());
    }

    /// The same under another sharing rule.
    pub(super) fn judge_kept(&self, old: &SharePolicy, new: &SharePolicy) {
        let [before, after] = self.kept.judge_again(new);
        self.announce(old, &before, &[]);
        self.announce(new, &[], &after);
    }

    /// [`LocalStore::note_checked`] for a path in the cache.
    pub(super) fn note_kept_checked(&self, hash: &HashPart, checked: Checked) {
        let Some(before) = self.kept.set_checked(hash, checked) else { return };
        self.announce_checked(hash, before, checked);
    }
}
