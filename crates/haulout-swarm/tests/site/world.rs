//! The simulated site. Bytes are numbers of a segment's blocks; a lie is a flag that a check at the segment's end finds.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use haulout_swarm::site::{
    Attempt, Duty, DutyLimits, End, Fellows, Follow, FollowConfig, Homes, Origin, RANKED_MAX,
    SegmentKey, SiteKey, SiteKind, Standing, Step, Turn, Verdict,
};
use haulout_swarm::{Now, PeerId};

const OUTSIDE: u32 = 77;
const BLOCKS: u64 = 16;
const BLOCK: u64 = 64 << 10;
const LEN: u64 = BLOCKS * BLOCK;
/// One way between two agents.
const LAN: Duration = Duration::from_micros(300);
/// Until the outside answers.
const WAN: Duration = Duration::from_millis(40);
/// The line outside: one block takes this long, whoever asks.
const WAN_BLOCK: Duration = Duration::from_micros(500);
/// Segments one agent wants at once.
const PARALLEL: usize = 8;

#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) dying: usize,
    pub(crate) stalling: usize,
    pub(crate) lying: usize,
    pub(crate) late: usize,
    pub(crate) unwilling: usize,
    /// Agents that fetch something else at the same time: they refuse this, and want nothing of it.
    pub(crate) elsewhere: usize,
    /// How often an agent does not see another one.
    pub(crate) blind_percent: u64,
}

pub(crate) struct Outcome {
    /// Segments that living agents did not get.
    pub(crate) missing: usize,
    /// Segments taken although a lie.
    pub(crate) wrong: usize,
    /// What the outside gave, in segments.
    pub(crate) outside_segments: f64,
    /// Requests that were refused because the asked one does not want the object.
    pub(crate) refusals: u64,
    pub(crate) trace: u64,
}

fn mix(n: u64) -> u64 {
    let z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Start(usize),
    Die(usize),
    Stall(usize),
    /// A follower asks.
    Asked {
        home: usize,
        from: usize,
        /// The segment, and whether only what is there is wanted.
        what: (u32, bool),
        attempt: Attempt,
        at: u64,
    },
    /// A relay tells: blocks up to `upto` (lie or not), or that it waits.
    Told {
        to: usize,
        segment: u32,
        attempt: Attempt,
        upto: u64,
        lie: bool,
    },
    Over {
        to: usize,
        segment: u32,
        attempt: Attempt,
        end: End,
    },
    /// A block from outside.
    Outside {
        agent: usize,
        segment: u32,
        attempt: Attempt,
        upto: u64,
    },
    Look {
        agent: usize,
        segment: u32,
    },
    Beat(usize),
}

struct Relay {
    to: usize,
    attempt: Attempt,
    sent: u64,
}

struct Local {
    plan: Follow,
    /// Whether the agent wants it itself, or fetches for others only.
    wanted: bool,
    lie: bool,
    supplier: Option<usize>,
    relays: Vec<Relay>,
    /// When it is looked at next anyway.
    look_at: Option<Now>,
    /// The peer that is asked now is to give it only if it has it.
    peeks: bool,
}

struct Agent {
    id: PeerId,
    alive: bool,
    stalled: bool,
    lies: bool,
    elsewhere: bool,
    homes: Homes,
    duty: Duty,
    locals: BTreeMap<u32, Local>,
    done: BTreeSet<u32>,
    wrong: usize,
    next_wanted: u32,
    fellows: Fellows,
}

pub(crate) struct World {
    now: Now,
    segments: u32,
    agents: Vec<Agent>,
    queue: BinaryHeap<Reverse<(Now, u64, usize)>>,
    events: Vec<Event>,
    wan_free: Now,
    outside_blocks: u64,
    refusals: u64,
    trace: u64,
}

/// Segments of one object: what a large NAR has at once within its window.
const SEGMENTS_OF_OBJECT: u32 = 6;

fn segment(index: u32) -> SegmentKey {
    let id = [(index / SEGMENTS_OF_OBJECT) as u8; 32];
    SiteKey { kind: SiteKind::Nar, id }.segment(index % SEGMENTS_OF_OBJECT)
}

