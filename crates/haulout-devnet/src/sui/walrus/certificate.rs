//! Modules `bls_aggregate` and `messages`: certificates by the storage nodes.

use haulout_sui::walrus_types::BlsCommittee;
use haulout_walrus::bls::{self, PublicKey};
use redstuff::{BlobId, messages::bitmap_signers};

use crate::sui::exec::{Call, Failure};

// bls_aggregate
const INVALID_BITMAP: u64 = 0;
const SIGNATURE: u64 = 1;
const NOT_ENOUGH_STAKE: u64 = 2;
// messages
const APP_ID: u64 = 0;
const EPOCH: u64 = 1;
const TYPE: u64 = 2;
const VERSION: u64 = 3;
const PERSISTENCE: u64 = 4;
// sui::bcs
const OUT_OF_RANGE: u64 = 0;

const AGGREGATE: &str = "bls_aggregate";
const MESSAGES: &str = "messages";

/// How much weight has to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Threshold {
    /// 2f + 1.
    Quorum,
    /// f + 1.
    Validity,
}

impl Threshold {
    fn reached(self, weight: u64, shards: u64) -> bool {
        match self {
            Self::Quorum => 3 * weight > 2 * shards,
            Self::Validity => 3 * weight > shards,
        }
    }
}

/// What a certificate says about a blob.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BlobMessage {
    pub(super) blob: BlobId,
    /// The object, for a deletable blob.
    pub(super) object: Option<[u8; 32]>,
}

/// Checks a certificate against the committee. Gives the message's epoch and where its body begins.
pub(super) fn verify(
    call: &Call<'_, '_>,
    committee: &BlsCommittee,
    threshold: Threshold,
    signature: &[u8],
    bitmap: &[u8],
    message: &[u8],
) -> Result<(u32, usize), Failure> {
    let function = "verify_certificate_and_weight";
    let count = u16::try_from(committee.members.len()).unwrap_or(u16::MAX);
    let Some(signers) = bitmap_signers(bitmap, count) else {
        return call.abort(AGGREGATE, function, INVALID_BITMAP);
    };
    let members = signers.iter().map(|&i| &committee.members[usize::from(i)]);
    let weight: u64 = members.clone().map(|member| u64::from(member.weight)).sum();
    let enough = threshold.reached(weight, committee.n_shards.into());
    call.assert(enough, AGGREGATE, function, NOT_ENOUGH_STAKE)?;
    // Keys are checked when a node registers: what is on chain is valid.
    let keys: Vec<_> = members
        .filter_map(|member| PublicKey::from_uncompressed(&member.public_key).ok())
        .collect();
    let valid = keys.len() == signers.len()
        && <&[u8; 96]>::try_from(signature)
            .is_ok_and(|signature| bls::verify_aggregate(&keys, message, signature).is_ok());
    call.assert(valid, AGGREGATE, function, SIGNATURE)?;

    // Intent: type, version, application; then the epoch.
    let function = "new_certified_message";
    let [_, version, app, rest @ ..] = message else {
        return out_of_range();
    };
    call.assert(*version == 0, MESSAGES, function, VERSION)?;
    call.assert(*app == 3, MESSAGES, function, APP_ID)?;
    let Some(epoch) = rest.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)) else {
        return out_of_range();
    };
    call.assert(epoch == committee.epoch, MESSAGES, function, EPOCH)?;
    Ok((epoch, 7))
}

/// The body of a storage confirmation. Bytes after it are ignored, as in the contract.
pub(super) fn blob_message(
    call: &Call<'_, '_>,
    message: &[u8],
    body: usize,
) -> Result<BlobMessage, Failure> {
    let function = "certify_blob_message";
    call.assert(message.first() == Some(&1), MESSAGES, function, TYPE)?;
    let (blob, rest) = blob_id(message, body)?;
    match rest {
        [0, ..] => Ok(BlobMessage { blob, object: None }),
        [1, rest @ ..] => match rest.first_chunk() {
            Some(object) => Ok(BlobMessage { blob, object: Some(*object) }),
            None => out_of_range(),
        },
        [] => out_of_range(),
        _ => call.abort(MESSAGES, function, PERSISTENCE),
    }
}

/// The body of a statement that a blob is inconsistent.
pub(super) fn invalid_message(
    call: &Call<'_, '_>,
    message: &[u8],
    body: usize,
) -> Result<BlobId, Failure> {
    call.assert(message.first() == Some(&2), MESSAGES, "invalid_blob_id_message", TYPE)?;
    blob_id(message, body).map(|(blob, _)| blob)
}

fn blob_id(message: &[u8], body: usize) -> Result<(BlobId, &[u8]), Failure> {
    let rest = message.get(body..).unwrap_or(&[]);
    match rest.split_first_chunk() {
        Some((blob, rest)) => Ok((BlobId(*blob), rest)),
        None => out_of_range(),
    }
}

fn out_of_range<T>() -> Result<T, Failure> {
    Err(Failure::abort(sui_sdk_types::Address::TWO, "bcs", "peel", OUT_OF_RANGE))
}
