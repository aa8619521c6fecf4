//! Messages that storage nodes sign, as bytes. Signatures and keys are opaque here.

use crate::{
    AnySliver, AxisKind, BlobId, ShardIndex,
    bcs::{BcsError, Reader, Wire, write_bytes, write_vec},
};

/// Bytes of a BLS12-381 signature (compressed G2 point).
pub const SIGNATURE_BYTES: usize = 96;

/// Bytes of a BLS12-381 public key (compressed G1 point).
pub const PUBLIC_KEY_BYTES: usize = 48;

/// Version of every intent so far.
const INTENT_VERSION: u8 = 0;

/// Walrus' number among the applications whose keys sign intents.
const INTENT_APP: u8 = 3;

/// Longest signed message that is parsed, in bytes; the longest there is has about 100.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Most signers or members: as many as there can be shards.
const MEMBERS_MAX: usize = u16::MAX as usize;

/// Most slivers in one answer of shard synchronisation.
const SYNC_SLIVERS_MAX: usize = 1 << 20;

/// A signed message's content, which decides its intent.
pub trait Intent: Wire {
    /// The intent's type byte.
    const TYPE: u8;
}

/// A message as it is signed: intent, epoch, content.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProtocolMessage<T> {
    /// The Walrus epoch.
    pub epoch: u32,
    /// The content.
    pub content: T,
}

impl<T: Intent> Wire for ProtocolMessage<T> {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[T::TYPE, INTENT_VERSION, INTENT_APP]);
        out.extend_from_slice(&self.epoch.to_le_bytes());
        self.content.write(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        if reader.array()? != [T::TYPE, INTENT_VERSION, INTENT_APP] {
            return Err(BcsError::Invalid("a message has another intent"));
        }
        Ok(Self { epoch: reader.u32()?, content: Wire::read(reader)? })
    }
}

/// Whether a blob object can be deleted before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlobPersistence {
    /// It cannot.
    Permanent,
    /// It can, by the owner of this object.
    Deletable([u8; 32]),
}

impl Wire for BlobPersistence {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Permanent => out.push(0),
            Self::Deletable(object) => {
                out.push(1);
                out.extend_from_slice(object);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        match reader.variant()? {
            0 => Ok(Self::Permanent),
            1 => Ok(Self::Deletable(reader.array()?)),
            found => Err(BcsError::UnknownVariant { what: "blob persistence", found }),
        }
    }
}

/// A node's word that it stores its slivers of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Confirmation {
    /// The blob.
    pub blob: BlobId,
    /// How it was registered.
    pub persistence: BlobPersistence,
}

impl Intent for Confirmation {
    const TYPE: u8 = 1;
}

impl Wire for Confirmation {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.blob.as_bytes());
        self.persistence.write(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        Ok(Self { blob: BlobId(reader.array()?), persistence: Wire::read(reader)? })
    }
}

/// A node's word that a blob is inconsistent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InvalidBlobId(pub BlobId);

impl Intent for InvalidBlobId {
    const TYPE: u8 = 2;
}

impl Wire for InvalidBlobId {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        reader.array().map(|id| Self(BlobId(id)))
    }
}

/// Proof that a node's operator has the secret key of its public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProofOfPossession {
    /// The operator's Sui address.
    pub address: [u8; 32],
    /// The public key.
    pub public_key: [u8; PUBLIC_KEY_BYTES],
}

impl Intent for ProofOfPossession {
    const TYPE: u8 = 0;
}

impl Wire for ProofOfPossession {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.address);
        out.extend_from_slice(&self.public_key);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        Ok(Self { address: reader.array()?, public_key: reader.array()? })
    }
}

/// A request for the slivers of a shard that changes hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SyncShard {
    /// The shard.
    pub shard: ShardIndex,
    /// Which slivers.
    pub axis: AxisKind,
    /// Where to begin.
    pub starting_blob: BlobId,
    /// How many slivers at most.
    pub count: u64,
    /// The epoch in which the shard was assigned.
    pub epoch: u32,
}

impl Intent for SyncShard {
    const TYPE: u8 = 3;
}

