//! Small fleets over several seeds: what must hold with faults, and what must come of it without.

use crate::baseline::{self, Kind};
use crate::check::Broken;
use crate::fleet::Fleet;
use crate::net::SECOND;
use crate::report::Outcome;
use crate::scenario::{ALL, Faults, Scene, by_name};
use crate::world::{Sabotage, World};

/// A scenario with less of everything, for debug builds.
fn small(name: &str) -> Scene {
    let scene = by_name(name).unwrap();
    Scene { paths: 60, bytes: 40 << 20, spread_s: scene.spread_s.min(10.0), ..scene }
}

fn run(scene: Scene, agents: u32, seed: u64) -> Outcome {
    let fleet = Fleet::new(scene, agents, seed);
    let mut world = World::new(&fleet);
    let ran = world.run(3_600 * SECOND);
    assert_eq!(ran, Ok(()), "{}", ran.as_ref().unwrap_err());
    Outcome::new(&world, Vec::new())
}

#[test]
fn every_scenario_keeps_its_invariants() {
    for scene in ALL {
        for seed in 0..4 {
            let outcome = run(small(scene.name), 12 + 7 * seed as u32, seed);
            assert_eq!(outcome.wrong_bytes, 0, "{} {seed}", scene.name);
        }
    }
}

#[test]
fn one_seed_is_one_run() {
    for name in ["monday", "churn", "conference", "campus"] {
        let (a, b) = (run(small(name), 20, 7), run(small(name), 20, 7));
        assert_eq!(a.json(), b.json(), "{name}");
        assert_ne!(a.trace, run(small(name), 20, 8).trace, "{name}");
    }
}

#[test]
fn without_faults_everything_comes_once() {
    for seed in 0..6 {
        for name in ["office", "flash-crowd"] {
            let outcome = run(Scene { spread_s: 0.0, ..small(name) }, 20, seed);
            let ratio = outcome.own.wan_bytes as f64 / outcome.closure_bytes as f64;
            assert!(ratio <= 1.02, "{name} {seed}: {ratio}");
        }
    }
}

#[test]
fn machines_that_come_one_by_one_cost_little_more() {
    for seed in 0..4 {
        let outcome = run(Scene { spread_s: 20.0, ..small("office") }, 60, seed);
        let ratio = outcome.own.wan_bytes as f64 / outcome.closure_bytes as f64;
        assert!(ratio <= 1.08, "{seed}: {ratio}");
    }
}

#[test]
fn with_faults_it_costs_more_and_nothing_fails() {
    for seed in 0..6 {
        let outcome = run(Scene { spread_s: 0.0, ..small("churn") }, 30, seed);
        let ratio = outcome.own.wan_bytes as f64 / outcome.closure_bytes as f64;
        assert!(ratio <= 1.5, "{seed}: {ratio}");
    }
}

#[test]
fn the_smallest_fleet_works() {
    for scene in ALL {
        run(small(scene.name), 3, 1);
    }
}

#[test]
fn a_crowd_takes_what_homes_kept_and_not_all_from_the_first_to_have_it() {
    let scene = Scene { spread_s: 1.0, bytes: 400 << 20, ..small("flash-crowd") };
    let outcome = run(scene, 60, 4);
    let kept = outcome.json()["details"]["nars_from_kept_pieces"].as_u64().unwrap();
    assert!(kept > 60 * 60 / 8, "{kept} of {}", 60 * 60);
    let (last, ideal) = (outcome.own.finish_s(), outcome.ideal_s);
    assert!(last <= 8.0 * ideal, "{last} s, ideal {ideal} s");
}

#[test]
fn a_home_owes_what_those_want_that_fetch_for_nobody() {
    // Four in five are on battery, and a home keeps far less in memory than it fetches.
    let scene = Scene { unwilling: 0.8, bytes: 1 << 30, spread_s: 30.0, ..small("office") };
    for seed in 0..3 {
        let mut fleet = Fleet::new(scene, 16, seed);
        for machine in fleet.machines.iter_mut().filter(|one| one.willing) {
            machine.start = 0;
        }
        let mut world = World::new(&fleet);
        world.run(3_600 * SECOND).unwrap();
        let outcome = Outcome::new(&world, Vec::new());
        let ratio = outcome.own.wan_bytes as f64 / outcome.closure_bytes as f64;
        assert!(ratio <= 1.1, "{seed}: {ratio}");
    }
}

