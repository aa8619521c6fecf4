//! `haulout archive` on rehearsal archives, from generated stores and from a binary cache.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::path::Path;

use haulout_nix::NarHash;
use haulout_nix::nar::hash_reader;
use support::{World, stderr};

fn world() -> World {
    World::new(12, 300_000)
}

#[test]
fn a_closure_is_published_listed_read_and_checked() {
    let world = world();
    let place = world.archive("ours", 10);
    let (root, top) = (world.path("store"), world.top());
    let publish = ["archive", "publish", &top, "--store-root", &root, "--archive", &place];
    let said = world.ok(&publish);
    assert!(said.contains(&format!("{} paths added", world.store.paths.len())), "{said}");
    assert!(world.ok(&publish).contains("0 paths added"));

    let listed: Vec<String> =
        world.ok(&["archive", "ls", "--archive", &place]).lines().map(str::to_owned).collect();
    for info in &world.store.paths {
        assert!(listed.contains(&format!("/nix/store/{}", info.path)));
    }
    assert_eq!(listed.len(), world.store.paths.len());

    for info in world.store.paths.iter().take(4) {
        let output = world.run(&["archive", "cat", &info.path.to_string(), "--archive", &place]);
        assert!(output.status.success());
        assert_eq!(hash_reader(&output.stdout[..]).unwrap().hash, info.nar_hash);
        assert_eq!(NarHash::of(&output.stdout), info.nar_hash);
    }
    let narinfo = world.ok(&["archive", "cat", "--narinfo", &top, "--archive", &place]);
    assert!(narinfo.contains(&format!("StorePath: {top}\n")), "{narinfo}");

    let status = world.ok(&["archive", "status", "--json", "--archive", &place]);
    assert!(status.contains("\"sequence\":1") && status.contains("\"name\":\"ours\""), "{status}");
    world.ok(&["archive", "verify", "--deep", "--archive", &place]);
    let absent = "00000000000000000000000000000000";
    let output = world.run(&["archive", "cat", absent, "--archive", &place]);
    assert!(!output.status.success());

    // A pack that vanished is found.
    let blobs = Path::new(&place).join("blobs");
    for entry in std::fs::read_dir(blobs).unwrap() {
        let path = entry.unwrap().path();
        let index = status.contains(path.file_name().unwrap().to_str().unwrap());
        if path.extension().is_none() && !index {
            std::fs::remove_file(path).unwrap();
        }
    }
    let output = world.run(&["archive", "verify", "--archive", &place]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("is no longer stored"));
}

#[test]
fn a_binary_cache_is_imported_with_its_signatures() {
    let world = world();
    let (root, top) = (world.path("store"), world.top());
    let cache = format!("file://{}", world.path("cache"));
    world.push("cache");
    let (first, second) = (world.archive("first", 10), world.archive("second", 10));
    world.ok(&["archive", "publish", &top, "--store-root", &root, "--archive", &first]);
    world.ok(&["archive", "import", "--from", &cache, "--archive", &second]);
    assert_eq!(world.ok(&["archive", "diff", &first, &second]), "");
    world.ok(&["archive", "verify", "--deep", "--archive", &second]);

    // A path left out of one is told.
    let merged = world.ok(&["archive", "merge", "--drop", &top, "--json", "--archive", &second]);
    let merged: serde_json::Value = serde_json::from_str(&merged).unwrap();
    assert_eq!((&merged["levels"], &merged["sequence"]), (&1.into(), &2.into()));
    assert_eq!(world.ok(&["archive", "diff", &first, &second]), format!("- {top}\n"));
    let funded = world.ok(&["archive", "fund", "--epochs", "40", "--json", "--archive", &first]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&funded).unwrap()["end_epoch"], 41);
    assert!(
        world.ok(&["archive", "status", "--archive", &first]).contains("stored until epoch 41")
    );
}

#[test]
fn mistakes_are_explained() {
    let world = world();
    for arguments in [
        &["archive", "ls", "--archive", "/nonexistent"][..],
        &["archive", "init", &world.path("x"), "--network", "nowhere"],
        &["archive", "cost", "--updates", "18446744073709551615"],
        &["archive", "cost", "--gas-price", "18446744073709551615"],
        &["archive", "cost", "--paths", "18446744073709551615"],
        &["archive", "import", "--from", "nonsense", "--archive", &world.archive("y", 10)],
    ] {
        let output = world.run(arguments);
        let said = stderr(&output);
        assert!(!output.status.success() && said.contains("hint: "), "{arguments:?}: {said}");
    }
}
