//! The first committee of a chain, from its first checkpoint.
//!
//! The first checkpoint is signed by that committee, so the signature proves nothing; its
//! digest (the chain's identifier) is what is pinned. It lists one transaction, whose
//! effects name the digests of the system state object `0x5` and of the dynamic field
//! with the validators.

use sui_sdk_types::{
    Address, Bls12381PublicKey, CheckpointSummary, Digest, Object, TransactionEffects, TypeTag,
    ValidatorCommittee, ValidatorCommitteeMember,
};

use super::{
    ProofError, bytes::Reader, committee, contents, document, trust::check_anchor, verify,
};
use crate::{
    ObjectId,
    object_id::{SYSTEM_STATE, address, object_id},
};

const WHAT: &str = "system state";
/// Bytes of a validator's longest field: descriptions have at most 1,000.
const FIELD_MAX: usize = 16 * 1024;

/// The parts of the first checkpoint, as full nodes send them (BCS).
#[derive(Debug, Clone, Copy)]
pub struct GenesisParts<'a> {
    /// `CheckpointContents`.
    pub contents: &'a [u8],
    /// `TransactionEffects` of its transaction.
    pub effects: &'a [u8],
    /// `Object` `0x5` as that transaction wrote it.
    pub system: &'a [u8],
    /// `Object` of its dynamic field.
    pub inner: &'a [u8],
}

/// The committee of epoch 0.
///
/// # Errors
/// The checkpoint is not the pinned one or not the first, or a part does not belong to it.
pub fn genesis_committee(
    pinned: &[u8; 32],
    summary: &CheckpointSummary,
    parts: GenesisParts<'_>,
) -> Result<ValidatorCommittee, ProofError> {
    check_anchor(pinned, summary)?;
    let sequence = summary.sequence_number;
    if sequence != 0 {
        return Err(ProofError::AnchorWithoutCommittee { sequence });
    }
    if contents::digest(parts.contents) != summary.content_digest {
        return Err(ProofError::ContentsMismatch { sequence });
    }
    let digest = contents::salted("TransactionEffects::", parts.effects);
    if !contents::contain(parts.contents, &digest)? {
        return Err(ProofError::EffectsNotInCheckpoint { sequence });
    }
    let effects: TransactionEffects = document::read_effects(parts.effects)?;
    let system = proven(&effects, parts.system)?;
    let system_id: Address = address(SYSTEM_STATE);
    expect_id(&system, system_id)?;
    let version = system_version(&system)?;
    let inner = proven(&effects, parts.inner)?;
    let derived = system_id.derive_dynamic_child_id(&TypeTag::U64, &version.to_le_bytes());
    expect_id(&inner, derived)?;
    read_validators(move_bytes(&inner)?, summary.epoch)
}

/// The id of the dynamic field with the validators that goes with this `0x5` (BCS `Object`).
///
/// # Errors
/// Not such an object.
pub fn system_inner_id(system: &[u8]) -> Result<ObjectId, ProofError> {
    let object: Object = document::read_object(system)?;
    let version = system_version(&object)?;
    let parent: Address = address(SYSTEM_STATE);
    Ok(object_id(parent.derive_dynamic_child_id(&TypeTag::U64, &version.to_le_bytes())))
}

/// `SuiSystemState { id, version }`.
fn system_version(system: &Object) -> Result<u64, ProofError> {
    let mut reader = Reader::new(move_bytes(system)?);
    reader.take(32, WHAT)?;
    reader.long(WHAT)
}

fn proven(effects: &TransactionEffects, bytes: &[u8]) -> Result<Object, ProofError> {
    let object: Object = document::read_object(bytes)?;
    let id = object.object_id();
    let digest: Digest = verify::object_digest(bytes);
    match verify::written(effects, &id) {
        Some(written) if written == (object.version(), digest) => Ok(object),
        Some(_) => Err(ProofError::ObjectMismatch { id: object_id(id) }),
        None => Err(ProofError::NotWritten { id: object_id(id) }),
    }
}

