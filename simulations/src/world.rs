//! The site in virtual time: what happens when, and to whom.

use std::time::Duration;

use haulout_swarm::site::{Duty, DutyLimits};
use haulout_swarm::{Now, PeerId};

use crate::agent::Agent;
use crate::check::Broken;
use crate::event::{Cargo, Event, Parcel, touched};
use crate::fleet::Fleet;
use crate::net::{MILLI, Nanos, Net, OUTSIDE, Passed, SECOND, Way};
use crate::queue::Queue;
use crate::random::{Random, mix};
use crate::view::View;

/// The one place outside that all are configured for.
pub(crate) const OUTSIDE_TAG: u32 = 77;
/// How often an agent with something under way looks after it.
const TICK: Nanos = 200 * MILLI;
/// What a message costs besides its bytes: Ethernet, IP, UDP and QUIC headers, and a share of an acknowledgement.
pub(crate) const MESSAGE_OVERHEAD: u64 = 14 + 20 + 8 + 30 + 30;

/// What a run counts.
#[derive(Default)]
pub(crate) struct Totals {
    /// Bytes taken for right that are wrong. Must stay 0.
    pub(crate) wrong_bytes: u64,
    pub(crate) lies_caught: u64,
    pub(crate) honest_banned: u64,
    pub(crate) liars_banned: u64,
    pub(crate) busy: u64,
    pub(crate) outside_fetches: u64,
    /// Of these: asked as home, asked as a stand-in, wanted as its own home, and wanted after peers had failed.
    pub(crate) fetches_why: [u64; 4],
    /// Questions for what a peer has, before going outside.
    pub(crate) peeks: u64,
    pub(crate) pieces_relayed: u64,
    pub(crate) nars_from_peers: u64,
    pub(crate) nars_from_fellows: u64,
    pub(crate) nars_from_site: u64,
    pub(crate) nars_kept: u64,
    pub(crate) kept_asked: u64,
    pub(crate) kept_missing: u64,
    pub(crate) retries: u64,
    pub(crate) relays_peak: u32,
    /// Holdings bytes in the busiest second, over all agents.
    pub(crate) holdings_peak: u64,
    pub(crate) snapshot_bytes: u64,
    pub(crate) delta_bytes: u64,
    pub(crate) deltas: u64,
}

pub(crate) struct World<'f> {
    pub(crate) fleet: &'f Fleet,
    pub(crate) net: Net,
    queue: Queue<Event>,
    pub(crate) now: Nanos,
    pub(crate) step: u64,
    pub(crate) random: Random,
    pub(crate) agents: Vec<Agent>,
    pub(crate) views: Vec<View>,
    pub(crate) gateway: Option<u32>,
    pub(crate) split: bool,
    pub(crate) outage: bool,
    pub(crate) lives: Vec<u32>,
    pub(crate) totals: Totals,
    /// Seconds and bytes from outside by then.
    pub(crate) samples: Vec<(f64, u64)>,
    sampled: Nanos,
    pub(crate) holdings_second: (u64, u64),
    pub(crate) trace: u64,
    unfinished: u32,
    /// Takes lies for truth, or starves a machine: so that tests see the checks fail.
    pub(crate) sabotage: Option<Sabotage>,
}

/// A fault in the simulated agents themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Sabotage {
    /// Nothing is verified.
    Believe,
    /// Machine 1 is never served.
    Starve,
    /// Nothing is ever let go of.
    Hoard,
    /// The disk takes whatever it is given.
    Fill,
    /// Peers are served without limit.
    Serve,
    /// All NARs are begun at once.
    Rush,
}

impl<'f> World<'f> {
    pub(crate) fn new(fleet: &'f Fleet) -> Self {
        let mut random = Random::new(fleet.seed, 2);
        let agents: Vec<Agent> =
            fleet.machines.iter().map(|one| Agent::new(fleet, one, random.next())).collect();
        let mut world = Self {
            net: Net::new(fleet),
            queue: Queue::new(),
            now: 0,
            step: 0,
            random,
            views: Vec::new(),
            gateway: fleet.machines.iter().position(|one| one.gateway).map(|n| n as u32),
            split: false,
            outage: false,
            lives: vec![0; agents.len()],
            totals: Totals::default(),
            samples: vec![(0.0, 0)],
            sampled: 0,
            holdings_second: (0, 0),
            trace: fleet.seed,
            unfinished: 0,
            agents,
            fleet,
            sabotage: None,
        };
        // Two views for each subnet: the second for the other half while the network is split.
        for _ in 0..2 * fleet.subnets {
            world.views.push(View::new(fleet.catalog.pieces.len()));
        }
        for (number, machine) in (0..).zip(&fleet.machines) {
            world.unfinished += u32::from(!machine.gateway);
            world.at(machine.start, Event::Start(number));
        }
        for (at, number, blow) in &fleet.blows {
            world.at(*at, Event::Blow(*number, *blow));
        }
        world
    }

