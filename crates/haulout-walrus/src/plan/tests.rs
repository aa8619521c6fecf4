#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// How a node of the simulation behaves.
#[derive(Debug, Clone, Copy)]
enum Behaviour {
    Answers(u64),
    Silent,
    Lies,
    Missing,
    Refuses,
    BusyOnce,
}

const TIMEOUT: u64 = 5_000;

struct Run {
    end: Step,
    asked: Vec<Candidate>,
    time: Clock,
    plan: Plan,
}

/// Plays a plan against nodes in virtual time.
fn play(mut plan: Plan, nodes: &[Behaviour]) -> Run {
    let mut now = Clock::ZERO;
    let mut asked = Vec::new();
    let mut busy = vec![false; nodes.len()];
    // Answers by time, then by order of sending.
    let mut flying: BTreeMap<(Clock, usize), (usize, Outcome)> = BTreeMap::new();
    for turn in 0.. {
        assert!(turn < 100_000, "the plan does not end");
        match plan.next(now) {
            Step::Fetch { slot, candidate } => {
                let (after, outcome) = match nodes[candidate.node] {
                    Behaviour::Answers(ms) => (ms, Outcome::Good),
                    Behaviour::Silent => (TIMEOUT, Outcome::Failed(Verdict::Unreachable)),
                    Behaviour::Lies => (20, Outcome::Lie),
                    Behaviour::Missing => (20, Outcome::Failed(Verdict::Missing)),
                    Behaviour::Refuses => (1, Outcome::Failed(Verdict::Unreachable)),
                    Behaviour::BusyOnce if busy[candidate.node] => (20, Outcome::Good),
                    Behaviour::BusyOnce => {
                        busy[candidate.node] = true;
                        let pause = Some(Duration::from_secs(1));
                        (20, Outcome::Failed(Verdict::Busy(pause)))
                    }
                };
                let at = now + Duration::from_millis(after);
                flying.insert((at, asked.len()), (slot, outcome));
                asked.push(candidate);
            }
            Step::Wait(until) => {
                let arrival = flying.keys().next().map(|(at, _)| *at);
                match (arrival, until) {
                    (Some(at), until) if until.is_none_or(|until| at <= until) => {
                        now = at;
                        let (_, (slot, outcome)) = flying.pop_first().unwrap();
                        plan.answered(slot, now, outcome);
                    }
                    (_, Some(until)) => {
                        assert!(until > now, "the plan waits for the past");
                        now = until;
                    }
                    (_, None) => panic!("the plan waits for nothing"),
                }
            }
            end => return Run { end, asked, time: now, plan },
        }
    }
    unreachable!()
}

/// `n` slivers on as many nodes as given, the first `kp` of them wanted.
fn blob(n: u16, kp: u16, nodes: usize) -> Vec<Candidate> {
    let candidate =
        |item: u16| Candidate { item, node: usize::from(item) % nodes, wanted: item < kp };
    (0..n).map(candidate).collect()
}

fn plan(n: u16, kp: u16, nodes: &[Behaviour]) -> Plan {
    let views = vec![NodeView::default(); nodes.len()];
    Plan::new(blob(n, kp, nodes.len()), views, kp.into(), kp.into(), Manner::Alone)
}

#[test]
fn with_good_nodes_exactly_the_wanted_slivers_are_fetched() {
    let nodes = [Behaviour::Answers(30); 20];
    let run = play(plan(1000, 334, &nodes), &nodes);
    assert_eq!((run.end, run.asked.len()), (Step::Done, 334));
    assert!(run.asked.iter().all(|candidate| candidate.wanted));
    assert_eq!(run.plan.hedged(), 0);
}

#[test]
fn silent_nodes_are_hedged_long_before_they_time_out() {
    let mut nodes = [Behaviour::Answers(30); 20];
    nodes[..6].fill(Behaviour::Silent);
    let run = play(plan(1000, 334, &nodes), &nodes);
    assert_eq!(run.end, Step::Done);
    assert!(run.time < Duration::from_millis(TIMEOUT), "{:?}", run.time);
    // What was in flight to silent nodes had to be replaced, nothing else.
    assert!(run.asked.len() <= 334 + 6 * NODE_REQUESTS_MAX, "{}", run.asked.len());
}

