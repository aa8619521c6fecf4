//! The third act: a closure is published as an archive on a network of this machine, every store is wiped, and three
//! agents fetch it with proofs. Then the full node goes, then it lies.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use haulout_devnet::{LocalNet, Plan, files};
use haulout_gateway::api::{AgentStatus, SourceReport};
use haulout_nix::{KeySet, PathInfo, SecretKey, StorePath};
use haulout_sample::{Sample, SampleSpec};
use hyper::StatusCode;
use ring::rand::SystemRandom;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::sleep;

use super::agent::Machine;
use super::install::{Installed, Installer};
use super::mesh_act::{check_store, place_for_stores};
use crate::cli::DemoArgs;
use crate::client::Client;
use crate::error::{Context, Failure, Outcome};
use crate::report::{self, Table};

/// Paths and bytes of the closure.
const PATHS: usize = 150;
const BYTES: u64 = 24_000_000;

/// Storage nodes, a shard each.
const NODES: u16 = 10;

/// Bytes from outside that three machines may cost together, in closures as they are packed: the index, the blobs'
/// metadata, and what is padding come on top of one.
const OUTSIDE_MAX: f64 = 1.35;

/// How long an archive may take to be proven and opened.
const OPEN_LIMIT: Duration = Duration::from_secs(20);
/// How long it is looked whether a lie is believed after all.
const DOUBT: Duration = Duration::from_secs(3);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Where everything is.
struct Stage {
    place: tempfile::TempDir,
    net: LocalNet,
    network: PathBuf,
    wallet: PathBuf,
    committee: PathBuf,
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Directories of a store are read-only, which stops the usual clean-up for whoever is not root.
        let _ = haulout_sample::delete_all(self.place.path());
    }
}

/// What was published.
struct Published {
    top: StorePath,
    paths: Vec<PathInfo>,
    file: PathBuf,
    packed: u64,
}

/// Plays the act; every claim it prints was checked.
pub(super) async fn play(args: &DemoArgs) -> Outcome<()> {
    let stage = Stage::open().await?;
    let published = stage.publish(args.seed).await?;
    let three = stage.restore(&published).await?;
    stage.without_full_node(&published, &three).await?;
    drop(three);
    stage.with_a_liar(&published).await
}

impl Stage {
    async fn open() -> Outcome<Self> {
        let begun = Instant::now();
        let place = tempfile::Builder::new()
            .prefix("haulout-demo-")
            .tempdir_in(place_for_stores())
            .context(|| "cannot make a temporary directory".to_owned())?;
        let dir = place.path().join("network");
        let plan = Plan { shards: NODES, nodes: NODES.into(), ..Plan::new(&dir) };
        let net = LocalNet::start(&plan)
            .await
            .context(|| "cannot start a Walrus network on this machine".to_owned())?;
        println!(
            "A Walrus network of {NODES} storage nodes and a Sui full node were started on this machine in {}.",
            report::duration(begun.elapsed())
        );
        let file = |name: &str| dir.join(name);
        let (network, wallet) = (file(files::NETWORK), file(files::ACCOUNT));
        Ok(Self { network, wallet, committee: file(files::COMMITTEE), place, net })
    }

    fn root(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Runs this program with `arguments`, as a user would; its standard output.
    async fn run(&self, arguments: &[&str]) -> Outcome<String> {
        let program = std::env::current_exe().context(|| "cannot find this program".to_owned())?;
        let output = Command::new(program)
            .args(arguments)
            .env("HAULOUT_SUI_WALLET", &self.wallet)
            .env("XDG_STATE_HOME", self.root("publisher-state"))
            .output()
            .await
            .context(|| format!("cannot run haulout {}", arguments.join(" ")))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failure::new(format!("haulout {} failed:\n{said}", arguments.join(" "))))
    }

