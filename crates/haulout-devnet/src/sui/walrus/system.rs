//! Modules `system`, `system_state_inner` and `blob`.

use haulout_sui::object_id::{address, object_id};
use haulout_sui::walrus_types::{
    Blob, BlobCertified, BlobDeleted, BlobRegistered, Coin, InvalidBlobId, Storage,
    SystemStateInner, Versioned,
};
use redstuff::{BlobId, Digest, ENCODING_RS2, ShardCount};
use sui_sdk_types::Address;

use super::{
    VERSION, blob_tag,
    certificate::{self, Threshold},
    metadata, storage_tag, system_inner_tag, system_tag, wal_coin_tag,
};
use crate::sui::{
    exec::{Call, Failure, Value},
    names::tag,
};

/// Bytes of a billed unit.
const UNIT: u64 = redstuff::STORAGE_UNIT;

// system
const WRONG_VERSION: u64 = 1;
// system_state_inner
const STORAGE_EXCEEDED: u64 = 1;
pub(super) const INVALID_EPOCHS_AHEAD: u64 = 2;
const INVALID_ID_EPOCH: u64 = 3;
// blob
const NOT_CERTIFIED: u64 = 0;
const NOT_DELETABLE: u64 = 1;
const RESOURCE_BOUNDS: u64 = 2;
const RESOURCE_SIZE: u64 = 3;
const ALREADY_CERTIFIED: u64 = 5;
const INVALID_BLOB_ID: u64 = 6;
const INVALID_PERSISTENCE: u64 = 9;
const INVALID_BLOB_OBJECT: u64 = 10;
// storage_resource
const INCOMPATIBLE_EPOCHS: u64 = 1;
const INCOMPATIBLE_AMOUNT: u64 = 2;
// redstuff
const INVALID_ENCODING: u64 = 0;
// sui::balance
const NOT_ENOUGH: u64 = 2;

pub(super) const INNER: &str = "system_state_inner";

/// The system's state, with what is needed to write it back.
pub(super) struct System {
    id: Address,
    pub(super) inner: SystemStateInner,
}

impl System {
    pub(super) fn open(call: &mut Call<'_, '_>, at: usize, mutable: bool) -> Result<Self, Failure> {
        let type_ = system_tag(call.package);
        let (id, system): (_, Versioned) =
            if mutable { call.object_mut(at, &type_)? } else { call.object(at, &type_)? };
        let current = address(system.package_id) == call.called;
        call.assert(system.version == VERSION && current, "system", "inner", WRONG_VERSION)?;
        let inner = call.session.field(id, VERSION, &system_inner_tag(call.package));
        match inner {
            Some(inner) => Ok(Self { id, inner }),
            None => call.abort("system", "inner", WRONG_VERSION),
        }
    }

    pub(super) fn save(self, call: &mut Call<'_, '_>) {
        call.session.set_field(self.id, VERSION, &self.inner);
    }

    pub(super) fn epoch(&self) -> u32 {
        self.inner.committee.epoch
    }

    fn encoded_length(&self, size: u64) -> Option<u64> {
        let shards = ShardCount::new(self.inner.committee.n_shards).ok()?;
        shards.encoded_length(size).ok()
    }

    /// Accounts of the epoch that is `ahead` epochs away.
    fn accounts(&mut self, ahead: u32) -> Option<&mut haulout_sui::walrus_types::EpochAccounting> {
        let ring = &mut self.inner.future_accounting;
        let at = (ring.current_index + ahead) % ring.length.max(1);
        ring.ring_buffer.get_mut(at as usize)
    }

    /// Takes `price` out of `payment` into the rewards of an epoch.
    fn pay(
        &mut self,
        call: &Call<'_, '_>,
        payment: &mut Coin,
        ahead: u32,
        price: u64,
    ) -> Result<(), Failure> {
        let Some(rest) = payment.balance.checked_sub(price) else {
            return Err(Failure::abort(Address::TWO, "balance", "split", NOT_ENOUGH));
        };
        payment.balance = rest;
        match self.accounts(ahead) {
            Some(accounts) => accounts.rewards = accounts.rewards.saturating_add(price),
            None => return call.abort(INNER, "reserve_space", INVALID_EPOCHS_AHEAD),
        }
        Ok(())
    }

    pub(super) fn pay_storage(
        &mut self,
        call: &Call<'_, '_>,
        payment: &mut Coin,
        size: u64,
        epochs: std::ops::Range<u32>,
    ) -> Result<(), Failure> {
        let due = self.inner.storage_price_per_unit_size.saturating_mul(size.div_ceil(UNIT));
        epochs.into_iter().try_for_each(|ahead| self.pay(call, payment, ahead, due))
    }

    pub(super) fn use_capacity(
        &mut self,
        call: &Call<'_, '_>,
        size: u64,
        epochs: std::ops::Range<u32>,
    ) -> Result<(), Failure> {
        for ahead in epochs {
            let total = self.inner.total_capacity_size;
            let Some(accounts) = self.accounts(ahead) else {
                return call.abort(INNER, "reserve_space", INVALID_EPOCHS_AHEAD);
            };
            let used = accounts.used_capacity.saturating_add(size);
            accounts.used_capacity = used;
            call.assert(used <= total, INNER, "reserve_space_without_payment", STORAGE_EXCEEDED)?;
            if ahead == 0 {
                self.inner.used_capacity_size = used;
            }
        }
        Ok(())
    }
}

