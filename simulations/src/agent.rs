//! One simulated agent: the swarm's state machines and the little around them that the resolver's engine has.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasherDefault;

use haulout_swarm::holdings::{Ledger, Version};
use haulout_swarm::peers::{PeerTable, State};
use haulout_swarm::plan::{NarPlan, RequestId};
use haulout_swarm::site::{Attempt, Duty, DutyLimits, End, Fellows, Follow};
use haulout_swarm::{Now, PeerId};
use smallvec::SmallVec;

use crate::event::Parcel;
use crate::fleet::{Fleet, Machine};
use crate::net::{Nanos, OUTSIDE};
use crate::random::Spreading;

/// Store paths that Nix fetches side by side (`max-substitution-jobs`).
pub(crate) const JOBS_MAX: usize = 16;
/// narinfos it asks for side by side (`http-connections`).
pub(crate) const INFOS_MAX: usize = 25;

/// Names an attempt of one of all plans that an agent ever makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Try {
    pub(crate) plan: u32,
    pub(crate) attempt: Attempt,
}

/// A peer that gets a piece from here.
pub(crate) struct Relay {
    pub(crate) to: u32,
    pub(crate) attempt: Try,
    pub(crate) sent: u32,
    /// Parcels under way to it.
    pub(crate) flying: u8,
}

/// A piece that comes from outside, or from a holder of its NAR, to this agent.
pub(crate) struct Inflow {
    pub(crate) attempt: Try,
    pub(crate) sent: u32,
    pub(crate) flying: u8,
    /// Who is asked that holds the NAR, and since when.
    pub(crate) holder: Option<(u32, Nanos)>,
    /// Who was.
    pub(crate) tried: SmallVec<[u32; 2]>,
}

/// Whom the bytes of a piece came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Supplier {
    Nobody,
    Only(u32),
    Several,
}

impl Supplier {
    pub(crate) fn and(self, from: u32) -> Self {
        match self {
            Self::Nobody => Self::Only(from),
            Self::Only(other) if other == from => self,
            Self::Only(_) | Self::Several => Self::Several,
        }
    }
}

/// How a piece is being fetched.
pub(crate) struct Filling {
    pub(crate) plan: Follow,
    /// The peer that is asked now, when it was last heard, and whether the peer table knows of the question.
    pub(crate) asked: Option<(u32, Try, Nanos, bool)>,
    pub(crate) inflow: Option<Inflow>,
    pub(crate) failed_at: Option<Nanos>,
}

/// What is here of a piece. There are millions in a large run, nearly all of them complete: those are small.
pub(crate) struct Local {
    /// Number of the plan among all that this agent makes.
    pub(crate) number: u32,
    /// Bytes, once it is complete.
    have: u32,
    /// `None`: it is complete.
    pub(crate) filling: Option<Box<Filling>>,
    /// This agent wants it itself.
    pub(crate) wanted: bool,
    /// It has had it.
    pub(crate) read: bool,
    /// It is fetched because a peer asked, and counts among those.
    pub(crate) on_duty: bool,
    /// Some of it came from outside.
    pub(crate) fetched: bool,
    /// It is on the disk, and not in memory.
    pub(crate) on_disk: bool,
    /// It is taken only from who has it, and nobody goes outside for it.
    pub(crate) kept: bool,
    /// Something in it is wrong (only the simulation knows).
    pub(crate) bad: bool,
    pub(crate) supplier: Supplier,
    /// Sum of the content, see [`crate::catalog::content`].
    pub(crate) sum: u64,
    /// Ascending by `to`.
    pub(crate) relays: Vec<Relay>,
    /// Who has had what was fetched from outside, see [`crate::keep::GIVEN_MAX`].
    pub(crate) given: Vec<u32>,
    /// When it was last of use.
    pub(crate) touched: Nanos,
}

