//! Hash trees made before anybody asks.
//!
//! A peer that wants a large NAR from several machines needs its tree first.
//! What came through this agent was hashed on the way; what Nix built, or got
//! from elsewhere, is hashed here when it is new and its files are still in
//! memory, by a thread of the lowest priority.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};

use haulout_mesh::{Membership, NarKey};
use haulout_nix::HashPart;

use super::LocalStore;

/// Smaller NARs come from one source, without a tree; in bytes.
const SIZE_MIN: u64 = 4 << 20;
/// Larger ones are hashed when they are asked for; in bytes.
const SIZE_MAX: u64 = 1 << 30;
/// Paths that may wait; more are hashed when they are asked for.
const WAITING_MAX: usize = 4096;
/// The lowest priority there is.
const NICE: i32 = 19;

/// Paths whose trees should be made. The thread ends when this is gone.
pub(super) struct TreesAhead(SyncSender<HashPart>);

impl TreesAhead {
    /// Notes a new path. Never waits.
    pub(super) fn note(&self, path: HashPart) {
        // One that has no place, or nobody to make it, is made when asked for.
        let _ = self.0.try_send(path);
    }
}

/// Starts the thread for `store`.
pub(super) fn start(store: &Arc<LocalStore>) -> std::io::Result<TreesAhead> {
    let (paths, waiting) = sync_channel(WAITING_MAX);
    let store = Arc::downgrade(store);
    let work = move || run(&store, &waiting);
    std::thread::Builder::new().name("haulout-trees".into()).spawn(work)?;
    Ok(TreesAhead(paths))
}

fn run(store: &Weak<LocalStore>, waiting: &Receiver<HashPart>) {
    // On Linux this is about the calling thread alone. Where it is not
    // possible the work is still little.
    let _ = rustix::process::setpriority_process(None, NICE);
    while let Ok(path) = waiting.recv() {
        let Some(store) = store.upgrade() else { return };
        store.make_ahead(&path);
    }
}

impl LocalStore {
    /// Makes the tree of a path that others may have. Not through
    /// [`LocalStore::tree`]: who asks in the meantime must not wait for a
    /// thread of low priority.
    fn make_ahead(&self, path: &HashPart) {
        let Some(info) = self.info(path) else { return };
        let key = NarKey { path: *path, nar_hash: info.nar_hash, nar_size: info.nar_size };
        if (SIZE_MIN..=SIZE_MAX).contains(&key.nar_size)
            && self.may_have(&key, Membership::Member).is_some()
            && self.trees.get(&key.nar_hash).is_none()
            && let Some(tree) = self.make_tree(&key)
        {
            self.trees.put(key.nar_hash, key.nar_size, Arc::new(tree), false);
            self.stats.trees_ahead.one();
        }
    }
}
