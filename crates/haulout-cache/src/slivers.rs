//! Slivers and metadata of Walrus blobs on disk, as they were received.
//!
//! What is kept here certifies itself: a sliver has its hash in the metadata, metadata hashes to the blob id. So nothing here
//! needs to be synced or indexed: a torn file is found out by whoever reads it ([`KeptSliver::checked`]) and removed. Only
//! homes keep what they fetch, so that a site has one copy of each.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::evict::{self, Candidate};

/// Names of files: the object's 32 bytes in hex.
const NAME_LEN: usize = 64;

/// Most files: a million of the smallest slivers.
const FILES_MAX: usize = 1 << 20;

/// Largest file, in bytes: the largest sliver there can be, with a little around it.
pub const SLIVER_BYTES_MAX: u64 = 1000 * 65_534 + 128;

/// Writes that are skipped after one failed, for instance because the disk is full.
const PAUSE_WRITES: u32 = 256;

/// What a file is called: the id of the object it holds.
pub type SliverKey = [u8; 32];

/// Says how many others hold an object as well, as far as is known. Must be quick: it is asked about every file when room is
/// made.
pub type Holders = Box<dyn Fn(&SliverKey) -> u32 + Send + Sync>;

/// A directory of slivers and metadata with a limit on its size. Calls block for as long as the disk does.
pub struct SliverCache {
    dir: PathBuf,
    quota: u64,
    state: Mutex<State>,
    holders: OnceLock<Holders>,
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<SliverKey, File>,
    bytes: u64,
    /// Counts uses: what has the smallest number was not used for longest.
    clock: u64,
    /// Writes still to be skipped.
    paused: u32,
}

#[derive(Debug, Clone, Copy)]
struct File {
    size: u64,
    used: u64,
    /// Its bytes were found right since the start of this process.
    checked: bool,
}

/// What was read from the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSliver {
    /// The file.
    pub bytes: Vec<u8>,
    /// Whether somebody has checked the file since the start. If not, the reader has to, and says so with
    /// [`SliverCache::mark_checked`] or [`SliverCache::remove`].
    pub checked: bool,
}

/// What came of [`SliverCache::put`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// Whether it is kept now.
    pub kept: bool,
    /// What had to go for it.
    pub dropped: Vec<SliverKey>,
}

impl SliverCache {
    /// Opens or makes the directory `dir`, which holds nothing else. What is in it counts as unused for a time that the files'
    /// dates say.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(dir: &Path, quota: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let key = entry.file_name().to_str().and_then(parse_name);
            match key {
                Some(key) if metadata.is_file() && found.len() < FILES_MAX => {
                    found.push((metadata.modified().ok(), key, metadata.len()));
                }
                // Half-written, by an agent that was killed.
                _ if metadata.is_file() => fs::remove_file(entry.path())?,
                _ => {}
            }
        }
        found.sort_unstable();
        let mut state = State::default();
        for (_, key, size) in found {
            state.clock += 1;
            state.bytes += size;
            state.files.insert(key, File { size, used: state.clock, checked: false });
        }
        let state = Mutex::new(state);
        let cache = Self { dir: dir.to_owned(), quota, state, holders: OnceLock::new() };
        cache.make_room(&mut cache.state(), 0);
        Ok(cache)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks this, from now on, how many others hold something: what they hold goes first. Only the first call counts.
    pub fn set_holders(&self, holders: Holders) {
        let _ = self.holders.set(holders);
    }

    /// Everything that is kept.
    pub fn keys(&self) -> Vec<SliverKey> {
        self.state().files.keys().copied().collect()
    }

    /// Whether something is kept under `key`. Costs no disk access.
    pub fn contains(&self, key: &SliverKey) -> bool {
        self.state().files.contains_key(key)
    }

    /// What is kept under `key`.
    pub fn get(&self, key: &SliverKey) -> Option<KeptSliver> {
        let checked = {
            let mut state = self.state();
            state.clock += 1;
            let now = state.clock;
            let file = state.files.get_mut(key)?;
            file.used = now;
            file.checked
        };
        match fs::read(self.path(key)) {
            Ok(bytes) => Some(KeptSliver { bytes, checked }),
            Err(_) => {
                self.remove(key);
                None
            }
        }
    }

    /// What is kept under `key` was found right.
    pub fn mark_checked(&self, key: &SliverKey) {
        if let Some(file) = self.state().files.get_mut(key) {
            file.checked = true;
        }
    }

    /// Keeps `bytes`, which were found right, under `key`. Makes room by dropping what others hold as well and what was not
    /// used for long.
    pub fn put(&self, key: &SliverKey, bytes: &[u8]) -> Stored {
        let size = bytes.len() as u64;
        if size > SLIVER_BYTES_MAX || size > self.quota {
            return Stored::default();
        }
        let dropped = {
            let mut state = self.state();
            if state.files.contains_key(key) {
                return Stored { kept: true, dropped: Vec::new() };
            }
            if state.paused > 0 {
                state.paused -= 1;
                return Stored::default();
            }
            self.make_room(&mut state, size)
        };
        let path = self.path(key);
        let new = path.with_extension("new");
        let written = fs::write(&new, bytes).and_then(|()| fs::rename(&new, &path));
        let mut state = self.state();
        if let Err(error) = written {
            tracing::warn!(dir = %self.dir.display(), %error, "slivers are not kept for a while");
            let _ = fs::remove_file(&new);
            state.paused = PAUSE_WRITES;
            return Stored { kept: false, dropped };
        }
        state.clock += 1;
        let file = File { size, used: state.clock, checked: true };
        state.bytes += size;
        if let Some(old) = state.files.insert(*key, file) {
            state.bytes -= old.size;
        }
        Stored { kept: true, dropped }
    }

    /// Drops what is kept under `key`.
    pub fn remove(&self, key: &SliverKey) {
        let mut state = self.state();
        if let Some(file) = state.files.remove(key) {
            state.bytes -= file.size;
        }
        let _ = fs::remove_file(self.path(key));
    }

    /// Bytes kept.
    pub fn bytes(&self) -> u64 {
        self.state().bytes
    }

    /// Files kept.
    pub fn len(&self) -> usize {
        self.state().files.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Most bytes that are kept.
    pub fn quota(&self) -> u64 {
        self.quota
    }

    /// Drops the least missed until `more` bytes fit.
    fn make_room(&self, state: &mut State, more: u64) -> Vec<SliverKey> {
        let mut excess = (state.bytes + more).saturating_sub(self.quota);
        if state.files.len() >= FILES_MAX {
            excess = excess.max(state.bytes / 16).max(1);
        }
        if excess == 0 {
            return Vec::new();
        }
        // A little more than needed, so that this is not done for every sliver.
        excess = excess.max(self.quota / 16);
        let holders = |key: &SliverKey| self.holders.get().map_or(0, |holders| holders(key));
        let candidate = |(key, file): (&SliverKey, &File)| Candidate {
            key: *key,
            size: file.size,
            last_use: file.used,
            holders: holders(key),
        };
        let all = state.files.iter().map(candidate).collect();
        let victims = evict::victims(all, excess, state.clock);
        for key in &victims {
            if let Some(file) = state.files.remove(key) {
                state.bytes -= file.size;
            }
            let _ = fs::remove_file(self.path(key));
        }
        victims
    }

    fn path(&self, key: &SliverKey) -> PathBuf {
        let name: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        self.dir.join(name)
    }
}

