//! What follows a database sees what changes in it.

use super::*;

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
