//! The cache as its users see it, with disks that fail and files that are not what they were.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{
    fs,
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU32, Ordering::SeqCst},
    },
};

use common::{content, hash_part, info, read, store};
use haulout_cache::{Cache, CacheConfig, DiskOp, Faults, OpenError, StoredTree, UnixTime};
use haulout_nix::NarHash;

const NOW: UnixTime = UnixTime(1_800_000_000);

fn at(seconds: u64) -> UnixTime {
    UnixTime(NOW.0 + seconds)
}

fn open(dir: &Path, quota_bytes: u64) -> Cache {
    Cache::open(dir, CacheConfig { quota_bytes, ..Default::default() }, NOW).unwrap()
}

fn tree(groups: usize) -> StoredTree {
    StoredTree {
        nar_size: groups as u64 * 65536,
        root: [7; 32],
        groups: (0..groups).map(|i| [i as u8; 32]).collect(),
    }
}

#[test]
fn everything_survives_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let nar = content(1, 100_000);
    let hash = NarHash::of(&nar);
    for written in [false, true] {
        let cache = open(dir.path(), 1 << 30);
        if !written {
            cache.put_narinfo(&info(1, 0), "cache.nixos.org-1", NOW);
            cache.put_miss(&hash_part(2), at(60));
            cache.put_tree(&hash, &tree(40), NOW);
            assert!(store(&cache, &nar, 3, NOW));
        }
        let check = |cache: &Cache| {
            let found = cache.narinfo(&hash_part(1)).unwrap();
            assert_eq!(
                (found.info, found.stored_at, &*found.verified_by),
                (info(1, 0), NOW, "cache.nixos.org-1")
            );
            assert_eq!(cache.miss(&hash_part(2), at(10)), Some(at(60)));
            assert_eq!(cache.miss(&hash_part(2), at(60)), None);
            assert_eq!(cache.tree(&hash), Some(tree(40)));
            let mut all = Vec::new();
            cache.each_narinfo(|found| all.push(found.info));
            assert_eq!(all, [info(1, 0)]);
            let held = cache.nar(&hash, NOW).unwrap();
            assert_eq!(held.is_checked(), !written);
            assert!(read(&held) == nar);
        };
        check(&cache);
        assert!(cache.tick(NOW));
        check(&cache);
        assert_eq!(cache.narinfo(&hash_part(9)), None);
        assert_eq!(cache.has_nar(&hash), Some(100_000));
    }
    let cache = open(dir.path(), 1 << 30);
    let held = cache.nar(&hash, NOW).unwrap();
    assert!(held.check() && held.is_checked() && cache.nar(&hash, NOW).unwrap().is_checked());
    let stats = cache.stats();
    assert_eq!(
        (stats.used_bytes, stats.nars, stats.narinfos, stats.misses, stats.trees),
        (100_000, 1, 1, 1, 1)
    );
    assert_eq!((stats.paused, stats.warnings), (None, vec![]));
}

#[test]
fn only_complete_and_true_nars_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), 1 << 30);
    let nar = content(1, 1000);
    let hash = NarHash::of(&nar);
    let begin = || cache.begin_nar(&hash, 1000, NOW).unwrap();

    let mut short = begin();
    assert!(cache.begin_nar(&hash, 1000, NOW).is_none(), "one writer at a time");
    short.write(&nar[..999]);
    assert!(!short.finish(&hash, 0, NOW));
    let mut long = begin();
    long.write(&nar);
    assert!(!long.write(b"x"));
    assert!(!long.finish(&hash, 0, NOW));
    let mut wrong = begin();
    wrong.write(&nar);
    assert!(!wrong.finish(&NarHash::of(b"other"), 0, NOW));
    drop(begin());
    assert_eq!(cache.has_nar(&hash), None);
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.path().join("nar")).unwrap().count(), 0);

    assert!(store(&cache, &nar, 0, NOW));
    assert!(cache.begin_nar(&hash, 1000, NOW).is_none(), "it is here");
    assert!(cache.begin_nar(&NarHash::of(b"y"), 1 << 29, NOW).is_none(), "too large a share");
    cache.forget_nar(&hash);
    assert!(cache.nar(&hash, NOW).is_none());
    assert_eq!(fs::read_dir(dir.path().join("nar")).unwrap().count(), 0);
}

