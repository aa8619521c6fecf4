//! The NixOS module, evaluated by real Nix, and the unit it makes, read by real systemd.
//!
//! nixpkgs' library is not at hand here: `nixos-module/tests/lib.nix` stands in for the few functions used. With
//! `HAULOUT_TEST_NIXPKGS_LIB=/path/to/nixpkgs/lib` the same is evaluated with the real one, and must come out the same.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use system_tests::skip::{self, Tool};
use system_tests::{Nix, Scratch};

fn module_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../nixos-module")
}

/// What `tests/eval.nix` says, by every Nix there is; with nixpkgs' own library it must be the same.
fn evaluated() -> Option<Value> {
    let eval = |nix: &Nix, lib: &str| {
        nix.evaluate(&module_dir().join("tests"), "eval.nix", &[("lib", lib)])
            .unwrap_or_else(|error| panic!("Nix {}, {lib}: {error}", nix.version()))
    };
    let all: Vec<Value> = Nix::all().iter().map(|nix| eval(nix, "./lib.nix")).collect();
    if let (Ok(real), Some(nix)) = (std::env::var("HAULOUT_TEST_NIXPKGS_LIB"), Nix::find()) {
        assert_eq!(all[0], eval(&nix, &real), "the stand-in and nixpkgs' library disagree");
    }
    all.into_iter().next()
}

#[test]
fn one_line_is_enough_and_nothing_of_the_users_is_replaced() {
    let Some(it) = evaluated() else { return };
    let untouched = json!(["https://cache.nixos.org/"]);
    assert_eq!(it["off"]["services"], json!({}));
    assert_eq!(it["off"]["sockets"], json!({}));
    assert_eq!(it["off"]["settings"]["substituters"], untouched);

    let plain = &it["plain"];
    assert_eq!(
        plain["settings"],
        json!({
            "substituters": ["http://127.0.0.1:5299", "https://cache.nixos.org/"],
            "trusted-substituters": ["http://127.0.0.1:5299"],
            "trusted-public-keys": ["cache.nixos.org-1:key"],
            "fallback": true,
        })
    );
    assert_eq!(plain["extraOptions"], "!include /run/haulout/nix.conf\n");
    assert_eq!(plain["firewall"]["allowedUDPPorts"], json!([5353, 5299]));
    assert_eq!(plain["firewall"]["allowedTCPPorts"], json!([]));
    assert_eq!(plain["socket"]["socketConfig"]["ListenStream"], "127.0.0.1:5299");
    assert_eq!(plain["socket"]["wantedBy"], json!(["sockets.target"]));
    assert_eq!(plain["stopIfChanged"], false);
    assert_eq!(plain["complaints"], json!([]));

    let others = &it["others"];
    assert_eq!(
        others["settings"]["substituters"],
        json!(["http://127.0.0.1:5299", "https://team.example", "https://cache.nixos.org/"])
    );
    assert_eq!(others["settings"]["fallback"], false, "the user's own choice");
    assert_eq!(others["sysctl"]["net.core.rmem_max"], 1000, "the user's own choice");

    let closed = &it["closed"];
    assert_eq!(closed["settings"]["substituters"], untouched);
    assert_eq!(closed["extraOptions"], "");
    assert_eq!(closed["firewall"]["allowedUDPPorts"], json!([]));
}

#[test]
fn a_team_has_secrets_interfaces_and_ports_of_its_own() {
    let Some(it) = evaluated() else { return };
    let team = &it["team"];
    assert_eq!(team["firewall"]["allowedUDPPorts"], json!([]));
    for interface in ["enp1s0", "wlan0"] {
        let opened = &team["firewall"]["interfaces"][interface]["allowedUDPPorts"];
        assert_eq!(*opened, json!([5353, 6000]));
    }
    assert_eq!(team["toml"]["mesh"]["interfaces"], json!(["enp1s0", "wlan0"]));
    assert_eq!(team["toml"]["cache"]["quota"], "50 GB", "freeform settings are kept");
    assert_eq!(team["socket"], "127.0.0.1:6001");
    assert_eq!(team["settings"]["substituters"][0], "http://127.0.0.1:6001");
    assert_eq!(
        team["credentials"],
        json!(["mesh-secret:/run/keys/mesh", "signing-key:/run/keys/sign"])
    );
    let environment = &team["environment"];
    assert_eq!(environment["HAULOUT_MESH_SECRET_FILE"], "%d/mesh-secret");
    assert_eq!(environment["HAULOUT_MESH_SIGNING_KEY_FILE"], "%d/signing-key");
    let toml = team["toml"].to_string();
    assert!(!toml.contains("/run/keys"), "a secret's path in the store: {toml}");
}