#[test]
fn a_controller_serves_a_classroom_without_the_outside() {
    let outcome = run(small("classroom"), 12, 2);
    assert_eq!(outcome.own.wan_bytes, 0);
}

/// What the checks say of agents that have a fault themselves.
fn broken(fleet: &Fleet, sabotage: Sabotage) -> Broken {
    World::new(fleet).sabotaged(Some(sabotage)).run(3_600 * SECOND).unwrap_err()
}

/// All that is fetched is fetched by machine 0.
fn with_one_home(scene: Scene, agents: u32) -> Fleet {
    let mut fleet = Fleet::new(scene, agents, 3);
    for machine in fleet.machines.iter_mut().skip(1) {
        machine.willing = false;
    }
    fleet.machines[0].start = 0;
    fleet
}

#[test]
fn lies_that_are_believed_are_seen() {
    let scene = Scene { faults: Faults { lie: 0.3, ..Faults::default() }, ..small("liars") };
    let broken = broken(&Fleet::new(scene, 20, 3), Sabotage::Believe);
    assert!(broken.what.contains("wrong bytes") && broken.step > 0, "{broken}");
}

#[test]
fn a_machine_that_starves_is_seen() {
    let broken = broken(&Fleet::new(small("office"), 5, 3), Sabotage::Starve);
    assert!(broken.what.contains("starves") && broken.machine == 1, "{broken}");
}

#[test]
fn memory_that_grows_without_bound_is_seen() {
    let scene = Scene { bytes: 1 << 30, ..small("office") };
    let broken = broken(&Fleet::new(scene, 5, 3), Sabotage::Hoard);
    assert!(broken.what.contains("held in memory"), "{broken}");
}

#[test]
fn a_disk_that_fills_is_seen() {
    // Five gigabytes unpacked, and room for four on the gateway.
    let fleet = Fleet::new(Scene { bytes: 1 << 30, ..small("campus") }, 3, 3);
    World::new(&fleet).run(3_600 * SECOND).unwrap();
    let broken = broken(&fleet, Sabotage::Fill);
    assert!(broken.what.contains("on the disk"), "{broken}");
}

#[test]
fn peers_served_without_limit_are_seen() {
    let scene = Scene { spread_s: 0.0, wan_mbit: 10.0, ..small("flash-crowd") };
    let broken = broken(&with_one_home(scene, 60), Sabotage::Serve);
    assert!(broken.what.contains("streams to peers") && broken.machine == 0, "{broken}");
}

#[test]
fn everything_begun_at_once_is_seen() {
    let broken = broken(&Fleet::new(small("office"), 5, 3), Sabotage::Rush);
    assert!(broken.what.contains("NARs and"), "{broken}");
}

#[test]
fn baselines_do_what_they_are_known_for() {
    let fleet = Fleet::new(small("flash-crowd"), 16, 5);
    let closure = fleet.union_bytes() as f64;
    let ratio = |kind| baseline::run(&fleet, kind).wan_bytes as f64 / closure;
    assert!((15.9..16.2).contains(&ratio(Kind::Alone)), "{}", ratio(Kind::Alone));
    assert!((0.99..1.01).contains(&ratio(Kind::Proxy)), "{}", ratio(Kind::Proxy));
    let broadcast = ratio(Kind::Broadcast);
    assert!(broadcast > 1.5 && broadcast < 16.2, "{broadcast}");
}

#[test]
fn agents_say_that_they_wait_twice_within_the_patience_of_others() {
    let config = haulout_swarm::site::FollowConfig::default();
    assert!(u128::from(crate::site::heartbeat()) * 2 <= config.stall_after.as_nanos());
}
