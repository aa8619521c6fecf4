//! Readers and writers side by side, in other processes and with other rights.

use super::*;

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
        .args(["--exact", "db::tests::beside::writer_process", "--nocapture"])
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
            .args(["--exact", "db::tests::beside::reader_process", "--nocapture"])
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
