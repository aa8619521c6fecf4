//! `walrus info` and `walrus read`.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use haulout_walrus::wire::BlobStatus;
use haulout_walrus::{BlobName, ReadError, ReadOptions, Report};
use redstuff::bcs::Wire;
use redstuff::{BlobId, DecodeError};
use serde::Serialize;

use super::args::{Check, InfoArgs, ReadArgs};
use super::files::{bar, is_stream, print_json, print_line, write};
use super::network::Network;
use super::offline::{Description, worker};
use super::{agent, blob_id};
use crate::error::{Failure, Outcome};
use crate::report;

/// What to do about a failed read.
pub(super) fn explain(error: ReadError) -> Failure {
    let hint = match &error {
        ReadError::Chain(_) => "is a full node reachable? --network names the networks",
        ReadError::NotFound(_) => {
            "check the id and the network; deleted and expired blobs are gone"
        }
        ReadError::TooFew { .. } | ReadError::NoMetadata { .. } => {
            "a third of the shards is enough; try again, or name an aggregator in the network file"
        }
        ReadError::Decode(..) => {
            "whoever stored it encoded it wrongly; --check says how strict to be"
        }
        ReadError::Range { .. } => "`haulout walrus info` says how long the blob is",
        _ => "HAULOUT_LOG=debug says what every node answered",
    };
    Failure::new("the blob cannot be read").because(error).hint(hint)
}

/// What the network knows of a blob.
#[derive(Debug, Serialize)]
struct Info {
    #[serde(flatten)]
    blob: Description,
    epoch: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<BlobStatus>,
    nodes: usize,
}

/// `walrus info`.
pub(super) async fn info(args: &InfoArgs, network: &str) -> Outcome<()> {
    let id = blob_id(&args.blob_id)?;
    let network = Network::load(network)?;
    let client = &network.client;
    let metadata = client.metadata(&id).await.map_err(explain)?;
    let status = client.status(&id).await.map_err(explain)?;
    let view = client.committees(false).await.map_err(|error| explain(error.into()))?;
    let info = Info {
        blob: Description::of(&metadata)?,
        epoch: view.epoch,
        status,
        nodes: view.current.members.len(),
    };
    if args.json {
        return print_json(&info, None);
    }
    let length = metadata.unencoded_length();
    print_line(&format!("blob        {id}"))?;
    print_line(&format!("on chain    {}", id.to_decimal()))?;
    print_line(&format!("size        {length} bytes ({})", report::bytes(length)))?;
    print_line(&format!(
        "encoded     {} shards, symbols of {} bytes, {} occupied rows",
        metadata.shards(),
        metadata.symbol_size(),
        metadata.occupied_rows()
    ))?;
    print_line(&format!("status      {}", describe(info.status.as_ref())))?;
    if let Ok(Some(state)) = client.chain().blob(BlobName::Id(id)).await
        && let Some(object) = state.object
    {
        print_line(&format!("object      {object}, until epoch {}", state.end_epoch))?;
    }
    print_line(&format!("network     epoch {}, {} storage nodes", info.epoch, info.nodes))
}

fn describe(status: Option<&BlobStatus>) -> String {
    match status {
        None => "the nodes do not agree".to_owned(),
        Some(BlobStatus::Nonexistent) => "not registered, or no longer".to_owned(),
        Some(BlobStatus::Invalid { .. }) => "proven to be inconsistent".to_owned(),
        Some(BlobStatus::Permanent {
            end_epoch, is_certified, initial_certified_epoch, ..
        }) => {
            let certified = match (is_certified, initial_certified_epoch) {
                (true, Some(epoch)) => format!("certified in epoch {epoch}"),
                (true, None) => "certified".to_owned(),
                (false, _) => "registered, not certified".to_owned(),
            };
            format!("permanent until epoch {end_epoch}, {certified}")
        }
        Some(BlobStatus::Deletable { initial_certified_epoch, deletable_counts }) => {
            let certified = match initial_certified_epoch {
                Some(epoch) => format!("first certified in epoch {epoch}"),
                None => "not certified".to_owned(),
            };
            format!("deletable, {} objects, {certified}", deletable_counts.count_deletable_total)
        }
    }
}

/// What a read cost.
#[derive(Debug, Serialize)]
struct Cost {
    blob_id: BlobId,
    bytes: usize,
    sliver_bytes: u64,
    metadata_bytes: u64,
    symbol_bytes: u64,
    slivers: usize,
    padding_slivers: usize,
    recovered_slivers: usize,
    hedged: usize,
    nodes: usize,
    liars: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregator: Option<String>,
}

impl Cost {
    fn of(blob_id: BlobId, bytes: usize, report: &Report) -> Self {
        Self {
            blob_id,
            bytes,
            sliver_bytes: report.sliver_bytes,
            metadata_bytes: report.metadata_bytes,
            symbol_bytes: report.symbol_bytes,
            slivers: report.slivers,
            padding_slivers: report.padding,
            recovered_slivers: report.recovered,
            hedged: report.hedged,
            nodes: report.by_node.len(),
            liars: report.liars.iter().map(ToString::to_string).collect(),
            aggregator: report.aggregator.clone(),
        }
    }
}

/// What a read through the agent came to.
#[derive(Debug, Serialize)]
struct ThroughAgent {
    blob_id: BlobId,
    bytes: usize,
    agent: SocketAddr,
}

