//! Connections to a database that belongs to somebody else.
//!
//! Three things make this harder than opening a file:
//!
//! * A WAL database is read through two more files, the log (`-wal`) and its
//!   index (`-shm`). Whoever opens it with `mode=ro` and finds them missing
//!   must create them. An agent without write permission in Nix's directory
//!   cannot, and the open fails although the data is right there; an agent
//!   that runs as root can, but has no business leaving files in it. Nix 2.8
//!   removes both files when the last process is done, newer ones keep them.
//! * `immutable=1` needs neither file, but reads the database file alone: rows
//!   that are still in the log are missed, and no lock keeps a writer from
//!   changing pages underneath. It is right exactly while there is no log and
//!   nobody writes. So it is a fallback for one query: [`Links::read`] compares
//!   the files before and after, starts over if anything moved, and never keeps
//!   such a connection, whose page cache would stay as it was for ever.
//! * As long as any connection is open, Nix's own last connection cannot shrink
//!   the log when it closes. A connection that is kept for speed while requests
//!   come in is given up when they stop ([`Links::release`]).

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use super::stamp::{FileId, Stamp};
use super::{DbError, StoreLocation};

/// The schema this module reads: what Nix 2.8 to 2.34 write.
pub(super) const SCHEMA: u32 = 10;
/// How long a query waits for a lock, which in WAL mode it practically never
/// does: only recovery after a crash excludes readers.
const BUSY_WAIT: Duration = Duration::from_secs(2);
/// Connections kept for the next query; others are closed after theirs.
const KEPT_MAX: usize = 4;
/// How often a query starts over because the files changed while it read them
/// without locks.
const ATTEMPTS: usize = 5;
/// Page cache of a connection, KiB. The kernel has the file in its own; reading 50,000 paths would fill any.
const CACHE_KIB: i64 = 512;

/// How the last query was able to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// With locks, including everything committed so far.
    Live,
    /// The database file alone. `behind` means that a log exists which could
    /// not be read, so recent changes may be missing.
    FileOnly {
        /// A log exists and was not read.
        behind: bool,
    },
}

struct Link {
    conn: Connection,
    file: FileId,
    used: Instant,
}

/// The connections of one [`super::Database`].
pub(super) struct Links {
    location: StoreLocation,
    kept: Mutex<Vec<Link>>,
}

impl Links {
    pub(super) fn new(location: StoreLocation) -> Self {
        Self { location, kept: Mutex::new(Vec::new()) }
    }

    pub(super) fn location(&self) -> &StoreLocation {
        &self.location
    }

    /// Runs `query` in one read transaction: all its statements see the same
    /// state. It may be run several times and must start from nothing each
    /// time. `None`: there is no database (yet).
    pub(super) fn read<T>(
        &self,
        mut query: impl FnMut(&Connection) -> Result<T, DbError>,
    ) -> Result<Option<(T, Access)>, DbError> {
        let mut failure = DbError::Unquiet { db: self.location.db.clone() };
        for _ in 0..ATTEMPTS {
            let Some(before) = self.stamp()? else {
                return Ok(None);
            };
            if before.lockable() {
                match self.read_live(&before, &mut query) {
                    Err(error) if error.wants_fallback() => {}
                    done => return done.map(|value| value.map(|value| (value, Access::Live))),
                }
            }
            let result = self.read_file(&mut query);
            if self.stamp()?.as_ref() == Some(&before) {
                let access = Access::FileOnly { behind: before.has_log() };
                return result.map(|value| value.map(|value| (value, access)));
            }
            // Pages of two different states may have been mixed: even an error
            // says nothing about the database.
            if let Err(error) = result {
                failure = error;
            }
        }
        Err(failure)
    }

    /// Closes connections that were not used for `idle`.
    pub(super) fn release(&self, idle: Duration) {
        self.lock().retain(|link| link.used.elapsed() < idle);
    }

