//! The archive contract of this project (`contracts/archive`): a native model of its functions.

use haulout_sui::object_id::address;
use haulout_sui::walrus_types::{Blob, Clock, Field, SystemStateInner, Versioned};
use serde::{Deserialize, Serialize};
use sui_sdk_types::{Address, ExecutionError, Owner, StructTag};

use super::{
    exec::{Call, Failure, Value, field_id},
    names::{decode, tag},
    walrus,
};

const LEVELS_MAX: usize = 8;
const PUBLISHERS_MAX: usize = 8;
const TEXT_BYTES_MAX: usize = 128;
const ROOT_BYTES: usize = 32;

const FOREIGN_OWNER: u64 = 1;
const FOREIGN_PUBLISHER: u64 = 2;
const REVOKED: u64 = 3;
const SEQUENCE: u64 = 4;
const FROZEN: u64 = 5;
const ROOT_LENGTH: u64 = 6;
const NO_LEAVES: u64 = 7;
const NOT_CERTIFIED: u64 = 8;
const DELETABLE: u64 = 9;
const STORAGE_ENDS: u64 = 10;
const EXPIRED: u64 = 11;
const TOO_MANY_LEVELS: u64 = 12;
const KEEP: u64 = 13;
const PLACE: u64 = 14;
const NOT_AN_EXTENSION: u64 = 15;
const TEXT: u64 = 16;
const TOO_MANY_PUBLISHERS: u64 = 17;
const NO_SUCH_PUBLISHER: u64 = 18;

const MODULE: &str = "archive";

/// `archive::Archive`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Archive {
    id: Address,
    sequence: u64,
    updated_ms: u64,
    levels: Vec<Level>,
    publishers: Vec<Address>,
    frozen: bool,
    store_dir: String,
    name: String,
}

/// `archive::Level`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Level {
    root: Vec<u8>,
    leaves: u64,
    index_blob: [u8; 32],
    blob_object: Address,
    index_size: u64,
    end_epoch: u32,
}

/// `archive::OwnerCap` and `archive::PublisherCap`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Cap {
    id: Address,
    archive: Address,
}

/// `archive::Updated`.
#[derive(Serialize)]
struct Updated<'a> {
    archive: Address,
    sequence: u64,
    updated_ms: u64,
    publisher: Address,
    levels: &'a [Level],
}

/// Runs a function of module `archive`.
pub(crate) fn call(call: &mut Call<'_, '_>, name: (&str, &str)) -> Result<Vec<Value>, Failure> {
    if name.0 != MODULE {
        return Err(Failure(ExecutionError::FunctionNotFound));
    }
    match name.1 {
        "create" => create(call),
        "update" => update(call),
        "extend" => extend(call),
        "beat" => beat(call),
        "add_publisher" => {
            call.arity(2)?;
            add_publisher(call, "add_publisher")
        }
        "revoke_publisher" => {
            call.arity(3)?;
            revoke_publisher(call)
        }
        "rotate_publisher" => {
            call.arity(3)?;
            revoke_publisher(call)?;
            add_publisher(call, "add_publisher")
        }
        "freeze_forever" => freeze_forever(call),
        "drop_publisher_cap" => {
            call.arity(1)?;
            let (id, _): (_, Cap) = call.take(0, &publisher_tag(call))?;
            call.session.delete(id);
            Ok(vec![])
        }
        _ => Err(Failure(ExecutionError::FunctionNotFound)),
    }
}

fn archive_tag(call: &Call<'_, '_>) -> StructTag {
    tag(call.package, MODULE, "Archive")
}

fn owner_tag(call: &Call<'_, '_>) -> StructTag {
    tag(call.package, MODULE, "OwnerCap")
}

fn publisher_tag(call: &Call<'_, '_>) -> StructTag {
    tag(call.package, MODULE, "PublisherCap")
}

