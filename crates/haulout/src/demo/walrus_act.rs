//! The second act: blobs on a Walrus network of this machine, read by three agents that share one download, and storage nodes
//! that die until nothing new can be read any more.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use haulout_devnet::storage::Faults;
use haulout_devnet::{LocalNet, Plan, files};
use haulout_gateway::api::{AgentStatus, ApiError, SliverCounts, WalrusReport};
use haulout_sui::chain::SuiChain;
use haulout_sui::tx::{KeySource, Signer, SuiRegistrar, Wallet};
use haulout_walrus::{Client, StoreOptions};
use hyper::StatusCode;
use redstuff::{BlobId, ShardCount};
use tokio::time::sleep;

use super::agent::Machine;
use super::mesh_act::stay;
use crate::cli::DemoArgs;
use crate::error::{Context, Failure, Outcome};
use crate::report::{self, Table};

/// Shards, one a node: few enough to kill them one by one.
const SHARDS: u16 = 10;
/// Bytes of a blob: near the most that ten shards take.
const BLOB_BYTES: usize = 1_750_000;
/// Most bytes from outside, in hundredths of what was read, that count as one download.
const ONCE: u64 = 105;
/// Most bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How long agents that have met may take to tell each other that they fetch for all.
const WORD_TRAVELS: Duration = Duration::from_millis(500);
/// Epochs for which the blobs are stored.
const EPOCHS: u32 = 5;

/// A blob that was stored.
struct Blob {
    id: BlobId,
    content: Vec<u8>,
}

/// Where everything happens.
struct Stage {
    place: tempfile::TempDir,
    net: LocalNet,
    shards: ShardCount,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = haulout_sample::delete_all(self.place.path());
    }
}

/// Plays the act; every claim it prints was checked.
pub(super) async fn play(args: &DemoArgs) -> Outcome<()> {
    let place = tempfile::Builder::new()
        .prefix("haulout-demo-")
        .tempdir()
        .context(|| "cannot make a temporary directory".to_owned())?;
    let begun = Instant::now();
    let plan =
        Plan { shards: SHARDS, nodes: SHARDS.into(), ..Plan::new(place.path().join("network")) };
    let net = LocalNet::start(&plan)
        .await
        .context(|| "cannot start a Walrus network on this machine".to_owned())?;
    let shards = ShardCount::new(SHARDS).context(|| "the number of shards".to_owned())?;
    println!(
        "A Walrus network of {SHARDS} storage nodes and a Sui full node were started on this machine in {}.",
        report::duration(begun.elapsed())
    );
    let stage = Stage { place, net, shards };
    let [first, second, third] = &stage.store_blobs(&plan.dir, args.seed).await?;
    let machines = stage.machines(&plan.dir).await?;
    stage.read_once_for_all(&machines, first).await?;
    stage.lose_some(&machines, second).await?;
    stage.lose_too_many(&machines, first, third).await?;
    if args.stay {
        let all: Vec<&Machine> = machines.iter().collect();
        stay(&all).await?;
    }
    Ok(())
}

/// Bytes that do not repeat.
fn content(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(BLOB_BYTES + 8);
    while bytes.len() < BLOB_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(BLOB_BYTES);
    bytes
}

impl Stage {
    /// Registers, uploads and certifies three blobs.
    async fn store_blobs(&self, dir: &Path, seed: u64) -> Outcome<[Blob; 3]> {
        let begun = Instant::now();
        let chain = Arc::new(SuiChain::new(self.net.network()));
        let client = Client::new(chain.clone());
        let key = KeySource::File(dir.join(files::ACCOUNT));
        let signer = Signer::open(&key).context(|| "cannot use the devnet's account".to_owned())?;
        let wallet = Wallet::new(chain, signer, None, Arc::new(|_| true));
        let registrar = SuiRegistrar::new(Arc::new(wallet));
        let mut blobs = Vec::new();
        for number in 0..3 {
            let content = content(seed.wrapping_mul(3).wrapping_add(number));
            let (shards, copy) = (self.shards, content.clone());
            let encoded = tokio::task::spawn_blocking(move || shards.encode(copy))
                .await
                .context(|| "encoding was cut off".to_owned())?
                .context(|| "cannot encode a blob".to_owned())?;
            let stored = client
                .store(&registrar, Arc::new(encoded), &StoreOptions::permanent(EPOCHS))
                .await
                .context(|| "cannot store a blob".to_owned())?;
            blobs.push(Blob { id: stored.blob, content });
        }
        println!(
            "Three blobs of {} each were registered on Sui, sent to the nodes and certified in {}:",
            report::bytes(BLOB_BYTES as u64),
            report::duration(begun.elapsed()),
        );
        for blob in &blobs {
            println!("  {}", blob.id);
        }
        blobs.try_into().map_err(|_| Failure::new("not all blobs were stored"))
    }