    /// The same with a fault in all agents.
    pub(crate) fn sabotaged(mut self, sabotage: Option<Sabotage>) -> Self {
        self.sabotage = sabotage;
        if sabotage == Some(Sabotage::Serve) {
            let most =
                DutyLimits { streams: u32::MAX, streams_per_peer: u32::MAX, fetches: u32::MAX };
            for (agent, machine) in self.agents.iter_mut().zip(&self.fleet.machines) {
                agent.duty = Duty::new(most, machine.willing);
            }
        }
        self
    }

    pub(crate) fn at(&mut self, at: Nanos, event: Event) {
        self.queue.push(at.max(self.now), event);
    }

    pub(crate) const fn clock(&self) -> Now {
        now_of(self.now)
    }

    /// Runs until everybody has everything, or `until`.
    pub(crate) fn run(&mut self, until: Nanos) -> Result<(), Broken> {
        while self.unfinished > 0
            && let Some((at, number, event)) = self.queue.pop()
        {
            if at > until {
                break;
            }
            self.now = at;
            self.step += 1;
            self.trace = mix(self.trace ^ mix(at) ^ number);
            let touched = touched(&event);
            self.handle(event)?;
            if let Some(agent) = touched {
                self.check(agent)?;
            }
            if self.now >= self.sampled {
                self.sample();
            }
        }
        self.samples.push((self.now as f64 / SECOND as f64, self.net.wan_bytes()));
        self.check_end()
    }

    fn sample(&mut self) {
        let seconds = self.now as f64 / SECOND as f64;
        self.samples.push((seconds, self.net.wan_bytes()));
        // Finely at first: the picture's axis is logarithmic.
        self.sampled = self.now + (self.now / 64).max(100 * MILLI);
    }

