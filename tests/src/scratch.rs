//! Directories that vanish with the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Every directory and network namespace of these tests starts with this, followed by
/// the id of the process it belongs to.
pub(crate) const PREFIX: &str = "haulout-test-";

/// Free memory below which `/dev/shm` is left alone.
const SHM_FREE_MIN: u64 = 3 << 30;

/// A new empty directory, removed with everything in it when dropped. In memory
/// (`/dev/shm`) where that has room: stores are then measured, not disks.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let base = base();
        sweep(&base);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = base.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        Self(dir)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Kept for a look when the test failed and the developer wants one.
        if std::thread::panicking() && std::env::var_os("HAULOUT_TEST_KEEP").is_some() {
            eprintln!("kept: {}", self.0.display());
            return;
        }
        remove(&self.0);
    }
}

fn base() -> PathBuf {
    let shm = Path::new("/dev/shm");
    let free = rustix::fs::statvfs(shm).map_or(0, |fs| fs.f_bavail * fs.f_frsize);
    if free >= SHM_FREE_MIN { shm.to_owned() } else { std::env::temp_dir() }
}

/// Removes what tests that were killed have left behind.
fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_stale) {
            remove(&entry.path());
        }
    }
}

/// Whether `name` carries our prefix and the id of a process that is gone.
pub(crate) fn is_stale(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

/// Removes a tree, read-only store directories included.
pub(crate) fn remove(dir: &Path) {
    if fs::remove_dir_all(dir).is_ok() {
        return;
    }
    // Without root, a directory must be writable for its entries to go.
    make_writable(dir);
    if let Err(error) = fs::remove_dir_all(dir)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        eprintln!("cannot remove {}: {error}", dir.display());
    }
}

fn make_writable(dir: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o755));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_is_what_a_dead_process_left() {
        assert!(is_stale(&format!("{PREFIX}4194305-0"))); // above the kernel's largest pid
        assert!(!is_stale(&format!("{PREFIX}{}-0", std::process::id())));
        assert!(!is_stale("haulout-test-x"));
        assert!(!is_stale("other-4194305-0"));
    }

    #[test]
    fn a_scratch_directory_goes_with_its_owner() {
        let scratch = Scratch::new();
        let path = scratch.path().to_owned();
        fs::create_dir(path.join("sub")).unwrap();
        fs::write(path.join("sub/file"), "x").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }
}
