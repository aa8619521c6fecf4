//! Move values as JSON, as a full node renders them: for types whose layout is known.

use data_encoding::BASE64;
use prost_types::{ListValue, Struct, Value, value::Kind};
use redstuff::BlobId;
use sui_sdk_types::{Address, StructTag};

/// A Move type's layout.
enum Layout {
    Bool,
    /// Integers up to 32 bits are numbers.
    Small(usize),
    U64,
    U256,
    Address,
    Text,
    Bytes,
    Option(&'static Self),
    Vector(&'static Self),
    Fields(&'static [(&'static str, Self)]),
    Enum(&'static [(&'static str, &'static [(&'static str, Self)])]),
}

use Layout::{
    Address as A, Bool, Bytes, Enum, Fields, Option as Opt, Small, Text, U64, U256, Vector,
};

const U8: Layout = Small(1);
const U16: Layout = Small(2);
const U32: Layout = Small(4);

const VERSIONED: Layout =
    Fields(&[("id", A), ("version", U64), ("package_id", A), ("new_package_id", Opt(&A))]);
const STORAGE: Layout =
    Fields(&[("id", A), ("start_epoch", U32), ("end_epoch", U32), ("storage_size", U64)]);
const BLOB: Layout = Fields(&[
    ("id", A),
    ("registered_epoch", U32),
    ("blob_id", U256),
    ("size", U64),
    ("encoding_type", U8),
    ("certified_epoch", Opt(&U32)),
    ("storage", STORAGE),
    ("deletable", Bool),
]);
const TABLE: Layout = Fields(&[("id", A), ("size", U64)]);
const PENDING: Layout =
    Fields(&[("pos0", Fields(&[("contents", Vector(&Fields(&[("key", U32), ("value", U64)])))]))]);
const ELEMENT: Layout = Fields(&[("bytes", Bytes)]);
const AUTHORIZED: Layout = Enum(&[("Address", &[("pos0", A)]), ("ObjectID", &[("pos0", A)])]);
const POOL: Layout = Fields(&[
    ("id", A),
    ("state", Enum(&[("Active", &[]), ("Withdrawing", &[("pos0", U32)]), ("Withdrawn", &[])])),
    (
        "voting_params",
        Fields(&[("storage_price", U64), ("write_price", U64), ("node_capacity", U64)]),
    ),
    (
        "node_info",
        Fields(&[
            ("name", Text),
            ("node_id", A),
            ("network_address", Text),
            ("public_key", ELEMENT),
            ("next_epoch_public_key", Opt(&ELEMENT)),
            ("network_public_key", Bytes),
            ("metadata", Fields(&[("id", A)])),
        ]),
    ),
    ("activation_epoch", U32),
    ("latest_epoch", U32),
    ("wal_balance", U64),
    ("num_shares", U64),
    ("pending_shares_withdraw", PENDING),
    ("pre_active_withdrawals", PENDING),
    ("pending_commission_rate", PENDING),
    ("commission_rate", U16),
    ("exchange_rates", TABLE),
    ("pending_stake", PENDING),
    ("rewards_pool", U64),
    ("commission", U64),
    ("commission_receiver", AUTHORIZED),
    ("governance_authorized", AUTHORIZED),
    ("extra_fields", TABLE),
]);
const CAP: Layout = Fields(&[
    ("id", A),
    ("node_id", A),
    ("last_epoch_sync_done", U32),
    (
        "last_event_blob_attestation",
        Opt(&Fields(&[("checkpoint_sequence_num", U64), ("epoch", U32)])),
    ),
    ("deny_list_root", U256),
    ("deny_list_sequence", U64),
    ("deny_list_size", U64),
]);
const LEVEL: Layout = Fields(&[
    ("root", Bytes),
    ("leaves", U64),
    ("index_blob", U256),
    ("blob_object", A),
    ("index_size", U64),
    ("end_epoch", U32),
]);
const ARCHIVE: Layout = Fields(&[
    ("id", A),
    ("sequence", U64),
    ("updated_ms", U64),
    ("levels", Vector(&LEVEL)),
    ("publishers", Vector(&A)),
    ("frozen", Bool),
    ("store_dir", Text),
    ("name", Text),
]);
const REGISTERED: Layout = Fields(&[
    ("epoch", U32),
    ("blob_id", U256),
    ("size", U64),
    ("encoding_type", U8),
    ("end_epoch", U32),
    ("deletable", Bool),
    ("object_id", A),
]);
const CERTIFIED: Layout = Fields(&[
    ("epoch", U32),
    ("blob_id", U256),
    ("end_epoch", U32),
    ("deletable", Bool),
    ("object_id", A),
    ("is_extension", Bool),
]);
const DELETED: Layout = Fields(&[
    ("epoch", U32),
    ("blob_id", U256),
    ("end_epoch", U32),
    ("object_id", A),
    ("was_certified", Bool),
]);

