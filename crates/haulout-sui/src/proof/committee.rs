//! Validator committees, checked before anything is computed with them.

use std::{collections::HashSet, path::Path};

use serde::Deserialize;
use sui_sdk_types::{Bls12381PublicKey, ValidatorCommittee, ValidatorCommitteeMember};

/// Members of a committee; the chain's own limit is 150.
pub const COMMITTEE_MEMBERS_MAX: usize = 512;
/// Bytes of a committee file: 512 members in JSON with room to spare.
const FILE_BYTES_MAX: usize = 256 * 1024;

/// Why a list of validators is no committee.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitteeError {
    /// Nobody is in it.
    #[error("it has no members")]
    Empty,
    /// Too many are in it.
    #[error("it has {0} members; at most {COMMITTEE_MEMBERS_MAX} are accepted")]
    TooMany(usize),
    /// One key counts twice.
    #[error("the key of member {0} occurs twice")]
    Duplicate(usize),
    /// A vote that counts for nothing.
    #[error("member {0} has no stake")]
    NoStake(usize),
    /// More stake than can be counted.
    #[error("the stakes add up to more than 2^63")]
    StakeOverflow,
    /// Neither form of committee file.
    #[error("not a committee file: {0}")]
    File(String),
}

/// The committee, if it can be computed with.
pub(super) fn checked(
    epoch: u64,
    members: Vec<ValidatorCommitteeMember>,
) -> Result<ValidatorCommittee, CommitteeError> {
    if members.is_empty() {
        return Err(CommitteeError::Empty);
    }
    if members.len() > COMMITTEE_MEMBERS_MAX {
        return Err(CommitteeError::TooMany(members.len()));
    }
    let mut keys = HashSet::new();
    let mut total = 0u64;
    for (place, member) in members.iter().enumerate() {
        if !keys.insert(member.public_key) {
            return Err(CommitteeError::Duplicate(place));
        }
        if member.stake == 0 {
            return Err(CommitteeError::NoStake(place));
        }
        total = total
            .checked_add(member.stake)
            .filter(|&total| total < 1 << 63)
            .ok_or(CommitteeError::StakeOverflow)?;
    }
    Ok(ValidatorCommittee { epoch, members })
}

/// Reads a committee file: what a full node says under `epoch.committee` in JSON
/// (`{"epoch": "7", "members": [{"publicKey": "<base64>", "weight": "10000"}]}`), or the
/// BCS form of `sui_sdk_types::ValidatorCommittee`.
///
/// # Errors
/// Neither form, or a committee that cannot be used.
pub fn parse_committee(bytes: &[u8]) -> Result<ValidatorCommittee, CommitteeError> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(CommitteeError::File(format!(
            "{} bytes; at most {FILE_BYTES_MAX} are accepted",
            bytes.len()
        )));
    }
    let committee: ValidatorCommittee = if bytes.trim_ascii_start().starts_with(b"{") {
        serde_json::from_slice::<CommitteeJson>(bytes)
            .map_err(|error| CommitteeError::File(error.to_string()))?
            .into_committee()?
    } else {
        bcs::from_bytes(bytes).map_err(|error| CommitteeError::File(error.to_string()))?
    };
    checked(committee.epoch, committee.members)
}

/// Reads a committee file from disk.
///
/// # Errors
/// As [`parse_committee`], or the file cannot be read.
pub fn committee_file(path: &Path) -> Result<ValidatorCommittee, CommitteeError> {
    let bytes = std::fs::read(path)
        .map_err(|error| CommitteeError::File(format!("{}: {error}", path.display())))?;
    parse_committee(&bytes)
}

#[derive(Deserialize)]
struct CommitteeJson {
    epoch: Number,
    members: Vec<MemberJson>,
}

#[derive(Deserialize)]
struct MemberJson {
    #[serde(rename = "publicKey", alias = "public_key")]
    public_key: String,
    weight: Number,
}

/// JSON made from protobuf writes 64-bit numbers as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(u64),
    Text(String),
}

impl Number {
    fn get(&self) -> Result<u64, CommitteeError> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::Text(text) => {
                text.parse().map_err(|_| CommitteeError::File("not a number".to_owned()))
            }
        }
    }
}

impl CommitteeJson {
    fn into_committee(self) -> Result<ValidatorCommittee, CommitteeError> {
        let members = self
            .members
            .iter()
            .enumerate()
            .map(|(place, member)| {
                let key = data_encoding::BASE64
                    .decode(member.public_key.as_bytes())
                    .ok()
                    .and_then(|bytes| Bls12381PublicKey::from_bytes(bytes).ok())
                    .ok_or_else(|| {
                        CommitteeError::File(format!(
                            "the key of member {place} is not 96 bytes in base64"
                        ))
                    })?;
                Ok(ValidatorCommitteeMember { public_key: key, stake: member.weight.get()? })
            })
            .collect::<Result<_, CommitteeError>>()?;
        Ok(ValidatorCommittee { epoch: self.epoch.get()?, members })
    }
}
