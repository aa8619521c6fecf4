//! All objects, live ones by id and every version ever written.

use std::collections::{BTreeMap, BTreeSet};

use sui_sdk_types::{Address, Object, Owner, StructTag, Version};

/// Objects of the chain. Old versions are kept as long as the history has them: what a pruned node no longer has is
/// decided where it answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    live: BTreeMap<Address, Object>,
    versions: BTreeMap<(Address, Version), Object>,
    fields: BTreeMap<Address, BTreeSet<Address>>,
    owned: BTreeMap<Address, BTreeSet<Address>>,
}

impl Store {
    /// The latest version of a live object.
    pub(crate) fn get(&self, id: Address) -> Option<&Object> {
        self.live.get(&id)
    }

    /// A version that was written at some time.
    pub(crate) fn version(&self, id: Address, version: Version) -> Option<&Object> {
        self.versions.get(&(id, version))
    }

    /// The latest version at or below `version`, whether or not the object still lives.
    pub(crate) fn at_or_before(&self, id: Address, version: Version) -> Option<&Object> {
        self.versions.range((id, 0)..=(id, version)).next_back().map(|(_, object)| object)
    }

    /// Ids of the dynamic fields of `parent`, ascending.
    pub(crate) fn fields_of(&self, parent: Address) -> impl Iterator<Item = Address> + '_ {
        self.fields.get(&parent).into_iter().flatten().copied()
    }

    /// Objects that `owner` owns, ascending by id.
    pub(crate) fn owned_by(&self, owner: Address) -> impl Iterator<Item = &Object> {
        self.owned.get(&owner).into_iter().flatten().filter_map(|id| self.live.get(id))
    }

    /// Objects of `owner` with this very type.
    pub(crate) fn owned_of_type<'a>(
        &'a self,
        owner: Address,
        type_: &'a StructTag,
    ) -> impl Iterator<Item = &'a Object> {
        self.owned_by(owner)
            .filter(move |object| object.as_struct().is_some_and(|s| s.object_type() == type_))
    }

    /// Puts a new version in the place of the old one.
    pub(crate) fn write(&mut self, object: Object) {
        let id = object.object_id();
        self.forget_place(id);
        match object.owner() {
            Owner::Address(owner) | Owner::ConsensusAddress { owner, .. } => {
                self.owned.entry(*owner).or_default().insert(id);
            }
            Owner::Object(parent) => {
                self.fields.entry(*parent).or_default().insert(id);
            }
            _ => {}
        }
        self.versions.insert((id, object.version()), object.clone());
        self.live.insert(id, object);
    }

    /// Forgets an old version; the live one stays.
    pub(crate) fn forget_version(&mut self, id: Address, version: Version) {
        if self.live.get(&id).is_none_or(|live| live.version() != version) {
            self.versions.remove(&(id, version));
        }
    }

    /// Takes an object away: deleted, or wrapped into another.
    pub(crate) fn remove(&mut self, id: Address) {
        self.forget_place(id);
        self.live.remove(&id);
    }

    fn forget_place(&mut self, id: Address) {
        let Some(owner) = self.live.get(&id).map(|object| *object.owner()) else { return };
        let (map, key) = match owner {
            Owner::Address(owner) | Owner::ConsensusAddress { owner, .. } => {
                (&mut self.owned, owner)
            }
            Owner::Object(parent) => (&mut self.fields, parent),
            _ => return,
        };
        if let Some(set) = map.get_mut(&key) {
            set.remove(&id);
            if set.is_empty() {
                map.remove(&key);
            }
        }
    }
}
