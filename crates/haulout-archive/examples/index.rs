//! Look-up and proof sizes of generated indexes, and how long a look-up takes with warm pages:
//! `cargo run --release -p haulout-archive --example index -- 250000 10000000`.
#![allow(clippy::expect_used, reason = "a program for developers")]

use haulout_archive::{
    Directory, Entry, Footer, Page,
    proof::{ProveError, prove},
    segment::{FOOTER_BYTES, SegmentWriter, page_shift_for},
    testing,
};
use redstuff::ShardCount;
use std::{
    fs::File,
    io::{BufWriter, Write},
    os::unix::fs::FileExt,
    time::Instant,
};

/// Pages that are opened and kept for the timing.
const WARM_PAGES: u64 = 64;
/// Look-ups that are timed.
const LOOK_UPS: u64 = 20_000;

fn main() {
    println!(
        "| entries | segment | bytes an entry | page | directory | sliver | slivers a look-up | presence proof | absence proof | look-up p50 / p99 | made in |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for argument in std::env::args().skip(1) {
        row(argument.parse().expect("a number of entries"));
    }
}

fn row(paths: u64) {
    let began = Instant::now();
    let path = std::env::temp_dir().join(format!("haulout-index-{}", std::process::id()));
    let mut writer = SegmentWriter::new(page_shift_for(paths));
    let mut out = BufWriter::new(File::create(&path).expect("a temporary file"));
    let mut at = 0u64;
    for number in testing::sorted(paths) {
        if let Some(page) = writer.push(&testing::entry(number, paths)).expect("an entry") {
            at += page.len() as u64;
            out.write_all(&page).expect("room on the disk");
        }
    }
    let page = writer.last_page().expect("a page").unwrap_or_default();
    out.write_all(&page).expect("room on the disk");
    at += page.len() as u64;
    let (rest, footer) = writer.finish(testing::packs(paths), &[]).expect("a segment");
    out.write_all(&rest).expect("room on the disk");
    out.flush().expect("room on the disk");
    let size = at + rest.len() as u64;
    let made = began.elapsed();

    let file = File::open(&path).expect("the file");
    std::fs::remove_file(&path).expect("the file");
    let read = |range: std::ops::Range<u64>| {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut bytes, range.start).expect("the file");
        bytes
    };
    let root = footer.root();
    let footer = Footer::decode(&read(size - FOOTER_BYTES as u64..size), &root).expect("a footer");
    let bytes = read(footer.directory_range(size).expect("a directory"));
    let directory = Directory::decode(&footer, &bytes).expect("a directory");
    let open = |page: u64| -> Page {
        let place = directory.page_place(page).expect("a page");
        directory.open_page(page, &read(place.range)).expect("a page")
    };

    // The index may be cut into parts of 128 MiB: a look-up is about a sliver of one of those.
    let blob = size.min(128 << 20);
    let symbol = ShardCount::PUBLIC.symbol_size(blob).expect("not too large").as_u64();
    let sliver = symbol * ShardCount::PUBLIC.columns() as u64;
    let slivers: u64 = (0..footer.pages())
        .map(|page| {
            let range = directory.page_place(page).expect("a page").range;
            let (start, end) = (range.start % (128 << 20), (range.end - 1) % (128 << 20));
            end.max(start) / sliver - start / sliver + 1
        })
        .sum();

    let warm = footer.pages().min(WARM_PAGES);
    let step = footer.pages() / warm;
    let pages: Vec<(u64, Page)> = (0..warm).map(|i| (i * step, open(i * step))).collect();
    let mut times: Vec<u128> = (0..LOOK_UPS)
        .map(|i| {
            let (number, page) = &pages[(i * 31 % warm) as usize];
            let key = page.key((i * 17) as usize % page.len()).expect("an entry");
            let began = Instant::now();
            let found = directory.page_of(&key);
            let entry: Option<Entry> = page.find(&key).expect("an entry");
            assert!(found == *number && entry.is_some());
            began.elapsed().as_nanos()
        })
        .collect();
    times.sort_unstable();
    let microseconds = |share: usize| times[times.len() * share / 100] as f64 / 1e3;

    let tree = directory.page_tree();
    let (mut present, mut absent, mut proofs) = (0, 0, 0);
    for (_, page) in &pages {
        let key = page.key(page.len() / 2).expect("an entry");
        present += prove(&directory, &tree, &key, page, None).expect("a proof").encode().len();
        let key = testing::path(u64::MAX - proofs).hash_part();
        let here = open(directory.page_of(&key));
        let proof = match prove(&directory, &tree, &key, &here, None) {
            Err(ProveError::NeedsPage(next)) => {
                prove(&directory, &tree, &key, &here, Some(&open(next)))
            }
            other => other,
        };
        absent += proof.expect("a proof").encode().len();
        proofs += 1;
    }
    println!(
        "| {paths} | {:.1} MB | {:.0} B | {:.1} kB | {:.2} MB | {:.1} kB | {:.2} | {} B | {} B | {:.1} / {:.1} µs | {:.0} s |",
        size as f64 / 1e6,
        at as f64 / paths as f64,
        at as f64 / footer.pages() as f64 / 1e3,
        bytes.len() as f64 / 1e6,
        sliver as f64 / 1e3,
        slivers as f64 / footer.pages() as f64,
        present as u64 / proofs,
        absent as u64 / proofs,
        microseconds(50),
        microseconds(99),
        made.as_secs_f64(),
    );
}