#[test]
fn a_liar_is_asked_no_more_once_it_was_caught() {
    let mut nodes = [Behaviour::Answers(30); 10];
    nodes[3] = Behaviour::Lies;
    let run = play(plan(1000, 334, &nodes), &nodes);
    assert_eq!(run.end, Step::Done);
    let to_liar = run.asked.iter().filter(|candidate| candidate.node == 3).count();
    assert!(to_liar <= NODE_REQUESTS_MAX, "{to_liar}");
    assert_eq!(run.plan.nodes()[3].last, Some(Outcome::Lie));
}

#[test]
fn a_busy_node_is_left_alone_for_as_long_as_it_asks() {
    // Every sliver is needed, so the busy node has to be waited for.
    let nodes = [Behaviour::Answers(10), Behaviour::BusyOnce];
    let candidates = blob(4, 4, 2);
    let run =
        play(Plan::new(candidates, vec![NodeView::default(); 2], 4, 1, Manner::Alone), &nodes);
    assert_eq!(run.end, Step::Done);
    assert!(run.time >= Duration::from_secs(1));
    assert_eq!(run.asked.len(), 5);
}

#[test]
fn too_few_slivers_end_the_plan() {
    let mut nodes = [Behaviour::Missing; 10];
    nodes[..3].fill(Behaviour::Answers(10));
    let run = play(plan(10, 4, &nodes), &nodes);
    assert_eq!((run.end, run.plan.done(), run.asked.len()), (Step::Stuck, 3, 10));
}

#[test]
fn faster_nodes_stand_in_for_those_that_fail() {
    let mut nodes = [Behaviour::Answers(10); 6];
    nodes[0] = Behaviour::Refuses;
    let mut views = vec![NodeView::default(); 6];
    for (i, view) in views.iter_mut().enumerate() {
        view.latency = Some(Duration::from_millis(100 - 10 * i as u64));
    }
    // Node 0 has the only wanted one; 1 to 5 have one spare each.
    for (manner, second) in [(Manner::Alone, 5), (Manner::Shared, 1)] {
        let views = views.clone();
        let run = play(Plan::new(blob(6, 1, 6), views, 1, 1, manner), &nodes);
        assert_eq!(run.asked[1].node, second);
    }
}

fn behaviour() -> impl Strategy<Value = Behaviour> {
    prop_oneof![
        (1..400u64).prop_map(Behaviour::Answers),
        Just(Behaviour::Silent),
        Just(Behaviour::Lies),
        Just(Behaviour::Missing),
        Just(Behaviour::Refuses),
        Just(Behaviour::BusyOnce),
    ]
}

proptest! {
    #[test]
    fn whatever_nodes_do_enough_good_ones_are_enough(
        good in prop::collection::vec(1..400u64, 4),
        bad in prop::collection::vec(behaviour(), 6),
        window in 1..20usize,
    ) {
        // Any 4 of 10 shards decode.
        let mut nodes = bad;
        nodes.extend(good.into_iter().map(Behaviour::Answers));
        let views = vec![NodeView::default(); nodes.len()];
        let run = play(Plan::new(blob(10, 4, 10), views, 4, window, Manner::Alone), &nodes);
        prop_assert_eq!(run.end, Step::Done);
        // Nothing is asked for twice but of a node that was busy.
        for (at, candidate) in run.asked.iter().enumerate() {
            if run.asked[..at].contains(candidate) {
                prop_assert!(matches!(nodes[candidate.node], Behaviour::BusyOnce));
            }
        }
    }
}

#[test]
fn a_node_that_does_not_exist_is_never_asked() {
    let stranger = Candidate { item: 1, node: 7, wanted: true };
    let nodes = || vec![NodeView::default(), NodeView::default()];
    let alone = Plan::new(vec![stranger], nodes(), 1, 1, Manner::Alone);
    assert_eq!(play(alone, &[Behaviour::Answers(1); 2]).end, Step::Stuck);
    let known = Candidate { node: 1, ..stranger };
    let both = Plan::new(vec![stranger, known], nodes(), 1, 1, Manner::Shared);
    assert_eq!(play(both, &[Behaviour::Answers(1); 2]).asked, [known]);
}
