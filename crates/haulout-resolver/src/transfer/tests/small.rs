use std::time::Duration;

use haulout_swarm::Fault;

use super::*;
use crate::testing::{Actor, Gives, Script, sample};

async fn fetch(
    script: &Arc<Script>,
    size: usize,
) -> (Result<Vec<u8>, (Vec<u8>, CutReason)>, Bytes, World) {
    let (info, data) = sample("small", size);
    script.add(&info, &data);
    let world = World::new(script);
    (world.read(&info, 0).await, data, world)
}

#[tokio::test(start_paused = true)]
async fn an_honest_peer_delivers() {
    for size in [1, 112, 65_536, 65_537, 300_000, MIB] {
        let script = Script::giving(&[Gives::Honest]);
        let (result, data, world) = fetch(&script, size).await;
        assert_eq!(result.unwrap(), data, "{size} bytes");
        assert_eq!(script.blamed(), []);
        assert_eq!(world.received.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_flipped_byte_is_found_before_nix_sees_anything_and_the_next_peer_delivers() {
    let script = Script::giving(&[Gives::FlipAt(70_000), Gives::Honest]);
    let (result, data, world) = fetch(&script, 100_000).await;
    assert_eq!(result.unwrap(), data);
    assert_eq!(script.blamed(), [(0, Fault::WrongContent)]);
    assert_eq!(world.stats.lies.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_flipped_byte_from_the_only_peer_is_a_no() {
    let script = Script::giving(&[Gives::FlipAt(0)]);
    let (result, data, world) = fetch(&script, 100_000).await;
    assert_cut(result, &data, CutReason::NoSource);
    assert_eq!(script.blamed(), [(0, Fault::WrongContent)]);
    assert_eq!(world.received.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn wrong_sizes_are_blamed() {
    for gives in [Gives::Endless, Gives::ShortAt(99_999), Gives::ShortAt(0)] {
        let script = Script::giving(&[gives, Gives::Honest]);
        let (result, data, _) = fetch(&script, 100_000).await;
        assert_eq!(result.unwrap(), data, "{gives:?}");
        assert_eq!(script.blamed(), [(0, Fault::ProtocolViolation)], "{gives:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_death_in_the_middle_is_nobodys_fault() {
    let script = Script::giving(&[Gives::DiesAt(50_000), Gives::Honest]);
    let (result, data, _) = fetch(&script, 100_000).await;
    assert_eq!(result.unwrap(), data);
    assert_eq!(script.blamed(), []);
}

#[tokio::test(start_paused = true)]
async fn silence_costs_a_hedge_not_a_stall() {
    let script = Script::giving(&[Gives::SilentAt(0), Gives::Honest]);
    let begun = tokio::time::Instant::now();
    let (result, data, world) = fetch(&script, 100_000).await;
    assert_eq!(result.unwrap(), data);
    assert!(begun.elapsed() < Duration::from_millis(300), "{:?}", begun.elapsed());
    assert_eq!(world.stats.hedged.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn silence_of_the_only_peer_is_a_no_after_seconds() {
    let script = Script::giving(&[Gives::SilentAt(30_000)]);
    let begun = tokio::time::Instant::now();
    let (result, data, _) = fetch(&script, 100_000).await;
    assert_cut(result, &data, CutReason::NoSource);
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    assert!(script.blamed().iter().all(|blame| *blame == (0, Fault::Timeout)));
}

#[tokio::test(start_paused = true)]
async fn a_no_after_the_yes_goes_to_the_next() {
    let script = Script::giving(&[Gives::No, Gives::Honest]);
    let (result, data, _) = fetch(&script, 100_000).await;
    assert_eq!(result.unwrap(), data);
    assert_eq!(script.blamed(), [(0, Fault::FalseHint)]);
}

#[tokio::test(start_paused = true)]
async fn a_busy_peer_is_asked_again_a_little_later() {
    let script = Script::giving(&[Gives::BusyFor(5)]);
    let (result, data, _) = fetch(&script, 100_000).await;
    assert_eq!(result.unwrap(), data);
    assert!(script.blamed().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_peer_that_described_the_path_is_a_source_even_unannounced() {
    let actor = Actor { undeclared: true, ..Actor::default() };
    let script = Script::new(vec![actor]);
    let (result, data, _) = fetch(&script, 5000).await;
    assert_eq!(result.unwrap(), data);
}
