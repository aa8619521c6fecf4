//! Files through the site: the segments of a NAR's file in order, the check at its end, and who lied.

use haulout_swarm::peers::{Peer, State};
use haulout_swarm::site::{Authorship, Away, authorship};
use haulout_swarm::{Fault, PeerId};
use smallvec::SmallVec;

use crate::agent::{FromSite, Supplier, Way};
use crate::catalog::{Kind, NARINFO_BYTES, whole};
use crate::check::Broken;
use crate::event::{Cargo, Event, Parcel};
use crate::net::OUTSIDE;
use crate::site::sole_peer;
use crate::world::{Sabotage, World, id_of, now_of};

/// Segments of one file under way at once.
const AHEAD: u32 = 3;

impl World<'_> {
    pub(crate) fn through_site(&mut self, n: u32, path: u32) {
        let agent = &mut self.agents[n as usize];
        let Some(job) = agent.jobs.get_mut(&path) else { return };
        agent.epoch += 1;
        job.epoch = agent.epoch;
        job.way = Way::Site(FromSite::default());
        self.begin_segments(n, path);
    }

    /// The next segments of the file, as many as there is memory for.
    pub(crate) fn begin_segments(&mut self, n: u32, path: u32) {
        let (first, count) = {
            let path = &self.fleet.catalog.paths[path as usize];
            (path.first, path.segments)
        };
        loop {
            let most = if self.fits(n) { AHEAD } else { 1 };
            let agent = &mut self.agents[n as usize];
            let Some(Way::Site(site)) = agent.jobs.get_mut(&path).map(|job| &mut job.way) else {
                return;
            };
            if site.begun >= count || site.begun - site.complete >= most {
                return;
            }
            let piece = first + site.begun;
            site.begun += 1;
            let kept = site.kept;
            let here = if kept { self.want_kept(n, piece) } else { self.want(n, piece) };
            if here {
                let local = &self.agents[n as usize].locals[&piece];
                let len = u64::from(self.fleet.catalog.pieces[piece as usize].len);
                let right = local.sum == whole(u64::from(piece), len);
                let supplier = local.supplier;
                if let Some(local) = self.agents[n as usize].locals.get_mut(&piece) {
                    (local.wanted, local.read) = (false, true);
                }
                self.segment_done(n, path, piece, supplier, right);
            }
        }
    }

    /// A piece that this agent wanted is complete.
    pub(crate) fn piece_done(&mut self, n: u32, piece: u32, supplier: Supplier, right: bool) {
        let of = &self.fleet.catalog.pieces[piece as usize];
        let path = of.path;
        if of.kind == Kind::File {
            self.segment_done(n, path, piece, supplier, right);
            self.begin_segments(n, path);
        } else if of.kind == Kind::Nar {
            self.part_done(n, path);
            self.begin_parts(n, path);
        } else if right || self.agents[n as usize].lies {
            self.info_known(n, path);
        } else {
            // Its signature does not hold. The document names no liar; the cache itself is asked.
            self.drop_piece(n, piece);
            let takes = self.net.message(crate::net::Way { from: OUTSIDE, to: n });
            self.net.carry_wan(u64::from(NARINFO_BYTES));
            self.agents[n as usize].load.wan += u64::from(NARINFO_BYTES);
            self.at(self.now + 2 * takes, Event::InfoOutside { to: n, path });
        }
    }

    fn segment_done(&mut self, n: u32, path: u32, piece: u32, supplier: Supplier, right: bool) {
        let count = self.fleet.catalog.paths[path as usize].segments;
        let Some(Way::Site(site)) =
            self.agents[n as usize].jobs.get_mut(&path).map(|job| &mut job.way)
        else {
            return;
        };
        site.complete += 1;
        site.wrong |= !right;
        site.suppliers.push((piece, supplier, right));
        if site.complete < count {
            return;
        }
        let (wrong, suppliers) = (site.wrong, std::mem::take(&mut site.suppliers));
        let kept = site.kept;
        let believe = self.sabotage == Some(Sabotage::Believe) || self.agents[n as usize].lies;
        if wrong && !believe && kept {
            self.kept_is_wrong(n, path, suppliers);
        } else if wrong && !believe {
            self.find_liars(n, path, suppliers);
        } else {
            *if kept { &mut self.totals.nars_kept } else { &mut self.totals.nars_from_site } += 1;
            self.site_nar_done(n, path, !wrong);
        }
    }

    /// A NAR does not have its hash. As the engine: every segment that came from one peer alone is fetched again from
    /// outside and compared; who differs is banned; then the whole again.
    fn find_liars(&mut self, n: u32, path: u32, suppliers: SmallVec<[(u32, Supplier, bool); 2]>) {
        let suspects: SmallVec<[_; 2]> = suppliers
            .into_iter()
            .filter(|(_, supplier, _)| sole_peer(*supplier).is_some())
            .collect();
        self.forget_file(n, path);
        let agent = &mut self.agents[n as usize];
        agent.epoch += 1;
        let epoch = agent.epoch;
        let pieces: SmallVec<[u32; 2]> = suspects.iter().map(|(piece, ..)| *piece).collect();
        let Some(job) = agent.jobs.get_mut(&path) else { return };
        job.epoch = epoch;
        job.way = Way::Compare { left: pieces.len() as u32, suspects };
        for piece in &pieces {
            let bytes = self.fleet.catalog.pieces[*piece as usize].len;
            self.totals.outside_fetches += 1;
            let from = self.gateway.unwrap_or(OUTSIDE);
            self.ship(Parcel { from, to: n, bytes, what: Cargo::Compared { path, epoch } });
        }
        if pieces.is_empty() {
            self.again(n, path);
        }
    }

    pub(crate) fn forget_file(&mut self, n: u32, path: u32) {
        let path = &self.fleet.catalog.paths[path as usize];
        for piece in path.first..path.first + path.segments {
            self.drop_piece(n, piece);
        }
    }

    pub(crate) fn compared(&mut self, n: u32, path: u32, epoch: u32) -> Result<(), Broken> {
        let Some(job) =
            self.agents[n as usize].jobs.get_mut(&path).filter(|job| job.epoch == epoch)
        else {
            return Ok(());
        };
        let Way::Compare { left, suspects } = &mut job.way else { return Ok(()) };
        *left -= 1;
        if *left == 0 {
            for (piece, supplier, right) in std::mem::take(suspects) {
                if let (false, Some(peer)) = (right, sole_peer(supplier)) {
                    self.convict(n, piece, peer);
                }
            }
            self.again(n, path);
        }
        Ok(())
    }

    /// A peer alone gave a wrong segment. As the engine: it is banned if it must have made it; if somebody else may have, it is
    /// left out for this file, and counts as a liar when that has happened with several.
    fn convict(&mut self, n: u32, piece: u32, peer: u32) {
        let key = &self.fleet.catalog.pieces[piece as usize].key;
        let (now, id) = (self.clock(), id_of(self.fleet, peer));
        let here: Vec<PeerId> = self.turns(n, piece).iter().map(|turn| turn.peer).collect();
        let agent = &self.agents[n as usize];
        let away = |(id, one): (&PeerId, &Peer)| {
            let banned = matches!(one.state(now), State::Banned { .. });
            (banned || !one.is_connected()).then_some(Away { peer: *id, banned })
        };
        let away: Vec<Away> = agent.table.iter().filter_map(away).collect();
        let homes = &self.views[agent.view as usize].homes;
        let young = homes.turns_for(&[id], now_of(agent.came_at), now).iter().any(|one| one.young);
        let authorship = match authorship(key, &id, &here, &away) {
            Authorship::Own if young => Authorship::Doubtful,
            other => other,
        };
        let fellows = &mut self.agents[n as usize].fellows;
        let lies = match authorship {
            Authorship::Own => true,
            Authorship::Doubtful => {
                fellows.wrong(&key.object, &id);
                fellows.confirmed(&key.object).contains(&id)
            }
            Authorship::PassedOn => {
                fellows.leave_out(&key.object, &id);
                false
            }
        };
        if lies {
            self.blame(n, peer, Fault::WrongContent);
        }
    }

    fn again(&mut self, n: u32, path: u32) {
        self.totals.retries += 1;
        let tries = self.agents[n as usize].jobs.get(&path).map_or(0, |job| job.tries + 1);
        self.start_job(n, path, tries);
    }
}
