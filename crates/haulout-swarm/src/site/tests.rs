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
    assert!(homes.told(peer(1), standing(1, true, 5), at(0)));
    assert!(homes.told(peer(2), standing(1, false, 5), at(0)));
    assert!(homes.told(peer(3), standing(1, true, 6), at(0)));
    assert_eq!(homes.ranking(&segment(0), 5, 9, |_| true), [peer(1)]);
    assert!(homes.told(peer(2), standing(2, true, 5), at(0)));
    assert!(!homes.told(peer(2), standing(2, false, 5), at(0)), "not newer");
    assert_eq!(homes.ranking(&segment(0), 5, 9, |_| true).len(), 2);
    assert_eq!(homes.ranking(&segment(0), 5, 9, |one| *one == peer(2)), [peer(2)]);
    assert!(homes.told(peer(2), standing(3, false, 5), at(0)));
    assert_eq!(homes.ranking(&segment(0), 5, 9, |_| true), [peer(1)]);
    // Who fetches for nobody may want something all the same.
    assert_eq!([1, 2, 3, 4].map(|me| homes.others(&peer(me), 5)), [1, 1, 2, 2]);
    assert_eq!((homes.others(&peer(1), 6), homes.others(&peer(1), 7)), (1, 0));
    homes.gone(&peer(1));
    assert_eq!(homes.len(), 2);
}

/// A plan with those that are there.
struct Plan {
    plan: Follow,
    turns: Vec<Turn>,
}

impl Plan {
    fn next(&mut self, now: Now) -> Step {
        let turns = self.turns.clone();
        self.plan.next(now, || turns)
    }
}

impl std::ops::Deref for Plan {
    type Target = Follow;
    fn deref(&self) -> &Follow {
        &self.plan
    }
}

impl std::ops::DerefMut for Plan {
    fn deref_mut(&mut self) -> &mut Follow {
        &mut self.plan
    }
}

fn turns(ranking: &[u8], elders: &[u8]) -> Vec<Turn> {
    ranking
        .iter()
        .map(|n| Turn { peer: peer(*n), elder: elders.contains(n), young: false })
        .collect()
}

fn follow(ranking: &[u8], me: u8) -> Plan {
    let plan = Follow::new(peer(me), Some(1000), 0, FollowConfig::default());
    Plan { plan, turns: turns(ranking, &[]) }
}

fn fetch(step: Step) -> (Attempt, Origin, u64) {
    match step {
        Step::Fetch { attempt, origin, from, .. } => (attempt, origin, from),
        other => panic!("{other:?}"),
    }
}

