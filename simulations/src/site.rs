//! Pieces through the site: the swarm's [`Follow`], [`Duty`] and homes, and what the resolver's engine does around them.
//!
//! [`Duty`]: haulout_swarm::site::Duty

use haulout_swarm::site::{End, Follow, FollowConfig, Origin, Step, Turn};

use crate::agent::{Inflow, Local, Supplier, Try};
use crate::catalog::{content, whole};
use crate::check::Broken;
use crate::fleet::number_of;
use crate::net::{MILLI, Nanos, OUTSIDE, Way};
use crate::world::{Cargo, Event, Parcel, World, now_of};

/// The same from outside, where round trips are long.
const WINDOW_OUTSIDE: u8 = 4;
const PARCEL_OUTSIDE: u32 = 128 << 10;
/// A queue on the line outside that long makes senders careful.
const CROWDED: Nanos = 200 * MILLI;
/// How long the cache outside thinks before its first byte.
const THINKING: Nanos = 15 * MILLI;

impl World<'_> {
    /// The agent wants a piece: begins it, or says that it is here already.
    pub(crate) fn want(&mut self, n: u32, piece: u32) -> bool {
        if let Some(local) = self.agents[n as usize].locals.get_mut(&piece) {
            local.wanted = true;
            return local.complete;
        }
        let plan = self.plan(n, piece, 0);
        let agent = &mut self.agents[n as usize];
        let plan = (plan, agent.number());
        agent.locals.insert(piece, Local::new(plan, true, self.now));
        agent.active.insert(piece);
        self.step_piece(n, piece);
        self.keep_ticking(n);
        false
    }

    pub(crate) fn plan(&self, n: u32, piece: u32, have: u64) -> Follow {
        Follow::new(self.agents[n as usize].id, self.len_of(piece), have, config())
    }

    /// Length of a segment; a document's is not known before it is here.
    pub(crate) fn len_of(&self, piece: u32) -> Option<u64> {
        let piece = &self.fleet.catalog.pieces[piece as usize];
        (!piece.document).then_some(u64::from(piece.len))
    }

    /// Does what the plan says.
    pub(crate) fn step_piece(&mut self, n: u32, piece: u32) {
        let now = self.now;
        let agent = &mut self.agents[n as usize];
        if !agent.on || agent.hangs {
            return;
        }
        let Some(local) = agent.locals.get_mut(&piece) else { return };
        if local.complete || local.failed_at.is_some() {
            return;
        }
        if local.plan.wake_at().is_some_and(|at| at > now_of(now)) {
            return;
        }
        let turns = self.turns(n, piece);
        let Some(local) = self.agents[n as usize].locals.get_mut(&piece) else { return };
        match local.plan.next(now_of(now), || turns) {
            Step::Fetch { attempt, origin, held, from } => {
                let attempt = Try { plan: local.number, attempt };
                self.leave_source(n, piece);
                match origin {
                    Origin::Outside => self.go_outside(n, piece, attempt, from as u32),
                    Origin::Peer(peer) => {
                        self.ask(n, number_of(&peer), (piece, held), attempt, from as u32)
                    }
                }
            }
            Step::Wait => {}
            Step::Complete => self.piece_complete(n, piece),
            Step::Absent | Step::Failed => self.piece_failed(n, piece),
        }
    }

    fn ask(&mut self, n: u32, home: u32, (piece, held): (u32, bool), attempt: Try, at: u32) {
        self.totals.peeks += u64::from(held);
        if let Some(local) = self.agents[n as usize].locals.get_mut(&piece) {
            local.asked = Some((home, attempt, self.now, false));
        }
        self.message(n, home, Event::Asked { home, from: n, piece, held, attempt, at });
    }

    /// The last attempt ends: who is still at it is told.
    pub(crate) fn leave_source(&mut self, n: u32, piece: u32) {
        let agent = &mut self.agents[n as usize];
        let Some(local) = agent.locals.get_mut(&piece) else { return };
        local.inflow = None;
        let Some((home, attempt, _, booked)) = local.asked.take() else { return };
        if booked {
            let id = crate::world::id_of(self.fleet, home);
            agent.table.abandoned(&id);
        }
        self.message(n, home, Event::Stop { home, from: n, piece, attempt });
    }

    fn go_outside(&mut self, n: u32, piece: u32, attempt: Try, at: u32) {
        self.totals.outside_fetches += 1;
        let me = self.agents[n as usize].id;
        let first = self.turns(n, piece).first().is_some_and(|turn: &Turn| turn.peer == me);
        let local = &self.agents[n as usize].locals[&piece];
        let kind = match (local.on_duty, first) {
            (true, true) => 0,
            (true, false) => 1,
            (false, true) => 2,
            (false, false) => 3,
        };
        self.totals.fetches_why[kind] += 1;
        if let Some(gateway) = self.gateway.filter(|gateway| *gateway != n) {
            // To the agents of the subnets it is the cache outside.
            let held = false;
            let asked = Event::Asked { home: gateway, from: n, piece, held, attempt, at };
            self.message(n, gateway, asked);
            return;
        }
        if let Some(local) = self.agents[n as usize].locals.get_mut(&piece) {
            local.inflow = Some(Inflow { attempt, sent: at, flying: 0 });
        }
        let way = Way { from: OUTSIDE, to: n };
        let takes = self.net.message(way) + THINKING;
        self.at(self.now + takes, Event::Answered { to: n, piece, attempt });
    }

    pub(crate) fn answered(&mut self, to: u32, piece: u32, attempt: Try) {
        if self.sabotage == Some(crate::world::Sabotage::Starve) && to == 1 {
            return;
        }
        if let Some(local) = self.agents[to as usize].locals.get_mut(&piece) {
            local.waiting(attempt, now_of(self.now));
            self.pump_inflow(to, piece);
        }
    }

    /// Has the outside send more.
    fn pump_inflow(&mut self, n: u32, piece: u32) {
        if self.outage {
            return;
        }
        let len = self.fleet.catalog.pieces[piece as usize].len;
        loop {
            // TCP's windows shrink where a queue grows.
            let crowded = self.net.wan_backlog(self.now) > CROWDED;
            let (window, parcel) =
                if crowded { (1, PARCEL_OUTSIDE / 4) } else { (WINDOW_OUTSIDE, PARCEL_OUTSIDE) };
            let Some(local) = self.agents[n as usize].locals.get_mut(&piece) else { return };
            let Some(inflow) = &mut local.inflow else { return };
            if inflow.flying >= window || inflow.sent >= len {
                return;
            }
            let (from, upto) = (inflow.sent, (inflow.sent + parcel).min(len));
            let attempt = inflow.attempt;
            (inflow.sent, inflow.flying) = (upto, inflow.flying + 1);
            let what = Cargo::Piece { piece, attempt, from, upto, bad: false };
            self.ship(Parcel { from: OUTSIDE, to: n, bytes: upto - from, what });
        }
    }

    // ---- the taking side ----

    pub(crate) fn piece_arrived(&mut self, parcel: Parcel) -> Result<(), Broken> {
        let Cargo::Piece { piece, attempt, from, upto, bad } = parcel.what else { return Ok(()) };
        let (n, now) = (parcel.to, now_of(self.now));
        if parcel.from != OUTSIDE {
            self.delivered(parcel.from, n, piece, attempt);
        }
        let document = self.fleet.catalog.pieces[piece as usize].document;
        let agent = &mut self.agents[n as usize];
        if !agent.on || agent.hangs {
            return Ok(());
        }
        let id = (parcel.from != OUTSIDE).then(|| crate::world::id_of(self.fleet, parcel.from));
        if let Some(id) = id {
            agent.table.heard(&id, now);
        }
        let Some(local) = agent.locals.get_mut(&piece) else { return Ok(()) };
        let before = local.plan.have();
        if let Some(attempt) = local.of(attempt) {
            local.plan.progress(attempt, u64::from(upto), now);
        }
        let after = local.plan.have();
        if after > before {
            let gap = u64::from(from) > before;
            let fresh =
                content(u64::from(piece), after).wrapping_sub(content(u64::from(piece), before));
            local.sum = local.sum.wrapping_add(fresh).wrapping_add(u64::from(bad || gap));
            local.bad |= bad;
            local.supplier = local.supplier.and(parcel.from);
            agent.held += after - before;
            agent.progress_at = self.now;
            if gap {
                return Err(self.broken(n, format!("piece {piece} has a hole before byte {from}")));
            }
        }
        if document {
            if let Some(attempt) = local.of(attempt) {
                local.plan.ended(attempt, End::Complete);
            }
        } else if after > before {
            self.pump_relays(n, piece);
        }
        self.inflow_arrived(n, piece, attempt, parcel.from);
        self.step_piece(n, piece);
        Ok(())
    }

    fn inflow_arrived(&mut self, n: u32, piece: u32, attempt: Try, from: u32) {
        let Some(local) = self.agents[n as usize].locals.get_mut(&piece) else { return };
        if from == OUTSIDE
            && let Some(inflow) = &mut local.inflow
            && inflow.attempt == attempt
        {
            inflow.flying -= 1;
            self.pump_inflow(n, piece);
        }
    }

    pub(crate) fn over(&mut self, to: u32, piece: u32, attempt: Try, end: End) {
        let agent = &mut self.agents[to as usize];
        let Some(local) = agent.locals.get_mut(&piece) else { return };
        if let Some(attempt) = local.of(attempt) {
            local.plan.ended(attempt, end);
        }
        if let Some((home, asked, _, booked)) = local.asked
            && asked == attempt
        {
            local.asked = None;
            let id = crate::world::id_of(self.fleet, home);
            agent.table.heard(&id, now_of(self.now));
            if booked {
                agent.table.abandoned(&id);
            }
        }
        self.step_piece(to, piece);
    }

    fn piece_complete(&mut self, n: u32, piece: u32) {
        let now = now_of(self.now);
        let agent = &mut self.agents[n as usize];
        let Some(local) = agent.locals.get_mut(&piece) else { return };
        local.complete = true;
        local.inflow = None;
        local.idle_since = self.now;
        if let Some((home, _, _, booked)) = local.asked.take() {
            let id = crate::world::id_of(self.fleet, home);
            agent.table.heard(&id, now);
            if booked {
                agent.table.abandoned(&id);
            }
        }
        let len = self.fleet.catalog.pieces[piece as usize].len;
        let right = local.sum == whole(u64::from(piece), u64::from(len));
        let (supplier, wanted) = (local.supplier, std::mem::take(&mut local.wanted));
        if std::mem::take(&mut local.on_duty) {
            agent.duty.fetched();
        }
        match supplier {
            Supplier::Only(OUTSIDE) => agent.kept.from_outside.push_back(piece),
            _ => agent.kept.from_peers.push_back(piece),
        }
        agent.fits();
        self.pump_relays(n, piece);
        if wanted {
            self.piece_done(n, piece, supplier, right);
        }
    }

    fn piece_failed(&mut self, n: u32, piece: u32) {
        let agent = &mut self.agents[n as usize];
        let Some(local) = agent.locals.get_mut(&piece) else { return };
        local.failed_at = Some(self.now);
        self.totals.retries += 1;
        if std::mem::take(&mut local.on_duty) {
            agent.duty.fetched();
        }
        let relays = std::mem::take(&mut local.relays);
        let wanted = local.wanted;
        if !wanted {
            self.drop_piece(n, piece);
        }
        for relay in relays {
            let follower = self.agents[relay.to as usize].id;
            self.agents[n as usize].duty.done(&follower);
            let end = End::OutsideFailed;
            self.message(
                n,
                relay.to,
                Event::Over { to: relay.to, piece, attempt: relay.attempt, end },
            );
        }
    }

    /// Forgets a piece.
    pub(crate) fn drop_piece(&mut self, n: u32, piece: u32) {
        let agent = &mut self.agents[n as usize];
        if let Some(local) = agent.locals.remove(&piece) {
            agent.held -= local.plan.have();
            agent.active.remove(&piece);
            if local.on_duty {
                agent.duty.fetched();
            }
            for relay in local.relays {
                let follower = crate::world::id_of(self.fleet, relay.to);
                agent.duty.done(&follower);
            }
        }
    }

    /// The connection between two ends, as the first of them sees it.
    pub(crate) fn cut(&mut self, n: u32, gone: u32) {
        let id = self.agents[gone as usize].id;
        let agent = &mut self.agents[n as usize];
        agent.table.disconnected(&id);
        let mut moved = Vec::new();
        let pieces: Vec<u32> = agent.active.iter().copied().collect();
        for piece in pieces {
            let Some(local) = agent.locals.get_mut(&piece) else { continue };
            if let Ok(place) = local.relays.binary_search_by_key(&gone, |relay| relay.to) {
                local.relays.remove(place);
                local.idle_since = self.now;
                agent.duty.done(&id);
            }
            if local.asked.is_some_and(|(home, ..)| home == gone) {
                local.plan.left(&id);
                moved.push(piece);
            }
        }
        for piece in moved {
            self.step_piece(n, piece);
        }
        self.source_gone(n, gone);
    }
}

pub(crate) fn config() -> FollowConfig {
    FollowConfig::default()
}

/// How often agents say that they wait; the simulation's tick is half of it.
#[cfg(test)]
pub(crate) fn heartbeat() -> Nanos {
    crate::world::nanos_of(config().heartbeat)
}

/// Whether the bytes of a piece have only one source among the peers.
pub(crate) const fn sole_peer(supplier: Supplier) -> Option<u32> {
    match supplier {
        Supplier::Only(peer) if peer != OUTSIDE => Some(peer),
        _ => None,
    }
}
