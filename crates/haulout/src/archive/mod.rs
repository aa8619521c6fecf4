//! `haulout archive`: archives on Walrus, named by an object on Sui.

mod anchor;
mod args;
mod open;
mod owner;
mod read;
mod source;
mod write;

use std::process::ExitCode;

use haulout_archive::cost::{Load, Prices, month};
use haulout_archive::pack::TARGET_BYTES;
use redstuff::ShardCount;
use serde_json::json;

pub(crate) use args::ArchiveCommand;
use args::CostArgs;

use crate::error::{Context, Failure, Outcome};
use crate::online::online;

/// Runs a `haulout archive` command.
pub(crate) fn run(command: &ArchiveCommand) -> Outcome<ExitCode> {
    let done = |()| ExitCode::SUCCESS;
    match command {
        ArchiveCommand::Init(args) => online(write::init(args)).map(done),
        ArchiveCommand::Publish(args) => online(write::from_store(args)).map(done),
        ArchiveCommand::Import(args) => online(write::from_cache(args)).map(done),
        ArchiveCommand::Ls(args) => online(read::ls(args)).map(done),
        ArchiveCommand::Cat(args) => online(read::cat(args)).map(done),
        ArchiveCommand::Verify(args) => online(read::verify(args)),
        ArchiveCommand::Diff(args) => online(read::diff(args)).map(done),
        ArchiveCommand::Status(args) => online(read::status(args)).map(done),
        ArchiveCommand::Merge(args) => online(write::merge(args)).map(done),
        ArchiveCommand::Fund(args) => online(write::fund(args)).map(done),
        ArchiveCommand::Beat(args) => online(write::beat(args)).map(done),
        ArchiveCommand::Publisher(command) => online(owner::publisher(command)).map(done),
        ArchiveCommand::Freeze(args) => online(owner::freeze(args)).map(done),
        ArchiveCommand::Anchor(args) => online(anchor::anchor(args)).map(done),
        ArchiveCommand::Cost(args) => cost(args).map(done),
    }
}

/// `archive cost`.
fn cost(args: &CostArgs) -> Outcome<()> {
    let load = Load {
        paths: args.paths,
        nar_bytes: args.nar_bytes,
        entry_bytes: 290,
        updates: args.updates,
        downloads: args.downloads,
    };
    let prices = Prices {
        gas_price: args.gas_price,
        usd_per_sui: args.usd_per_sui,
        usd_per_wal: args.usd_per_wal,
        ..Prices::default()
    };
    if load
        .paths
        .checked_mul(load.nar_bytes.max(load.entry_bytes))
        .is_none_or(|bytes| bytes > 1 << 62)
    {
        return Err(Failure::new("so many paths of that size are more than anybody has")
            .hint("--paths is for a month, --nar-bytes for one path"));
    }
    let bill = month(&load, &prices, ShardCount::PUBLIC, TARGET_BYTES)
        .context(|| "this load cannot be worked out".to_owned())?;
    if bill.is_beyond_counting() {
        return Err(Failure::new("so many updates, or such a price, are more than can be counted")
            .hint("--updates is for a month, --gas-price in MIST for a unit of computation"));
    }
    let sui = |mist: u64| mist as f64 * 1e-9;
    let wal = |usd: f64| usd / prices.usd_per_wal;
    if args.json {
        let value = json!({
            "blobs": bill.blobs, "transactions": bill.transactions,
            "gas_sui": sui(bill.gas), "deposit_sui": sui(bill.deposit),
            "write_wal": wal(bill.write_usd), "keep_wal_per_month": wal(bill.keep_usd),
            "once_usd": sui(bill.gas) * prices.usd_per_sui + bill.write_usd,
            "keep_usd_per_month": bill.keep_usd,
            "s3_usd_per_month": bill.s3_usd, "cdn_usd_per_month": bill.cdn_usd,
        });
        println!("{value}");
        return Ok(());
    }
    println!(
        "a month with {} new paths of {} bytes, {} updates:",
        load.paths, load.nar_bytes, load.updates
    );
    println!("  {} blobs, {} transactions", bill.blobs, bill.transactions);
    println!(
        "  once: {:.3} SUI of gas, {:.2} WAL for writing ({:.2} USD)",
        sui(bill.gas),
        wal(bill.write_usd),
        sui(bill.gas) * prices.usd_per_sui + bill.write_usd
    );
    println!(
        "  deposits: {:.3} SUI, 99 % of it back when the blobs are no longer needed",
        sui(bill.deposit)
    );
    println!("  each month it is kept: {:.2} WAL ({:.2} USD)", wal(bill.keep_usd), bill.keep_usd);
    println!(
        "  the same on S3: {:.2} USD a month, and {:.2} USD for a CDN",
        bill.s3_usd, bill.cdn_usd
    );
    eprintln!(
        "prices are examples (docs/costs.md); the live ones are shown before anything is sent"
    );
    Ok(())
}
