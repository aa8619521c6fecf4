use proptest::prelude::*;

use std::ops::Range;

use super::*;

const MIB: u64 = 1 << 20;

fn at(millis: u64) -> Now {
    Now::from_start(Duration::from_millis(millis))
}

fn plan(size: u64, sources: u8) -> NarPlan<u8> {
    let mut plan = NarPlan::new(size, 0, PlanConfig::default());
    for source in 0..sources {
        assert!(plan.add_source(source, at(0)));
    }
    plan
}

fn fetch(plan: &mut NarPlan<u8>, source: u8, now: Now) -> Segment {
    match plan.next(source, now) {
        Next::Fetch(segment) => segment,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_empty_nar_is_complete() {
    let mut plan = plan(0, 1);
    assert_eq!(plan.status(), Status::Complete);
    assert_eq!(plan.next(0, at(0)), Next::Complete);
}

#[test]
fn a_small_nar_comes_whole_from_one_source() {
    let mut plan = plan(5000, 3);
    let segment = fetch(&mut plan, 1, at(0));
    assert_eq!((segment.offset, segment.len), (0, 5000));
    assert_eq!(plan.next(0, at(1)), Next::Wait, "no copy of a young request");
    assert_eq!(plan.done(segment.id, at(2)).fresh, 0..5000);
    assert_eq!(plan.status(), Status::Complete);
    assert_eq!(plan.wasted_bytes(), 0);
}

#[test]
fn sources_take_runs() {
    let mut plan = plan(64 * MIB, 3);
    let mut offsets = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..2 {
        for source in 0..3 {
            offsets[usize::from(source)].push(fetch(&mut plan, source, at(0)).offset / MIB);
        }
    }
    assert_eq!(offsets, [[0, 1], [4, 5], [8, 9]]);
}

#[test]
fn a_resumed_nar_starts_in_mid_segment_and_aligns() {
    let mut plan: NarPlan<u8> = NarPlan::new(10 * MIB, MIB + 7, PlanConfig::default());
    plan.add_source(1, at(0));
    let first = fetch(&mut plan, 1, at(0));
    assert_eq!((first.offset, first.len), (MIB + 7, MIB - 7));
    assert_eq!(fetch(&mut plan, 1, at(0)).offset, 2 * MIB);
    assert_eq!(NarPlan::<u8>::new(10, 99, PlanConfig::default()).status(), Status::Complete);
}

#[test]
fn the_window_waits_for_the_consumer() {
    let mut plan = plan(1000 * MIB, 1);
    let mut now = 0;
    loop {
        now += 1;
        match plan.next(0, at(now)) {
            Next::Fetch(segment) => assert!(!plan.done(segment.id, at(now + 1)).fresh.is_empty()),
            Next::Wait => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(plan.ready(), WINDOW_BYTES);
    plan.consumed(MIB);
    assert_eq!(fetch(&mut plan, 0, at(now)).offset, WINDOW_BYTES);
}

#[test]
fn a_dead_source_costs_only_what_it_did_not_deliver() {
    let mut plan = plan(2 * MIB, 2);
    let segment = fetch(&mut plan, 0, at(0));
    assert_eq!(plan.progress(segment.id, 700_000, at(3)).fresh, 0..700_000);
    assert!(plan.remove_source(&0).contains(&segment.id));
    let rest = fetch(&mut plan, 1, at(4));
    assert_eq!((rest.offset, rest.len), (700_000, MIB - 700_000));
    assert_eq!(
        plan.progress(segment.id, MIB, at(5)).fresh,
        MIB..MIB,
        "late news of a forgotten request"
    );
    plan.remove_source(&1);
    assert_eq!(plan.status(), Status::NobodyLeft);
    assert_eq!(plan.next(1, at(5)), Next::NotASource);
    plan.add_source(2, at(6));
    assert_eq!(fetch(&mut plan, 2, at(6)).offset, 700_000);
}

#[test]
fn a_stalled_source_is_replaced_and_may_come_back() {
    let mut plan = plan(8 * MIB, 2);
    let slow = fetch(&mut plan, 0, at(0));
    assert!(plan.stalled(at(299)).is_empty());
    assert_eq!(plan.wake_at(at(290)), Some(at(300)));
    let stalled = plan.stalled(at(300));
    assert_eq!(stalled.len(), 1);
    assert_eq!((stalled[0].source, stalled[0].requests.as_slice()), (0, &[slow.id][..]));
    assert!(plan.stalled(at(301)).is_empty(), "named once");
    assert_eq!(plan.next(0, at(301)), Next::Wait);
    let copy = fetch(&mut plan, 1, at(301));
    assert_eq!(copy.offset, 0);
    // The lost one speaks after all and is first.
    let progress = plan.done(slow.id, at(302));
    assert_eq!((progress.fresh, progress.cancel.as_slice()), (0..MIB, &[(1, copy.id)][..]));
    assert!(matches!(plan.next(0, at(302)), Next::Fetch(_)));
}

#[test]
fn all_stalled_is_told_apart_from_nobody_left() {
    let mut plan = plan(8 * MIB, 1);
    fetch(&mut plan, 0, at(0));
    plan.stalled(at(400));
    assert_eq!(plan.status(), Status::AllStalled);
    plan.add_source(0, at(500));
    assert_eq!(plan.status(), Status::Active);
}

#[test]
fn the_last_segments_are_copied_from_a_slow_source() {
    let mut plan = plan(2 * MIB, 2);
    let slow = fetch(&mut plan, 0, at(0));
    let fast = fetch(&mut plan, 1, at(0));
    plan.done(fast.id, at(10));
    plan.progress(slow.id, 1000, at(10));
    assert_eq!(plan.next(1, at(11)), Next::Wait);
    let copy = fetch(&mut plan, 1, at(60));
    assert_eq!((copy.offset, copy.len), (1000, MIB - 1000));
    assert_eq!(plan.progress(slow.id, 2000, at(61)).fresh, 1000..2000);
    assert_eq!(plan.progress(copy.id, 5000, at(62)).fresh, 2000..5000);
    let end = plan.done(copy.id, at(70));
    assert_eq!((end.fresh, end.cancel.as_slice()), (5000..MIB, &[(0, slow.id)][..]));
    assert_eq!((plan.status(), plan.wasted_bytes()), (Status::Complete, 1000));
}

#[test]
fn faster_sources_get_deeper_pipelines() {
    let mut plan = plan(1000 * MIB, 2);
    for (source, millis) in [(0, 5), (1, 400)] {
        let segment = fetch(&mut plan, source, at(1000));
        plan.done(segment.id, at(1000 + millis));
    }
    let mut depth =
        |source| (0..9).filter(|_| matches!(plan.next(source, at(2000)), Next::Fetch(_))).count();
    assert_eq!((depth(0), depth(1)), (4, 1));
}

#[test]
fn a_source_that_only_fails_leaves_the_plan() {
    let mut plan = plan(8 * MIB, 1);
    for _ in 1..SOURCE_FAILURES_MAX {
        let segment = fetch(&mut plan, 0, at(0));
        assert_eq!(plan.failed(segment.id), None);
    }
    let segment = fetch(&mut plan, 0, at(0));
    assert_eq!(plan.failed(segment.id), Some(0));
    assert_eq!(plan.status(), Status::NobodyLeft);
}

#[test]
fn who_said_no_is_not_asked_again() {
    let mut plan = plan(8 * MIB, 2);
    let segment = fetch(&mut plan, 0, at(0));
    assert_eq!(plan.refuse_source(&0), [segment.id]);
    assert!(!plan.add_source(0, at(1)));
    assert_eq!(plan.next(0, at(1)), Next::NotASource);
    assert_eq!(fetch(&mut plan, 1, at(1)).offset, 0);
}

#[test]
fn no_more_than_ten_sources() {
    let mut plan = plan(MIB, SOURCES_MAX as u8);
    assert!(!plan.add_source(99, at(0)));
    assert!(plan.add_source(3, at(0)), "known already");
}

proptest! {
    /// Any order of events: each byte is fresh exactly once and in reach of the window, and as long as one source
    /// answers, the NAR completes.
    #[test]
    fn every_byte_is_delivered_once(
        size in 1u64..40 * MIB,
        from in 0u64..2 * MIB,
        events in prop::collection::vec((0u8..7, 0u8..5, any::<prop::sample::Index>(), 0u64..MIB), 0..400),
    ) {
        let mut plan: NarPlan<u8> = NarPlan::new(size, from, PlanConfig::default());
        let mut have: Vec<Range<u64>> = Vec::new();
        let mut open: Vec<(u8, Segment)> = Vec::new();
        let mut now = at(0);
        let take = |plan: &NarPlan<u8>, have: &mut Vec<Range<u64>>, open: &mut Vec<(u8, Segment)>, id, progress: Progress<u8>| {
            if !progress.fresh.is_empty() {
                assert!(progress.fresh.end <= plan.consumed + plan.config.window_bytes.max(SEGMENT_BYTES));
                have.push(progress.fresh);
            }
            if progress.finished {
                open.retain(|(_, segment)| segment.id != id && progress.cancel.iter().all(|(_, c)| *c != segment.id));
            }
        };
        for (event, source, pick, amount) in events {
            now = now + Duration::from_millis(amount % 120);
            match event {
                0 => { plan.add_source(source, now); }
                1 => {
                    let gone = plan.remove_source(&source);
                    open.retain(|(_, segment)| !gone.contains(&segment.id));
                }
                2 => if let Next::Fetch(segment) = plan.next(source, now) {
                    prop_assert!(segment.len > 0 && segment.offset + segment.len <= size);
                    let verified = have.iter().any(|r| r.start < segment.offset + segment.len && segment.offset < r.end);
                    prop_assert!(!verified, "handed out again");
                    open.push((source, segment));
                },
                3 | 4 if !open.is_empty() => {
                    let (_, segment) = open[pick.index(open.len())];
                    let progress = plan.progress(segment.id, segment.offset + amount, now);
                    take(&plan, &mut have, &mut open, segment.id, progress);
                }
                5 if !open.is_empty() => {
                    let (_, segment) = open.remove(pick.index(open.len()));
                    if let Some(gone) = plan.failed(segment.id) {
                        open.retain(|(source, _)| *source != gone);
                    }
                }
                _ => { plan.stalled(now); plan.consumed(amount * 40); }
            }
            prop_assert!(plan.pieces.len() <= 17);
            prop_assert_eq!(plan.requests.len(), open.len());
        }
        plan.remove_source(&0);
        plan.add_source(100, now);
        plan.remove_source(&1);
        plan.add_source(100, now);
        for step in 0..2000 {
            if plan.status() == Status::Complete { break }
            now = now + Duration::from_millis(20);
            plan.stalled(now);
            plan.consumed(plan.ready());
            if let Next::Fetch(segment) = plan.next(100, now) {
                let progress = plan.done(segment.id, now);
                take(&plan, &mut have, &mut open, segment.id, progress);
            }
            prop_assert!(step < 1999, "it ends");
        }
        have.sort_by_key(|range| range.start);
        let mut reached = from.min(size);
        for range in have {
            prop_assert_eq!(range.start, reached);
            reached = range.end;
        }
        prop_assert_eq!(reached, size);
    }
}
