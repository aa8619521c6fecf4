//! Whatever peers and networks do, Nix gets the right bytes, from elsewhere if need be.

use std::time::{Duration, Instant};

use haulout_nix::PathInfo;
use rustix::process::Signal;
use system_tests::wiretap::{Exchange, assert_no_server_errors};
use system_tests::{Agent, FIND_LIMIT, Machine, Scene, wait_until};

const PATHS: usize = 60;
const BYTES: u64 = 24 << 20;

/// What a command may take with a fault in its way; without one it takes a second or two.
const BOUND: Duration = Duration::from_secs(45);

/// What the network may take to be as before once it is whole again.
const HEAL_LIMIT: Duration = Duration::from_secs(10);

/// Realises the closure on `machine`, and checks every byte and every answer.
fn realise(scene: &Scene, machine: &Machine<'_>) -> Vec<Exchange> {
    let outcome = machine.nix.realise(scene.closure().top()).ok();
    assert!(outcome.wall < BOUND, "took {:?}:\n{}", outcome.wall, outcome.output);
    let _ = machine.nix.verify(&scene.closure().paths()).ok();
    let seen = machine.tap.take();
    assert_no_server_errors(&seen);
    assert_eq!(machine.agent.status().counters.http.panics, 0);
    seen
}

/// Whether the agent says that a path is there.
fn available(agent: &Agent<'_>, path: &PathInfo) -> bool {
    let answer = agent.get(&format!("/{}.narinfo", path.path.hash_part())).unwrap();
    assert!([200, 404].contains(&answer.status), "{}", answer.status);
    answer.status == 200
}

/// A liar and an honest peer: everything comes through the agent, and no lie gets on.
fn beside_an_honest_peer(lie: &str) {
    let Some(scene) = Scene::new(3, PATHS, BYTES) else { return };
    let liar = scene.liar(0, lie);
    let _honest = scene.seed(1);
    let machine = scene.machine(2);
    machine.agent.wait_for_peers(2, FIND_LIMIT);
    let _ = realise(&scene, &machine);
    assert!(liar.log().contains("lied"), "the liar was not even asked");
}

/// The same for a liar about path infos: one peer's answer covers a whole closure, so
/// the liar is asked first by keeping the honest one silent.
fn asked_before_an_honest_peer(lie: &str) {
    let Some(scene) = Scene::new(3, PATHS, BYTES) else { return };
    let liar = scene.liar(0, lie);
    let honest = scene.seed(1);
    let machine = scene.machine(2);
    machine.agent.wait_for_peers(2, FIND_LIMIT);
    let top = scene.closure().top_info();
    honest.signal(Signal::STOP);
    assert!(!available(&machine.agent, top), "a lie was believed");
    assert!(liar.log().contains("lied"), "the liar was not even asked");
    honest.signal(Signal::CONT);
    let again = wait_until(HEAL_LIMIT, || available(&machine.agent, top));
    assert!(again, "the honest peer's answer is not believed: {:#?}", machine.agent.peers());
    let _ = realise(&scene, &machine);
}

/// Only a liar: Nix gets everything from its next substituter, and soon.
fn with_another_substituter(lie: &str) {
    let Some(scene) = Scene::new(2, PATHS, BYTES) else { return };
    let other = scene.other_cache();
    for nix in scene.nixes() {
        // A new one each time: some lies keep all its threads busy for ever.
        let liar = scene.liar(0, lie);
        let machine = scene.machine_with(1, nix, &[&other], |spec| spec);
        machine.agent.wait_for_peers(1, FIND_LIMIT);
        let _ = realise(&scene, &machine);
        assert!(liar.log().contains("lied"), "the liar was not even asked");
    }
}