impl Local {
    pub(crate) fn new(plan: (Follow, u32), wanted: bool, now: Nanos) -> Self {
        let filling = Filling { plan: plan.0, asked: None, inflow: None, failed_at: None };
        Self {
            number: plan.1,
            have: 0,
            filling: Some(Box::new(filling)),
            wanted,
            read: false,
            on_duty: !wanted,
            fetched: false,
            on_disk: false,
            kept: false,
            bad: false,
            supplier: Supplier::Nobody,
            sum: 0,
            relays: Vec::new(),
            given: Vec::new(),
            touched: now,
        }
    }

    /// One that was read from this machine's store.
    pub(crate) fn stored(len: u32, sum: u64, now: Nanos) -> Self {
        Self {
            number: 0,
            have: len,
            filling: None,
            wanted: false,
            read: true,
            on_duty: false,
            fetched: false,
            on_disk: false,
            kept: false,
            bad: false,
            supplier: Supplier::Nobody,
            sum,
            relays: Vec::new(),
            given: Vec::new(),
            touched: now,
        }
    }

    /// Bytes of it that are here.
    pub(crate) fn have(&self) -> u64 {
        let here = u64::from(self.have);
        self.filling.as_ref().map_or(here, |filling| filling.plan.have())
    }

    pub(crate) const fn is_complete(&self) -> bool {
        self.filling.is_none()
    }

    /// Whether the last plan came to nothing.
    pub(crate) fn has_failed(&self) -> bool {
        self.filling.as_ref().is_some_and(|filling| filling.failed_at.is_some())
    }

    /// All of it is here. Returns how it was fetched.
    pub(crate) fn complete(&mut self) -> Option<Box<Filling>> {
        self.have = self.have() as u32;
        self.filling.take()
    }

    /// Nobody reads or fills it.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_complete() && self.relays.is_empty() && !self.wanted
    }

    /// The attempt, if it is one of the present plan.
    pub(crate) fn of(&self, tried: Try) -> Option<Attempt> {
        (tried.plan == self.number).then_some(tried.attempt)
    }

    /// A peer is heard, or says that it waits.
    pub(crate) fn waiting(&mut self, tried: Try, now: Now) {
        if let (Some(attempt), Some(filling)) = (self.of(tried), &mut self.filling) {
            filling.plan.waiting(attempt, now);
        }
    }

    /// Bytes up to `upto` are here.
    pub(crate) fn progress(&mut self, tried: Try, upto: u64, now: Now) {
        if let (Some(attempt), Some(filling)) = (self.of(tried), &mut self.filling) {
            filling.plan.progress(attempt, upto, now);
        }
    }

    /// An attempt is over.
    pub(crate) fn ended(&mut self, tried: Try, end: End) {
        if let (Some(attempt), Some(filling)) = (self.of(tried), &mut self.filling) {
            filling.plan.ended(attempt, end);
        }
    }

    /// Notes where bytes came from.
    pub(crate) fn came_from(&mut self, from: u32) {
        self.supplier = self.supplier.and(from);
        self.fetched |= from == OUTSIDE;
    }

    /// A peer has had all of it.
    pub(crate) fn had(&mut self, peer: u32) {
        if self.fetched && self.given.len() < crate::keep::GIVEN_MAX && !self.given.contains(&peer)
        {
            self.given.push(peer);
        }
    }

    pub(crate) fn drop_relay(&mut self, to: u32, attempt: Try) -> bool {
        match self.relays.binary_search_by_key(&to, |relay| relay.to) {
            Ok(place) if self.relays[place].attempt == attempt => {
                self.relays.remove(place);
                true
            }
            _ => false,
        }
    }
}

/// A request to a holder.
pub(crate) struct Request {
    pub(crate) asked: Nanos,
    pub(crate) offset: u64,
}

/// A NAR from peers that have it in their stores.
pub(crate) struct FromPeers {
    pub(crate) plan: NarPlan<u32>,
    pub(crate) open: BTreeMap<RequestId, Request>,
    pub(crate) failed: BTreeSet<u32>,
    pub(crate) sum: u64,
    pub(crate) looked_at: Nanos,
}

