//! Room for pieces: what goes first when there is no more is the swarm's [`victims`] and [`Worth`]; what is owed to others
//! goes to the disk, as the engine's pieces do.

use haulout_swarm::site::{KEPT_FOR, Piece, Worth, victims};

use crate::agent::{Agent, Local};
use crate::catalog::Kind;
use crate::event::Event;
use crate::net::{Nanos, SECOND};
use crate::world::{Sabotage, World, nanos_of};

/// Bytes of pieces an agent keeps in memory, and pieces in number: as the engine.
pub(crate) const KEPT_BYTES: u64 = 96 << 20;
pub(crate) const PIECES_MAX: usize = 4_096;
/// Peers that are remembered to have had a piece, as in the engine.
pub(crate) const GIVEN_MAX: usize = 64;
/// Smaller pieces do not go to the disk.
const SPILL_MIN: u64 = 16 << 10;
/// Bytes on the disk for pieces that others still want (`site.spill`), and a gateway's cache of NARs (`cache.quota`).
pub(crate) const SPILL_BYTES: u64 = 1 << 30;
pub(crate) const CACHE_BYTES: u64 = 4 << 30;
/// How long a piece of a NAR is kept that others here hold anyway.
const NARS_KEPT_FOR: Nanos = 20 * SECOND;
/// How often it is looked what has been idle for too long.
const SWEEP: Nanos = 20 * SECOND;

/// Room of one agent.
#[derive(Clone, Copy)]
pub(crate) struct Room {
    /// Other agents that may want what is fetched here.
    others: usize,
    /// It keeps what it fetched for machines that are not its peers: it is a gateway.
    keeps_all: bool,
    /// A fault: the disk has no limit.
    endless: bool,
}

impl Room {
    fn disk(self) -> u64 {
        match (self.endless, self.keeps_all) {
            (true, _) => u64::MAX,
            (false, true) => CACHE_BYTES,
            (false, false) => SPILL_BYTES,
        }
    }

    fn worth(self, local: &Local) -> Worth {
        Worth::of(local.fetched, local.read, local.given.len(), self.others)
    }
}

impl World<'_> {
    /// Makes room, if need be, until what is kept fits into memory. False if it does not even so.
    pub(crate) fn fits(&mut self, n: u32) -> bool {
        let agent = &self.agents[n as usize];
        let fits = agent.held <= KEPT_BYTES && agent.locals.len() <= PIECES_MAX;
        if fits || self.sabotage == Some(Sabotage::Hoard) {
            return true;
        }
        // Who fetches for nobody wants what a home has as much as others do.
        let others = self.views[agent.view as usize].members.saturating_sub(1) as usize;
        let room = Room {
            others: others.min(GIVEN_MAX),
            keeps_all: self.fleet.machines[n as usize].gateway,
            endless: self.sabotage == Some(Sabotage::Fill),
        };
        self.agents[n as usize].make_room(room)
    }

    /// Whether a piece has been kept for so long that the engine has dropped it meanwhile.
    pub(crate) fn has_expired(&self, n: u32, piece: u32) -> bool {
        let gateway = self.fleet.machines[n as usize].gateway;
        let local = self.agents[n as usize].locals.get(&piece).filter(|_| !gateway);
        local.is_some_and(|local| {
            local.is_idle() && self.now >= local.touched + self.kept_for(piece)
        })
    }

    fn kept_for(&self, piece: u32) -> Nanos {
        if self.is_part(piece) { NARS_KEPT_FOR } else { nanos_of(KEPT_FOR) }
    }

    /// Drops what nobody has used for long.
    pub(crate) fn sweep(&mut self, n: u32) {
        let agent = &mut self.agents[n as usize];
        if !agent.on {
            agent.sweeping = false;
            return;
        }
        let (now, pieces, kept_for) = (self.now, &self.fleet.catalog.pieces, nanos_of(KEPT_FOR));
        self.agents[n as usize].drop_where(|piece, local| {
            let part = pieces[piece as usize].kind == Kind::Nar;
            let limit = if part { NARS_KEPT_FOR } else { kept_for };
            local.is_idle() && now >= local.touched + limit
        });
        self.at(self.now + SWEEP, Event::Sweep(n));
    }

    /// Begins to look, if this agent is to.
    pub(crate) fn keep_sweeping(&mut self, n: u32) {
        let gateway = self.fleet.machines[n as usize].gateway;
        if !gateway && !std::mem::replace(&mut self.agents[n as usize].sweeping, true) {
            self.at(self.now + SWEEP, Event::Sweep(n));
        }
    }
}

impl Agent {
    fn make_room(&mut self, room: Room) -> bool {
        let needed = self.held.saturating_sub(KEPT_BYTES);
        // A quarter at a time.
        let wanted = if needed > 0 { self.held - KEPT_BYTES * 3 / 4 } else { 0 };
        let surplus = self.locals.len().saturating_sub(PIECES_MAX);
        for piece in victims(self.idle(room, false), needed, wanted, surplus) {
            let spills = surplus == 0
                && (piece.worth == Worth::Owed || room.keeps_all)
                && piece.bytes >= SPILL_MIN;
            if spills {
                self.spill(piece.key, piece.bytes, room);
            } else {
                self.let_go(piece.key);
            }
        }
        self.held <= KEPT_BYTES && self.locals.len() <= PIECES_MAX
    }

    /// To the disk; what has been there for the longest goes for it.
    fn spill(&mut self, piece: u32, bytes: u64, room: Room) {
        let excess = (self.on_disk + bytes).saturating_sub(room.disk());
        if excess > 0 {
            for old in victims(self.idle(room, true), excess, excess, 0) {
                self.let_go(old.key);
            }
        }
        if self.on_disk + bytes > room.disk() {
            self.let_go(piece);
        } else if let Some(local) = self.locals.get_mut(&piece) {
            local.on_disk = true;
            self.held -= bytes;
            self.on_disk += bytes;
            self.load.disk = self.load.disk.max(self.on_disk);
        }
    }

    /// What nobody uses, in memory or on the disk. Their order is that of the map, which is the same in every run.
    fn idle(&self, room: Room, on_disk: bool) -> Vec<Piece<u32, (Nanos, u32)>> {
        let idle = self.locals.iter().filter(|(_, one)| one.is_idle() && one.on_disk == on_disk);
        idle.map(|(key, one)| Piece {
            key: *key,
            worth: room.worth(one),
            touched: (one.touched, *key),
            bytes: one.have(),
        })
        .collect()
    }

    /// Drops a piece that nobody uses.
    pub(crate) fn let_go(&mut self, piece: u32) {
        if let Some(local) = self.locals.remove(&piece) {
            *if local.on_disk { &mut self.on_disk } else { &mut self.held } -= local.have();
        }
    }

    /// Drops all such pieces.
    fn drop_where(&mut self, goes: impl Fn(u32, &Local) -> bool) {
        let (mut held, mut on_disk) = (0, 0);
        self.locals.retain(|piece, local| {
            let gone = goes(*piece, local);
            if gone {
                *if local.on_disk { &mut on_disk } else { &mut held } += local.have();
            }
            !gone
        });
        self.held -= held;
        self.on_disk -= on_disk;
        if self.locals.is_empty() {
            self.locals.shrink_to_fit();
        }
    }
}
