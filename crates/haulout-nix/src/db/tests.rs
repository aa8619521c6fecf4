use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use super::*;
use crate::{NarHash, StorePath};

const SCHEMA_SQL: &str = "
    create table ValidPaths (
        id integer primary key autoincrement not null, path text unique not null,
        hash text not null, registrationTime integer not null, deriver text,
        narSize integer, ultimate integer, sigs text, ca text);
    create table Refs (
        referrer integer not null, reference integer not null,
        primary key (referrer, reference),
        foreign key (referrer) references ValidPaths(id) on delete cascade,
        foreign key (reference) references ValidPaths(id) on delete restrict);
    create index IndexReferrer on Refs(referrer);
    create index IndexReference on Refs(reference);
    create trigger DeleteSelfRefs before delete on ValidPaths
      begin delete from Refs where referrer = old.id and reference = old.id; end;";
const SIG: &str = "lab-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==";

/// A database that is written to as Nix would.
struct Nix {
    conn: Connection,
    location: StoreLocation,
}

impl Nix {
    fn new(root: &Path) -> Self {
        let location = StoreLocation::chroot(root);
        std::fs::create_dir_all(location.db.parent().unwrap()).unwrap();
        let conn = Connection::open(&location.db).unwrap();
        conn.pragma_update(None, "journal_mode", "wal").unwrap();
        conn.pragma_update(None, "synchronous", "off").unwrap();
        conn.pragma_update(None, "foreign_keys", true).unwrap();
        conn.busy_timeout(Duration::from_secs(20)).unwrap();
        conn.execute_batch(SCHEMA_SQL).unwrap();
        std::fs::write(location.schema_file(), "10").unwrap();
        Self { conn, location }
    }

    fn again(location: &StoreLocation) -> Self {
        let conn = Connection::open(&location.db).unwrap();
        conn.busy_timeout(Duration::from_secs(20)).unwrap();
        conn.pragma_update(None, "foreign_keys", true).unwrap();
        Self { conn, location: location.clone() }
    }

    fn add(&self, n: u32) {
        self.add_full(n, Some(SIG), None, &[]);
    }

    fn add_full(&self, n: u32, sigs: Option<&str>, ca: Option<&str>, references: &[u32]) {
        let nar_hash = data_encoding::HEXLOWER.encode(&[n as u8; 32]);
        self.conn
            .execute(
                "insert into ValidPaths (path, hash, registrationTime, narSize, sigs, ca)
                 values (?1, ?2, 1, ?3, ?4, ?5)",
                params![path(n), format!("sha256:{nar_hash}"), 100 + n, sigs, ca],
            )
            .unwrap();
        for reference in references {
            self.conn
                .execute(
                    "insert into Refs select a.id, b.id from ValidPaths a, ValidPaths b
                     where a.path = ?1 and b.path = ?2",
                    params![path(n), path(*reference)],
                )
                .unwrap();
        }
    }

    fn remove(&self, n: u32) {
        assert_eq!(self.conn.execute("delete from ValidPaths where path = ?1", [path(n)]), Ok(1));
    }

    fn database(&self) -> Arc<Database> {
        Arc::new(Database::open(&self.location).unwrap())
    }
}

fn path(n: u32) -> String {
    format!("/nix/store/{}-p{n}", hash(n))
}

fn hash(n: u32) -> HashPart {
    // Spread, so that the order of paths is not that of ids.
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b1).to_be_bytes());
    bytes[4..8].copy_from_slice(&n.to_be_bytes());
    HashPart::from_bytes(bytes)
}

fn parsed(n: u32) -> StorePath {
    path(n).strip_prefix("/nix/store/").unwrap().parse().unwrap()
}

fn hashes(rows: &[Row]) -> Vec<HashPart> {
    let mut hashes: Vec<_> = rows.iter().map(|row| row.hash).collect();
    hashes.sort();
    hashes
}

fn expected(numbers: impl IntoIterator<Item = u32>) -> Vec<HashPart> {
    let mut hashes: Vec<_> = numbers.into_iter().map(hash).collect();
    hashes.sort();
    hashes
}

