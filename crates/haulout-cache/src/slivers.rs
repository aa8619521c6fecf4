//! Slivers and metadata of Walrus blobs on disk, as they were received.
//!
//! What is kept here certifies itself: a sliver has its hash in the metadata, metadata hashes to the blob id. Whoever reads a
//! file checks it and calls [`SliverCache::remove`] if it is wrong, so nothing here needs to be synced, indexed or believed: a
//! torn file is a miss. Only homes keep what they fetch, so that a site has one copy of each.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Names of files: the object's 32 bytes in hex.
const NAME_LEN: usize = 64;

/// Most files: a million of the smallest slivers.
const FILES_MAX: usize = 1 << 20;

/// Largest file, in bytes: the largest sliver there can be, with a little around it.
pub const SLIVER_BYTES_MAX: u64 = 1000 * 65_534 + 128;

/// Writes that are skipped after one failed, for instance because the disk is full.
const PAUSE_WRITES: u32 = 256;

/// A directory of slivers and metadata with a limit on its size. All calls block for as long as the disk does.
#[derive(Debug)]
pub struct SliverCache {
    dir: PathBuf,
    quota: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<[u8; 32], File>,
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
            state.files.insert(key, File { size, used: state.clock });
        }
        let cache = Self { dir: dir.to_owned(), quota, state: Mutex::new(state) };
        cache.make_room(&mut cache.state(), 0);
        Ok(cache)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept under `key`. To be checked: the disk is not believed.
    pub fn get(&self, key: &[u8; 32]) -> Option<Vec<u8>> {
        {
            let mut state = self.state();
            state.clock += 1;
            let now = state.clock;
            state.files.get_mut(key)?.used = now;
        }
        match fs::read(self.path(key)) {
            Ok(bytes) => Some(bytes),
            Err(_) => {
                self.remove(key);
                None
            }
        }
    }

    /// Keeps `bytes` under `key`; whether that worked. Makes room by dropping what was not used for longest.
    pub fn put(&self, key: &[u8; 32], bytes: &[u8]) -> bool {
        let size = bytes.len() as u64;
        if size > SLIVER_BYTES_MAX || size > self.quota {
            return false;
        }
        {
            let mut state = self.state();
            if state.files.contains_key(key) {
                return true;
            }
            if state.paused > 0 {
                state.paused -= 1;
                return false;
            }
            self.make_room(&mut state, size);
        }
        let path = self.path(key);
        let new = path.with_extension("new");
        let written = fs::write(&new, bytes).and_then(|()| fs::rename(&new, &path));
        let mut state = self.state();
        if let Err(error) = written {
            tracing::warn!(dir = %self.dir.display(), %error, "slivers are not kept for a while");
            let _ = fs::remove_file(&new);
            state.paused = PAUSE_WRITES;
            return false;
        }
        state.clock += 1;
        let file = File { size, used: state.clock };
        state.bytes += size;
        if let Some(old) = state.files.insert(*key, file) {
            state.bytes -= old.size;
        }
        true
    }

    /// Drops what is kept under `key`.
    pub fn remove(&self, key: &[u8; 32]) {
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

    /// Drops the longest unused until `more` bytes fit.
    fn make_room(&self, state: &mut State, more: u64) {
        if state.bytes + more <= self.quota && state.files.len() < FILES_MAX {
            return;
        }
        let mut by_use: Vec<_> = state.files.iter().map(|(key, file)| (file.used, *key)).collect();
        by_use.sort_unstable();
        // A little more than needed, so that this is not done for every sliver.
        let target = (self.quota - self.quota / 16).saturating_sub(more);
        for (_, key) in by_use {
            if state.bytes <= target && state.files.len() < FILES_MAX {
                break;
            }
            if let Some(file) = state.files.remove(&key) {
                state.bytes -= file.size;
            }
            let _ = fs::remove_file(self.path(&key));
        }
    }

    fn path(&self, key: &[u8; 32]) -> PathBuf {
        let name: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        self.dir.join(name)
    }
}

fn parse_name(name: &str) -> Option<[u8; 32]> {
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

    #[test]
    fn what_was_put_is_there_after_a_restart() {
        let place = tempfile::tempdir().unwrap();
        let cache = SliverCache::open(place.path(), 1000).unwrap();
        assert!(cache.put(&[1; 32], b"one") && cache.put(&[2; 32], b"two"));
        assert_eq!((cache.get(&[1; 32]).unwrap(), cache.bytes()), (b"one".to_vec(), 6));
        drop(cache);
        fs::write(place.path().join("0".repeat(64) + ".new"), b"half").unwrap();
        let cache = SliverCache::open(place.path(), 1000).unwrap();
        assert_eq!((cache.get(&[2; 32]).unwrap(), cache.bytes()), (b"two".to_vec(), 6));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
        cache.remove(&[2; 32]);
        assert_eq!((cache.get(&[2; 32]), cache.bytes()), (None, 3));
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let place = tempfile::tempdir().unwrap();
        let cache = SliverCache::open(place.path(), 100).unwrap();
        for n in 0..4 {
            assert!(cache.put(&[n; 32], &[n; 25]));
        }
        cache.get(&[0; 32]).unwrap();
        assert!(cache.put(&[9; 32], &[9; 25]));
        assert!(cache.get(&[0; 32]).is_some() && cache.get(&[9; 32]).is_some());
        assert!(cache.get(&[1; 32]).is_none() && cache.bytes() <= 100);
        assert!(!cache.put(&[8; 32], &[0; 101]), "larger than everything");
        // A smaller quota holds from the next start.
        let cache = SliverCache::open(place.path(), 30).unwrap();
        assert!(cache.bytes() <= 30);
    }

    #[test]
    fn a_file_that_vanished_is_a_miss() {
        let place = tempfile::tempdir().unwrap();
        let cache = SliverCache::open(place.path(), 100).unwrap();
        assert!(cache.put(&[1; 32], b"x"));
        for entry in fs::read_dir(place.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        assert_eq!((cache.get(&[1; 32]), cache.bytes()), (None, 0));
        // A directory that is gone: nothing is kept, nothing fails.
        fs::remove_dir(place.path()).unwrap();
        assert!(!cache.put(&[2; 32], b"y"));
    }
}
