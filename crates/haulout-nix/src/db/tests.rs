mod beside;
mod follow;
mod model;

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