/// A NAR's file through the site.
#[derive(Default)]
pub(crate) struct FromSite {
    /// Only from who has them: others hold the NAR.
    pub(crate) kept: bool,
    /// Segments begun, and complete.
    pub(crate) begun: u32,
    pub(crate) complete: u32,
    /// Whether each added up, and from whom it is.
    pub(crate) wrong: bool,
    pub(crate) suppliers: SmallVec<[(u32, Supplier, bool); 2]>,
}

/// A NAR from those that hold it, together with others that fetch it.
#[derive(Default)]
pub(crate) struct FromFellows {
    /// Pieces begun, and complete.
    pub(crate) begun: u32,
    pub(crate) complete: u32,
    /// Times that bytes were wrong.
    pub(crate) wrongs: u32,
}

pub(crate) enum Way {
    Peers(Box<FromPeers>),
    Fellows(FromFellows),
    Site(FromSite),
    /// Fetched again straight from outside, to find out who lied.
    Compare {
        left: u32,
        suspects: SmallVec<[(u32, Supplier, bool); 2]>,
    },
}

/// A store path that Nix waits for.
pub(crate) struct Job {
    /// Tells answers to an earlier try of the same path.
    pub(crate) epoch: u32,
    pub(crate) way: Way,
    pub(crate) tries: u32,
}

/// What one agent did and bore.
#[derive(Clone, Copy, Default)]
pub(crate) struct Load {
    pub(crate) up: u64,
    pub(crate) down: u64,
    pub(crate) wan: u64,
    /// Highest of [`Agent::held`] and the windows of NARs.
    pub(crate) memory: u64,
    /// Highest of [`Agent::on_disk`].
    pub(crate) disk: u64,
    pub(crate) relays: u32,
    /// Holdings, both directions, in bytes and messages.
    pub(crate) holdings: u64,
    pub(crate) messages: u64,
}

pub(crate) struct Agent {
    pub(crate) id: PeerId,
    pub(crate) on: bool,
    pub(crate) hangs: bool,
    pub(crate) lies: bool,
    /// Which view of the site it has.
    pub(crate) view: u32,
    pub(crate) table: PeerTable,
    /// Of the peers in the table: who has been asked and not heard since, and who was ever banned. All others may be asked, and
    /// most questions are about them.
    pub(crate) owing: BTreeSet<u32>,
    pub(crate) banned: BTreeSet<u32>,
    pub(crate) duty: Duty,
    /// How those fared that fetch at the same time.
    pub(crate) fellows: Fellows,
    /// Paths that Nix asked about and peers hold; until when this agent counts as one that fetches; how often it said so.
    pub(crate) fetches: Vec<bool>,
    pub(crate) fetching_until: Nanos,
    pub(crate) standings: u32,
    pub(crate) locals: HashMap<u32, Local, BuildHasherDefault<Spreading>>,
    /// Those that are not complete, or that somebody gets from here.
    pub(crate) active: BTreeSet<u32>,
    /// Bytes in `locals`: in memory, and on the disk.
    pub(crate) held: u64,
    pub(crate) on_disk: u64,
    /// Paths wanted, in Nix' order; how many were begun; paths in the store that this run is about.
    pub(crate) wanted: Vec<u32>,
    pub(crate) next: usize,
    pub(crate) stored: Vec<bool>,
    pub(crate) got: usize,
    /// narinfos known; how many were asked for, and how many are open.
    pub(crate) infos: Vec<bool>,
    /// Paths whose narinfo is known as the cache outside has it, with the name of the file.
    pub(crate) files: Vec<bool>,
    pub(crate) infos_next: usize,
    pub(crate) infos_open: BTreeSet<u32>,
    pub(crate) jobs: BTreeMap<u32, Job>,
    pub(crate) epoch: u32,
    pub(crate) plans: u32,
    /// What waits to be sent, by connection: parcels under way, and those after them.
    pub(crate) sending: BTreeMap<u32, (u8, VecDeque<Parcel>)>,
    pub(crate) ledger: Ledger,
    pub(crate) told: Option<Version>,
    pub(crate) announcing: bool,
    pub(crate) ticking: bool,
    pub(crate) sweeping: bool,
    /// Since when it sees the others of its view.
    pub(crate) came_at: Nanos,
    pub(crate) progress_at: Nanos,
    pub(crate) finished: Option<Nanos>,
    pub(crate) load: Load,
}