macro_rules! lies {
    ($($name:ident: $lie:literal $beside:ident,)*) => {
        mod lying_peer_beside_an_honest_one {
            $(#[test] fn $name() { super::$beside($lie); })*
        }
        mod lying_peer_alone {
            $(#[test] fn $name() { super::with_another_substituter($lie); })*
        }
    };
}

lies! {
    flipped_byte: "flipped-byte" beside_an_honest_peer,
    flipped_byte_with_a_tree_to_match: "flipped-tree" beside_an_honest_peer,
    forged_narinfo: "forged-info" asked_before_an_honest_peer,
    foreign_signature: "foreign-signature" asked_before_an_honest_peer,
    wrong_size: "wrong-size" asked_before_an_honest_peer,
    more_references: "more-references" asked_before_an_honest_peer,
    nar_ends_early: "short" beside_an_honest_peer,
    nar_breaks_off: "cut" beside_an_honest_peer,
    nar_stalls: "stall" beside_an_honest_peer,
    nar_never_ends: "endless" beside_an_honest_peer,
    nar_drips: "drip" beside_an_honest_peer,
    silence: "silent" asked_before_an_honest_peer,
    no_nar_after_a_yes: "no-nar" beside_an_honest_peer,
    nothing_of_what_was_announced: "no-info" beside_an_honest_peer,
}

/// Slow enough that there is a middle of a NAR: the largest takes about a second.
const SLOW: u64 = 64_000_000;

/// Starts to realise the closure on `machine`, lets `fault` happen while the largest NAR
/// is on its way, and checks that Nix noticed nothing: one answer, whole, without a gap.
fn fault_in_mid_nar(scene: &Scene, machine: &Machine<'_>, fault: impl FnOnce()) {
    let mut nix = machine.nix.spawn("nix-store", &["--realise", scene.closure().top()]);
    let largest = scene.closure().largest();
    let in_the_middle = || {
        let transfers = machine.agent.status().transfers.into_iter();
        let mut large = transfers.filter(|transfer| {
            transfer.incoming && transfer.path.contains(&largest.path.hash_part().to_string())
        });
        large.any(|transfer| transfer.done_bytes > largest.nar_size / 10)
    };
    assert!(
        wait_until(BOUND, in_the_middle),
        "the largest NAR never came under way: {}",
        nix.log()
    );
    fault();
    let status = nix.wait(BOUND).unwrap_or_else(|| panic!("Nix hangs: {}", nix.log()));
    assert!(status.success(), "{}", nix.log());
    let _ = machine.nix.verify(&scene.closure().paths()).ok();
    let seen = machine.tap.take();
    assert_no_server_errors(&seen);
    let nar = format!("{}-", largest.path.hash_part());
    let answers: Vec<&Exchange> =
        seen.iter().filter(|seen| seen.path.starts_with(&format!("/nar/{nar}"))).collect();
    assert!(answers.len() == 1 && !answers[0].cut, "the fault got through to Nix: {answers:#?}");
    assert!(answers[0].longest_pause < Duration::from_secs(3), "{answers:#?}");
}

fn two_seeds_one_machine(scene: &Scene) -> (Agent<'_>, Agent<'_>, Machine<'_>) {
    scene.lab().set_rate(Some(SLOW));
    let (a, b) = (scene.seed(0), scene.seed(1));
    let machine = scene.machine(2);
    machine.agent.wait_for_peers(2, FIND_LIMIT);
    (a, b, machine)
}

#[test]
fn peer_killed_in_mid_nar() {
    let Some(scene) = Scene::new(3, PATHS, BYTES) else { return };
    let (mut a, _b, machine) = two_seeds_one_machine(&scene);
    fault_in_mid_nar(&scene, &machine, || a.process().kill());
}

#[test]
fn peer_frozen_in_mid_nar() {
    let Some(scene) = Scene::new(3, PATHS, BYTES) else { return };
    let (mut a, _b, machine) = two_seeds_one_machine(&scene);
    fault_in_mid_nar(&scene, &machine, || a.process().signal(Signal::STOP));
}

#[test]
fn peer_cut_off_in_mid_nar() {
    let Some(scene) = Scene::new(3, PATHS, BYTES) else { return };
    let (a, _b, machine) = two_seeds_one_machine(&scene);
    fault_in_mid_nar(&scene, &machine, || a.host().set_link(false));
    // Healed, it is found again, and by both.
    a.host().set_link(true);
    machine.agent.wait_for_peers(2, FIND_LIMIT);
    a.wait_for_peers(2, FIND_LIMIT);
}

#[test]
fn only_peer_killed_in_mid_nar() {
    let Some(scene) = Scene::new(2, PATHS, BYTES) else { return };
    let other = scene.other_cache();
    scene.lab().set_rate(Some(SLOW));
    for nix in scene.nixes() {
        let mut a = scene.seed(0);
        let machine = scene.machine_with(1, nix, &[&other], |spec| spec);
        machine.agent.wait_for_peers(1, FIND_LIMIT);
        let mut running = machine.nix.spawn("nix-store", &["--realise", scene.closure().top()]);
        let under_way = || machine.agent.status().counters.bytes_from_peers > BYTES / 4;
        assert!(wait_until(BOUND, under_way), "{}", running.log());
        a.process().kill();
        let status = running.wait(BOUND).unwrap_or_else(|| panic!("Nix hangs: {}", running.log()));
        assert!(status.success(), "Nix {}: {}", nix.version(), running.log());
        let _ = machine.nix.verify(&scene.closure().paths()).ok();
        assert_no_server_errors(&machine.tap.take());
    }
}

#[test]
fn link_cut_before_and_healed() {
    let Some(scene) = Scene::new(2, PATHS, BYTES) else { return };
    let a = scene.seed(0);
    let machine = scene.machine(1);
    machine.agent.wait_for_peers(1, FIND_LIMIT);
    a.host().set_link(false);
    // Nobody answers, so nothing is there: soon, and without an error of the server's kind.
    let outcome = machine.nix.realise(scene.closure().top());
    assert!(!outcome.success && !outcome.hung && outcome.wall < BOUND, "{outcome:#?}");
    assert_no_server_errors(&machine.tap.take());
    a.host().set_link(true);
    let healed = Instant::now();
    let again = wait_until(HEAL_LIMIT, || available(&machine.agent, scene.closure().top_info()));
    assert!(again, "not healed: {:#?}", machine.agent.peers());
    println!("healed after {:.1} s", healed.elapsed().as_secs_f64());
    machine.nix.forget();
    let _ = realise(&scene, &machine);
}

#[test]
fn interface_down_and_up_as_in_sleep() {
    let Some(scene) = Scene::new(2, PATHS, BYTES) else { return };
    let _a = scene.seed(0);
    let machine = scene.machine(1);
    machine.agent.wait_for_peers(1, FIND_LIMIT);
    machine.agent.host().set_interface(false);
    std::thread::sleep(Duration::from_secs(3));
    machine.agent.host().set_interface(true);
    let top = scene.closure().top_info();
    assert!(wait_until(HEAL_LIMIT, || available(&machine.agent, top)), "not found again");
    let _ = realise(&scene, &machine);
}

#[test]
fn agent_stopped_and_started() {
    let Some(scene) = Scene::new(2, PATHS, BYTES) else { return };
    let mut a = scene.seed(0);
    let mut machine = scene.machine(1);
    machine.agent.wait_for_peers(1, FIND_LIMIT);
    let id = machine.agent.status().peer_id;

    let status = machine.agent.process().terminate(Duration::from_secs(10));
    assert!(status.success(), "SIGTERM is no failure: {status}");
    machine.agent.restart();
    machine.agent.wait_for_peers(1, FIND_LIMIT);
    assert_eq!(machine.agent.status().peer_id, id, "it came back as somebody else");

    // The other one, without a goodbye.
    a.process().kill();
    a.restart();
    // Until it has connected anew the machine may still believe in the dead connection.
    a.wait_for_peers(1, HEAL_LIMIT);
    let top = scene.closure().top_info();
    assert!(wait_until(HEAL_LIMIT, || available(&machine.agent, top)), "not found again");
    let _ = realise(&scene, &machine);
}

#[test]
fn own_agent_killed_in_mid_nar_and_started() {
    let Some(scene) = Scene::new(2, PATHS, BYTES) else { return };
    let other = scene.other_cache();
    scene.lab().set_rate(Some(SLOW));
    let _a = scene.seed(0);
    let mut machine = scene.machine_with(1, scene.nix(), &[&other], |spec| spec);
    machine.agent.wait_for_peers(1, FIND_LIMIT);
    let mut running = machine.nix.spawn("nix-store", &["--realise", scene.closure().top()]);
    let under_way = || machine.agent.status().counters.bytes_from_peers > BYTES / 4;
    assert!(wait_until(BOUND, under_way), "{}", running.log());
    machine.agent.process().kill();
    machine.agent.restart();
    // What was in flight comes from the other cache or again from the agent.
    let status = running.wait(BOUND).unwrap_or_else(|| panic!("Nix hangs: {}", running.log()));
    assert!(status.success(), "{}", running.log());
    let _ = machine.nix.verify(&scene.closure().paths()).ok();
}
