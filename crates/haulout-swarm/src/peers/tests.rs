use proptest::prelude::*;

use super::*;

fn peer(n: u32) -> PeerId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    PeerId::from_bytes(bytes)
}

fn at(millis: u64) -> Now {
    Now::from_start(Duration::from_millis(millis))
}

fn answer(bytes: u64) -> Answer {
    Answer { first_byte: Duration::from_millis(2), took: Duration::from_millis(10), bytes }
}

#[test]
fn a_peer_silent_for_300_ms_is_skipped_and_tried_again_later() {
    let mut table = PeerTable::new();
    assert!(table.connected(peer(1), at(0)));
    table.asked(&peer(1), at(1000));
    assert!(table.is_usable(&peer(1), at(1299)));
    assert!(!table.is_usable(&peer(1), at(1300)));
    // Giving the request up does not make it responsive.
    table.abandoned(&peer(1));
    assert!(!table.is_usable(&peer(1), at(1400)));
    assert!(table.is_usable(&peer(1), at(6000)));
    table.asked(&peer(1), at(6000));
    assert!(table.is_usable(&peer(1), at(6200)));
    assert!(!table.is_usable(&peer(1), at(6300)));
    table.heard(&peer(1), at(6400));
    assert!(table.is_usable(&peer(1), at(6500)));
}

#[test]
fn a_second_request_does_not_hide_silence() {
    let mut table = PeerTable::new();
    table.connected(peer(1), at(0));
    for time in (0..1000).step_by(100) {
        table.asked(&peer(1), at(time));
    }
    assert_eq!(
        table.state(&peer(1), at(1000)),
        Some(State::Silent { for_now: Duration::from_millis(1000) })
    );
}

#[test]
fn lies_ban_at_once_longer_each_time_and_are_forgiven() {
    let mut table = PeerTable::new();
    table.connected(peer(1), at(0));
    let mut now = at(0);
    let mut spans = Vec::new();
    for _ in 0..9 {
        let Verdict::Banned { until } = table.blame(&peer(1), Fault::WrongContent, now) else {
            panic!("a lie bans");
        };
        assert!(!table.is_usable(&peer(1), now));
        // A second lie during the ban changes nothing.
        assert_eq!(table.blame(&peer(1), Fault::ForgedSignature, now), Verdict::Banned { until });
        assert!(!table.connected(peer(1), now), "connecting again does not lift a ban");
        spans.push(until.since(now).as_secs());
        now = until;
        assert!(table.is_usable(&peer(1), now));
    }
    assert_eq!(spans, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
    assert_eq!(table.get(&peer(1)).unwrap().strikes(now), 9);
    now = now + STRIKE_FORGIVEN_AFTER * 9;
    assert_eq!(table.get(&peer(1)).unwrap().strikes(now), 0);
    assert_eq!(
        table.blame(&peer(1), Fault::WrongContent, now),
        Verdict::Banned { until: now + BAN_MIN }
    );
}

#[test]
fn bad_luck_only_backs_off_and_success_clears_it() {
    let mut table = PeerTable::new();
    table.connected(peer(1), at(0));
    let until = at(0) + BACK_OFF_MIN;
    assert_eq!(table.blame(&peer(1), Fault::Timeout, at(0)), Verdict::BackedOff { until });
    assert_eq!(table.blame(&peer(1), Fault::Cut, at(10)), Verdict::BackedOff { until });
    assert_eq!(
        table.blame(&peer(1), Fault::Cut, until),
        Verdict::BackedOff { until: until + BACK_OFF_MIN * 2 }
    );
    assert_eq!(table.wake_at(until), Some(until + BACK_OFF_MIN * 2));
    table.answered(&peer(1), answer(1), until);
    assert!(table.is_usable(&peer(1), until));
    assert_eq!(table.get(&peer(1)).unwrap().counters().faults[Fault::Cut.index()], 2);
}

#[test]
fn false_hints_are_forgiven_until_there_are_many() {
    let mut table = PeerTable::new();
    table.connected(peer(1), at(0));
    for _ in 1..FALSE_HINTS_IN_A_ROW_MAX {
        assert_eq!(table.blame(&peer(1), Fault::FalseHint, at(0)), Verdict::Noted);
    }
    assert!(matches!(table.blame(&peer(1), Fault::FalseHint, at(0)), Verdict::BackedOff { .. }));
}

#[test]
fn a_liar_cannot_clear_its_name_by_leaving() {
    let mut table = PeerTable::new();
    table.connected(peer(1), at(0));
    table.blame(&peer(1), Fault::ForgedSignature, at(0));
    table.disconnected(&peer(1));
    table.gone(&peer(1), at(1));
    table.discovered(peer(1), at(2));
    assert!(!table.is_usable(&peer(1), at(3)));
}

#[test]
fn a_flood_of_names_drops_neither_connected_peers_nor_bans() {
    let mut table = PeerTable::new();
    for n in 0..10 {
        table.connected(peer(n), at(0));
    }
    table.discovered(peer(10), at(0));
    table.blame(&peer(10), Fault::WrongContent, at(0));
    for n in 100..5000 {
        table.discovered(peer(n), at(u64::from(n)));
        assert!(table.len() <= PEERS_MAX);
    }
    assert!((0..=10).all(|n| table.get(&peer(n)).is_some()));
    assert_eq!(table.evicted(), 4900 + 11 - PEERS_MAX as u64);
    for n in 10_000..12_000 {
        table.connected(peer(n), at(9000));
    }
    assert_eq!(table.len(), PEERS_MAX);
    assert_eq!(table.refused_full(), 2000 + 10 - PEERS_MAX as u64);
}

#[test]
fn small_answers_say_nothing_about_bandwidth() {
    let mut table = PeerTable::new();
    table.connected(peer(1), at(0));
    table.answered(&peer(1), answer(100), at(1));
    assert_eq!(table.get(&peer(1)).unwrap().throughput(), None);
    table.answered(&peer(1), answer(1 << 20), at(1));
    assert_eq!(table.get(&peer(1)).unwrap().throughput(), Some((1u64 << 20) as f64 / 0.01));
}

proptest! {
    /// Whatever happens in whatever order: no panic, limits hold, a ban is never cut short.
    #[test]
    fn any_history_keeps_the_rules(
        steps in prop::collection::vec((0u32..4, 0u8..8, 0usize..7, 0u64..40_000), 0..200)
    ) {
        let mut table = PeerTable::new();
        let mut now = at(0);
        let mut banned_until: BTreeMap<PeerId, Now> = BTreeMap::new();
        for (who, action, fault, wait) in steps {
            let peer = peer(who);
            match action {
                0 => { table.discovered(peer, now); }
                1 => { table.connected(peer, now); }
                2 => table.disconnected(&peer),
                3 => table.gone(&peer, now),
                4 => table.asked(&peer, now),
                5 => table.answered(&peer, answer(wait), now),
                6 => table.abandoned(&peer),
                _ => {
                    let verdict = table.blame(&peer, Fault::ALL[fault], now);
                    if let Verdict::Banned { until } = verdict {
                        prop_assert!(until > now && until <= now + BAN_MAX);
                        banned_until.insert(peer, until);
                    }
                }
            }
            for (peer, until) in &banned_until {
                prop_assert!(now >= *until || !table.is_usable(peer, now));
            }
            now = now + Duration::from_millis(wait);
        }
    }
}
