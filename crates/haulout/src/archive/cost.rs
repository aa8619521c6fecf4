//! `haulout archive cost`.

use haulout_archive::cost::{Bill, Load, Prices, month};
use haulout_archive::pack::TARGET_BYTES;
use redstuff::ShardCount;
use serde_json::json;

use super::args::CostArgs;
use crate::error::{Context, Failure, Outcome};

/// Bytes of an index entry, on average.
const ENTRY_BYTES: u64 = 290;

/// Works out a month, and tells it.
pub(super) fn cost(args: &CostArgs) -> Outcome<()> {
    let load = Load {
        paths: args.paths,
        nar_bytes: args.nar_bytes,
        entry_bytes: ENTRY_BYTES,
        updates: args.updates,
        downloads: args.downloads,
    };
    let prices = Prices {
        gas_price: args.gas_price,
        usd_per_sui: args.usd_per_sui,
        usd_per_wal: args.usd_per_wal,
        ..Prices::default()
    };
    let bytes = load.paths.checked_mul(load.nar_bytes.max(load.entry_bytes));
    if bytes.is_none_or(|bytes| bytes > 1 << 62) {
        return Err(Failure::new("so many paths of that size are more than anybody has")
            .hint("--paths is for a month, --nar-bytes for one path"));
    }
    let bill = month(&load, &prices, ShardCount::PUBLIC, TARGET_BYTES)
        .context(|| "this load cannot be worked out".to_owned())?;
    if bill.is_beyond_counting() {
        return Err(Failure::new("so many updates, or such a price, are more than can be counted")
            .hint("--updates is for a month, --gas-price in MIST for a unit of computation"));
    }
    if args.json {
        println!("{}", as_json(&bill, &prices));
    } else {
        print(&load, &bill, &prices);
    }
    Ok(())
}

fn sui(mist: u64) -> f64 {
    mist as f64 * 1e-9
}

/// USD, once.
fn once(bill: &Bill, prices: &Prices) -> f64 {
    sui(bill.gas) * prices.usd_per_sui + bill.write_usd
}

fn as_json(bill: &Bill, prices: &Prices) -> serde_json::Value {
    let wal = |usd: f64| usd / prices.usd_per_wal;
    json!({
        "blobs": bill.blobs, "transactions": bill.transactions,
        "gas_sui": sui(bill.gas), "deposit_sui": sui(bill.deposit),
        "write_wal": wal(bill.write_usd), "keep_wal_per_month": wal(bill.keep_usd),
        "once_usd": once(bill, prices),
        "keep_usd_per_month": bill.keep_usd,
        "s3_usd_per_month": bill.s3_usd, "cdn_usd_per_month": bill.cdn_usd,
    })
}

fn print(load: &Load, bill: &Bill, prices: &Prices) {
    let wal = |usd: f64| usd / prices.usd_per_wal;
    println!(
        "a month with {} new paths of {} bytes, {} updates:",
        load.paths, load.nar_bytes, load.updates
    );
    println!("  {} blobs, {} transactions", bill.blobs, bill.transactions);
    println!(
        "  once: {:.3} SUI of gas, {:.2} WAL for writing ({:.2} USD)",
        sui(bill.gas),
        wal(bill.write_usd),
        once(bill, prices)
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
}
