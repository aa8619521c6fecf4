//! Machines that fetch the same closure from one holder in the same second give it to each other.

use system_tests::wiretap::assert_no_server_errors;
use system_tests::{FIND_LIMIT, Machine, Scene};

const PATHS: usize = 80;
const BYTES: u64 = 64 << 20;
const MACHINES: usize = 4;

/// Host 0 holds the closure.
fn machines(scene: &Scene) -> Vec<Machine<'_>> {
    let machines: Vec<Machine<'_>> = (1..=MACHINES).map(|host| scene.machine(host)).collect();
    for machine in &machines {
        machine.agent.wait_for_peers(MACHINES, FIND_LIMIT);
    }
    machines
}

fn size(scene: &Scene) -> u64 {
    scene.closure().infos().iter().map(|info| info.nar_size).sum()
}

fn check(scene: &Scene, machines: &[Machine<'_>]) {
    let paths = scene.closure().paths();
    for machine in machines {
        let _ = machine.nix.verify(&paths).ok();
        assert_no_server_errors(&machine.tap.take());
        for peer in machine.agent.peers() {
            let blamed = peer.faults.contains_key("wrong-content");
            assert!(!blamed, "an honest peer was blamed: {peer:#?}");
        }
    }
}

#[test]
fn four_in_step_cost_their_holder_about_one_closure() {
    let Some(scene) = Scene::new(1 + MACHINES, PATHS, BYTES) else { return };
    let seed = scene.seed(0);
    let machines = machines(&scene);
    std::thread::scope(|scope| {
        for machine in &machines {
            scope.spawn(|| machine.nix.realise(scene.closure().top()).ok());
        }
    });
    check(&scene, &machines);
    let given = |agent: &system_tests::Agent<'_>| agent.status().counters.bytes_to_peers as f64;
    let size = size(&scene) as f64;
    let copies = given(&seed) / size;
    let others: Vec<f64> = machines.iter().map(|machine| given(&machine.agent) / size).collect();
    println!("the holder gave {copies:.3} × the closure, the others {others:.2?}");
    assert!(copies <= 1.5, "the holder gave {copies:.3} × the closure");
}

#[test]
fn one_that_dies_in_the_middle_fails_nobody_else() {
    let Some(scene) = Scene::new(1 + MACHINES, PATHS, BYTES) else { return };
    let seed = scene.seed(0);
    let mut machines = machines(&scene);
    let mut dying = machines.pop().expect("four");
    let top = scene.closure().top().to_owned();
    let mut end = dying.nix.spawn("nix-store", &["--store", &dying.nix.store(), "-r", &top]);
    std::thread::scope(|scope| {
        for machine in &machines {
            scope.spawn(|| machine.nix.realise(scene.closure().top()).ok());
        }
        let given = || dying.agent.status().counters.bytes_to_peers;
        system_tests::wait_until(FIND_LIMIT, || given() > BYTES / 20);
        end.kill();
        dying.agent.process().kill();
    });
    check(&scene, &machines);
    let copies = seed.status().counters.bytes_to_peers as f64 / size(&scene) as f64;
    println!("the holder gave {copies:.3} × the closure");
    assert!(copies <= 2.5, "the holder gave {copies:.3} × the closure");
}