#[test]
fn a_store_that_is_not_there_is_empty_until_it_appears() {
    let root = tempfile::tempdir().unwrap();
    let location = StoreLocation::chroot(root.path());
    let database = Arc::new(Database::open(&location).unwrap());
    let mut follower = Follower::new(Arc::clone(&database));
    assert!(database.load().unwrap().is_none());
    assert!(database.path_info(&hash(1)).unwrap().is_none());
    assert!(database.access().unwrap().is_none());
    assert_eq!(follower.poll().unwrap(), Changes::default());
    assert!(!follower.present());

    // Half made: an empty database, then tables but no schema file.
    std::fs::create_dir_all(location.db.parent().unwrap()).unwrap();
    std::fs::write(&location.db, "").unwrap();
    assert!(follower.poll().unwrap().is_empty());
    std::fs::remove_file(&location.db).unwrap();
    let nix = Nix::new(root.path());
    std::fs::remove_file(location.schema_file()).unwrap();
    assert!(follower.poll().unwrap().is_empty());
    assert!(!follower.present());

    std::fs::write(location.schema_file(), "10\n").unwrap();
    nix.add(1);
    assert_eq!(hashes(&follower.poll().unwrap().added), expected([1]));
    assert!(follower.present());
    assert_eq!(database.access().unwrap(), Some(Access::Live));
}

#[test]
fn another_schema_is_refused_clearly() {
    let root = tempfile::tempdir().unwrap();
    let nix = Nix::new(root.path());
    for found in ["9", "11", "x\u{1b}y", "-1"] {
        std::fs::write(nix.location.schema_file(), found).unwrap();
        let error = Database::open(&nix.location).unwrap_err();
        assert!(matches!(&error, DbError::Schema { found: text, .. } if text == found), "{error}");
        assert!(error.to_string().contains("hint:") && !error.to_string().contains('\u{1b}'));
    }
}

#[test]
fn what_is_no_database_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let location = StoreLocation::chroot(root.path());
    std::fs::create_dir_all(location.db.parent().unwrap()).unwrap();
    std::fs::write(&location.db, [7; 8192]).unwrap();
    std::fs::write(location.schema_file(), "10").unwrap();
    let database = Database::open(&location).unwrap();
    assert!(matches!(database.load(), Err(DbError::Sqlite(_))));
    assert!(matches!(database.path_info(&hash(1)), Err(DbError::Sqlite(_))));
}

#[test]
fn path_info_has_everything() {
    let root = tempfile::tempdir().unwrap();
    let nix = Nix::new(root.path());
    let database = nix.database();
    for n in [3, 1, 2] {
        nix.add(n);
    }
    let ca = format!("fixed:r:sha256:{}", NarHash::from_bytes([4; 32]).to_nix32());
    nix.add_full(4, Some(&format!("{SIG} broken other:x")), Some(&ca), &[3, 1, 2]);
    nix.conn
        .execute("insert into Refs select id, id from ValidPaths where path = ?1", [path(4)])
        .unwrap();
    nix.conn.execute("update ValidPaths set deriver = ?1", [format!("{}.drv", path(9))]).unwrap();

    let info = database.path_info(&hash(4)).unwrap().unwrap();
    let mut references: Vec<_> = (1..=4).map(parsed).collect();
    references.sort();
    assert_eq!(info.path, parsed(4));
    assert_eq!(info.nar_hash, NarHash::from_bytes([4; 32]));
    assert_eq!(info.nar_size, 104);
    assert_eq!(info.references, references);
    assert_eq!(info.deriver.unwrap().to_string(), format!("{}.drv", parsed(9)));
    assert_eq!(info.signatures.len(), 1, "signatures in an unknown form do not count");
    assert_eq!(info.ca.unwrap().to_string(), ca);

    assert_eq!(database.path_info(&hash(5)).unwrap(), None);
    assert_eq!(database.path_info(&HashPart::from_bytes([0xff; 20])).unwrap(), None);
}

#[test]
fn closures_come_breadth_first_and_bounded() {
    let root = tempfile::tempdir().unwrap();
    let nix = Nix::new(root.path());
    nix.add(1);
    nix.add_full(2, None, None, &[1]);
    nix.add_full(3, None, None, &[1]);
    nix.add_full(4, None, None, &[2, 3]);
    nix.add_full(5, None, None, &[4]);
    let database = nix.database();
    let names = |max| -> Vec<String> {
        let infos = database.closure_infos(&hash(5), max).unwrap();
        infos.iter().map(|info| info.path.name().to_owned()).collect()
    };
    assert_eq!(names(0), Vec::<String>::new());
    assert_eq!(names(2), ["p5", "p4"]);
    let all = names(100);
    assert_eq!(all[..2], ["p5", "p4"]);
    assert_eq!(all.len(), 5);
    assert_eq!(all[4], "p1");
    assert_eq!(database.closure_infos(&hash(77), 10).unwrap(), []);
}

