//! `haulout up` on a host.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use haulout_gateway::api::{AgentStatus, PeerReport, PeersReport};
use rustix::process::Signal;
use serde::de::DeserializeOwned;

use crate::http::{self, Response};
use crate::{Host, Process, wait_until};

/// What an agent on a busy machine may take to answer its first request.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How an agent is configured. The defaults of haulout hold for what is not said here,
/// except that the machine's own nix.conf is not read.
#[derive(Debug, Clone, Default)]
pub struct AgentSpec {
    store_root: PathBuf,
    keys: Vec<String>,
    settings: Vec<(&'static str, String)>,
    environment: Vec<(&'static str, String)>,
}

impl AgentSpec {
    /// For the chroot store `root`, believing signatures of `keys` (`NAME:BASE64`).
    #[must_use]
    pub fn new(root: &Path, keys: &[&str]) -> Self {
        Self {
            store_root: root.to_owned(),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            settings: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// Sets `section.key` to a value in TOML's notation.
    #[must_use]
    pub fn set(mut self, name: &'static str, toml: impl Into<String>) -> Self {
        self.settings.push((name, toml.into()));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// The settings file. `home` is the directory of the agent's own files.
    fn to_toml(&self, home: &Path) -> String {
        let quoted = |path: &Path| format!("{:?}", path.display().to_string());
        let mut settings = vec![
            ("store.root", quoted(&self.store_root)),
            ("state.dir", quoted(&home.join("state"))),
            ("cache.dir", quoted(&home.join("cache"))),
            ("trust.keys", format!("{:?}", self.keys)),
            ("trust.nix_conf", "false".to_owned()),
            ("upstream.nix_conf", "false".to_owned()),
            ("log.level", format!("{:?}", log_level())),
        ];
        for (name, value) in &self.settings {
            settings.retain(|(known, _)| known != name);
            settings.push((name, value.clone()));
        }
        // A dotted key is the same as a key in a section.
        settings.iter().fold(String::new(), |mut text, (name, value)| {
            let _ = writeln!(text, "{name} = {value}");
            text
        })
    }
}

/// A running agent; killed when dropped.
#[derive(Debug)]
pub struct Agent<'lab> {
    host: &'lab Host,
    home: PathBuf,
    environment: Vec<(&'static str, String)>,
    process: Process,
}

impl Agent<'_> {
    /// Where an agent listens for Nix, on its host's loopback.
    pub const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5299);
}

impl<'lab> Agent<'lab> {
    /// Starts an agent and waits until it answers Nix.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn start(host: &'lab Host, spec: &AgentSpec) -> Self {
        // Its own directory: what an earlier agent on this host remembered is not its.
        let place = |number: u32| host.dir().join(format!("agent{number}"));
        let home = (0..).map(place).find(|home| !home.exists()).expect("endless");
        fs::create_dir_all(&home).expect("scratch");
        fs::write(home.join("haulout.toml"), spec.to_toml(&home)).expect("scratch");
        let environment = spec.environment.clone();
        let process = Self::launch(host, &home, &environment);
        let mut agent = Self { host, home, environment, process };
        agent.wait_ready();
        agent
    }

    fn launch(host: &Host, home: &Path, environment: &[(&'static str, String)]) -> Process {
        let mut command = host.command(haulout());
        // A developer's own HAULOUT_* variables are settings of the agent too.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HAULOUT_") {
                command.env_remove(name);
            }
        }
        command.arg("up").arg("--config").arg(home.join("haulout.toml")).env("HOME", home);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        Process::start(&format!("haulout on {}", host.name()), command, &home.join("log"))
    }

    fn wait_ready(&mut self) {
        let start = Instant::now();
        let ready = wait_until(START_LIMIT, || {
            !self.process.is_alive()
                || self.get("/nix-cache-info").is_ok_and(|answer| answer.status == 200)
        });
        assert!(
            ready && self.process.is_alive(),
            "haulout on {} did not start in {:?}\n{}",
            self.host.name(),
            start.elapsed(),
            self.process.log()
        );
    }

    /// Starts it again, with its state and settings, after it was stopped or killed.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart(&mut self) {
        assert!(!self.process.is_alive(), "still running");
        self.process = Self::launch(self.host, &self.home, &self.environment);
        self.wait_ready();
    }

    /// The public key with which it signs for its own machine's Nix, as it tells its user.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn host_key(&self) -> String {
        let log = self.process.log();
        let line =
            log.lines().find_map(|line| line.trim().strip_prefix("extra-trusted-public-keys = "));
        let keys = line.unwrap_or_else(|| panic!("no keys to trust in\n{log}"));
        let own = keys.split(' ').find(|key| key.starts_with("haulout-host-"));
        own.expect("the host's key").to_owned()
    }

    /// Its host.
    #[must_use]
    pub fn host(&self) -> &'lab Host {
        self.host
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its URL as a substituter (on its host only).
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", Self::HTTP)
    }

    /// Sends it a signal, for example to stop answering and to go on.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// `GET path` on a new connection.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub fn get(&self, path: &str) -> std::io::Result<Response> {
        http::get(self.host, Self::HTTP, path)
    }

    /// What it says of itself.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn status(&self) -> AgentStatus {
        self.api("status")
    }

    /// The peers it knows.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerReport> {
        self.api::<PeersReport>("peers").peers
    }

    fn api<T: DeserializeOwned>(&self, what: &str) -> T {
        let answer = self.get(&format!("/api/v1/{what}")).expect("the agent's API");
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    /// Waits until it is connected to `count` peers that have told what they hold.
    ///
    /// # Panics
    /// When that takes longer than `limit`.
    pub fn wait_for_peers(&self, count: usize, limit: Duration) {
        let connected = |peer: &PeerReport| peer.state == "connected" && peer.holdings.is_some();
        let there = wait_until(limit, || {
            self.peers().iter().filter(|peer| connected(peer)).count() >= count
        });
        assert!(there, "not {count} peers within {limit:?}: {:#?}", self.peers());
    }
}

/// `HAULOUT_TEST_LOG` (such as `debug`), or what users have.
fn log_level() -> String {
    std::env::var("HAULOUT_TEST_LOG").unwrap_or_else(|_| "info".to_owned())
}

/// The `haulout` program: `HAULOUT_BIN`, or the one that cargo built beside the tests.
pub fn haulout() -> PathBuf {
    if let Some(given) = std::env::var_os("HAULOUT_BIN") {
        return given.into();
    }
    let exe = std::env::current_exe().expect("current_exe");
    // Tests lie one directory deeper than programs.
    let mut places = exe.ancestors().skip(1).take(2).map(|dir| dir.join("haulout"));
    places
        .find(|binary| binary.is_file())
        .unwrap_or_else(|| panic!("no haulout beside {}: cargo build -p haulout", exe.display()))
}