/// `walrus read`.
pub(super) async fn read(args: &ReadArgs, network: &str) -> Outcome<()> {
    let id = blob_id(&args.blob_id)?;
    let range = args.range.as_deref().map(parse_range).transpose()?;
    if range.is_some() && args.check == Check::Strict {
        return Err(Failure::new("--check strict needs the whole blob, not a range of it").hint(
            "every sliver of a range is verified against the blob's metadata without it; \
             read all of the blob to know that it was encoded correctly",
        ));
    }
    let network = Network::load(network)?;
    let agent = if args.direct { None } else { agent::find(&args.agent, &network).await };
    match agent {
        Some(agent) => read_through(agent, &network, args, &id, range).await,
        None => read_direct(&network, args, &id, range).await,
    }
}

/// Encodes what the agent gave again: it has checked less than that.
async fn check_strictly(network: &Network, id: &BlobId, bytes: &[u8]) -> Outcome<()> {
    let view = network.client.committees(false).await.map_err(|error| explain(error.into()))?;
    let (n, bytes) = (view.current.n_shards, bytes.to_vec());
    let made = tokio::task::spawn_blocking(move || n.blob_id(&bytes)).await.map_err(worker)?;
    match made {
        Ok(made) if made == *id => Ok(()),
        _ => Err(explain(ReadError::Decode(*id, DecodeError::Inconsistent))),
    }
}

async fn read_through(
    agent: SocketAddr,
    network: &Network,
    args: &ReadArgs,
    id: &BlobId,
    range: Option<(u64, Option<u64>)>,
) -> Outcome<()> {
    let length = agent::length(agent, id).await?;
    let range = match range {
        None => None,
        Some((start, end)) => Some(within(start, end, length, args.range.as_deref())?),
    };
    let bar = bar(range.as_ref().map_or(length, |range| range.end - range.start), "reading");
    let read = agent::read(agent, id, range.as_ref(), &bar).await;
    bar.finish_and_clear();
    let bytes = read?;
    if args.check == Check::Strict {
        check_strictly(network, id, &bytes).await?;
    }
    write(&args.out, &bytes)?;
    if args.json {
        let cost = ThroughAgent { blob_id: *id, bytes: bytes.len(), agent };
        return print_json(&cost, Some(&args.out));
    }
    if !is_stream(&args.out) {
        let size = report::bytes(bytes.len() as u64);
        eprintln!("{size} through the agent at {agent}; its `status` says where slivers came from");
    }
    Ok(())
}

async fn read_direct(
    network: &Network,
    args: &ReadArgs,
    id: &BlobId,
    range: Option<(u64, Option<u64>)>,
) -> Outcome<()> {
    let client = &network.client;
    let metadata = client.metadata(id).await.map_err(explain)?;
    let length = metadata.unencoded_length();
    let range = match range {
        None => None,
        Some((start, end)) => Some(within(start, end, length, args.range.as_deref())?),
    };
    let wanted = range.as_ref().map_or(length, |range| range.end - range.start);
    let bar = bar(wanted, "reading");
    let progress = {
        let bar = bar.clone();
        Arc::new(move |bytes| bar.inc(bytes))
    };
    let options = ReadOptions {
        consistency: args.check.into(),
        progress: Some(progress),
        metadata: Some(metadata.clone()),
        ..ReadOptions::default()
    };
    let read = match range {
        None => client.read(id, &options).await,
        Some(range) => client.read_range(id, range, &options).await,
    };
    bar.finish_and_clear();
    let (bytes, mut report) = read.map_err(explain)?;
    report.metadata_bytes += metadata.with_id().to_bcs().len() as u64;
    write(&args.out, &bytes)?;
    if args.json {
        return print_json(&Cost::of(*id, bytes.len(), &report), Some(&args.out));
    }
    if !is_stream(&args.out) {
        eprintln!(
            "{} in {} slivers from {} nodes",
            report::bytes(bytes.len() as u64),
            report.slivers,
            report.by_node.len()
        );
    }
    for liar in &report.liars {
        eprintln!("warning: storage node {liar} answered falsely");
    }
    Ok(())
}

/// `A-B`, B excluded; either may be left out.
fn parse_range(text: &str) -> Outcome<(u64, Option<u64>)> {
    let bad = || {
        Failure::new(format!("--range {text}: not of the form A-B"))
            .hint("A-B counts bytes from 0, B excluded; either may be left out")
    };
    let (start, end) = text.split_once('-').ok_or_else(bad)?;
    let digits = |part: &str| part.bytes().all(|c| c.is_ascii_digit());
    if !digits(start) || !digits(end) {
        return Err(bad());
    }
    let start = if start.is_empty() { 0 } else { start.parse().map_err(|_| bad())? };
    let end = if end.is_empty() { None } else { Some(end.parse().map_err(|_| bad())?) };
    Ok((start, end))
}

fn within(start: u64, end: Option<u64>, length: u64, text: Option<&str>) -> Outcome<Range<u64>> {
    let end = end.unwrap_or(length);
    if start > end || end > length {
        let text = text.unwrap_or_default();
        return Err(Failure::new(format!("--range {text}: outside the blob"))
            .hint(format!("the blob has {length} bytes; A-B counts from 0, B excluded")));
    }
    Ok(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_parsed_and_checked() {
        assert_eq!(parse_range("2-5").unwrap(), (2, Some(5)));
        assert_eq!(parse_range("-").unwrap(), (0, None));
        for bad in ["", "5", "a-b", "+1-2", "1--2", "0-99999999999999999999"] {
            assert!(parse_range(bad).unwrap_err().report().contains("hint: "), "{bad}");
        }
        assert_eq!(within(2, None, 10, None).unwrap(), 2..10);
        assert!(within(5, Some(2), 10, None).is_err());
        assert!(within(0, Some(11), 10, None).is_err());
    }
}
