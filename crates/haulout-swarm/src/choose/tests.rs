use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::Fault;
use crate::peers::Answer;

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

fn at(millis: u64) -> Now {
    Now::from_start(Duration::from_millis(millis))
}

/// A table with connected peers 0..n, each of which once sent a megabyte in the given time.
fn table(millis: &[u64]) -> PeerTable {
    let mut table = PeerTable::new();
    for (n, millis) in millis.iter().enumerate() {
        let took = Duration::from_millis(*millis);
        table.connected(peer(n as u8), at(0));
        table.asked(&peer(n as u8), at(0));
        let answer = Answer { first_byte: Duration::from_millis(1), took, bytes: 1 << 20 };
        table.answered(&peer(n as u8), answer, at(1));
    }
    table
}

fn first_shares(table: &PeerTable, count: u8, bytes: u64) -> BTreeMap<PeerId, usize> {
    let mut firsts = BTreeMap::new();
    for random in 0..10_000 {
        let ranking = rank(table, (0..count).map(peer), bytes, at(2), random);
        *firsts.entry(ranking.candidates[0].peer).or_default() += 1;
    }
    firsts
}

#[test]
fn faster_peers_are_asked_more_often_but_nobody_starves() {
    let firsts = first_shares(&table(&[10, 20, 10_000]), 3, 1 << 20);
    // Weights 1 : 0.55 : 0.1 (the floor).
    assert!((5600..6600).contains(&firsts[&peer(0)]), "{firsts:?}");
    assert!((2800..3800).contains(&firsts[&peer(1)]), "{firsts:?}");
    assert!((450..800).contains(&firsts[&peer(2)]), "{firsts:?}");
}

#[test]
fn bandwidth_does_not_matter_for_small_questions() {
    let firsts = first_shares(&table(&[10, 40]), 2, 500);
    assert!((4500..5500).contains(&firsts[&peer(0)]), "{firsts:?}");
}

#[test]
fn a_busy_peer_gets_less() {
    let mut table = table(&[10, 10]);
    (0..3).for_each(|_| table.asked(&peer(0), at(1)));
    let firsts = first_shares(&table, 2, 64 << 20);
    assert!((1800..2200).contains(&firsts[&peer(0)]), "{firsts:?}");
}

#[test]
fn liars_and_the_silent_are_skipped_the_unlucky_come_last() {
    let mut table = table(&[10, 10, 10, 10]);
    table.blame(&peer(0), Fault::WrongContent, at(2));
    table.asked(&peer(1), at(2));
    table.blame(&peer(2), Fault::Cut, at(400));
    let ranking = rank(&table, (0..5).map(peer), 1000, at(500), 7);
    let order: Vec<PeerId> = ranking.peers().collect();
    assert_eq!(order, [peer(3), peer(2)]);
    let reasons: Vec<String> = ranking.skipped.iter().map(ToString::to_string).collect();
    assert_eq!(
        reasons,
        [
            "00000000: not asked, banned: wrong content",
            "01010101: not asked, silent for 498 ms",
            "04040404: not asked, unknown",
        ]
    );
    let lines: Vec<String> = ranking.candidates.iter().map(ToString::to_string).collect();
    assert_eq!(lines[0], "03030303: expected 1.0 ms, chance to be first 100 %");
    assert_eq!(
        lines[1],
        "02020202: only if no other is left, left alone for a while: cut off in mid-answer"
    );
}

#[test]
fn the_hedge_delay_is_measured_within_bounds() {
    let mut spans = Histogram::default();
    assert_eq!(hedge_delay(&spans), HEDGE_DEFAULT);
    (0..85).for_each(|_| spans.add(Duration::from_millis(10)));
    (0..15).for_each(|_| spans.add(Duration::from_secs(1)));
    let delay = hedge_delay(&spans);
    assert!((10..=13).contains(&delay.as_millis()), "{delay:?}");
    (0..2000).for_each(|_| spans.add(Duration::from_micros(100)));
    assert_eq!(hedge_delay(&spans), HEDGE_MIN);
    (0..2000).for_each(|_| spans.add(Duration::from_secs(2)));
    assert_eq!(hedge_delay(&spans), HEDGE_MAX);
}

proptest! {
    #[test]
    fn everybody_is_either_ranked_or_skipped_once(
        millis in prop::collection::vec(1u64..10_000, 0..40),
        faults in prop::collection::vec((0u8..40, 0usize..7), 0..20),
        bytes: u64,
        random: u64,
    ) {
        let mut table = table(&millis);
        for (who, fault) in faults {
            if usize::from(who) < millis.len() {
                table.blame(&peer(who), Fault::ALL[fault], at(2));
            }
        }
        let all: Vec<PeerId> = (0..40).map(peer).collect();
        let ranking = rank(&table, all.iter().copied(), bytes, at(3), random);
        let named: BTreeSet<PeerId> =
            ranking.peers().chain(ranking.skipped.iter().map(|skipped| skipped.peer)).collect();
        prop_assert_eq!(named.len(), 40);
        prop_assert_eq!(ranking.candidates.len() + ranking.skipped.len(), 40);
        let chances: f64 = ranking.candidates.iter().map(|c| c.chance).sum();
        prop_assert!(chances == 0.0 || (chances - 1.0).abs() < 1e-9);
        prop_assert_eq!(&ranking, &rank(&table, all, bytes, at(3), random));
    }
}
