//! Pieces given to others: requests, relays, signs of life.

use haulout_swarm::site::{End, Follow, Verdict};

use crate::agent::{Local, Relay, Try};
use crate::catalog::Kind;
use crate::event::{Cargo, Event, Parcel};
use crate::net::{MILLI, Nanos, SECOND};
use crate::site::config;
use crate::world::{World, now_of};

/// Parcels of one stream under way: half a megabyte, more than the product of bandwidth and delay on any LAN.
const WINDOW: u8 = 2;
/// How long a piece that nobody wants any more is still fetched, as in the engine.
const LINGER: Nanos = 3 * SECOND;
/// Until a piece that failed is tried anew.
const AGAIN: Nanos = SECOND;
/// A request without a sign of life for so long makes its peer silent, as in the peer table.
const SILENCE: Nanos = 300 * MILLI;

impl World<'_> {
    pub(crate) fn asked(
        &mut self,
        home: u32,
        from: u32,
        (piece, held): (u32, bool),
        attempt: Try,
        at: u32,
    ) {
        let starved = self.sabotage == Some(crate::world::Sabotage::Starve) && from == 1;
        let asker = self.agents[from as usize].id;
        let len = self.len_of(piece);
        let agent = &self.agents[home as usize];
        if !agent.on || agent.hangs || starved {
            return;
        }
        if self.has_expired(home, piece) {
            self.drop_piece(home, piece);
        }
        let kind = self.fleet.catalog.pieces[piece as usize].kind;
        let path = self.fleet.catalog.pieces[piece as usize].path;
        if kind == Kind::Nar && !self.agents[home as usize].fetches[path as usize] {
            let end = End::Refused;
            self.message(home, from, Event::Over { to: from, piece, attempt, end });
            return;
        }
        if kind == Kind::Nar {
            self.take_from_store(home, piece);
        }
        let here =
            self.agents[home as usize].locals.get(&piece).filter(|local| !local.has_failed());
        let fresh = here.is_none();
        let is_held =
            |local: &Local| local.filling.as_ref().is_none_or(|filling| filling.plan.is_outside());
        if held && !here.is_some_and(is_held) {
            let end = End::Refused;
            self.message(home, from, Event::Over { to: from, piece, attempt, end });
            return;
        }
        // A gateway's answers are HTTP streams, which wait rather than being refused.
        let gateway = self.fleet.machines[home as usize].gateway;
        let room = !fresh || self.fits(home) || gateway;
        let agent = &mut self.agents[home as usize];
        let end = match agent.duty.ask(asker, fresh) {
            Verdict::Welcome if room => None,
            Verdict::Welcome => {
                agent.duty.done(&asker);
                Some(End::Busy)
            }
            Verdict::Busy => Some(End::Busy),
            Verdict::Unwilling => Some(End::Refused),
        };
        if let Some(end) = end {
            self.totals.busy += u64::from(end == End::Busy);
            self.message(home, from, Event::Over { to: from, piece, attempt, end });
            return;
        }
        agent.active.insert(piece);
        let now = self.now;
        let (me, number) = (agent.id, if fresh { agent.number() } else { 0 });
        let local = agent.locals.entry(piece).or_insert_with(|| {
            Local::new((Follow::home(me, asker, len, 0, config(kind)), number), false, now)
        });
        if fresh {
            agent.duty.fetching();
            local.on_duty = true;
            if let Some(filling) = &mut local.filling
                && filling.failed_at.take().is_some()
            {
                let have = len.map_or(0, |_| filling.plan.have());
                filling.plan = Follow::home(me, asker, len, have, config(kind));
                local.number = number;
            }
        }
        let relay = Relay { to: from, attempt, sent: at, flying: 0 };
        match local.relays.binary_search_by_key(&from, |relay| relay.to) {
            // It asks anew: the earlier stream is dead.
            Ok(place) => {
                local.relays[place] = relay;
                agent.duty.done(&asker);
            }
            Err(place) => local.relays.insert(place, relay),
        }
        if let Some(filling) = &mut local.filling {
            filling.plan.relied_on_by(&asker);
        }
        let streams = agent.duty.streams();
        agent.load.relays = agent.load.relays.max(streams);
        self.totals.relays_peak = self.totals.relays_peak.max(streams);
        self.hear(from, home, piece, attempt);
        self.step_piece(home, piece);
        self.pump_relays(home, piece);
        self.keep_ticking(home);
    }

    pub(crate) fn stop(&mut self, home: u32, from: u32, piece: u32, attempt: Try) {
        let asker = self.agents[from as usize].id;
        let agent = &mut self.agents[home as usize];
        if let Some(local) = agent.locals.get_mut(&piece)
            && local.drop_relay(from, attempt)
        {
            local.touched = self.now;
            agent.duty.done(&asker);
        }
    }

    /// Hands on what is here.
    pub(crate) fn pump_relays(&mut self, n: u32, piece: u32) {
        let mut place = 0;
        while self.pump_relay(n, piece, place) {
            place += 1;
        }
    }

    /// Hands on to the follower at this place; false if there is none.
    fn pump_relay(&mut self, n: u32, piece: u32, place: usize) -> bool {
        let kind = self.fleet.catalog.pieces[piece as usize].kind;
        let document = kind == Kind::Document;
        let most = self.fleet.catalog.parcel(kind);
        loop {
            let agent = &mut self.agents[n as usize];
            let Some(local) = agent.locals.get_mut(&piece) else { return false };
            let have = if document && !local.is_complete() { 0 } else { local.have() as u32 };
            let bad = local.bad || agent.lies;
            let Some(relay) = local.relays.get(place) else { return false };
            if relay.flying >= WINDOW || relay.sent >= have || agent.hangs {
                return true;
            }
            let (from, upto) = (relay.sent, (relay.sent + most).min(have));
            let (to, attempt) = (relay.to, relay.attempt);
            let what = Cargo::Piece { piece, attempt, from, upto, bad };
            if !self.reaches(n, to) {
                return true;
            }
            let agent = &mut self.agents[n as usize];
            if let Some(relay) =
                agent.locals.get_mut(&piece).and_then(|local| local.relays.get_mut(place))
            {
                (relay.sent, relay.flying) = (upto, relay.flying + 1);
            }
            let bytes = match self.gateway == Some(n) {
                true => upto - from,
                false => self.fleet.catalog.bytes_relayed(kind, upto - from),
            };
            self.ship(Parcel { from: n, to, bytes, what });
        }
    }

    /// A parcel was taken: the next may go, or the stream is over.
    pub(crate) fn delivered(&mut self, n: u32, to: u32, piece: u32, attempt: Try) {
        let len = self.fleet.catalog.pieces[piece as usize].len;
        let follower = self.agents[to as usize].id;
        let agent = &mut self.agents[n as usize];
        let Some(local) = agent.locals.get_mut(&piece) else { return };
        let Ok(place) = local.relays.binary_search_by_key(&to, |relay| relay.to) else { return };
        let relay = &mut local.relays[place];
        if relay.attempt != attempt {
            return;
        }
        relay.flying -= 1;
        if relay.sent >= len && relay.flying == 0 {
            local.relays.remove(place);
            local.touched = self.now;
            local.had(to);
            agent.duty.done(&follower);
            self.totals.pieces_relayed += 1;
        } else {
            self.pump_relay(n, piece, place);
        }
    }

    /// Who waits for this agent is told that it is alive.
    pub(crate) fn beat(&mut self, n: u32) {
        let mut told = Vec::new();
        let agent = &self.agents[n as usize];
        for piece in &agent.active {
            let Some(local) = agent.locals.get(piece) else { continue };
            let waiting = local.relays.iter().filter(|relay| relay.flying == 0);
            told.extend(waiting.map(|relay| (relay.to, *piece, relay.attempt)));
        }
        for (to, piece, attempt) in told {
            if self.reaches(n, to) {
                self.hear(to, n, piece, attempt);
            }
        }
    }

    /// A sign of life: the request was accepted, or what it asks for is waited for.
    fn hear(&mut self, n: u32, home: u32, piece: u32, attempt: Try) {
        let now = now_of(self.now);
        let id = self.agents[home as usize].id;
        let follower = &mut self.agents[n as usize];
        if let Some(local) = follower.locals.get_mut(&piece) {
            local.waiting(attempt, now);
            if let Some(filling) = &mut local.filling
                && let Some((_, asked, heard_at, _)) = &mut filling.asked
                && *asked == attempt
            {
                *heard_at = self.now;
            }
            follower.heard(home, &id, now);
        }
    }

    /// Looks at the clocks of every piece that is not complete, and lets go of what nobody wants.
    pub(crate) fn look_after_pieces(&mut self, n: u32) {
        let pieces: Vec<u32> = self.agents[n as usize].active.iter().copied().collect();
        for piece in pieces {
            self.drop_dead_relays(n, piece);
            let agent = &mut self.agents[n as usize];
            let Some(local) = agent.locals.get_mut(&piece) else {
                agent.active.remove(&piece);
                continue;
            };
            let Some(filling) = &local.filling else {
                if local.relays.is_empty() {
                    agent.active.remove(&piece);
                }
                continue;
            };
            if !local.wanted && local.relays.is_empty() {
                if self.now >= local.touched + LINGER {
                    self.leave_source(n, piece);
                    self.drop_piece(n, piece);
                }
                continue;
            }
            if let Some(failed) = filling.failed_at {
                if self.now >= failed + AGAIN {
                    self.plan_anew(n, piece);
                    self.step_piece(n, piece);
                }
                continue;
            }
            self.look_after_holder(n, piece);
            self.note_silence(n, piece);
            self.hear_parcels(n, piece);
            self.step_piece(n, piece);
        }
    }

    /// Another plan for a piece that is wanted, from the byte where it stands.
    pub(crate) fn plan_anew(&mut self, n: u32, piece: u32) {
        let have = if self.len_of(piece).is_some() { local_have(self, n, piece) } else { 0 };
        let plan = self.plan(n, piece, have);
        let number = self.agents[n as usize].number();
        let Some(local) = self.agents[n as usize].locals.get_mut(&piece) else { return };
        let Some(filling) = &mut local.filling else { return };
        (local.number, local.kept) = (number, false);
        (filling.plan, filling.failed_at) = (plan, None);
    }

    fn drop_dead_relays(&mut self, n: u32, piece: u32) {
        let Some(local) = self.agents[n as usize].locals.get(&piece) else { return };
        let dead = local.relays.iter().filter(|relay| !self.agents[relay.to as usize].on);
        let dead: Vec<(u32, Try)> = dead.map(|relay| (relay.to, relay.attempt)).collect();
        for (to, attempt) in dead {
            self.stop(n, to, piece, attempt);
        }
    }

    /// What a peer owes for too long goes into the peer table: then it is no home for anything else, either.
    pub(crate) fn note_silence(&mut self, n: u32, piece: u32) {
        let agent = &mut self.agents[n as usize];
        let Some(local) = agent.locals.get_mut(&piece) else { return };
        let Some(filling) = &mut local.filling else { return };
        let nothing_yet = filling.plan.have() == 0;
        let Some((home, _, since, booked)) = &mut filling.asked else { return };
        if !*booked && nothing_yet && self.now >= *since + SILENCE {
            *booked = true;
            let id = crate::world::id_of(self.fleet, *home);
            let at = now_of(*since);
            if agent.table.get(&id).is_none() {
                agent.table.connected(id, at);
            }
            let home = *home;
            agent.asked(home, &id, at);
        }
    }

    /// Parcels stand for packets that come all the time: while one is under way, its sender is heard.
    pub(crate) fn hear_parcels(&mut self, n: u32, piece: u32) {
        let (now, Some(filling)) = (now_of(self.now), self.filling(n, piece)) else { return };
        let due = filling.plan.wake_at().is_some_and(|at| at <= now);
        let Some((home, attempt, ..)) = filling.asked.filter(|_| due) else { return };
        let flying = self.reaches(home, n)
            && !self.agents[home as usize].hangs
            && self.agents[home as usize].locals.get(&piece).is_some_and(|theirs| {
                theirs
                    .relays
                    .iter()
                    .any(|relay| relay.to == n && relay.attempt == attempt && relay.flying > 0)
            });
        if flying && let Some(local) = self.agents[n as usize].locals.get_mut(&piece) {
            local.waiting(attempt, now_of(self.now));
        }
    }
}

fn local_have(world: &World<'_>, n: u32, piece: u32) -> u64 {
    world.agents[n as usize].locals.get(&piece).map_or(0, |local| local.have())
}
