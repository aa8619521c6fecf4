//! What this machine has: its own store and the NARs in its cache; who may
//! have what of it.

mod ahead;
mod follow;
mod giving;
mod index;
mod kept;
mod layouts;
mod serve;
mod share;
mod source;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use arc_swap::ArcSwap;
use haulout_mesh::{HoldingsFeed, NarKey, NarTree, NarTreeBuilder};
use haulout_nix::db::{Database, DbError, Follower, StoreLocation};
use haulout_nix::{HashPart, NarHash, PathInfo, StoreDir};

use crate::bounded::Bounded;
use crate::disk::Disk;
use crate::lookup::weight;
use crate::stats::Stats;
use crate::trees::Trees;
use ahead::TreesAhead;
use giving::GivingNow;
use index::Index;
use kept::Kept;
use layouts::Layouts;

pub(crate) use follow::{Poke, follow};
pub(crate) use giving::Given;
pub use share::SharePolicy;
pub(crate) use source::Place;

/// What path infos read from the database may take in memory, in bytes.
const INFOS_BYTES: usize = 4 << 20;
/// How much is read at a time to hash a NAR into a tree, in bytes.
const TREE_READ: usize = 1 << 20;
/// Trees being computed at the same time; more askers wait on the same ones.
const TREES_AT_ONCE: usize = 64;

/// A tree that is being computed; everybody who wants it waits here.
type Making = Arc<OnceLock<Option<Arc<NarTree>>>>;

/// The machine's own store.
pub struct LocalStore {
    database: Arc<Database>,
    store_dir: StoreDir,
    index: RwLock<Index>,
    policy: ArcSwap<SharePolicy>,
    follower: Mutex<Follower>,
    infos: Bounded<HashPart, Arc<PathInfo>>,
    layouts: Arc<Layouts>,
    kept: Kept,
    trees: Arc<Trees>,
    making: Mutex<HashMap<NarHash, Making>>,
    ahead: OnceLock<TreesAhead>,
    strangers: Arc<HoldingsFeed>,
    members: Arc<HoldingsFeed>,
    giving: GivingNow,
    stats: Arc<Stats>,
}

impl LocalStore {
    /// Opens the store and reads what is in it (for a blocking thread; 50,000
    /// paths take some hundred milliseconds).
    ///
    /// # Errors
    /// When the database has an unknown schema or cannot be read. A store
    /// that does not exist is empty until it appears.
    pub(crate) fn open(
        location: &StoreLocation,
        policy: SharePolicy,
        trees: Arc<Trees>,
        disk: Disk,
        stats: Arc<Stats>,
    ) -> Result<Self, DbError> {
        let database = Arc::new(Database::open(location)?);
        let store = Self {
            follower: Mutex::new(Follower::new(Arc::clone(&database))),
            database,
            store_dir: location.store_dir.clone(),
            index: RwLock::default(),
            kept: Kept::open(disk, &policy),
            policy: ArcSwap::from_pointee(policy),
            infos: Bounded::new(INFOS_BYTES),
            layouts: Arc::new(Layouts::new(location.clone())),
            trees,
            making: Mutex::default(),
            ahead: OnceLock::new(),
            strangers: HoldingsFeed::new(),
            members: HoldingsFeed::new(),
            giving: GivingNow::default(),
            stats,
        };
        store.poll()?;
        store.announce_kept();
        Ok(store)
    }

    /// The sharing rule.
    pub(crate) fn policy(&self) -> Arc<SharePolicy> {
        self.policy.load_full()
    }

    /// Whether the path is valid here.
    pub(crate) fn contains(&self, hash: &HashPart) -> bool {
        self.index.read().unwrap_or_else(PoisonError::into_inner).get(hash).is_some()
    }

    /// Whether there is a store whose paths can be read.
    pub(crate) fn is_there(&self) -> bool {
        self.database.exists()
    }

    /// Paths in the store, and how many of them anybody may have.
    pub fn counts(&self) -> (usize, usize) {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        (index.len(), index.public())
    }

