//! Who has what, at the design's size: 1,000 peers with 50,000 paths each.

use std::hint::black_box;
use std::time::Instant;

use haulout_swarm::PeerId;
use haulout_swarm::directory::Directory;
use haulout_swarm::holdings::Snapshot;

use super::figure::{Figure, Goal};

const PEERS: u64 = 1_000;
const ENTRIES: u64 = 50_000;
/// Of each peer's entries, what it draws from a pool that all draw from: machines of one
/// office run much the same systems.
const COMMON: u64 = 40_000;
const POOL: u64 = 100_000;

/// Look-ups timed.
const LOOK_UPS: u64 = 2_000_000;

/// All those peers.
pub(crate) struct Crowd {
    /// Their holdings.
    pub(crate) directory: Directory,
    /// By how much the process grew for them, bytes.
    resident: u64,
}

/// Spreads numbers (the finaliser of SplitMix64).
pub(super) const fn mix(n: u64) -> u64 {
    let z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const fn common(n: u64) -> u32 {
    mix(n % POOL) as u32
}

const fn unique(owner: u64, n: u64) -> u32 {
    mix(owner << 32 | n | 1 << 60) as u32
}

impl Crowd {
    /// Makes it; some seconds.
    pub(crate) fn make() -> Self {
        let before = resident();
        let mut directory = Directory::new();
        for owner in 0..PEERS {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&mix(owner).to_be_bytes());
            let shared = (0..COMMON).map(|n| common(mix(owner << 20 | n)));
            let entries = shared.chain((COMMON..ENTRIES).map(|n| unique(owner, n))).collect();
            // Within both limits by construction.
            if let Ok(snapshot) = Snapshot::new(1, entries) {
                let _ = directory.apply_snapshot(PeerId::from_bytes(id), &snapshot);
            }
        }
        Self { directory, resident: resident().saturating_sub(before) }
    }
}

/// Resident memory of this process, bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// Look-ups as a bare call.
pub(super) fn look_ups(crowd: &Crowd) -> Vec<Figure> {
    let time = |key: fn(u64) -> u32| {
        let begun = Instant::now();
        for n in 0..LOOK_UPS {
            black_box(crowd.directory.who_has(key(mix(n)), n << 40));
        }
        begun.elapsed().as_secs_f64() * 1e9 / LOOK_UPS as f64
    };
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    vec![
        Figure::new("look-up, 1,000 x 50,000: held by 400 peers", "ns", time(common))
            .goal(Goal::AtMost(1000.0)),
        Figure::new(
            "look-up, held by one peer",
            "ns",
            time(|n| unique(n % PEERS, COMMON + (n >> 32) % 9_000)),
        )
        .goal(Goal::AtMost(1000.0)),
        Figure::new("look-up, held by nobody", "ns", time(|n| n as u32)).goal(Goal::AtMost(1000.0)),
        Figure::new(
            "memory of these holdings, by their own account",
            "MiB",
            mib(crowd.directory.memory_bytes() as u64),
        )
        .goal(Goal::AtMost(80.0)),
        Figure::new("memory of these holdings, growth of the process", "MiB", mib(crowd.resident)),
    ]
}
