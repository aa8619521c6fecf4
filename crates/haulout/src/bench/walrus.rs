//! A blob on a network as wide as the public ones: 1,000 shards, on 20 storage nodes of this process.

use std::sync::Arc;
use std::time::Instant;

use haulout_devnet::storage::Faults;
use haulout_devnet::{LocalNet, Plan, files};
use haulout_sui::chain::SuiChain;
use haulout_sui::tx::{KeySource, Signer, SuiRegistrar, Wallet};
use haulout_walrus::{Client, Committee, ReadOptions, Report, StoreOptions};
use redstuff::{BlobId, Metadata, PairIndex, Primary, ShardCount};

use super::archive::runtime;
use super::figure::{Figure, median};
use crate::error::{Context, Failure, Outcome};

/// As on mainnet and testnet.
const SHARDS: u16 = 1_000;
/// Storage nodes; they share the machine with the client.
const NODES: usize = 20;
/// Bytes of the blob.
const BLOB_BYTES: usize = 64 << 20;
/// Whole reads timed, and ranges.
const READS: usize = 3;
const RANGES: u64 = 20;
/// Bytes of a range.
const RANGE_BYTES: u64 = 64 << 10;
/// Nodes that are down in the second half: of 50 shards each, as many as the code bears for certain.
const DOWN: usize = 6;

/// Stores and reads.
pub(super) fn run() -> Outcome<Vec<Figure>> {
    let dir = tempfile::tempdir().context(|| "cannot make a temporary directory".to_owned())?;
    let plan = Plan { shards: SHARDS, nodes: NODES, ..Plan::new(dir.path()) };
    runtime()?.block_on(async {
        let net = LocalNet::start(&plan).await.context(|| "cannot start a network".to_owned())?;
        let measured = measure(&net, dir.path()).await;
        net.stop().await;
        measured
    })
}

async fn measure(net: &LocalNet, dir: &std::path::Path) -> Outcome<Vec<Figure>> {
    let chain = Arc::new(SuiChain::new(net.network()));
    let client = Client::new(chain.clone());
    let blob: Vec<u8> =
        (0..BLOB_BYTES as u64).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let n = ShardCount::new(SHARDS).context(|| "the number of shards".to_owned())?;

    let begun = Instant::now();
    let encoded = n.encode(blob.clone()).context(|| "cannot encode".to_owned())?;
    let encoding = begun.elapsed().as_secs_f64();
    let signer = Signer::open(&KeySource::File(dir.join(files::ACCOUNT)));
    let signer = signer.context(|| "the account of the network".to_owned())?;
    let wallet = Wallet::new(chain, signer, Some(&dir.join("wallet")), Arc::new(|_: &_| true));
    let registrar = SuiRegistrar::new(Arc::new(wallet));
    let begun = Instant::now();
    let stored = client.store(&registrar, Arc::new(encoded), &StoreOptions::permanent(3)).await;
    let id = stored.context(|| "cannot store the blob".to_owned())?.blob;
    let storing = begun.elapsed().as_secs_f64();

    let reading = Reading { client, id, blob };
    let (whole, report) = reading.whole().await?;
    let (range, bytes) = reading.ranges().await?;
    let metadata = reading.client.metadata(&id).await.context(unreadable)?;
    let view = reading.client.committees(false).await.context(unreadable)?;
    for index in down(&metadata, &view.current)? {
        net.nodes().set_faults(index, Faults { down: true, ..Faults::default() }).await;
    }
    let (degraded, after) = reading.whole().await?;
    let (rebuilt, symbols) = reading.rebuilt().await?;

    let (size, mb) = (format!("{} MiB", BLOB_BYTES >> 20), BLOB_BYTES as f64 / 1e6);
    let on = format!("{SHARDS} shards, {NODES} nodes");
    let once =
        |report: &Report| (report.sliver_bytes + report.metadata_bytes) as f64 / BLOB_BYTES as f64;
    Ok(vec![
        Figure::new(format!("blob of {size}, {SHARDS} shards: encoded"), "MB/s", mb / encoding),
        Figure::new(format!("the same: stored on {NODES} nodes"), "MB/s", mb / storing),
        Figure::new(format!("read, {on}"), "MB/s", mb / whole),
        Figure::new("fetched for it", "times the blob", once(&report)),
        Figure::new(format!("{} KiB of it, p50", RANGE_BYTES >> 10), "ms", range * 1e3),
        Figure::new("fetched for that", "KB", bytes / 1e3),
        Figure::new(format!("read with {DOWN} nodes down"), "MB/s", mb / degraded),
        Figure::new("fetched for it", "times the blob", once(&after)),
        Figure::new("a row whose node is down, rebuilt", "ms", rebuilt * 1e3),
        Figure::new("symbols and proofs fetched for it", "KB", symbols / 1e3),
    ])
}