    /// The NARs peers are being given now.
    pub(crate) fn giving(&self) -> Vec<Given> {
        self.giving.list()
    }

    /// The info of a valid path if that can be told without blocking.
    pub(crate) fn info_at_once(&self, hash: &HashPart) -> Option<Arc<PathInfo>> {
        if let Some(info) = self.infos.get(hash) {
            return Some(info);
        }
        let info = Arc::new(self.database.path_info_at_once(hash)??);
        self.infos.put(*hash, Arc::clone(&info), weight(&info));
        Some(info)
    }

    /// The info of a valid path, from memory or the database (blocking).
    pub(crate) fn info(&self, hash: &HashPart) -> Option<Arc<PathInfo>> {
        if let Some(info) = self.infos.get(hash) {
            return Some(info);
        }
        if !self.contains(hash) {
            return None;
        }
        match self.database.path_info(hash) {
            Ok(Some(info)) => {
                let info = Arc::new(info);
                self.infos.put(*hash, Arc::clone(&info), weight(&info));
                Some(info)
            }
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(path = %hash, %error, "the store database gave no answer");
                None
            }
        }
    }

    /// The info and what its closure refers to, breadth first, at most `max`.
    pub(crate) fn closure(&self, hash: &HashPart, max: usize) -> Vec<Arc<PathInfo>> {
        let mut seen = HashSet::from([*hash]);
        let mut queue = VecDeque::from([*hash]);
        let mut infos = Vec::new();
        while let Some(next) = queue.pop_front() {
            if infos.len() >= max {
                break;
            }
            let Some(info) = self.info(&next).or_else(|| self.kept_info(&next)) else { continue };
            for reference in &info.references {
                let reference = reference.hash_part();
                if seen.len() < max && seen.insert(reference) {
                    queue.push_back(reference);
                }
            }
            infos.push(info);
        }
        infos
    }

    /// The layout of exactly this NAR (blocking).
    pub(crate) fn layout(&self, key: &NarKey) -> io::Result<Arc<haulout_nix::nar::Layout>> {
        let info = self.info(&key.path).ok_or(io::ErrorKind::NotFound)?;
        if info.nar_hash != key.nar_hash || info.nar_size != key.nar_size {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.layouts.get(&info.path, info.nar_size)
    }

    /// The BLAKE3 tree of a NAR of this machine, computed on first need and
    /// only once however many ask (blocking).
    pub(crate) fn tree(&self, key: &NarKey) -> Option<Arc<NarTree>> {
        if let Some(tree) = self.trees.get(&key.nar_hash) {
            return Some(tree);
        }
        let cell = {
            let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
            if making.len() >= TREES_AT_ONCE && !making.contains_key(&key.nar_hash) {
                return None;
            }
            Arc::clone(making.entry(key.nar_hash).or_default())
        };
        let tree = cell.get_or_init(|| self.make_tree(key).map(Arc::new)).clone();
        self.making.lock().unwrap_or_else(PoisonError::into_inner).remove(&key.nar_hash);
        if let Some(tree) = &tree {
            self.trees.put(key.nar_hash, key.nar_size, Arc::clone(tree), false);
        }
        tree
    }

    fn make_tree(&self, key: &NarKey) -> Option<NarTree> {
        let source = self.source(key).ok()?;
        let mut builder = NarTreeBuilder::new();
        let length = usize::try_from(key.nar_size).unwrap_or(TREE_READ).min(TREE_READ);
        let mut buffer = vec![0; length];
        let mut at = 0;
        while at < key.nar_size {
            match source.read_at(at, &mut buffer) {
                Ok(0) => return None,
                Ok(read) => {
                    builder.update(&buffer[..read]);
                    at += read as u64;
                }
                Err(error) => {
                    tracing::debug!(path = %key.path, %error, "a path changed while it was hashed");
                    self.layouts.forget(&key.path);
                    return None;
                }
            }
        }
        source.release();
        Some(builder.finish())
    }
}