fn create(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(2)?;
    let (store_dir, name): (String, String) = (call.data(0)?, call.data(1)?);
    let dir = store_dir.as_bytes();
    let good = dir.len() > 1 && dir.len() <= TEXT_BYTES_MAX && dir[0] == b'/';
    call.assert(good && name.len() <= TEXT_BYTES_MAX, MODULE, "create", TEXT)?;
    let id = call.session.fresh_id();
    let (owner, publisher) = (call.session.fresh_id(), call.session.fresh_id());
    let archive = Archive {
        id,
        sequence: 0,
        updated_ms: 0,
        levels: vec![],
        publishers: vec![publisher],
        frozen: false,
        store_dir,
        name,
    };
    let type_ = archive_tag(call);
    call.session.create(id, type_, false, &archive);
    call.session.place(id, Owner::Shared(0));
    emit(call, "Created", &(id, owner, publisher));
    let (owner_type, publisher_type) = (owner_tag(call), publisher_tag(call));
    Ok(vec![
        call.create(owner, owner_type, true, &Cap { id: owner, archive: id }),
        call.create(publisher, publisher_type, true, &Cap { id: publisher, archive: id }),
    ])
}

/// The archive, and the publisher's cap, if it may update now.
fn for_update(call: &Call<'_, '_>) -> Result<(Archive, Cap), Failure> {
    let (id, archive): (_, Archive) = call.object_mut(0, &archive_tag(call))?;
    let (_, cap): (_, Cap) = call.object(1, &publisher_tag(call))?;
    let expected: u64 = call.data(2)?;
    let function = "assert_may_update";
    call.assert(cap.archive == id, MODULE, function, FOREIGN_PUBLISHER)?;
    call.assert(archive.publishers.contains(&cap.id), MODULE, function, REVOKED)?;
    call.assert(!archive.frozen, MODULE, function, FROZEN)?;
    call.assert(archive.sequence == expected, MODULE, function, SEQUENCE)?;
    Ok((archive, cap))
}

fn update(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(11)?;
    let (mut archive, cap) = for_update(call)?;
    let (root, leaves): (Vec<u8>, u64) = (call.data(3)?, call.data(4)?);
    let end_epoch: u32 = call.data(5)?;
    let (keep, place): (Vec<u64>, u64) = (call.data(6)?, call.data(7)?);
    let now = walrus_epoch(call, 9)?;
    let added = level(call, root, leaves, end_epoch, 8, now)?;
    call.assert(keep.len() < LEVELS_MAX, MODULE, "update", TOO_MANY_LEVELS)?;
    call.assert(place <= keep.len() as u64, MODULE, "update", PLACE)?;
    let mut levels = Vec::with_capacity(keep.len() + 1);
    for (i, &position) in keep.iter().enumerate() {
        let old = usize::try_from(position).ok().and_then(|at| archive.levels.get(at));
        let Some(old) = old else { return call.abort(MODULE, "update", KEEP) };
        call.assert(i == 0 || keep[i - 1] < position, MODULE, "update", KEEP)?;
        call.assert(old.end_epoch > now, MODULE, "update", EXPIRED)?;
        levels.push(old.clone());
    }
    levels.insert(usize::try_from(place).unwrap_or(0).min(levels.len()), added);
    archive.levels = levels;
    record(call, archive, cap, 10)
}

fn extend(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(8)?;
    let (mut archive, cap) = for_update(call)?;
    let (position, end_epoch): (u64, u32) = (call.data(3)?, call.data(4)?);
    let at = usize::try_from(position).unwrap_or(usize::MAX);
    let Some(old) = archive.levels.get(at).cloned() else {
        return call.abort(MODULE, "extend", KEEP);
    };
    let now = walrus_epoch(call, 6)?;
    let new = level(call, old.root, old.leaves, end_epoch, 5, now)?;
    let longer = new.index_blob == old.index_blob && new.end_epoch > old.end_epoch;
    call.assert(longer, MODULE, "extend", NOT_AN_EXTENSION)?;
    archive.levels[at] = new;
    record(call, archive, cap, 7)
}

fn beat(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(4)?;
    let (archive, cap) = for_update(call)?;
    record(call, archive, cap, 3)
}

fn record(
    call: &mut Call<'_, '_>,
    mut archive: Archive,
    cap: Cap,
    clock: usize,
) -> Result<Vec<Value>, Failure> {
    let (_, clock): (_, Clock) = call.object(clock, &tag(Address::TWO, "clock", "Clock"))?;
    archive.sequence += 1;
    archive.updated_ms = clock.timestamp_ms;
    call.put(archive.id, &archive);
    let event = Updated {
        archive: archive.id,
        sequence: archive.sequence,
        updated_ms: archive.updated_ms,
        publisher: cap.id,
        levels: &archive.levels,
    };
    emit(call, "Updated", &event);
    Ok(vec![])
}

