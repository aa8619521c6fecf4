//! What a running transaction sees and changes.

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};
use sui_sdk_types::{
    Address, Digest, Event, ExecutionError, Identifier, MovePackage, MoveStruct, Object,
    ObjectData, Owner, StructTag, TypeTag,
};

use super::Failure;
use crate::sui::{
    model::{Packages, Store},
    names::{decode, encode, field_tag},
};

/// The chain as a transaction finds it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Env<'a> {
    pub(crate) store: &'a Store,
    pub(crate) packages: &'a Packages,
    /// Sui's epoch.
    pub(crate) epoch: u64,
    pub(crate) sender: Address,
    /// Digest of the transaction: new ids derive from it.
    pub(crate) digest: Digest,
}

/// An object that the transaction touches.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// As it was before; `None` if it did not exist by itself.
    pub(crate) before: Option<Object>,
    /// Its id was made by this transaction.
    pub(crate) created: bool,
    /// The transaction may change it.
    pub(crate) writable: bool,
    /// It was changed, or is an input that counts as changed.
    pub(crate) dirty: bool,
    pub(crate) now: Now,
}

/// What has become of an object.
#[derive(Debug, Clone)]
pub(crate) enum Now {
    Live(Live),
    Package(MovePackage),
    /// Part of another object.
    Wrapped,
    Deleted,
}

/// A Move object in the hands of the transaction.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) type_: StructTag,
    /// Whether its type has `store`: anybody may transfer it.
    pub(crate) public: bool,
    pub(crate) contents: Vec<u8>,
    /// `None`: a value of the transaction that has no place yet.
    pub(crate) owner: Option<Owner>,
}