#[test]
fn the_quota_holds_and_the_rare_and_recent_stay() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), 100_000);
    let nars: Vec<_> = (0..40).map(|i| content(i, 10_000)).collect();
    let has = |i: usize| cache.has_nar(&NarHash::of(&nars[i])).is_some();
    for (i, nar) in nars.iter().enumerate().take(10) {
        // Number 3 is everywhere.
        assert!(store(&cache, nar, if i == 3 { 20 } else { 0 }, at(i as u64 * 100)));
    }
    cache.nar(&NarHash::of(&nars[0]), at(950)).unwrap();
    assert!(store(&cache, &nars[10], 0, at(1000)));
    assert!(!has(3), "others have it");
    assert!(store(&cache, &nars[11], 0, at(1100)));
    assert!(!has(1) && has(0), "0 was used lately");
    for (i, nar) in nars.iter().enumerate().skip(12) {
        assert!(store(&cache, nar, 0, at(i as u64 * 100)));
        let on_disk: u64 = fs::read_dir(dir.path().join("nar"))
            .unwrap()
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum();
        assert_eq!(on_disk, cache.stats().used_bytes);
        assert!(on_disk <= 100_000);
    }
    drop(cache);
    let smaller = open(dir.path(), 30_000);
    assert!(smaller.stats().used_bytes <= 30_000);
}

#[test]
fn two_writers_cannot_overrun_the_quota_together() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), 100_000);
    let writers: Vec<_> =
        (0..6).map(|i| cache.begin_nar(&NarHash::of(&[i]), 20_000, NOW)).collect();
    assert_eq!(writers.iter().flatten().count(), 5);
    drop(writers);
    assert!(cache.begin_nar(&NarHash::of(b"x"), 20_000, NOW).is_some());
}

#[test]
fn an_evicted_nar_stays_readable_to_whoever_has_it_open() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), 1 << 30);
    let nar = content(1, 50_000);
    store(&cache, &nar, 0, NOW);
    let held = cache.nar(&NarHash::of(&nar), NOW).unwrap();
    cache.forget_nar(&NarHash::of(&nar));
    assert!(read(&held) == nar);
}

#[test]
fn files_and_index_are_reconciled_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let nars: Vec<_> = (0..6).map(|i| content(i, 10_000)).collect();
    let file =
        |i: usize| dir.path().join("nar").join(format!("{}.nar", NarHash::of(&nars[i]).to_nix32()));
    let cache = open(dir.path(), 1 << 30);
    for nar in &nars[..5] {
        store(&cache, nar, 0, NOW);
    }
    assert!(cache.tick(NOW));
    drop(cache);
    fs::remove_file(file(0)).unwrap();
    fs::File::options().write(true).open(file(1)).unwrap().set_len(9_999).unwrap();
    let mut flipped = fs::read(file(2)).unwrap();
    flipped[5000] ^= 1;
    fs::write(file(2), flipped).unwrap();
    fs::write(file(5), &nars[5]).unwrap();
    fs::write(dir.path().join("tmp/17.part"), b"half").unwrap();
    fs::write(dir.path().join("nar/notes.txt"), b"not ours").unwrap();

    let cache = open(dir.path(), 1 << 30);
    let has = |i: usize| cache.has_nar(&NarHash::of(&nars[i])).is_some();
    assert!(!has(0) && !has(1) && !file(1).exists());
    assert!(has(2) && has(3) && has(4));
    assert!(has(5), "a file the index does not know is adopted");
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    assert!(dir.path().join("nar/notes.txt").exists());
    let served: Vec<_> = (0..6)
        .map(|i| cache.nar(&NarHash::of(&nars[i]), NOW).is_some_and(|nar| nar.check()))
        .collect();
    assert_eq!(served, [false, false, false, true, true, true]);
    assert!(!has(2) && !file(2).exists(), "a damaged one is removed");
    assert!(cache.tick(NOW));
    drop(cache);
    assert_eq!(open(dir.path(), 1 << 30).stats().nars, 3);
}