pub(super) fn payment(call: &Call<'_, '_>, at: usize) -> Result<(Address, Coin), Failure> {
    call.object_mut(at, &wal_coin_tag(call.session.env.packages.wal()))
}

/// `register_blob(system, storage, blob_id, root_hash, size, encoding_type, deletable, payment): Blob`.
pub(super) fn register_blob(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(8)?;
    let mut system = System::open(call, 0, true)?;
    let (storage_id, storage): (_, Storage) = call.take(1, &storage_tag(call.package))?;
    let (blob_id, root): ([u8; 32], [u8; 32]) = (call.data(2)?, call.data(3)?);
    let (size, encoding_type): (u64, u8) = (call.data(4)?, call.data(5)?);
    let deletable: bool = call.data(6)?;
    let (coin, mut payment) = payment(call, 7)?;
    let blob_id = BlobId(blob_id);
    let now = system.epoch();
    let id = call.session.fresh_id();

    let within = (storage.start_epoch..storage.end_epoch).contains(&now);
    call.assert(within, "blob", "new", RESOURCE_BOUNDS)?;
    let encodable = encoding_type == ENCODING_RS2;
    call.assert(encodable, "encoding", "encoded_blob_length", INVALID_ENCODING)?;
    let Some(encoded) = system.encoded_length(size) else {
        return call.abort("redstuff", "encoded_blob_length", INVALID_ENCODING);
    };
    call.assert(encoded <= storage.storage_size, "blob", "new", RESOURCE_SIZE)?;
    let derived = BlobId::compute(size, &Digest::new(root));
    call.assert(derived == blob_id, "blob", "new", INVALID_BLOB_ID)?;

    let due = system.inner.write_price_per_unit_size.saturating_mul(encoded.div_ceil(UNIT));
    system.pay(call, &mut payment, 0, due)?;
    call.put(coin, &payment);
    system.save(call);
    call.session.wrap(storage_id);
    let end_epoch = storage.end_epoch;
    let blob_object = object_id(id);
    let event = BlobRegistered {
        epoch: now,
        blob_id,
        size,
        encoding_type,
        end_epoch,
        deletable,
        object_id: blob_object,
    };
    emit(call, "BlobRegistered", &event);
    let blob = Blob {
        id: blob_object,
        registered_epoch: now,
        blob_id,
        size,
        encoding_type,
        certified_epoch: None,
        storage,
        deletable,
    };
    Ok(vec![call.create(id, blob_tag(call.package), true, &blob)])
}

/// `certify_blob(system, blob, signature, signers_bitmap, message)`.
pub(super) fn certify_blob(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(5)?;
    let system = System::open(call, 0, false)?;
    let (id, mut blob): (_, Blob) = call.object_mut(1, &blob_tag(call.package))?;
    let (signature, bitmap): (Vec<u8>, Vec<u8>) = (call.data(2)?, call.data(3)?);
    let message: Vec<u8> = call.data(4)?;
    let committee = &system.inner.committee;
    let (epoch, body) =
        certificate::verify(call, committee, Threshold::Quorum, &signature, &bitmap, &message)?;
    call.assert(epoch == system.epoch(), INNER, "certify_blob", INVALID_ID_EPOCH)?;
    let message = certificate::blob_message(call, &message, body)?;

    let function = "certify_with_certified_msg";
    call.assert(blob.blob_id == message.blob, "blob", function, INVALID_BLOB_ID)?;
    call.assert(blob.certified_epoch.is_none(), "blob", function, ALREADY_CERTIFIED)?;
    call.assert(epoch < blob.storage.end_epoch, "blob", function, RESOURCE_BOUNDS)?;
    let deletable = message.object.is_some();
    call.assert(blob.deletable == deletable, "blob", function, INVALID_PERSISTENCE)?;
    if let Some(object) = message.object {
        call.assert(object == blob.id.0, "blob", function, INVALID_BLOB_OBJECT)?;
    }
    blob.certified_epoch = Some(epoch);
    call.put(id, &blob);
    emit_certified(call, &blob, false);
    Ok(vec![])
}

/// `delete_blob(system, blob): Storage`.
pub(super) fn delete_blob(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(2)?;
    let system = System::open(call, 0, false)?;
    let (id, blob): (_, Blob) = call.take(1, &blob_tag(call.package))?;
    let epoch = system.epoch();
    call.assert(blob.deletable, "blob", "delete", NOT_DELETABLE)?;
    call.assert(blob.storage.end_epoch > epoch, "blob", "delete", RESOURCE_BOUNDS)?;
    metadata::drop_of(call, id);
    call.session.delete(id);
    let event = BlobDeleted {
        epoch,
        blob_id: blob.blob_id,
        end_epoch: blob.storage.end_epoch,
        object_id: blob.id,
        was_certified: blob.certified_epoch.is_some(),
    };
    emit(call, "BlobDeleted", &event);
    let storage = address(blob.storage.id);
    Ok(vec![call.create(storage, storage_tag(call.package), true, &blob.storage)])
}

