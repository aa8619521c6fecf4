//! Memory of an open, idle cache of 50,000 narinfos, and the time of a look-up:
//! `cargo run -p haulout-cache --example memory`.

#![allow(clippy::unwrap_used, reason = "a measuring tool")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Instant;

use common::{hash_part, info};
use haulout_cache::{Cache, CacheConfig, UnixTime};

const INFOS: u64 = 50_000;
const NOW: UnixTime = UnixTime(1_800_000_000);

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn main() {
    let dir = std::env::args_os()
        .nth(1)
        .map_or_else(|| std::env::temp_dir().join("haulout-cache-memory"), Into::into);
    if !dir.join("VERSION").exists() {
        let cache = Cache::open(&dir, CacheConfig::default(), NOW).unwrap();
        for number in 0..INFOS {
            cache.put_narinfo(&info(number, 0), "cache.nixos.org-1", NOW);
            if number % 10_000 == 0 {
                assert!(cache.tick(NOW));
            }
        }
        assert!(cache.tick(NOW));
        println!("{} written; run again to measure", dir.display());
        return;
    }
    let before = resident_kib();
    let begun = Instant::now();
    let cache = Cache::open(&dir, CacheConfig::default(), NOW).unwrap();
    println!("opened in {:?}, {} KiB more than before", begun.elapsed(), resident_kib() - before);
    let begun = Instant::now();
    let hits = (0..INFOS).filter(|number| cache.narinfo(&hash_part(*number)).is_some()).count();
    println!("{hits} hits, {:?} each", begun.elapsed() / u32::try_from(INFOS).unwrap());
    let begun = Instant::now();
    let misses = (0..INFOS).filter(|number| cache.miss(&hash_part(*number), NOW).is_none()).count();
    println!("{misses} misses, {:?} each", begun.elapsed() / u32::try_from(INFOS).unwrap());
    println!("{} KiB more than before", resident_kib() - before);
}