#[test]
fn bad_rows_are_named_and_the_others_still_count() {
    let root = tempfile::tempdir().unwrap();
    let nix = Nix::new(root.path());
    for n in 1..=9 {
        nix.add(n);
    }
    let spoil = |column: &str, n: u32, value: &dyn rusqlite::ToSql| {
        let sql = format!("update ValidPaths set {column} = ?1 where path = ?2");
        nix.conn.execute(&sql, params![value, path(n)]).unwrap();
    };
    spoil("hash", 1, &"sha256:zz");
    spoil("narSize", 2, &-5);
    spoil("narSize", 3, &rusqlite::types::Null);
    spoil("deriver", 4, &"/etc/passwd");
    spoil("ca", 5, &"fixed:what");
    spoil("sigs", 6, &vec![0xffu8, 0xfe]);
    spoil("path", 7, &format!("/nix/store/{}-bad name", hash(7)));
    spoil("path", 8, &"/elsewhere/\u{1b}x");
    let database = nix.database();
    for n in 1..=7 {
        let error = database.path_info(&hash(n)).unwrap_err();
        let DbError::BadRow(bad) = &error else { panic!("{error}") };
        assert!(bad.path.contains(&hash(n).to_string()), "{error}");
    }
    assert!(database.path_info(&hash(9)).unwrap().is_some());
    let snapshot = database.load().unwrap().unwrap();
    let bad: Vec<_> = snapshot.bad.iter().map(|bad| bad.id).collect();
    assert_eq!(bad, [2, 6, 8]);
    assert_eq!(snapshot.bad[2].path, "/elsewhere/\\u{1b}x");
    assert_eq!(snapshot.rows.len(), 6);

    // A follower lives with them and sees them come and go.
    let mut follower = Follower::new(Arc::clone(&database));
    assert_eq!(follower.poll().unwrap().added.len(), 6);
    assert_eq!(follower.bad().len(), 3);
    spoil("narSize", 2, &5);
    nix.conn.execute("delete from ValidPaths where id = 8", []).unwrap();
    nix.add(10);
    let changes = follower.poll().unwrap();
    assert_eq!(hashes(&changes.added), expected([2, 10]));
    assert!(changes.removed.is_empty() && changes.changed.is_empty());
    assert_eq!(follower.bad().len(), 1);
}

#[test]
fn bad_references_spoil_their_referrer_only() {
    let root = tempfile::tempdir().unwrap();
    let nix = Nix::new(root.path());
    nix.add(1);
    nix.add_full(2, None, None, &[1]);
    nix.add(3);
    nix.conn.execute("update ValidPaths set path = 'oops' where id = 1", []).unwrap();
    let database = nix.database();
    let error = database.path_info(&hash(2)).unwrap_err().to_string();
    assert!(error.contains("-p2") && error.contains("reference"), "{error}");
    assert!(database.path_info(&hash(3)).unwrap().is_some());
}

#[test]
fn signers_are_told_apart_by_name() {
    let root = tempfile::tempdir().unwrap();
    let nix = Nix::new(root.path());
    nix.add_full(1, None, None, &[]);
    nix.add_full(2, Some(""), None, &[]);
    nix.add_full(3, Some("a:x"), None, &[]);
    nix.add_full(4, Some("a:y b:z"), None, &[]);
    nix.add_full(5, Some("a:z"), Some("text:sha256:whatever"), &[]);
    let snapshot = nix.database().load().unwrap().unwrap();
    let names: Vec<Vec<&str>> = snapshot
        .rows
        .iter()
        .map(|row| snapshot.signers.names(row.signers).iter().map(|name| &**name).collect())
        .collect();
    assert_eq!(names, [vec![], vec![], vec!["a"], vec!["a", "b"], vec!["a"]]);
    assert_eq!(snapshot.rows[2].signers, snapshot.rows[4].signers);
    let addressed: Vec<_> = snapshot.rows.iter().map(|row| row.content_addressed).collect();
    assert_eq!(addressed, [false, false, false, false, true]);
    assert_eq!(size_of::<Row>(), 48);
}

