//! One simulated agent: the swarm's state machines and the little around them that the resolver's engine has.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use haulout_swarm::holdings::{Ledger, Version};
use haulout_swarm::peers::{PeerTable, State};
use haulout_swarm::plan::{NarPlan, RequestId};
use haulout_swarm::site::{Attempt, Duty, DutyLimits, Follow, KEPT_FOR};
use haulout_swarm::{Now, PeerId};
use smallvec::SmallVec;

use crate::fleet::{Fleet, Machine};
use crate::net::Nanos;
use crate::world::Parcel;

/// Bytes of pieces an agent keeps, and pieces in number: as the resolver's engine.
pub(crate) const KEPT_BYTES: u64 = 96 << 20;
/// Of these, what this agent fetched from outside is kept up to here, whatever else is under way.
pub(crate) const OWN_BYTES: u64 = 24 << 20;
pub(crate) const PIECES_MAX: usize = 4_096;
/// Store paths that Nix fetches side by side (`max-substitution-jobs`).
pub(crate) const JOBS_MAX: usize = 16;
/// narinfos it asks for side by side (`http-connections`).
pub(crate) const INFOS_MAX: usize = 25;

/// Complete pieces, the longest unused first.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) from_peers: VecDeque<u32>,
    pub(crate) from_outside: VecDeque<u32>,
}

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

/// A piece that comes from outside, to this agent.
pub(crate) struct Inflow {
    pub(crate) attempt: Try,
    pub(crate) sent: u32,
    pub(crate) flying: u8,
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

/// What is here of a piece.
pub(crate) struct Local {
    pub(crate) plan: Follow,
    /// Number of the plan among all that this agent makes.
    pub(crate) number: u32,
    /// This agent wants it itself.
    pub(crate) wanted: bool,
    /// It is fetched because a peer asked, and counts among those.
    pub(crate) on_duty: bool,
    /// Sum of the content, see [`crate::catalog::content`].
    pub(crate) sum: u64,
    /// Something in it is wrong (only the simulation knows).
    pub(crate) bad: bool,
    pub(crate) supplier: Supplier,
    /// Ascending by `to`.
    pub(crate) relays: Vec<Relay>,
    /// The peer that is asked now, when it was last heard, and whether the peer table knows of the question.
    pub(crate) asked: Option<(u32, Try, Nanos, bool)>,
    pub(crate) inflow: Option<Inflow>,
    /// Nobody wants it since then.
    pub(crate) idle_since: Nanos,
    pub(crate) failed_at: Option<Nanos>,
    pub(crate) complete: bool,
}

impl Local {
    pub(crate) fn new(plan: (Follow, u32), wanted: bool, now: Nanos) -> Self {
        Self {
            plan: plan.0,
            number: plan.1,
            wanted,
            on_duty: !wanted,
            sum: 0,
            bad: false,
            supplier: Supplier::Nobody,
            relays: Vec::new(),
            asked: None,
            inflow: None,
            idle_since: now,
            failed_at: None,
            complete: false,
        }
    }

    /// The attempt, if it is one of the present plan.
    pub(crate) fn of(&self, tried: Try) -> Option<Attempt> {
        (tried.plan == self.number).then_some(tried.attempt)
    }

    /// A peer is heard, or says that it waits.
    pub(crate) fn waiting(&mut self, tried: Try, now: Now) {
        if let Some(attempt) = self.of(tried) {
            self.plan.waiting(attempt, now);
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
    /// Segments begun, and complete.
    pub(crate) begun: u32,
    pub(crate) complete: u32,
    /// Whether each added up, and from whom it is.
    pub(crate) wrong: bool,
    pub(crate) suppliers: SmallVec<[(u32, Supplier, bool); 2]>,
}

pub(crate) enum Way {
    Peers(Box<FromPeers>),
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
    pub(crate) duty: Duty,
    pub(crate) locals: BTreeMap<u32, Local>,
    /// Those that are not complete, or that somebody gets from here.
    pub(crate) active: BTreeSet<u32>,
    /// Bytes in `locals`.
    pub(crate) held: u64,
    /// Complete pieces, the longest unused first.
    pub(crate) kept: Kept,
    /// Paths wanted, in Nix' order; how many were begun; paths in the store that this run is about.
    pub(crate) wanted: Vec<u32>,
    pub(crate) next: usize,
    pub(crate) stored: Vec<bool>,
    pub(crate) got: usize,
    /// narinfos known; how many were asked for, and how many are open.
    pub(crate) infos: Vec<bool>,
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
    /// Since when it sees the others of its view.
    pub(crate) came_at: Nanos,
    pub(crate) progress_at: Nanos,
    pub(crate) finished: Option<Nanos>,
    pub(crate) load: Load,
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
            duty: Duty::new(DutyLimits::default(), machine.willing),
            locals: BTreeMap::new(),
            active: BTreeSet::new(),
            held: 0,
            kept: Kept::default(),
            wanted: fleet.wanted(machine).to_vec(),
            next: 0,
            stored,
            got: 0,
            infos: vec![false; paths],
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
    pub(crate) fn may_be_home(&self, peer: &PeerId, is_mute: bool, now: Now) -> bool {
        match self.table.state(peer, now) {
            Some(State::Banned { .. }) => false,
            Some(State::Silent { .. }) => !is_mute,
            _ => true,
        }
    }

    /// Whether there is room for a piece for others; drops what nobody uses, the longest unused first.
    pub(crate) fn fits(&mut self) -> bool {
        if self.held > KEPT_BYTES || self.locals.len() > PIECES_MAX {
            self.make_room();
        }
        self.held <= KEPT_BYTES && self.locals.len() <= PIECES_MAX
    }

    /// A quarter at a time, so that it need not be done for every piece. What came from peers goes first: they have it, too.
    fn make_room(&mut self) {
        let mut kept = std::mem::take(&mut self.kept);
        for (queue, least) in [(&mut kept.from_peers, 0), (&mut kept.from_outside, OWN_BYTES)] {
            let mut used = VecDeque::new();
            let bytes = |piece: &u32| self.locals.get(piece).map_or(0, |local| local.plan.have());
            let mut left: u64 = queue.iter().map(bytes).sum();
            while self.held > KEPT_BYTES * 3 / 4 || self.locals.len() > PIECES_MAX * 3 / 4 {
                if left <= least {
                    break;
                }
                let Some(piece) = queue.pop_front() else { break };
                left -= self.locals.get(&piece).map_or(0, |local| local.plan.have());
                match self.locals.get(&piece) {
                    Some(local) if local.complete && local.relays.is_empty() => {
                        self.held -= local.plan.have();
                        self.locals.remove(&piece);
                    }
                    Some(local) if local.complete => used.push_back(piece),
                    _ => {}
                }
            }
            used.append(queue);
            *queue = used;
        }
        self.kept = kept;
    }

    /// Whether a piece has been kept for so long that the engine has dropped it meanwhile.
    pub(crate) fn has_expired(&self, piece: u32, now: Nanos) -> bool {
        let local = self.locals.get(&piece);
        local.is_some_and(|local| {
            let idle = local.complete && !local.wanted && local.relays.is_empty();
            idle && now >= local.idle_since + crate::world::nanos_of(KEPT_FOR)
        })
    }

    /// Bytes that the transfers of NARs from peers may hold.
    pub(crate) fn windows(&self) -> u64 {
        self.jobs
            .values()
            .map(|job| match &job.way {
                Way::Peers(peers) => peers.plan.size().min(crate::nars::WINDOW),
                Way::Site(_) | Way::Compare { .. } => 0,
            })
            .sum()
    }
}
