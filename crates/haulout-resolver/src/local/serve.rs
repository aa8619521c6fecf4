//! What this machine gives to peers.

use std::sync::{Arc, PoisonError};

use haulout_mesh::{Asker, Audience, HoldingsFeed, Membership, NarKey, NarReader, NarTree, Serve};
use haulout_nix::{HashPart, PathInfo};

use super::LocalStore;
use super::index::{Checked, Class, Standing};
use super::layouts::GivenNar;
use super::source::Place;

impl LocalStore {
    /// The standing of a path, its signature really checked, if it may go to
    /// such a peer.
    fn permitted(&self, info: &PathInfo, place: Place, to: Membership) -> Option<Standing> {
        let policy = self.policy.load();
        let hash = info.path.hash_part();
        let mut standing = match place {
            Place::Store => self.index.read().unwrap_or_else(PoisonError::into_inner).get(&hash)?,
            Place::Cache => self.kept.standing(&hash)?,
        };
        if standing.class == Class::Signed && standing.checked == Checked::NotYet {
            standing.checked = policy.check(&self.store_dir, info);
            match place {
                Place::Store => self.note_checked(&hash, standing.checked),
                Place::Cache => self.note_kept_checked(&hash, standing.checked),
            }
        }
        policy.allows(standing, to).then_some(standing)
    }

    /// A path this machine could give: from the store, else from the cache.
    fn offered(&self, hash: &HashPart) -> Option<(Arc<PathInfo>, Place)> {
        // One look at the index first: "no" costs no query.
        let own = if self.contains(hash) { self.info(hash) } else { None };
        let own = own.map(|info| (info, Place::Store));
        own.or_else(|| Some((self.kept_info(hash)?, Place::Cache)))
    }

    /// The info as such a peer may see it.
    fn given(&self, info: &PathInfo, place: Place, to: Membership) -> Option<PathInfo> {
        let standing = self.permitted(info, place, to)?;
        let mut given = info.clone();
        self.policy.load().sign(&self.store_dir, standing, &mut given);
        Some(given)
    }

    /// The path of this NAR, if it may go to such a peer.
    pub(super) fn may_have(&self, key: &NarKey, to: Membership) -> Option<Arc<PathInfo>> {
        let own = self.info(&key.path).map(|info| (info, Place::Store));
        let kept = || Some((self.kept_info(&key.path)?, Place::Cache));
        let right = |(info, _): &(Arc<PathInfo>, Place)| {
            info.nar_hash == key.nar_hash && info.nar_size == key.nar_size
        };
        // The two may be different builds of the path.
        let (info, place) = own.filter(right).or_else(|| kept().filter(right))?;
        self.permitted(&info, place, to).is_some().then_some(info)
    }

    /// With whom a path is shared, in words, for `why`.
    pub(crate) fn shared_with(&self, hash: &HashPart) -> Vec<&'static str> {
        let Some((info, place)) = self.offered(hash) else { return Vec::new() };
        [(Membership::Stranger, "strangers"), (Membership::Member, "members")]
            .into_iter()
            .filter(|(to, _)| self.permitted(&info, place, *to).is_some())
            .map(|(_, word)| word)
            .collect()
    }
}

impl Serve for LocalStore {
    fn path_infos(&self, asker: &Asker, hash: &HashPart, max: usize) -> Vec<PathInfo> {
        let offered = self.offered(hash);
        let first = offered.and_then(|(info, place)| self.given(&info, place, asker.membership));
        let Some(first) = first else {
            self.stats.refused.one();
            return Vec::new();
        };
        let mut infos = vec![first];
        let closure = self.closure(hash, max);
        infos.extend(closure.iter().skip(1).filter_map(|info| {
            let place =
                if self.contains(&info.path.hash_part()) { Place::Store } else { Place::Cache };
            self.given(info, place, asker.membership)
        }));
        self.stats.infos_given.add(infos.len() as u64);
        infos
    }

    fn nar_tree(&self, asker: &Asker, key: &NarKey) -> Option<NarTree> {
        let tree = self.may_have(key, asker.membership).and_then(|_| self.tree(key));
        if tree.is_some() {
            self.stats.trees_given.one()
        } else {
            self.stats.refused.one()
        }
        tree.map(|tree| NarTree::clone(&tree))
    }

    fn open_nar(&self, asker: &Asker, key: &NarKey) -> Option<Box<dyn NarReader>> {
        let info = self.may_have(key, asker.membership);
        let opened = info.and_then(|info| Some((self.source(key).ok()?, info)));
        let Some((source, info)) = opened else {
            self.stats.refused.one();
            return None;
        };
        self.stats.nars_given.one();
        let (layouts, stats) = (Arc::clone(&self.layouts), Arc::clone(&self.stats));
        let giving = self.giving.begin(asker.peer, *key, &info.path);
        Some(Box::new(GivenNar { source, layouts, key: *key, giving, stats }))
    }

    fn holdings(&self, audience: Audience) -> Option<Arc<HoldingsFeed>> {
        Some(Arc::clone(match audience {
            Membership::Stranger => &self.strangers,
            Membership::Member => &self.members,
        }))
    }
}
