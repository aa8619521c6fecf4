//! Who sees whom, and whose turn it is.

use haulout_swarm::PeerId;
use haulout_swarm::directory::Directory;
use haulout_swarm::site::{Homes, RANKED_MAX, Turn};

use crate::fleet::number_of;
use crate::world::{OUTSIDE_TAG, World, now_of};

/// Homes remembered for each piece: those that are ranked, and some that may have to be passed over.
pub(crate) const RANKED: usize = RANKED_MAX + 8;

/// What the agents of one side of one subnet see alike: who is there, who fetches, who has what.
///
/// In real life each has a copy of its own, some milliseconds apart. Here they share one; what an agent alone knows (bans,
/// silence, speeds) is in its own peer table.
pub(crate) struct View {
    pub(crate) homes: Homes,
    pub(crate) directory: Directory,
    pub(crate) members: u32,
    pub(crate) version: u32,
    /// Those that fetch from peers now.
    pub(crate) fetchers: Homes,
    pub(crate) fetchers_version: u32,
    pub(crate) ranks: Vec<(u32, Vec<u32>)>,
}

impl View {
    pub(crate) fn new(pieces: usize) -> Self {
        Self {
            homes: Homes::new(),
            directory: Directory::new(),
            members: 0,
            version: 1,
            fetchers: Homes::new(),
            fetchers_version: 1,
            ranks: vec![(0, Vec::new()); pieces],
        }
    }
}

impl World<'_> {
    /// The agents whose turn it is for a piece, as this agent sees it.
    pub(crate) fn turns(&mut self, n: u32, piece: u32) -> Vec<Turn> {
        if self.is_part(piece) {
            return self.fellow_turns(n, piece);
        }
        let key = &self.fleet.catalog.pieces[piece as usize].key;
        let view = &mut self.views[self.agents[n as usize].view as usize];
        let known = &mut view.ranks[piece as usize];
        if known.0 != view.version {
            let all = view.homes.ranking(key, OUTSIDE_TAG, RANKED, |_| true);
            *known = (view.version, all.iter().map(number_of).collect());
        }
        let (agent, now) = (&self.agents[n as usize], self.clock());
        let may = |id: &PeerId| {
            *id == agent.id
                || agent.may_be_home((number_of(id), id), || self.is_mute(number_of(id), n), now)
                    && !agent.fellows.is_out(&key.object, id)
        };
        let view = &self.views[agent.view as usize];
        let known = &view.ranks[piece as usize].1;
        let ids = known.iter().map(|one| self.agents[*one as usize].id);
        let mut ranking: Vec<PeerId> = ids.filter(&may).take(RANKED_MAX).collect();
        if ranking.len() < RANKED_MAX && known.len() == RANKED {
            ranking = view.homes.ranking(key, OUTSIDE_TAG, RANKED_MAX, may);
        }
        view.homes.turns_for(&ranking, now_of(agent.came_at), now)
    }
}