#[test]
fn a_follower_sees_additions_removals_and_signatures() {
    let root = tempfile::tempdir().unwrap();
    let nix = Nix::new(root.path());
    let mut follower = Follower::new(nix.database());
    (1..=20).for_each(|n| nix.add(n));
    assert_eq!(hashes(&follower.poll().unwrap().added), expected(1..=20));
    assert!(follower.poll().unwrap().is_empty());

    // As many removed as added.
    (1..=5).for_each(|n| nix.remove(n));
    (21..=25).for_each(|n| nix.add(n));
    let changes = follower.poll().unwrap();
    assert_eq!(hashes(&changes.added), expected(21..=25));
    let mut removed = expected(1..=5);
    removed.sort();
    assert_eq!(changes.removed, removed);
    assert_eq!(hashes(follower.rows()), expected(6..=25));

    // Collected and built again.
    nix.remove(6);
    nix.add(6);
    let changes = follower.poll().unwrap();
    assert_eq!(hashes(&changes.changed), expected([6]));
    assert!(changes.added.is_empty() && changes.removed.is_empty());

    // Added and collected again: nothing happened.
    nix.add(99);
    nix.remove(99);
    assert!(follower.poll().unwrap().is_empty());

    // Signed again, with the same key name and with another.
    for (n, sigs) in [(7, SIG.replace("AA==", "BA==")), (8, format!("{SIG} more:AAAA"))] {
        nix.conn
            .execute("update ValidPaths set sigs = ?1 where path = ?2", params![sigs, path(n)])
            .unwrap();
    }
    let changes = follower.poll().unwrap();
    assert_eq!(hashes(&changes.changed), expected([7, 8]));
    let row = changes.changed.iter().find(|row| row.hash == hash(8)).unwrap();
    assert_eq!(follower.signers().names(row.signers).len(), 2);
}

#[test]
fn quiet_files_are_not_read() {
    let root = tempfile::tempdir().unwrap();
    let nix = Nix::new(root.path());
    nix.add(1);
    let database = nix.database();
    let mut follower = Follower::new(Arc::clone(&database));
    follower.poll().unwrap();
    // Make the last write old, as if time had passed.
    let old = rustix::fs::Timespec { tv_sec: 1_700_000_000, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: old, last_modification: old };
    for suffix in ["", "-wal"] {
        let file = nix.location.beside(suffix);
        rustix::fs::utimensat(rustix::fs::CWD, file, &times, rustix::fs::AtFlags::empty()).unwrap();
    }
    for _ in 0..4 {
        assert!(follower.poll().unwrap().is_empty());
    }
    database.release_idle(Duration::ZERO);
    // With the schema file broken any query would fail.
    std::fs::write(nix.location.schema_file(), "11").unwrap();
    for _ in 0..3 {
        assert!(follower.poll().unwrap().is_empty());
    }
    std::fs::write(nix.location.schema_file(), "10").unwrap();
    nix.add(2);
    assert_eq!(hashes(&follower.poll().unwrap().added), expected([2]));
}

#[test]
fn large_stores_are_swept_in_slices() {
    let root = tempfile::tempdir().unwrap();
    let nix = Nix::new(root.path());
    let many = 20_000;
    nix.conn.execute_batch("begin").unwrap();
    (1..=many).for_each(|n| nix.add(n));
    nix.conn.execute_batch("commit").unwrap();
    let mut follower = Follower::new(nix.database());
    assert_eq!(follower.poll().unwrap().added.len(), many as usize);
    let sign = "update ValidPaths set sigs = 'new:x' where path = ?1";
    for n in [1, many / 2, many] {
        nix.conn.execute(sign, [path(n)]).unwrap();
    }
    let mut changed = Vec::new();
    for _ in 0..12 {
        let changes = follower.poll().unwrap();
        assert!(changes.added.is_empty() && changes.removed.is_empty());
        changed.extend(changes.changed);
    }
    assert_eq!(hashes(&changed), expected([1, many / 2, many]));
}

