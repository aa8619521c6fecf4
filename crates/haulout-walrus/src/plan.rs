//! Which node to ask for which sliver next. Pure: time is passed in, I/O is the caller's.
//!
//! A plan has *slots*, one for each sliver that could be used, and ends when enough of them are
//! done. Those that were wanted in the first place (systematic slivers: no arithmetic) come first;
//! the others stand in for what fails or is late. A node that is silent is not waited for: its
//! requests stay open, but others are sent in their place, up to a budget. A node that lies or
//! breaks is not asked again.

use std::time::Duration;

use crate::{
    limits::{
        BUSY_PAUSE, BUSY_RETRIES, HEDGE_AFTER, HEDGE_FACTOR, HEDGE_SHARED, LATENCY_SAMPLES,
        NODE_REQUESTS_MAX, SPOILT_RETRIES,
    },
    node::Verdict,
};

/// Time since the plan began.
pub(crate) type Clock = Duration;

/// Failed requests after which a node is given up. One may be bad luck.
const STRIKES_MAX: u8 = 2;

/// Requests that may be hedged in a plan, beside half of what is needed.
const HEDGES_MIN: usize = 8;

/// A sliver that may be asked for, and who has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Whatever identifies it to the caller.
    pub(crate) item: u16,
    /// The member's position.
    pub(crate) node: usize,
    /// Whether it is better than one that is not.
    pub(crate) wanted: bool,
}

/// For whom slivers are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// For this reader: speed decides, and a second request costs little.
    Alone,
    /// Through something that fetches once for many readers: all must choose the same slivers, and what
    /// is slow is somebody's business already.
    Shared,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask for slot `slot`, and then ask for the next step.
    Fetch {
        /// The slot, for the answer.
        slot: usize,
        /// What to ask for, and whom.
        candidate: Candidate,
    },
    /// Nothing until an answer comes or, if there is a time, until then.
    Wait(Option<Clock>),
    /// Enough slivers are there.
    Done,
    /// There will not be enough.
    Stuck,
}

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A sliver that passed its checks.
    Good,
    /// A sliver that did not.
    Lie,
    /// One that did not, through no fault of the node; what spoilt it has been dealt with.
    Again,
    /// An error.
    Failed(Verdict),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Flying { since: Clock, late: bool },
    Done,
    Failed,
}

#[derive(Debug)]
struct Slot {
    candidate: Candidate,
    state: State,
    tries: u8,
}

/// What is known of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeView {
    /// Smoothed time to a whole answer, from earlier plans too.
    pub(crate) latency: Option<Duration>,
    in_flight: usize,
    paused_until: Clock,
    late: bool,
    strikes: u8,
    given_up: bool,
    /// The last way in which it failed, for the report.
    pub(crate) last: Option<Outcome>,
}

impl NodeView {
    /// A node of which nothing is known but perhaps its speed.
    pub(crate) fn new(latency: Option<Duration>) -> Self {
        Self { latency, ..Self::default() }
    }
}

/// Times of answers, the latest few.
#[derive(Debug, Default)]
struct Latencies(Vec<Duration>, usize);

impl Latencies {
    fn add(&mut self, took: Duration) {
        if self.0.len() < LATENCY_SAMPLES {
            self.0.push(took);
        } else {
            self.0[self.1 % LATENCY_SAMPLES] = took;
        }
        self.1 = self.1.wrapping_add(1);
    }

    /// After how long a request counts as late.
    fn late_after(&self) -> Duration {
        let (low, high) = HEDGE_AFTER;
        if self.0.len() < 3 {
            return high;
        }
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let p90 = sorted[(sorted.len() - 1) * 9 / 10];
        (p90 * HEDGE_FACTOR).max(low)
    }
}

/// A plan for some of many slivers.
#[derive(Debug)]
pub(crate) struct Plan {
    slots: Vec<Slot>,
    nodes: Vec<NodeView>,
    need: usize,
    done: usize,
    window: usize,
    hedged: usize,
    latencies: Latencies,
    manner: Manner,
}

impl Plan {
    /// A plan for `need` of the candidates, with at most `window` requests in flight that are not
    /// late. Candidates that are otherwise equal are used in their order.
    pub(crate) fn new(
        candidates: Vec<Candidate>,
        nodes: Vec<NodeView>,
        need: usize,
        window: usize,
        manner: Manner,
    ) -> Self {
        let slot = |candidate| Slot { candidate, state: State::Idle, tries: 0 };
        // Every candidate's node is one of `nodes`, wherever a slot's node is looked at below.
        let there = |candidate: &Candidate| candidate.node < nodes.len();
        let slots = candidates.into_iter().filter(there).map(slot).collect();
        let latencies = Latencies::default();
        Self { slots, nodes, need, done: 0, window: window.max(1), hedged: 0, latencies, manner }
    }

    /// What is known of the nodes now.
    pub(crate) fn nodes(&self) -> &[NodeView] {
        &self.nodes
    }

    /// How many slots are done.
    pub(crate) fn done(&self) -> usize {
        self.done
    }

    /// How many requests were sent in the place of late ones.
    pub(crate) fn hedged(&self) -> usize {
        self.hedged
    }