#[test]
fn a_file_that_vanishes_while_running_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), 1 << 30);
    let nar = content(1, 10_000);
    store(&cache, &nar, 0, NOW);
    fs::remove_dir_all(dir.path().join("nar")).unwrap();
    assert!(cache.nar(&NarHash::of(&nar), NOW).is_none());
    assert_eq!((cache.stats().nars, cache.stats().used_bytes), (0, 0));
    assert!(!store(&cache, &nar, 0, NOW));
    assert!(cache.stats().paused.is_some());
}

#[test]
fn a_damaged_index_is_set_aside_and_the_nars_survive() {
    let nar = content(1, 10_000);
    for damage in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let index = dir.path().join("index.redb");
        let cache = open(dir.path(), 1 << 30);
        store(&cache, &nar, 0, NOW);
        for i in 0..500 {
            cache.put_narinfo(&info(i, 0), "k", NOW);
        }
        assert!(cache.tick(NOW));
        drop(cache);
        let mut bytes = fs::read(&index).unwrap();
        match damage {
            0 => bytes.clear(),
            1 => bytes = b"this is no database at all, but somebody's shopping list\n".repeat(200),
            2 => bytes.truncate(bytes.len() / 2),
            3 => bytes.truncate(100),
            4 => bytes.iter_mut().skip(4096).for_each(|byte| *byte = 0),
            5 => bytes.iter_mut().skip(9).step_by(211).for_each(|byte| *byte ^= 0x55),
            // A version number of a later redb.
            6 => bytes.iter_mut().skip(64).step_by(128).take(4).for_each(|byte| *byte = 200),
            _ => bytes.iter_mut().skip(5000).step_by(4001).for_each(|byte| *byte ^= 1),
        }
        fs::write(&index, bytes).unwrap();
        let cache = open(dir.path(), 1 << 30);
        assert!(cache.nar(&NarHash::of(&nar), NOW).unwrap().check(), "damage {damage}");
        for i in 0..500 {
            assert!(
                cache.narinfo(&hash_part(i)).is_none_or(|found| found.info == info(i, 0)),
                "damage {damage}"
            );
        }
        cache.put_narinfo(&info(1000, 0), "k", NOW);
        assert!(cache.tick(NOW), "damage {damage}");
        let aside = dir.path().join("index.redb.unreadable").exists();
        assert_eq!(aside, !cache.stats().warnings.is_empty(), "damage {damage}");
        assert!(aside || damage == 0 || damage == 6 || damage == 7, "damage {damage}");
        drop(cache);
        assert!(open(dir.path(), 1 << 30).narinfo(&hash_part(1000)).is_some(), "damage {damage}");
    }
}

#[test]
fn foreign_newer_and_busy_directories_are_refused_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |dir: &Path| {
        let error = Cache::open(dir, CacheConfig::default(), NOW).unwrap_err();
        assert!(
            matches!(error, OpenError::Io { .. }) || error.to_string().contains("hint: "),
            "{error}"
        );
        error
    };
    let cache = open(dir.path(), 1 << 30);
    assert!(matches!(refused(dir.path()), OpenError::InUse { .. }));
    drop(cache);
    fs::write(dir.path().join("VERSION"), "haulout-cache 2\n").unwrap();
    assert!(matches!(refused(dir.path()), OpenError::OtherVersion { found: 2, known: 1, .. }));
    for odd in ["", "something", "haulout-cache x", &"haulout-cache 1 ".repeat(1000)] {
        fs::write(dir.path().join("VERSION"), odd).unwrap();
        assert!(matches!(refused(dir.path()), OpenError::NotACache { .. }));
    }
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("thesis.tex"), "years of work").unwrap();
    assert!(matches!(refused(home.path()), OpenError::NotACache { .. }));
    assert!(matches!(refused(&home.path().join("thesis.tex")), OpenError::Io { .. }));
    open(&home.path().join("new/dir"), 1 << 30);
}

