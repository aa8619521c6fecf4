//! What Nix waits for: narinfos, then NARs. From peers that have the path ([`NarPlan`] over whom [`choose`] ranks), else
//! through the site.
//!
//! [`choose`]: haulout_swarm::choose

use std::collections::{BTreeMap, BTreeSet};

use haulout_swarm::peers::{Answer, PeerTable, State};
use haulout_swarm::plan::{NarPlan, Next, PlanConfig, RequestId, Status};
use haulout_swarm::site::{HOLDERS_ENOUGH, NAR_SEGMENT_BYTES};
use haulout_swarm::{Fault, PeerId, choose};
use smallvec::SmallVec;

use crate::agent::{FromFellows, FromPeers, JOBS_MAX, Job, Request, Way};
use crate::catalog::{PEER_WIRE, content, prefix, whole};
use crate::check::Broken;
use crate::event::{Cargo, Event, NarAnswer, Parcel};
use crate::fleet::number_of;
use crate::net::{MILLI, Nanos};
use crate::world::{Sabotage, World, id_of, now_of};

/// Above this many bytes a NAR comes from several peers at once, as in the resolver.
const SEVERAL_MIN: u64 = 4 << 20;
/// How many, at most.
const HOLDERS_MAX: usize = 6;
/// Bytes of a NAR that may wait out of order.
pub(crate) const WINDOW: u64 = 12 << 20;
/// The resolver's clocks for a NAR from several peers.
const STALLED: Nanos = 1_500 * MILLI;
const COPY_AFTER: Nanos = 500 * MILLI;
/// How often it looks for peers that came to have the NAR.
const LOOK_EVERY: Nanos = 500 * MILLI;
/// Answers under way on one connection: connections share a line alike, whatever is asked on each.
const CONNECTION: u8 = 2;
/// Marks the sum of a NAR from peers, as pieces mark theirs.
const NAR_SUM: u64 = 1 << 29;

