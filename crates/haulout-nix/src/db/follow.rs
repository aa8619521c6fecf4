//! Keeping a list of all valid paths up to date at little cost.
//!
//! A poll looks at the files and nothing else while they stay as they are.
//! After a change it asks for
//!
//! * rows with a higher id than any seen before. Nix's ids are never used
//!   twice, so these are all additions;
//! * the number of rows. If it is not what additions explain, something was
//!   removed, also when as many paths were added in the meantime; then all ids
//!   are compared;
//! * a slice of the rows known already, whose columns Nix may have changed in
//!   place (`nix store sign`, `nix-store --repair-path`). Slices go round until
//!   everything was looked at once after the last change, so that signing one
//!   path in a store of 50,000 costs no poll more than some milliseconds. The
//!   slice also catches what ids cannot show, like a backup restored in place.
//!
//! Nothing is kept open or locked between two polls except, for a moment, a
//! connection that the next query can use again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;

use super::rows::{self, Batch, ROWS_MAX, Row, Signers};
use super::stamp::Stamp;
use super::{BadRow, Database, DbError};
use crate::{HashPart, StoreDir};

/// Rows compared with what is known of them in one poll.
const SLICE: usize = 2048;
/// Connections that idle this long are closed by a poll.
const IDLE: Duration = Duration::from_secs(2);

/// What happened between two polls. A path is in one list at most.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Paths that became valid.
    pub added: Vec<Row>,
    /// Paths that are no longer valid.
    pub removed: Vec<HashPart>,
    /// Paths that stayed but whose row is another: signed again, repaired, or
    /// removed and added again.
    pub changed: Vec<Row>,
}

impl Changes {
    /// True when nothing happened.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// Follows the valid paths of one store.
///
/// The first poll reports every path as added. If the database is absent,
/// appears, disappears or is replaced by another file, the changes say so like
/// any others.
#[derive(Debug)]
pub struct Follower {
    database: Arc<Database>,
    /// In order of id.
    rows: Vec<Row>,
    /// Bad rows, in order of id: they count, but are not reported as paths.
    bad: Vec<BadRow>,
    signers: Signers,
    seen: Option<Seen>,
    sweep: Sweep,
}

/// The state of the files before the last query.
#[derive(Debug, Clone, Copy)]
struct Seen {
    stamp: Stamp,
    settled: bool,
}

/// Where the comparison of known rows has got to.
#[derive(Debug, Clone, Copy)]
struct Sweep {
    /// The last id that was compared.
    after: i64,
    /// Rows still to be compared.
    left: usize,
}

impl Sweep {
    const DONE: Self = Self { after: i64::MIN, left: 0 };
}

/// What one poll read. Applied only when all of it was read.
#[derive(Default)]
struct Fetched {
    /// Rows beyond the last known id.
    new: Batch,
    /// Rows with an unknown lower id.
    strange: Batch,
    /// Ids that are gone.
    gone: HashSet<i64>,
    /// The slice, and the range of ids it covers, both ends included.
    slice: Option<(Batch, i64, i64)>,
}

impl Follower {
    /// Follows from nothing: the first [`Follower::poll`] reads everything.
    pub fn new(database: Arc<Database>) -> Self {
        Self {
            database,
            rows: Vec::new(),
            bad: Vec::new(),
            signers: Signers::default(),
            seen: None,
            sweep: Sweep::DONE,
        }
    }

    /// All valid paths as of the last poll, in order of id.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// What [`Row::signers`] stands for, in rows of any poll so far.
    pub fn signers(&self) -> &Signers {
        &self.signers
    }

    /// Rows that were passed over because they make no sense.
    pub fn bad(&self) -> &[BadRow] {
        &self.bad
    }

    /// True when there was a database at the last poll.
    pub fn present(&self) -> bool {
        self.seen.is_some()
    }

    /// Looks for changes. Without any, this costs a few `stat` calls.
    ///
    /// # Errors
    /// When the database cannot be read. What was known stays, and the next
    /// poll tries again.
    pub fn poll(&mut self) -> Result<Changes, DbError> {
        self.database.release_idle(IDLE);
        let Some(stamp) = self.database.links.stamp()? else {
            return Ok(self.vanished());
        };
        let settled = stamp.settled(SystemTime::now());
        match &self.seen {
            Some(seen) if seen.stamp.file() != stamp.file() => {
                self.replaced(Seen { stamp, settled })
            }
            None => self.replaced(Seen { stamp, settled }),
            Some(seen) => {
                let quiet = seen.stamp == stamp && seen.settled;
                if quiet && self.sweep.left == 0 {
                    return Ok(Changes::default());
                }
                if !quiet {
                    self.sweep.left = self.rows.len() + self.bad.len();
                }
                self.advance(Seen { stamp, settled })
            }
        }
    }

