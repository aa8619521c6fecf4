//! A chroot store as Nix makes it, written to without Nix.

use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use haulout_nix::db::StoreLocation;
use haulout_nix::{PathInfo, StorePath, nar};
use rusqlite::{Connection, OptionalExtension, params};

use crate::{SampleError, tree};

/// The schema number that Nix 2.8 to 2.34 expect.
const SCHEMA: &str = "10";
/// `registrationTime` of every path, so that databases are the same too.
const REGISTRATION_TIME: i64 = 1_700_000_000;
/// How long to wait for a writer, e.g. a Nix at work on the same store.
const BUSY_WAIT: Duration = Duration::from_secs(30);

/// The tables of schema 10.
const TABLES: &str = "
create table if not exists ValidPaths (
    id integer primary key autoincrement not null,
    path text unique not null,
    hash text not null,
    registrationTime integer not null,
    deriver text,
    narSize integer,
    ultimate integer,
    sigs text,
    ca text
);
create table if not exists Refs (
    referrer integer not null,
    reference integer not null,
    primary key (referrer, reference),
    foreign key (referrer) references ValidPaths(id) on delete cascade,
    foreign key (reference) references ValidPaths(id) on delete restrict
);
create index if not exists IndexReferrer on Refs(referrer);
create index if not exists IndexReference on Refs(reference);
create trigger if not exists DeleteSelfRefs before delete on ValidPaths
begin
    delete from Refs where referrer = old.id and reference = old.id;
end;
create table if not exists DerivationOutputs (
    drv integer not null,
    id text not null,
    path text not null,
    primary key (drv, id),
    foreign key (drv) references ValidPaths(id) on delete cascade
);
create index if not exists IndexDerivationOutputs on DerivationOutputs(path);
";

/// Makes an empty chroot store below `root`: what Nix itself makes when it is
/// first told `--store local?root=ROOT`. Nothing happens to a store that is
/// there already.
///
/// # Errors
/// When files cannot be written.
pub fn create_empty(root: &Path) -> Result<StoreLocation, SampleError> {
    let location = StoreLocation::chroot(root);
    let state = root.join("nix/var/nix");
    for dir in [
        location.real_store.join(".links"),
        state.join("db"),
        state.join("gcroots/profiles"),
        state.join("profiles/per-user"),
        state.join("temproots"),
        location.log_dir.clone(),
    ] {
        std::fs::create_dir_all(dir)?;
    }
    let conn = open(&location)?;
    conn.execute_batch(TABLES)?;
    // Last, so that whoever finds it finds the tables too.
    std::fs::write(location.db.with_file_name("schema"), SCHEMA)?;
    Ok(location)
}

/// Makes a path valid whose files are in the store already. Its references
/// must be valid before. A path that is valid already is left alone.
///
/// # Errors
/// [`SampleError::MissingReference`]; from the database.
pub fn register(root: &Path, info: &PathInfo) -> Result<(), SampleError> {
    register_all(&StoreLocation::chroot(root), std::slice::from_ref(info))
}

