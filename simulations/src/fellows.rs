//! NARs that others hold, for those that fetch them at the same time: each piece comes from a holder about once, and the
//! fetchers give it to each other. The rules are the swarm's ([`Fellows`], the homes among those that fetch, [`Follow`] with
//! the holders in the place of the outside); this is what the engine does around them.
//!
//! [`Fellows`]: haulout_swarm::site::Fellows
//! [`Follow`]: haulout_swarm::site::Follow

use std::collections::BTreeSet;

use haulout_swarm::Fault;
use haulout_swarm::site::{End, NAR_SEGMENT_BYTES, Standing, Turn};
use smallvec::SmallVec;

use crate::agent::{FromFellows, Inflow, Local, Relay, Try, Way};
use crate::catalog::{Kind, PEER_WIRE, whole};
use crate::check::Broken;
use crate::event::{Cargo, Event, NarAnswer, Parcel};
use crate::fleet::number_of;
use crate::net::{MILLI, Nanos, SECOND};
use crate::view::RANKED;
use crate::world::{Sabotage, World, id_of, now_of};

/// The place that holders are, in standings.
const HOLDERS_TAG: u32 = 78;
/// NARs up to this size are asked of a holder, whoever else fetches, as in the resolver.
pub(crate) const FELLOWS_MIN: u64 = 64 << 10;
/// Fetchers ranked, and of these asked, for one piece.
const FELLOWS_MAX: usize = 32;
const FELLOWS_RANKED_MAX: usize = 6;
/// How long after the last question about a path an agent counts as one that fetches.
const FETCHING_FOR: Nanos = 10 * SECOND;
/// Pieces of one NAR under way at once.
const AHEAD: u32 = 12;
/// Holders that may fail for one piece.
const FAILURES_MAX: usize = 4;
/// Times that bytes of one NAR may prove wrong before the holders are asked alone.
const WRONG_MAX: u32 = 4;
/// How long a holder may be mute.
const SILENT: Nanos = 1_500 * MILLI;