/// How much an agent does for others at once. To a gateway they come over HTTP, many streams on one connection each.
pub(crate) fn limits(gateway: bool) -> DutyLimits {
    match gateway {
        false => DutyLimits::default(),
        true => DutyLimits { streams: u32::MAX, streams_per_peer: u32::MAX, fetches: u32::MAX },
    }
}

impl Agent {
    pub(crate) fn new(fleet: &Fleet, machine: &Machine, random: u64) -> Self {
        let paths = fleet.catalog.paths.len();
        let mut stored = vec![false; paths];
        let list = &fleet.lists[machine.role as usize];
        list.iter().take(machine.has as usize).for_each(|path| stored[*path as usize] = true);
        Self {
            id: machine.id,
            on: false,
            hangs: false,
            lies: machine.lies,
            view: 0,
            table: PeerTable::new(),
            owing: BTreeSet::new(),
            banned: BTreeSet::new(),
            duty: Duty::new(limits(machine.gateway), machine.willing),
            fellows: Fellows::new(),
            fetches: vec![false; paths],
            fetching_until: 0,
            standings: 0,
            locals: HashMap::default(),
            active: BTreeSet::new(),
            held: 0,
            on_disk: 0,
            wanted: fleet.wanted(machine).to_vec(),
            next: 0,
            stored,
            got: 0,
            infos: vec![false; paths],
            files: vec![false; paths],
            infos_next: 0,
            infos_open: BTreeSet::new(),
            jobs: BTreeMap::new(),
            epoch: 0,
            plans: 0,
            sending: BTreeMap::new(),
            ledger: Ledger::new(random),
            told: None,
            announcing: false,
            ticking: false,
            sweeping: false,
            came_at: 0,
            progress_at: 0,
            finished: None,
            load: Load::default(),
        }
    }

    /// A number for the next plan.
    pub(crate) fn number(&mut self) -> u32 {
        self.plans += 1;
        self.plans
    }

    pub(crate) fn is_done(&self) -> bool {
        self.got == self.wanted.len()
    }

    /// Whether the mesh would ask this peer to be a home: only what everybody sees alike counts, whether it is there. One that
    /// owes an answer is, as long as packets come from it.
    pub(crate) fn may_be_home(
        &self,
        (n, id): (u32, &PeerId),
        is_mute: impl FnOnce() -> bool,
        now: Now,
    ) -> bool {
        if !self.owing.contains(&n) && !self.banned.contains(&n) {
            return true;
        }
        match self.table.state(id, now) {
            Some(State::Banned { .. }) => false,
            Some(State::Silent { .. }) => !is_mute(),
            _ => true,
        }
    }

    /// A peer owes an answer.
    pub(crate) fn asked(&mut self, n: u32, id: &PeerId, now: Now) {
        self.owing.insert(n);
        self.table.asked(id, now);
    }

    /// Something came from a peer. Of one that owes nothing the table need not be told.
    pub(crate) fn heard(&mut self, n: u32, id: &PeerId, now: Now) {
        if self.owing.remove(&n) {
            self.table.heard(id, now);
        }
    }

    /// Bytes that the transfers of NARs from peers may hold.
    pub(crate) fn windows(&self) -> u64 {
        self.jobs
            .values()
            .map(|job| match &job.way {
                Way::Peers(peers) => peers.plan.size().min(crate::nars::WINDOW),
                Way::Site(_) | Way::Fellows(_) | Way::Compare { .. } => 0,
            })
            .sum()
    }
}
