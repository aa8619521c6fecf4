//! What an archive costs: the formulas of `docs/costs.md`, whose tables a test compares with what
//! comes out here.

use redstuff::{ShardCount, TooLarge};
use std::{fmt::Write, num::Saturating};

/// Prices and protocol constants. The defaults are those stated in `docs/costs.md`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    /// Price of one unit of computation, in MIST (10^-9 SUI).
    pub gas_price: u64,
    /// Computation units of a small transaction: the lowest step Sui charges for.
    pub computation_units: u64,
    /// Deposit for one stored byte of an object, in MIST; 99 % comes back on deletion.
    pub deposit_per_byte: u64,
    /// Bytes of Walrus' inner system object, which every registration rewrites: 1 % of its deposit
    /// is lost each time.
    pub system_object_bytes: u64,
    /// Price of storing 1 MiB (encoded) for one epoch, in nano USD.
    pub store_nano_usd: u64,
    /// Price of writing 1 MiB (encoded), in nano USD.
    pub write_nano_usd: u64,
    /// Days of a Walrus epoch.
    pub epoch_days: f64,
    /// USD of one SUI.
    pub usd_per_sui: f64,
    /// USD of one WAL.
    pub usd_per_wal: f64,
    /// USD of one TB leaving S3 through a CDN.
    pub cdn_usd_per_tb: f64,
}

impl Default for Prices {
    fn default() -> Self {
        Self {
            gas_price: 750,
            computation_units: 1_000,
            deposit_per_byte: 7_600,
            system_object_bytes: 23_000,
            store_nano_usd: 11_000,
            write_nano_usd: 20_000,
            epoch_days: 14.0,
            usd_per_sui: 1.0,
            usd_per_wal: 0.11,
            cdn_usd_per_tb: 50.0,
        }
    }
}

/// What is published in a month.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// New paths.
    pub paths: u64,
    /// Bytes of a compressed NAR, on average.
    pub nar_bytes: u64,
    /// Bytes of an index entry, on average.
    pub entry_bytes: u64,
    /// Updates of the archive object.
    pub updates: u64,
    /// How often each byte is downloaded in a month.
    pub downloads: f64,
}

/// Bytes of a Walrus `Blob` object, as Sui meters it.
const BLOB_OBJECT_BYTES: u64 = 264;
/// What Sui meters for an object on top of its content.
const OBJECT_OVERHEAD_BYTES: u64 = 139;
/// Merges of a month: one a day.
const MERGES: u64 = 30;
/// Days of a month.
const MONTH_DAYS: f64 = 30.44;

/// Metered bytes of an `Archive` object.
#[must_use]
pub const fn archive_object_bytes(levels: u64, publishers: u64, texts: u64) -> u64 {
    let content = 32 + 8 + 8 + 1 + 117 * levels + 1 + 32 * publishers + 1 + 2 + texts;
    content + OBJECT_OVERHEAD_BYTES
}

/// What it comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bill {
    /// Blobs written: packs and index segments.
    pub blobs: u64,
    /// Transactions.
    pub transactions: u64,
    /// SUI spent for good on gas, in MIST.
    pub gas: u64,
    /// SUI deposited for objects, in MIST; 99 % of it comes back.
    pub deposit: u64,
    /// Encoded MiB that stay after the month.
    pub kept_mib: u64,
    /// USD, paid in WAL, for writing and for what is stored in passing; once.
    pub write_usd: f64,
    /// USD, paid in WAL, for each month that the content is kept.
    pub keep_usd: f64,
    /// USD for keeping the same on S3 Standard for a month.
    pub s3_usd: f64,
    /// USD for delivering it through a CDN in a month.
    pub cdn_usd: f64,
}

impl Bill {
    /// Whether something in it is the largest number there is: so much cannot be counted.
    #[must_use]
    pub const fn is_beyond_counting(&self) -> bool {
        self.transactions == u64::MAX || self.gas == u64::MAX || self.deposit == u64::MAX
    }
}