impl World {
    pub(crate) fn new(seed: u64, count: usize, segments: u32, faults: Faults) -> Self {
        let mut random = seed;
        let mut dice = move |limit: u64| {
            random = random.wrapping_add(1);
            mix(random) % limit
        };
        let mut world = Self {
            now: Now::START,
            segments,
            agents: Vec::new(),
            queue: BinaryHeap::new(),
            events: Vec::new(),
            wan_free: Now::START,
            outside_blocks: 0,
            refusals: 0,
            trace: 0,
        };
        let ids: Vec<PeerId> = (0..count)
            .map(|n| {
                let mut id = [0; 32];
                id[..8].copy_from_slice(&mix(seed << 20 | n as u64).to_be_bytes());
                PeerId::from_bytes(id)
            })
            .collect();
        let unwilling = |n: usize| n >= count - faults.unwilling;
        let elsewhere =
            |n: usize| n + faults.elsewhere >= count - faults.unwilling && !unwilling(n);
        for n in 0..count {
            let mut homes = Homes::new();
            for (m, id) in ids.iter().enumerate() {
                if n != m && dice(100) < faults.blind_percent {
                    continue;
                }
                let standing = Standing {
                    sequence: 1,
                    willing: !unwilling(m),
                    outsides: [OUTSIDE].into_iter().collect(),
                };
                homes.told(*id, standing, Now::START);
            }
            world.agents.push(Agent {
                id: ids[n],
                alive: true,
                stalled: false,
                lies: n >= faults.dying + faults.stalling
                    && n < faults.dying + faults.stalling + faults.lying,
                elsewhere: elsewhere(n),
                homes,
                duty: Duty::new(DutyLimits::default(), !unwilling(n)),
                locals: BTreeMap::new(),
                done: BTreeSet::new(),
                wrong: 0,
                next_wanted: 0,
                fellows: Fellows::new(),
            });
            let late = n >= count - faults.unwilling - faults.late && !unwilling(n);
            let start = if late { 200 + dice(2_000) } else { dice(5) };
            if !elsewhere(n) {
                world.at(Duration::from_millis(start), Event::Start(n));
            }
            world.at(Duration::from_millis(400), Event::Beat(n));
            let moment = Duration::from_millis(50 + dice(400));
            if n < faults.dying {
                world.at(moment, Event::Die(n));
            } else if n < faults.dying + faults.stalling {
                world.at(moment, Event::Stall(n));
            }
        }
        world
    }

    fn at(&mut self, after: Duration, event: Event) {
        let index = self.events.len();
        self.events.push(event);
        self.queue.push(Reverse((self.now + after, index as u64, index)));
    }

    pub(crate) fn run(&mut self, end: Now) {
        while let Some(Reverse((now, _, index))) = self.queue.pop() {
            let finished = self.wanting().all(|agent| agent.done.len() == self.segments as usize);
            if now > end || finished {
                return;
            }
            self.now = now;
            let event = self.events[index];
            self.trace = mix(self.trace ^ mix(index as u64 ^ now.since_start().as_nanos() as u64));
            self.handle(event);
        }
    }

    pub(crate) fn outcome(&self) -> Outcome {
        Outcome {
            missing: self.wanting().map(|agent| self.segments as usize - agent.done.len()).sum(),
            wrong: self.agents.iter().map(|agent| agent.wrong).sum(),
            outside_segments: self.outside_blocks as f64 / BLOCKS as f64,
            refusals: self.refusals,
            trace: self.trace,
        }
    }

