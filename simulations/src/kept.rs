//! NARs that few hold, from the packed pieces that the homes of the file still keep ([`Follow::kept`]): they are
//! spread over all homes, and a fifth of the unpacked bytes.

use haulout_swarm::Fault;
use haulout_swarm::site::{Follow, few_hold};
use smallvec::SmallVec;

use crate::agent::{FromSite, Local, Supplier, Way};
use crate::catalog::prefix;
use crate::fellows::FELLOWS_MIN;
use crate::fleet::number_of;
use crate::site::{config, sole_peer};
use crate::world::{World, id_of};

impl World<'_> {
    /// Whether so few hold a NAR that its packed pieces are asked for first.
    fn has_few_holders(&self, n: u32, path: u32) -> bool {
        let view = &self.views[self.agents[n as usize].view as usize];
        let holders = view.directory.holders_count(prefix(path));
        let large = self.fleet.catalog.paths[path as usize].nar > FELLOWS_MIN;
        large && holders > 0 && few_hold(holders, view.fetchers.len())
    }

    /// A peer told the path info; which file it is outside, the narinfo says: asked for in the background, of who has it.
    pub(crate) fn learn_file(&mut self, n: u32, path: u32) {
        if !self.agents[n as usize].files[path as usize] && self.has_few_holders(n, path) {
            self.want_kept(n, path);
        }
    }

    /// Whether a NAR that some hold is to be taken from its file's homes.
    pub(crate) fn may_be_kept(&self, n: u32, path: u32) -> bool {
        self.agents[n as usize].files[path as usize] && self.has_few_holders(n, path)
    }

    pub(crate) fn take_kept(&mut self, n: u32, path: u32) {
        let agent = &mut self.agents[n as usize];
        let Some(job) = agent.jobs.get_mut(&path) else { return };
        job.way = Way::Site(FromSite { kept: true, ..FromSite::default() });
        self.begin_segments(n, path);
    }

    /// The agent takes a piece if somebody has it: begins to ask, or says that it is here already.
    pub(crate) fn want_kept(&mut self, n: u32, piece: u32) -> bool {
        if self.has_expired(n, piece) {
            self.drop_piece(n, piece);
        }
        if let Some(local) = self.agents[n as usize].locals.get_mut(&piece) {
            (local.wanted, local.touched) = (true, self.now);
            return local.is_complete();
        }
        let kind = self.fleet.catalog.pieces[piece as usize].kind;
        let len = self.len_of(piece);
        let agent = &mut self.agents[n as usize];
        let plan = (Follow::kept(agent.id, len, 0, config(kind)), agent.number());
        let mut local = Local::new(plan, true, self.now);
        local.kept = true;
        agent.locals.insert(piece, local);
        agent.active.insert(piece);
        self.totals.kept_asked += 1;
        self.step_piece(n, piece);
        self.keep_ticking(n);
        false
    }

    /// Nobody has a piece any more: the rest of the NAR comes from those that hold it.
    pub(crate) fn kept_by_nobody(&mut self, n: u32, piece: u32) {
        self.drop_piece(n, piece);
        let path = self.fleet.catalog.pieces[piece as usize].path;
        let of = &self.fleet.catalog.paths[path as usize];
        let segments = of.first..of.first + of.segments;
        if !segments.contains(&piece) {
            return;
        }
        let Some(Way::Site(FromSite { kept: true, suppliers, wrong, .. })) =
            self.agents[n as usize].jobs.get_mut(&path).map(|job| &mut job.way)
        else {
            return;
        };
        let (suppliers, wrong) = (std::mem::take(suppliers), *wrong);
        let here = |piece: u32| suppliers.iter().any(|(one, ..)| *one == piece);
        let ahead = segments.clone().find(|piece| !here(*piece)).unwrap_or(segments.end);
        let bytes: u64 = (segments.start..ahead)
            .map(|piece| u64::from(self.fleet.catalog.pieces[piece as usize].len))
            .sum();
        for piece in segments {
            if let Some(local) = self.agents[n as usize].locals.get_mut(&piece)
                && local.wanted
            {
                (local.wanted, local.touched) = (false, self.now);
            }
        }
        self.totals.kept_missing += 1;
        if wrong {
            // The tree of whoever holds the NAR shows it at the first byte.
            return self.kept_is_wrong(n, path, suppliers);
        }
        self.take_from_holders(n, path, self.fleet.catalog.unpacked(bytes));
    }

    /// What homes had is not what the narinfo says. It names no liar: who may be one is left out for the file; when that
    /// has happened with several files of which nobody else gave anything, it lies.
    pub(crate) fn kept_is_wrong(
        &mut self,
        n: u32,
        path: u32,
        suppliers: SmallVec<[(u32, Supplier, bool); 2]>,
    ) {
        self.totals.lies_caught += 1;
        self.forget_file(n, path);
        let first = self.fleet.catalog.paths[path as usize].first;
        let object = self.fleet.catalog.pieces[first as usize].key.object;
        let agent = &mut self.agents[n as usize];
        let alone = suppliers.len() == 1;
        for peer in suppliers.iter().filter_map(|(_, supplier, _)| sole_peer(*supplier)) {
            let id = id_of(self.fleet, peer);
            match alone {
                true => agent.fellows.wrong(&object, &id),
                false => agent.fellows.leave_out(&object, &id),
            }
        }
        self.take_from_holders(n, path, 0);
    }

    /// The NAR was had from others, and is right: who gave something else for it lies if that has happened several times.
    pub(crate) fn kept_confirmed(&mut self, n: u32, path: u32) {
        let of = &self.fleet.catalog.paths[path as usize];
        let key = &self.fleet.catalog.pieces[of.first as usize].key;
        for liar in self.agents[n as usize].fellows.confirmed(&key.object) {
            self.blame(n, number_of(&liar), Fault::WrongContent);
        }
    }
}