impl Wire for SyncShard {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(0);
        out.extend_from_slice(&self.shard.0.to_le_bytes());
        out.push(u8::from(self.axis == AxisKind::Secondary));
        out.extend_from_slice(self.starting_blob.as_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        version_zero(reader, "shard synchronisation version")?;
        Ok(Self {
            shard: ShardIndex(reader.u16()?),
            axis: match reader.variant()? {
                0 => AxisKind::Primary,
                1 => AxisKind::Secondary,
                found => {
                    return Err(BcsError::UnknownVariant { what: "sliver type", found });
                }
            },
            starting_blob: BlobId(reader.array()?),
            count: reader.u64()?,
            epoch: reader.u32()?,
        })
    }
}

/// The answer to [`SyncShard`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct SyncShardResponse(pub Vec<(BlobId, AnySliver)>);

impl Wire for SyncShardResponse {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(0);
        crate::bcs::write_uleb(out, self.0.len());
        for (blob, sliver) in &self.0 {
            out.extend_from_slice(blob.as_bytes());
            sliver.write(out);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        version_zero(reader, "shard synchronisation version")?;
        // Blob id, variant, length, symbol size and index.
        let count = reader.count("slivers", 38, SYNC_SLIVERS_MAX)?;
        let entry = |_| Ok((BlobId(reader.array()?), Wire::read(reader)?));
        (0..count).map(entry).collect::<Result<_, _>>().map(Self)
    }
}

fn version_zero(reader: &mut Reader<'_>, what: &'static str) -> Result<(), BcsError> {
    match reader.variant()? {
        0 => Ok(()),
        found => Err(BcsError::UnknownVariant { what, found }),
    }
}

/// A message and one signature over its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SignedMessage {
    /// BCS of a [`ProtocolMessage`]; exactly these bytes are signed.
    pub message: Vec<u8>,
    /// The signature.
    pub signature: [u8; SIGNATURE_BYTES],
}

impl Wire for SignedMessage {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(out, &self.message);
        out.extend_from_slice(&self.signature);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        let message = reader.byte_slice("message bytes", MESSAGE_BYTES_MAX)?.to_vec();
        Ok(Self { message, signature: reader.array()? })
    }
}

/// Confirmations of a quorum under one aggregate signature.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConfirmationCertificate {
    /// Indices of the signers in the committee.
    pub signers: Vec<u16>,
    /// BCS of the [`ProtocolMessage`] all of them signed.
    pub message: Vec<u8>,
    /// The sum of their signatures.
    pub signature: [u8; SIGNATURE_BYTES],
}

impl Wire for u16 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        reader.u16()
    }
}

impl Wire for ConfirmationCertificate {
    fn write(&self, out: &mut Vec<u8>) {
        write_vec(out, &self.signers);
        write_bytes(out, &self.message);
        out.extend_from_slice(&self.signature);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BcsError> {
        Ok(Self {
            signers: reader.vec("signers", 2, MEMBERS_MAX)?,
            message: reader.byte_slice("message bytes", MESSAGE_BYTES_MAX)?.to_vec(),
            signature: reader.array()?,
        })
    }
}

/// The bitmap of signers that the contract takes: member `i` is bit `i % 8` of byte `i / 8`.
///
/// It ends with the last byte that has a bit set.
#[must_use]
pub fn signers_bitmap(signers: &[u16]) -> Vec<u8> {
    let mut bitmap = Vec::new();
    for &signer in signers {
        let at = usize::from(signer / 8);
        if bitmap.len() <= at {
            bitmap.resize(at + 1, 0);
        }
        bitmap[at] |= 1 << (signer % 8);
    }
    bitmap
}

/// Members named by a bitmap; `None` if it names one beyond `members` or is too long.
#[must_use]
pub fn bitmap_signers(bitmap: &[u8], members: u16) -> Option<Vec<u16>> {
    if bitmap.len() > usize::from(members).div_ceil(8) {
        return None;
    }
    let bit = |i: usize| bitmap[i / 8] >> (i % 8) & 1 == 1;
    let signers: Vec<_> =
        (0..bitmap.len() * 8).filter(|&i| bit(i)).filter_map(|i| u16::try_from(i).ok()).collect();
    signers.iter().all(|&signer| signer < members).then_some(signers)
}
