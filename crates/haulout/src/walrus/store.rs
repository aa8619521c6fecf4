//! `walrus store`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use haulout_walrus::{Client, Registrar, StoreOptions, Stored, WriteError};
use redstuff::{BlobId, ShardCount};
use serde::Serialize;

use super::args::StoreArgs;
use super::blob::explain;
use super::files::{bar, print_json, print_line, read};
use super::network::Network;
use super::offline::worker;
use crate::error::{Context, Failure, Outcome};
use crate::wallet::state_dir;

/// What became of a file.
#[derive(Debug, Serialize)]
struct Done {
    file: String,
    blob_id: BlobId,
    object: String,
    size: u64,
    end_epoch: u32,
    deletable: bool,
    certified_epoch: u32,
    /// `None`: it was stored before, nothing was sent.
    transaction: Option<String>,
}

/// `walrus store`.
pub(super) async fn store(args: &StoreArgs, network: &str) -> Outcome<()> {
    let network = Network::load(network)?;
    let journals = journals(args)?;
    let registrar = network.registrar(&args.wallet, &journals)?;
    let view = network.client.committees(false).await;
    let n = view.map_err(|error| explain(error.into()))?.current.n_shards;
    let mut failed = None;
    for file in &args.files {
        // One file that fails does not keep the others from being stored.
        let one = store_one(&network.client, &*registrar, n, file, args, &journals).await;
        if let Err(failure) = one
            && let Some(earlier) = failed.replace(failure)
        {
            eprintln!("{}", Failure::report(&earlier));
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn store_one(
    client: &Client,
    registrar: &dyn Registrar,
    n: ShardCount,
    file: &Path,
    args: &StoreArgs,
    journals: &Path,
) -> Outcome<()> {
    let shown = file.display().to_string();
    let blob = read(file, n.max_blob_size(), "the file")?;
    let size = blob.len() as u64;
    let encoded = tokio::task::spawn_blocking(move || n.encode(blob)).await.map_err(worker)?;
    let encoded = Arc::new(encoded.context(|| format!("cannot encode {shown}"))?);
    let id = *encoded.metadata().id();
    let kind = if args.deletable { "deletable" } else { "permanent" };
    let journal = journals.join(format!("{id}-{kind}.json"));
    let bar = bar(n.slivers_length(size).unwrap_or(0), "storing");
    let progress = {
        let bar = bar.clone();
        Arc::new(move |bytes| bar.inc(bytes))
    };
    let options = StoreOptions {
        epochs: args.epochs,
        deletable: args.deletable,
        journal: Some(journal.clone()),
        progress: Some(progress),
    };
    let stored = client.store(registrar, encoded, &options).await;
    bar.finish_and_clear();
    let stored = stored.map_err(|error| why(error, &shown))?;
    // Finished; the next store of the same file is a new one.
    let _ = std::fs::remove_file(&journal);
    report(&shown, size, &stored, args.json)
}

fn report(file: &str, size: u64, stored: &Stored, json: bool) -> Outcome<()> {
    let transaction = &stored.certified.transaction;
    let transaction = (!transaction.is_empty()).then(|| transaction.clone());
    if !json {
        if transaction.is_none() {
            let until = stored.registered.end_epoch;
            eprintln!("{file} was stored before, until epoch {until}: nothing was paid");
        }
        return print_line(&format!("{} {file}", stored.blob));
    }
    let done = Done {
        file: file.to_owned(),
        blob_id: stored.blob,
        object: stored.registered.object.to_string(),
        size,
        end_epoch: stored.registered.end_epoch,
        deletable: stored.registered.deletable,
        certified_epoch: stored.certified.epoch,
        transaction,
    };
    print_json(&done, None)
}

fn why(error: WriteError, file: &str) -> Failure {
    let hint = match &error {
        WriteError::NoQuorum { .. } | WriteError::NoCertificate { .. } => {
            "run the same command again: it goes on where it was and does not pay twice"
        }
        WriteError::Chain { .. } => "are there enough WAL and SUI in the wallet for this network?",
        WriteError::Journal(_) => "remove the journal only if that write is not to be finished",
        _ => "HAULOUT_LOG=debug says what every node answered",
    };
    Failure::new(format!("{file} could not be stored")).because(error).hint(hint)
}

/// Where journals are kept.
fn journals(args: &StoreArgs) -> Outcome<PathBuf> {
    let directory = match &args.journal {
        Some(directory) => directory.clone(),
        None => state_dir()?.join("walrus"),
    };
    std::fs::create_dir_all(&directory)
        .context(|| format!("cannot create the directory {}", directory.display()))?;
    Ok(directory)
}