/// Works out a month on a network of `shards`, with packs of about `pack_bytes`.
///
/// # Errors
/// When packs of that size do not fit into a blob.
pub fn month(
    load: &Load,
    prices: &Prices,
    shards: ShardCount,
    pack_bytes: u64,
) -> Result<Bill, TooLarge> {
    // Absurd loads come to the largest number rather than to a wrong one.
    let [paths, per_month, merges] = [load.paths, load.updates, MERGES].map(Saturating);
    let pack_bytes = pack_bytes.max(1);
    let content = load.paths.saturating_mul(load.nar_bytes);
    let index = load.paths.saturating_mul(load.entry_bytes);
    let packs = Blobs::of(content, pack_bytes, shards)?;
    let segments = Blobs::of(index, pack_bytes, shards)?;
    let delta = Blobs::of(index / load.updates.max(1), pack_bytes, shards)?;
    let merge = Blobs::of(index / MERGES, pack_bytes, shards)?;

    let passing = delta.units * per_month + merge.units * merges;
    let written = passing + packs.units + segments.units;
    let kept = packs.units + segments.units;
    let blobs = packs.count + segments.count + delta.count * per_month + merge.count * merges;
    // Register; certify (and update the object, where the blob is an index).
    let transactions = blobs + blobs;
    let computation = Saturating(prices.computation_units) * Saturating(prices.gas_price);
    let per_byte = Saturating(prices.deposit_per_byte);
    let lost = |bytes: u64| Saturating(bytes) * per_byte / Saturating(100);
    let archive = archive_object_bytes(8, 1, 20);
    let updates = per_month + merges + Saturating(1);
    let blob_lost = lost(BLOB_OBJECT_BYTES);
    let gas = transactions * computation
        + blobs * (lost(prices.system_object_bytes) + blob_lost + blob_lost)
        + updates * lost(archive);
    let deposit = (blobs * Saturating(BLOB_OBJECT_BYTES) + Saturating(archive)) * per_byte;

    let usd = |Saturating(units): Saturating<u64>, nano: u64| units as f64 * nano as f64 * 1e-9;
    let epochs = MONTH_DAYS / prices.epoch_days;
    Ok(Bill {
        blobs: blobs.0,
        transactions: transactions.0,
        gas: gas.0,
        deposit: deposit.0,
        kept_mib: kept.0,
        write_usd: usd(written, prices.write_nano_usd) + usd(passing, prices.store_nano_usd),
        keep_usd: usd(kept, prices.store_nano_usd) * epochs,
        s3_usd: s3_month((Saturating(content) + Saturating(2_000) * paths).0),
        cdn_usd: content as f64 * 1e-12 * load.downloads * prices.cdn_usd_per_tb,
    })
}

/// Some bytes in blobs.
struct Blobs {
    count: Saturating<u64>,
    units: Saturating<u64>,
}

impl Blobs {
    fn of(bytes: u64, blob_bytes: u64, shards: ShardCount) -> Result<Self, TooLarge> {
        let (full, rest) = (bytes / blob_bytes, bytes % blob_bytes);
        let count = Saturating(full);
        let units = match full {
            0 => Saturating(0),
            _ => count * Saturating(shards.storage_units(blob_bytes)?),
        };
        if full > 0 && rest == 0 {
            return Ok(Self { count, units });
        }
        let last = Saturating(shards.storage_units(rest)?);
        Ok(Self { count: count + Saturating(1), units: units + last })
    }
}

/// A month of S3 Standard, in USD: 0.023, 0.022 and 0.021 a GB up to 50 TB, 500 TB and beyond.
fn s3_month(bytes: u64) -> f64 {
    let gb = bytes as f64 * 1e-9;
    let tier = |from: f64, to: f64, usd: f64| (gb.min(to) - from).max(0.0) * usd;
    tier(0.0, 50e3, 0.023) + tier(50e3, 500e3, 0.022) + tier(500e3, f64::INFINITY, 0.021)
}

