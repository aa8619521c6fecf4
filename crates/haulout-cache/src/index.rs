//! The index file: what is believed about paths and NARs, in redb.
//!
//! Changes are gathered in a [`Batch`] and written in one transaction, so that no request ever
//! waits for a disk.

use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use haulout_nix::{HashPart, NarHash};
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageError,
    Table, TableDefinition,
};

use crate::{UnixTime, backend::Backend, faults::Disk, format};

/// Bytes of pages redb may keep in memory. The hot set is small, and the resolver has a cache of
/// its own.
const PAGE_CACHE_BYTES: usize = 2 << 20;

const NARINFOS: TableDefinition<'_, &[u8; 20], &[u8]> = TableDefinition::new("narinfo");
const MISSES: TableDefinition<'_, &[u8; 20], u64> = TableDefinition::new("miss");
const TREES: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("tree");
/// size, last use, holders
const NARS: TableDefinition<'_, &[u8; 32], (u64, u64, u32)> = TableDefinition::new("nar");

/// What the index says about a NAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NarRow {
    pub(crate) size: u64,
    pub(crate) last_use: UnixTime,
    pub(crate) holders: u32,
}

/// Changes not yet written; `None` is a removal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    pub(crate) narinfos: HashMap<HashPart, Option<Arc<[u8]>>>,
    pub(crate) misses: HashMap<HashPart, Option<UnixTime>>,
    pub(crate) trees: HashMap<NarHash, Option<Arc<[u8]>>>,
    pub(crate) nars: HashMap<NarHash, Option<NarRow>>,
    /// Remove every miss there is before the ones above are written.
    pub(crate) forget_misses: bool,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.narinfos.is_empty()
            && self.misses.is_empty()
            && self.trees.is_empty()
            && self.nars.is_empty()
            && !self.forget_misses
    }

    /// Put `older`, which could not be written, back underneath.
    pub(crate) fn keep_below(&mut self, older: &Self) {
        fn merge<K: Copy + Eq + std::hash::Hash, V: Clone>(
            into: &mut HashMap<K, V>,
            from: &HashMap<K, V>,
        ) {
            for (key, value) in from {
                into.entry(*key).or_insert_with(|| value.clone());
            }
        }
        merge(&mut self.narinfos, &older.narinfos);
        merge(&mut self.trees, &older.trees);
        merge(&mut self.nars, &older.nars);
        if !self.forget_misses {
            merge(&mut self.misses, &older.misses);
        }
        self.forget_misses |= older.forget_misses;
    }
}

/// How large the tables may become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) narinfos: u64,
    pub(crate) misses: u64,
    pub(crate) tree_bytes: u64,
}

/// Rows per table after a write.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rows {
    pub(crate) narinfos: u64,
    pub(crate) misses: u64,
    pub(crate) trees: u64,
}

/// An index operation that failed; the text is for the log.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct IndexError(String);

impl<E: Into<redb::Error>> From<E> for IndexError {
    fn from(error: E) -> Self {
        Self(error.into().to_string())
    }
}

/// Why the index could not be opened.
#[derive(Debug)]
pub(crate) enum OpenFailure {
    /// It cannot be read by this version; begin a new one.
    Unreadable(String),
    /// The disk does not let us; try again later.
    Disk(String),
}

/// An open index file.
pub(crate) struct Index {
    db: Database,
}

