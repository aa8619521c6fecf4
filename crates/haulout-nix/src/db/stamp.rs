//! Noticing that a database changed, without opening it.
//!
//! Only `stat` is used, and nothing here may ever open the database, its log
//! or its index by hand: POSIX drops all of a process's locks on a file when
//! the process closes *any* descriptor of it, so a quick look at a header
//! would silently unlock the connections that SQLite holds in this process.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::StoreLocation;

/// A file written this recently may be written again within the same tick of
/// the file system's clock and look unchanged. Ticks are milliseconds on the
/// usual file systems; two seconds also covers the coarsest.
const UNSETTLED: Duration = Duration::from_secs(2);

/// What can be seen from outside of the state of a database. Every commit
/// writes to the log or to the database file, so two equal stamps mean equal
/// content, provided that the first was [`Stamp::settled`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    db: FileStamp,
    wal: Option<FileStamp>,
    index: bool,
    journal: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    id: FileId,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Which file it is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileStamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            id: FileId { device: meta.dev(), inode: meta.ino() },
            bytes: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    fn take(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::metadata(path) {
            Ok(meta) => Ok(Some(Self::of(&meta))),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How far the last write is from `now`, in either direction: a file from
    /// the future belongs to a clock set back, and must not keep us busy until
    /// that time has come again.
    fn distance(&self, now: SystemTime) -> Duration {
        let (secs, nanos) = self.modified;
        let since_epoch =
            Duration::new(u64::try_from(secs).unwrap_or(0), u32::try_from(nanos).unwrap_or(0));
        // Seconds that were an `i64` have room in a `SystemTime`.
        let modified = UNIX_EPOCH + since_epoch;
        now.duration_since(modified).unwrap_or_else(|ahead| ahead.duration())
    }
}

impl Stamp {
    /// Looks at the files. `None`: there is no database yet. An empty file
    /// counts as none too: Nix is about to fill it, and SQLite would delete
    /// the log beside an empty database if asked to open it.
    pub(super) fn take(location: &StoreLocation) -> io::Result<Option<Self>> {
        let Some(db) = FileStamp::take(&location.db)?.filter(|db| db.bytes > 0) else {
            return Ok(None);
        };
        Ok(Some(Self {
            db,
            wal: FileStamp::take(&location.beside("-wal"))?,
            index: FileStamp::take(&location.beside("-shm"))?.is_some(),
            journal: FileStamp::take(&location.beside("-journal"))?.is_some_and(|j| j.bytes > 0),
        }))
    }

    /// False when a later change might leave no trace in a later stamp.
    pub(super) fn settled(&self, now: SystemTime) -> bool {
        let quiet = |file: &FileStamp| file.distance(now) >= UNSETTLED;
        quiet(&self.db) && self.wal.as_ref().is_none_or(quiet)
    }

    /// Identity of the database file.
    pub(super) fn file(&self) -> FileId {
        self.db.id
    }

    /// True when the log holds something that the database file may lack.
    pub(super) fn has_log(&self) -> bool {
        self.wal.is_some_and(|wal| wal.bytes > 0)
    }

    /// True when reading with locks creates no file: both companions of a WAL
    /// database exist, or a rollback journal shows that it is not one.
    pub(super) fn lockable(&self) -> bool {
        self.journal || (self.wal.is_some() && self.index)
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
