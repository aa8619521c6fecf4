//! Module `metadata`, and what `blob` does with it: a blob object's attributes, pairs of strings in a dynamic field.

use haulout_sui::walrus_types::Blob;
use sui_sdk_types::{Address, StructTag, TypeTag};

use super::blob_tag;
use crate::sui::{
    exec::{Call, Failure, Value},
    names::{encode, field_tag, tag},
};

// blob
const DUPLICATE_METADATA: u64 = 7;
const MISSING_METADATA: u64 = 8;
// sui::vec_map
const NO_SUCH_KEY: u64 = 1;

/// The name of the field, a `vector<u8>`.
const NAME: &[u8] = b"metadata";

/// `metadata::Metadata`: pairs in the order in which they were set last.
type Metadata = Vec<(String, String)>;

/// `0x2::dynamic_field::Field<vector<u8>, Metadata>`.
type MetadataField = (Address, Vec<u8>, Metadata);

fn bytes_tag() -> TypeTag {
    TypeTag::Vector(Box::new(TypeTag::U8))
}

fn field_of(call: &Call<'_, '_>, blob: Address) -> (Address, StructTag) {
    let id = blob.derive_dynamic_child_id(&bytes_tag(), &encode(&NAME.to_vec()));
    (id, field_tag(bytes_tag(), tag(call.package, "metadata", "Metadata").into()))
}

/// The attributes of a blob object, if it has any.
fn read(call: &mut Call<'_, '_>, blob: Address) -> Option<Metadata> {
    let (id, type_) = field_of(call, blob);
    call.session.load_child(id);
    call.session.read::<MetadataField>(id, &type_).map(|(_, _, metadata)| metadata)
}

fn write(call: &mut Call<'_, '_>, blob: Address, metadata: Metadata) {
    let (id, type_) = field_of(call, blob);
    let exists = call.session.live(id).is_some();
    let field: MetadataField = (id, NAME.to_vec(), metadata);
    match exists {
        true => call.session.write(id, &field),
        false => call.session.create_child((blob, id), type_, &field),
    }
}

/// Takes the attributes away from a blob object, if it has any.
pub(super) fn drop_of(call: &mut Call<'_, '_>, blob: Address) -> Option<Metadata> {
    let metadata = read(call, blob)?;
    let (id, _) = field_of(call, blob);
    call.session.delete_child(id);
    Some(metadata)
}

fn set(metadata: &mut Metadata, key: String, value: String) {
    metadata.retain(|(other, _)| *other != key);
    metadata.push((key, value));
}

fn unset(metadata: &mut Metadata, key: &str) -> Result<(String, String), Failure> {
    let no_such_key = || Failure::abort(Address::TWO, "vec_map", "get_idx", NO_SUCH_KEY);
    let at = metadata.iter().position(|(other, _)| other == key).ok_or_else(no_such_key)?;
    Ok(metadata.remove(at))
}

/// The blob object by mutable reference.
fn blob(call: &Call<'_, '_>) -> Result<Address, Failure> {
    let (id, _): (_, Blob) = call.object_mut(0, &blob_tag(call.package))?;
    Ok(id)
}

/// `metadata::new(): Metadata`.
pub(super) fn new(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(0)?;
    Ok(vec![Value::data(&Metadata::new())])
}

/// `metadata::insert_or_update(metadata, key, value)`.
pub(super) fn insert_or_update(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(3)?;
    let mut metadata: Metadata = call.data(0)?;
    set(&mut metadata, call.data(1)?, call.data(2)?);
    call.set_data(0, &metadata);
    Ok(vec![])
}

/// `metadata::remove(metadata, key): (String, String)`.
pub(super) fn remove(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(2)?;
    let mut metadata: Metadata = call.data(0)?;
    let (key, value) = unset(&mut metadata, &call.data::<String>(1)?)?;
    call.set_data(0, &metadata);
    Ok(vec![Value::data(&key), Value::data(&value)])
}

/// `blob::add_metadata(blob, metadata)`.
pub(super) fn add_metadata(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(2)?;
    let (blob, metadata) = (blob(call)?, call.data(1)?);
    let is_new = read(call, blob).is_none();
    call.assert(is_new, "blob", "add_metadata", DUPLICATE_METADATA)?;
    write(call, blob, metadata);
    Ok(vec![])
}

/// `blob::add_or_replace_metadata(blob, metadata): Option<Metadata>`.
pub(super) fn add_or_replace_metadata(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(2)?;
    let (blob, metadata) = (blob(call)?, call.data(1)?);
    let before = drop_of(call, blob);
    write(call, blob, metadata);
    Ok(vec![Value::data(&before)])
}

/// `blob::take_metadata(blob): Metadata`.
pub(super) fn take_metadata(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(1)?;
    let blob = blob(call)?;
    match drop_of(call, blob) {
        Some(metadata) => Ok(vec![Value::data(&metadata)]),
        None => call.abort("blob", "take_metadata", MISSING_METADATA),
    }
}

/// `blob::insert_or_update_metadata_pair(blob, key, value)`: makes the attributes if there are none.
pub(super) fn insert_or_update_pair(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(3)?;
    let blob = blob(call)?;
    let mut metadata = read(call, blob).unwrap_or_default();
    set(&mut metadata, call.data(1)?, call.data(2)?);
    write(call, blob, metadata);
    Ok(vec![])
}

/// `blob::remove_metadata_pair(blob, key): (String, String)`.
pub(super) fn remove_pair(call: &mut Call<'_, '_>) -> Result<Vec<Value>, Failure> {
    call.arity(2)?;
    let blob = blob(call)?;
    let Some(mut metadata) = read(call, blob) else {
        return call.abort("blob", "metadata", MISSING_METADATA);
    };
    let (key, value) = unset(&mut metadata, &call.data::<String>(1)?)?;
    write(call, blob, metadata);
    Ok(vec![Value::data(&key), Value::data(&value)])
}
