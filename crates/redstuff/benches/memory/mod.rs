//! How much memory encoding takes, as the system counts it.

use std::{fs, hint::black_box};

use bytes::Bytes;
use redstuff::{Primary, Secondary, ShardCount};

/// A line of `/proc/self/status`, in KiB.
fn status(key: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim_end_matches("kB").trim().parse().ok()
}

/// Growth of the process up to its largest while `task` runs, in KiB.
fn peak<T>(task: impl FnOnce() -> T) -> Option<f64> {
    // Begins the count of the largest size anew.
    fs::write("/proc/self/clear_refs", "5").ok()?;
    let before = status("VmRSS:")?;
    black_box(task());
    Some(status("VmHWM:")? - before)
}

/// The peak for blobs of `mib` MiB, the blob included.
#[allow(clippy::print_stdout, reason = "the table is what this is for")]
pub(super) fn table(mib: usize, blob: impl Fn() -> Bytes) {
    println!("| shards | peak memory, the blob included | × the blob |\n| --: | --- | --: |");
    // First once, so that tables and the allocator's arenas are there.
    let warm = ShardCount::new(1000).map(|n| n.encode(vec![1; 1000]));
    black_box(warm.is_ok());
    for shards in [1000, 100] {
        let Ok(n) = ShardCount::new(shards) else { continue };
        let row = |name: &str, grown: Option<f64>| {
            let times = grown.map_or(f64::NAN, |grown| grown / 1024.0 / mib as f64);
            println!("| {n} | {name} | {times:.1} |");
        };
        let encode = || n.encode(blob());
        row("encode", peak(encode));
        let slivers = || {
            encode().is_ok_and(|encoded| {
                let rows = encoded.slivers::<Primary>().all(|sliver| !sliver.data().is_empty());
                rows && encoded.slivers::<Secondary>().all(|sliver| !sliver.data().is_empty())
            })
        };
        row("encode, every sliver made, one after the other", peak(slivers));
        row("blob id only", peak(|| n.blob_id(&blob())));
    }
    println!();
}
