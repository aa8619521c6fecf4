//! narinfos: asked for from the top of a closure down, of peers that have the path, else through the site.

use std::collections::BTreeSet;

use haulout_swarm::Fault;

use crate::agent::INFOS_MAX;
use crate::event::Event;
use crate::net::{MILLI, Nanos};
use crate::world::{World, id_of};

/// Path infos in one answer of a peer.
const INFOS_AHEAD: usize = 256;
/// What such an answer takes for each path.
const INFO_BYTES: u32 = 700;
/// How long a peer's answer about a path is waited for: of a mute one, and of one that is alive.
const INFO_PATIENCE: Nanos = 300 * MILLI;
const INFO_TOTAL: Nanos = 1_500 * MILLI;

impl World<'_> {
    /// Nix asks for the narinfos of all that is missing, from the top down, some at a time.
    pub(crate) fn want_infos(&mut self, n: u32) {
        loop {
            let agent = &mut self.agents[n as usize];
            if !agent.on
                || agent.infos_open.len() >= INFOS_MAX
                || agent.infos_next >= agent.wanted.len()
            {
                return;
            }
            let path = agent.wanted[agent.wanted.len() - 1 - agent.infos_next];
            agent.infos_next += 1;
            if agent.infos[path as usize] {
                continue;
            }
            agent.infos_open.insert(path);
            match self.best_holder(n, path) {
                Some(holder) => {
                    self.message(n, holder, Event::InfosAsked { holder, from: n, path });
                    let late = Event::InfosLate { to: n, holder, path, last: false };
                    self.at(self.now + INFO_PATIENCE, late);
                }
                None => self.info_from_site(n, path),
            }
        }
    }

    fn info_from_site(&mut self, n: u32, path: u32) {
        if self.want(n, path) {
            if let Some(local) = self.agents[n as usize].locals.get_mut(&path) {
                (local.wanted, local.read) = (false, true);
            }
            self.info_known(n, path);
        }
    }

    pub(crate) fn infos_late(&mut self, n: u32, (holder, path): (u32, u32), last: bool) {
        if !last && !self.is_mute(holder, n) {
            let late = Event::InfosLate { to: n, holder, path, last: true };
            return self.at(self.now + INFO_TOTAL - INFO_PATIENCE, late);
        }
        let agent = &self.agents[n as usize];
        let under_way = agent.locals.get(&path).is_some_and(|local| local.wanted);
        if agent.on && agent.infos_open.contains(&path) && !under_way {
            self.info_from_site(n, path);
        }
    }

    pub(crate) fn infos_asked(&mut self, holder: u32, from: u32, path: u32) {
        let agent = &self.agents[holder as usize];
        if agent.on && !agent.hangs {
            let yes = agent.stored[path as usize] && !agent.lies;
            self.message(holder, from, Event::InfosTold { to: from, holder, path, yes });
        }
    }

    pub(crate) fn infos_told(&mut self, n: u32, holder: u32, path: u32, yes: bool) {
        let id = id_of(self.fleet, holder);
        let now = self.clock();
        self.agents[n as usize].heard(holder, &id, now);
        if !yes {
            self.agents[n as usize].table.blame(&id, Fault::FalseHint, now);
            self.infos_late(n, (holder, path), true);
            return;
        }
        // With the path come the infos of what it refers to: of the rest of the list that the holder has.
        let (agents, wanted) = (&self.agents, &self.agents[n as usize].wanted);
        let at = wanted.iter().position(|other| *other == path).unwrap_or(0);
        let told: Vec<u32> = wanted[..=at.min(wanted.len().saturating_sub(1))]
            .iter()
            .rev()
            .filter(|other| agents[holder as usize].stored[**other as usize])
            .take(INFOS_AHEAD)
            .copied()
            .collect();
        self.agents[holder as usize].load.up += u64::from(INFO_BYTES) * told.len() as u64;
        self.agents[n as usize].load.down += u64::from(INFO_BYTES) * told.len() as u64;
        for other in told {
            self.note_info(n, other);
            self.fetches(n, other);
            self.learn_file(n, other);
        }
        self.go_on(n);
    }

    fn note_info(&mut self, n: u32, path: u32) {
        let agent = &mut self.agents[n as usize];
        agent.infos[path as usize] = true;
        agent.infos_open.remove(&path);
        agent.progress_at = self.now;
    }

    pub(crate) fn info_known(&mut self, n: u32, path: u32) {
        self.note_info(n, path);
        self.agents[n as usize].files[path as usize] = true;
        self.at(self.now, Event::GoOn(n));
    }

    /// The first of those that the swarm would ask.
    fn best_holder(&mut self, n: u32, path: u32) -> Option<u32> {
        self.holders(n, path, &BTreeSet::new()).first().copied()
    }
}