fn expect_id(object: &Object, expected: Address) -> Result<(), ProofError> {
    let found = object.object_id();
    if found == expected {
        return Ok(());
    }
    Err(ProofError::ForeignObject { expected: object_id(expected), found: object_id(found) })
}

fn move_bytes(object: &Object) -> Result<&[u8], ProofError> {
    object
        .as_struct()
        .map(|value| value.contents())
        .ok_or_else(|| ProofError::Malformed { what: WHAT, reason: "not a Move struct".to_owned() })
}

/// The front of `Field<u64, SuiSystemStateInner>`: epoch, two versions, then the validator
/// set with the total stake and the active validators. What follows is not looked at, so
/// later versions of the struct that only add at the end read the same.
fn read_validators(bytes: &[u8], epoch: u64) -> Result<ValidatorCommittee, ProofError> {
    let mut reader = Reader::new(bytes);
    reader.take(32 + 8, WHAT)?;
    let found = reader.long(WHAT)?;
    if found != epoch {
        return Err(ProofError::Malformed {
            what: WHAT,
            reason: format!("of epoch {found} instead of {epoch}"),
        });
    }
    reader.take(3 * 8, WHAT)?;
    let count = reader.uleb(WHAT)?;
    if count > committee::COMMITTEE_MEMBERS_MAX {
        return Err(ProofError::TooLarge {
            what: WHAT,
            len: count as u64,
            limit: committee::COMMITTEE_MEMBERS_MAX as u64,
        });
    }
    let mut members =
        (0..count).map(|_| read_validator(&mut reader)).collect::<Result<Vec<_>, _>>()?;
    members.sort_by(|a, b| a.public_key.as_bytes().cmp(b.public_key.as_bytes()));
    committee::checked(epoch, members).map_err(|reason| ProofError::Committee { epoch, reason })
}

/// `0x3::validator::Validator`, of which the protocol key and the voting power matter.
fn read_validator(reader: &mut Reader<'_>) -> Result<ValidatorCommitteeMember, ProofError> {
    reader.take(32, WHAT)?;
    let key = field(reader)?;
    let public_key = Bls12381PublicKey::from_bytes(key).map_err(|_| ProofError::Malformed {
        what: WHAT,
        reason: format!("a validator key of {} bytes", key.len()),
    })?;
    // Two more keys, proof of possession, name, description, two URLs, four addresses.
    for _ in 0..11 {
        field(reader)?;
    }
    // The same keys and addresses for the next epoch, if they change.
    for _ in 0..8 {
        if reader.byte(WHAT)? == 1 {
            field(reader)?;
        }
    }
    // extra_fields: id, size.
    reader.take(32 + 8, WHAT)?;
    let stake = reader.long(WHAT)?;
    // operation_cap_id, gas_price.
    reader.take(32 + 8, WHAT)?;
    skip_staking_pool(reader)?;
    // commission_rate, next_epoch_{stake, gas_price, commission_rate}, extra_fields.
    reader.take(4 * 8 + 32 + 8, WHAT)?;
    Ok(ValidatorCommitteeMember { public_key, stake })
}

/// `0x3::staking_pool::StakingPool`.
fn skip_staking_pool(reader: &mut Reader<'_>) -> Result<(), ProofError> {
    reader.take(32, WHAT)?;
    for _ in 0..2 {
        if reader.byte(WHAT)? == 1 {
            reader.long(WHAT)?;
        }
    }
    // sui_balance, rewards_pool, pool_token_balance, exchange_rates (id, size), three
    // pending amounts, extra_fields (id, size).
    reader.take(3 * 8 + 40 + 3 * 8 + 40, WHAT).map(|_| ())
}

/// A `vector<u8>`, `String` or `Url`.
fn field<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], ProofError> {
    let len = reader.uleb(WHAT)?;
    if len > FIELD_MAX {
        return Err(ProofError::TooLarge { what: WHAT, len: len as u64, limit: FIELD_MAX as u64 });
    }
    reader.take(len, WHAT)
}