/// The three loads of `docs/costs.md`.
#[must_use]
pub const fn sample_loads() -> [(&'static str, Load); 3] {
    const fn load(paths: u64, updates: u64, downloads: f64) -> Load {
        Load { paths, nar_bytes: 2_300_000, entry_bytes: 290, updates, downloads }
    }
    [
        ("1,000 paths", load(1_000, 30, 100.0)),
        ("250,000 paths", load(250_000, 730, 10.0)),
        ("300 million paths", load(300_000_000, 730, 3.5)),
    ]
}

/// The table of `docs/costs.md`, in Markdown.
///
/// # Errors
/// As [`month`].
pub fn table(prices: &Prices, shards: ShardCount, pack_bytes: u64) -> Result<String, TooLarge> {
    let mut bills = Vec::new();
    let mut text = String::from("| |");
    for (name, load) in sample_loads() {
        let _ = write!(text, " {name} |");
        bills.push(month(&load, prices, shards, pack_bytes)?);
    }
    text.push_str("\n| --- |");
    bills.iter().for_each(|_| text.push_str(" ---: |"));
    text.push('\n');
    let sui = |mist: u64| format!("{} SUI", amount(mist as f64 * 1e-9));
    let wal = |usd: f64| format!("{} WAL = {} USD", amount(usd / prices.usd_per_wal), amount(usd));
    let usd = |usd: f64| format!("{} USD", amount(usd));
    let mut row = |name: &str, value: &dyn Fn(&Bill) -> String| {
        let _ = write!(text, "| {name} |");
        for bill in &bills {
            let _ = write!(text, " {} |", value(bill));
        }
        text.push('\n');
    };
    row("blobs written", &|bill| count(bill.blobs));
    row("transactions", &|bill| count(bill.transactions));
    row("gas, once", &|bill| sui(bill.gas));
    row("deposits, 99 % of it back later", &|bill| sui(bill.deposit));
    row("writing, once", &|bill| wal(bill.write_usd));
    row("kept, encoded", &|bill| format!("{} GiB", amount(bill.kept_mib as f64 / 1024.0)));
    row("**keeping, each month**", &|bill| format!("**{}**", wal(bill.keep_usd)));
    row("S3 Standard, each month", &|bill| usd(bill.s3_usd));
    row("CDN, each month", &|bill| usd(bill.cdn_usd));
    row("**S3 + CDN, each month**", &|bill| format!("**{}**", usd(bill.s3_usd + bill.cdn_usd)));
    Ok(text)
}

/// A count: whole below 1,000, three significant digits above.
fn count(value: u64) -> String {
    if value < 1_000 { value.to_string() } else { amount(value as f64) }
}

/// Three significant digits, with separators.
fn amount(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let digits = 2 - value.abs().log10().floor() as i32;
    if digits > 0 {
        let text = format!("{value:.*}", digits as usize);
        return text;
    }
    let scale = 10f64.powi(-digits);
    let whole = ((value / scale).round() * scale) as u64;
    let plain = whole.to_string();
    let mut text = String::new();
    for (i, digit) in plain.chars().enumerate() {
        if i > 0 && (plain.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::TARGET_BYTES;

    fn mainnet() -> ShardCount {
        ShardCount::PUBLIC
    }

    #[test]
    fn page_says_what_comes_out_here() {
        let page = include_str!("../../../docs/costs.md");
        let table = table(&Prices::default(), mainnet(), TARGET_BYTES).unwrap();
        assert!(page.contains(&table), "docs/costs.md should have this table:\n\n{table}");
    }

    #[test]
    fn absurd_loads_are_beyond_counting_and_no_reason_to_panic() {
        let most = u64::MAX;
        let (usual, prices) = (sample_loads()[1].1, Prices::default());
        let dear = Prices { gas_price: most, computation_units: most, ..prices };
        for (load, prices) in [
            (Load { updates: most, ..usual }, prices),
            (Load { paths: most, nar_bytes: most, ..usual }, prices),
            (Load { paths: most / 290, nar_bytes: 1, entry_bytes: 290, ..usual }, prices),
            (usual, dear),
        ] {
            let bill = month(&load, &prices, mainnet(), 1).unwrap();
            assert!(bill.is_beyond_counting(), "{bill:?}");
        }
        assert!(!month(&usual, &prices, mainnet(), TARGET_BYTES).unwrap().is_beyond_counting());
    }

    #[test]
    fn amounts() {
        for (value, text) in [
            (0.0, "0"),
            (0.001234, "0.00123"),
            (1.0, "1.00"),
            (99.96, "100.0"),
            (1234.0, "1,230"),
            (5e6, "5,000,000"),
        ] {
            assert_eq!(amount(value), text);
        }
    }

    #[test]
    fn keeping_follows_the_stated_price_per_terabyte() {
        // 1 TB in packs of 128 MiB, at about 0.023 USD a GB-month of encoded size.
        let load = Load {
            paths: 1_000_000,
            nar_bytes: 1_000_000,
            entry_bytes: 350,
            updates: 30,
            downloads: 0.0,
        };
        let bill = month(&load, &Prices::default(), mainnet(), TARGET_BYTES).unwrap();
        assert!((112.0..118.0).contains(&bill.keep_usd), "{}", bill.keep_usd);
        assert!((22.9..23.2).contains(&bill.s3_usd), "{}", bill.s3_usd);
        // Small packs are dearer, single NARs ruinous.
        let small = month(&load, &Prices::default(), mainnet(), 1_000_000).unwrap();
        assert!(small.keep_usd > 14.0 * bill.keep_usd);
    }

    #[test]
    fn tiers_of_s3_add_up() {
        assert!((s3_month(50_000_000_000_000) - 1150.0).abs() < 1e-6);
        assert!((s3_month(500_000_000_000_000) - 11_050.0).abs() < 1e-6);
        assert!((s3_month(600_000_000_000_000) - 13_150.0).abs() < 1e-6);
    }

    #[test]
    fn object_as_metered() {
        assert_eq!(archive_object_bytes(0, 0, 0) + 117, archive_object_bytes(1, 0, 0));
        // Eight levels cost less than 0.01 SUI, locked.
        assert!(archive_object_bytes(8, 8, 256) * 7_600 < 15_000_000);
    }
}