    fn handle(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::Start(n) => self.start(n),
            Event::GoOn(n) => self.go_on(n),
            Event::Tick(n) => self.tick(n)?,
            Event::Blow(n, blow) => self.blow(n, blow),
            Event::Forgotten(n, life) => {
                if self.lives[n as usize] == life {
                    self.forget(n);
                }
            }
            Event::Sides(apart) => self.sides(apart),
            Event::Announce(n) => self.announce(n),
            Event::Sweep(n) => self.sweep(n),
            Event::Asked { home, from, piece, held, attempt, at } => {
                self.asked(home, from, (piece, held), attempt, at);
            }
            Event::Answered { to, piece, attempt } => self.answered(to, piece, attempt),
            Event::Over { to, piece, attempt, end } => self.over(to, piece, attempt, end),
            Event::Stop { home, from, piece, attempt } => self.stop(home, from, piece, attempt),
            Event::InfosAsked { holder, from, path } => self.infos_asked(holder, from, path),
            Event::InfosTold { to, holder, path, yes } => self.infos_told(to, holder, path, yes),
            Event::InfosLate { to, holder, path, last } => {
                self.infos_late(to, (holder, path), last);
            }
            Event::InfoOutside { to, path } => self.info_known(to, path),
            Event::NarAsked { holder, from, path, epoch, id, len } => {
                self.nar_asked(holder, from, path, epoch, (id, len));
            }
            Event::Lapse(n) => self.lapse(n),
            Event::PartAsked { holder, from, piece, attempt, at } => {
                self.part_asked(holder, from, piece, attempt, at);
            }
            Event::Parcel { parcel, line } => self.pass(parcel, line),
            Event::Arrived(parcel) => self.arrived(parcel)?,
        }
        Ok(())
    }

    // ---- bytes and messages ----

    /// Whether what one sends reaches the other.
    pub(crate) fn reaches(&self, from: u32, to: u32) -> bool {
        let apart = self.split
            && self.fleet.machines[from as usize].half != self.fleet.machines[to as usize].half;
        self.agents[from as usize].on && self.agents[to as usize].on && !apart
    }

    /// Whether nothing at all comes from a peer.
    pub(crate) fn is_mute(&self, peer: u32, to: u32) -> bool {
        !self.reaches(peer, to) || self.agents[peer as usize].hangs
    }

    /// Sends a small message.
    pub(crate) fn message(&mut self, from: u32, to: u32, event: Event) {
        if self.reaches(from, to) {
            let takes = self.net.message(Way { from, to });
            self.at(self.now + takes, event);
        }
    }

    /// Sends bytes.
    pub(crate) fn ship(&mut self, parcel: Parcel) {
        if parcel.from != OUTSIDE {
            self.agents[parcel.from as usize].load.up += u64::from(parcel.bytes);
        }
        self.pass(parcel, 0);
    }

    fn pass(&mut self, parcel: Parcel, line: u8) {
        let way = Way { from: parcel.from, to: parcel.to };
        let sparse = match parcel.what {
            Cargo::Piece { piece, .. } => (piece as usize) < self.fleet.catalog.paths.len(),
            _ => false,
        };
        match self.net.pass(way, line, u64::from(parcel.bytes), self.now, sparse) {
            Passed::Next(at) => self.at(at, Event::Parcel { parcel, line: line + 1 }),
            Passed::Arrives(at) => self.at(at, Event::Arrived(parcel)),
        }
    }

    fn arrived(&mut self, parcel: Parcel) -> Result<(), Broken> {
        let to = &mut self.agents[parcel.to as usize];
        to.load.down += u64::from(parcel.bytes);
        if parcel.from == OUTSIDE {
            to.load.wan += u64::from(parcel.bytes);
        }
        match parcel.what {
            Cargo::Piece { .. } => self.piece_arrived(parcel),
            Cargo::Nar { path, epoch, id, answer } => {
                self.nar_arrived((parcel.from, parcel.to), (path, epoch, id), answer)
            }
            Cargo::Part { .. } => self.part_arrived(parcel),
            Cargo::Compared { path, epoch } => self.compared(parcel.to, path, epoch),
        }
    }

    // ---- looking after things ----

    /// Has the agent do what it can, and look after it from time to time.
    pub(crate) fn go_on(&mut self, n: u32) {
        self.want_infos(n);
        self.start_jobs(n);
        self.keep_ticking(n);
    }

    pub(crate) fn keep_ticking(&mut self, n: u32) {
        let agent = &mut self.agents[n as usize];
        if !agent.ticking {
            agent.ticking = true;
            // Not all in the same instant.
            let at = self.now + TICK / 2 + self.random.below(TICK);
            self.at(at, Event::Tick(n));
        }
    }

    fn tick(&mut self, n: u32) -> Result<(), Broken> {
        let agent = &mut self.agents[n as usize];
        agent.ticking = false;
        if !agent.on || agent.hangs {
            return Ok(());
        }
        self.check_progress(n)?;
        self.beat(n);
        self.look_after_pieces(n);
        self.look_after_jobs(n)?;
        let agent = &mut self.agents[n as usize];
        let memory = agent.held + agent.windows();
        agent.load.memory = agent.load.memory.max(memory);
        if !agent.is_done() || !agent.active.is_empty() {
            agent.ticking = true;
            self.at(self.now + TICK, Event::Tick(n));
        }
        Ok(())
    }

    pub(crate) fn finish(&mut self, n: u32) {
        let gateway = self.fleet.machines[n as usize].gateway;
        let agent = &mut self.agents[n as usize];
        if agent.finished.is_none() && !gateway {
            agent.finished = Some(self.now);
            self.unfinished -= 1;
        }
    }

    /// Whether faults may still hold things up.
    pub(crate) fn is_calm(&self) -> bool {
        self.now > self.fleet.calm + crate::life::IDLE
    }
}

/// The key of a machine.
pub(crate) fn id_of(fleet: &Fleet, n: u32) -> PeerId {
    fleet.machines[n as usize].id
}

pub(crate) const fn now_of(at: Nanos) -> Now {
    Now::from_start(Duration::from_nanos(at))
}

pub(crate) fn nanos_of(span: Duration) -> Nanos {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
