//! Walrus with real processes: a devnet, and `haulout walrus` that stores on it and reads from
//! it, with nodes going away up to what the code can bear and beyond.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use system_tests::{Process, Scratch, haulout, wait_until};

/// Long enough for a busy machine; nothing here is about speed.
const PATIENCE: Duration = Duration::from_secs(60);

struct Devnet {
    scratch: Scratch,
    process: Process,
    facts: Value,
}

impl Devnet {
    fn start(shards: u16, nodes: u16) -> Self {
        let scratch = Scratch::new();
        let dir = scratch.path().join("devnet");
        let mut command = Command::new(haulout());
        command.args(["devnet", "up", "--json", "--dir"]).arg(&dir);
        command.args(["--shards", &shards.to_string(), "--nodes", &nodes.to_string()]);
        let mut process = Process::start("devnet", command, &scratch.path().join("log"));
        let line = |log: &str| log.lines().find(|line| line.starts_with('{')).map(str::to_owned);
        wait_until(PATIENCE, || line(&process.log()).is_some() || !process.is_alive());
        let log = process.log();
        let line = line(&log).unwrap_or_else(|| panic!("the devnet does not start: {log}"));
        let facts = serde_json::from_str(&line).expect("a line of JSON");
        Self { scratch, process, facts }
    }

    fn fact(&self, name: &str) -> &str {
        self.facts[name].as_str().unwrap_or_else(|| panic!("{name} in {}", self.facts))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(haulout());
        command.args(args).env("HAULOUT_WALRUS_NETWORK", self.fact("network"));
        command.env("XDG_STATE_HOME", self.path("state"));
        command.output().expect("haulout runs")
    }

    /// Runs a command that must succeed; its standard output.
    fn ok(&self, args: &[&str]) -> Vec<u8> {
        let output = self.run(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "haulout {}: {error}", args.join(" "));
        output.stdout
    }

    fn store(&self, name: &str, data: &[u8]) -> String {
        let file = self.path(name);
        std::fs::write(&file, data).expect("a file");
        let file = file.display().to_string();
        let account = self.fact("account");
        let args =
            ["walrus", "store", "--json", "--epochs", "3", "--yes", "--wallet", account, &file];
        let text = String::from_utf8(self.ok(&args)).expect("UTF-8");
        let json: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
        json["blob_id"].as_str().unwrap_or_else(|| panic!("{json}")).to_owned()
    }

    fn fault(&self, node: usize, faults: &[&str]) {
        let dir = self.path("devnet").display().to_string();
        let node = node.to_string();
        let args = [&["devnet", "fault", "--dir", &dir, &node], faults].concat();
        self.ok(&args);
    }
}

fn bytes(seed: u8, length: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let next = |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(next).collect()
}

#[test]
fn blobs_survive_f_nodes_and_say_so_beyond() {
    // 10 shards on 10 nodes: f is 3, and 4 primary slivers make a blob.
    let mut devnet = Devnet::start(10, 10);
    let data = bytes(1, 300_000);
    let id = devnet.store("blob", &data);
    assert_eq!(devnet.ok(&["walrus", "read", "--out", "-", &id]), data);
    assert_eq!(
        devnet.ok(&["walrus", "read", "--range", "1000-2000", "--out", "-", &id]),
        data[1000..2000]
    );
    let info: Value =
        serde_json::from_slice(&devnet.ok(&["walrus", "info", "--json", &id])).expect("JSON");
    assert!(info.to_string().contains(&id), "{info}");

    // One third of the nodes down, one liar, one that refuses: still the same bytes.
    for (node, fault) in [(0, "--down"), (1, "--down"), (2, "--down")] {
        devnet.fault(node, &[fault]);
    }
    devnet.fault(3, &["--slivers", "flip"]);
    devnet.fault(4, &["--refuse", "503", "--retry-after", "1"]);
    assert_eq!(devnet.ok(&["walrus", "read", "--out", "-", &id]), data);
    // A store still has its quorum of 7 without the three that are down.
    devnet.fault(3, &[]);
    devnet.fault(4, &[]);
    let more = bytes(2, 50_000);
    let second = devnet.store("more", &more);
    assert_eq!(devnet.ok(&["walrus", "read", "--out", "-", &second]), more);

    // Beyond: six slivers' worth of nodes and one more are gone.
    for node in 3..7 {
        devnet.fault(node, &["--down"]);
    }
    let output = devnet.run(&["walrus", "read", "--out", "-", &id]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty(), "{error}");
    assert!(error.contains("error:") && !error.contains("panicked"), "{error}");
    // Back again: nothing was lost.
    for node in 0..7 {
        devnet.fault(node, &[]);
    }
    assert_eq!(devnet.ok(&["walrus", "read", "--out", "-", &id]), data);
    assert!(devnet.process.terminate(PATIENCE).success());
}

#[test]
fn quilts_and_epochs() {
    let devnet = Devnet::start(10, 4);
    let (a, b) = (bytes(3, 10), bytes(4, 7_000));
    std::fs::write(devnet.path("a"), &a).expect("a file");
    std::fs::write(devnet.path("b"), &b).expect("a file");
    let file = |name: &str| devnet.path(name).display().to_string();
    let (quilt, named) = (file("quilt"), [format!("a={}", file("a")), format!("b={}", file("b"))]);
    let create =
        ["walrus", "quilt", "create", "--shards", "10", "--out", &quilt, &named[0], &named[1]];
    devnet.ok(&create);
    let data = std::fs::read(&quilt).expect("the quilt");
    let id = devnet.store("quilt", &data);
    let list = String::from_utf8(devnet.ok(&["walrus", "quilt", "ls", &id])).expect("UTF-8");
    assert!(list.contains('a') && list.contains('b'), "{list}");
    assert_eq!(devnet.ok(&["walrus", "quilt", "cat", &id, "b"]), b);

    // Shards move; what was stored is still there, from other nodes.
    let dir = devnet.path("devnet").display().to_string();
    devnet.ok(&["devnet", "epoch", "--dir", &dir]);
    assert_eq!(devnet.ok(&["walrus", "read", "--out", "-", &id]), data);
    let status = String::from_utf8(devnet.ok(&["devnet", "status", "--dir", &dir])).expect("UTF-8");
    assert!(status.contains("Walrus epoch 2"), "{status}");
}
