//! A machine of the demo: a store of its own and an agent of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use haulout_gateway::api::{AgentStatus, PeerReport, PeersReport};
use hyper::StatusCode;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::client::Client;
use crate::error::{Context, Failure, Outcome};
use crate::up::READY_LINE;

/// An agent answers within milliseconds; a machine busy with a build needs longer.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a condition is looked at while it is waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// One machine of the demo's office.
pub(super) struct Machine {
    /// How it is called in the story: `A`, `B`, …
    pub(super) name: &'static str,
    /// Root of its chroot store.
    pub(super) root: PathBuf,
    /// Where its agent answers.
    pub(super) address: SocketAddr,
    /// Its agent's peer id.
    pub(super) peer: String,
    /// The key with which its agent signs for its own Nix.
    pub(super) host_key: String,
    process: Child,
}

impl Machine {
    /// Starts an agent for the store below `root` that believes `key`.
    pub(super) async fn start(name: &'static str, root: &Path, key: &str) -> Outcome<Self> {
        let quoted = toml::Value::String(key.to_owned());
        let more = format!("[trust]\nkeys = [{quoted}]\nnix_conf = false\n");
        Self::start_with(name, root, &more).await
    }

    /// Starts an agent for the store below `root`; `more` is what its settings say besides its places.
    pub(super) async fn start_with(name: &'static str, root: &Path, more: &str) -> Outcome<Self> {
        let program = std::env::current_exe().context(|| "cannot find this program".to_owned())?;
        let log = root.join("agent.log");
        let log_file =
            std::fs::File::create(&log).context(|| format!("cannot write {}", log.display()))?;
        let settings = root.join("haulout.toml");
        std::fs::write(&settings, settings_text(root, more))
            .context(|| format!("cannot write {}", settings.display()))?;
        let mut process = Command::new(program)
            .arg("up")
            .arg("--config")
            .arg(&settings)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .kill_on_drop(true)
            .spawn()
            .context(|| format!("cannot start the agent of machine {name}"))?;
        let said = timeout(START_TIMEOUT, read_announcement(&mut process)).await.ok().flatten();
        let Some((address, host_key)) = said else {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(Failure::new(format!(
                "the agent of machine {name} did not start:\n{said}"
            )));
        };
        let mut machine =
            Self { name, root: root.to_owned(), address, peer: String::new(), host_key, process };
        machine.peer =
            machine.wait_for("its identity", |status: &AgentStatus| status.peer_id.clone()).await?;
        Ok(machine)
    }

    /// Asks the agent's control interface.
    pub(super) async fn ask<T: DeserializeOwned>(&self, question: &str) -> Outcome<T> {
        let mut client = Client::connect(self.address).await?;
        let (status, body) = client.get(&format!("/api/v1/{question}"), 4 << 20).await?;
        if status != StatusCode::OK {
            return Err(Failure::new(format!(
                "machine {} answered {status} to {question}",
                self.name
            )));
        }
        serde_json::from_slice(&body).context(|| format!("machine {} answered nonsense", self.name))
    }

    /// What this machine knows about its peers.
    pub(super) async fn peers(&self) -> Outcome<Vec<PeerReport>> {
        Ok(self.ask::<PeersReport>("peers").await?.peers)
    }

    /// Waits until this machine is connected to `others` and knows what they hold:
    /// at least as many paths as given.
    pub(super) async fn wait_for_peers(&self, others: &[(&Self, u64)]) -> Outcome<()> {
        let begun = Instant::now();
        loop {
            let peers = self.peers().await?;
            let sees = |other: &Self, paths: u64| {
                peers.iter().any(|p| {
                    p.peer == other.peer && p.state == "connected" && p.holdings >= Some(paths)
                })
            };
            if others.iter().all(|(other, paths)| sees(other, *paths)) {
                return Ok(());
            }
            if begun.elapsed() > START_TIMEOUT {
                let names: Vec<&str> = others.iter().map(|(other, _)| other.name).collect();
                return Err(Failure::new(format!(
                    "machine {} did not find {} by multicast DNS on the loopback interface",
                    self.name,
                    names.join(" and ")
                ))
                .hint("a firewall that drops UDP port 5353 on `lo` prevents that"));
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    pub(super) async fn wait_for<T>(
        &self,
        what: &str,
        look: impl Fn(&AgentStatus) -> Option<T>,
    ) -> Outcome<T> {
        let begun = Instant::now();
        loop {
            if let Some(found) = look(&self.ask::<AgentStatus>("status").await?) {
                return Ok(found);
            }
            if begun.elapsed() > START_TIMEOUT {
                return Err(Failure::new(format!("machine {} never showed {what}", self.name)));
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Ends the agent's process as a power cut would.
    pub(super) async fn kill(&mut self) -> Outcome<()> {
        self.process
            .kill()
            .await
            .context(|| format!("cannot kill the agent of machine {}", self.name))
    }
}

/// Everything the agent of a demo machine needs to differ from the defaults in, and what `more` says.
fn settings_text(root: &Path, more: &str) -> String {
    let quoted =
        |path: PathBuf| toml::Value::String(path.to_string_lossy().into_owned()).to_string();
    format!(
        "[store]\nroot = {}\n[state]\ndir = {}\n[cache]\ndir = {}\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [mesh]\nport = 0\ninterfaces = [\"lo\"]\n[upstream]\nenable = false\n{more}",
        quoted(root.to_owned()),
        quoted(root.join("state")),
        quoted(root.join("cache")),
    )
}

/// Reads the agent's standard output up to the line that names its address; gives that and the host's key.
async fn read_announcement(process: &mut Child) -> Option<(SocketAddr, String)> {
    let mut lines = BufReader::new(process.stdout.take()?).lines();
    let mut host_key = String::new();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(keys) = line.trim().strip_prefix("extra-trusted-public-keys = ") {
            // The last one; others are the mesh's.
            host_key = keys.split(' ').next_back().unwrap_or_default().to_owned();
        }
        if let Some(url) = line.strip_prefix(READY_LINE) {
            return Some((url.trim().strip_prefix("http://")?.parse().ok()?, host_key));
        }
    }
    None
}