fn layout(type_: &StructTag) -> Option<&'static Layout> {
    const COIN: &Layout = &Fields(&[("id", A), ("balance", U64)]);
    const CLOCK: &Layout = &Fields(&[("id", A), ("timestamp_ms", U64)]);
    const SYSTEM_STATE: &Layout = &Fields(&[("id", A), ("version", U64)]);
    const ARCHIVE_CAP: &Layout = &Fields(&[("id", A), ("archive", A)]);
    const EPOCH: &Layout = &Fields(&[("epoch", U32)]);
    Some(match (type_.module().as_str(), type_.name().as_str()) {
        ("system", "System") | ("staking", "Staking") => &VERSIONED,
        ("blob", "Blob") => &BLOB,
        ("storage_resource", "Storage") => &STORAGE,
        ("staking_pool", "StakingPool") => &POOL,
        ("storage_node", "StorageNodeCap") => &CAP,
        ("archive", "Archive") => &ARCHIVE,
        ("archive", "OwnerCap" | "PublisherCap") => ARCHIVE_CAP,
        ("coin", "Coin") => COIN,
        ("clock", "Clock") => CLOCK,
        ("sui_system", "SuiSystemState") => SYSTEM_STATE,
        ("events", "BlobRegistered") => &REGISTERED,
        ("events", "BlobCertified") => &CERTIFIED,
        ("events", "BlobDeleted") => &DELETED,
        ("events", "EpochChangeStart" | "EpochChangeDone") => EPOCH,
        _ => return None,
    })
}

/// A value of `type_`, if its layout is known and the bytes are that.
pub(super) fn render(type_: &StructTag, bytes: &[u8]) -> Option<Value> {
    let mut rest = bytes;
    let value = value(layout(type_)?, &mut rest)?;
    rest.is_empty().then_some(value)
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn length(bytes: &mut &[u8]) -> Option<usize> {
    let mut value = 0usize;
    for shift in (0..28).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn value(layout: &Layout, bytes: &mut &[u8]) -> Option<Value> {
    let kind = match layout {
        Bool => Kind::BoolValue(take(bytes, 1)?[0] == 1),
        Small(size) => {
            let mut number = 0u32;
            for (at, byte) in take(bytes, *size)?.iter().enumerate() {
                number |= u32::from(*byte) << (8 * at);
            }
            Kind::NumberValue(number.into())
        }
        U64 => {
            let number = u64::from_le_bytes(take(bytes, 8)?.try_into().ok()?);
            Kind::StringValue(number.to_string())
        }
        U256 => Kind::StringValue(BlobId(take(bytes, 32)?.try_into().ok()?).to_decimal()),
        A => Kind::StringValue(Address::from_bytes(take(bytes, 32)?).ok()?.to_string()),
        Text => {
            let count = length(bytes)?;
            Kind::StringValue(String::from_utf8(take(bytes, count)?.to_vec()).ok()?)
        }
        Bytes => {
            let count = length(bytes)?;
            Kind::StringValue(BASE64.encode(take(bytes, count)?))
        }
        Opt(inner) => match take(bytes, 1)?[0] {
            0 => Kind::NullValue(0),
            _ => return value(inner, bytes),
        },
        Vector(inner) => {
            let count = length(bytes)?;
            let values: Option<Vec<_>> = (0..count).map(|_| value(inner, bytes)).collect();
            Kind::ListValue(ListValue { values: values? })
        }
        Fields(list) => Kind::StructValue(fields(list, bytes)?),
        Enum(variants) => {
            let (name, list) = variants.get(length(bytes)?)?;
            let mut object = fields(list, bytes)?;
            let name = Value { kind: Some(Kind::StringValue((*name).into())) };
            object.fields.insert("@variant".into(), name);
            Kind::StructValue(object)
        }
    };
    Some(Value { kind: Some(kind) })
}

fn fields(list: &[(&'static str, Layout)], bytes: &mut &[u8]) -> Option<Struct> {
    let mut object = Struct::default();
    for (name, layout) in list {
        object.fields.insert((*name).into(), value(layout, bytes)?);
    }
    Some(object)
}
