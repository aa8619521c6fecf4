//! Pieces through the site: the swarm's [`Follow`], [`Duty`] and homes, and what the resolver's engine does around them.
//!
//! [`Duty`]: haulout_swarm::site::Duty

use haulout_swarm::site::{End, Follow, FollowConfig, Origin, Step, Turn};
use smallvec::SmallVec;

use crate::agent::{Filling, Inflow, Local, Supplier, Try};
use crate::catalog::{Kind, content, whole};
use crate::check::Broken;
use crate::event::{Cargo, Event, Parcel};
use crate::fleet::number_of;
use crate::net::{CROWDED, MILLI, Nanos, OUTSIDE, Way};
use crate::world::{Sabotage, World, now_of};

/// The same from outside, where round trips are long.
const WINDOW_OUTSIDE: u8 = 4;
const PARCEL_OUTSIDE: u32 = 128 << 10;
/// How long the cache outside thinks before its first byte.
const THINKING: Nanos = 15 * MILLI;

impl World<'_> {
    /// The agent wants a piece: begins it, or says that it is here already.
    pub(crate) fn want(&mut self, n: u32, piece: u32) -> bool {
        if self.has_expired(n, piece) {
            self.drop_piece(n, piece);
        }
        if let Some(local) = self.agents[n as usize].locals.get_mut(&piece) {
            (local.wanted, local.touched) = (true, self.now);
            if local.is_complete() || !local.kept {
                return local.is_complete();
            }
            // It was asked for among those that have it; now it is needed.
            self.leave_source(n, piece);
            self.plan_anew(n, piece);
            self.step_piece(n, piece);
            return false;
        }
        self.want_anew(n, piece);
        false
    }

    fn want_anew(&mut self, n: u32, piece: u32) {
        let plan = self.plan(n, piece, 0);
        let agent = &mut self.agents[n as usize];
        let plan = (plan, agent.number());
        agent.locals.insert(piece, Local::new(plan, true, self.now));
        agent.active.insert(piece);
        self.step_piece(n, piece);
        self.keep_ticking(n);
    }

    pub(crate) fn plan(&self, n: u32, piece: u32, have: u64) -> Follow {
        let kind = self.fleet.catalog.pieces[piece as usize].kind;
        Follow::new(self.agents[n as usize].id, self.len_of(piece), have, config(kind))
    }

    /// Length of a segment; a document's is not known before it is here.
    pub(crate) fn len_of(&self, piece: u32) -> Option<u64> {
        let piece = &self.fleet.catalog.pieces[piece as usize];
        (piece.kind != Kind::Document).then_some(u64::from(piece.len))
    }

    /// Does what the plan says.
    pub(crate) fn step_piece(&mut self, n: u32, piece: u32) {
        let now = self.now;
        let agent = &mut self.agents[n as usize];
        if !agent.on || agent.hangs {
            return;
        }
        let Some(filling) = agent.locals.get(&piece).and_then(|local| local.filling.as_ref())
        else {
            return;
        };
        if filling.failed_at.is_some() || filling.plan.wake_at().is_some_and(|at| at > now_of(now))
        {
            return;
        }
        let turns = self.turns(n, piece);
        let Some(local) = self.agents[n as usize].locals.get_mut(&piece) else { return };
        let (number, Some(filling)) = (local.number, &mut local.filling) else { return };
        match filling.plan.next(now_of(now), || turns) {
            Step::Fetch { attempt, origin, held, from } => {
                let attempt = Try { plan: number, attempt };
                self.leave_source(n, piece);
                match origin {
                    Origin::Outside if self.is_part(piece) => {
                        self.ask_holder(n, piece, attempt, from as u32);
                    }
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

    /// Whether it is a piece of a NAR that peers hold.
    pub(crate) fn is_part(&self, piece: u32) -> bool {
        self.fleet.catalog.pieces[piece as usize].kind == Kind::Nar
    }

    /// How a piece is being fetched, if it is.
    pub(crate) fn filling(&mut self, n: u32, piece: u32) -> Option<&mut Filling> {
        self.agents[n as usize].locals.get_mut(&piece)?.filling.as_deref_mut()
    }

    fn ask(&mut self, n: u32, home: u32, (piece, held): (u32, bool), attempt: Try, at: u32) {
        let now = self.now;
        self.totals.peeks += u64::from(held);
        if let Some(filling) = self.filling(n, piece) {
            filling.asked = Some((home, attempt, now, false));
        }
        self.message(n, home, Event::Asked { home, from: n, piece, held, attempt, at });
    }

    /// The last attempt ends: who is still at it is told.
    pub(crate) fn leave_source(&mut self, n: u32, piece: u32) {
        let Some(filling) = self.filling(n, piece) else { return };
        filling.inflow = None;
        let Some((home, attempt, _, booked)) = filling.asked.take() else { return };
        if booked {
            let id = crate::world::id_of(self.fleet, home);
            self.agents[n as usize].table.abandoned(&id);
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
        if let Some(filling) = self.filling(n, piece) {
            filling.inflow =
                Some(Inflow { attempt, sent: at, flying: 0, holder: None, tried: SmallVec::new() });
        }
        let way = Way { from: OUTSIDE, to: n };
        let takes = self.net.message(way) + THINKING;
        self.at(self.now + takes, Event::Answered { to: n, piece, attempt });
    }

    pub(crate) fn answered(&mut self, to: u32, piece: u32, attempt: Try) {
        if self.sabotage == Some(Sabotage::Starve) && to == 1 {
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
        let catalog = &self.fleet.catalog;
        let len = catalog.pieces[piece as usize].len;
        loop {
            // TCP's windows shrink where a queue grows.
            let crowded = self.net.wan_backlog(self.now) > CROWDED;
            let (window, parcel) =
                if crowded { (1, PARCEL_OUTSIDE / 4) } else { (WINDOW_OUTSIDE, PARCEL_OUTSIDE) };
            let Some(filling) = self.filling(n, piece) else { return };
            let Some(inflow) = &mut filling.inflow else { return };
            if inflow.flying >= window || inflow.sent >= len {
                return;
            }
            let (from, upto) = (inflow.sent, (inflow.sent + catalog.bytes_here(parcel)).min(len));
            let attempt = inflow.attempt;
            (inflow.sent, inflow.flying) = (upto, inflow.flying + 1);
            let what = Cargo::Piece { piece, attempt, from, upto, bad: false };
            let bytes = catalog.bytes_outside(upto - from);
            self.ship(Parcel { from: OUTSIDE, to: n, bytes, what });
        }
    }

    // ---- the taking side ----

    pub(crate) fn piece_arrived(&mut self, parcel: Parcel) -> Result<(), Broken> {
        let Cargo::Piece { piece, attempt, from, upto, bad } = parcel.what else { return Ok(()) };
        let (n, now) = (parcel.to, now_of(self.now));
        if parcel.from != OUTSIDE {
            self.delivered(parcel.from, n, piece, attempt);
        }
        let agent = &mut self.agents[n as usize];
        if !agent.on || agent.hangs {
            return Ok(());
        }
        if parcel.from != OUTSIDE {
            agent.heard(parcel.from, &crate::world::id_of(self.fleet, parcel.from), now);
        }
        self.take_bytes((n, parcel.from), piece, attempt, (from, upto, bad))?;
        let believe = self.sabotage == Some(Sabotage::Believe) || self.agents[n as usize].lies;
        if bad && self.is_part(piece) && !believe && self.is_current(n, piece, attempt) {
            self.fellow_is_wrong(n, parcel.from, piece);
            return Ok(());
        }
        self.inflow_arrived(n, piece, attempt, parcel.from);
        self.step_piece(n, piece);
        Ok(())
    }

    fn is_current(&self, n: u32, piece: u32, attempt: Try) -> bool {
        let local = self.agents[n as usize].locals.get(&piece);
        local.is_some_and(|local| local.number == attempt.plan && !local.is_complete())
    }

    /// Bytes `from..upto` of a piece are here.
    pub(crate) fn take_bytes(
        &mut self,
        (n, giver): (u32, u32),
        piece: u32,
        attempt: Try,
        (from, upto, bad): (u32, u32, bool),
    ) -> Result<(), Broken> {
        let now = now_of(self.now);
        let document = self.fleet.catalog.pieces[piece as usize].kind == Kind::Document;
        let agent = &mut self.agents[n as usize];
        let Some(local) = agent.locals.get_mut(&piece) else { return Ok(()) };
        let before = local.have();
        local.progress(attempt, u64::from(upto), now);
        let after = local.have();
        if after > before {
            let gap = u64::from(from) > before;
            let fresh =
                content(u64::from(piece), after).wrapping_sub(content(u64::from(piece), before));
            local.sum = local.sum.wrapping_add(fresh).wrapping_add(u64::from(bad || gap));
            local.bad |= bad;
            local.came_from(giver);
            agent.held += after - before;
            agent.progress_at = self.now;
            if gap {
                return Err(self.broken(n, format!("piece {piece} has a hole before byte {from}")));
            }
        }
        if document {
            local.ended(attempt, End::Complete);
        } else if after > before && !bad {
            self.pump_relays(n, piece);
        }
        Ok(())
    }

    fn inflow_arrived(&mut self, n: u32, piece: u32, attempt: Try, from: u32) {
        if from == OUTSIDE
            && let Some(filling) = self.filling(n, piece)
            && let Some(inflow) = &mut filling.inflow
            && inflow.attempt == attempt
        {
            inflow.flying -= 1;
            self.pump_inflow(n, piece);
        }
    }

    pub(crate) fn over(&mut self, to: u32, piece: u32, attempt: Try, end: End) {
        let agent = &mut self.agents[to as usize];
        let Some(local) = agent.locals.get_mut(&piece) else { return };
        local.ended(attempt, end);
        if let Some(filling) = &mut local.filling
            && let Some((home, asked, _, booked)) = filling.asked
            && asked == attempt
        {
            filling.asked = None;
            let id = crate::world::id_of(self.fleet, home);
            agent.heard(home, &id, now_of(self.now));
            if booked {
                agent.table.abandoned(&id);
            }
            self.judge_fellow(to, home, piece, end);
        }
        self.step_piece(to, piece);
    }

    fn piece_complete(&mut self, n: u32, piece: u32) {
        let now = now_of(self.now);
        let agent = &mut self.agents[n as usize];
        let Some(local) = agent.locals.get_mut(&piece) else { return };
        let filling = local.complete();
        local.touched = self.now;
        let asked = filling.and_then(|filling| filling.asked);
        let len = self.fleet.catalog.pieces[piece as usize].len;
        let right = local.sum == whole(u64::from(piece), u64::from(len));
        let (supplier, wanted) = (local.supplier, std::mem::take(&mut local.wanted));
        local.read |= wanted;
        if std::mem::take(&mut local.on_duty) {
            agent.duty.fetched();
        }
        if let Some((home, _, _, booked)) = asked {
            let id = crate::world::id_of(self.fleet, home);
            agent.heard(home, &id, now);
            if booked {
                agent.table.abandoned(&id);
            }
            self.judge_fellow(n, home, piece, End::Complete);
        }
        self.fits(n);
        self.pump_relays(n, piece);
        if wanted {
            self.piece_done(n, piece, supplier, right);
        }
    }

    fn piece_failed(&mut self, n: u32, piece: u32) {
        let agent = &mut self.agents[n as usize];
        let Some(local) = agent.locals.get_mut(&piece) else { return };
        if let Some(filling) = &mut local.filling {
            filling.failed_at = Some(self.now);
        }
        self.totals.retries += 1;
        if std::mem::take(&mut local.on_duty) {
            agent.duty.fetched();
        }
        let relays = std::mem::take(&mut local.relays);
        let (wanted, kept) = (local.wanted, local.kept);
        match self.is_part(piece) {
            true if wanted => self.part_failed(n, piece),
            _ if wanted && kept => self.kept_by_nobody(n, piece),
            _ if !wanted => self.drop_piece(n, piece),
            _ => {}
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
            *if local.on_disk { &mut agent.on_disk } else { &mut agent.held } -= local.have();
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
                local.touched = self.now;
                agent.duty.done(&id);
            }
            if let Some(filling) = &mut local.filling
                && filling.asked.is_some_and(|(home, ..)| home == gone)
            {
                filling.plan.left(&id);
                moved.push(piece);
            }
        }
        for piece in moved {
            self.step_piece(n, piece);
        }
        // What it gave as a holder is missed soon enough.
        self.source_gone(n, gone);
    }
}

/// As in the engine: NARs that others hold cost nothing outside.
pub(crate) fn config(kind: Kind) -> FollowConfig {
    match kind {
        Kind::Nar => FollowConfig {
            elect: false,
            busy_for: std::time::Duration::ZERO,
            ..FollowConfig::default()
        },
        _ => FollowConfig::default(),
    }
}

/// How often agents say that they wait; the simulation's tick is half of it.
#[cfg(test)]
pub(crate) fn heartbeat() -> Nanos {
    crate::world::nanos_of(FollowConfig::default().heartbeat)
}

/// Whether the bytes of a piece have only one source among the peers.
pub(crate) const fn sole_peer(supplier: Supplier) -> Option<u32> {
    match supplier {
        Supplier::Only(peer) if peer != OUTSIDE => Some(peer),
        _ => None,
    }
}
