use std::time::Duration;

use haulout_swarm::Fault;
use tokio::time::Instant;

use super::*;
use crate::testing::{Actor, Gives, Script, Tree, sample};

const SIZE: usize = 24 * MIB + 12_345;

async fn fetch(script: &Arc<Script>) -> (Result<Vec<u8>, (Vec<u8>, CutReason)>, Bytes, World) {
    let (info, data) = sample("several", SIZE);
    script.add(&info, &data);
    let world = World::new(script);
    (world.read(&info, 0).await, data, world)
}

fn slow() -> Gives {
    Gives::Slow(Duration::from_millis(5))
}

#[tokio::test(start_paused = true)]
async fn trees_asked_for_with_the_narinfo_are_there_when_the_nar_is_asked_for() {
    let slow_to_hash = Actor { tree_delay: Duration::from_millis(800), ..Actor::default() };
    let script = Script::new(vec![slow_to_hash; 3]);
    let (info, data) = sample("big", 24 * MIB);
    script.add(&info, &data);
    let world = World::new(&script);
    world.transfers.prepare(&info);
    world.transfers.prepare(&info);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(script.asked("tree"), [0, 1, 2]);
    let begun = Instant::now();
    let read = world.read(&info, 0).await;
    assert!(read.unwrap() == data);
    assert!(begun.elapsed() < Duration::from_millis(800), "{:?}", begun.elapsed());
    assert_eq!(script.asked("tree"), [0, 1, 2], "nobody was asked again");
    assert!((0..3).all(|actor| script.given(actor) > 0), "all three gave");

    // A small one needs none, and one with a single holder neither.
    let (small, _) = sample("small", MIB);
    world.transfers.prepare(&small);
    assert_eq!(script.asked("tree").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn several_honest_peers_share_the_work() {
    let script = Script::giving(&[slow(), slow(), slow()]);
    let begun = Instant::now();
    let (result, data, world) = fetch(&script).await;
    assert!(result.unwrap() == data);
    let alone = Duration::from_millis(5) * u32::try_from(SIZE / (256 << 10)).unwrap();
    assert!(begun.elapsed() < alone, "{:?} against {alone:?} from one", begun.elapsed());
    for peer in 0..3 {
        assert!(script.given(peer) > SIZE as u64 / 6, "peer {peer} gave {}", script.given(peer));
    }
    assert!(script.blamed().is_empty());
    let (info, _) = sample("several", SIZE);
    assert_eq!(world.trees.proven(&info.nar_hash).unwrap().root, blake3::hash(&data));
}

#[tokio::test(start_paused = true)]
async fn a_flipped_byte_from_one_of_several_is_found_on_arrival_and_only_the_liar_is_blamed() {
    for at in [5, 9 * MIB as u64 + 1, SIZE as u64 - 1] {
        let script = Script::giving(&[slow(), Gives::FlipAt(at), slow()]);
        let (result, data, _) = fetch(&script).await;
        assert!(result.unwrap() == data);
        let blamed = script.blamed();
        assert!(blamed.iter().all(|blame| *blame == (1, Fault::WrongContent)), "{blamed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_wrong_tree_among_three_is_settled_aside_and_its_author_banned() {
    for liar in 0..3 {
        let mut actors = vec![Actor::default(); 3];
        actors[liar].gives = Gives::Other;
        let script = Script::new(actors);
        let (result, data, world) = fetch(&script).await;
        assert!(result.unwrap() == data);
        assert_eq!(script.blamed(), [(liar, Fault::WrongContent)]);
        assert_eq!(world.stats.conflicts.get(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_majority_of_liars_does_not_win() {
    let script = Script::giving(&[Gives::Other, Gives::Honest, Gives::Other, Gives::Other]);
    let (result, data, _) = fetch(&script).await;
    assert!(result.unwrap() == data);
    let mut blamed = script.blamed();
    blamed.sort_by_key(|(who, _)| *who);
    assert_eq!(blamed, [0, 2, 3].map(|who| (who, Fault::WrongContent)));
}

#[tokio::test(start_paused = true)]
async fn a_peer_whose_bytes_contradict_its_own_tree_is_blamed() {
    let contradictory = Actor { tree: Tree::Wrong, ..Actor::default() };
    let script = Script::new(vec![contradictory, Actor::default()]);
    let (result, data, _) = fetch(&script).await;
    assert!(result.unwrap() == data);
    assert!(!script.blamed().is_empty());
    assert!(
        script.blamed().iter().all(|blame| *blame == (0, Fault::WrongContent)),
        "{:?}",
        script.blamed()
    );
}

#[tokio::test(start_paused = true)]
async fn liars_that_agree_are_cut_before_the_end_and_the_retry_is_right() {
    let honest = Actor { tree: Tree::No, ..Actor::default() };
    let script = Script::new(vec![Actor::gives(Gives::Other), Actor::gives(Gives::Other), honest]);
    let (result, data, world) = fetch(&script).await;
    assert_cut(result, &data, CutReason::WrongHash);
    let mut blamed = script.blamed();
    blamed.sort_by_key(|(who, _)| *who);
    assert_eq!(blamed, [0, 1].map(|who| (who, Fault::WrongContent)));
    let (info, _) = sample("several", SIZE);
    assert!(
        world.transfers.open(&info, None, 9 * MIB as u64).await.is_none(),
        "wrong bytes are not continued"
    );
    assert!(world.read(&info, 0).await.unwrap() == data, "afresh from the honest one");
}

#[tokio::test(start_paused = true)]
async fn a_death_among_several_is_nobodys_fault() {
    let script = Script::giving(&[slow(), Gives::DiesAt(2 * MIB as u64 + 77), slow()]);
    let (result, data, _) = fetch(&script).await;
    assert!(result.unwrap() == data);
    assert!(script.blamed().is_empty());
}

#[tokio::test(start_paused = true)]
async fn silence_among_several_does_not_stop_the_stream() {
    let script = Script::giving(&[slow(), Gives::SilentAt(3 * MIB as u64), slow()]);
    let begun = Instant::now();
    let (result, data, _) = fetch(&script).await;
    assert!(result.unwrap() == data);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert!(script.blamed().iter().all(|blame| *blame == (1, Fault::Timeout)));
}

#[tokio::test(start_paused = true)]
async fn wrong_sizes_among_several_are_blamed() {
    for gives in [Gives::Endless, Gives::ShortAt(1000)] {
        let script = Script::giving(&[Gives::Honest, gives]);
        let (result, data, _) = fetch(&script).await;
        assert!(result.unwrap() == data);
        let right = |blame: &(usize, Fault)| *blame == (1, Fault::ProtocolViolation);
        assert!(script.blamed().iter().all(right), "{gives:?} {:?}", script.blamed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_never_comes_costs_at_most_a_second() {
    let mute = Actor { tree: Tree::Silent, ..Actor::default() };
    let script = Script::new(vec![mute.clone(), mute]);
    let begun = Instant::now();
    let (result, data, _) = fetch(&script).await;
    assert!(result.unwrap() == data);
    assert!(begun.elapsed() < Duration::from_millis(1200), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn busy_sources_are_asked_again() {
    let script = Script::giving(&[Gives::BusyFor(4), Gives::BusyFor(3)]);
    let (result, data, _) = fetch(&script).await;
    assert!(result.unwrap() == data);
    assert!(script.blamed().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_source_that_comes_later_joins() {
    let script = Script::new(vec![Actor::gives(slow())]);
    let (info, data) = sample("several", 64 * MIB);
    script.add(&info, &data);
    let world = World::new(&script);
    let reader = world.transfers.open(&info, None, 0).await.unwrap();
    script.actors.lock().unwrap().push(Actor::gives(slow()));
    assert!(drain(reader).await.unwrap() == data);
    assert!(script.given(1) > 10 * MIB as u64, "{}", script.given(1));
    assert!(script.blamed().is_empty());
}
