//! All valid paths in few bytes each.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::{BadRow, DbError};
use crate::{HashPart, StoreDir};

/// Paths one store may have here. NixOS's public cache of a whole release has
/// fewer; more would be a mistake that must not take all memory.
pub const ROWS_MAX: usize = 4_000_000;
/// Different sets of signing keys that are told apart; see [`Signers`].
const SIGNER_SETS_MAX: usize = 1 << 16;
/// Longest text column that is looked at, bytes.
pub(super) const COLUMN_BYTES_MAX: usize = 1 << 20;
/// Signatures of one path that count.
const SIGNERS_PER_PATH_MAX: usize = 64;

/// What is kept of each valid path: 48 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The row's number in the database. Never used twice by Nix, so a path
    /// that is removed and built again has a new one.
    pub id: i64,
    /// Size of the path's NAR in bytes; 0 when the database does not know.
    pub nar_size: u64,
    /// The path's hash part.
    pub hash: HashPart,
    /// Who signed it, see [`Signers::names`]. Names only: nothing is verified.
    pub signers: SignersId,
    /// Digest of the columns that Nix may change in a row that stays.
    tag: u32,
    /// True when the path is content-addressed and needs no signature.
    pub content_addressed: bool,
}

/// A set of key names, see [`Signers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SignersId(u32);

impl SignersId {
    /// The empty set.
    pub const NONE: Self = Self(0);
    /// Stands for every set beyond the ones that are told apart; like
    /// [`SignersId::NONE`] it has no names, so such paths count as unsigned.
    const OTHERS: Self = Self(1);

    /// An index for tables beside [`Signers`]: small and without gaps.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The different sets of key names that occur in a store. A store of 50,000
/// paths has a handful.
#[derive(Debug, Clone)]
pub struct Signers {
    sets: Vec<Box<[Box<str>]>>,
    ids: HashMap<Box<str>, SignersId>,
}

impl Default for Signers {
    fn default() -> Self {
        // Places for NONE and OTHERS.
        Self { sets: vec![Box::default(), Box::default()], ids: HashMap::new() }
    }
}

impl Signers {
    /// The names in a set, in the order of the signatures.
    pub fn names(&self, id: SignersId) -> &[Box<str>] {
        self.sets.get(id.index()).map_or(&[], |set| &set[..])
    }

    /// How many sets there are; every [`SignersId::index`] is below.
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Never true: the empty set is always there.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// The set behind the `sigs` column: `name:base64 name:base64`. `scratch`
    /// saves an allocation per row.
    fn intern(&mut self, sigs: &str, scratch: &mut String) -> SignersId {
        scratch.clear();
        for sig in sigs.split_ascii_whitespace().take(SIGNERS_PER_PATH_MAX) {
            let Some((name, _)) = sig.split_once(':') else {
                continue;
            };
            scratch.push_str(name);
            scratch.push(' ');
        }
        if scratch.is_empty() {
            return SignersId::NONE;
        }
        if let Some(&id) = self.ids.get(scratch.as_str()) {
            return id;
        }
        if self.sets.len() >= SIGNER_SETS_MAX {
            return SignersId::OTHERS;
        }
        let id = SignersId(u32::try_from(self.sets.len()).unwrap_or(SignersId::OTHERS.0));
        self.sets.push(scratch.split_ascii_whitespace().map(Box::from).collect());
        self.ids.insert(scratch.as_str().into(), id);
        id
    }
}

/// Rows as they came out of the database.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// In order of id.
    pub(super) rows: Vec<Row>,
    pub(super) bad: Vec<BadRow>,
}

const COLUMNS: &str = "select id, path, hash, narSize, sigs, ca from ValidPaths";

/// Up to `limit` rows with an id above `after`, in order of id.
pub(super) fn fetch_after(
    conn: &Connection,
    store_dir: &StoreDir,
    signers: &mut Signers,
    after: i64,
    limit: usize,
) -> Result<Batch, DbError> {
    let mut statement =
        conn.prepare_cached(&format!("{COLUMNS} where id > ?1 order by id limit ?2"))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut batch = Batch::default();
    collect(statement.query((after, limit))?, store_dir, signers, &mut batch)?;
    Ok(batch)
}

