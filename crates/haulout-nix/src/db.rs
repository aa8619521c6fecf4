//! The database of a Nix store, read while Nix works with it.
//!
//! Everything here is read-only and takes no part in Nix's own locking beyond
//! the shared locks of SQLite, which in WAL mode never hold up a writer. See
//! `link` for how a connection comes about.

mod follow;
mod info;
mod link;
mod location;
mod rows;
mod stamp;

use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};

pub use follow::{Changes, Follower};
pub use link::Access;
pub use location::StoreLocation;
pub use rows::{ROWS_MAX, Row, Signers, SignersId};

use crate::{HashPart, PathInfo};

/// Why the database gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DbError {
    /// The files could not even be looked at.
    #[error("cannot look at {}", db.display())]
    Look {
        /// The file.
        db: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store was made by a Nix that is too old or too new.
    #[error("the store database has schema {found:?}, this program reads {}; which Nix 2.8 to 2.34 write; hint: see {}", link::SCHEMA, file.display())]
    Schema {
        /// The file that says so.
        file: PathBuf,
        /// What it says.
        found: String,
    },
    /// SQLite reported an error.
    #[error("the store database cannot be read")]
    Sqlite(#[from] rusqlite::Error),
    /// The database could only be read without locks, and changed each time.
    #[error("{} kept changing while it was read; hint: start the agent as a user that may read {}-shm", db.display(), db.display())]
    Unquiet {
        /// The database file.
        db: PathBuf,
    },
    /// A row that no Nix would have written.
    #[error("the store database has a bad row: {0}")]
    BadRow(BadRow),
    /// More rows than we are prepared to hold.
    #[error("the store database has more than {max} rows")]
    TooMany {
        /// The limit.
        max: usize,
    },
}

/// A row that cannot be understood. Such a path is treated as absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// The row's number.
    pub id: i64,
    /// The path it is about, shortened, without control characters.
    pub path: String,
    /// What is wrong.
    pub reason: String,
}

/// Characters of a bad row's path that are repeated.
const BAD_PATH_CHARS_MAX: usize = 300;

impl BadRow {
    fn new(id: i64, path: rusqlite::types::ValueRef<'_>, reason: String) -> Self {
        let path = match path {
            rusqlite::types::ValueRef::Text(bytes) => {
                // Four bytes are the longest character.
                let start = &bytes[..bytes.len().min(4 * BAD_PATH_CHARS_MAX)];
                let text = String::from_utf8_lossy(start);
                text.chars().take(BAD_PATH_CHARS_MAX).flat_map(char::escape_debug).collect()
            }
            _ => "(no path)".to_owned(),
        };
        Self { id, path, reason }
    }
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (row {}): {}", self.path, self.id, self.reason)
    }
}

/// All valid paths of a store at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// One row per path, in order of id.
    pub rows: Vec<Row>,
    /// What [`Row::signers`] stands for.
    pub signers: Signers,
    /// Rows that were passed over.
    pub bad: Vec<BadRow>,
}

/// The database of one store. Cheap to share between threads; queries of
/// several threads run side by side.
pub struct Database {
    links: link::Links,
}

impl Database {
    /// Prepares to read the database of a store. Nothing is kept open by this,
    /// and a store that does not exist yet is no error: it is empty until it
    /// appears.
    ///
    /// # Errors
    /// [`DbError::Schema`] if there is a database of another schema, so that a
    /// user learns it at the start.
    pub fn open(location: &StoreLocation) -> Result<Self, DbError> {
        let database = Self { links: link::Links::new(location.clone()) };
        if database.links.stamp()?.is_some() {
            link::check_schema(location)?;
        }
        Ok(database)
    }

    /// The store this is about.
    pub fn location(&self) -> &StoreLocation {
        self.links.location()
    }

    /// Whether there is a database; a few `stat`s.
    pub fn exists(&self) -> bool {
        matches!(self.links.stamp(), Ok(Some(_)))
    }

    /// How the database can be read at this moment; `None` without one.
    ///
    /// # Errors
    /// Those of any query.
    pub fn access(&self) -> Result<Option<Access>, DbError> {
        let probe = self.links.read(|conn| {
            Ok(conn.prepare_cached("select 1 from ValidPaths limit 1")?.exists([])?)
        })?;
        Ok(probe.map(|(_, access)| access))
    }

    /// All rows; `None` while there is no database.
    ///
    /// # Errors
    /// When the database cannot be read. Single bad rows are no error, see
    /// [`Snapshot::bad`].
    pub fn load(&self) -> Result<Option<Snapshot>, DbError> {
        let store_dir = &self.location().store_dir;
        let loaded = self.links.read(|conn| {
            let mut signers = Signers::default();
            let batch = rows::fetch_after(conn, store_dir, &mut signers, i64::MIN, ROWS_MAX + 1)?;
            Ok(Snapshot { rows: batch.rows, signers, bad: batch.bad })
        })?;
        Ok(loaded.map(|(snapshot, _)| snapshot))
    }

    /// Everything about the path with this hash part; `None` when it is not
    /// valid here or there is no database. References are sorted. Signatures
    /// and content address are reported, not checked.
    ///
    /// # Errors
    /// [`DbError::BadRow`] names the path whose row makes no sense.
    pub fn path_info(&self, hash: &HashPart) -> Result<Option<PathInfo>, DbError> {
        let store_dir = &self.location().store_dir;
        let found = self.links.read(|conn| info::path_info(conn, store_dir, hash))?;
        Ok(found.and_then(|(info, _)| info))
    }

    /// The same without ever waiting for anything but the page cache (and, now
    /// and then, a disk): for a thread that has other things to do. `None`:
    /// that is not possible just now, ask [`Database::path_info`] on a thread
    /// that may block.
    pub fn path_info_at_once(&self, hash: &HashPart) -> Option<Option<PathInfo>> {
        let store_dir = &self.location().store_dir;
        self.links.read_at_once(|conn| info::path_info(conn, store_dir, hash)).and_then(Result::ok)
    }

    /// The path with this hash part and what it refers to, breadth first, at
    /// most `max` paths: what somebody who asked for the first will ask next.
    /// All from the same moment. Empty when the first is not valid; bad rows
    /// further down are left out.
    ///
    /// # Errors
    /// As [`Database::path_info`], for the first path.
    pub fn closure_infos(&self, hash: &HashPart, max: usize) -> Result<Vec<PathInfo>, DbError> {
        let store_dir = &self.location().store_dir;
        let found = self.links.read(|conn| info::closure(conn, store_dir, hash, max))?;
        Ok(found.map(|(infos, _)| infos).unwrap_or_default())
    }

    /// Gives up connections that no query used for `idle`. Call it now and
    /// then: an open connection keeps Nix from tidying up its log.
    pub fn release_idle(&self, idle: Duration) {
        self.links.release(idle);
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("db", &self.location().db).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
