//! Real Nix closures move between machines on one network.

use std::time::Duration;

use system_tests::wiretap::assert_no_server_errors;
use system_tests::{FIND_LIMIT, Scene, wait_until};

const PATHS: usize = 320;
const BYTES: u64 = 48 << 20;

#[test]
fn mesh_copy() {
    let Some(scene) = Scene::new(3, PATHS, BYTES) else { return };
    for nix in scene.nixes() {
        let (top, paths) = (scene.closure().top(), scene.closure().paths());
        assert!(paths.len() >= 300);
        let _a = scene.seed(0);

        // B gets it from A by `nix copy`, one narinfo after another.
        let b = scene.machine_with(1, nix, &[], |spec| spec);
        b.agent.wait_for_peers(1, FIND_LIMIT);
        let copied = b.nix.copy(&b.tap.url(), top).ok();
        let _ = b.nix.verify(&paths).ok();
        assert_no_server_errors(&b.tap.take());

        // C gets it from A and B by what every build does, once B's new paths are known.
        let c = scene.machine_with(2, nix, &[], |spec| spec);
        c.agent.wait_for_peers(2, FIND_LIMIT);
        let both_hold_it = || {
            let holders =
                c.agent.peers().into_iter().filter(|peer| peer.holdings >= Some(PATHS as u64));
            holders.count() == 2
        };
        assert!(wait_until(FIND_LIMIT, both_hold_it), "{:#?}", c.agent.peers());
        let realised = c.nix.realise(top).ok();
        let _ = c.nix.verify(&paths).ok();
        assert_no_server_errors(&c.tap.take());
        for peer in c.agent.peers() {
            assert!(peer.bytes_from > 0, "nothing came from one of the two: {peer:#?}");
            assert!(peer.faults.is_empty(), "an honest peer was blamed: {peer:#?}");
        }
        assert_eq!(c.agent.status().counters.http.panics, 0);

        // And once more by what users type.
        let mut c = c;
        c.nix.reset();
        let empty = wait_until(FIND_LIMIT, || c.agent.status().store.paths_total == Some(0));
        assert!(empty, "{:?}", c.agent.status().store);
        let _ = c.nix.run("nix", &["build", "--no-link", top]).ok();
        let _ = c.nix.verify(&paths).ok();
        assert_no_server_errors(&c.tap.take());

        println!(
            "Nix {}: copy from one {:.1} s, realise from two {:.1} s",
            nix.version(),
            copied.wall.as_secs_f64(),
            realised.wall.as_secs_f64()
        );
    }
}

#[test]
fn a_path_that_nobody_has_is_not_there_and_costs_nothing() {
    let Some(scene) = Scene::new(2, 30, 1 << 20) else { return };
    let _a = scene.seed(0);
    let b = scene.machine(1);
    b.agent.wait_for_peers(1, FIND_LIMIT);
    let answer = b.agent.get("/0000000000000000000000000000000a.narinfo").unwrap();
    assert_eq!(answer.status, 404);
    let other = "/nix/store/0000000000000000000000000000000a-none";
    let outcome = b.nix.copy(&b.tap.url(), other);
    assert!(!outcome.success && !outcome.hung);
    assert!(outcome.wall < Duration::from_secs(5), "{:?}", outcome.wall);
    assert_no_server_errors(&b.tap.take());
}