#[test]
fn ids_that_come_back_with_other_paths_are_noticed() {
    // What restoring a backup into the same file looks like.
    let root = tempfile::tempdir().unwrap();
    let nix = Nix::new(root.path());
    (1..=10).for_each(|n| nix.add(n));
    let mut follower = Follower::new(nix.database());
    follower.poll().unwrap();
    nix.conn.execute("update ValidPaths set path = ?1 where id = 3", [path(33)]).unwrap();
    nix.conn.execute("update ValidPaths set id = 5000 where id = 4", []).unwrap();
    nix.conn.execute("update ValidPaths set id = 4 where id = 5", []).unwrap();
    let changes = follower.poll().unwrap();
    assert_eq!(hashes(&changes.added), expected([33]));
    assert_eq!(changes.removed, [hash(3)]);
    assert_eq!(hashes(&changes.changed), expected([4, 5]));
    assert_eq!(hashes(follower.rows()), expected([1, 2, 33, 4, 5, 6, 7, 8, 9, 10]));
    assert!(follower.rows().is_sorted_by_key(|row| row.id));
}

#[test]
fn a_replaced_and_a_removed_database_are_followed() {
    let root = tempfile::tempdir().unwrap();
    let nix = Nix::new(root.path());
    (1..=5).for_each(|n| nix.add(n));
    let database = nix.database();
    let mut follower = Follower::new(Arc::clone(&database));
    follower.poll().unwrap();

    let other_root = tempfile::tempdir().unwrap();
    let other = Nix::new(other_root.path());
    (4..=8).for_each(|n| other.add(n));
    let (from, to) = (other.location.clone(), nix.location.clone());
    drop((other, nix));
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(to.beside(suffix));
    }
    std::fs::rename(&from.db, &to.db).unwrap();
    let changes = follower.poll().unwrap();
    assert_eq!(hashes(&changes.added), expected([6, 7, 8]));
    assert_eq!(changes.removed.len(), 3);
    assert!(database.path_info(&hash(8)).unwrap().is_some());
    assert!(database.path_info(&hash(1)).unwrap().is_none());

    std::fs::remove_file(&to.db).unwrap();
    assert_eq!(follower.poll().unwrap().removed.len(), 5);
    assert!(!follower.present() && follower.rows().is_empty());
    assert!(database.path_info(&hash(8)).unwrap().is_none());
}