#[test]
fn mistakes_are_found_when_the_system_is_built() {
    let Some(it) = evaluated() else { return };
    assert_eq!(it["refused"], json!({ "port": true, "misspelt": true, "secret": true }));
    for mistake in ["port", "unsigned", "unshared"] {
        assert_eq!(it["complaints"][mistake].as_array().map(Vec::len), Some(1), "{mistake}");
    }
}

/// The settings that the module writes are settings that the agent takes.
#[test]
fn the_agent_takes_the_settings_of_the_module() {
    let Some(it) = evaluated() else { return };
    for configuration in ["plain", "team"] {
        assert_taken(configuration, &it[configuration]["toml"]);
    }
}

fn assert_taken(what: &str, settings: &Value) {
    let scratch = Scratch::new();
    let file = scratch.path().join("haulout.toml");
    let mut text = String::new();
    for (section, values) in settings.as_object().unwrap() {
        text.push_str(&format!("[{section}]\n"));
        for (key, value) in values.as_object().unwrap() {
            // Strings, numbers and lists of strings are written alike in JSON and TOML.
            text.push_str(&format!("{key} = {value}\n"));
        }
    }
    std::fs::write(&file, &text).unwrap();
    // What the key of local builds is, the credential says.
    let checked = Command::new(system_tests::haulout())
        .args(["up", "--check", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{what}: {said}\n{text}");
}

/// What the guides tell NixOS users to write is taken by the module, and what comes of it by the agent.
#[test]
fn what_the_guides_say_for_nixos_works() {
    let Some(nix) = Nix::find() else { return };
    let scratch = Scratch::new();
    let mut fragments = Vec::new();
    for guide in
        ["README.md", "docs/install.md", "docs/archives.md", "docs/caches.md", "docs/walrus.md"]
    {
        let text = std::fs::read_to_string(module_dir().join("..").join(guide)).unwrap();
        let blocks = text.split("```nix\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        for (number, block) in blocks.enumerate() {
            let name = format!("{}-{number}.nix", guide.replace('/', "-"));
            // A whole file needs nixpkgs: it is only parsed.
            let whole = block.starts_with('{');
            let body = if whole { block.to_owned() } else { format!("{{\n{block}}}\n") };
            std::fs::write(scratch.path().join(&name), body).unwrap();
            let kind = scratch.path().join("kind.nix");
            std::fs::write(&kind, format!("builtins.typeOf (import ./{name})")).unwrap();
            let parsed = nix.evaluate(scratch.path(), "kind.nix", &[]);
            assert!(parsed.is_ok(), "{name}: {parsed:?}");
            if !whole {
                fragments.push(scratch.path().join(&name).display().to_string());
            }
        }
    }
    assert!(fragments.len() >= 2, "the guides have no more such blocks: {fragments:?}");
    let list = format!("[ {} ]", fragments.join(" "));
    let it = nix
        .evaluate(
            &module_dir().join("tests"),
            "eval.nix",
            &[("lib", "./lib.nix"), ("guides", &list)],
        )
        .unwrap();
    for (fragment, made) in fragments.iter().zip(it["guides"].as_array().unwrap()) {
        assert_eq!(made["complaints"], json!([]), "{fragment}");
        assert_taken(fragment, &made["toml"]);
    }
}

#[test]
fn systemd_understands_every_line_and_finds_the_sandbox_tight() {
    if !skip::have(&[Tool::SystemdAnalyze]) {
        return;
    }
    let Some(it) = evaluated() else { return };
    let scratch = Scratch::new();
    let shipped = module_dir().join("../packaging/systemd");
    let made = it["unit"].as_str().unwrap().to_owned();
    let by_hand = std::fs::read_to_string(shipped.join("haulout.service")).unwrap();
    for (name, unit) in [("module", made), ("packaging", by_hand)] {
        let dir = scratch.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        let file = dir.join("haulout.service");
        std::fs::write(&file, with_programs_of_here(&unit)).unwrap();
        std::fs::copy(shipped.join("haulout.socket"), dir.join("haulout.socket")).unwrap();
        // Unknown keys are only warned about, with exit code 0: any word is a failure.
        let verified = Command::new("systemd-analyze")
            .arg("verify")
            .arg("--man=no")
            .arg(&file)
            .output()
            .unwrap();
        let words: Vec<String> = String::from_utf8_lossy(&verified.stderr)
            .lines()
            .filter(|line| line.contains("haulout"))
            .map(str::to_owned)
            .collect();
        assert!(words.is_empty(), "{name}: {words:?}");
        // 1.5 of 10; an agent of peers cannot do without the network.
        let security = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=15"])
            .arg(&file)
            .output()
            .unwrap();
        let table = String::from_utf8_lossy(&security.stdout);
        assert!(security.status.success(), "{name}: {table}");
        println!("{name}: {}", table.lines().last().unwrap_or_default());
    }
}

/// The programs that a unit names are not on this machine; their lines are not what is tested.
fn with_programs_of_here(unit: &str) -> String {
    unit.lines()
        .map(|line| match line.split_once('=') {
            Some(("ExecStart", _)) => "ExecStart=/bin/true up".to_owned(),
            Some(("ExecReload", _)) => "ExecReload=/bin/kill -HUP $MAINPID".to_owned(),
            _ => line.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// One sandbox, said in two places.
#[test]
fn the_unit_for_other_distributions_is_that_of_the_module() {
    let Some(it) = evaluated() else { return };
    let shipped =
        std::fs::read_to_string(module_dir().join("../packaging/systemd/haulout.service")).unwrap();
    let service = shipped.split("[Service]").nth(1).unwrap().split("[Install]").next().unwrap();
    let lines: Vec<(&str, &str)> =
        service.lines().filter_map(|line| line.split_once('=')).collect();
    let mut expected = 0;
    for (key, value) in it["service"].as_object().unwrap() {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let wanted: Vec<String> = match value {
            Value::Array(all) if key == "SystemCallFilter" => all.iter().map(text).collect(),
            Value::Array(all) => vec![all.iter().map(text).collect::<Vec<_>>().join(" ")],
            one => vec![text(one)],
        };
        let said: Vec<&str> =
            lines.iter().filter(|(name, _)| name == key).map(|(_, value)| *value).collect();
        assert_eq!(said, wanted, "{key}");
        expected += wanted.len();
    }
    let own = ["ExecStart", "ExecReload", "Environment"];
    assert_eq!(lines.iter().filter(|(name, _)| !own.contains(name)).count(), expected);
}

/// The tests with virtual machines cannot run here (they need KVM and nixpkgs); at least they evaluate, and their scripts
/// are Python.
#[test]
fn the_tests_with_virtual_machines_evaluate() {
    if !skip::have(&[Tool::Python]) {
        return;
    }
    let Some(nix) = Nix::find() else { return };
    for (file, machines) in [("office.nix", 3), ("wave.nix", 4)] {
        let expression = format!(
            "let test = import ./{file} {{ module = ../default.nix; }}; in \
             {{ inherit (test) name testScript; nodes = builtins.attrNames test.nodes; }}"
        );
        let scratch = Scratch::new();
        let wrapper = scratch.path().join("wrapper.nix");
        let vm = module_dir().join("vm").canonicalize().unwrap();
        std::fs::write(
            &wrapper,
            expression
                .replace("./", &format!("{}/", vm.display()))
                .replace("../default.nix", &format!("{}/../default.nix", vm.display())),
        )
        .unwrap();
        let test = nix.evaluate(scratch.path(), "wrapper.nix", &[]).unwrap();
        assert_eq!(test["nodes"].as_array().unwrap().len(), machines);
        let script = scratch.path().join("script.py");
        std::fs::write(&script, test["testScript"].as_str().unwrap()).unwrap();
        let parsed = Command::new("python3")
            .args(["-c", "import ast, sys; ast.parse(open(sys.argv[1]).read())"])
            .arg(&script)
            .output()
            .unwrap();
        assert!(parsed.status.success(), "{file}: {}", String::from_utf8_lossy(&parsed.stderr));
    }
}