    pub(super) fn stamp(&self) -> Result<Option<Stamp>, DbError> {
        Stamp::take(&self.location)
            .map_err(|source| DbError::Look { db: self.location.db.clone(), source })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Link>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_live<T>(
        &self,
        stamp: &Stamp,
        query: &mut impl FnMut(&Connection) -> Result<T, DbError>,
    ) -> Result<Option<T>, DbError> {
        let kept = {
            let mut kept = self.lock();
            // A replaced database leaves connections to the old file behind.
            kept.retain(|link| link.file == stamp.file());
            kept.pop()
        };
        let mut link = match kept {
            Some(link) => link,
            None => {
                if !check_schema(&self.location)? {
                    return Ok(None);
                }
                let conn = self.open("mode=ro")?;
                Link { conn, file: stamp.file(), used: Instant::now() }
            }
        };
        let value = in_transaction(&link.conn, query)?;
        link.used = Instant::now();
        let mut kept = self.lock();
        if kept.len() < KEPT_MAX {
            kept.push(link);
        }
        Ok(Some(value))
    }

    /// Runs `query` on a connection that is open already, without waiting for
    /// locks. `None` when there is no such connection, or an error.
    pub(super) fn read_at_once<T>(
        &self,
        mut query: impl FnMut(&Connection) -> Result<T, DbError>,
    ) -> Option<Result<T, DbError>> {
        let stamp = self.stamp().ok()?.filter(Stamp::lockable)?;
        let mut link = {
            let mut kept = self.lock();
            kept.retain(|link| link.file == stamp.file());
            kept.pop()?
        };
        link.conn.busy_timeout(Duration::ZERO).ok()?;
        let value = in_transaction(&link.conn, &mut query);
        link.conn.busy_timeout(BUSY_WAIT).ok()?;
        if value.is_ok() {
            link.used = Instant::now();
            let mut kept = self.lock();
            if kept.len() < KEPT_MAX {
                kept.push(link);
            }
        }
        Some(value)
    }

    fn read_file<T>(
        &self,
        query: &mut impl FnMut(&Connection) -> Result<T, DbError>,
    ) -> Result<Option<T>, DbError> {
        if !check_schema(&self.location)? {
            return Ok(None);
        }
        in_transaction(&self.open("immutable=1")?, query).map(Some)
    }

    fn open(&self, how: &str) -> Result<Connection, DbError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(uri(&self.location.db, how), flags)?;
        conn.busy_timeout(BUSY_WAIT)?;
        conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
        conn.set_prepared_statement_cache_capacity(16);
        Ok(conn)
    }
}

fn in_transaction<T>(
    conn: &Connection,
    query: &mut impl FnMut(&Connection) -> Result<T, DbError>,
) -> Result<T, DbError> {
    // A deferred transaction only reads here, so ending it is all there is to
    // do; it rolls back on drop.
    let transaction = conn.unchecked_transaction()?;
    query(&transaction)
}

/// Checks the file `schema`. False: it is not there yet, or empty; Nix writes
/// it once the tables exist.
pub(super) fn check_schema(location: &StoreLocation) -> Result<bool, DbError> {
    let file = location.schema_file();
    let text = match std::fs::read(&file) {
        Ok(bytes) => String::from_utf8_lossy(&bytes[..bytes.len().min(32)]).trim().to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(DbError::Look { db: file, source }),
    };
    match text.parse::<u32>() {
        _ if text.is_empty() => Ok(false),
        Ok(SCHEMA) => Ok(true),
        _ => Err(DbError::Schema { file, found: text }),
    }
}

/// SQLite's URI for a file: `?`, `#` and `%` mean something in it, and paths
/// need not be UTF-8.
fn uri(path: &Path, how: &str) -> String {
    use std::fmt::Write;
    use std::os::unix::ffi::OsStrExt;
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            _ => drop(write!(uri, "%{byte:02x}")),
        }
    }
    uri.push('?');
    uri.push_str(how);
    uri
}

impl DbError {
    /// True for the ways in which SQLite says that it could not set up the
    /// files it needs beside the database. A rollback journal left by a crash
    /// is not among them: that database must not be read without it.
    fn wants_fallback(&self) -> bool {
        let Self::Sqlite(rusqlite::Error::SqliteFailure(error, _)) = self else {
            return false;
        };
        match error.code {
            ErrorCode::CannotOpen => true,
            ErrorCode::ReadOnly => error.extended_code != ffi::SQLITE_READONLY_ROLLBACK,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn uris_escape_what_has_a_meaning() {
        assert_eq!(uri(Path::new("/a b/c?d#e%f"), "mode=ro"), "file:/a%20b/c%3fd%23e%25f?mode=ro");
        let odd = Path::new(std::ffi::OsStr::from_bytes(b"/\xff"));
        assert_eq!(uri(odd, "immutable=1"), "file:/%ff?immutable=1");
    }
}