/// `extend_blob(system, blob, extended_epochs, payment)`.
pub(super) fn extend_blob(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(4)?;
    let mut system = System::open(call, 0, true)?;
    let (id, mut blob): (_, Blob) = call.object_mut(1, &blob_tag(call.package))?;
    let epochs: u32 = call.data(2)?;
    let (coin, mut payment) = payment(call, 3)?;
    prolong(call, &mut system, &mut blob, epochs, &mut payment)?;
    call.put(coin, &payment);
    call.put(id, &blob);
    system.save(call);
    emit_certified(call, &blob, true);
    Ok(vec![])
}

/// Buys `epochs` more for a certified blob.
pub(super) fn prolong(
    call: &Call<'_, '_>,
    system: &mut System,
    blob: &mut Blob,
    epochs: u32,
    payment: &mut Coin,
) -> Result<(), Failure> {
    let now = system.epoch();
    assert_certified(call, blob, now)?;
    let start = blob.storage.end_epoch - now;
    let end = start.saturating_add(epochs);
    let max = system.inner.future_accounting.length;
    call.assert(epochs > 0 && end <= max, INNER, "extend_blob", INVALID_EPOCHS_AHEAD)?;
    let size = blob.storage.storage_size;
    system.pay_storage(call, payment, size, start..end)?;
    system.use_capacity(call, size, start..end)?;
    blob.storage.end_epoch += epochs;
    Ok(())
}

/// `extend_blob_with_resource(system, blob, extension)`.
pub(super) fn extend_blob_with_resource(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(3)?;
    let system = System::open(call, 0, false)?;
    let (id, mut blob): (_, Blob) = call.object_mut(1, &blob_tag(call.package))?;
    let (extension_id, extension): (_, Storage) = call.take(2, &storage_tag(call.package))?;
    assert_certified(call, &blob, system.epoch())?;
    let later = extension.end_epoch > blob.storage.end_epoch;
    call.assert(later, "blob", "extend_with_resource", RESOURCE_BOUNDS)?;
    let module = "storage_resource";
    let same = extension.storage_size == blob.storage.storage_size;
    call.assert(same, module, "fuse_periods", INCOMPATIBLE_AMOUNT)?;
    let adjacent = extension.start_epoch == blob.storage.end_epoch;
    call.assert(adjacent, module, "fuse_periods", INCOMPATIBLE_EPOCHS)?;
    blob.storage.end_epoch = extension.end_epoch;
    call.session.delete(extension_id);
    call.put(id, &blob);
    emit_certified(call, &blob, true);
    Ok(vec![])
}

/// `invalidate_blob_id(system, signature, members_bitmap, message): u256`.
pub(super) fn invalidate_blob_id(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(4)?;
    let system = System::open(call, 0, false)?;
    let (signature, bitmap): (Vec<u8>, Vec<u8>) = (call.data(1)?, call.data(2)?);
    let message: Vec<u8> = call.data(3)?;
    let committee = &system.inner.committee;
    let (epoch, body) =
        certificate::verify(call, committee, Threshold::Validity, &signature, &bitmap, &message)?;
    call.assert(epoch == system.epoch(), INNER, "invalidate_blob_id", INVALID_ID_EPOCH)?;
    let blob_id = certificate::invalid_message(call, &message, body)?;
    emit(call, "InvalidBlobID", &InvalidBlobId { epoch, blob_id });
    Ok(vec![Value::data(blob_id.as_bytes())])
}

/// `blob::burn(blob)`: the object goes, the data stay until the end.
pub(super) fn burn(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(1)?;
    let (id, blob): (_, Blob) = call.take(0, &blob_tag(call.package))?;
    metadata::drop_of(call, id);
    call.session.delete(id);
    call.session.delete_inner(address(blob.storage.id));
    Ok(vec![])
}

fn assert_certified(call: &Call<'_, '_>, blob: &Blob, now: u32) -> Result<(), Failure> {
    let function = "assert_certified_not_expired";
    call.assert(blob.certified_epoch.is_some(), "blob", function, NOT_CERTIFIED)?;
    call.assert(now < blob.storage.end_epoch, "blob", function, RESOURCE_BOUNDS)
}

pub(super) fn emit_certified(call: &mut Call<'_, '_>, blob: &Blob, is_extension: bool) {
    let event = BlobCertified {
        epoch: blob.certified_epoch.unwrap_or(0),
        blob_id: blob.blob_id,
        end_epoch: blob.storage.end_epoch,
        deletable: blob.deletable,
        object_id: blob.id,
        is_extension,
    };
    emit(call, "BlobCertified", &event);
}

/// Emits an event of module `events`; the transaction called module `system`.
pub(super) fn emit<T: serde::Serialize>(call: &mut Call<'_, '_>, name: &'static str, event: &T) {
    let package = call.package;
    call.session.emit((call.called, "system"), tag(package, "events", name), event);
}