impl Index {
    /// Open or create. The whole file is checked (a few milliseconds: it is small), because redb
    /// trusts what it finds and a damaged file would make it panic later.
    pub(crate) fn open(path: &Path, disk: Disk) -> Result<Self, OpenFailure> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|error| OpenFailure::Disk(error.to_string()))?;
        let open = || {
            let db = Database::builder()
                .set_cache_size(PAGE_CACHE_BYTES)
                .set_check_integrity_on_open(true)
                .create_with_backend(Backend::new(file, disk))
                .map_err(classify)?;
            let index = Self { db };
            index.create_tables().map_err(|error| match error {
                redb::Error::Io(error) => OpenFailure::Disk(error.to_string()),
                other => OpenFailure::Unreadable(other.to_string()),
            })?;
            Ok(index)
        };
        catch_unwind(AssertUnwindSafe(open))
            .unwrap_or_else(|_| Err(OpenFailure::Unreadable("redb panicked".into())))
    }

    /// Also notices tables of other types than ours.
    fn create_tables(&self) -> Result<(), redb::Error> {
        let transaction = self.db.begin_write()?;
        transaction.open_table(NARINFOS)?;
        transaction.open_table(MISSES)?;
        transaction.open_table(TREES)?;
        transaction.open_table(NARS)?;
        Ok(transaction.commit()?)
    }

    pub(crate) fn narinfo(&self, hash: &HashPart) -> Result<Option<Vec<u8>>, IndexError> {
        let table = self.db.begin_read()?.open_table(NARINFOS)?;
        Ok(table.get(hash.as_bytes())?.map(|value| value.value().to_vec()))
    }

    pub(crate) fn each_narinfo(
        &self,
        mut found: impl FnMut(HashPart, &[u8]),
    ) -> Result<(), IndexError> {
        let table = self.db.begin_read()?.open_table(NARINFOS)?;
        for entry in table.iter()? {
            let (hash, value) = entry?;
            found(HashPart::from_bytes(*hash.value()), value.value());
        }
        Ok(())
    }

    pub(crate) fn miss(&self, hash: &HashPart) -> Result<Option<UnixTime>, IndexError> {
        let table = self.db.begin_read()?.open_table(MISSES)?;
        Ok(table.get(hash.as_bytes())?.map(|value| UnixTime(value.value())))
    }

    pub(crate) fn tree(&self, hash: &NarHash) -> Result<Option<Vec<u8>>, IndexError> {
        let table = self.db.begin_read()?.open_table(TREES)?;
        Ok(table.get(hash.as_bytes())?.map(|value| value.value().to_vec()))
    }

    pub(crate) fn nars(&self) -> Result<HashMap<NarHash, NarRow>, IndexError> {
        let table = self.db.begin_read()?.open_table(NARS)?;
        let mut all = HashMap::new();
        for entry in table.iter()? {
            let (hash, row) = entry?;
            let (size, last_use, holders) = row.value();
            all.insert(
                NarHash::from_bytes(*hash.value()),
                NarRow { size, last_use: UnixTime(last_use), holders },
            );
        }
        Ok(all)
    }

    pub(crate) fn rows(&self) -> Result<Rows, IndexError> {
        let read = self.db.begin_read()?;
        Ok(Rows {
            narinfos: read.open_table(NARINFOS)?.len()?,
            misses: read.open_table(MISSES)?.len()?,
            trees: read.open_table(TREES)?.len()?,
        })
    }

    /// Write all of `batch` durably, drop what has expired, keep every table within its limit.
    pub(crate) fn write(
        &self,
        batch: &Batch,
        limits: Limits,
        now: UnixTime,
    ) -> Result<Rows, IndexError> {
        let transaction = self.db.begin_write()?;
        let rows = {
            let mut narinfos = transaction.open_table(NARINFOS)?;
            for (hash, value) in &batch.narinfos {
                put(&mut narinfos, hash.as_bytes(), value.as_deref())?;
            }
            let narinfo_rows = narinfos.len()?;
            if narinfo_rows > limits.narinfos {
                trim(&mut narinfos, limits.narinfos, |_| 1)?;
            }

            let mut trees = transaction.open_table(TREES)?;
            for (hash, value) in &batch.trees {
                put(&mut trees, hash.as_bytes(), value.as_deref())?;
            }
            if !batch.trees.is_empty() {
                trim(&mut trees, limits.tree_bytes, |value| value.len() as u64)?;
            }

            let mut misses = transaction.open_table(MISSES)?;
            if batch.forget_misses {
                misses.retain(|_, _| false)?;
            }
            for (hash, until) in &batch.misses {
                match until {
                    Some(until) => drop(misses.insert(hash.as_bytes(), until.0)?),
                    None => drop(misses.remove(hash.as_bytes())?),
                }
            }
            if misses.len()? > limits.misses {
                misses.retain(|_, until| until > now.0)?;
            }
            if misses.len()? > limits.misses {
                misses.retain(|_, _| false)?;
            }

            let mut nars = transaction.open_table(NARS)?;
            for (hash, row) in &batch.nars {
                match row {
                    Some(row) => {
                        drop(nars.insert(hash.as_bytes(), (row.size, row.last_use.0, row.holders))?)
                    }
                    None => drop(nars.remove(hash.as_bytes())?),
                }
            }
            Rows { narinfos: narinfos.len()?, misses: misses.len()?, trees: trees.len()? }
        };
        transaction.commit()?;
        Ok(rows)
    }
}

fn put<const N: usize>(
    table: &mut Table<'_, &[u8; N], &[u8]>,
    key: &[u8; N],
    value: Option<&[u8]>,
) -> Result<(), StorageError> {
    match value {
        Some(value) => drop(table.insert(key, value)?),
        None => drop(table.remove(key)?),
    }
    Ok(())
}

/// When the sum of `cost` exceeds `limit`, remove the values stored longest ago until a tenth of it
/// is free again.
fn trim<const N: usize>(
    table: &mut Table<'_, &'static [u8; N], &'static [u8]>,
    limit: u64,
    cost: impl Fn(&[u8]) -> u64,
) -> Result<(), StorageError> {
    let mut all = Vec::new();
    for entry in table.iter()? {
        let (_, value) = entry?;
        all.push((format::stored_at(value.value()), cost(value.value())));
    }
    let total: u64 = all.iter().map(|(_, cost)| cost).sum();
    if total <= limit {
        return Ok(());
    }
    all.sort_unstable();
    // The youngest time that has to go, and how much of that very second.
    let mut excess = total - (limit - limit / 10);
    let mut youngest = 0;
    let mut of_youngest = 0;
    for (time, cost) in all {
        if excess == 0 {
            break;
        }
        if time != youngest {
            (youngest, of_youngest) = (time, 0);
        }
        of_youngest += cost;
        excess = excess.saturating_sub(cost);
    }
    table.retain(|_, value| match format::stored_at(value).cmp(&youngest) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => {
            let stays = of_youngest == 0;
            of_youngest = of_youngest.saturating_sub(cost(value));
            stays
        }
    })
}

fn classify(error: DatabaseError) -> OpenFailure {
    match error {
        DatabaseError::Storage(StorageError::Io(error)) if !is_about_content(&error) => {
            OpenFailure::Disk(error.to_string())
        }
        other => OpenFailure::Unreadable(other.to_string()),
    }
}

fn is_about_content(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}

/// Rename an unreadable index so that a person can look at it; only the latest one is kept.
pub(crate) fn set_aside(path: &Path) -> std::io::Result<()> {
    fs::rename(path, path.with_extension("redb.unreadable"))
}
