//! Limits on what is given: they hold, streams live through them, and peers share them alike.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use haulout_mesh::{Mesh, NarKey};
use support::*;

const RATE: u64 = 2_000_000;

/// Reads NARs of one peer on many streams side by side until told to stop; counts what came.
fn greedy(
    mesh: &Mesh,
    from: &Mesh,
    key: NarKey,
    streams: usize,
) -> (Arc<AtomicU64>, Vec<tokio::task::JoinHandle<()>>) {
    let got = Arc::new(AtomicU64::new(0));
    let tasks = (0..streams)
        .map(|_| {
            let (mesh, id, got) = (mesh.clone(), from.id(), Arc::clone(&got));
            tokio::spawn(async move {
                loop {
                    let Ok(mut stream) = mesh.nar_range(&id, &key, 0..key.nar_size, SOON).await
                    else {
                        continue;
                    };
                    while let Some(piece) = stream.next().await.expect("no stream dies of a limit")
                    {
                        got.fetch_add(piece.len() as u64, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    (got, tasks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_many_streams_gets_no_more_than_one_with_few() {
    let item = Item::new(1, 1_500_000, true);
    let world = World::new([item.clone()]);
    let giver = start(haulout_mesh::MeshConfig { upload: Some(RATE), ..config(1) }, &world).await;
    let many = start(with_peer(config(2), &giver), &World::new([])).await;
    let few = start(with_peer(config(3), &giver), &World::new([])).await;
    for mesh in [&many, &few] {
        eventually("holdings", || mesh.who_has(&item.hash()) == [giver.id()]).await;
    }
    let begun = Instant::now();
    let (taken, tasks) = greedy(&many, &giver, item.key(), 12);
    while taken.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let before = giver_gave(&giver, &many);
    let mut stream = few.nar_range(&giver.id(), &item.key(), 0..1_500_000, SOON).await.unwrap();
    assert!(read_all(&mut stream).await.unwrap() == *item.nar);
    let meanwhile = giver_gave(&giver, &many) - before;
    let wire: u64 = giver.peers().iter().map(|view| view.wire_sent).sum();
    let seconds = begun.elapsed().as_secs_f64();
    for task in &tasks {
        task.abort();
    }
    // Frames may be compressed, so bytes of NAR and bytes of the line differ, for both alike; and each of the twelve has a
    // frame under way.
    assert!(
        meanwhile < 2 * 1_500_000 + 12 * (256 << 10),
        "the greedy one got {meanwhile} bytes meanwhile"
    );
    let most = RATE as f64 * (seconds + 0.5) * 1.15;
    assert!((wire as f64) < most, "{wire} bytes in {seconds:.2} s");
}

/// Bytes of NAR that one has given to another.
fn giver_gave(giver: &Mesh, to: &Mesh) -> u64 {
    giver.peers().iter().filter(|view| view.id == to.id()).map(|view| view.bytes_given).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_for_each_peer_holds_for_one_and_not_for_the_other() {
    let item = Item::new(2, 600_000, true);
    let world = World::new([item.clone()]);
    let limited = haulout_mesh::MeshConfig { upload_per_peer: Some(400_000), ..config(4) };
    let giver = start(limited, &world).await;
    let asker = start(with_peer(config(5), &giver), &World::new([])).await;
    eventually("holdings", || asker.who_has(&item.hash()) == [giver.id()]).await;
    // Many streams at once, each slower than one that counts as dead would be if it stood still.
    let begun = Instant::now();
    let mut reads = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (asker, id, item) = (asker.clone(), giver.id(), item.clone());
        reads.spawn(async move {
            let all = 0..item.key().nar_size;
            let mut stream = asker.nar_range(&id, &item.key(), all, SOON).await.unwrap();
            read_all(&mut stream).await.unwrap() == *item.nar
        });
    }
    assert!(reads.join_all().await.into_iter().all(|good| good));
    let wire: u64 = giver.peers().iter().map(|view| view.wire_sent).sum();
    let most = 400_000.0 * (begun.elapsed().as_secs_f64() + 0.5) * 1.15;
    assert!((wire as f64) < most, "{wire} bytes");
}
