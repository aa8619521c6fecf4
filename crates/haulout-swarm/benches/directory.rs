//! The directory at the design's size: 1,000 peers with 50,000 entries each, 80 % of them from a common pool of
//! 100,000, the rest unique. Prints memory, and CPU time of changes and look-ups; then criterion adds wall times.

#![allow(clippy::expect_used, reason = "a bench stops at the first surprise")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use haulout_swarm::PeerId;
use haulout_swarm::directory::Directory;
use haulout_swarm::holdings::{Delta, Snapshot};

const PEERS: u64 = 1_000;
const ENTRIES: u64 = 50_000;
const COMMON: u64 = 40_000;
const LOOK_UPS: u64 = 1_000_000;
const POOL: u64 = 100_000;

fn mix(n: u64) -> u64 {
    let z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn peer(n: u64) -> PeerId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&mix(n).to_be_bytes());
    PeerId::from_bytes(bytes)
}

/// The `n`-th member of the common pool.
fn common(n: u64) -> u32 {
    mix(n % POOL) as u32
}

fn unique(owner: u64, n: u64) -> u32 {
    mix(owner << 32 | n | 1 << 60) as u32
}

fn snapshot(owner: u64, version: u64) -> Snapshot {
    let shared = (0..COMMON).map(|n| common(mix(owner << 20 | n)));
    let entries = shared.chain((COMMON..ENTRIES).map(|n| unique(owner, n))).collect();
    Snapshot::new(version, entries).expect("within the limits")
}

/// What the process has in memory, bytes, for comparison with what the directory says of itself.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// CPU time of this thread: on a machine that does other work, wall time says little.
fn cpu() -> Duration {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(
        schedstat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0),
    )
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn build() -> Directory {
    let before = resident_bytes();
    let mut directory = Directory::new();
    let mut slowest = Duration::ZERO;
    let mut total = Duration::ZERO;
    for owner in 0..PEERS {
        let snapshot = snapshot(owner, 1);
        let start = cpu();
        directory.apply_snapshot(peer(owner), &snapshot).expect("there is room");
        slowest = slowest.max(cpu() - start);
        total += cpu() - start;
    }
    println!(
        "snapshot of 50,000 into 0..1,000 peers: mean {:?}, slowest {slowest:?}",
        total / PEERS as u32
    );
    println!(
        "memory at 1,000 x 50,000: {:.1} MiB by its own account, {:.1} MiB more resident",
        mib(directory.memory_bytes()),
        mib(resident_bytes() - before)
    );
    directory
}

fn changes(directory: &mut Directory) {
    let mut slowest = Duration::ZERO;
    let mut total = Duration::ZERO;
    for owner in 0..100 {
        let snapshot = snapshot(owner, 2);
        let start = cpu();
        directory.apply_snapshot(peer(owner), &snapshot).expect("there is room");
        slowest = slowest.max(cpu() - start);
        total += cpu() - start;
    }
    println!("replacing a snapshot at 1,000 peers: mean {:?}, slowest {slowest:?}", total / 100);
    let start = cpu();
    for owner in 0..100 {
        let added = (0..100).map(|n| unique(owner, n)).collect();
        let removed = (COMMON..COMMON + 100).map(|n| unique(owner, n)).collect();
        let delta = Delta::new(2, 3, removed, added).expect("a sensible delta");
        directory.apply_delta(peer(owner), &delta).expect("it fits");
    }
    println!("delta of 200 entries: mean {:?}", (cpu() - start) / 100);
    directory.remove_peer(&peer(0));
    let start = cpu();
    while directory.sweep(usize::MAX) {}
    println!("a whole sweep: {:?}", (cpu() - start));
    println!("memory afterwards: {:.1} MiB", mib(directory.memory_bytes()));
}

fn look_ups(criterion: &mut Criterion) {
    let mut directory = build();
    changes(&mut directory);
    let mut index = 0u64;
    let mut look_up = |name: &str, key: fn(u64) -> u32| {
        let start = cpu();
        for n in 0..LOOK_UPS {
            black_box(directory.who_has(key(mix(n)), n << 40));
        }
        println!("{name}: {} ns of CPU time", (cpu() - start).as_nanos() / u128::from(LOOK_UPS));
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                index += 1;
                black_box(directory.who_has(key(mix(index)), index << 40))
            });
        });
    };
    look_up("hit, held by 400 peers (16 named)", common);
    look_up("hit, held by one peer", |n| unique(n % PEERS, COMMON + 200 + (n >> 32) % 9_000));
    look_up("miss", |n| n as u32);
    criterion.bench_function("anybody_has, miss", |bencher| {
        bencher.iter(|| {
            index += 1;
            black_box(directory.anybody_has(mix(index) as u32))
        });
    });
    let snapshot = snapshot(7, 9);
    let bytes = snapshot.encode();
    criterion
        .bench_function("snapshot of 50,000: encode", |b| b.iter(|| black_box(snapshot.encode())));
    criterion.bench_function("snapshot of 50,000: decode", |b| {
        b.iter(|| black_box(Snapshot::decode(&bytes)))
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = look_ups
}
criterion_main!(benches);