/// The rows with these ids, as far as they exist; ids ascending.
pub(super) fn fetch_ids(
    conn: &Connection,
    store_dir: &StoreDir,
    signers: &mut Signers,
    ids: &[i64],
) -> Result<Batch, DbError> {
    let mut statement = conn.prepare_cached(&format!("{COLUMNS} where id = ?1"))?;
    let mut batch = Batch::default();
    for id in ids {
        collect(statement.query([id])?, store_dir, signers, &mut batch)?;
    }
    Ok(batch)
}

fn collect(
    mut rows: rusqlite::Rows<'_>,
    store_dir: &StoreDir,
    signers: &mut Signers,
    batch: &mut Batch,
) -> Result<(), DbError> {
    let mut scratch = String::new();
    while let Some(row) = rows.next()? {
        if batch.rows.len() + batch.bad.len() >= ROWS_MAX {
            return Err(DbError::TooMany { max: ROWS_MAX });
        }
        let id = row.get(0)?;
        match compact(row, id, store_dir, signers, &mut scratch) {
            Ok(row) => batch.rows.push(row),
            Err(reason) => batch.bad.push(BadRow::new(id, row.get_ref(1)?, reason)),
        }
    }
    Ok(())
}

fn compact(
    row: &rusqlite::Row<'_>,
    id: i64,
    store_dir: &StoreDir,
    signers: &mut Signers,
    scratch: &mut String,
) -> Result<Row, String> {
    let column = |index: usize| row.get_ref(index).map_err(|error| error.to_string());
    let path = text(column(1)?, "path")?.ok_or("no path")?;
    let hash = hash_part(path, store_dir).ok_or("not a store path")?;
    let nar_hash = text(column(2)?, "hash")?.unwrap_or_default();
    let nar_size = match column(3)? {
        ValueRef::Null => 0,
        ValueRef::Integer(size) => u64::try_from(size).map_err(|_| "negative narSize")?,
        _ => return Err("narSize is not a number".to_owned()),
    };
    let sigs = text(column(4)?, "sigs")?.unwrap_or_default();
    let ca = text(column(5)?, "ca")?.unwrap_or_default();
    Ok(Row {
        id,
        nar_size,
        hash,
        signers: signers.intern(sigs, scratch),
        tag: tag([nar_hash, sigs, ca], nar_size),
        content_addressed: !ca.is_empty(),
    })
}

/// The text in a column; `None` for NULL, which is normal in most of them.
pub(super) fn text<'r>(value: ValueRef<'r>, name: &str) -> Result<Option<&'r str>, String> {
    match value {
        ValueRef::Null => Ok(None),
        ValueRef::Text(bytes) if bytes.len() > COLUMN_BYTES_MAX => {
            Err(format!("{name} is longer than {COLUMN_BYTES_MAX} bytes"))
        }
        ValueRef::Text(bytes) => {
            std::str::from_utf8(bytes).map(Some).map_err(|_| format!("{name} is not UTF-8"))
        }
        _ => Err(format!("{name} is not text")),
    }
}

/// The hash part of a full store path. The name is not checked: that is for
/// the moment when somebody asks for the path.
fn hash_part(path: &str, store_dir: &StoreDir) -> Option<HashPart> {
    let base = path.strip_prefix(store_dir.as_str())?.strip_prefix('/')?;
    let (hash, rest) = base.split_at_checked(32)?;
    (rest.len() > 1 && rest.starts_with('-')).then(|| hash.parse().ok()).flatten()
}

fn tag(texts: [&str; 3], nar_size: u64) -> u32 {
    let mut hasher = DefaultHasher::new();
    for text in texts {
        hasher.write(text.as_bytes());
        hasher.write_u8(0xff);
    }
    hasher.write_u64(nar_size);
    // The low half of a good hash is a good hash.
    (hasher.finish() & u64::from(u32::MAX)) as u32
}
