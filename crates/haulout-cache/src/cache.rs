//! The cache itself.

use std::{
    collections::HashMap,
    fs::{self, File},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, atomic::AtomicBool},
};

use haulout_nix::{HashPart, NarHash, PathInfo};

use crate::{
    CacheConfig, CacheStats, CachedInfo, CachedNar, NarWriter, OpenError, StoredTree, UnixTime,
    faults::Disk,
    format::{self, Layout},
    index::{Index, IndexError},
    start::{empty, lock, open_index, reconcile},
    state::State,
};

/// Groups of the largest tree kept: 8 GiB of NAR at 64 KiB each, 4 MiB of tree.
const TREE_GROUPS_MAX: usize = 1 << 17;

/// Warnings kept for the status page.
const WARNINGS_MAX: usize = 8;

/// An open cache. Clones are the same cache.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    layout: Layout,
    config: CacheConfig,
    disk: Disk,
    /// `None` while the disk does not let us have it.
    index: RwLock<Option<Index>>,
    state: Mutex<State>,
    /// Held by the one who writes the index.
    writing_index: Mutex<()>,
    /// Locked as long as it is open.
    _lock: File,
}

impl Cache {
    /// Open the cache in `dir`, creating it when the directory is new or empty. Blocks: every file
    /// is looked at and the index is checked.
    ///
    /// A damaged index is set aside and a new one begun, with a warning in
    /// [`CacheStats::warnings`]; the NARs survive that. An index the disk refuses leaves the cache
    /// paused.
    ///
    /// # Errors
    /// When the directory is no cache, of another version, in use, or unusable.
    pub fn open(dir: &Path, config: CacheConfig, now: UnixTime) -> Result<Self, OpenError> {
        let layout = Layout { root: dir.to_owned() };
        layout.prepare()?;
        let lock = lock(&layout)?;
        let io = |source| OpenError::Io { dir: dir.to_owned(), source };
        empty(&layout.temporary()).map_err(io)?;

        let disk = Disk(config.faults.clone());
        let mut state = State::default();
        let index = open_index(&layout, &disk, &mut state, now);
        let rows = index.as_ref().map(|index| (index.nars(), index.rows()));
        let believed = match rows {
            Some((Ok(nars), Ok(rows))) => {
                state.rows = rows;
                nars
            }
            _ => HashMap::new(),
        };
        reconcile(&layout, &believed, &mut state, now).map_err(io)?;
        let victims = state.evict(config.quota_bytes, now);
        let cache = Self(Arc::new(Inner {
            layout,
            config,
            disk,
            index: RwLock::new(index),
            state: Mutex::new(state),
            writing_index: Mutex::default(),
            _lock: lock,
        }));
        cache.unlink(&victims);
        Ok(cache)
    }

    /// The verified info of a path, if it was stored.
    pub fn narinfo(&self, hash: &HashPart) -> Option<CachedInfo> {
        let unwritten = self.lock().unwritten(|batch| batch.narinfos.get(hash).cloned());
        match unwritten {
            Some(value) => self.decode(&value?),
            None => self.decode(&self.ask_index(|index| index.narinfo(hash))?),
        }
    }

    /// Remember a verified info; `verified_by` says why it was believed. Also ends a miss for the
    /// path.
    pub fn put_narinfo(&self, info: &PathInfo, verified_by: &str, now: UnixTime) {
        let Some(value) = format::encode_info(info, verified_by, now, &self.0.config.store_dir)
        else {
            return;
        };
        let hash = info.path.hash_part();
        let mut state = self.lock();
        if state.has_room() {
            state.pending.narinfos.insert(hash, Some(value.into()));
            state.pending.misses.insert(hash, None);
        }
    }

    /// Forget the info of a path.
    pub fn forget_narinfo(&self, hash: &HashPart) {
        self.lock().pending.narinfos.insert(*hash, None);
    }

    /// Call `found` with every info stored, in no order. `found` must not use the cache: the index
    /// is being read.
    pub fn each_narinfo(&self, mut found: impl FnMut(CachedInfo)) {
        let mut all: HashMap<HashPart, Option<Arc<[u8]>>> = HashMap::new();
        {
            let state = self.lock();
            for batch in state.flushing.as_deref().into_iter().chain([&state.pending]) {
                all.extend(batch.narinfos.iter().map(|(hash, value)| (*hash, value.clone())));
            }
        }
        let unwritten = all;
        self.ask_index(|index| {
            index.each_narinfo(|hash, value| {
                if !unwritten.contains_key(&hash)
                    && let Some(info) = self.decode(value)
                {
                    found(info);
                }
            })?;
            Ok(Some(()))
        });
        unwritten.values().flatten().filter_map(|value| self.decode(value)).for_each(found);
    }

