//! A process that is killed while it writes, again and again: whatever is served afterwards is
//! right.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use common::{content, hash_part, info, read, store};
use haulout_cache::{Cache, CacheConfig, UnixTime};
use haulout_nix::NarHash;

const DIR: &str = "HAULOUT_CACHE_KILL_DIR";
const ROUND: &str = "HAULOUT_CACHE_KILL_ROUND";
const ROUNDS: u64 = 25;
const NOW: UnixTime = UnixTime(1_800_000_000);

fn open(dir: &Path) -> Cache {
    Cache::open(dir, CacheConfig { quota_bytes: 3_000_000, ..Default::default() }, NOW).unwrap()
}

fn nar(number: u64) -> Vec<u8> {
    content(number, 20_000 + usize::try_from(number % 97).unwrap() * 1000)
}

/// The child: writes until it is killed. Does nothing when run as a test.
#[test]
fn child() {
    let (Some(dir), Some(round)) = (std::env::var_os(DIR), std::env::var_os(ROUND)) else {
        return;
    };
    let round: u64 = round.to_str().unwrap().parse().unwrap();
    let cache = open(&PathBuf::from(dir));
    for i in 0.. {
        let number = round * 100_000 + i;
        let bytes = nar(number);
        let now = UnixTime(NOW.0 + number);
        store(&cache, &bytes, 0, now);
        cache.put_narinfo(&info(number, 0), "key", now);
        cache.put_miss(&hash_part(number), UnixTime(now.0 + 5));
        if i % 3 == 0 {
            cache.tick(now);
        }
        if i == 0 {
            println!("ready");
        }
    }
}

#[test]
fn a_kill_at_any_instant_loses_nothing_but_the_latest() {
    let dir = tempfile::tempdir().unwrap();
    let (mut served, mut infos_seen) = (0, 0);
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(DIR, dir.path())
            .env(ROUND, round.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // From "hardly started" to "busy for a while", different in every round.
        std::thread::sleep(Duration::from_millis(15 + round * 37 % 190));
        child.kill().unwrap();
        child.wait().unwrap();

        let cache = open(dir.path());
        assert_eq!(
            cache.stats().warnings,
            Vec::<String>::new(),
            "the index is good after every kill"
        );
        assert!(cache.stats().used_bytes <= 3_000_000);
        assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
        // Everything of this round, and at the end of all rounds.
        let from = if round + 1 == ROUNDS { 0 } else { round };
        for number in (from..=round).flat_map(|round| (0..400).map(move |i| round * 100_000 + i)) {
            let bytes = nar(number);
            if let Some(held) = cache.nar(&NarHash::of(&bytes), NOW) {
                assert!(held.check() && read(&held) == bytes, "a wrong byte in NAR {number}");
                served += 1;
            }
            if let Some(found) = cache.narinfo(&hash_part(number)) {
                assert_eq!(found.info, info(number, 0));
                infos_seen += 1;
            }
        }
    }
    assert!(
        served > 20 && infos_seen > 20,
        "the children did get somewhere: {served} NARs, {infos_seen} infos"
    );
}
