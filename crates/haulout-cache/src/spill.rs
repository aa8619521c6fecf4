//! Pieces on their way through this machine that do not fit into its memory.
//!
//! One file without a name in the cache's directory: whatever ends the agent, nothing is left of it. Each piece has a slot
//! of its own in it; what is let go of is punched out, so that the file takes as much of the disk as its pieces are long.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};

/// Slots, at most: as many pieces as are kept together.
const SLOTS_MAX: u32 = 4_096;
/// What is left free on the file system: it is for more important things than pieces that can be fetched again.
const RESERVE_BYTES: u64 = 1 << 30;

/// A file that pieces are put into. Clones are the same file. Everything blocks for as long as the disk does.
#[derive(Clone, Debug)]
pub struct Spill(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: File,
    quota: u64,
    slot_bytes: u64,
    slots_max: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Slots that were used and are free.
    free: Vec<u32>,
    /// Slots that were ever used.
    used: u32,
    /// Bytes of all pieces.
    bytes: u64,
}

/// A piece in the file; its room is given back when this is dropped.
#[derive(Debug)]
pub struct SpilledPiece {
    spill: Arc<Inner>,
    slot: u32,
    len: u64,
}

impl Spill {
    /// A file in `dir` for pieces of at most `slot_bytes` each and `quota` bytes together.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn open(dir: &Path, quota: u64, slot_bytes: u64) -> io::Result<Self> {
        let file = tempfile::tempfile_in(dir)?;
        file.write_all_at(&[0], 0)?;
        // Where holes cannot be made, every slot counts whole.
        let slots_max = match punch(&file, 0, 1) {
            Ok(()) => SLOTS_MAX,
            Err(_) => u32::try_from(quota / slot_bytes.max(1)).unwrap_or(SLOTS_MAX).min(SLOTS_MAX),
        };
        let state = Mutex::default();
        Ok(Self(Arc::new(Inner { file, quota, slot_bytes, slots_max, state })))
    }

    /// Puts a piece into the file. `None`: there is no room, in the quota or on the disk.
    ///
    /// # Errors
    /// What the disk says.
    pub fn put<'piece>(
        &self,
        parts: impl Iterator<Item = &'piece [u8]> + Clone,
    ) -> io::Result<Option<SpilledPiece>> {
        let inner = &self.0;
        let len: u64 = parts.clone().map(|part| part.len() as u64).sum();
        let about = fstatvfs(&inner.file)?;
        let free = about.f_bavail.saturating_mul(about.f_frsize);
        if len > inner.slot_bytes || free < RESERVE_BYTES.saturating_add(len) {
            return Ok(None);
        }
        let Some(slot) = inner.take_slot(len) else { return Ok(None) };
        // Gives the slot back if something goes wrong.
        let piece = SpilledPiece { spill: Arc::clone(inner), slot, len };
        let mut at = piece.start();
        for part in parts {
            inner.file.write_all_at(part, at)?;
            at += part.len() as u64;
        }
        Ok(Some(piece))
    }

    /// Bytes of all pieces in it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.state().bytes
    }

    /// Most bytes of all pieces.
    #[must_use]
    pub fn quota(&self) -> u64 {
        self.0.quota
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_slot(&self, len: u64) -> Option<u32> {
        let mut state = self.state();
        if state.bytes.saturating_add(len) > self.quota {
            return None;
        }
        let slot = match state.free.pop() {
            Some(slot) => slot,
            None if state.used < self.slots_max => {
                state.used += 1;
                state.used - 1
            }
            None => return None,
        };
        state.bytes += len;
        Some(slot)
    }
}

impl SpilledPiece {
    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// At most `most` bytes of it from `at` on; fewer at its end.
    ///
    /// # Errors
    /// What the disk says.
    pub fn read(&self, at: u64, most: usize) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(most)];
        self.spill.file.read_exact_at(&mut bytes, self.start() + at)?;
        Ok(bytes)
    }

    fn start(&self) -> u64 {
        u64::from(self.slot) * self.spill.slot_bytes
    }
}

impl Drop for SpilledPiece {
    fn drop(&mut self) {
        // If it cannot be punched out, the next piece in this slot overwrites it.
        let _ = punch(&self.spill.file, self.start(), self.len);
        let mut state = self.spill.state();
        state.free.push(self.slot);
        state.bytes -= self.len;
    }
}

fn punch(file: &File, at: u64, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(file, flags, at, len).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const SLOT: u64 = 64 << 10;

    fn bytes(n: u8, len: usize) -> Vec<u8> {
        (0..len).map(|at| n.wrapping_add((at / 7) as u8)).collect()
    }

    fn put(spill: &Spill, bytes: &[u8]) -> Option<SpilledPiece> {
        spill.put(bytes.chunks(1_000)).unwrap()
    }

    #[test]
    fn what_is_put_in_comes_out_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let spill = Spill::open(dir.path(), 10 * SLOT, SLOT).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it has no name");
        let pieces: Vec<SpilledPiece> =
            (0..20).map(|n| put(&spill, &bytes(n, 20_000 + n as usize)).unwrap()).collect();
        for (n, piece) in pieces.iter().enumerate() {
            let whole = bytes(n as u8, 20_000 + n);
            assert_eq!(piece.read(0, usize::MAX).unwrap(), whole);
            assert_eq!(piece.read(7_000, 500).unwrap(), whole[7_000..7_500]);
            assert_eq!(piece.read(piece.len(), 10).unwrap(), [0; 0]);
        }
        let on_disk = || spill.0.file.metadata().unwrap().blocks() * 512;
        let before = on_disk();
        drop(pieces);
        assert_eq!(spill.bytes(), 0);
        assert!(on_disk() < before / 4, "{} of {before} bytes are left", on_disk());
        // Slots go round.
        let again = put(&spill, &bytes(3, 60_000)).unwrap();
        assert!(spill.0.state().used == 20 && again.read(0, 60_000).unwrap() == bytes(3, 60_000));
    }

    #[test]
    fn there_is_no_more_in_it_than_the_quota_and_no_piece_larger_than_its_slot() {
        let dir = tempfile::tempdir().unwrap();
        let spill = Spill::open(dir.path(), 3 * SLOT, SLOT).unwrap();
        assert!(put(&spill, &bytes(1, SLOT as usize + 1)).is_none());
        let mut kept: Vec<SpilledPiece> = Vec::new();
        while let Some(piece) = put(&spill, &bytes(2, 50_000)) {
            kept.push(piece);
        }
        assert_eq!(kept.len(), 3);
        assert_eq!(spill.bytes(), 150_000);
        kept.pop();
        assert!(put(&spill, &bytes(4, 50_000)).is_some());
        assert!(Spill::open(&dir.path().join("missing"), 1, 1).is_err());
    }
}
