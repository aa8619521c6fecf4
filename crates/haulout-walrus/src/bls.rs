//! BLS12-381 signatures as Walrus uses them: public keys in G1, signatures in G2.

use std::fmt;

use blst::{
    BLST_ERROR,
    min_pk::{AggregateSignature, PublicKey as Point, SecretKey as Scalar, Signature as Sum},
};
use redstuff::messages::{PUBLIC_KEY_BYTES, SIGNATURE_BYTES};

/// Domain separation tag of every signature.
const DST: &[u8] = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_NUL_";

/// Bytes that are not a key or signature, or a signature that does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlsError {
    /// Not a point of the right group.
    #[error("not a valid BLS public key")]
    PublicKey,
    /// Not a number in range.
    #[error("not a valid BLS secret key")]
    SecretKey,
    /// Not a point of the right group, or not that of this message and key.
    #[error("the BLS signature does not verify")]
    Signature,
    /// There was nothing to aggregate.
    #[error("no signatures to aggregate")]
    Empty,
}

/// A public key that was checked to be in the right group.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(Point);

/// A signature as bytes: compressed G2 point.
pub type Signature = [u8; SIGNATURE_BYTES];

impl PublicKey {
    /// Checks a compressed point.
    ///
    /// # Errors
    /// It is not a point of the group, or the point at infinity.
    pub fn from_bytes(bytes: &[u8; PUBLIC_KEY_BYTES]) -> Result<Self, BlsError> {
        Point::key_validate(bytes).map(Self).map_err(|_| BlsError::PublicKey)
    }

    /// Checks an uncompressed point (96 bytes), as the chain has them.
    ///
    /// # Errors
    /// It is not a point of the group, or the point at infinity.
    pub fn from_uncompressed(bytes: &[u8]) -> Result<Self, BlsError> {
        let point = Point::deserialize(bytes).map_err(|_| BlsError::PublicKey)?;
        point.validate().map(|()| Self(point)).map_err(|_| BlsError::PublicKey)
    }

    /// The compressed point.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; PUBLIC_KEY_BYTES] {
        self.0.compress()
    }

    /// The uncompressed point, as the chain has it.
    #[must_use]
    pub fn to_uncompressed(&self) -> [u8; 96] {
        self.0.serialize()
    }

    /// Checks a signature over `message`.
    ///
    /// # Errors
    /// It does not verify.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), BlsError> {
        let signature = Sum::from_bytes(signature).map_err(|_| BlsError::Signature)?;
        match signature.verify(true, message, DST, &[], &self.0, false) {
            BLST_ERROR::BLST_SUCCESS => Ok(()),
            _ => Err(BlsError::Signature),
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", data_encoding::BASE64.encode(&self.to_bytes()))
    }
}

/// A secret key. Never printed.
#[derive(Clone)]
pub struct SecretKey(Scalar);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

impl SecretKey {
    /// The key that key generation derives from at least 32 bytes of entropy.
    ///
    /// # Errors
    /// Fewer than 32 bytes.
    pub fn from_seed(seed: &[u8]) -> Result<Self, BlsError> {
        Scalar::key_gen(seed, &[]).map(Self).map_err(|_| BlsError::SecretKey)
    }

    /// A key from its 32 bytes, big-endian.
    ///
    /// # Errors
    /// Not a number below the group's order, or zero.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, BlsError> {
        Scalar::from_bytes(bytes).map(Self).map_err(|_| BlsError::SecretKey)
    }

    /// The 32 bytes, big-endian.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public key.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.sk_to_pk())
    }

    /// Signs `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        self.0.sign(message, DST, &[]).compress()
    }
}

/// The sum of signatures that were verified one by one.
///
/// # Errors
/// There are none, or one is not a point.
pub fn aggregate(signatures: &[Signature]) -> Result<Signature, BlsError> {
    let points: Vec<_> = signatures
        .iter()
        .map(|bytes| Sum::from_bytes(bytes).map_err(|_| BlsError::Signature))
        .collect::<Result<_, _>>()?;
    if points.is_empty() {
        return Err(BlsError::Empty);
    }
    let refs: Vec<_> = points.iter().collect();
    let sum = AggregateSignature::aggregate(&refs, true).map_err(|_| BlsError::Signature)?;
    Ok(sum.to_signature().compress())
}

/// Checks an aggregate of signatures by all of `keys` over the same message.
///
/// # Errors
/// It does not verify, or there are no keys.
pub fn verify_aggregate(
    keys: &[PublicKey],
    message: &[u8],
    signature: &Signature,
) -> Result<(), BlsError> {
    if keys.is_empty() {
        return Err(BlsError::Empty);
    }
    let signature = Sum::from_bytes(signature).map_err(|_| BlsError::Signature)?;
    let points: Vec<_> = keys.iter().map(|key| &key.0).collect();
    match signature.fast_aggregate_verify(true, message, DST, &points) {
        BLST_ERROR::BLST_SUCCESS => Ok(()),
        _ => Err(BlsError::Signature),
    }
}