    /// Until when "nobody has this path" may be believed; `None` when nothing is known.
    pub fn miss(&self, hash: &HashPart, now: UnixTime) -> Option<UnixTime> {
        let unwritten = self.lock().unwritten(|batch| {
            let known = batch.misses.get(hash).copied();
            if known.is_none() && batch.forget_misses { Some(None) } else { known }
        });
        let until = match unwritten {
            Some(until) => until?,
            None => self.ask_index(|index| index.miss(hash))?,
        };
        let latest = now.0.saturating_add(self.0.config.miss_seconds_max);
        (until > now && until.0 <= latest).then_some(until)
    }

    /// Remember until when nobody has this path.
    pub fn put_miss(&self, hash: &HashPart, until: UnixTime) {
        let mut state = self.lock();
        if state.has_room() {
            state.pending.misses.insert(*hash, Some(until));
        }
    }

    /// Forget all misses: the network has changed.
    pub fn forget_misses(&self) {
        let mut state = self.lock();
        state.pending.misses.clear();
        state.pending.forget_misses = true;
    }

    /// The BLAKE3 tree of a NAR, if it was stored.
    pub fn tree(&self, hash: &NarHash) -> Option<StoredTree> {
        let unwritten = self.lock().unwritten(|batch| batch.trees.get(hash).cloned());
        match unwritten {
            Some(value) => format::decode_tree(&value?),
            None => format::decode_tree(&self.ask_index(|index| index.tree(hash))?),
        }
    }

    /// Remember a tree (of a NAR worth it: computing a small one again costs less than looking it
    /// up).
    pub fn put_tree(&self, hash: &NarHash, tree: &StoredTree, now: UnixTime) {
        if tree.groups.len() > TREE_GROUPS_MAX {
            return;
        }
        let value = format::encode_tree(tree, now);
        let mut state = self.lock();
        if state.has_room() {
            state.pending.trees.insert(*hash, Some(value.into()));
        }
    }

    /// Whether the NAR is here, and its size. Costs no disk access.
    pub fn has_nar(&self, hash: &NarHash) -> Option<u64> {
        self.lock().nars.get(hash).map(|held| held.row.size)
    }