impl World<'_> {
    // ---- who fetches ----

    /// Nix asks about a path that peers hold.
    pub(crate) fn fetches(&mut self, n: u32, path: u32) {
        let (now, until) = (self.clock(), self.now + FETCHING_FOR);
        let agent = &mut self.agents[n as usize];
        agent.fetches[path as usize] = true;
        let was = std::mem::replace(&mut agent.fetching_until, until);
        if was > self.now {
            return;
        }
        agent.standings += 1;
        let standing = Standing {
            sequence: agent.standings,
            willing: agent.duty.is_willing(),
            outsides: SmallVec::from_slice(&[HOLDERS_TAG]),
        };
        let view = &mut self.views[agent.view as usize];
        view.fetchers.told(agent.id, standing, now);
        view.fetchers_version += 1;
        self.at(until, Event::Lapse(n));
    }

    /// An agent has not asked for a while.
    pub(crate) fn lapse(&mut self, n: u32) {
        let agent = &self.agents[n as usize];
        let until = agent.fetching_until;
        match until > self.now {
            true => self.at(until, Event::Lapse(n)),
            false => self.fetches_no_more(n),
        }
    }

    pub(crate) fn fetches_no_more(&mut self, n: u32) {
        let agent = &mut self.agents[n as usize];
        agent.fetching_until = 0;
        let view = &mut self.views[agent.view as usize];
        if view.fetchers.standing(&agent.id).is_some() {
            view.fetchers.gone(&agent.id);
            view.fetchers_version += 1;
        }
    }

    /// Whom to ask for a piece of a NAR, in order, this agent among them if it is willing.
    pub(crate) fn fellow_turns(&mut self, n: u32, piece: u32) -> Vec<Turn> {
        let key = &self.fleet.catalog.pieces[piece as usize].key;
        let view = &mut self.views[self.agents[n as usize].view as usize];
        let known = &mut view.ranks[piece as usize];
        if known.0 != view.fetchers_version {
            let all = view.fetchers.ranking(key, HOLDERS_TAG, RANKED, |_| true);
            *known = (view.fetchers_version, all.iter().map(number_of).collect());
        }
        let (agent, now) = (&self.agents[n as usize], self.clock());
        let ids = self.views[agent.view as usize].ranks[piece as usize].1.iter();
        ids.map(|one| self.agents[*one as usize].id)
            .filter(|id| {
                *id == agent.id
                    || agent.may_be_home(
                        (number_of(id), id),
                        || self.is_mute(number_of(id), n),
                        now,
                    )
            })
            .take(FELLOWS_MAX)
            .filter(|id| *id == agent.id || agent.fellows.usable(&key.object, id, now))
            .take(FELLOWS_RANKED_MAX)
            .map(|peer| Turn { peer, elder: false, young: false })
            .collect()
    }

    // ---- one NAR ----

    /// Whether a NAR that somebody holds is fetched together with others.
    pub(crate) fn has_fellows(&mut self, n: u32, path: u32) -> bool {
        let path = &self.fleet.catalog.paths[path as usize];
        if path.parts == 0 {
            return false;
        }
        let first = path.first_part;
        let me = self.agents[n as usize].id;
        self.fellow_turns(n, first).iter().any(|turn| turn.peer != me)
    }

    /// The next pieces, as many as there is memory for.
    pub(crate) fn begin_parts(&mut self, n: u32, path: u32) {
        let (first, count) = {
            let path = &self.fleet.catalog.paths[path as usize];
            (path.first_part, path.parts)
        };
        loop {
            let most = if self.fits(n) { AHEAD } else { 1 };
            let Some(together) = self.together(n, path) else { return };
            if together.begun >= count || together.begun - together.complete >= most {
                return;
            }
            let piece = first + together.begun;
            together.begun += 1;
            if self.want(n, piece) {
                if let Some(local) = self.agents[n as usize].locals.get_mut(&piece) {
                    (local.wanted, local.read) = (false, true);
                }
                self.part_done(n, path);
            }
        }
    }

    fn together(&mut self, n: u32, path: u32) -> Option<&mut FromFellows> {
        match self.agents[n as usize].jobs.get_mut(&path).map(|job| &mut job.way) {
            Some(Way::Fellows(together)) => Some(together),
            _ => None,
        }
    }

    /// A piece is here, and was checked.
    pub(crate) fn part_done(&mut self, n: u32, path: u32) {
        let count = self.fleet.catalog.paths[path as usize].parts;
        let Some(together) = self.together(n, path) else { return };
        together.complete += 1;
        if together.complete < count {
            return;
        }
        let object = self.fleet.catalog.part_key(path);
        let liars = self.agents[n as usize].fellows.confirmed(&object);
        for liar in liars {
            self.blame(n, number_of(&liar), Fault::WrongContent);
        }
        self.totals.nars_from_fellows += 1;
        self.site_nar_done(n, path, true);
    }

    /// Together it does not go on: the holders are asked alone.
    pub(crate) fn part_failed(&mut self, n: u32, piece: u32) {
        let path = self.fleet.catalog.pieces[piece as usize].path;
        self.drop_piece(n, piece);
        self.holders_alone(n, path);
    }

    fn holders_alone(&mut self, n: u32, path: u32) {
        if self.together(n, path).is_none() {
            return;
        }
        let of = &self.fleet.catalog.paths[path as usize];
        for piece in of.first_part..of.first_part + of.parts {
            if let Some(local) = self.agents[n as usize].locals.get_mut(&piece) {
                (local.wanted, local.touched) = (false, self.now);
            }
        }
        self.fetch_from_peers(n, path);
    }

    // ---- from a holder ----

    /// This agent is to get a piece from those that hold the NAR.
    pub(crate) fn ask_holder(&mut self, n: u32, piece: u32, attempt: Try, at: u32) {
        let tried = SmallVec::new();
        self.ask_next_holder(n, piece, (attempt, at), tried);
    }

    fn ask_next_holder(
        &mut self,
        n: u32,
        piece: u32,
        (attempt, at): (Try, u32),
        mut tried: SmallVec<[u32; 2]>,
    ) {
        let of = &self.fleet.catalog.pieces[piece as usize];
        let but: BTreeSet<u32> = tried.iter().copied().collect();
        let holders = self.holders(n, of.path, &but);
        let small = self.fleet.catalog.paths[of.path as usize].nar <= NAR_SEGMENT_BYTES;
        // Each segment begins with another one of those that promised the tree.
        let turn = if small { 0 } else { of.key.index as usize % holders.len().max(1) };
        let holder = holders.get(turn).copied().filter(|_| tried.len() < FAILURES_MAX);
        let Some(holder) = holder else {
            let end = End::OutsideFailed;
            return self.at(self.now, Event::Over { to: n, piece, attempt, end });
        };
        tried.push(holder);
        let asked_at = self.now;
        if let Some(filling) = self.filling(n, piece) {
            let holder = Some((holder, asked_at));
            filling.inflow = Some(Inflow { attempt, sent: at, flying: 0, holder, tried });
        }
        self.message(n, holder, Event::PartAsked { holder, from: n, piece, attempt, at });
    }

    /// The holder is of no use: another one, from the same byte.
    fn other_holder(&mut self, n: u32, piece: u32) {
        let Some(local) = self.agents[n as usize].locals.get_mut(&piece) else { return };
        let have = local.have() as u32;
        let Some(filling) = &mut local.filling else { return };
        let Some(inflow) = filling.inflow.take() else { return };
        self.ask_next_holder(n, piece, (inflow.attempt, have), inflow.tried);
    }

    /// A holder that is gone or mute is left.
    pub(crate) fn look_after_holder(&mut self, n: u32, piece: u32) {
        let now = self.now;
        let Some(filling) = self.filling(n, piece) else { return };
        let Some((holder, asked_at)) = filling.inflow.as_ref().and_then(|inflow| inflow.holder)
        else {
            return;
        };
        if now < asked_at + SILENT {
            return;
        }
        if self.is_mute(holder, n) {
            self.blame(n, holder, Fault::Timeout);
            self.other_holder(n, piece);
        } else {
            // A queue of parcels is not silence.
            let attempt = self.filling(n, piece).and_then(|one| Some(one.inflow.as_ref()?.attempt));
            let local = self.agents[n as usize].locals.get_mut(&piece);
            if let (Some(attempt), Some(local)) = (attempt, local) {
                local.waiting(attempt, now_of(now));
            }
        }
    }

    pub(crate) fn part_asked(&mut self, holder: u32, from: u32, piece: u32, attempt: Try, at: u32) {
        let starved = self.sabotage == Some(Sabotage::Starve) && from == 1;
        let of = &self.fleet.catalog.pieces[piece as usize];
        let agent = &self.agents[holder as usize];
        if !agent.on || agent.hangs || starved {
            return;
        }
        let answer = self.nar_answer(holder, of.path);
        let bytes = match answer {
            NarAnswer::No => 20,
            NarAnswer::Bytes { .. } => (f64::from(of.len - at) * PEER_WIRE) as u32 + 20,
        };
        let what = Cargo::Part { piece, attempt, from: at, answer };
        self.answer(Parcel { from: holder, to: from, bytes, what });
    }

    pub(crate) fn part_arrived(&mut self, parcel: Parcel) -> Result<(), Broken> {
        let Cargo::Part { piece, attempt, from, answer } = parcel.what else { return Ok(()) };
        let (n, holder) = (parcel.to, parcel.from);
        self.answer_delivered(holder, n);
        let agent = &self.agents[n as usize];
        if !agent.on || agent.hangs {
            return Ok(());
        }
        let believe = self.sabotage == Some(Sabotage::Believe) || agent.lies;
        let Some(filling) = self.filling(n, piece) else { return Ok(()) };
        let current = filling.inflow.as_ref().is_some_and(|inflow| {
            inflow.attempt == attempt && inflow.holder.is_some_and(|(asked, _)| asked == holder)
        });
        if !current {
            return Ok(());
        }
        let fault = match answer {
            NarAnswer::Bytes { bad } if !bad || believe => None,
            NarAnswer::Bytes { .. } => Some(Fault::WrongContent),
            NarAnswer::No => Some(Fault::FalseHint),
        };
        if let Some(fault) = fault {
            self.blame(n, holder, fault);
            self.other_holder(n, piece);
            return Ok(());
        }
        let bad = answer == NarAnswer::Bytes { bad: true };
        let upto = self.fleet.catalog.pieces[piece as usize].len;
        self.take_bytes((n, holder), piece, attempt, (from, upto, bad))?;
        self.step_piece(n, piece);
        Ok(())
    }

    // ---- from a fellow ----

    /// What a fellow gave does not fit the tree (or, small, the hash): it is fetched from somebody else.
    pub(crate) fn fellow_is_wrong(&mut self, n: u32, fellow: u32, piece: u32) {
        let path = self.fleet.catalog.pieces[piece as usize].path;
        let (object, id) = (self.fleet.catalog.part_key(path), id_of(self.fleet, fellow));
        self.totals.lies_caught += 1;
        let agent = &mut self.agents[n as usize];
        agent.fellows.wrong(&object, &id);
        let Some(local) = agent.locals.get_mut(&piece) else { return };
        let (wanted, relays) = (local.wanted, std::mem::take(&mut local.relays));
        for Relay { to, attempt, .. } in relays {
            let follower = id_of(self.fleet, to);
            self.agents[n as usize].duty.done(&follower);
            self.message(n, to, Event::Over { to, piece, attempt, end: End::Cut });
        }
        self.leave_source(n, piece);
        self.drop_piece(n, piece);
        let Some(together) = self.together(n, path).filter(|_| wanted) else { return };
        together.wrongs += 1;
        match together.wrongs < WRONG_MAX {
            true => drop(self.want(n, piece)),
            false => self.holders_alone(n, path),
        }
    }

    /// How an answer of a fellow ended.
    pub(crate) fn judge_fellow(&mut self, n: u32, fellow: u32, piece: u32, end: End) {
        let of = &self.fleet.catalog.pieces[piece as usize];
        if of.kind != Kind::Nar {
            return;
        }
        let (object, now, id) = (of.key.object, self.clock(), id_of(self.fleet, fellow));
        let fellows = &mut self.agents[n as usize].fellows;
        match end {
            End::Refused => fellows.refused(&object, &id, now),
            End::Complete => fellows.served(&id),
            _ => {}
        }
    }

    /// Takes a piece of a NAR from this agent's own store, if it has it.
    pub(crate) fn take_from_store(&mut self, n: u32, piece: u32) {
        let of = &self.fleet.catalog.pieces[piece as usize];
        let agent = &self.agents[n as usize];
        let here = agent.stored[of.path as usize];
        if !here || agent.locals.contains_key(&piece) || !self.fits(n) {
            return;
        }
        let agent = &mut self.agents[n as usize];
        let sum = whole(u64::from(piece), u64::from(of.len));
        agent.locals.insert(piece, Local::stored(of.len, sum, self.now));
        agent.held += u64::from(of.len);
    }
}