    /// A closure is made, published, and wiped.
    async fn publish(&self, seed: u64) -> Outcome<Published> {
        let root = self.root("publisher");
        let key = SecretKey::generate("demo-1", &SystemRandom::new())
            .context(|| "cannot make a signing key".to_owned())?;
        let target = root.clone();
        let generate = move || Sample::generate(&target, SampleSpec::new(seed, PATHS, BYTES, &key));
        let sample = tokio::task::spawn_blocking(generate)
            .await
            .context(|| "generating was cut off".to_owned())?
            .context(|| format!("cannot generate a store in {}", root.display()))?;
        let begun = Instant::now();
        let text = |path: &Path| path.display().to_string();
        let (file, network) = (self.root("ours.archive"), text(&self.network));
        let (named, top) = (text(&file), format!("/nix/store/{}", sample.top));
        let id = self
            .run(&["archive", "init", &named, "--network", &network, "--name", "demo", "--yes"])
            .await?;
        let said = self
            .run(&[
                "archive",
                "publish",
                &top,
                "--store-root",
                &text(&root),
                "--archive",
                &named,
                "--yes",
                "--json",
            ])
            .await?;
        let said: Value =
            serde_json::from_str(&said).context(|| "publishing said no JSON".to_owned())?;
        let packed = said["packed_bytes"].as_u64().unwrap_or_default();
        let total: u64 = sample.paths.iter().map(|info| info.nar_size).sum();
        println!(
            "\nA closure of {} paths, {} as NARs, {} packed, was published in {} as archive\n  {}",
            sample.paths.len(),
            report::bytes(total),
            report::bytes(packed),
            report::duration(begun.elapsed()),
            id.trim()
        );
        haulout_sample::delete_all(&root).context(|| format!("cannot wipe {}", root.display()))?;
        println!("The publisher's store was wiped: the archive is the only copy.");
        Ok(Published { top: sample.top, paths: sample.paths, file, packed })
    }

    /// An agent over an empty store that asks the archive.
    async fn machine(&self, name: &'static str, published: &Published) -> Outcome<Machine> {
        let root = self.root(&name.to_lowercase());
        haulout_sample::create_empty(&root)
            .context(|| format!("cannot make a store in {}", root.display()))?;
        let quoted = |path: &Path| toml::Value::String(path.display().to_string());
        let settings = format!(
            "[trust]\nkeys = []\nnix_conf = false\n\
             [[archive]]\nfile = {}\ncommittee = {}\neverything = true\n",
            quoted(&published.file),
            quoted(&self.committee),
        );
        Machine::start_with(name, &root, &settings).await
    }

    /// Three machines fetch the closure at the same time.
    async fn restore(&self, published: &Published) -> Outcome<[Machine; 3]> {
        let machines = [
            self.machine("A", published).await?,
            self.machine("B", published).await?,
            self.machine("C", published).await?,
        ];
        let [a, b, c] = &machines;
        a.wait_for_peers(&[(b, 0), (c, 0)]).await?;
        b.wait_for_peers(&[(a, 0), (c, 0)]).await?;
        c.wait_for_peers(&[(a, 0), (b, 0)]).await?;
        for machine in &machines {
            opened(machine).await?;
        }
        println!(
            "\nThree machines with empty stores install it at the same time. Their Nix trusts nobody but its own agent,\n\
             which signs what the archive's object on Sui proves:"
        );
        let (one, two, three) = tokio::join!(
            install(a, &published.top),
            install(b, &published.top),
            install(c, &published.top)
        );
        let rows = [(a, one?), (b, two?), (c, three?)];
        let mut table = Table::new(
            &["machine", "paths", "NAR bytes", "time", "from outside", "from neighbours"],
            &[1, 2, 3, 4, 5],
        );
        let mut outside = 0;
        for (machine, got) in rows {
            check_store(machine, &published.paths).await?;
            let site = machine.ask::<AgentStatus>("status").await?.counters.site;
            outside += site.bytes_fetched;
            table.row([
                machine.name.to_owned(),
                got.paths.to_string(),
                report::bytes(got.nar_bytes),
                report::duration(got.time),
                report::bytes(site.bytes_fetched),
                report::bytes(site.bytes_relayed_in),
            ]);
        }
        println!("\n{}", table.render());
        let share = outside as f64 / published.packed as f64;
        println!(
            "From outside came {} in all, {share:.2} × the closure as it is packed. Every path was hashed again on disk.",
            report::bytes(outside)
        );
        if !(0.5..=OUTSIDE_MAX).contains(&share) {
            return Err(Failure::new(format!(
                "three machines cost {share:.2} × one download; at most {OUTSIDE_MAX} × is expected"
            )));
        }
        Ok(machines)
    }