/// A level over the certified blob at argument `blob`.
fn level(
    call: &Call<'_, '_>,
    root: Vec<u8>,
    leaves: u64,
    end_epoch: u32,
    blob: usize,
    now: u32,
) -> Result<Level, Failure> {
    let blob_type = walrus::blob_tag(call.session.env.packages.walrus());
    let (_, blob): (_, Blob) = call.object(blob, &blob_type)?;
    let check = |ok, code| call.assert(ok, MODULE, "level", code);
    check(root.len() == ROOT_BYTES, ROOT_LENGTH)?;
    check(leaves > 0, NO_LEAVES)?;
    check(blob.certified_epoch.is_some(), NOT_CERTIFIED)?;
    check(!blob.deletable, DELETABLE)?;
    check(blob.storage.end_epoch >= end_epoch, STORAGE_ENDS)?;
    check(end_epoch > now, EXPIRED)?;
    Ok(Level {
        root,
        leaves,
        index_blob: blob.blob_id.0,
        blob_object: address(blob.id),
        index_size: blob.size,
        end_epoch,
    })
}

/// `walrus::system::epoch` of the system object at argument `at`.
fn walrus_epoch(call: &Call<'_, '_>, at: usize) -> Result<u32, Failure> {
    let walrus = call.session.env.packages.walrus();
    let (id, system): (_, Versioned) = call.object(at, &walrus::system_tag(walrus))?;
    let object = call.session.env.store.get(field_id(id, system.version));
    let data = object.and_then(|object| object.as_struct());
    let field = data.and_then(|d| decode::<Field<u64, SystemStateInner>>(d.contents()));
    match field {
        Some(field) => Ok(field.value.committee.epoch),
        None => Err(Failure(ExecutionError::InvariantViolation)),
    }
}

fn owned(call: &Call<'_, '_>) -> Result<Archive, Failure> {
    let (id, archive): (_, Archive) = call.object_mut(0, &archive_tag(call))?;
    let (_, owner): (_, Cap) = call.object(1, &owner_tag(call))?;
    call.assert(owner.archive == id, MODULE, "assert_owner", FOREIGN_OWNER)?;
    Ok(archive)
}

fn add_publisher(call: &mut Call<'_, '_>, function: &'static str) -> Result<Vec<Value>, Failure> {
    let mut archive = owned(call)?;
    let room = archive.publishers.len() < PUBLISHERS_MAX;
    call.assert(room, MODULE, function, TOO_MANY_PUBLISHERS)?;
    let id = call.session.fresh_id();
    archive.publishers.push(id);
    call.put(archive.id, &archive);
    emit(call, "PublisherAdded", &(archive.id, id));
    let type_ = publisher_tag(call);
    Ok(vec![call.create(id, type_, true, &Cap { id, archive: archive.id })])
}

fn revoke_publisher(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    let mut archive = owned(call)?;
    let publisher: Address = call.data(2)?;
    let Some(at) = archive.publishers.iter().position(|id| *id == publisher) else {
        return call.abort(MODULE, "revoke_publisher", NO_SUCH_PUBLISHER);
    };
    archive.publishers.swap_remove(at);
    call.put(archive.id, &archive);
    emit(call, "PublisherRevoked", &(archive.id, publisher));
    Ok(vec![])
}

fn freeze_forever(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(2)?;
    let mut archive = owned(call)?;
    let (owner, _): (_, Cap) = call.take(1, &owner_tag(call))?;
    call.session.delete(owner);
    archive.frozen = true;
    call.put(archive.id, &archive);
    emit(call, "Frozen", &(archive.id, archive.sequence));
    Ok(vec![])
}

fn emit<T: Serialize>(call: &mut Call<'_, '_>, name: &'static str, event: &T) {
    let type_ = tag(call.package, MODULE, name);
    call.session.emit((call.called, MODULE), type_, event);
}
