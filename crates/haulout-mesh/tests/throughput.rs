//! How fast NARs move between two agents of one process on loopback, and what that costs. Run by hand:
//! `cargo test --release -p haulout-mesh --test throughput -- --ignored --nocapture`

#![allow(clippy::unwrap_used, reason = "a measurement may end by panic")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use support::*;

/// Processor time of this process so far, both agents and the reader together.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after = stat.rsplit(')').next().unwrap();
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Bytes that do not compress.
fn noise(item: &mut Item) {
    let mut nar = vec![0; item.nar.len()];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut nar);
    item.info.nar_hash = haulout_nix::NarHash::of(&nar);
    item.nar = Arc::new(nar);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a test"]
async fn nars_on_loopback() {
    const BIG: usize = 300 << 20;
    let text = Item::new(1, BIG, true);
    let mut random = Item::new(2, BIG, true);
    noise(&mut random);
    let small: Vec<Item> = (0..400).map(|seed| Item::new(100 + seed, 200_000, true)).collect();
    let world = World::new([text.clone(), random.clone()].into_iter().chain(small.clone()));
    let a = start(config(1), &world).await;
    let b = start(with_peer(config(2), &a), &World::new([])).await;
    eventually("ready", || b.who_has(&text.hash()) == [a.id()]).await;
    println!("{:<28} {:>8} {:>10} {:>10}", "", "MiB/s", "CPU s/GiB", "wire/NAR");
    let report = |what: &str, bytes: usize, took: Duration, cpu: f64, wire: u64| {
        let mib = bytes as f64 / f64::from(1 << 20);
        println!(
            "{what:<28} {:>8.0} {:>10.2} {:>10.2}",
            mib / took.as_secs_f64(),
            cpu / (mib / 1024.0),
            wire as f64 / bytes as f64
        );
    };
    let wire = || b.peers()[0].wire_received;
    for (what, item) in [("text", &text), ("noise", &random), ("text", &text), ("noise", &random)] {
        let (started, before, sent) = (Instant::now(), cpu(), wire());
        let mut stream = b.nar_range(&a.id(), &item.key(), 0..BIG as u64, SOON).await.unwrap();
        while let Some(piece) = stream.next().await.unwrap() {
            std::hint::black_box(piece);
        }
        report(
            &format!("one 300 MiB NAR, {what}"),
            BIG,
            started.elapsed(),
            cpu() - before,
            wire() - sent,
        );
    }
    for _ in 0..2 {
        let (started, before, sent) = (Instant::now(), cpu(), wire());
        let mut tasks = tokio::task::JoinSet::new();
        for lane in 0..16 {
            let (mesh, peer) = (b.clone(), a.id());
            let items: Vec<Item> = small.iter().skip(lane).step_by(16).cloned().collect();
            tasks.spawn(async move {
                for item in items {
                    let range = 0..item.info.nar_size;
                    let mut stream = mesh.nar_range(&peer, &item.key(), range, SOON).await.unwrap();
                    while let Some(piece) = stream.next().await.unwrap() {
                        std::hint::black_box(piece);
                    }
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        report(
            "400 of 200 kB, 16 at a time",
            400 * 200_000,
            started.elapsed(),
            cpu() - before,
            wire() - sent,
        );
    }
    let before = cpu();
    let mut times: Vec<Duration> = Vec::new();
    for item in small.iter().cycle().take(2_000) {
        let started = Instant::now();
        b.path_infos(&a.id(), &item.hash(), 1, SOON).await.unwrap();
        times.push(started.elapsed());
    }
    times.sort_unstable();
    println!(
        "path info, one by one: p50 {:?}, p99 {:?}, CPU {:.0} µs each",
        times[1_000],
        times[1_980],
        (cpu() - before) * 1e6 / 2_000.0
    );
}