#[test]
fn misses_end_and_can_be_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), 1 << 30);
    for (number, flush) in [(1, true), (2, false)] {
        cache.put_miss(&hash_part(number), at(100));
        if flush {
            assert!(cache.tick(NOW));
        }
    }
    cache.put_miss(&hash_part(3), at(1_000_000));
    assert_eq!(cache.miss(&hash_part(3), NOW), None, "nobody may say no for so long");
    assert!(cache.miss(&hash_part(1), NOW).is_some() && cache.miss(&hash_part(2), NOW).is_some());
    cache.put_narinfo(&info(2, 0), "k", NOW);
    assert!(cache.miss(&hash_part(2), NOW).is_none(), "it was found");
    cache.forget_misses();
    cache.put_miss(&hash_part(4), at(100));
    for _ in 0..2 {
        assert!(cache.miss(&hash_part(1), NOW).is_none());
        assert!(cache.miss(&hash_part(4), NOW).is_some());
        assert!(cache.tick(NOW));
    }
}

#[test]
fn tables_stay_within_their_limits_and_lose_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let config = CacheConfig {
        narinfos_max: 100,
        misses_max: 50,
        tree_bytes_max: 20_000,
        ..Default::default()
    };
    let cache = Cache::open(dir.path(), config, NOW).unwrap();
    for i in 0..300 {
        cache.put_narinfo(&info(i, 0), "k", at(i / 7));
        cache.put_tree(&NarHash::of(&i.to_le_bytes()), &tree(20), at(i / 7));
        cache.put_miss(&hash_part(1000 + i), at(if i < 270 { 1 } else { 1000 }));
        if i % 40 == 39 {
            assert!(cache.tick(at(i / 7)));
        }
    }
    assert!(cache.tick(at(50)));
    let stats = cache.stats();
    assert!(
        (80..=100).contains(&stats.narinfos)
            && (15..=30).contains(&stats.trees)
            && stats.misses == 30,
        "{stats:?}"
    );
    assert!(cache.narinfo(&hash_part(299)).is_some() && cache.narinfo(&hash_part(5)).is_none());
    assert!(cache.tree(&NarHash::of(&299_u64.to_le_bytes())).is_some());
}

/// Fails with `errno` the operations for which `fails` says so, `left` times (negative: always).
struct Failing {
    errno: i32,
    op: DiskOp,
    left: AtomicI64,
    hits: AtomicU32,
}

impl Faults for Failing {
    fn before(&self, op: DiskOp) -> io::Result<()> {
        if op != self.op || self.left.load(SeqCst) == 0 {
            return Ok(());
        }
        self.left.fetch_sub(1, SeqCst);
        self.hits.fetch_add(1, SeqCst);
        Err(io::Error::from_raw_os_error(self.errno))
    }
}

