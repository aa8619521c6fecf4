//! What the own store gives to peers.

use std::sync::{Arc, PoisonError};

use haulout_mesh::{Asker, Audience, HoldingsFeed, Membership, NarKey, NarReader, NarTree, Serve};
use haulout_nix::{HashPart, PathInfo};

use super::LocalStore;
use super::index::{Checked, Class, Standing};
use super::layouts::StoreNar;

impl LocalStore {
    /// The standing of a path, its signature really checked, if it may go to
    /// such a peer.
    fn permitted(&self, info: &PathInfo, to: Membership) -> Option<Standing> {
        let policy = self.policy.load();
        let hash = info.path.hash_part();
        let mut standing = self.index.read().unwrap_or_else(PoisonError::into_inner).get(&hash)?;
        if standing.class == Class::Signed && standing.checked == Checked::NotYet {
            standing.checked = policy.check(&self.store_dir, info);
            self.note_checked(&policy, &hash, standing.checked);
        }
        policy.allows(standing, to).then_some(standing)
    }

    /// The info as such a peer may see it.
    fn given(&self, info: &PathInfo, to: Membership) -> Option<PathInfo> {
        let standing = self.permitted(info, to)?;
        let mut given = info.clone();
        self.policy.load().sign(&self.store_dir, standing, &mut given);
        Some(given)
    }

    /// Whether this NAR may go to such a peer.
    fn may_have(&self, key: &NarKey, to: Membership) -> bool {
        let Some(info) = self.info(&key.path) else { return false };
        info.nar_hash == key.nar_hash
            && info.nar_size == key.nar_size
            && self.permitted(&info, to).is_some()
    }

    /// With whom a path is shared, in words, for `why`.
    pub(crate) fn shared_with(&self, hash: &HashPart) -> Vec<&'static str> {
        let Some(info) = self.info(hash) else { return Vec::new() };
        [(Membership::Stranger, "strangers"), (Membership::Member, "members")]
            .into_iter()
            .filter(|(to, _)| self.permitted(&info, *to).is_some())
            .map(|(_, word)| word)
            .collect()
    }
}

impl Serve for LocalStore {
    fn path_infos(&self, asker: &Asker, hash: &HashPart, max: usize) -> Vec<PathInfo> {
        // One look at the index first: "no" costs no query.
        let first = if self.contains(hash) { self.info(hash) } else { None };
        let Some(first) = first.and_then(|info| self.given(&info, asker.membership)) else {
            self.stats.refused.one();
            return Vec::new();
        };
        let mut infos = vec![first];
        let closure = self.closure(hash, max);
        infos.extend(closure.iter().skip(1).filter_map(|info| self.given(info, asker.membership)));
        self.stats.infos_given.add(infos.len() as u64);
        infos
    }

    fn nar_tree(&self, asker: &Asker, key: &NarKey) -> Option<NarTree> {
        let tree = self.may_have(key, asker.membership).then(|| self.tree(key)).flatten();
        if tree.is_some() {
            self.stats.trees_given.one()
        } else {
            self.stats.refused.one()
        }
        tree.map(|tree| NarTree::clone(&tree))
    }

    fn open_nar(&self, asker: &Asker, key: &NarKey) -> Option<Box<dyn NarReader>> {
        let layout =
            if self.may_have(key, asker.membership) { self.layout(key).ok() } else { None };
        let Some(layout) = layout else {
            self.stats.refused.one();
            return None;
        };
        self.stats.nars_given.one();
        let (layouts, stats) = (Arc::clone(&self.layouts), Arc::clone(&self.stats));
        Some(Box::new(StoreNar { layout, layouts, key: *key, stats }))
    }

    fn holdings(&self, audience: Audience) -> Option<Arc<HoldingsFeed>> {
        Some(Arc::clone(match audience {
            Membership::Stranger => &self.strangers,
            Membership::Member => &self.members,
        }))
    }
}