#[test]
fn reading_leaves_no_files_behind() {
    let root = tempfile::tempdir().unwrap();
    let nix = Nix::new(root.path());
    nix.add(1);
    let location = nix.location.clone();
    drop(nix);
    let dir = location.db.parent().unwrap();
    let list = || {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = list();
    assert_eq!(before, ["db.sqlite", "schema"], "the last writer tidies up");
    let database = Arc::new(Database::open(&location).unwrap());
    assert_eq!(database.load().unwrap().unwrap().rows.len(), 1);
    assert_eq!(database.access().unwrap(), Some(Access::FileOnly { behind: false }));
    Follower::new(Arc::clone(&database)).poll().unwrap();
    assert_eq!(list(), before);

    // A writer comes back: its rows are in the log, and seen.
    let nix = Nix::again(&location);
    nix.add(2);
    assert_eq!(database.access().unwrap(), Some(Access::Live));
    assert!(database.path_info(&hash(2)).unwrap().is_some());
    // And can still tidy up once we are idle.
    database.release_idle(Duration::ZERO);
    drop(nix);
    assert_eq!(list(), before);
}

#[test]
fn a_log_that_cannot_be_read_is_admitted() {
    let root = tempfile::tempdir().unwrap();
    let nix = Nix::new(root.path());
    nix.add(1);
    nix.conn.execute_batch("pragma wal_checkpoint(truncate)").unwrap();
    nix.add(2);
    // A copy without the index, as a backup might be.
    let copy_root = tempfile::tempdir().unwrap();
    let copy = StoreLocation::chroot(copy_root.path());
    std::fs::create_dir_all(copy.db.parent().unwrap()).unwrap();
    for suffix in ["", "-wal"] {
        std::fs::copy(nix.location.beside(suffix), copy.beside(suffix)).unwrap();
    }
    std::fs::write(copy.schema_file(), "10").unwrap();
    let database = Database::open(&copy).unwrap();
    assert_eq!(database.access().unwrap(), Some(Access::FileOnly { behind: true }));
    assert!(database.path_info(&hash(1)).unwrap().is_some());
    assert!(database.path_info(&hash(2)).unwrap().is_none());
}

/// Not a test: the other process of the next one.
#[test]
fn writer_process() {
    let Some(root) = std::env::var_os("HAULOUT_TEST_WRITER") else {
        return;
    };
    let location = StoreLocation::chroot(Path::new(&root));
    let end = Instant::now() + Duration::from_secs(3);
    let mut n = 1000;
    while Instant::now() < end {
        // Opens and closes like the short-lived processes Nix consists of.
        let nix = Nix::again(&location);
        for _ in 0..5 {
            nix.conn.execute_batch("begin immediate").unwrap();
            for _ in 0..20 {
                n += 1;
                nix.add_full(n, Some(SIG), None, &[1, 2]);
            }
            (n - 19..n - 9).for_each(|old| nix.remove(old));
            nix.conn.execute_batch("commit").unwrap();
        }
        let how = if n % 200 == 0 { "truncate" } else { "passive" };
        // A truncating checkpoint may find readers in its way; so it would Nix.
        let _ = nix.conn.query_row(&format!("pragma wal_checkpoint({how})"), [], |_| Ok(()));
    }
}

#[test]
fn a_writer_in_another_process_is_followed_without_errors() {
    let root = tempfile::tempdir().unwrap();
    let nix = Nix::new(root.path());
    (1..=50).for_each(|n| nix.add(n));
    let location = nix.location.clone();
    drop(nix);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "db::tests::writer_process", "--nocapture"])
        .env("HAULOUT_TEST_WRITER", root.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let database = Arc::new(Database::open(&location).unwrap());
    let mut follower = Follower::new(Arc::clone(&database));
    let mut known = std::collections::HashSet::new();
    let (mut polls, mut busy) = (0, 0);
    let status = loop {
        let status = child.try_wait().unwrap();
        let changes = match follower.poll() {
            Ok(changes) => changes,
            Err(DbError::Unquiet { .. }) => {
                busy += 1;
                continue;
            }
            Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
        };
        for row in &changes.added {
            assert!(known.insert(row.hash), "added twice");
        }
        for hash in &changes.removed {
            assert!(known.remove(hash), "removed what was not there");
        }
        assert_eq!(known.len(), follower.rows().len());
        // The writer's transactions are seen whole or not at all.
        assert_eq!(known.len() % 10, 0);
        if let Some(row) = follower.rows().last().filter(|row| row.id > 50) {
            // May have been removed since; if not, it is complete.
            if let Ok(Some(info)) = database.path_info(&row.hash) {
                assert_eq!(info.references.len(), 2);
            }
        }
        polls += 1;
        if polls % 3 == 0 {
            database.release_idle(Duration::ZERO);
        }
        if let Some(status) = status {
            break status;
        }
    };
    assert!(status.success(), "the writer was disturbed");
    let last = database.load().unwrap().unwrap();
    assert_eq!(hashes(&last.rows), hashes(follower.rows()));
    assert!(last.rows.len() > 100, "the writer did nothing");
    println!("{polls} polls, {} paths at the end, {busy} times too busy", last.rows.len());
}

/// Not a test: the unprivileged process of the next one.
#[test]
fn reader_process() {
    let Some(root) = std::env::var_os("HAULOUT_TEST_READER") else { return };
    let database = Arc::new(Database::open(&StoreLocation::chroot(Path::new(&root))).unwrap());
    let rows = Follower::new(Arc::clone(&database)).poll().unwrap().added.len();
    println!("found {rows} {:?}", database.access().unwrap().unwrap());
}

