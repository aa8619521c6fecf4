use std::time::Duration;

use haulout_nix::{HashPart, NarHash, PathInfo};
use haulout_swarm::Fault;
use tokio::time::Instant;

use super::*;
use crate::testing::{Actor, Script, id, sample, trust};

fn lookup(script: &Arc<Script>) -> Lookup {
    Lookup::new(
        Arc::clone(script) as _,
        Arc::new(ArcSwap::from_pointee(trust())),
        Disk::default(),
        Arc::new(Stats::default()),
        Arc::new(Reasons::new()),
    )
}

fn script(actors: Vec<Actor>) -> (Arc<Script>, PathInfo, HashPart) {
    let (info, data) = sample("path", 1000);
    let script = Script::new(actors);
    script.add(&info, &data);
    let hash = info.path.hash_part();
    (script, info, hash)
}

fn saying(infos: Vec<PathInfo>) -> Actor {
    Actor { infos: Some(infos), ..Actor::default() }
}

fn late(delay: Duration) -> Actor {
    Actor { delay, ..Actor::default() }
}

#[tokio::test(start_paused = true)]
async fn one_honest_peer_is_asked_once_and_remembered() {
    let (script, info, hash) = script(vec![Actor::default()]);
    let lookup = lookup(&script);
    for _ in 0..3 {
        let found = lookup.path_info(hash, None).await.unwrap();
        assert_eq!((&*found.info, found.from), (&info, Some(id(0))));
    }
    assert_eq!(script.asked("info"), [0]);
}

#[tokio::test(start_paused = true)]
async fn nobody_announces_it_no_packet_no_time() {
    let (script, ..) = script(vec![Actor::default()]);
    let begun = Instant::now();
    assert!(lookup(&script).path_info(HashPart::from_bytes([9; 20]), None).await.is_none());
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(script.asked("info").is_empty());
}