/// As [`register`], for several in one transaction; they may refer to one
/// another in any order.
///
/// # Errors
/// As [`register`]; then none of them is valid.
pub fn register_all(location: &StoreLocation, infos: &[PathInfo]) -> Result<(), SampleError> {
    let mut conn = open(location)?;
    let transaction = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    {
        let dir = &location.store_dir;
        let mut add = transaction.prepare(
            "insert or ignore into ValidPaths (path, hash, registrationTime, deriver, narSize, sigs, ca)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        for info in infos {
            let mut hash = String::from("sha256:");
            for byte in info.nar_hash.as_bytes() {
                // Writing to a String cannot fail.
                let _ = write!(hash, "{byte:02x}");
            }
            let size = i64::try_from(info.nar_size).unwrap_or(i64::MAX);
            let deriver = info.deriver.as_ref().map(|deriver| dir.display(deriver));
            let sigs: Vec<String> = info.signatures.iter().map(ToString::to_string).collect();
            let ca = info.ca.as_ref().map(ToString::to_string);
            let path = dir.display(&info.path);
            add.execute(params![path, hash, REGISTRATION_TIME, deriver, size, sigs.join(" "), ca])?;
        }
        let mut refer = transaction.prepare(
            "insert or ignore into Refs
             select a.id, b.id from ValidPaths a, ValidPaths b where a.path = ?1 and b.path = ?2",
        )?;
        let mut known = transaction.prepare("select 1 from ValidPaths where path = ?1")?;
        for info in infos {
            let path = dir.display(&info.path);
            for reference in &info.references {
                let to = dir.display(reference);
                if refer.execute([&path, &to])? == 0 && !known.exists([&to])? {
                    let (path, reference) = (info.path.clone(), reference.clone());
                    return Err(SampleError::MissingReference { path, reference });
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Puts a path into the store from its NAR and makes it valid: what Nix does
/// at the end of a substitution, signatures aside, which are the caller's
/// business.
///
/// # Errors
/// [`SampleError::WrongNar`] when the NAR is not the one that `info` describes;
/// as [`register`]. The store is then as before.
pub fn install(root: &Path, info: &PathInfo, nar: impl Read) -> Result<(), SampleError> {
    let location = StoreLocation::chroot(root);
    let temporary = Temporary::new(&location, &info.path);
    // One byte more than it should be is enough to know.
    let digest = nar::restore(nar.take(info.nar_size + 1), &temporary.path)?;
    if (digest.hash, digest.size) != (info.nar_hash, info.nar_size) {
        return Err(SampleError::WrongNar { path: info.path.clone() });
    }
    tree::seal(&temporary.path)?;
    temporary.keep(&location, &info.path)?;
    register(root, info)
}

/// Makes a path invalid and deletes its files, in this order, as Nix's garbage
/// collector does.
///
/// # Errors
/// [`SampleError::InUse`] when other valid paths refer to it.
pub fn remove(root: &Path, path: &StorePath) -> Result<(), SampleError> {
    let location = StoreLocation::chroot(root);
    let conn = open(&location)?;
    let full = location.store_dir.display(path);
    match conn.execute("delete from ValidPaths where path = ?1", [full]) {
        Err(rusqlite::Error::SqliteFailure(error, _))
            if error.code == rusqlite::ErrorCode::ConstraintViolation =>
        {
            return Err(SampleError::InUse { path: path.clone() });
        }
        done => done?,
    };
    Ok(tree::delete(&location.real_path(path))?)
}

/// Deletes everything below `root`. Directories in a store are read-only, so
/// ordinary ways of deleting a tree fail there unless one is root.
///
/// # Errors
/// From the file system.
pub fn delete_all(root: &Path) -> Result<(), SampleError> {
    Ok(tree::delete(root)?)
}

/// True when the path is valid in the store.
pub(crate) fn is_valid(
    conn: &Connection,
    location: &StoreLocation,
    path: &StorePath,
) -> Result<bool, SampleError> {
    let full = location.store_dir.display(path);
    let mut statement = conn.prepare_cached("select 1 from ValidPaths where path = ?1")?;
    Ok(statement.query_row([full], |_| Ok(())).optional()?.is_some())
}

pub(crate) fn open(location: &StoreLocation) -> Result<Connection, SampleError> {
    let conn = Connection::open(&location.db)?;
    conn.busy_timeout(BUSY_WAIT)?;
    // These stores can be made again; a power cut may cost them. First,
    // because the change to WAL mode already waits for the disk otherwise.
    conn.pragma_update(None, "synchronous", "off")?;
    conn.pragma_update(None, "journal_mode", "wal")?;
    conn.pragma_update(None, "foreign_keys", true)?;
    Ok(conn)
}

/// A path that is being filled beside its place. Deleted unless kept.
pub(crate) struct Temporary {
    pub(crate) path: std::path::PathBuf,
}

impl Temporary {
    /// A name that no store path has, for what is to become `path`.
    pub(crate) fn new(location: &StoreLocation, path: &StorePath) -> Self {
        let name = format!(".tmp-{}-{}", std::process::id(), path.hash_part());
        Self { path: location.real_store.join(name) }
    }

    /// Moves it to its place. What is there belongs to no valid path, or to
    /// one with the same content, and is replaced.
    pub(crate) fn keep(
        &self,
        location: &StoreLocation,
        path: &StorePath,
    ) -> Result<(), SampleError> {
        let place = location.real_path(path);
        tree::delete(&place)?;
        Ok(std::fs::rename(&self.path, place)?)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Only litter in a store for tests and demonstrations.
        let _ = tree::delete(&self.path);
    }
}