    /// There is no database (any more).
    fn vanished(&mut self) -> Changes {
        self.bad.clear();
        self.seen = None;
        self.sweep = Sweep::DONE;
        let removed = std::mem::take(&mut self.rows).into_iter().map(|row| row.hash).collect();
        Changes { removed, ..Changes::default() }
    }

    /// There is a database that has nothing to do with what is known.
    fn replaced(&mut self, seen: Seen) -> Result<Changes, DbError> {
        let store_dir = &self.database.location().store_dir;
        let signers = &mut self.signers;
        let read = self
            .database
            .links
            .read(|conn| rows::fetch_after(conn, store_dir, signers, i64::MIN, ROWS_MAX + 1))?;
        let Some((batch, _)) = read else {
            return Ok(self.vanished());
        };
        let changes = if self.rows.is_empty() && all_different(&batch.rows) {
            // The first look. Without tables of everything, which would be
            // thrown away at once and leave holes in the heap.
            Changes { added: batch.rows.clone(), ..Changes::default() }
        } else {
            let mut net = Net::default();
            self.rows.drain(..).for_each(|row| net.remove(row));
            batch.rows.iter().for_each(|&row| net.add(row));
            net.finish()
        };
        self.rows = batch.rows;
        self.rows.shrink_to_fit();
        self.bad = batch.bad;
        self.seen = Some(seen);
        self.sweep = Sweep::DONE;
        Ok(changes)
    }

    /// The same database, later.
    fn advance(&mut self, seen: Seen) -> Result<Changes, DbError> {
        let last = last_id(&self.rows).max(self.bad.last().map_or(i64::MIN, |bad| bad.id));
        let database = Arc::clone(&self.database);
        let store_dir = &database.location().store_dir;
        let read = database.links.read(|conn| self.fetch(conn, store_dir, last))?;
        let Some((fetched, _)) = read else {
            return Ok(self.vanished());
        };
        let net = self.apply(fetched);
        self.seen = Some(seen);
        Ok(net.finish())
    }

    fn fetch(
        &mut self,
        conn: &Connection,
        store_dir: &StoreDir,
        last: i64,
    ) -> Result<Fetched, DbError> {
        let known = self.rows.len() + self.bad.len();
        let limit = (ROWS_MAX + 1).saturating_sub(known);
        let mut fetched = Fetched {
            new: rows::fetch_after(conn, store_dir, &mut self.signers, last, limit)?,
            ..Fetched::default()
        };
        let new = fetched.new.rows.len() + fetched.new.bad.len();
        if known + new > ROWS_MAX {
            return Err(DbError::TooMany { max: ROWS_MAX });
        }
        let count: i64 = conn
            .prepare_cached("select count(*) from ValidPaths")?
            .query_row([], |row| row.get(0))?;
        if usize::try_from(count) != Ok(known + new) {
            let strange = self.compare_ids(conn, last, &mut fetched.gone)?;
            fetched.strange = rows::fetch_ids(conn, store_dir, &mut self.signers, &strange)?;
        }
        if self.sweep.left > 0 {
            let from = self.sweep.after;
            let slice = rows::fetch_after(conn, store_dir, &mut self.signers, from, SLICE)?;
            let full = slice.rows.len() + slice.bad.len() >= SLICE;
            let end = last_id(&slice.rows).max(slice.bad.last().map_or(i64::MIN, |bad| bad.id));
            // The last slice speaks for all ids up to the end.
            let to = if full { end } else { i64::MAX };
            fetched.slice = Some((slice, from.saturating_add(1), to));
        }
        Ok(fetched)
    }

