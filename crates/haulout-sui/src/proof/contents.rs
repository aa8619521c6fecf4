//! Just enough of a checkpoint's contents: which effects digests are in it.
//!
//! The whole list is hashed, but the user signatures in it are stepped over, not decoded:
//! a kind of signature that appears after this program was written must not make
//! checkpoints unreadable.

use sui_sdk_types::Digest;

use super::{ProofError, bytes::Reader};

const WHAT: &str = "list of transactions";

/// Digest of contents, from their BCS bytes.
pub(super) fn digest(bcs: &[u8]) -> Digest {
    salted("CheckpointContents::", bcs)
}

/// Sui's digest of a value: BLAKE2b-256 over the type's name and the BCS bytes.
pub(super) fn salted(name: &str, bcs: &[u8]) -> Digest {
    let mut hasher = sui_sdk_types::hash::Hasher::new();
    hasher.update(name);
    hasher.update(bcs);
    hasher.finalize()
}

/// Whether a transaction with these effects is in the contents.
pub(super) fn contain(bcs: &[u8], effects: &Digest) -> Result<bool, ProofError> {
    let mut reader = Reader::new(bcs);
    match reader.uleb(WHAT)? {
        0 => {
            for _ in 0..reader.uleb(WHAT)? {
                if execution(&mut reader)? == *effects.inner() {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        1 => {
            for _ in 0..reader.uleb(WHAT)? {
                if execution(&mut reader)? == *effects.inner() {
                    return Ok(true);
                }
                skip_signatures(&mut reader)?;
            }
            Ok(false)
        }
        version => Err(ProofError::Malformed {
            what: WHAT,
            reason: format!("version {} is not known here", version.saturating_add(1)),
        }),
    }
}

/// Steps over a transaction digest and returns the effects digest beside it.
fn execution(reader: &mut Reader<'_>) -> Result<[u8; 32], ProofError> {
    digest_field(reader)?;
    digest_field(reader)
}

/// BCS writes a digest as bytes with their length in front.
fn digest_field(reader: &mut Reader<'_>) -> Result<[u8; 32], ProofError> {
    match reader.uleb(WHAT)? {
        32 => reader.array(WHAT),
        other => {
            Err(ProofError::Malformed { what: WHAT, reason: format!("a digest of {other} bytes") })
        }
    }
}

/// Each is bytes, then perhaps the version of an alias.
fn skip_signatures(reader: &mut Reader<'_>) -> Result<(), ProofError> {
    for _ in 0..reader.uleb(WHAT)? {
        let len = reader.uleb(WHAT)?;
        reader.take(len, WHAT)?;
        if reader.byte(WHAT)? == 1 {
            reader.long(WHAT)?;
        }
    }
    Ok(())
}