impl fmt::Debug for SliverCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SliverCache")
            .field("dir", &self.dir)
            .field("quota", &self.quota)
            .finish_non_exhaustive()
    }
}

fn parse_name(name: &str) -> Option<SliverKey> {
    if name.len() != NAME_LEN || !name.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut key = [0; 32];
    for (byte, digits) in key.iter_mut().zip(name.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn bytes_of(cache: &SliverCache, key: u8) -> Option<Vec<u8>> {
        cache.get(&[key; 32]).map(|kept| kept.bytes)
    }

    #[test]
    fn what_was_put_is_there_after_a_restart() {
        let place = tempfile::tempdir().unwrap();
        let cache = SliverCache::open(place.path(), 1000).unwrap();
        assert!(cache.put(&[1; 32], b"one").kept && cache.put(&[2; 32], b"two").kept);
        assert_eq!((bytes_of(&cache, 1).unwrap(), cache.bytes()), (b"one".to_vec(), 6));
        assert!(cache.get(&[1; 32]).unwrap().checked);
        drop(cache);
        fs::write(place.path().join("0".repeat(64) + ".new"), b"half").unwrap();
        let cache = SliverCache::open(place.path(), 1000).unwrap();
        assert_eq!((bytes_of(&cache, 2).unwrap(), cache.bytes()), (b"two".to_vec(), 6));
        assert!(!cache.get(&[2; 32]).unwrap().checked, "the disk is not believed");
        cache.mark_checked(&[2; 32]);
        assert!(cache.get(&[2; 32]).unwrap().checked);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
        cache.remove(&[2; 32]);
        assert_eq!((bytes_of(&cache, 2), cache.bytes(), cache.keys()), (None, 3, vec![[1; 32]]));
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let place = tempfile::tempdir().unwrap();
        let cache = SliverCache::open(place.path(), 100).unwrap();
        for n in 0..4 {
            assert!(cache.put(&[n; 32], &[n; 25]).kept);
        }
        cache.get(&[0; 32]).unwrap();
        let stored = cache.put(&[9; 32], &[9; 25]);
        assert_eq!(stored, Stored { kept: true, dropped: vec![[1; 32]] });
        assert!(cache.contains(&[0; 32]) && cache.contains(&[9; 32]));
        assert!(!cache.contains(&[1; 32]) && cache.bytes() <= 100);
        assert!(!cache.put(&[8; 32], &[0; 101]).kept, "larger than everything");
        // A smaller quota holds from the next start.
        let cache = SliverCache::open(place.path(), 30).unwrap();
        assert!(cache.bytes() <= 30);
    }

    #[test]
    fn what_others_hold_goes_before_what_is_rare() {
        let place = tempfile::tempdir().unwrap();
        let cache = SliverCache::open(place.path(), 100).unwrap();
        for n in 0..4 {
            assert!(cache.put(&[n; 32], &[n; 25]).kept);
        }
        // Two neighbours hold number 2, which was used later than 0 and 1.
        cache.set_holders(Box::new(|key| if key[0] == 2 { 2 } else { 0 }));
        assert_eq!(cache.put(&[9; 32], &[9; 25]).dropped, [[2; 32]]);
        // Nobody else has any of the others: the oldest goes.
        assert_eq!(cache.put(&[8; 32], &[8; 25]).dropped, [[0; 32]]);
    }

    #[test]
    fn a_file_that_vanished_is_a_miss() {
        let place = tempfile::tempdir().unwrap();
        let cache = SliverCache::open(place.path(), 100).unwrap();
        assert!(cache.put(&[1; 32], b"x").kept);
        for entry in fs::read_dir(place.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        assert_eq!((bytes_of(&cache, 1), cache.bytes()), (None, 0));
        // A directory that is gone: nothing is kept, nothing fails.
        fs::remove_dir(place.path()).unwrap();
        assert!(!cache.put(&[2; 32], b"y").kept);
    }
}
