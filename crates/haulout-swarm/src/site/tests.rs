//! Properties of the parts; `tests/site` runs them together.

use std::time::Duration;

use proptest::prelude::*;
use smallvec::smallvec;

use super::*;
use crate::{Now, PeerId, home};

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

fn segment(n: u32) -> SegmentKey {
    SiteKey { kind: SiteKind::UpstreamFile, id: [7; 32] }.segment(n)
}

fn at(millis: u64) -> Now {
    Now::from_start(Duration::from_millis(millis))
}

fn standing(sequence: u32, willing: bool, outside: u32) -> Standing {
    Standing { sequence, willing, outsides: smallvec![outside] }
}

#[test]
fn kinds_round_trip() {
    for kind in SiteKind::ALL {
        assert_eq!(SiteKind::from_byte(kind.to_byte()), Some(kind));
    }
    assert_eq!((SiteKind::from_byte(0), SiteKind::from_byte(9)), (None, None));
}

#[test]
fn only_the_willing_that_can_are_homes() {
    let mut homes = Homes::new();
    assert!(homes.told(peer(1), standing(1, true, 5)));
    assert!(homes.told(peer(2), standing(1, false, 5)));
    assert!(homes.told(peer(3), standing(1, true, 6)));
    assert_eq!(homes.ranking(&segment(0), 5, 9, |_| true), [peer(1)]);
    assert!(homes.told(peer(2), standing(2, true, 5)));
    assert!(!homes.told(peer(2), standing(2, false, 5)), "not newer");
    assert_eq!(homes.ranking(&segment(0), 5, 9, |_| true).len(), 2);
    assert_eq!(homes.ranking(&segment(0), 5, 9, |one| *one == peer(2)), [peer(2)]);
    homes.gone(&peer(1));
    assert_eq!(homes.len(), 2);
}

fn follow(ranking: &[u8], me: u8) -> Follow {
    let ranking: Vec<PeerId> = ranking.iter().copied().map(peer).collect();
    Follow::new(peer(me), &ranking, Some(1000), 0, FollowConfig::default())
}