/// Whom it asks: `Ok(n)` outright, `Err(n)` only for what it has, 0 is the outside.
fn asks(step: Step) -> Result<u8, u8> {
    match step {
        Step::Fetch { origin: Origin::Outside, held: false, .. } => Ok(0),
        Step::Fetch { origin: Origin::Peer(peer), held, .. } => {
            let n = peer.as_bytes()[0];
            if held { Err(n) } else { Ok(n) }
        }
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
fn who_takes_only_what_is_kept_goes_nowhere_else() {
    let kept = |ranking: &[u8]| Plan {
        plan: Follow::kept(peer(9), Some(1000), 0, FollowConfig::default()),
        turns: turns(ranking, &[2]),
    };
    let refuse = |plan: &mut Plan, now| {
        let step = plan.next(at(now));
        let (attempt, ..) = fetch(step);
        plan.ended(attempt, End::Refused);
        asks(step)
    };
    let mut plan = kept(&[1, 9, 2]);
    assert_eq!([refuse(&mut plan, 0), refuse(&mut plan, 1)], [Err(1), Err(2)]);
    assert_eq!((plan.next(at(2)), plan.outside_fetches()), (Step::Failed, 0));

    let mut plan = kept(&[1, 2, 3, 4, 5, 6, 7, 8]);
    for n in 1..=6 {
        assert_eq!(refuse(&mut plan, u64::from(n)), Err(n));
    }
    assert_eq!(plan.next(at(9)), Step::Failed, "six questions are enough");

    let mut plan = kept(&[1, 2]);
    fetch(plan.next(at(0)));
    let (second, ..) = fetch(plan.next(at(600)));
    plan.progress(second, 1000, at(700));
    assert_eq!(plan.next(at(700)), Step::Complete, "the first was silent");

    let mut plan = kept(&[1, 9, 3]);
    let (first, ..) = fetch(plan.next(at(0)));
    plan.relied_on_by(&peer(7));
    assert_eq!(plan.next(at(1)), Step::Wait);
    plan.ended(first, End::Refused);
    assert_eq!(asks(plan.next(at(2))), Ok(0), "who is relied on is a home");
    assert_eq!(plan.why(), Why::Asked);
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
    let mut plan = Plan { plan: Follow::new(peer(9), None, 0, config), turns: turns(&[1], &[]) };
    let (first, ..) = fetch(plan.next(at(0)));
    plan.ended(first, End::Absent);
    assert_eq!(plan.next(at(1)), Step::Absent);
}

#[test]
fn a_document_begins_anew_with_every_source() {
    let config = FollowConfig::default();
    let mut plan = Plan { plan: Follow::new(peer(9), None, 0, config), turns: turns(&[1], &[]) };
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
            homes.told(peer(n), standing(1, true, 5), at(0));
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
        asker in prop::option::of(1u8..6),
    ) {
        let elders: Vec<u8> = ranking.iter().copied().filter(|n| n % 2 == 1).collect();
        let len = (!document).then_some(1000);
        let plan = match asker {
            None => Follow::new(peer(0), len, 0, FollowConfig::default()),
            Some(asker) => Follow::home(peer(0), peer(asker), len, 0, FollowConfig::default()),
        };
        let mut plan = Plan { plan, turns: turns(&ranking, &elders) };
        let mut asked = std::collections::BTreeSet::new();
        let mut now = at(0);
        let mut current = None;
        for (what, value, millis) in reports {
            now = now + Duration::from_millis(millis);
            match plan.next(now) {
                Step::Fetch { attempt, origin, held, from } => {
                    prop_assert!(from <= plan.have());
                    prop_assert!(asked.insert((origin, held)), "nobody twice");
                    prop_assert!(asker.is_none() || held || origin == Origin::Outside);
                    prop_assert!(!held || origin != Origin::Peer(peer(asker.unwrap_or(9))));
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
}

/// Reports the same end of every attempt, and says whom the plan asks until it goes outside.
fn asked_until_outside(mut plan: Plan, end: End) -> Vec<u8> {
    let mut asked = Vec::new();
    loop {
        let step = plan.next(at(0));
        let Ok(n) = asks(step) else { panic!("{step:?}") };
        asked.push(n);
        if n == 0 {
            return asked;
        }
        plan.ended(fetch(step).0, end);
    }
}

#[test]
fn when_homes_fail_not_everybody_goes_outside_at_once() {
    let ranking: Vec<u8> = (1..=40).collect();
    let after = |me: u8, end| asked_until_outside(follow(&ranking, me), end).len() - 1;
    // The first eight after three failures, sixteen after four, and so on; at six all.
    let failures = [1, 3, 4, 5, 8, 9, 16, 17, 32, 33, 99].map(|me| after(me, End::OutsideFailed));
    assert_eq!(failures, [0, 2, 3, 3, 3, 4, 4, 5, 5, 6, 6]);
    // Silence says nothing about the outside and counts half; somebody else is alive.
    assert_eq!([2, 8, 16, 99].map(|me| after(me, End::Cut)), [1, 6, 8, 12]);
    // Without others there is no choice.
    assert_eq!(asked_until_outside(follow(&[1, 2], 9), End::OutsideFailed), [1, 2, 0]);

    let config = FollowConfig { elect: false, ..FollowConfig::default() };
    let plan = Follow::new(peer(99), Some(1000), 0, config);
    let plan = Plan { plan, turns: turns(&ranking, &[]) };
    assert_eq!(asked_until_outside(plan, End::OutsideFailed), [1, 2, 3, 0]);
}

#[test]
fn a_home_at_a_limit_is_asked_again_and_nobody_goes_outside_for_it() {
    let mut plan = follow(&[1, 2], 9);
    let busy = |plan: &mut Plan, now| {
        let step = plan.next(at(now));
        plan.ended(fetch(step).0, End::Busy);
        asks(step)
    };
    assert_eq!(busy(&mut plan, 0), Ok(1));
    assert_eq!((plan.next(at(0)), plan.wake_at()), (Step::Wait, Some(at(500))));
    assert_eq!(plan.next(at(499)), Step::Wait);
    assert_eq!(busy(&mut plan, 500), Ok(1), "the same again");
    assert_eq!(plan.next(at(510)), Step::Wait);
    // It goes away: the next.
    plan.left(&peer(1));
    assert_eq!(busy(&mut plan, 520), Ok(2));
    assert_eq!(plan.next(at(520)), Step::Wait);
    let (third, ..) = fetch(plan.next(at(1_020)));
    plan.progress(third, 1000, at(1_100));
    assert_eq!((plan.next(at(1_100)), plan.wake_at()), (Step::Complete, None));

    // Not for ever.
    let mut plan = follow(&[1, 2], 9);
    let (mut now, mut asked) = (0, Vec::new());
    loop {
        match plan.next(at(now)) {
            Step::Wait => now += 100,
            step => {
                let who = asks(step);
                asked.push((now, who));
                if who == Ok(0) {
                    break;
                }
                plan.ended(fetch(step).0, End::Busy);
            }
        }
    }
    let first = asked.iter().filter(|(_, who)| *who == Ok(1)).count();
    assert!(first > 35 && (20_000..24_000).contains(&now), "{asked:?}");

    // Where elsewhere costs little, not at all.
    let config = FollowConfig { busy_for: Duration::ZERO, ..FollowConfig::default() };
    let plan = Follow::new(peer(9), Some(1000), 0, config);
    let mut plan = Plan { plan, turns: turns(&[1, 2], &[]) };
    assert_eq!([busy(&mut plan, 0), busy(&mut plan, 0)], [Ok(1), Ok(2)]);

    // Whom it waits for asks it: somebody must go.
    let mut plan = follow(&[1, 2], 9);
    assert_eq!(busy(&mut plan, 0), Ok(1));
    plan.relied_on_by(&peer(1));
    assert_eq!(asks(plan.next(at(1))), Ok(0));
}

#[test]
fn who_is_left_over_is_ranked_anew() {
    let mut plan = follow(&[1, 2, 3, 4], 9);
    let (attempt, ..) = fetch(plan.next(at(0)));
    plan.ended(attempt, End::Cut);
    // Meanwhile the second has turned out to be silent.
    plan.turns = turns(&[1, 3, 4], &[]);
    assert_eq!(asks(plan.next(at(1))), Ok(3));
}

#[test]
fn before_it_goes_outside_it_asks_who_may_have_it() {
    // Its own turn: those after it that were there before it, four at most here.
    let config = FollowConfig { peeks_max: 4, ..FollowConfig::default() };
    let plan = Follow::new(peer(9), Some(1000), 0, config);
    let mut plan = Plan { plan, turns: turns(&[9, 1, 2, 3, 4, 5, 6], &[2, 3, 4, 5, 6]) };
    for expected in [Err(2), Err(3), Err(4), Err(5), Ok(0)] {
        let step = plan.next(at(0));
        assert_eq!(asks(step), expected);
        plan.ended(fetch(step).0, End::Refused);
    }
    assert_eq!(asks(plan.next(at(0))), Ok(1), "the outside failed: others may have another way");

    // Who is asked asks neither the asker nor itself.
    let plan = Follow::home(peer(9), peer(1), Some(1000), 0, FollowConfig::default());
    let mut plan = Plan { plan, turns: turns(&[1, 9, 2], &[1, 2, 9]) };
    let step = plan.next(at(0));
    assert_eq!(asks(step), Err(2));
    // It has it: nothing comes from outside.
    plan.progress(fetch(step).0, 1000, at(1));
    assert_eq!((plan.next(at(1)), plan.outside_fetches()), (Step::Complete, 0));
}

#[test]
fn who_may_have_it_is_not_waited_for_long() {
    let mut plan = follow(&[9, 1, 2], 9);
    plan.turns = turns(&[9, 1, 2], &[1, 2]);
    let (first, ..) = fetch(plan.next(at(0)));
    assert_eq!(plan.next(at(599)), Step::Wait);
    let (second, ..) = fetch(plan.next(at(600)));
    // A sign of life: it has it, and waits for it.
    plan.waiting(first, at(700));
    plan.waiting(second, at(1_000));
    assert_eq!(plan.next(at(2_499)), Step::Wait);
    assert_eq!(asks(plan.next(at(2_500))), Ok(0));

    // Two that each think that it is the other's turn: one of them goes.
    let plan = Follow::home(peer(9), peer(1), Some(1000), 0, FollowConfig::default());
    let mut plan = Plan { plan, turns: turns(&[9, 2], &[2]) };
    assert_eq!(asks(plan.next(at(0))), Err(2));
    plan.relied_on_by(&peer(2));
    assert_eq!(asks(plan.next(at(0))), Ok(0));
}

#[test]
fn elders_are_those_that_one_meets_on_coming_and_for_a_while() {
    let mut homes = Homes::new();
    let tell = |homes: &mut Homes, n, sequence, now| {
        homes.told(peer(n), standing(sequence, true, 5), at(now));
    };
    let elders = |homes: &Homes, now| -> Vec<u8> {
        let turns = homes.turns(&[1, 2, 3, 4].map(peer), at(now));
        turns.iter().filter(|turn| turn.elder).map(|turn| turn.peer.as_bytes()[0]).collect()
    };
    // Itself, long before it met anybody; two that it met at once; one that came later.
    tell(&mut homes, 4, 1, 0);
    tell(&mut homes, 1, 1, 60_000);
    tell(&mut homes, 2, 1, 64_000);
    tell(&mut homes, 3, 1, 70_000);
    tell(&mut homes, 1, 2, 90_000);
    assert_eq!(elders(&homes, 70_000), [1, 2, 4]);
    assert_eq!(elders(&homes, 179_999), [1, 2, 4]);
    assert_eq!(elders(&homes, 180_000), []);
    // Alone for a night, and back.
    for n in 1..=3 {
        homes.gone(&peer(n));
    }
    tell(&mut homes, 3, 2, 999_000);
    assert_eq!(elders(&homes, 999_000), [3, 4]);
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
