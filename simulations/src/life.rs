//! Machines come and go, and say what they hold.

use haulout_swarm::holdings::{Ledger, Message, Snapshot, Update};
use haulout_swarm::portions::{FULL_PEERS, HOMES};
use haulout_swarm::site::{Duty, Standing};
use smallvec::SmallVec;

use crate::agent::limits;
use crate::catalog::prefix;
use crate::event::Event;
use crate::fleet::Blow;
use crate::net::{MILLI, Nanos, SECOND};
use crate::random::mix;
use crate::view::View;
use crate::world::{MESSAGE_OVERHEAD, OUTSIDE_TAG, World, nanos_of};

/// From a path in the store to its announcement: Nix registers it, the agent notices.
const NOTICED: Nanos = 100 * MILLI;
/// QUIC's idle time-out: how long a peer that vanished is still thought to be there.
pub(crate) const IDLE: Nanos = 30 * SECOND;
/// Until peers are found again when the network is whole.
const FOUND: Nanos = 3 * SECOND;
impl World<'_> {
    // ---- coming and going ----

    pub(crate) fn start(&mut self, n: u32) {
        if self.agents[n as usize].on {
            return;
        }
        self.join(n);
        if self.agents[n as usize].is_done() {
            self.finish(n);
        }
        self.go_on(n);
    }

    /// The view an agent belongs to now.
    fn view_of(&self, n: u32) -> u32 {
        let machine = &self.fleet.machines[n as usize];
        2 * machine.subnet + u32::from(self.split && !machine.half)
    }

    fn join(&mut self, n: u32) {
        let view = self.view_of(n);
        self.lives[n as usize] += 1;
        let random = self.random.next();
        let agent = &mut self.agents[n as usize];
        agent.on = true;
        agent.view = view;
        agent.progress_at = self.now;
        agent.ledger = Ledger::new(random);
        let held = (0..).zip(&agent.stored).filter(|(_, stored)| **stored || agent.lies);
        let held: Vec<u32> = held.map(|(path, _)| prefix(path)).collect();
        agent.ledger.change([], held);
        self.appear(n);
        self.count_snapshots(n);
        self.keep_sweeping(n);
    }

    /// The others of its view learn of it.
    fn appear(&mut self, n: u32) {
        let now = self.clock();
        let agent = &mut self.agents[n as usize];
        agent.came_at = self.now;
        let standing = Standing {
            sequence: self.lives[n as usize],
            willing: agent.duty.is_willing(),
            outsides: SmallVec::from_slice(&[OUTSIDE_TAG]),
        };
        let snapshot = agent.ledger.snapshot();
        agent.told = Some(snapshot.version());
        let view = &mut self.views[agent.view as usize];
        view.members += 1;
        view.version += 1;
        view.homes.gone(&agent.id);
        view.homes.told(agent.id, standing, now);
        let taken = view.directory.apply_snapshot(agent.id, &snapshot);
        debug_assert!(taken.is_ok(), "{taken:?}");
    }

    /// What the newcomer and the others say they hold: two snapshots for each pair, of whole stores up to
    /// [`FULL_PEERS`] others, and of portions for the rest.
    fn count_snapshots(&mut self, n: u32) {
        let view = self.agents[n as usize].view;
        let others = u64::from(self.views[view as usize].members.saturating_sub(1));
        let store = self.fleet.machines[n as usize].store;
        let whole = snapshot_bytes(store) + MESSAGE_OVERHEAD * 80;
        let told_all = others.min(FULL_PEERS as u64);
        let portion = portion_bytes(store, others + 1) + MESSAGE_OVERHEAD;
        // The others' stores are as large as this one's on average.
        let bytes = 2 * (whole * told_all + portion * (others - told_all));
        self.totals.snapshot_bytes += bytes;
        self.agents[n as usize].load.holdings += bytes;
    }

    /// The others of its view no longer count on it.
    pub(crate) fn forget(&mut self, n: u32) {
        let agent = &self.agents[n as usize];
        let view = &mut self.views[agent.view as usize];
        if view.fetchers.standing(&agent.id).is_some() {
            view.fetchers.gone(&agent.id);
            view.fetchers_version += 1;
        }
        if view.homes.standing(&agent.id).is_some() {
            view.members -= 1;
            view.version += 1;
            view.homes.gone(&agent.id);
            view.directory.remove_peer(&agent.id);
            self.links_end(n);
        }
    }

    /// Connections to it end: who waits for it is told, and what it was given ends.
    fn links_end(&mut self, n: u32) {
        for other in 0..self.agents.len() as u32 {
            if other != n && self.agents[other as usize].view == self.agents[n as usize].view {
                self.cut(other, n);
            }
        }
    }

    pub(crate) fn blow(&mut self, n: u32, blow: Blow) {
        match blow {
            Blow::Leave => {
                self.switch_off(n);
                self.forget(n);
            }
            Blow::Vanish => {
                self.switch_off(n);
                let life = self.lives[n as usize];
                self.at(self.now + IDLE, Event::Forgotten(n, life));
            }
            Blow::Wake => {
                self.forget(n);
                self.start(n);
            }
            Blow::Hang => {
                self.agents[n as usize].hangs = true;
                let life = self.lives[n as usize];
                self.at(self.now + IDLE, Event::Forgotten(n, life));
            }
            Blow::Split(apart) => {
                self.split = apart;
                self.at(self.now + if apart { IDLE } else { FOUND }, Event::Sides(apart));
            }
            Blow::Outage(dead) => self.outage = dead,
        }
        let for_good = matches!(blow, Blow::Leave | Blow::Vanish | Blow::Hang)
            && self.fleet.machines[n as usize].doomed;
        if for_good && self.agents[n as usize].finished.is_none() {
            // It owes nothing any more.
            self.finish(n);
        }
    }

    /// What is under way on it is lost; what is in its store stays.
    fn switch_off(&mut self, n: u32) {
        let agent = &mut self.agents[n as usize];
        if !agent.on {
            return;
        }
        agent.on = false;
        let gateway = self.fleet.machines[n as usize].gateway;
        agent.duty = Duty::new(limits(gateway), agent.duty.is_willing());
        agent.locals.clear();
        agent.active.clear();
        agent.sending.clear();
        (agent.held, agent.on_disk) = (0, 0);
        agent.fetches.fill(false);
        agent.fetching_until = 0;
        agent.jobs.clear();
        agent.infos_open.clear();
        let stored = std::mem::take(&mut agent.stored);
        agent.wanted.retain(|path| !stored[*path as usize]);
        agent.stored = stored;
        (agent.next, agent.infos_next, agent.got) = (0, 0, 0);
    }

    /// After a split (or the end of one) has been noticed, everybody sees its own side (or all).
    pub(crate) fn sides(&mut self, apart: bool) {
        if self.split != apart {
            return;
        }
        for view in &mut self.views {
            *view = View::new(self.fleet.catalog.pieces.len());
        }
        for n in 0..self.agents.len() as u32 {
            if !self.agents[n as usize].on || self.agents[n as usize].hangs {
                continue;
            }
            self.agents[n as usize].view = self.view_of(n);
            self.lives[n as usize] += 1;
            self.appear(n);
            self.count_snapshots(n);
        }
    }

    // ---- holdings ----

    pub(crate) fn has_now(&mut self, n: u32, path: u32) {
        let members = self.views[self.agents[n as usize].view as usize].members;
        let agent = &mut self.agents[n as usize];
        agent.stored[path as usize] = true;
        agent.ledger.change([], [prefix(path)]);
        if !agent.announcing {
            agent.announcing = true;
            let gather = haulout_swarm::holdings::gather(members as usize);
            self.at(self.now + NOTICED + nanos_of(gather), Event::Announce(n));
        }
    }

    pub(crate) fn announce(&mut self, n: u32) {
        let agent = &mut self.agents[n as usize];
        agent.announcing = false;
        if !agent.on || agent.hangs {
            return;
        }
        let message = match agent.ledger.since(agent.told) {
            Update::Nothing => return,
            Update::Delta(delta) => Message::Delta(delta),
            Update::Snapshot(snapshot) => Message::Snapshot(snapshot),
        };
        agent.told = Some(agent.ledger.version());
        let bytes = message.encode();
        let view = &mut self.views[agent.view as usize];
        let others = u64::from(view.members.saturating_sub(1));
        let told_all = others.min(FULL_PEERS as u64);
        // The homes of each entry, one entry in a message: they are others for each.
        let entries = match &message {
            Message::Delta(delta) => delta.removed().len() + delta.added().len(),
            Message::Snapshot(snapshot) => snapshot.entries().len(),
        };
        let homes = ((entries * HOMES) as u64).min(others - told_all);
        let receivers = told_all + homes;
        let sent = told_all * (bytes.len() as u64 + 4 + MESSAGE_OVERHEAD)
            + homes * (PORTION_DELTA_BYTES + MESSAGE_OVERHEAD);
        agent.load.holdings += sent;
        agent.load.messages += receivers;
        self.totals.delta_bytes += sent;
        self.totals.deltas += receivers;
        let second = self.now / SECOND;
        if self.holdings_second.0 != second {
            self.holdings_second = (second, 0);
        }
        self.holdings_second.1 += sent;
        self.totals.holdings_peak = self.totals.holdings_peak.max(self.holdings_second.1);
        // What travels is what the real codec makes and reads.
        let applied = match Message::decode(&bytes) {
            Ok(Message::Delta(delta)) => view.directory.apply_delta(agent.id, &delta),
            Ok(Message::Snapshot(snapshot)) => {
                view.directory.apply_snapshot(agent.id, &snapshot).map(drop)
            }
            Err(_) => return,
        };
        if applied.is_err() {
            // As in the mesh: the stream begins again with a snapshot.
            let _ = view.directory.apply_snapshot(agent.id, &agent.ledger.snapshot());
        }
    }
}

/// A delta of one entry with its length, for a home: 25 bytes of header and one entry in four.
const PORTION_DELTA_BYTES: u64 = 33;

/// What an agent's portion of such a store takes: with its homes' share of the entries each, by the real codec.
fn portion_bytes(paths: u32, agents: u64) -> u64 {
    let share = u64::from(paths) * HOMES as u64 / agents.max(1);
    let entries = (0..share.min(u64::from(paths))).map(|n| mix(n) as u32).collect();
    Snapshot::new(1, entries).map_or(0, |one| one.encode().len() as u64)
}

/// What a snapshot of a store of so many paths takes on the wire, by the real codec, in steps of a thousand paths.
fn snapshot_bytes(paths: u32) -> u64 {
    use std::sync::OnceLock;
    static SIZES: OnceLock<Vec<u64>> = OnceLock::new();
    let sizes = SIZES.get_or_init(|| {
        (0..=50u64)
            .map(|thousands| {
                let entries = (0..thousands * 1_000).map(|n| mix(n) as u32).collect();
                Snapshot::new(1, entries).map_or(0, |one| one.encode().len() as u64)
            })
            .collect()
    });
    sizes.get(paths as usize / 1_000).or_else(|| sizes.last()).copied().unwrap_or(0)
}