fn fetch(step: Step) -> (Attempt, Origin, u64) {
    match step {
        Step::Fetch { attempt, origin, from } => (attempt, origin, from),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_dead_home_is_replaced_where_it_stopped() {
    let mut plan = follow(&[1, 2, 9], 9);
    let (first, origin, from) = fetch(plan.next(at(0)));
    assert_eq!((origin, from), (Origin::Peer(peer(1)), 0));
    plan.progress(first, 400, at(100));
    assert_eq!(plan.next(at(1_599)), Step::Wait);
    let (second, origin, from) = fetch(plan.next(at(1_600)));
    assert_eq!((origin, from), (Origin::Peer(peer(2)), 400));
    plan.progress(first, 1000, at(1_700));
    assert_eq!(plan.next(at(1_700)), Step::Wait, "the one before is not listened to");
    plan.ended(second, End::Cut);
    let (third, origin, from) = fetch(plan.next(at(1_700)));
    assert_eq!((origin, from), (Origin::Outside, 400));
    plan.progress(third, 1000, at(1_800));
    assert_eq!((plan.next(at(1_800)), plan.wake_at()), (Step::Complete, None));
}

#[test]
fn a_home_that_waits_is_waited_for_but_not_for_ever() {
    let mut plan = follow(&[1, 2], 9);
    let (first, ..) = fetch(plan.next(at(0)));
    for tick in 1..20 {
        plan.waiting(first, at(400 * tick));
        assert_eq!(plan.next(at(400 * tick)), Step::Wait);
    }
    assert_eq!(fetch(plan.next(at(8_000))).1, Origin::Peer(peer(2)));
}

#[test]
fn a_trickle_does_not_hold_anybody() {
    let mut plan = follow(&[1, 2], 9);
    let (first, ..) = fetch(plan.next(at(0)));
    for tick in 1..80 {
        plan.progress(first, tick, at(100 * tick));
        assert_eq!(plan.next(at(100 * tick)), Step::Wait);
    }
    assert_eq!(fetch(plan.next(at(8_000))).1, Origin::Peer(peer(2)));
}

#[test]
fn who_is_relied_on_by_its_own_source_goes_outside() {
    let mut plan = follow(&[1, 2, 3], 9);
    fetch(plan.next(at(0)));
    plan.relied_on_by(&peer(2));
    assert_eq!(plan.next(at(1)), Step::Wait, "somebody else may rely on us");
    plan.relied_on_by(&peer(1));
    assert_eq!(fetch(plan.next(at(2))).1, Origin::Outside);
    assert_eq!(plan.outside_fetches(), 1);
}

#[test]
fn absent_is_believed_of_the_outside_only() {
    let mut plan = follow(&[1, 2], 9);
    let (first, ..) = fetch(plan.next(at(0)));
    plan.ended(first, End::Absent);
    let (second, origin, _) = fetch(plan.next(at(1)));
    assert_eq!(origin, Origin::Outside);
    plan.ended(second, End::Absent);
    assert_eq!(plan.next(at(2)), Step::Absent);

    let config = FollowConfig { believe_absent: true, ..FollowConfig::default() };
    let mut plan = Follow::new(peer(9), &[peer(1)], None, 0, config);
    let (first, ..) = fetch(plan.next(at(0)));
    plan.ended(first, End::Absent);
    assert_eq!(plan.next(at(1)), Step::Absent);
}

#[test]
fn a_document_begins_anew_with_every_source() {
    let mut plan = Follow::new(peer(9), &[peer(1)], None, 0, FollowConfig::default());
    let (first, ..) = fetch(plan.next(at(0)));
    plan.progress(first, 10, at(1));
    plan.ended(first, End::Cut);
    let (second, origin, from) = fetch(plan.next(at(2)));
    assert_eq!((origin, from), (Origin::Outside, 0));
    plan.progress(second, 10, at(3));
    assert_eq!(plan.next(at(3)), Step::Wait, "only its end tells a document's length");
    plan.ended(second, End::Complete);
    assert_eq!(plan.next(at(4)), Step::Complete);
}

#[test]
fn a_home_sheds_load() {
    let limits = DutyLimits { streams: 3, streams_per_peer: 2, fetches: 1 };
    let mut duty = Duty::new(limits, true);
    assert_eq!(duty.ask(peer(1), true), Verdict::Welcome);
    duty.fetching();
    assert_eq!(duty.ask(peer(1), true), Verdict::Busy);
    assert_eq!(duty.ask(peer(1), false), Verdict::Welcome);
    assert_eq!(duty.ask(peer(1), false), Verdict::Busy);
    assert_eq!(duty.ask(peer(2), false), Verdict::Welcome);
    assert_eq!(duty.ask(peer(3), false), Verdict::Busy);
    duty.done(&peer(1));
    duty.fetched();
    duty.set_willing(false);
    assert_eq!(duty.ask(peer(3), true), Verdict::Unwilling);
    assert_eq!(duty.ask(peer(3), false), Verdict::Welcome);
}

proptest! {
    #[test]
    fn segments_cover_the_object_once(size in 1..=OBJECT_MAX) {
        let cut = Cut::new(size).unwrap();
        let count = cut.count();
        let mut at = 0;
        for index in [0, 1, count / 2, count - 1, count] {
            let range = cut.range(index);
            prop_assert_eq!(range.is_empty(), index >= count);
            prop_assert!(range.end <= size && range.end - range.start <= SEGMENT_BYTES);
            if !range.is_empty() {
                prop_assert_eq!(cut.segment_of(range.start), index);
                prop_assert_eq!(cut.segment_of(range.end - 1), index);
            }
            at = at.max(range.end);
        }
        prop_assert_eq!(at, size);
        prop_assert_eq!(cut.range(count.saturating_sub(1)).end, size);
    }

    #[test]
    fn the_ranking_is_the_one_of_the_protocol(count in 1u8..60, most in 1usize..70, index: u32) {
        let mut homes = Homes::new();
        for n in 0..count {
            homes.told(peer(n), standing(1, true, 5));
        }
        let mut expected = home::ranking(&segment(index).rendezvous(), (0..count).map(peer));
        expected.truncate(most);
        prop_assert_eq!(homes.ranking(&segment(index), 5, most, |_| true), expected);
    }

    /// Whatever is reported, a plan ends, goes outside at most once and never asks the same peer twice.
    #[test]
    fn every_plan_ends(
        ranking in prop::collection::vec(0u8..6, 0..8),
        reports in prop::collection::vec((0u8..9, 0u64..1500, 0u64..3000), 0..60),
        document: bool,
    ) {
        let ranking: Vec<PeerId> = ranking.into_iter().map(peer).collect();
        let len = (!document).then_some(1000);
        let mut plan = Follow::new(peer(0), &ranking, len, 0, FollowConfig::default());
        let mut now = at(0);
        let mut current = None;
        for (what, value, millis) in reports {
            now = now + Duration::from_millis(millis);
            match plan.next(now) {
                Step::Fetch { attempt, from, .. } => {
                    prop_assert!(from <= plan.have());
                    current = Some(attempt);
                }
                Step::Wait => prop_assert!(plan.wake_at().is_some_and(|wake| wake > now)),
                _ => return Ok(()),
            }
            let Some(attempt) = current else { continue };
            match what {
                0 => plan.waiting(attempt, now),
                1 => plan.progress(attempt, value.min(1000), now),
                2 => plan.ended(attempt, End::Cut),
                3 => plan.ended(attempt, End::Absent),
                4 => plan.ended(attempt, End::Wrong),
                5 => plan.relied_on_by(&peer(value as u8 % 6)),
                6 => plan.left(&peer(value as u8 % 6)),
                7 => plan.ended(attempt, End::Complete),
                _ => {}
            }
        }
        prop_assert!(plan.outside_fetches() <= 1);
        // Left alone, it ends.
        for _ in 0..40 {
            match plan.next(now) {
                Step::Wait => now = plan.wake_at().unwrap(),
                Step::Fetch { .. } => {}
                _ => return Ok(()),
            }
        }
        prop_assert!(false, "no end");
    }
}

#[test]
fn refusals_do_not_send_everybody_outside() {
    let mut plan = follow(&[1, 2, 3, 4, 5, 6, 7, 8], 0);
    for n in 1..=6 {
        let (attempt, origin, _) = fetch(plan.next(at(0)));
        assert_eq!(origin, Origin::Peer(peer(n)));
        plan.ended(attempt, End::Refused);
    }
    assert_eq!(fetch(plan.next(at(0))).1, Origin::Outside, "there is an end to it");

    // At its own turn an agent goes itself.
    let mut plan = follow(&[1, 0, 2], 0);
    let (attempt, ..) = fetch(plan.next(at(0)));
    plan.ended(attempt, End::Refused);
    assert_eq!(fetch(plan.next(at(0))).1, Origin::Outside);

    // Silence counts.
    let mut plan = follow(&[1, 2, 3, 4, 5, 6], 0);
    for n in 1..=3 {
        let (attempt, origin, _) = fetch(plan.next(at(0)));
        assert_eq!(origin, Origin::Peer(peer(n)));
        plan.ended(attempt, End::Cut);
    }
    assert_eq!(fetch(plan.next(at(0))).1, Origin::Outside);
}

#[test]
fn nars_are_cut_smaller() {
    let size = 3 * NAR_SEGMENT_BYTES + 5;
    let cut = Cut::of(SiteKind::Nar, size).unwrap();
    assert_eq!((cut.count(), cut.range(3)), (4, 3 * NAR_SEGMENT_BYTES..size));
    assert_eq!(cut.segment_of(NAR_SEGMENT_BYTES), 1);
    assert_eq!(Cut::of(SiteKind::UpstreamFile, size), Cut::new(size));
    assert_ne!(Some(cut), Cut::new(size));
}