fn unreadable() -> String {
    "cannot read the blob".to_owned()
}

/// The nodes to be down: that of the first row, and others.
fn down(metadata: &Metadata, committee: &Committee) -> Outcome<Vec<usize>> {
    let odd = || Failure::new("the network's nodes have other names");
    let first = committee.owner_of_pair(metadata.id(), PairIndex(0)).ok_or_else(odd)?;
    let members = (0..committee.members.len()).cycle().skip(first).take(DOWN);
    let index = |member: usize| {
        let name = &committee.members[member].name;
        name.strip_prefix("node-").and_then(|index| index.parse().ok()).ok_or_else(odd)
    };
    members.map(index).collect()
}

/// A client and a blob that it is to read.
struct Reading {
    client: Client,
    id: BlobId,
    blob: Vec<u8>,
}

impl Reading {
    fn check(&self, from: u64, bytes: &[u8]) -> Outcome<()> {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        match self.blob.get(from..from + bytes.len()) == Some(bytes) {
            true => Ok(()),
            false => Err(Failure::new("what was read is not what was stored")),
        }
    }

    /// Seconds of a whole read, and what the last one cost.
    async fn whole(&self) -> Outcome<(f64, Report)> {
        let (mut times, mut last) = (Vec::new(), Report::default());
        for _ in 0..READS {
            let begun = Instant::now();
            let read = self.client.read(&self.id, &ReadOptions::default()).await;
            let (bytes, report) = read.context(unreadable)?;
            times.push(begun.elapsed().as_secs_f64());
            self.check(0, &bytes)?;
            last = report;
        }
        let middle = median(times).ok_or_else(|| Failure::new("nothing was read"))?;
        Ok((middle, last))
    }

    /// Seconds of a range all over the blob, and the bytes of slivers and metadata one costs.
    async fn ranges(&self) -> Outcome<(f64, f64)> {
        let (mut times, mut fetched) = (Vec::new(), 0);
        for number in 0..RANGES {
            let start = number * (self.blob.len() as u64 - RANGE_BYTES) / RANGES;
            let begun = Instant::now();
            let range = start..start + RANGE_BYTES;
            let read = self.client.read_range(&self.id, range, &ReadOptions::default()).await;
            let (bytes, report) = read.context(unreadable)?;
            times.push(begun.elapsed().as_secs_f64());
            self.check(start, &bytes)?;
            fetched += report.sliver_bytes + report.metadata_bytes;
        }
        let middle = median(times).ok_or_else(|| Failure::new("nothing was read"))?;
        Ok((middle, fetched as f64 / RANGES as f64))
    }

    /// Seconds to rebuild the first row, and bytes of symbols and proofs that took.
    async fn rebuilt(&self) -> Outcome<(f64, f64)> {
        let row = self.client.metadata(&self.id).await.context(unreadable)?;
        let row = row.sliver_len::<Primary>() as u64;
        let (mut times, mut fetched) = (Vec::new(), 0);
        for _ in 0..READS {
            let begun = Instant::now();
            let read = self.client.read_range(&self.id, 0..row, &ReadOptions::default()).await;
            let (bytes, report) = read.context(unreadable)?;
            times.push(begun.elapsed().as_secs_f64());
            self.check(0, &bytes)?;
            if report.recovered != 1 {
                return Err(Failure::new("the row was not rebuilt"));
            }
            fetched = report.symbol_bytes;
        }
        let middle = median(times).ok_or_else(|| Failure::new("nothing was rebuilt"))?;
        Ok((middle, fetched as f64))
    }
}
