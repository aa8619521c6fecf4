//! One agent among thirty peers, in virtual time: latency, lost requests, slow peers, peers that leave, vanish, come
//! back or join late, stale announcements, and one peer in five that lies.
//!
//! Safety, at every step: no wrong byte is kept, each byte is kept once, nothing verified is asked for again, memory
//! stays within the window. Liveness: after the faults end, everything that an honest live peer announced is obtained.
//!
//! A run depends on its seed alone. `MANY_PEERS_SEED=17` runs one seed, `MANY_PEERS_SEEDS=5000` that many.

mod agent;
mod world;

use std::time::Duration;

use agent::Agent;
use haulout_swarm::Now;
use world::{CALM, World};

/// Virtual time after which everything must have been obtained: the slowest peer needs 45 s for the largest NAR, and
/// bans grow up to minutes.
const END: Now = Now::from_start(Duration::from_secs(600));

const SEEDS_DEFAULT: u64 = 300;

struct Outcome {
    trace: u64,
    obtained: usize,
    lies_seen: u64,
    finished: Now,
}

fn run(seed: u64) -> Outcome {
    let mut world = World::new(seed);
    let mut agent = Agent::new(&world);
    while let Some(event) = world.next() {
        if world.now > END || (world.now > CALM && agent.idle()) {
            break;
        }
        agent.handle(&mut world, event);
    }
    for nar in &agent.wanted {
        let obtained = agent.obtained.contains_key(nar);
        assert!(obtained || !world.honestly_available(*nar), "NAR {nar} was there to be had");
    }
    assert!(agent.directory.memory_bytes() < 8 << 20);
    assert!(agent.table.iter().all(|(_, peer)| peer.in_flight() < 1000));
    Outcome {
        trace: agent.trace,
        obtained: agent.obtained.len(),
        lies_seen: agent.lies_seen,
        finished: world.now,
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn many_seeds() {
    if let Some(seed) = number("MANY_PEERS_SEED") {
        let Outcome { obtained, lies_seen, finished, .. } = run(seed);
        println!("seed {seed}: {obtained} obtained, {lies_seen} lies, at {finished:?}");
        return;
    }
    let (mut obtained, mut lies) = (0, 0);
    for seed in 0..number("MANY_PEERS_SEEDS").unwrap_or(SEEDS_DEFAULT) {
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(outcome) => {
                obtained += outcome.obtained;
                lies += outcome.lies_seen;
            }
            Err(_) => panic!("seed {seed} failed; repeat with MANY_PEERS_SEED={seed}"),
        }
    }
    println!("{obtained} NARs obtained, {lies} lies seen");
    // Otherwise the simulation has lost its teeth.
    assert!(obtained > 1000 && lies > 100);
}

#[test]
fn one_seed_is_one_run() {
    for seed in [1, 2, 3] {
        assert_eq!(run(seed).trace, run(seed).trace);
    }
}