/// A running transaction.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(crate) env: Env<'a>,
    slots: BTreeMap<Address, Slot>,
    ids: u64,
    events: Vec<Event>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(env: Env<'a>) -> Self {
        Self { env, slots: BTreeMap::new(), ids: 0, events: Vec::new() }
    }

    /// Takes an existing object in.
    pub(crate) fn load(&mut self, object: &Object, writable: bool, dirty: bool) {
        let now = match object.data() {
            ObjectData::Struct(data) => Now::Live(Live {
                type_: data.object_type().clone(),
                public: data.has_public_transfer(),
                contents: data.contents().to_vec(),
                owner: Some(*object.owner()),
            }),
            ObjectData::Package(package) => Now::Package(package.clone()),
        };
        let before = Some(object.clone());
        let slot = Slot { before, created: false, writable, dirty, now };
        self.slots.entry(object.object_id()).or_insert(slot);
    }

    pub(crate) fn into_parts(self) -> (BTreeMap<Address, Slot>, Vec<Event>) {
        (self.slots, self.events)
    }

    /// An id that nothing had before.
    pub(crate) fn fresh_id(&mut self) -> Address {
        let id = Address::derive_id(self.env.digest, self.ids);
        self.ids += 1;
        id
    }

    pub(crate) fn live(&self, id: Address) -> Option<&Live> {
        match &self.slots.get(&id)?.now {
            Now::Live(live) => Some(live),
            _ => None,
        }
    }

    /// An object's value, if it has this type.
    pub(crate) fn read<T: DeserializeOwned>(&self, id: Address, type_: &StructTag) -> Option<T> {
        self.live(id).filter(|live| live.type_ == *type_).and_then(|live| decode(&live.contents))
    }

    pub(crate) fn is_writable(&self, id: Address) -> bool {
        self.slots.get(&id).is_some_and(|slot| slot.writable)
    }

    /// Gives an object new contents; its id stays in front.
    pub(crate) fn write<T: Serialize>(&mut self, id: Address, value: &T) {
        self.overwrite(id, encode(value));
    }

    pub(crate) fn overwrite(&mut self, id: Address, contents: Vec<u8>) {
        if let Some(slot) = self.slots.get_mut(&id)
            && let Now::Live(live) = &mut slot.now
        {
            live.contents = contents;
            slot.dirty = true;
        }
    }

    /// Makes an object whose value begins with `id`.
    pub(crate) fn create<T: Serialize>(
        &mut self,
        id: Address,
        type_: StructTag,
        public: bool,
        value: &T,
    ) {
        let contents = encode(value);
        let now = Now::Live(Live { type_, public, contents, owner: None });
        match self.slots.get_mut(&id) {
            // Taken out of the object that wrapped it.
            Some(slot) => (slot.now, slot.dirty) = (now, true),
            None => {
                let created = self.is_fresh(id);
                let slot = Slot { before: None, created, writable: true, dirty: true, now };
                self.slots.insert(id, slot);
            }
        }
    }

    /// Whether this transaction made `id`.
    fn is_fresh(&self, id: Address) -> bool {
        (0..self.ids).any(|n| Address::derive_id(self.env.digest, n) == id)
    }

    pub(crate) fn delete(&mut self, id: Address) {
        self.end(id, Now::Deleted);
    }

    /// The object's value goes into another object.
    pub(crate) fn wrap(&mut self, id: Address) {
        self.end(id, Now::Wrapped);
    }

    /// An object that was inside another one goes with it.
    pub(crate) fn delete_inner(&mut self, id: Address) {
        let created = self.is_fresh(id);
        let now = Now::Deleted;
        self.slots
            .entry(id)
            .and_modify(|slot| (slot.now, slot.dirty) = (Now::Deleted, true))
            .or_insert(Slot { before: None, created, writable: true, dirty: true, now });
    }

    fn end(&mut self, id: Address, now: Now) {
        if let Some(slot) = self.slots.get_mut(&id) {
            (slot.now, slot.dirty) = (now, true);
        }
    }

    /// Gives an object a place.
    pub(crate) fn place(&mut self, id: Address, owner: Owner) {
        if let Some(slot) = self.slots.get_mut(&id)
            && let Now::Live(live) = &mut slot.now
        {
            live.owner = Some(owner);
            slot.dirty = true;
        }
    }

    pub(crate) fn publish(&mut self, package: MovePackage) {
        let (id, now) = (package.id, Now::Package(package));
        let slot = Slot { before: None, created: true, writable: true, dirty: true, now };
        self.slots.insert(id, slot);
    }

    /// Takes in an object that belongs to another one, if there is such an object.
    pub(crate) fn load_child(&mut self, id: Address) {
        if !self.slots.contains_key(&id)
            && let Some(object) = self.env.store.get(id)
        {
            self.load(object, true, false);
        }
    }

    /// Makes an object that belongs to another one, under an id that derives from its name.
    pub(crate) fn create_child<T: Serialize>(
        &mut self,
        (parent, id): (Address, Address),
        type_: StructTag,
        value: &T,
    ) {
        let (contents, owner) = (encode(value), Some(Owner::Object(parent)));
        let now = Now::Live(Live { type_, public: false, contents, owner });
        let slot = Slot { before: None, created: true, writable: true, dirty: true, now };
        let before = self.slots.remove(&id).and_then(|slot| slot.before);
        let created = before.is_none();
        self.slots.insert(id, Slot { before, created, ..slot });
    }

    /// Deletes one. Of one that this transaction made nothing is left, not even a trace.
    pub(crate) fn delete_child(&mut self, id: Address) {
        match self.slots.get(&id) {
            Some(Slot { before: None, .. }) => drop(self.slots.remove(&id)),
            _ => self.delete(id),
        }
    }

    /// The value of a dynamic field keyed by a `u64`.
    pub(crate) fn field<V: DeserializeOwned>(
        &mut self,
        parent: Address,
        key: u64,
        value: &StructTag,
    ) -> Option<V> {
        let id = field_id(parent, key);
        self.load_child(id);
        let type_ = field_tag(TypeTag::U64, value.clone().into());
        self.read::<(Address, u64, V)>(id, &type_).map(|(_, _, value)| value)
    }

    /// Writes a dynamic field that [`Self::field`] has read.
    pub(crate) fn set_field<V: Serialize>(&mut self, parent: Address, key: u64, value: &V) {
        let id = field_id(parent, key);
        self.write(id, &(id, key, value));
    }

    /// Emits an event of type `package::module_of_type::name` from code in `module`.
    pub(crate) fn emit<T: Serialize>(
        &mut self,
        code: (Address, &'static str),
        type_: StructTag,
        value: &T,
    ) {
        let (package_id, module) = (code.0, Identifier::from_static(code.1));
        let sender = self.env.sender;
        let contents = encode(value);
        self.events.push(Event { package_id, module, sender, type_, contents });
    }

    /// Fails if a value was left over that cannot be dropped.
    pub(crate) fn check_leftovers(&self) -> Result<(), Failure> {
        let left = self.slots.values().any(|slot| match &slot.now {
            Now::Live(live) => live.owner.is_none(),
            _ => false,
        });
        let error = ExecutionError::UnusedValueWithoutDrop { result: 0, subresult: 0 };
        if left { Err(Failure(error)) } else { Ok(()) }
    }
}

/// The id of the dynamic field of `parent` with a `u64` key.
pub(crate) fn field_id(parent: Address, key: u64) -> Address {
    parent.derive_dynamic_child_id(&TypeTag::U64, &key.to_le_bytes())
}

/// An object of the given version, for [`Object::new`].
pub(crate) fn struct_data(live: &Live, version: u64) -> Option<ObjectData> {
    MoveStruct::new(live.type_.clone(), live.public, version, live.contents.clone())
        .map(ObjectData::Struct)
}