    /// Compares all ids up to `last`: what is gone goes into `gone`, ids that
    /// are there but unknown are returned.
    fn compare_ids(
        &self,
        conn: &Connection,
        last: i64,
        gone: &mut HashSet<i64>,
    ) -> Result<Vec<i64>, DbError> {
        // Without an order SQLite answers this from the smallest index.
        let mut statement = conn.prepare_cached("select id from ValidPaths")?;
        let mut query = statement.query([])?;
        let mut there = Vec::with_capacity(self.rows.len());
        while let Some(row) = query.next()? {
            let id: i64 = row.get(0)?;
            if id <= last {
                there.push(id);
            }
            if there.len() > ROWS_MAX {
                return Err(DbError::TooMany { max: ROWS_MAX });
            }
        }
        there.sort_unstable();
        let mut known: Vec<i64> =
            self.rows.iter().map(|row| row.id).chain(self.bad.iter().map(|bad| bad.id)).collect();
        known.sort_unstable();
        gone.extend(known.iter().filter(|id| there.binary_search(id).is_err()));
        there.retain(|id| known.binary_search(id).is_err());
        Ok(there)
    }

    fn apply(&mut self, fetched: Fetched) -> Net {
        let mut net = Net::default();
        let Fetched { new, strange, gone, slice } = fetched;
        if !gone.is_empty() {
            self.rows.retain(|row| {
                let stays = !gone.contains(&row.id);
                if !stays {
                    net.remove(*row);
                }
                stays
            });
            self.bad.retain(|bad| !gone.contains(&bad.id));
        }
        let in_order = strange.rows.is_empty() && strange.bad.is_empty();
        for batch in [strange, new] {
            batch.rows.iter().for_each(|&row| net.add(row));
            self.rows.extend(batch.rows);
            self.bad.extend(batch.bad);
        }
        if !in_order {
            self.rows.sort_unstable_by_key(|row| row.id);
            self.bad.sort_by_key(|bad| bad.id);
        }
        if let Some((batch, from, to)) = slice {
            self.apply_slice(batch, from, to, &mut net);
        }
        net
    }

    /// Replaces what is known of the ids from `from` to `to`.
    fn apply_slice(&mut self, batch: Batch, from: i64, to: i64, net: &mut Net) {
        let start = self.rows.partition_point(|row| row.id < from);
        let end = self.rows.partition_point(|row| row.id <= to);
        self.sweep.left =
            self.sweep.left.saturating_sub((batch.rows.len() + batch.bad.len()).max(1));
        self.sweep.after = to;
        if to == i64::MAX {
            self.sweep.after = i64::MIN;
            if from == i64::MIN.saturating_add(1) {
                // One slice was everything.
                self.sweep.left = 0;
            }
        }
        if self.rows[start..end] != batch.rows[..] {
            self.rows[start..end].iter().for_each(|&row| net.remove(row));
            batch.rows.iter().for_each(|&row| net.add(row));
            self.rows.splice(start..end, batch.rows);
        }
        self.bad.retain(|bad| bad.id < from || bad.id > to);
        self.bad.extend(batch.bad);
        self.bad.sort_by_key(|bad| bad.id);
    }
}

fn last_id(rows: &[Row]) -> i64 {
    rows.last().map_or(i64::MIN, |row| row.id)
}

fn all_different(rows: &[Row]) -> bool {
    let mut hashes: Vec<HashPart> = rows.iter().map(|row| row.hash).collect();
    hashes.sort_unstable();
    hashes.windows(2).all(|pair| pair[0] != pair[1])
}

/// Removals and additions of one poll, until it is clear what they amount to.
#[derive(Default)]
struct Net {
    before: HashMap<HashPart, Row>,
    after: HashMap<HashPart, Row>,
    /// Hash parts of `after` in the order they came.
    order: Vec<HashPart>,
}

impl Net {
    fn remove(&mut self, row: Row) {
        // What this poll itself added was not there before.
        if self.after.get(&row.hash) == Some(&row) {
            self.after.remove(&row.hash);
        } else {
            self.before.insert(row.hash, row);
        }
    }

    fn add(&mut self, row: Row) {
        if self.after.insert(row.hash, row).is_none() {
            self.order.push(row.hash);
        }
    }

    fn finish(mut self) -> Changes {
        let mut changes = Changes::default();
        for hash in self.order {
            let Some(row) = self.after.remove(&hash) else {
                continue;
            };
            match self.before.remove(&hash) {
                None => changes.added.push(row),
                Some(old) if old == row => {}
                Some(_) => changes.changed.push(row),
            }
        }
        changes.removed = self.before.into_keys().collect();
        changes.removed.sort_unstable();
        changes
    }
}