    /// Who lives and wants the object.
    fn wanting(&self) -> impl Iterator<Item = &Agent> {
        self.agents.iter().filter(|agent| agent.alive && !agent.elsewhere)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Start(n) => self.want_more(n),
            Event::Die(n) => {
                // Nobody is told: until its silence is noticed it looks alive.
                self.agents[n].alive = false;
            }
            Event::Stall(n) => self.agents[n].stalled = true,
            Event::Asked { home, from, what, attempt, at } => {
                self.asked(home, from, what, attempt, at);
            }
            Event::Told { to, segment, attempt, upto, lie } => {
                self.told(to, segment, attempt, upto, lie);
            }
            Event::Over { to, segment, attempt, end } => {
                let now = self.now;
                let agent = &mut self.agents[to];
                if let Some(local) = agent.locals.get_mut(&segment) {
                    if let (Some(Origin::Peer(peer)), End::Refused, false) =
                        (local.plan.origin(), end, local.peeks)
                    {
                        self.refusals += 1;
                        agent.fellows.refused(&self::segment(segment).object, &peer, now);
                    }
                    local.plan.ended(attempt, end);
                    self.step(to, segment);
                }
            }
            Event::Outside { agent, segment, attempt, upto } => {
                let one = &mut self.agents[agent];
                if !one.alive {
                    return;
                }
                let lie = one.lies;
                self.outside_blocks += 1;
                self.arrived(agent, segment, attempt, upto, lie, None);
                if upto < LEN {
                    self.outside(agent, segment, attempt, upto);
                }
            }
            Event::Look { agent, segment } => {
                if let Some(local) = self.agents[agent].locals.get_mut(&segment) {
                    local.look_at = None;
                }
                self.step(agent, segment);
            }
            Event::Beat(n) => self.beat(n),
        }
    }

    fn want_more(&mut self, n: usize) {
        loop {
            let agent = &mut self.agents[n];
            let open = agent.locals.values().filter(|l| l.wanted).count() - {
                let done = &agent.done;
                agent.locals.iter().filter(|(s, l)| l.wanted && done.contains(s)).count()
            };
            if !agent.alive || open >= PARALLEL || agent.next_wanted >= self.segments {
                return;
            }
            let index = agent.next_wanted;
            agent.next_wanted += 1;
            if let Some(local) = agent.locals.get_mut(&index) {
                local.wanted = true;
                self.step(n, index);
                continue;
            }
            let plan = self.plan(n, 0);
            let local = Local {
                plan,
                wanted: true,
                lie: false,
                supplier: None,
                relays: Vec::new(),
                look_at: None,
                peeks: false,
            };
            self.agents[n].locals.insert(index, local);
            self.step(n, index);
        }
    }

    fn plan(&self, n: usize, have: u64) -> Follow {
        Follow::new(self.agents[n].id, Some(LEN), have, FollowConfig::default())
    }

    fn turns(&self, n: usize, index: u32) -> Vec<Turn> {
        let agent = &self.agents[n];
        let segment = segment(index);
        let usable = |peer: &PeerId| agent.fellows.usable(&segment.object, peer, self.now);
        let ranking = agent.homes.ranking(&segment, OUTSIDE, RANKED_MAX, usable);
        agent.homes.turns(&ranking, self.now)
    }

    fn index_of(&self, peer: &PeerId) -> usize {
        let place = self.agents.iter().position(|agent| agent.id == *peer);
        place.unwrap_or_else(|| unreachable!("only agents of this world are ranked"))
    }

    fn step(&mut self, n: usize, index: u32) {
        let now = self.now;
        if !self.agents[n].alive {
            return;
        }
        let turns = self.turns(n, index);
        let Some(local) = self.agents[n].locals.get_mut(&index) else { return };
        match local.plan.next(now, || turns) {
            Step::Fetch { attempt, origin: Origin::Outside, from, .. } => {
                local.supplier = None;
                self.outside(n, index, attempt, from);
            }
            Step::Fetch { attempt, origin: Origin::Peer(peer), held, from } => {
                local.peeks = held;
                let home = self.index_of(&peer);
                let what = (index, held);
                self.at(LAN, Event::Asked { home, from: n, what, attempt, at: from });
            }
            Step::Complete => self.complete(n, index),
            Step::Absent => unreachable!("the outside has everything"),
            Step::Failed => {
                let plan = self.plan(n, 0);
                if let Some(local) = self.agents[n].locals.get_mut(&index) {
                    local.plan = plan;
                    local.lie = false;
                }
                self.at(Duration::from_millis(200), Event::Look { agent: n, segment: index });
                return;
            }
            Step::Wait => {}
        }
        if let Some(local) = self.agents[n].locals.get_mut(&index)
            && let Some(wake) = local.plan.wake_at()
            && local.look_at.is_none()
        {
            local.look_at = Some(wake);
            let after = wake.since(now) + Duration::from_micros(1);
            self.at(after, Event::Look { agent: n, segment: index });
        }
    }

    /// The next block from outside, over the one line.
    fn outside(&mut self, agent: usize, segment: u32, attempt: Attempt, from: u64) {
        let first = if from == 0 { WAN } else { Duration::ZERO };
        let start = self.wan_free.max(self.now + first);
        self.wan_free = start + WAN_BLOCK;
        let after = self.wan_free.since(self.now);
        self.at(after, Event::Outside { agent, segment, attempt, upto: from + BLOCK });
    }

    fn asked(
        &mut self,
        home: usize,
        from: usize,
        (index, held): (u32, bool),
        attempt: Attempt,
        at: u64,
    ) {
        let asker = self.agents[from].id;
        let agent = &mut self.agents[home];
        if !agent.alive || agent.stalled {
            return;
        }
        let here = agent.locals.get(&index);
        if held && !here.is_some_and(|local| local.plan.have() >= LEN || local.plan.is_outside()) {
            self.at(LAN, Event::Over { to: from, segment: index, attempt, end: End::Refused });
            return;
        }
        let fresh = here.is_none();
        let refused = match agent.duty.ask(asker, fresh) {
            Verdict::Welcome if agent.elsewhere => {
                agent.duty.done(&asker);
                Some(End::Refused)
            }
            Verdict::Welcome => None,
            Verdict::Busy => Some(End::Busy),
            Verdict::Unwilling => Some(End::Refused),
        };
        if let Some(end) = refused {
            self.at(LAN, Event::Over { to: from, segment: index, attempt, end });
            return;
        }
        let local = agent.locals.entry(index).or_insert_with(|| Local {
            plan: Follow::home(agent.id, asker, Some(LEN), 0, FollowConfig::default()),
            wanted: false,
            lie: false,
            supplier: None,
            relays: Vec::new(),
            look_at: None,
            peeks: false,
        });
        local.relays.push(Relay { to: from, attempt, sent: at });
        local.plan.relied_on_by(&asker);
        self.step(home, index);
        self.relay(home, index);
    }

    /// Hands on what is there.
    fn relay(&mut self, home: usize, index: u32) {
        let mut tell = Vec::new();
        let Some(local) = self.agents[home].locals.get_mut(&index) else { return };
        let (have, lie) = (local.plan.have(), local.lie);
        for relay in &mut local.relays {
            if relay.sent < have {
                relay.sent = have;
                tell.push((relay.to, relay.attempt));
            }
        }
        for (to, attempt) in tell {
            self.at(LAN, Event::Told { to, segment: index, attempt, upto: have, lie });
        }
        let agent = &mut self.agents[home];
        if let Some(local) = agent.locals.get_mut(&index) {
            let ended: Vec<usize> =
                local.relays.extract_if(.., |relay| relay.sent >= LEN).map(|r| r.to).collect();
            for to in ended {
                let id = self.agents[to].id;
                self.agents[home].duty.done(&id);
            }
        }
    }

    fn told(&mut self, to: usize, index: u32, attempt: Attempt, upto: u64, lie: bool) {
        if !self.agents[to].alive {
            return;
        }
        self.arrived(to, index, attempt, upto, lie, Some(()));
    }

    fn arrived(
        &mut self,
        n: usize,
        index: u32,
        attempt: Attempt,
        upto: u64,
        lie: bool,
        from_peer: Option<()>,
    ) {
        let now = self.now;
        let before = match self.agents[n].locals.get(&index) {
            Some(local) => (local.plan.have(), local.plan.origin()),
            None => return,
        };
        let supplier = match before.1 {
            Some(Origin::Peer(peer)) if from_peer.is_some() => Some(self.index_of(&peer)),
            _ => None,
        };
        let Some(local) = self.agents[n].locals.get_mut(&index) else { return };
        if upto > before.0 {
            local.plan.progress(attempt, upto, now);
        } else {
            local.plan.waiting(attempt, now);
        }
        if local.plan.have() > before.0 {
            local.lie |= lie;
            local.supplier = supplier;
            self.relay(n, index);
        }
        self.step(n, index);
    }

    fn complete(&mut self, n: usize, index: u32) {
        let lies = self.agents[n].lies;
        if self.agents[n].done.contains(&index) {
            return;
        }
        let Some(local) = self.agents[n].locals.get_mut(&index) else { return };
        // The check at the end: what is wrong is fetched again, and not from that peer.
        if local.lie && !lies {
            let supplier = local.supplier.take().map(|supplier| self.agents[supplier].id);
            let Some(local) = self.agents[n].locals.get_mut(&index) else { return };
            local.lie = false;
            let relays = std::mem::take(&mut local.relays);
            if let Some(liar) = supplier {
                self.agents[n].fellows.wrong(&segment(index).object, &liar);
            }
            let plan = self.plan(n, 0);
            if let Some(local) = self.agents[n].locals.get_mut(&index) {
                local.plan = plan;
            }
            for relay in relays {
                let id = self.agents[relay.to].id;
                self.agents[n].duty.done(&id);
            }
            self.step(n, index);
            return;
        }
        if local.wanted {
            self.agents[n].done.insert(index);
            self.want_more(n);
        }
    }

    /// What waits says so.
    fn beat(&mut self, n: usize) {
        let agent = &self.agents[n];
        if !agent.alive {
            return;
        }
        let mut tell = Vec::new();
        if !agent.stalled {
            for (index, local) in &agent.locals {
                for relay in &local.relays {
                    tell.push((relay.to, *index, relay.attempt));
                }
            }
        }
        for (to, segment, attempt) in tell {
            self.at(LAN, Event::Told { to, segment, attempt, upto: 0, lie: false });
        }
        self.at(Duration::from_millis(400), Event::Beat(n));
    }
}