/// The agent's usual place: a user who may only read what root wrote.
#[test]
fn without_privileges_everything_committed_is_seen() {
    let root = tempfile::tempdir().unwrap();
    let read = || {
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "db::tests::reader_process", "--nocapture"])
            .env("HAULOUT_TEST_READER", root.path())
            .output();
        let output = output.ok().filter(|output| output.status.success())?;
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().find_map(|line| line.split_once("found ").map(|(_, found)| found.to_owned()))
    };
    std::fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let nix = Nix::new(root.path());
    nix.add(1);
    if !rustix::process::getuid().is_root() || read().is_none() {
        println!("SKIPPED: needs to be root, setpriv, and a test binary that others may run");
        return;
    }
    // While a writer is there.
    nix.add(2);
    assert_eq!(read().unwrap(), "2 Live");
    // Log and index left behind with rows in the log: a killed writer, or one
    // that keeps both for readers like us.
    let copy = |suffix: &str| std::fs::read(nix.location.beside(suffix)).unwrap();
    let left = [("", copy("")), ("-wal", copy("-wal")), ("-shm", copy("-shm"))];
    let location = nix.location.clone();
    drop(nix);
    assert_eq!(read().unwrap(), "2 FileOnly { behind: false }");
    for (suffix, bytes) in left {
        std::fs::write(location.beside(suffix), bytes).unwrap();
    }
    assert_eq!(read().unwrap(), "2 Live");
    // Nobody has changed anything.
    let nix = Nix::again(&location);
    nix.add(3);
    assert_eq!(read().unwrap(), "3 Live");
}

mod model {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Debug, Clone)]
    enum Step {
        Add(u8),
        Remove(u8),
        Sign(u8, u8),
        Checkpoint,
        Reopen,
        Poll,
    }

    fn step() -> impl Strategy<Value = Step> {
        let n = 1..24u8;
        prop_oneof![
            4 => n.clone().prop_map(Step::Add),
            3 => n.clone().prop_map(Step::Remove),
            2 => (n, any::<u8>()).prop_map(|(n, sig)| Step::Sign(n, sig)),
            1 => Just(Step::Checkpoint),
            1 => Just(Step::Reopen),
            3 => Just(Step::Poll),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
        /// Whatever happens between polls, the sum of the changes is the truth.
        #[test]
        fn changes_add_up(steps in prop::collection::vec(step(), 1..60)) {
            let root = tempfile::tempdir().unwrap();
            let mut nix = Nix::new(root.path());
            let database = nix.database();
            let mut follower = Follower::new(Arc::clone(&database));
            let mut truth = BTreeMap::new();
            let mut seen = BTreeMap::new();
            for step in steps.into_iter().chain([Step::Poll]) {
                match step {
                    Step::Add(n) => if truth.insert(n, None).is_none() { nix.add(n.into()) },
                    Step::Remove(n) => if truth.remove(&n).is_some() { nix.remove(n.into()) },
                    Step::Sign(n, sig) => if let Some(known) = truth.get_mut(&n) {
                        *known = Some(sig);
                        nix.conn.execute("update ValidPaths set sigs = ?1 where path = ?2", params![format!("k{sig}:x"), path(n.into())]).unwrap();
                    },
                    Step::Checkpoint => {
                        let _ = nix.conn.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()));
                    }
                    Step::Reopen => {
                        let location = nix.location.clone();
                        drop(nix);
                        nix = Nix::again(&location);
                    }
                    Step::Poll => {
                        let changes = follower.poll().unwrap();
                        for hash in changes.removed { prop_assert!(seen.remove(&hash).is_some()); }
                        for row in changes.added { prop_assert!(seen.insert(row.hash, row).is_none()); }
                        for row in changes.changed { prop_assert!(seen.insert(row.hash, row).is_some()); }
                        let known: BTreeMap<_, _> = follower.rows().iter().map(|row| (row.hash, *row)).collect();
                        prop_assert_eq!(&known, &seen);
                        let loaded = database.load().unwrap().unwrap();
                        prop_assert_eq!(hashes(&loaded.rows), expected(truth.keys().map(|&n| u32::from(n))));
                        for (loaded, known) in loaded.rows.iter().zip(follower.rows()) {
                            prop_assert_eq!(loaded.hash, known.hash);
                            prop_assert_eq!(loaded.id, known.id);
                            prop_assert_eq!(
                                database_names(&database, loaded.hash),
                                follower.signers().names(known.signers).iter().map(|n| n.to_string()).collect::<Vec<_>>()
                            );
                        }
                    }
                }
            }
        }
    }

    fn database_names(database: &Database, hash: HashPart) -> Vec<String> {
        let snapshot = database.load().unwrap().unwrap();
        let row = snapshot.rows.iter().find(|row| row.hash == hash).unwrap();
        snapshot.signers.names(row.signers).iter().map(ToString::to_string).collect()
    }
}