    /// A fourth machine has only its neighbours' word for the archive, and their slivers.
    async fn without_full_node(&self, published: &Published, others: &[Machine; 3]) -> Outcome<()> {
        self.net.full_node().faults().set(|faults| faults.gone = true);
        println!("\nThe full node goes away. A fourth machine has to take a neighbour's proof:");
        let machine = self.machine("D", published).await?;
        let [a, b, c] = others;
        machine.wait_for_peers(&[(a, 0), (b, 0), (c, 0)]).await?;
        let archive = opened(&machine).await?;
        let full_nodes = archive.detail.unwrap_or_default();
        if !full_nodes.contains("full nodes:") {
            return Err(Failure::new("machine D still has a full node to ask"));
        }
        let got = install(&machine, &published.top).await?;
        check_store(&machine, &published.paths).await?;
        println!(
            "  D has {} paths, {}, in {}; proven by a document that a neighbour handed on.",
            got.paths,
            report::bytes(got.nar_bytes),
            report::duration(got.time)
        );
        self.net.full_node().faults().clear();
        Ok(())
    }

    /// A fifth machine, alone, meets a full node that shows a history signed by validators of its own.
    async fn with_a_liar(&self, published: &Published) -> Outcome<()> {
        println!("\nThe full node is back, and lies. A fifth machine has nobody else to ask:");
        for (name, what) in
            [("E", "a history signed by other validators"), ("F", "an object with a bit changed")]
        {
            self.net.full_node().faults().set(|faults| {
                *faults = haulout_devnet::sui::FaultState {
                    fork: name == "E",
                    forged_object: name == "F",
                    ..Default::default()
                };
            });
            let machine = self.machine(name, published).await?;
            let why = refused(&machine, &published.top).await?;
            println!("  {name} is shown {what} and refuses it: {why}");
        }
        self.net.full_node().faults().clear();
        Ok(())
    }
}

/// Waits until the machine's archive answers.
async fn opened(machine: &Machine) -> Outcome<SourceReport> {
    let begun = Instant::now();
    loop {
        let status: AgentStatus = machine.ask("status").await?;
        let archive = status.archives.into_iter().next().unwrap_or_default();
        if archive.usable {
            return Ok(archive);
        }
        if begun.elapsed() > OPEN_LIMIT {
            return Err(Failure::new(format!(
                "machine {} did not open the archive: {} {}",
                machine.name,
                archive.state,
                archive.detail.unwrap_or_default()
            )));
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Installs with a client that trusts the machine's own agent alone.
async fn install(machine: &Machine, top: &StorePath) -> Outcome<Installed> {
    let key = machine.host_key.parse();
    let key = key.context(|| format!("the agent of machine {} told no key", machine.name))?;
    let trusted: KeySet = [key].into_iter().collect();
    let installer: Arc<Installer> = Installer::new(machine.address, machine.root.clone(), trusted);
    installer.install(top).await
}

/// Why a machine does not believe the archive; fails when it does.
async fn refused(machine: &Machine, top: &StorePath) -> Outcome<String> {
    let begun = Instant::now();
    let mut why = None;
    while begun.elapsed() < DOUBT || why.is_none() {
        let status: AgentStatus = machine.ask("status").await?;
        let archive = status.archives.into_iter().next().unwrap_or_default();
        let mut client = Client::connect(machine.address).await?;
        let path = format!("/{}.narinfo", top.hash_part());
        let (answer, _) = client.get(&path, 1 << 20).await?;
        if archive.usable || answer != StatusCode::NOT_FOUND {
            return Err(Failure::new(format!("machine {} believed a lie: {answer}", machine.name)));
        }
        why = archive.detail.filter(|_| archive.state == "not proven");
        if begun.elapsed() > OPEN_LIMIT {
            return Err(Failure::new(format!("machine {} never said why not", machine.name)));
        }
        sleep(POLL_INTERVAL).await;
    }
    // It rests between two questions; that is not why.
    let why = why.unwrap_or_default();
    Ok(why.strip_prefix("did not answer a moment ago; ").map_or_else(|| why.clone(), str::to_owned))
}
