//! NARs in the agent's cache: they outlive a garbage collection of the store, a restart
//! and a kill, and nobody is the worse for a kill while one is written.

use std::time::Duration;

use system_tests::wiretap::assert_no_server_errors;
use system_tests::{Agent, FIND_LIMIT, Machine, Scene, wait_until};

const PATHS: usize = 40;
const BYTES: u64 = 16 << 20;

/// What writing the last NAR may take after Nix has it.
const WRITE_LIMIT: Duration = Duration::from_secs(20);

/// Nix forgets everything it had, and gets it again.
fn once_more(scene: &Scene, machine: &mut Machine<'_>) {
    let _ = machine.tap.take();
    machine.nix.reset();
    // The agent has noticed that the store is empty.
    let empty = wait_until(FIND_LIMIT, || machine.agent.status().store.paths_total == Some(0));
    assert!(empty, "{:?}", machine.agent.status().store);
    let outcome = machine.nix.realise(scene.closure().top()).ok();
    let _ = machine.nix.verify(&scene.closure().paths()).ok();
    let seen = machine.tap.take();
    assert_no_server_errors(&seen);
    let nars = seen.iter().filter(|seen| seen.path.starts_with("/nar/")).count();
    assert!(nars >= scene.closure().infos().len(), "{nars}: {}", outcome.output);
}

fn cached(agent: &Agent<'_>) -> u64 {
    agent.status().cache.nars
}

#[test]
fn what_nix_threw_away_comes_back_without_a_network_and_after_a_kill() {
    let Some(scene) = Scene::new(2, PATHS, BYTES) else { return };
    let mut a = scene.seed(0);
    let mut b = scene.machine_with(1, scene.nix(), &[], |spec| spec.set("cache.nars", "\"all\""));
    b.agent.wait_for_peers(1, FIND_LIMIT);
    let _ = b.nix.realise(scene.closure().top()).ok();
    let all = scene.closure().infos().len() as u64;
    let written = wait_until(WRITE_LIMIT, || cached(&b.agent) == all);
    assert!(written, "{} of {all}", cached(&b.agent));
    a.process().kill();

    once_more(&scene, &mut b);
    let counters = b.agent.status().counters;
    assert_eq!(counters.nars_by_source.cache, all, "{counters:?}");

    // The index is written every few seconds; what came before that survives a kill.
    std::thread::sleep(Duration::from_secs(7));
    b.agent.process().kill();
    b.agent.restart();
    // It answers Nix before it has looked into its cache.
    let there = wait_until(FIND_LIMIT, || cached(&b.agent) == all);
    assert!(there, "{} of {all}", cached(&b.agent));
    once_more(&scene, &mut b);
    let counters = b.agent.status().counters;
    assert_eq!(counters.nars_by_source.cache, all, "{counters:?}");
}

#[test]
fn a_kill_while_nars_are_written_leaves_whole_nars_or_none() {
    let Some(scene) = Scene::new(2, PATHS, BYTES) else { return };
    let _a = scene.seed(0);
    let mut b = scene.machine_with(1, scene.nix(), &[], |spec| spec.set("cache.nars", "\"all\""));
    for round in 0_u32..3 {
        b.agent.wait_for_peers(1, FIND_LIMIT);
        let client = b.nix.spawn("nix-store", &["--realise", scene.closure().top()]);
        // Somewhere in the middle, and not always at the same place.
        let _ = wait_until(Duration::from_secs(10), || cached(&b.agent) > u64::from(round) * 8);
        b.agent.process().kill();
        drop(client);
        b.agent.restart();
        b.nix.forget();
        let _ = b.tap.take();
    }
    b.agent.wait_for_peers(1, FIND_LIMIT);
    once_more(&scene, &mut b);
}

#[test]
fn by_default_a_machine_with_a_store_keeps_no_second_copy() {
    let Some(scene) = Scene::new(2, 12, 1 << 20) else { return };
    let _a = scene.seed(0);
    let b = scene.machine(1);
    // Its store exists from the first command on.
    let _ = b.nix.run("nix-store", &["--verify-path"]);
    b.agent.wait_for_peers(1, FIND_LIMIT);
    let _ = b.nix.realise(scene.closure().top()).ok();
    assert_eq!(cached(&b.agent), 0);
}
