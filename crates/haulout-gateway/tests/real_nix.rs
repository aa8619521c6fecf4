//! Real Nix against the gateway: what it thinks of every answer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{
    path::Path,
    process::{Command, Output},
    sync::Arc,
    time::{Duration, Instant},
};

use common::{Fault, Memory, Running, file_nar, key, noise, start};
use haulout_gateway::GatewayConfig;
use haulout_nix::{PathInfo, StoreDir};

/// Three signed paths, each referring to the one before.
struct Scene {
    gateway: Running,
    memory: Arc<Memory>,
    paths: Vec<Arc<PathInfo>>,
    home: tempfile::TempDir,
}

/// `None` (and a loud line) without Nix, unless skipping is forbidden.
fn scene() -> Option<Scene> {
    if Command::new("nix-store").arg("--version").output().is_err() {
        assert!(
            std::env::var_os("HAULOUT_NO_SKIPS").is_none(),
            "nix-store is not installed and HAULOUT_NO_SKIPS is set"
        );
        eprintln!("SKIPPED: nix-store is not installed");
        return None;
    }
    let mut memory = Memory::new();
    let first = memory.add("first", file_nar(b"hello"), &[], &key());
    let second = memory.add("second", file_nar(&noise(2_000_000, 3)), &[&first], &key());
    let third = memory.add("third", file_nar(&noise(70_000, 4)), &[&first, &second], &key());
    let memory = Arc::new(memory);
    let gateway = start(Arc::clone(&memory), GatewayConfig::default());
    Some(Scene {
        gateway,
        memory,
        paths: vec![first, second, third],
        home: tempfile::tempdir().unwrap(),
    })
}

impl Scene {
    fn nix(&self, program: &str, arguments: &[&str]) -> Output {
        let home = self.home.path();
        Command::new(program)
            .args(["--option", "substituters", &format!("http://{}", self.gateway.addr)])
            .args(["--option", "trusted-public-keys", &public_key()])
            .args([
                "--option",
                "require-sigs",
                "true",
                "--option",
                "sandbox",
                "false",
                "--option",
                "build-users-group",
                "",
            ])
            .args(["--option", "extra-experimental-features", "nix-command"])
            .args(arguments)
            .env("HOME", home)
            .env("NIX_CONF_DIR", home)
            .env("XDG_CACHE_HOME", home.join("cache"))
            .env_remove("NIX_REMOTE")
            .output()
            .unwrap()
    }

    fn store(&self) -> String {
        format!("local?root={}", self.home.path().join("root").display())
    }

    fn top(&self) -> String {
        StoreDir::default().display(&self.paths[2].path)
    }

    fn realise(&self) -> Output {
        self.nix("nix-store", &["--store", &self.store(), "-r", &self.top()])
    }

    fn holds_all(&self) -> bool {
        self.paths.iter().all(|info| {
            let path = StoreDir::default().display(&info.path);
            self.nix("nix-store", &["--store", &self.store(), "--verify-path", &path])
                .status
                .success()
        })
    }
}

/// The public half of [`key`], as Nix wants it.
fn public_key() -> String {
    key().public_key().to_string()
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn nix_store_realises_a_closure() {
    let Some(scene) = scene() else { return };
    let output = scene.realise();
    assert!(output.status.success(), "{}", said(&output));
    assert!(scene.holds_all());
    assert!(Path::new(&format!("{}/root{}", scene.home.path().display(), scene.top())).is_file());
}

#[test]
fn nix_copy_fetches_a_closure() {
    let Some(scene) = scene() else { return };
    let from = format!("http://{}", scene.gateway.addr);
    let output = scene.nix("nix", &["copy", "--from", &from, "--to", &scene.store(), &scene.top()]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(scene.holds_all());
}

#[test]
fn a_cut_body_is_resumed_or_given_up_quickly() {
    let Some(scene) = scene() else { return };
    scene.memory.break_path(&scene.paths[1], Fault::CutAfter(1_500_000));
    let output = scene.realise();
    // Nix resumes at 1,500,000 with a Range request, and the rest is short enough not to be cut
    // again.
    assert!(output.status.success(), "{}", said(&output));
    assert!(scene.holds_all());
}

#[test]
fn a_nar_that_is_gone_costs_no_retries() {
    let Some(scene) = scene() else { return };
    scene.memory.break_path(&scene.paths[1], Fault::NoNar);
    let begun = Instant::now();
    let output = scene.realise();
    assert!(!output.status.success());
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "404 is not retried; took {:?}",
        begun.elapsed()
    );
}

#[test]
fn panics_inside_are_only_a_no_to_nix() {
    for fault in [Fault::PanicInNar, Fault::PanicInInfo] {
        // A new one each time: Nix remembers narinfos.
        let Some(scene) = scene() else { return };
        scene.memory.break_path(&scene.paths[0], fault);
        let begun = Instant::now();
        let output = scene.realise();
        assert!(!output.status.success());
        assert!(begun.elapsed() < Duration::from_secs(3), "took {:?}", begun.elapsed());
    }
}

#[test]
fn uploading_is_refused() {
    let Some(scene) = scene() else { return };
    assert!(scene.realise().status.success());
    let empty = start(Arc::new(Memory::new()), GatewayConfig::default());
    let to = format!("http://{}", empty.addr);
    let output = scene.nix("nix", &["copy", "--from", &scene.store(), "--to", &to, &scene.top()]);
    assert!(!output.status.success());
    assert!(said(&output).contains("405"), "{}", said(&output));
}

#[test]
fn a_signature_by_an_unknown_key_is_not_believed() {
    let Some(scene) = scene() else { return };
    let mut memory = Memory::new();
    let stranger = haulout_nix::SecretKey::from_seed("stranger-1", [9; 32]).unwrap();
    let info = memory.add("first", file_nar(b"evil"), &[], &stranger);
    let gateway = start(Arc::new(memory), GatewayConfig::default());
    let from = format!("http://{}", gateway.addr);
    let output = scene.nix(
        "nix",
        &[
            "copy",
            "--from",
            &from,
            "--to",
            &scene.store(),
            &StoreDir::default().display(&info.path),
        ],
    );
    assert!(!output.status.success());
    assert!(said(&output).contains("signature"), "{}", said(&output));
}
