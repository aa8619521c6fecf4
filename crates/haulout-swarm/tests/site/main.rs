//! A site in virtual time: many agents want the same objects in the same second. Some die, some stall, some lie, some
//! come late, some are on battery, and they do not all see each other at once.
//!
//! Checked: everybody that lives gets every segment, and right; the outside gives each segment about once.

mod world;

use std::time::Duration;

use haulout_swarm::Now;
use world::{Faults, Outcome, World};

const AGENTS: usize = 40;
const SEGMENTS: u32 = 60;

fn run(seed: u64, faults: Faults) -> Outcome {
    run_with(seed, SEGMENTS, faults)
}

fn run_with(seed: u64, segments: u32, faults: Faults) -> Outcome {
    let mut world = World::new(seed, AGENTS, segments, faults);
    world.run(Now::from_start(Duration::from_secs(300)));
    world.outcome()
}

fn seeds() -> u64 {
    std::env::var("SITE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(30)
}

#[test]
fn without_faults_every_segment_is_fetched_once() {
    for seed in 0..seeds() {
        let outcome = run(seed, Faults::default());
        assert_eq!(outcome.missing, 0, "seed {seed}");
        assert_eq!(outcome.outside_segments, f64::from(SEGMENTS), "seed {seed}");
    }
}

#[test]
fn two_homes_killed_in_the_middle_cost_little() {
    let mut worst: f64 = 0.0;
    for seed in 0..seeds() {
        let outcome = run(seed, Faults { dying: 2, ..Faults::default() });
        assert_eq!(outcome.missing, 0, "seed {seed}");
        worst = worst.max(outcome.outside_segments / f64::from(SEGMENTS));
    }
    println!("worst: {worst:.3} × the content");
    assert!(worst <= 1.2, "{worst}");
}

#[test]
fn with_every_fault_everybody_gets_everything() {
    let mut all = 0.0;
    for seed in 0..seeds() {
        let faults = Faults {
            dying: 4,
            stalling: 3,
            lying: 2,
            late: 8,
            unwilling: 6,
            elsewhere: 4,
            blind_percent: 5,
        };
        let outcome = run(seed, faults);
        assert_eq!(outcome.missing, 0, "seed {seed}");
        assert_eq!(outcome.wrong, 0, "seed {seed}");
        all += outcome.outside_segments / f64::from(SEGMENTS);
    }
    let mean = all / seeds() as f64;
    println!("mean: {mean:.3} × the content");
    assert!(mean < 2.0, "{mean}");
}

#[test]
fn those_that_fetch_something_else_are_found_out_and_left_alone() {
    let segments = 10 * SEGMENTS;
    let mut worst: f64 = 0.0;
    for seed in 0..seeds().div_ceil(6) {
        let outcome = run_with(seed, segments, Faults { elsewhere: 20, ..Faults::default() });
        assert_eq!(outcome.missing, 0, "seed {seed}");
        worst = worst.max(outcome.outside_segments / f64::from(segments));
        // Without a memory about one for each segment and fetcher.
        let most = u64::from(segments) * 20;
        assert!(outcome.refusals < most / 3, "seed {seed}: {} of {most}", outcome.refusals);
    }
    println!("worst: {worst:.3} × the content");
    assert!(worst <= 1.5, "{worst}");
}

#[test]
fn one_seed_is_one_run() {
    let faults = Faults { dying: 3, stalling: 2, lying: 1, late: 5, ..Faults::default() };
    assert_eq!(run(7, faults).trace, run(7, faults).trace);
}