#[tokio::test(start_paused = true)]
async fn peers_that_announce_nothing_are_asked_under_the_cap() {
    let quick = Actor { undeclared: true, ..late(Duration::from_millis(5)) };
    let (one, info, hash) = script(vec![quick]);
    assert_eq!(*lookup(&one).path_info(hash, None).await.unwrap().info, info);

    let mute = Actor { undeclared: true, ..late(Duration::from_secs(60)) };
    let (two, _, hash) = script(vec![mute.clone(), mute]);
    let begun = Instant::now();
    assert!(lookup(&two).path_info(hash, None).await.is_none());
    assert!(begun.elapsed() <= UNDECLARED_CAP, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn silence_costs_the_hedge_delay_when_another_has_it() {
    let (script, info, hash) = script(vec![late(Duration::from_secs(60)), Actor::default()]);
    let begun = Instant::now();
    let found = lookup(&script).path_info(hash, None).await.unwrap();
    assert_eq!((&*found.info, found.from), (&info, Some(id(1))));
    assert!(begun.elapsed() <= Duration::from_millis(60), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn silence_of_everybody_costs_the_cap_once() {
    let (script, _, hash) = script(vec![late(Duration::from_secs(60)); 9]);
    let lookup = lookup(&script);
    let begun = Instant::now();
    assert!(lookup.path_info(hash, None).await.is_none());
    assert!(begun.elapsed() <= ASK_CAP, "{:?}", begun.elapsed());
    assert!(lookup.path_info(hash, None).await.is_none());
    assert!(begun.elapsed() <= ASK_CAP, "the miss is remembered for a moment");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_alive_and_slow_is_waited_for_longer() {
    let slow = Actor { alive: true, ..late(Duration::from_millis(900)) };
    let (script, info, hash) = script(vec![slow]);
    assert_eq!(*lookup(&script).path_info(hash, None).await.unwrap().info, info);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_alive_and_hangs_costs_its_patience_once() {
    let (script, _, hash) = script(vec![Actor { alive: true, ..late(Duration::from_secs(60)) }]);
    let lookup = lookup(&script);
    let begun = Instant::now();
    assert!(lookup.path_info(hash, None).await.is_none());
    assert!(begun.elapsed() > ASK_CAP && begun.elapsed() <= ASK_TOTAL, "{:?}", begun.elapsed());
    let (other, data) = sample("other", 10);
    script.add(&other, &data);
    let begun = Instant::now();
    assert!(lookup.path_info(other.path.hash_part(), None).await.is_none());
    assert!(begun.elapsed() <= ASK_CAP, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn another_key_of_the_same_name_is_no_forgery() {
    let (honest, _) = sample("path", 1000);
    let namesake = haulout_nix::SecretKey::from_seed("test-1", [8; 32]).unwrap();
    let theirs = |mut info: PathInfo| {
        info.signatures = vec![info.sign(&trust().store_dir, &namesake)];
        info
    };
    let other_mesh = saying(vec![theirs(honest.clone())]);
    let (script, info, hash) = script(vec![other_mesh, Actor::default()]);
    let lookup = lookup(&script);
    assert_eq!(*lookup.path_info(hash, None).await.unwrap().info, info);
    for n in 0..4 {
        let (info, data) = sample(&format!("path-{n}"), 10);
        script.actors.lock().unwrap()[0].infos = Some(vec![theirs(info.clone())]);
        script.add(&info, &data);
        assert!(lookup.path_info(info.path.hash_part(), None).await.is_some());
    }
    assert!(script.blamed().is_empty(), "{:?}", script.blamed());
    assert_eq!(script.asked("info"), [0, 1, 0, 1, 0, 1, 1, 1], "after three, others come first");
}

#[tokio::test(start_paused = true)]
async fn a_forged_narinfo_is_blamed_and_the_next_peer_asked() {
    let (honest, ..) = sample("path", 1000);
    let forged = PathInfo { nar_hash: NarHash::of(b"something else"), ..honest };
    let (script, info, hash) = script(vec![saying(vec![forged]), Actor::default()]);
    assert_eq!(*lookup(&script).path_info(hash, None).await.unwrap().info, info);
    assert_eq!(script.blamed(), [(0, Fault::ForgedSignature)]);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_size_in_the_narinfo_is_a_forgery() {
    let (honest, ..) = sample("path", 1000);
    let forged = PathInfo { nar_size: 999, ..honest };
    let (script, _, hash) = script(vec![saying(vec![forged])]);
    let lookup = lookup(&script);
    assert!(lookup.path_info(hash, None).await.is_none());
    assert!(script.blamed().is_empty(), "it could be by another key of that name");
    // Until somebody shows what was signed.
    script.actors.lock().unwrap().push(Actor::default());
    tokio::time::sleep(MISS_MEMORY).await;
    assert!(lookup.path_info(hash, None).await.is_some());
    assert_eq!(script.blamed(), [(0, Fault::ForgedSignature)]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_about_another_path_is_blamed() {
    let (other, _) = sample("another", 10);
    let (script, info, hash) = script(vec![saying(vec![other]), Actor::default()]);
    assert_eq!(*lookup(&script).path_info(hash, None).await.unwrap().info, info);
    assert_eq!(script.blamed(), [(0, Fault::ProtocolViolation)]);
}

#[tokio::test(start_paused = true)]
async fn an_unsigned_info_is_refused_without_blame() {
    let (mut unsigned, _) = sample("path", 1000);
    unsigned.signatures.clear();
    let (script, _, hash) = script(vec![saying(vec![unsigned])]);
    assert!(lookup(&script).path_info(hash, None).await.is_none());
    assert!(script.blamed().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_ahead_is_answered_from_memory_but_checked() {
    let (top, _) = sample("path", 1000);
    let (below, below_data) = sample("below", 10);
    let (deep, deep_data) = sample("deep", 10);
    let forged = PathInfo { nar_size: 7, ..deep.clone() };
    let (script, _, hash) =
        script(vec![saying(vec![top, below.clone(), forged.clone()]), Actor::default()]);
    script.add(&below, &below_data);
    script.add(&deep, &deep_data);
    let lookup = lookup(&script);
    lookup.path_info(hash, None).await.unwrap();
    assert_eq!(*lookup.path_info(below.path.hash_part(), None).await.unwrap().info, below);
    assert_eq!(script.asked("info"), [0], "no question for what came ahead");
    script.actors.lock().unwrap()[0].infos = Some(vec![forged]);
    assert_eq!(*lookup.path_info(deep.path.hash_part(), None).await.unwrap().info, deep);
    assert_eq!(script.blamed(), [(0, Fault::ForgedSignature)]);
    assert_eq!(script.asked("info"), [0, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn only_the_wanted_build_will_do() {
    let (one, _) = sample("path", 1000);
    let mut two = PathInfo { nar_hash: NarHash::of(b"built elsewhere"), ..one.clone() };
    two.signatures = vec![two.sign(&trust().store_dir, &crate::testing::key())];
    let (script, _, hash) = script(vec![saying(vec![one.clone()]), saying(vec![two.clone()])]);
    let lookup = lookup(&script);
    assert_eq!(*lookup.path_info(hash, None).await.unwrap().info, one);
    assert_eq!(*lookup.path_info(hash, Some(two.nar_hash)).await.unwrap().info, two);
    assert!(script.blamed().is_empty());
}

#[tokio::test(start_paused = true)]
async fn many_askers_make_one_question() {
    let (script, _, hash) = script(vec![late(Duration::from_millis(10))]);
    let lookup = lookup(&script);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..25 {
        let lookup = lookup.clone();
        tasks.spawn(async move { lookup.path_info(hash, None).await.is_some() });
    }
    while let Some(found) = tasks.join_next().await {
        assert!(found.unwrap());
    }
    assert_eq!(script.asked("info"), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_question_everybody_walked_away_from_does_not_spoil_the_next() {
    let (script, _, hash) = script(vec![late(Duration::from_millis(100))]);
    let lookup = lookup(&script);
    let first = tokio::time::timeout(Duration::from_millis(10), lookup.path_info(hash, None)).await;
    assert!(first.is_err());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(lookup.path_info(hash, None).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_can_deliver_any_more_is_not_answered() {
    let (script, _, hash) = script(vec![Actor::default()]);
    let lookup = lookup(&script);
    assert!(lookup.path_info(hash, None).await.is_some());
    script.actors.lock().unwrap().clear();
    assert!(lookup.path_info(hash, None).await.is_none());
}