impl World<'_> {
    /// Who has a path, best first, as directory and ranking say.
    pub(crate) fn holders(
        &mut self,
        n: u32,
        path: u32,
        but: &BTreeSet<u32>,
    ) -> SmallVec<[u32; 16]> {
        let (first, second) = (self.random.next(), self.random.next());
        let now = self.clock();
        let owing = &self.agents[n as usize].owing;
        let mute: SmallVec<[u32; 4]> =
            owing.iter().copied().filter(|peer| self.is_mute(*peer, n)).collect();
        let agent = &mut self.agents[n as usize];
        let own = agent.id;
        let holders = self.views[agent.view as usize].directory.who_has(prefix(path), first);
        let holders: SmallVec<[_; 16]> = holders
            .into_iter()
            .filter(|peer| *peer != own && !but.contains(&number_of(peer)))
            .collect();
        // All are connected. Of those that nothing else is known of no record is kept: ten thousand times a thousand take memory.
        let known = |table: &PeerTable, peer: &PeerId| table.get(peer).is_some();
        let fresh: SmallVec<[PeerId; 16]> =
            holders.iter().filter(|peer| !known(&agent.table, peer)).copied().collect();
        for peer in &fresh {
            agent.table.connected(*peer, now);
        }
        // An answer that waits behind others is late, not silent: packets arrive.
        for peer in holders.iter().map(number_of) {
            let id = id_of(self.fleet, peer);
            if agent.owing.contains(&peer)
                && !mute.contains(&peer)
                && matches!(agent.table.state(&id, now), Some(State::Silent { .. }))
            {
                agent.heard(peer, &id, now);
            }
        }
        let ranking = choose::rank(&agent.table, holders, 0, now, second);
        for peer in &fresh {
            agent.table.disconnected(peer);
            agent.table.gone(peer, now);
        }
        ranking.peers().map(|peer| number_of(&peer)).collect()
    }

    /// Makes a record of a peer, as of everybody who is connected.
    pub(crate) fn know(&mut self, n: u32, peer: u32) {
        let (id, now) = (id_of(self.fleet, peer), self.clock());
        let table = &mut self.agents[n as usize].table;
        if table.get(&id).is_none() {
            table.connected(id, now);
        }
    }

    /// Nix fetches what it knows the narinfos of: all of them, before the first NAR.
    pub(crate) fn start_jobs(&mut self, n: u32) {
        loop {
            let agent = &self.agents[n as usize];
            let asked_all = agent.infos_next >= agent.wanted.len() && agent.infos_open.is_empty();
            if !agent.on
                || agent.hangs
                || !asked_all
                || agent.jobs.len() >= JOBS_MAX && self.sabotage != Some(Sabotage::Rush)
                || agent.next >= agent.wanted.len()
            {
                return;
            }
            let path = agent.wanted[agent.next];
            self.agents[n as usize].next += 1;
            self.start_job(n, path, 0);
        }
    }

    pub(crate) fn start_job(&mut self, n: u32, path: u32, tries: u32) {
        let agent = &mut self.agents[n as usize];
        agent.epoch += 1;
        let epoch = agent.epoch;
        let job = Job { epoch, way: Way::Fellows(FromFellows::default()), tries };
        agent.jobs.insert(path, job);
        let holders = self.views[agent.view as usize].directory.holders_count(prefix(path));
        let held = holders > 0;
        if held {
            self.fetches(n, path);
        }
        match tries == 0 && self.may_be_kept(n, path) {
            true => self.take_kept(n, path),
            false => self.take_from_holders(n, path, 0),
        }
    }

    /// A NAR from byte `from`, from those that hold it: together with others that fetch it where those are few.
    pub(crate) fn take_from_holders(&mut self, n: u32, path: u32, from: u64) {
        let agent = &mut self.agents[n as usize];
        let holders = self.views[agent.view as usize].directory.holders_count(prefix(path));
        if holders > 0 && holders < HOLDERS_ENOUGH && self.has_fellows(n, path) {
            let agent = &mut self.agents[n as usize];
            let Some(job) = agent.jobs.get_mut(&path) else { return };
            let parts = (from / NAR_SEGMENT_BYTES) as u32;
            job.way = Way::Fellows(FromFellows { begun: parts, complete: parts, wrongs: 0 });
            self.begin_parts(n, path);
        } else {
            self.fetch_rest(n, path, from);
        }
    }

    /// The rest of a NAR from those that hold it, or through the site.
    pub(crate) fn fetch_from_peers(&mut self, n: u32, path: u32) {
        self.fetch_rest(n, path, 0);
    }

    fn fetch_rest(&mut self, n: u32, path: u32, from: u64) {
        let size = self.fleet.catalog.paths[path as usize].nar;
        let number = NAR_SUM + u64::from(path);
        let from_peers = FromPeers {
            plan: NarPlan::new(size, from.min(size), plan_config()),
            open: BTreeMap::new(),
            failed: BTreeSet::new(),
            sum: content(number, from.min(size)).wrapping_sub(content(number, 0)),
            looked_at: self.now,
        };
        let agent = &mut self.agents[n as usize];
        agent.epoch += 1;
        let epoch = agent.epoch;
        let Some(job) = agent.jobs.get_mut(&path) else { return };
        (job.epoch, job.way) = (epoch, Way::Peers(Box::new(from_peers)));
        self.find_sources(n, path);
        self.pump_job(n, path);
    }

    fn transfer(&mut self, n: u32, path: u32) -> Option<&mut FromPeers> {
        match self.agents[n as usize].jobs.get_mut(&path).map(|job| &mut job.way) {
            Some(Way::Peers(peers)) => Some(peers),
            _ => None,
        }
    }

    /// Takes in peers that have the NAR; without any it comes through the site.
    fn find_sources(&mut self, n: u32, path: u32) {
        let now = self.now;
        let Some(peers) = self.transfer(n, path) else { return };
        peers.looked_at = now;
        let size = peers.plan.size();
        let most = if size > SEVERAL_MIN { HOLDERS_MAX } else { 1 };
        let have = peers.plan.sources().count();
        if have >= most {
            return;
        }
        let failed = peers.failed.clone();
        let holders = self.holders(n, path, &failed);
        let Some(peers) = self.transfer(n, path) else { return };
        let mut added: SmallVec<[u32; HOLDERS_MAX]> = SmallVec::new();
        for holder in holders {
            if peers.plan.sources().count() >= most {
                break;
            }
            if !peers.plan.sources().any(|(known, _)| *known == holder) {
                peers.plan.add_source(holder, now_of(now));
                added.push(holder);
            }
        }
        let nobody = peers.plan.status() == Status::NobodyLeft;
        added.into_iter().for_each(|holder| self.know(n, holder));
        if nobody {
            self.through_site(n, path);
        }
    }

    /// Asks everybody who is not busy for the next part.
    fn pump_job(&mut self, n: u32, path: u32) {
        let now = now_of(self.now);
        let agent = &mut self.agents[n as usize];
        let Some(job) = agent.jobs.get_mut(&path) else { return };
        let epoch = job.epoch;
        let Way::Peers(peers) = &mut job.way else { return };
        let sources: SmallVec<[u32; 8]> = peers.plan.sources().map(|(peer, _)| *peer).collect();
        let mut asked: SmallVec<[(u32, RequestId, u32); 8]> = SmallVec::new();
        for peer in sources {
            while let Next::Fetch(segment) = peers.plan.next(peer, now) {
                agent.owing.insert(peer);
                agent.table.asked(&id_of(self.fleet, peer), now);
                let request = Request { asked: self.now, offset: segment.offset };
                peers.open.insert(segment.id, request);
                asked.push((peer, segment.id, segment.len as u32));
            }
        }
        for (holder, id, len) in asked {
            self.message(n, holder, Event::NarAsked { holder, from: n, path, epoch, id, len });
        }
    }

    pub(crate) fn nar_asked(
        &mut self,
        holder: u32,
        from: u32,
        path: u32,
        epoch: u32,
        part: (RequestId, u32),
    ) {
        let starved = self.sabotage == Some(Sabotage::Starve) && from == 1;
        let agent = &self.agents[holder as usize];
        if !agent.on || agent.hangs || starved {
            return;
        }
        let answer = self.nar_answer(holder, path);
        let bytes = match answer {
            NarAnswer::No => 20,
            NarAnswer::Bytes { .. } => (f64::from(part.1) * PEER_WIRE) as u32 + 20,
        };
        let what = Cargo::Nar { path, epoch, id: part.0, answer };
        self.answer(Parcel { from: holder, to: from, bytes, what });
    }

    /// What an agent says that is asked for a NAR. A liar says no now and then, and sends wrong bytes otherwise.
    pub(crate) fn nar_answer(&self, holder: u32, path: u32) -> NarAnswer {
        let agent = &self.agents[holder as usize];
        match agent.stored[path as usize] || agent.lies && !path.is_multiple_of(4) {
            true => NarAnswer::Bytes { bad: agent.lies },
            false => NarAnswer::No,
        }
    }

    /// Sends an answer, after those that wait on the same connection.
    pub(crate) fn answer(&mut self, parcel: Parcel) {
        let (holder, from) = (parcel.from, parcel.to);
        let (flying, waiting) = self.agents[holder as usize].sending.entry(from).or_default();
        if *flying < CONNECTION {
            *flying += 1;
            self.ship(parcel);
        } else {
            waiting.push_back(parcel);
        }
    }

    /// An answer was taken: the next on this connection may go.
    pub(crate) fn answer_delivered(&mut self, holder: u32, to: u32) {
        let reaches = self.reaches(holder, to);
        let sending = &mut self.agents[holder as usize].sending;
        let Some((flying, waiting)) = sending.get_mut(&to) else { return };
        match waiting.pop_front() {
            Some(parcel) if reaches => self.ship(parcel),
            _ => {
                *flying = flying.saturating_sub(1);
                if *flying == 0 {
                    sending.remove(&to);
                }
            }
        }
    }

    pub(crate) fn nar_arrived(
        &mut self,
        way: (u32, u32),
        request: (u32, u32, RequestId),
        answer: NarAnswer,
    ) -> Result<(), Broken> {
        let ((from, n), (path, epoch, id), now) = (way, request, self.clock());
        let believe = self.sabotage == Some(Sabotage::Believe);
        self.answer_delivered(from, n);
        let agent = &mut self.agents[n as usize];
        if !agent.on || agent.hangs {
            return Ok(());
        }
        let peer = id_of(self.fleet, from);
        agent.heard(from, &peer, now);
        let Some(job) = agent.jobs.get_mut(&path).filter(|job| job.epoch == epoch) else {
            return Ok(());
        };
        let Way::Peers(peers) = &mut job.way else { return Ok(()) };
        if !peers.open.contains_key(&id) {
            return Ok(());
        }
        let bad = answer == NarAnswer::Bytes { bad: true };
        let fault = match answer {
            NarAnswer::Bytes { .. } if !bad || believe => None,
            NarAnswer::Bytes { .. } => Some(Fault::WrongContent),
            NarAnswer::No => Some(Fault::FalseHint),
        };
        if let Some(fault) = fault {
            self.blame(n, from, fault);
            self.source_failed(n, path, from);
            return Ok(());
        }
        let Some(request) = peers.open.get(&id) else { return Ok(()) };
        let (asked, offset) = (request.asked, request.offset);
        let progress = peers.plan.progress(id, u64::MAX, now);
        let number = NAR_SUM + u64::from(path);
        if !progress.fresh.is_empty() {
            let fresh = content(number, progress.fresh.end)
                .wrapping_sub(content(number, progress.fresh.start));
            peers.sum = peers.sum.wrapping_add(fresh).wrapping_add(u64::from(bad));
            agent.progress_at = self.now;
        }
        peers.open.remove(&id);
        let took = now.since(now_of(asked));
        let bytes = progress.fresh.end.saturating_sub(offset);
        agent.table.answered(&peer, Answer { first_byte: took, took, bytes }, now);
        for (other, id) in &progress.cancel {
            peers.open.remove(id);
            agent.table.abandoned(&id_of(self.fleet, *other));
        }
        peers.plan.consumed(peers.plan.ready());
        for (other, id) in progress.cancel {
            self.cancel(other, n, (path, epoch, id));
        }
        let Some(peers) = self.transfer(n, path) else { return Ok(()) };
        if peers.plan.status() == Status::Complete {
            let right = peers.sum == whole(number, peers.plan.size());
            self.totals.nars_from_peers += 1;
            return self.nar_done(n, path, right);
        }
        self.pump_job(n, path);
        Ok(())
    }

    /// The asker has no more use for an answer that has not been sent yet.
    fn cancel(&mut self, holder: u32, to: u32, request: (u32, u32, RequestId)) {
        if let Some((_, waiting)) = self.agents[holder as usize].sending.get_mut(&to) {
            waiting.retain(|parcel| match parcel.what {
                Cargo::Nar { path, epoch, id, .. } => (path, epoch, id) != request,
                _ => true,
            });
        }
    }

    /// A source is out of the plan; others take over.
    fn source_failed(&mut self, n: u32, path: u32, from: u32) {
        let agent = &mut self.agents[n as usize];
        let Some(job) = agent.jobs.get_mut(&path) else { return };
        let epoch = job.epoch;
        let Way::Peers(peers) = &mut job.way else { return };
        peers.failed.insert(from);
        let ended = peers.plan.refuse_source(&from);
        for id in &ended {
            peers.open.remove(id);
            agent.table.abandoned(&id_of(self.fleet, from));
        }
        for id in ended {
            self.cancel(from, n, (path, epoch, id));
        }
        self.find_sources(n, path);
        self.pump_job(n, path);
    }

    /// A peer is gone: nothing more comes from it.
    pub(crate) fn source_gone(&mut self, n: u32, gone: u32) {
        let uses = |job: &Job| match &job.way {
            Way::Peers(peers) => peers.plan.sources().any(|(peer, _)| *peer == gone),
            _ => false,
        };
        let jobs = self.agents[n as usize].jobs.iter().filter(|(_, job)| uses(job));
        let paths: Vec<u32> = jobs.map(|(path, _)| *path).collect();
        if !paths.is_empty() {
            self.blame(n, gone, Fault::Cut);
        }
        for path in paths {
            self.source_failed(n, path, gone);
        }
    }

    /// Books a fault, and what it says about the honest and the liars.
    pub(crate) fn blame(&mut self, n: u32, peer: u32, fault: Fault) {
        let now = self.clock();
        let id = id_of(self.fleet, peer);
        let before = self.agents[n as usize].table.get(&id).map_or(0, |one| one.counters().bans);
        self.agents[n as usize].table.blame(&id, fault, now);
        let after = self.agents[n as usize].table.get(&id).map_or(0, |one| one.counters().bans);
        if fault == Fault::WrongContent {
            self.totals.lies_caught += 1;
        }
        if after > before {
            self.agents[n as usize].banned.insert(peer);
            let lies = self.agents[peer as usize].lies;
            *if lies { &mut self.totals.liars_banned } else { &mut self.totals.honest_banned } += 1;
        }
    }

    // ---- done ----

    pub(crate) fn site_nar_done(&mut self, n: u32, path: u32, right: bool) {
        // The path of a result: an error here is a broken invariant, found at the next look.
        let _ = self.nar_done(n, path, right);
    }

    /// NarHash was checked; Nix has the path.
    fn nar_done(&mut self, n: u32, path: u32, right: bool) -> Result<(), Broken> {
        let size = self.fleet.catalog.paths[path as usize].nar;
        let agent = &mut self.agents[n as usize];
        agent.jobs.remove(&path);
        agent.got += 1;
        agent.progress_at = self.now;
        if !right && !agent.lies {
            self.totals.wrong_bytes += size;
            return Err(self.broken(n, format!("path {path} is in the store with wrong bytes")));
        }
        self.kept_confirmed(n, path);
        self.has_now(n, path);
        if self.agents[n as usize].is_done() {
            self.finish(n);
        }
        // Not at once: many NARs may be here already, one after the other.
        self.at(self.now, Event::GoOn(n));
        Ok(())
    }

    /// The clocks of NARs from peers.
    pub(crate) fn look_after_jobs(&mut self, n: u32) -> Result<(), Broken> {
        let paths: Vec<u32> = self.agents[n as usize].jobs.keys().copied().collect();
        let now = self.clock();
        for path in paths {
            let time = self.now;
            let Some(peers) = self.transfer(n, path) else { continue };
            // Half a second is soon enough for clocks of a second and a half.
            if time < peers.looked_at + LOOK_EVERY {
                continue;
            }
            peers.plan.stalled(now);
            let stalled: Vec<u32> = peers
                .plan
                .sources()
                .filter(|(_, source)| source.is_stalled())
                .map(|(peer, _)| *peer)
                .collect();
            // The mesh ends an answer to which nothing came for a second; a queue of parcels is not silence.
            for peer in stalled {
                if !self.reaches(peer, n) || self.agents[peer as usize].hangs {
                    self.blame(n, peer, Fault::Timeout);
                    self.source_failed(n, path, peer);
                } else if let Some(peers) = self.transfer(n, path) {
                    peers.plan.heard(&peer, now);
                    peers.plan.add_source(peer, now);
                }
            }
            self.find_sources(n, path);
            self.pump_job(n, path);
        }
        Ok(())
    }
}

fn plan_config() -> PlanConfig {
    let span = std::time::Duration::from_nanos;
    PlanConfig {
        window_bytes: WINDOW,
        stall_after: span(STALLED),
        hedge_after: span(COPY_AFTER),
        ..PlanConfig::default()
    }
}
