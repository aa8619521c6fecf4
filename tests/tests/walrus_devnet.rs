//! Walrus with real processes: a devnet, and `haulout walrus` that stores on it and reads from
//! it, with nodes going away up to what the code can bear and beyond.

use std::io::{Read as _, Write as _};
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

/// An agent that reads from the devnet, without a mesh: its own cache and the nodes.
struct Agent {
    process: Process,
    address: String,
}

impl Agent {
    fn start(devnet: &Devnet, log: &str) -> Self {
        let root = devnet.path("root");
        std::fs::create_dir_all(&root).expect("a directory");
        let mut command = Command::new(haulout());
        command.args(["up", "--listen", "127.0.0.1:0", "--set", "mesh.enable=false"]);
        command.args(["--set", "upstream.enable=false", "--set", "trust.nix_conf=false"]);
        command.arg("--store-root").arg(&root).arg("--state-dir").arg(devnet.path("agent"));
        command.args(["--set", &format!("cache.dir={}", devnet.path("cache").display())]);
        command.args(["--set", &format!("walrus.network={}", devnet.fact("network"))]);
        let mut process = Process::start("agent", command, &devnet.path(log));
        let line = |log: &str| {
            let url = log.lines().find_map(|line| line.strip_prefix("substituter: http://"));
            url.map(str::to_owned)
        };
        wait_until(PATIENCE, || line(&process.log()).is_some() || !process.is_alive());
        let log = process.log();
        let address = line(&log).unwrap_or_else(|| panic!("the agent does not start: {log}"));
        Self { process, address }
    }

    /// Status line, header fields and body of an answer.
    fn ask(&self, method: &str, path: &str, more: &str) -> (String, Vec<u8>) {
        let mut stream = std::net::TcpStream::connect(&self.address).expect("the agent");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{more}\r\n",
            self.address
        );
        stream.write_all(head.as_bytes()).expect("the agent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let body = answer.split_off(end + 4);
        (String::from_utf8_lossy(&answer).to_lowercase(), body)
    }
}

#[test]
fn an_agent_reads_blobs_for_programs_and_for_the_command_line() {
    let devnet = Devnet::start(10, 10);
    let (data, later) = (bytes(7, 1_000_000), bytes(8, 600_000));
    let id = devnet.store("blob", &data);
    let later_id = devnet.store("later", &later);
    let agent = Agent::start(&devnet, "first-log");
    let path = format!("/v1/blobs/{id}");

    let (head, body) = agent.ask("GET", &path, "");
    assert!(head.starts_with("http/1.1 200") && body == data, "{head}");
    assert!(head.contains(&format!("etag: \"{}\"", id.to_lowercase())), "{head}");
    let (head, body) = agent.ask("GET", &path, "Range: bytes=500000-600009\r\n");
    assert!(head.starts_with("http/1.1 206") && body == data[500_000..600_010], "{head}");
    assert!(head.contains("content-range: bytes 500000-600009/1000000"), "{head}");
    let (head, body) = agent.ask("HEAD", &path, "");
    assert!(head.contains("content-length: 1000000") && body.is_empty(), "{head}");
    let (head, _) = agent.ask("GET", &path, "Range: bytes=1000000-\r\n");
    assert!(head.starts_with("http/1.1 416"), "{head}");
    let (head, body) = agent.ask("GET", &format!("/v1/blobs/{}", "A".repeat(43)), "");
    let told: Value = serde_json::from_slice(&body).expect("JSON");
    assert!(head.starts_with("http/1.1 404") && told["hint"].is_string(), "{head}{told}");
    // A page that had its own name point here gets nothing.
    let mut strange = std::net::TcpStream::connect(&agent.address).expect("the agent");
    let head = format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    strange.write_all(head.as_bytes()).expect("the agent");
    let mut answer = String::new();
    strange.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");

    // The command line goes through it by itself, and not if told so.
    let read = |more: &[&str]| {
        let out = devnet.path("out").display().to_string();
        let args = ["walrus", "read", "--json", "--out", &out, "--agent", &agent.address, &id];
        let said = devnet.ok(&[&args[..], more].concat());
        let read = std::fs::read(&out).expect("the blob");
        (serde_json::from_slice::<Value>(&said).expect("JSON"), read)
    };
    let (said, whole) = read(&[]);
    assert_eq!(said["agent"], agent.address.as_str());
    assert!(whole == data);
    let (said, part) = read(&["--range", "999990-"]);
    assert!(said["agent"].is_string() && part == data[999_990..]);
    let (said, whole) = read(&["--direct"]);
    assert!(said["agent"].is_null() && said["slivers"] == 4 && whole == data, "{said}");

    // The shards move to other nodes; the agent finds out.
    let dir = devnet.path("devnet").display().to_string();
    devnet.ok(&["devnet", "epoch", "--dir", &dir]);
    let (head, body) = agent.ask("GET", &format!("/v1/blobs/{later_id}"), "");
    assert!(head.starts_with("http/1.1 200") && body == later, "{head}");

    // What it has read it keeps, over a restart and without any node.
    let status: Value =
        serde_json::from_slice(&agent.ask("GET", "/api/v1/status", "").1).expect("JSON");
    assert_eq!(status["walrus"]["from_nodes"]["slivers"], 8, "{status}");
    let Agent { mut process, .. } = agent;
    assert!(process.terminate(PATIENCE).success());
    (0..10).for_each(|node| devnet.fault(node, &["--down"]));
    let agent = Agent::start(&devnet, "second-log");
    let (head, body) = agent.ask("GET", &path, "");
    assert!(head.starts_with("http/1.1 200") && body == data, "{head}");
    let status: Value =
        serde_json::from_slice(&agent.ask("GET", "/api/v1/status", "").1).expect("JSON");
    assert_eq!(status["walrus"]["from_here"]["slivers"], 4, "{status}");
    assert_eq!(status["walrus"]["fetched"]["slivers"], 0, "{status}");
}