#[test]
fn a_disk_that_refuses_pauses_caching_and_nothing_else() {
    const ENOSPC: i32 = 28;
    const EROFS: i32 = 30;
    for errno in [ENOSPC, EROFS] {
        for op in [DiskOp::Create, DiskOp::Write, DiskOp::Sync, DiskOp::Rename, DiskOp::Index] {
            let dir = tempfile::tempdir().unwrap();
            let failing =
                Arc::new(Failing { errno, op, left: AtomicI64::new(0), hits: AtomicU32::new(0) });
            let faults: Arc<dyn Faults> = Arc::<Failing>::clone(&failing);
            let config = CacheConfig { faults: Some(faults), ..Default::default() };
            let cache = Cache::open(dir.path(), config, NOW).unwrap();
            let (before, after) = (content(1, 10_000), content(2, 10_000));
            assert!(store(&cache, &before, 0, NOW));
            cache.put_narinfo(&info(1, 0), "k", NOW);
            assert!(cache.tick(NOW));

            failing.left.store(-1, SeqCst);
            cache.put_narinfo(&info(2, 0), "k", NOW);
            let stored = store(&cache, &after, 0, NOW);
            let ticked = cache.tick(NOW);
            assert!(failing.hits.load(SeqCst) > 0, "{op:?}");
            assert!(!ticked && stored == (op == DiskOp::Index), "{op:?}");
            assert!(cache.stats().paused.is_some(), "{op:?}");
            assert!(cache.begin_nar(&NarHash::of(b"x"), 10, at(5)).is_none(), "paused");
            assert!(
                read(&cache.nar(&NarHash::of(&before), at(5)).unwrap()) == before,
                "still served"
            );
            if op != DiskOp::Index {
                assert!(cache.narinfo(&hash_part(1)).is_some());
            }
            assert!(cache.narinfo(&hash_part(2)).is_some());
            assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);

            failing.left.store(0, SeqCst);
            assert!(cache.tick(at(61)), "{op:?}");
            assert!(store(&cache, &after, 0, at(61)) || op == DiskOp::Index);
            assert!(cache.tick(at(61)));
            drop(cache);
            let cache = open(dir.path(), 1 << 30);
            for i in [1, 2] {
                assert!(cache.narinfo(&hash_part(i)).is_some(), "{op:?}");
            }
            assert!(cache.nar(&NarHash::of(&after), NOW).unwrap().check());
            assert_eq!(cache.stats().warnings, Vec::<String>::new());
        }
    }
}

#[test]
fn a_single_write_failing_anywhere_in_a_commit_leaves_a_good_index() {
    for nth in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let failing = Arc::new(Failing {
            errno: 28,
            op: DiskOp::Index,
            left: AtomicI64::new(0),
            hits: AtomicU32::new(0),
        });
        struct Nth(Arc<Failing>, AtomicI64);
        impl Faults for Nth {
            fn before(&self, op: DiskOp) -> io::Result<()> {
                if op == DiskOp::Index && self.1.fetch_sub(1, SeqCst) == 0 {
                    self.0.left.store(1, SeqCst);
                }
                self.0.before(op)
            }
        }
        let faults: Arc<dyn Faults> = Arc::new(Nth(Arc::clone(&failing), AtomicI64::new(nth)));
        let config = CacheConfig { faults: Some(faults), ..Default::default() };
        let cache = Cache::open(dir.path(), config, NOW).unwrap();
        let mut now = NOW;
        for i in 0..20 {
            cache.put_narinfo(&info(i, 0), "k", now);
            cache.tick(now);
            now = UnixTime(now.0 + 61);
        }
        assert!(cache.tick(now));
        for i in 0..20 {
            assert!(cache.narinfo(&hash_part(i)).is_some(), "write {nth}, info {i}");
        }
        drop(cache);
        let cache = open(dir.path(), 1 << 30);
        assert!((0..20).all(|i| cache.narinfo(&hash_part(i)).is_some()), "write {nth}");
        assert!(cache.stats().warnings.is_empty(), "write {nth}");
    }
}

#[test]
fn a_forged_value_in_the_index_is_nothing() {
    // What a reader of another version (or a bit flip that kept the checksum) would find: decode
    // strictly or not at all.
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), 1 << 30);
    cache.put_narinfo(&info(1, 0), &"n".repeat(300), NOW);
    assert_eq!(cache.narinfo(&hash_part(1)), None, "a name too long to store");
    let mut file = fs::File::create(dir.path().join("nar/eeee.nar")).unwrap();
    file.write_all(b"x").unwrap();
    drop(cache);
    assert_eq!(open(dir.path(), 1 << 30).stats().nars, 0);
}