    /// What to do at `now`.
    pub(crate) fn next(&mut self, now: Clock) -> Step {
        if self.done >= self.need {
            return Step::Done;
        }
        let late_at = self.mark_late(now);
        let (mut prompt, mut late) = (0usize, 0usize);
        for slot in &self.slots {
            match slot.state {
                State::Flying { late: false, .. } => prompt += 1,
                State::Flying { late: true, .. } => late += 1,
                _ => {}
            }
        }
        // Beyond the budget a late request is waited for like any other.
        let budget = HEDGES_MIN + self.need / 2;
        let expected = self.done + prompt + late.saturating_sub(budget);
        let room = prompt < self.window && prompt + late < 2 * self.window + budget;
        let mut wake = late_at;
        if expected < self.need && room {
            if let Some(slot) = self.best(now) {
                return self.launch(slot, now, late > 0);
            }
            wake = earliest(wake, self.end_of_pause(now));
        }
        match (prompt + late, wake) {
            (0, None) => Step::Stuck,
            (_, wake) => Step::Wait(wake),
        }
    }

    fn launch(&mut self, slot: usize, now: Clock, in_place_of_late: bool) -> Step {
        let Slot { candidate, state, tries } = &mut self.slots[slot];
        *state = State::Flying { since: now, late: false };
        *tries += 1;
        self.nodes[candidate.node].in_flight += 1;
        self.hedged += usize::from(in_place_of_late && !candidate.wanted);
        Step::Fetch { slot, candidate: *candidate }
    }

    /// Marks what is late; the answer is when the next request will be.
    fn mark_late(&mut self, now: Clock) -> Option<Clock> {
        let mut after = self.latencies.late_after();
        if self.manner == Manner::Shared {
            after = after.max(HEDGE_SHARED);
        }
        let mut next = None;
        for slot in &mut self.slots {
            let State::Flying { since, late } = &mut slot.state else { continue };
            let at = *since + after;
            if *late {
                continue;
            } else if at <= now {
                *late = true;
                self.nodes[slot.candidate.node].late = true;
            } else {
                next = earliest(next, Some(at));
            }
        }
        next
    }

    /// The slot to ask for next: promptness of the node, then what was wanted, then the
    /// faster and less busy node.
    fn best(&self, now: Clock) -> Option<usize> {
        let usual = self.usual_latency();
        let rank = |slot: &Slot| {
            let node = &self.nodes[slot.candidate.node];
            let spare = !slot.candidate.wanted;
            let load = u32::try_from(node.in_flight + 1).unwrap_or(u32::MAX);
            let cost = match spare && self.manner == Manner::Alone {
                true => node.latency.unwrap_or(usual) * load,
                false => Duration::ZERO,
            };
            (node.late || node.strikes > 0, spare, cost)
        };
        let usable = |slot: &&Slot| slot.state == State::Idle && self.is_usable(slot, now);
        let slots = self.slots.iter().enumerate().filter(|(_, slot)| usable(slot));
        slots.min_by_key(|(at, slot)| (rank(slot), *at)).map(|(at, _)| at)
    }

    fn is_usable(&self, slot: &Slot, now: Clock) -> bool {
        let node = &self.nodes[slot.candidate.node];
        !node.given_up && node.paused_until <= now && node.in_flight < NODE_REQUESTS_MAX
    }

    fn usual_latency(&self) -> Duration {
        let known: Vec<_> = self.nodes.iter().filter_map(|node| node.latency).collect();
        let sum: Duration = known.iter().sum();
        sum.checked_div(u32::try_from(known.len()).unwrap_or(1)).unwrap_or(HEDGE_AFTER.0)
    }

    /// When the first paused node that has something can be asked again.
    fn end_of_pause(&self, now: Clock) -> Option<Clock> {
        let ends = self.slots.iter().filter(|slot| slot.state == State::Idle).filter_map(|slot| {
            let node = &self.nodes[slot.candidate.node];
            (!node.given_up && node.paused_until > now).then_some(node.paused_until)
        });
        ends.min()
    }

    /// Takes the answer to a request. Answers to slots that are not in flight are ignored.
    pub(crate) fn answered(&mut self, slot: usize, now: Clock, outcome: Outcome) {
        let Some(Slot { candidate, state, tries }) = self.slots.get_mut(slot) else { return };
        let State::Flying { since, .. } = *state else { return };
        let node = &mut self.nodes[candidate.node];
        node.in_flight = node.in_flight.saturating_sub(1);
        *state = State::Failed;
        if outcome != Outcome::Good {
            node.last = Some(outcome);
        }
        match outcome {
            Outcome::Good => {
                *state = State::Done;
                self.done += 1;
                let took = now.saturating_sub(since);
                self.latencies.add(took);
                node.late = false;
                node.strikes = 0;
                node.latency = Some(node.latency.map_or(took, |old| (old * 3 + took) / 4));
            }
            Outcome::Again if *tries <= SPOILT_RETRIES => *state = State::Idle,
            Outcome::Again => {}
            Outcome::Lie | Outcome::Failed(Verdict::Wrong) => node.given_up = true,
            Outcome::Failed(Verdict::Unreachable) => {
                node.strikes += 1;
                node.given_up |= node.strikes >= STRIKES_MAX;
            }
            Outcome::Failed(Verdict::Busy(asked)) => {
                let (least, most) = BUSY_PAUSE;
                // Without a wish of the node the pause doubles.
                let own = least * 2u32.saturating_pow((*tries).into()) / 2;
                node.paused_until = now + asked.unwrap_or(own).clamp(least, most);
                if *tries <= BUSY_RETRIES {
                    *state = State::Idle;
                }
            }
            Outcome::Failed(
                Verdict::Missing
                | Verdict::Forbidden
                | Verdict::WrongShard
                | Verdict::NotRegistered
                | Verdict::Incomplete,
            ) => {}
        }
    }
}

fn earliest(a: Option<Clock>, b: Option<Clock>) -> Option<Clock> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests;
