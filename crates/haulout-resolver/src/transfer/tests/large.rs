use std::time::Duration;

use haulout_swarm::Fault;

use super::*;
use crate::testing::{Gives, Script, sample};

async fn fetch(
    script: &Arc<Script>,
    size: usize,
) -> (Result<Vec<u8>, (Vec<u8>, CutReason)>, Bytes, World) {
    let (info, data) = sample("large", size);
    script.add(&info, &data);
    let world = World::new(script);
    (world.read(&info, 0).await, data, world)
}

#[tokio::test(start_paused = true)]
async fn an_honest_peer_delivers_at_every_awkward_size() {
    for size in [MIB + 1, 2 * MIB, 5 * MIB + 65_535, 20 * MIB + 7] {
        let script = Script::giving(&[Gives::Honest]);
        let (result, data, world) = fetch(&script, size).await;
        assert!(result.unwrap() == data, "{size} bytes");
        assert_eq!(script.blamed(), []);
        let (info, _) = sample("large", size);
        let tree = world.trees.proven(&info.nar_hash).expect("the tree is kept");
        assert_eq!(tree.root, blake3::hash(&data));
    }
}

#[tokio::test(start_paused = true)]
async fn a_flipped_byte_from_the_only_peer_is_cut_before_the_end() {
    for at in [0, 5 * MIB as u64, 9 * MIB as u64 - 1] {
        let script = Script::giving(&[Gives::FlipAt(at)]);
        let (result, data, world) = fetch(&script, 9 * MIB).await;
        assert_cut(result, &data, CutReason::WrongHash);
        assert_eq!(script.blamed(), [(0, Fault::WrongContent)]);
        let (info, _) = sample("large", 9 * MIB);
        assert!(world.transfers.open(&info, None, 3 * MIB as u64).await.is_none(), "Nix's retry");
    }
}

#[tokio::test(start_paused = true)]
async fn a_death_in_the_middle_is_continued_elsewhere_at_the_same_offset() {
    let script = Script::giving(&[Gives::DiesAt(3 * MIB as u64 + 1000), Gives::Honest]);
    let (result, data, _) = fetch(&script, 9 * MIB).await;
    assert!(result.unwrap() == data);
    assert!(script.blamed().is_empty());
}

#[tokio::test(start_paused = true)]
async fn silence_in_the_middle_is_replaced_after_a_second() {
    let script = Script::giving(&[Gives::SilentAt(3 * MIB as u64), Gives::Honest]);
    let begun = tokio::time::Instant::now();
    let (result, data, _) = fetch(&script, 9 * MIB).await;
    assert!(result.unwrap() == data);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(script.blamed().iter().all(|blame| *blame == (0, Fault::Timeout)));
}

#[tokio::test(start_paused = true)]
async fn everybody_dead_is_cut_within_seconds() {
    let script = Script::giving(&[Gives::DiesAt(3 * MIB as u64)]);
    let begun = tokio::time::Instant::now();
    let (result, data, _) = fetch(&script, 9 * MIB).await;
    assert_cut(result, &data, CutReason::NoSource);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_endless_stream_is_blamed_and_cut() {
    let script = Script::giving(&[Gives::Endless]);
    let (result, data, _) = fetch(&script, 9 * MIB).await;
    // The bytes before the surplus were the right ones; either end is fine
    // as long as nothing wrong gets out.
    if let Ok(all) = result {
        assert!(all == data);
    }
    assert!(script.blamed().iter().all(|(_, fault)| *fault == Fault::ProtocolViolation));
}

#[tokio::test(start_paused = true)]
async fn a_range_gives_exactly_the_rest() {
    let script = Script::giving(&[Gives::Honest]);
    let (info, data) = sample("large", 9 * MIB + 5);
    script.add(&info, &data);
    let world = World::new(&script);
    for from in [1, 65_536, 4 * MIB + 3, 9 * MIB + 4] {
        let rest = world.read(&info, from as u64).await.unwrap();
        assert!(rest == data[from..], "from {from}");
    }
    // The first one fetched everything and proved the tree; the others only
    // fetched what they needed.
    assert!(script.given(0) < 2 * 9 * MIB as u64 + 6 * MIB as u64, "{}", script.given(0));
}