    /// Three agents, found by mDNS, each with that network in its settings.
    async fn machines(&self, network: &Path) -> Outcome<[Machine; 3]> {
        let file = toml::Value::String(network.join(files::NETWORK).to_string_lossy().into_owned());
        let settings = format!("[trust]\nnix_conf = false\n[walrus]\nnetwork = {file}\n");
        let start = async |name: &'static str| {
            let root = self.place.path().join(name);
            haulout_sample::create_empty(&root)
                .context(|| format!("cannot make a store in {}", root.display()))?;
            Machine::start_with(name, &root, &settings).await
        };
        let begun = Instant::now();
        let (a, b, c) = (start("A").await?, start("B").await?, start("C").await?);
        a.wait_for_peers(&[(&b, 0), (&c, 0)]).await?;
        b.wait_for_peers(&[(&a, 0), (&c, 0)]).await?;
        c.wait_for_peers(&[(&a, 0), (&b, 0)]).await?;
        println!(
            "\nThree agents found each other by multicast DNS in {}.",
            report::duration(begun.elapsed())
        );
        sleep(WORD_TRAVELS).await;
        Ok([a, b, c])
    }

    /// All machines read a blob at the same moment.
    async fn read_once_for_all(&self, machines: &[Machine; 3], blob: &Blob) -> Outcome<()> {
        println!("\nAll three read the first blob at the same moment.\n");
        let outside = read_by_all(machines, blob).await?;
        check_once(outside, blob)
    }

    /// As many nodes die as may: the next blob is read all the same, once for all.
    async fn lose_some(&self, machines: &[Machine; 3], blob: &Blob) -> Outcome<()> {
        let dead = usize::from(self.shards.max_faulty());
        self.kill(0..dead).await;
        println!(
            "\nNow {dead} of the {SHARDS} storage nodes die: as many as may. All three read the second blob.\n"
        );
        let outside = read_by_all(machines, blob).await?;
        check_once(outside, blob)
    }

    /// More die than may: what nobody has read cannot be had; what somebody has, can.
    async fn lose_too_many(
        &self,
        machines: &[Machine; 3],
        known: &Blob,
        unknown: &Blob,
    ) -> Outcome<()> {
        let before = usize::from(self.shards.max_faulty());
        let dead = self.shards.as_usize() - self.shards.rows() + 1;
        self.kill(before..dead).await;
        println!(
            "\nThen more die, {dead} in all: one too many. Of the third blob, which nobody has read,"
        );
        let begun = Instant::now();
        let (status, body) = get(&machines[0], &unknown.id).await?;
        let said: ApiError = serde_json::from_slice(&body).unwrap_or_default();
        if status != StatusCode::SERVICE_UNAVAILABLE || said.error.is_empty() {
            return Err(Failure::new(format!("A read a blob from too few nodes: {status}")));
        }
        println!("A says after {} ({status}):\n", report::duration(begun.elapsed()));
        println!("  {}", said.error);
        if let Some(hint) = said.hint {
            println!("  hint: {hint}");
        }
        for machine in machines {
            read(machine, known).await?;
        }
        println!("\nThe first blob is still read by all three: its slivers are on this network.");
        Ok(())
    }

    async fn kill(&self, nodes: std::ops::Range<usize>) {
        for node in nodes {
            let down = Faults { down: true, ..Faults::default() };
            self.net.nodes().set_faults(node, down).await;
        }
    }
}

/// What a machine's agent answers to a question for a blob.
async fn get(machine: &Machine, blob: &BlobId) -> Outcome<(StatusCode, bytes::Bytes)> {
    let mut client = crate::client::Client::connect(machine.address).await?;
    client.get(&format!("/v1/blobs/{blob}"), ANSWER_BYTES_MAX).await
}

/// Reads a blob through a machine's agent and compares it; says how long that took.
async fn read(machine: &Machine, blob: &Blob) -> Outcome<Duration> {
    let begun = Instant::now();
    let (status, body) = get(machine, &blob.id).await?;
    let time = begun.elapsed();
    let name = machine.name;
    if status != StatusCode::OK {
        let said: ApiError = serde_json::from_slice(&body).unwrap_or_default();
        return Err(Failure::new(format!(
            "{name} cannot read the blob ({status}): {}",
            said.error
        )));
    }
    if body != blob.content {
        return Err(Failure::new(format!("WRONG BYTES were read by {name}")));
    }
    Ok(time)
}

async fn walrus_of(machine: &Machine) -> Outcome<WalrusReport> {
    let status: AgentStatus = machine.ask("status").await?;
    status.walrus.ok_or_else(|| Failure::new(format!("{} has no Walrus network", machine.name)))
}

fn since(now: SliverCounts, before: SliverCounts) -> SliverCounts {
    SliverCounts { slivers: now.slivers - before.slivers, bytes: now.bytes - before.bytes }
}

/// All three read at once; prints who had what from where, and gives the bytes that came from storage nodes.
async fn read_by_all(machines: &[Machine; 3], blob: &Blob) -> Outcome<u64> {
    let mut before = Vec::new();
    for machine in machines {
        before.push(walrus_of(machine).await?);
    }
    let times = machines.each_ref().map(|machine| read(machine, blob));
    let times = futures_util::future::join_all(times).await;
    let mut table = Table::new(
        &[
            "agent",
            "slivers",
            "from neighbours",
            "kept here",
            "from nodes",
            "fetched for all",
            "time",
        ],
        &[1, 2, 3, 4, 5, 6],
    );
    let mut outside = 0;
    for ((machine, before), time) in machines.iter().zip(before).zip(times) {
        let now = walrus_of(machine).await?;
        let peers = since(now.from_peers, before.from_peers).slivers;
        let here = since(now.from_here, before.from_here).slivers;
        let nodes = since(now.from_nodes, before.from_nodes).slivers;
        let fetched = since(now.fetched, before.fetched);
        outside += fetched.bytes;
        table.row([
            machine.name.to_owned(),
            (peers + here + nodes).to_string(),
            peers.to_string(),
            here.to_string(),
            nodes.to_string(),
            format!("{} ({})", fetched.slivers, report::bytes(fetched.bytes)),
            report::duration(time?),
        ]);
    }
    print!("{}", table.render());
    Ok(outside)
}

fn check_once(outside: u64, blob: &Blob) -> Outcome<()> {
    let size = blob.content.len() as u64;
    println!(
        "\nTogether they fetched {} from the storage nodes: {:.2} x the blob, for three readers.",
        report::bytes(outside),
        outside as f64 / size as f64
    );
    if outside * 100 > size * ONCE {
        return Err(Failure::new("they fetched more than one blob from the storage nodes"));
    }
    Ok(())
}
