//! NAR content: reading what is there, adding what is new.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use haulout_nix::NarHash;
use ring::digest;

use crate::{Cache, DiskOp, UnixTime, index::NarRow, state::Held};

/// Bytes read at a time when a file is hashed.
const CHECK_BUFFER_BYTES: usize = 256 * 1024;

/// A NAR on disk, open. It stays readable when it is evicted meanwhile.
pub struct CachedNar {
    pub(crate) cache: Cache,
    pub(crate) hash: NarHash,
    pub(crate) file: File,
    pub(crate) size: u64,
    pub(crate) checked: AtomicBool,
}

impl CachedNar {
    /// Bytes of the NAR.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether its bytes were hashed since the cache was opened. If not, call [`CachedNar::check`]
    /// before serving it (or hash it on the way and hold the last bytes back).
    pub fn is_checked(&self) -> bool {
        self.checked.load(Relaxed)
    }

    /// Hash the whole file (blocking). A file that is not what its name says is removed; `false`
    /// then.
    pub fn check(&self) -> bool {
        if self.is_checked() {
            return true;
        }
        match self.digest() {
            Ok(found) if found == self.hash => {
                self.checked.store(true, Relaxed);
                self.cache.mark_checked(&self.hash);
                true
            }
            Ok(_) => {
                tracing::warn!(nar = %self.hash, "a cached NAR was damaged; removed");
                self.cache.forget_nar(&self.hash);
                false
            }
            Err(error) => {
                tracing::warn!(nar = %self.hash, %error, "a cached NAR cannot be read; removed");
                self.cache.forget_nar(&self.hash);
                false
            }
        }
    }

    fn digest(&self) -> io::Result<NarHash> {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut buffer = vec![0; CHECK_BUFFER_BYTES];
        let mut offset = 0;
        while offset < self.size {
            let read = self.read_at(offset, &mut buffer)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            context.update(&buffer[..read]);
            offset += read as u64;
        }
        Ok(NarHash::from_digest(&context.finish()))
    }

    /// Read at `offset`, as much as comes in one go; 0 only at the end.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        self.file.read_at(&mut buffer[..wanted], offset)
    }
}

impl std::fmt::Debug for CachedNar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CachedNar")
            .field("hash", &self.hash)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// A NAR being added. Dropped before [`NarWriter::finish`], it leaves nothing behind.
pub struct NarWriter {
    cache: Cache,
    hash: NarHash,
    size: u64,
    /// `None` once something went wrong.
    file: Option<File>,
    path: PathBuf,
    written: u64,
    now: UnixTime,
}

impl NarWriter {
    /// The caller has reserved the bytes and entered the hash in `writing`.
    pub(crate) fn create(
        cache: Cache,
        hash: NarHash,
        size: u64,
        path: PathBuf,
        now: UnixTime,
    ) -> Self {
        let file = cache
            .disk()
            .before(DiskOp::Create)
            .and_then(|()| OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path));
        let mut writer = Self { cache, hash, size, file: None, path, written: 0, now };
        match file {
            Ok(file) => writer.file = Some(file),
            Err(error) => writer.fail("create a file in", &error),
        }
        writer
    }

    pub(crate) fn is_good(&self) -> bool {
        self.file.is_some()
    }

    /// Add the next bytes (blocking). `false` when the rest need not be offered: the disk refused,
    /// or there is more than was announced.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        self.written = self.written.saturating_add(bytes.len() as u64);
        if self.written > self.size {
            self.file = None;
        }
        let Some(file) = &mut self.file else {
            return false;
        };
        match self.cache.disk().before(DiskOp::Write).and_then(|()| file.write_all(bytes)) {
            Ok(()) => true,
            Err(error) => {
                self.fail("write to", &error);
                false
            }
        }
    }

    /// Keep it, if it is complete and `seen`, the SHA-256 the caller computed of the bytes written,
    /// is what was announced. `holders`: how many peers are known to hold it as well. Blocks until
    /// the content is on the disk.
    pub fn finish(mut self, seen: &NarHash, holders: u32, now: UnixTime) -> bool {
        self.now = now;
        let Some(file) = self.file.take() else {
            return false;
        };
        if self.written != self.size || *seen != self.hash {
            return false;
        }
        match self.publish(&file) {
            Ok(()) => {
                let row = NarRow { size: self.size, last_use: now, holders };
                self.cache.lock().insert(self.hash, Held { row, checked: true });
                true
            }
            Err(error) => {
                self.fail("store a NAR in", &error);
                false
            }
        }
    }

    fn publish(&self, file: &File) -> io::Result<()> {
        let disk = self.cache.disk();
        disk.before(DiskOp::Sync)?;
        file.sync_data()?;
        disk.before(DiskOp::Rename)?;
        fs::rename(&self.path, self.cache.layout().nar(&self.hash))
    }

    fn fail(&mut self, what: &str, error: &io::Error) {
        self.file = None;
        let reason = format!("cannot {what} the cache directory: {error}");
        self.cache.lock().pause(reason, self.now);
    }
}

impl Drop for NarWriter {
    fn drop(&mut self) {
        // Gone already when it was renamed.
        let _ = fs::remove_file(&self.path);
        let mut state = self.cache.lock();
        state.reserved -= self.size;
        state.writing.remove(&self.hash);
    }
}

impl std::fmt::Debug for NarWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NarWriter")
            .field("hash", &self.hash)
            .field("written", &self.written)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
