//! The command line.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

use std::process::{Command, Output};

fn simulations(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simulations")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn json_has_what_programs_look_for() {
    let out = simulations(&["office", "--agents", "4", "--seed", "3", "--json"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let value: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    for key in ["wan_bytes", "closure_bytes", "finish_s", "ideal_s"] {
        assert!(value[key].as_f64().unwrap() > 0.0, "{key}");
    }
    assert_eq!(value["wrong_bytes"], 0);
    for name in ["alone", "proxy", "broadcast"] {
        let one = &value["baselines"][name];
        assert!(
            one["wan_bytes"].as_u64().unwrap() > 0 && one["finish_s"].as_f64().unwrap() > 0.0,
            "{name}"
        );
    }
}

#[test]
fn a_broken_invariant_ends_badly_and_says_where() {
    let out = simulations(&[
        "office",
        "--agents",
        "4",
        "--seed",
        "5",
        "--no-baselines",
        "--sabotage",
        "starve",
    ]);
    assert_eq!(out.status.code(), Some(1));
    let said = text(&out.stderr);
    assert!(said.contains("seed 5") && said.contains("step ") && said.contains("hint:"), "{said}");
}

#[test]
fn mistakes_are_named() {
    let out = simulations(&["nonsense"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("monday"), "{}", text(&out.stderr));
    let out = simulations(&["office", "--agents", "2"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("3 to 10000"), "{}", text(&out.stderr));
    assert_eq!(simulations(&[]).status.code(), Some(2));
    assert!(text(&simulations(&["--help"]).stdout).contains("flash-crowd"));
    assert!(text(&simulations(&["--list"]).stdout).contains("conference"));
}

#[test]
fn the_picture_is_well_formed() {
    let file = std::env::temp_dir().join(format!("simulations-{}.svg", std::process::id()));
    let path = file.to_str().unwrap();
    let out = simulations(&["office", "--agents", "3", "--svg", path]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("last machine"));
    let svg = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("prefers-color-scheme: dark") && !svg.contains("NaN"));
}
