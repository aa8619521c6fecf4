//! A Walrus network with a Sui full node on a host, as a process.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use crate::{Host, Process, haulout, wait_until};

/// What a network on a busy machine may take to start.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running `haulout devnet up`; killed when dropped.
#[derive(Debug)]
pub struct Devnet<'lab> {
    host: &'lab Host,
    dir: PathBuf,
    process: Process,
}

impl<'lab> Devnet<'lab> {
    /// Starts a network of `nodes` nodes, one shard each, on an address of the host that others reach.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(host: &'lab Host, address: &str, nodes: u16) -> Self {
        Self::start_with(host, address, nodes, nodes)
    }

    /// The same with `shards` shards, as equal as possible on each node.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with(host: &'lab Host, address: &str, shards: u16, nodes: u16) -> Self {
        let dir = host.dir().join("devnet");
        let mut command = host.command(haulout());
        command.args(["devnet", "up", "--json", "--dir"]).arg(&dir);
        let (shards, nodes) = (shards.to_string(), nodes.to_string());
        command.args(["--shards", &shards, "--nodes", &nodes, "--listen", address]);
        command.args(["--rpc", &format!("{address}:0")]);
        let mut process = Process::start("devnet", command, &host.dir().join("devnet.log"));
        wait_until(START_LIMIT, || process.log().contains("\"network\"") || !process.is_alive());
        assert!(process.log().contains("\"network\""), "{}", process.log());
        Self { host, dir, process }
    }

    /// A file of the network's directory.
    #[must_use]
    pub fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// `haulout devnet …` about this network.
    ///
    /// # Panics
    /// When it fails.
    pub fn command(&self, arguments: &[&str]) {
        let mut command = self.host.command(haulout());
        command.arg("devnet").args(arguments).arg("--dir").arg(&self.dir);
        succeeded(&command.output().expect("haulout devnet"));
    }

    /// Stores a blob; its id.
    ///
    /// # Panics
    /// When that fails.
    pub fn store(&self, data: &[u8]) -> String {
        let file = self.host.dir().join("blob");
        std::fs::write(&file, data).expect("scratch");
        let mut command = self.host.command(haulout());
        command.args(["walrus", "store", "--epochs", "3", "--yes"]).arg(&file);
        command.args([
            "--network",
            &self.file("network.toml"),
            "--wallet",
            &self.file("account.key"),
        ]);
        command.env("HOME", self.host.dir()).env_remove("XDG_STATE_HOME");
        let said = succeeded(&command.output().expect("haulout walrus"));
        said.split(' ').next().expect("a blob id").to_owned()
    }

    /// Bytes that the storage nodes have given away.
    ///
    /// # Panics
    /// When it does not say.
    pub fn bytes_sent(&self) -> u64 {
        let mut command = self.host.command(haulout());
        command.args(["devnet", "status", "--json", "--dir"]).arg(&self.dir);
        let said = succeeded(&command.output().expect("haulout devnet"));
        let state: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        state["bytes_sent"].as_u64().unwrap_or_else(|| panic!("{state}"))
    }

    /// Makes storage nodes go, or come back.
    pub fn set_down(&self, nodes: std::ops::Range<usize>, down: bool) {
        for node in nodes {
            let node = node.to_string();
            let fault: &[&str] = if down { &["--down"] } else { &[] };
            self.command(&[&["fault", &node], fault].concat());
        }
    }

    /// `haulout archive …`, run on this network's host with its account as wallet; its standard output.
    ///
    /// # Panics
    /// When it fails.
    pub fn archive(&self, arguments: &[&str]) -> String {
        let mut command = self.host.command(haulout());
        command.arg("archive").args(arguments);
        command.env("HOME", self.host.dir()).env("HAULOUT_SUI_WALLET", self.file("account.key"));
        succeeded(&command.output().expect("haulout archive"))
    }

    /// Makes an archive of the closure of `top`, from the chroot store `root`; the file that names it.
    pub fn publish(&self, root: &Path, top: &str) -> String {
        let file = self.host.dir().join("ours.archive").display().to_string();
        let network = self.file("network.toml");
        let _ = self.archive(&["init", &file, "--network", &network, "--name", "ours", "--yes"]);
        let root = root.display().to_string();
        let _ = self.archive(&["publish", "--store-root", &root, "--archive", &file, "--yes", top]);
        file
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn succeeded(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
