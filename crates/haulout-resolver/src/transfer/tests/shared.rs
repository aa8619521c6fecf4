use std::time::Duration;

use super::*;
use crate::testing::{Gives, Script, sample};

#[tokio::test(start_paused = true)]
async fn two_readers_share_one_transfer() {
    let script = Script::giving(&[Gives::Slow(Duration::from_millis(2))]);
    let (info, data) = sample("shared", 9 * MIB);
    script.add(&info, &data);
    let world = World::new(&script);
    let (one, two) = tokio::join!(world.read(&info, 0), world.read(&info, 0));
    assert!(one.unwrap() == data && two.unwrap() == data);
    assert_eq!(script.given(0), 9 * MIB as u64);
    assert_eq!(world.stats.nar_shared.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_does_not_hold_up_the_other() {
    let script = Script::giving(&[Gives::Honest]);
    let (info, data) = sample("shared", 20 * MIB);
    script.add(&info, &data);
    let world = World::new(&script);
    let mut stuck = world.transfers.open(&info, None, 0).await.unwrap();
    let begun = tokio::time::Instant::now();
    assert!(world.read(&info, 0).await.unwrap() == data);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(stuck.next().await, Err(CutReason::Detached));
    // Where it stands it goes on with a transfer of its own.
    let rest = world.read(&info, stuck.position()).await.unwrap();
    assert!(rest == data[usize::try_from(stuck.position()).unwrap()..]);
}

#[tokio::test(start_paused = true)]
async fn the_first_reader_may_leave() {
    let script = Script::giving(&[Gives::Slow(Duration::from_millis(2))]);
    let (info, data) = sample("shared", 9 * MIB);
    script.add(&info, &data);
    let world = World::new(&script);
    let first = world.transfers.open(&info, None, 0).await.unwrap();
    let second = world.transfers.open(&info, None, 0).await.unwrap();
    drop(first);
    assert!(drain(second).await.unwrap() == data);
}

#[tokio::test(start_paused = true)]
async fn a_transfer_nobody_reads_ends_and_gives_its_memory_back() {
    let script = Script::giving(&[Gives::Honest]);
    let (info, data) = sample("shared", 30 * MIB);
    script.add(&info, &data);
    let world = World::new(&script);
    let reader = world.transfers.open(&info, None, 0).await.unwrap();
    assert!(world.transfers.shared.budget.in_use() > 0);
    drop(reader);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.transfers.shared.budget.in_use(), 0);
    assert!(world.transfers.progress().is_empty());
}

#[tokio::test(start_paused = true)]
async fn memory_stays_within_the_budget_however_many_ask() {
    let script = Script::giving(&[Gives::Slow(Duration::from_millis(1))]);
    let world = Arc::new(World::new(&script));
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..40 {
        let (info, data) = sample(&format!("many-{at}"), 4 * MIB);
        script.add(&info, &data);
        let world = Arc::clone(&world);
        tasks.spawn(async move { assert!(world.read(&info, 0).await.unwrap() == data) });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
        assert!(world.transfers.shared.budget.in_use() <= crate::transfer::BUDGET_BYTES);
    }
}