    /// Open a NAR and note its use (blocking, one `open`). Look at [`CachedNar::is_checked`] before
    /// serving it.
    pub fn nar(&self, hash: &NarHash, now: UnixTime) -> Option<CachedNar> {
        let held = self.lock().touch(hash, now)?;
        let opened =
            File::open(self.0.layout.nar(hash)).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((size, file)) if size == held.row.size => Some(CachedNar {
                cache: self.clone(),
                hash: *hash,
                file,
                size,
                checked: AtomicBool::new(held.checked),
            }),
            _ => {
                self.forget_nar(hash);
                None
            }
        }
    }

    /// Begin to add a NAR of `size` bytes. `None` when it is here, being written, too large, or
    /// caching is paused. Makes room, so it may block on removing files.
    pub fn begin_nar(&self, hash: &NarHash, size: u64, now: UnixTime) -> Option<NarWriter> {
        let (victims, number) = {
            let mut state = self.lock();
            if state.is_paused(now) || state.nars.contains_key(hash) || state.writing.contains(hash)
            {
                return None;
            }
            let victims = state.reserve(size, self.0.config.quota_bytes, now)?;
            state.writing.insert(*hash);
            state.next_temporary += 1;
            (victims, state.next_temporary)
        };
        self.unlink(&victims);
        let path = self.0.layout.temporary().join(format!("{number}.part"));
        let writer = NarWriter::create(self.clone(), *hash, size, path, now);
        writer.is_good().then_some(writer)
    }

    /// Note how many peers hold a NAR as well; what few hold is kept longer. Written to disk only
    /// with the next other change of the row: peers come and go all day, and no disk should wake up
    /// for it.
    pub fn set_holders(&self, hash: &NarHash, holders: u32) {
        if let Some(held) = self.lock().nars.get_mut(hash) {
            held.row.holders = holders;
        }
    }

    /// How many NARs went since the cache was opened (evicted, damaged, forgotten): as long as the
    /// number stays, [`Cache::has_nar`] does not turn to `None` for any.
    pub fn nars_lost(&self) -> u64 {
        self.lock().lost
    }

    /// Whether the quota is used to more than `percent` per cent, writers at work included.
    pub fn is_fuller_than(&self, percent: u64) -> bool {
        let state = self.lock();
        let used = u128::from(state.used) + u128::from(state.reserved);
        used * 100 > u128::from(self.0.config.quota_bytes) * u128::from(percent)
    }

    /// Remove a NAR.
    pub fn forget_nar(&self, hash: &NarHash) {
        if self.lock().remove(hash) {
            self.unlink(&[*hash]);
        }
    }

    /// Write what has gathered (blocking, one transaction, one fsync). Call it every few seconds
    /// and before exit; without changes it does nothing. `false` when they could not be written and
    /// stay in memory.
    pub fn tick(&self, now: UnixTime) -> bool {
        let _one_at_a_time = self.0.writing_index.lock().unwrap_or_else(PoisonError::into_inner);
        let (batch, victims) = {
            let mut state = self.lock();
            if state.is_paused(now) {
                return false;
            }
            let victims = state.evict(self.0.config.quota_bytes, now);
            if state.pending.is_empty() {
                return true;
            }
            let batch = Arc::new(std::mem::take(&mut state.pending));
            state.flushing = Some(Arc::clone(&batch));
            (batch, victims)
        };
        self.unlink(&victims);
        self.reopen_index(now);
        let rows =
            self.ask_index(|index| index.write(&batch, self.0.config.limits(), now).map(Some));
        let mut state = self.lock();
        state.flushing = None;
        match rows {
            Some(rows) => state.rows = rows,
            None => {
                state.pending.keep_below(&batch);
                if state.pause_reason().is_none() {
                    state.pause("the index cannot be written".into(), now);
                }
            }
        }
        rows.is_some()
    }

    /// Figures for the status page.
    pub fn stats(&self) -> CacheStats {
        let state = self.lock();
        CacheStats {
            used_bytes: state.used,
            quota_bytes: self.0.config.quota_bytes,
            nars: state.nars.len() as u64,
            narinfos: state.rows.narinfos,
            misses: state.rows.misses,
            trees: state.rows.trees,
            paused: state.pause_reason(),
            warnings: state.warnings.clone(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.0.disk
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.0.layout
    }

    pub(crate) fn mark_checked(&self, hash: &NarHash) {
        if let Some(held) = self.lock().nars.get_mut(hash) {
            held.checked = true;
        }
    }

    fn decode(&self, value: &[u8]) -> Option<CachedInfo> {
        format::decode_info(value, &self.0.config.store_dir)
    }

    /// Ask the index something. Trouble means "nothing known"; the index is closed then and opened
    /// again by a later [`Cache::tick`], because redb refuses to go on after an I/O error.
    fn ask_index<T>(&self, ask: impl FnOnce(&Index) -> Result<Option<T>, IndexError>) -> Option<T> {
        let error = {
            let index = self.0.index.read().unwrap_or_else(PoisonError::into_inner);
            match catch_unwind(AssertUnwindSafe(|| ask(index.as_ref()?).transpose())) {
                Ok(None) => return None,
                Ok(Some(Ok(value))) => return Some(value),
                Ok(Some(Err(error))) => error.to_string(),
                Err(_) => "redb panicked".to_owned(),
            }
        };
        tracing::warn!(%error, "cache index closed");
        let broken = self.0.index.write().unwrap_or_else(PoisonError::into_inner).take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(broken)));
        None
    }

    fn reopen_index(&self, now: UnixTime) {
        let mut index = self.0.index.write().unwrap_or_else(PoisonError::into_inner);
        if index.is_none() {
            let mut notes = State::default();
            *index = open_index(&self.0.layout, &self.0.disk, &mut notes, now);
            let mut state = self.lock();
            if state.warnings.len() < WARNINGS_MAX {
                state.warnings.append(&mut notes.warnings);
            }
            if notes.pause.is_some() {
                state.pause = notes.pause;
            }
        }
    }

    /// A file that does not go away is found again at the next start.
    fn unlink(&self, hashes: &[NarHash]) {
        for hash in hashes {
            let _ = fs::remove_file(self.0.layout.nar(hash));
        }
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("dir", &self.0.layout.root).finish_non_exhaustive()
    }
}
