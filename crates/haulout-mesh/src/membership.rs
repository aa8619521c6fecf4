//! Proving that a peer knows the mesh secret, without showing it.
//!
//! Both ends derive 32 bytes from the TLS session (an exporter, RFC 8446 §7.5) and send an HMAC over them under a key derived
//! from the secret, together with both public keys and a label for the role. A relay in the middle holds two TLS sessions
//! with two different exporters, so a proof made for one is worthless in the other; the labels keep a proof from being
//! sent back to its maker.

use std::fmt;

use haulout_swarm::PeerId;
use ring::hkdf::{self, HKDF_SHA256};
use ring::{hmac, pbkdf2};

/// Length of a proof in bytes.
pub const PROOF_LEN: usize = 32;
/// Length of the exported keying material in bytes.
pub const EXPORTER_LEN: usize = 32;
/// Label of the exporter.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-haulout-membership-1";
/// Length of a mesh tag in bytes: enough to tell meshes apart, no help in finding the secret.
pub const TAG_LEN: usize = 8;
/// A secret people typed needs at least this many bytes: whoever hears the tag can try words at leisure.
pub const SECRET_BYTES_MIN: usize = 16;
/// And at most this many.
pub const SECRET_BYTES_MAX: usize = 1024;
/// Rounds of PBKDF2-HMAC-SHA256: each guess at a weak secret costs an attacker as much as the start-up costs us (≈ 0.1 s).
const STRETCH_ROUNDS: u32 = 200_000;
const STRETCH_SALT: &[u8] = b"haulout mesh secret 1";

/// Why a secret was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Too short to resist guessing.
    #[error(
        "the mesh secret has {0} bytes, at least {SECRET_BYTES_MIN} are needed\n  hint: head -c 24 /dev/urandom | base64"
    )]
    TooShort(usize),
    /// Longer than anybody needs.
    #[error("the mesh secret has {0} bytes, at most {SECRET_BYTES_MAX} are allowed")]
    TooLong(usize),
}

/// Which end of the connection makes a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The end that opened the connection.
    Dialler,
    /// The end that accepted it.
    Accepter,
}

impl Role {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Dialler => b"haulout/1 dialler\0",
            Self::Accepter => b"haulout/1 accepter\0",
        }
    }

    /// The other end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Accepter,
            Self::Accepter => Self::Dialler,
        }
    }
}

/// Keys derived from a mesh secret. Cheap to clone; never printed.
#[derive(Clone)]
pub struct MeshSecret {
    proof: hmac::Key,
    tag: [u8; TAG_LEN],
}

impl fmt::Debug for MeshSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshSecret").finish_non_exhaustive()
    }
}

impl MeshSecret {
    /// Derives the keys from a secret; takes about a tenth of a second on purpose.
    ///
    /// # Errors
    /// [`SecretError`] if the secret is too short or too long.
    pub fn derive(secret: &[u8]) -> Result<Self, SecretError> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(SecretError::TooShort(secret.len()));
        }
        if secret.len() > SECRET_BYTES_MAX {
            return Err(SecretError::TooLong(secret.len()));
        }
        let mut stretched = [0; 32];
        let rounds = std::num::NonZeroU32::new(STRETCH_ROUNDS).unwrap_or(std::num::NonZeroU32::MIN);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, STRETCH_SALT, secret, &mut stretched);
        let extracted = hkdf::Salt::new(HKDF_SHA256, STRETCH_SALT).extract(&stretched);
        let proof: [u8; 32] = expand(&extracted, b"haulout membership proof");
        let tag: [u8; 32] = expand(&extracted, b"haulout mesh tag");
        let mut short = [0; TAG_LEN];
        short.copy_from_slice(&tag[..TAG_LEN]);
        Ok(Self { proof: hmac::Key::new(hmac::HMAC_SHA256, &proof), tag: short })
    }

    /// The tag that is announced: equal for equal secrets, says nothing else.
    #[must_use]
    pub fn tag(&self) -> [u8; TAG_LEN] {
        self.tag
    }

    /// The proof that the end `role` of this TLS session makes.
    #[must_use]
    pub fn prove(
        &self,
        role: Role,
        exporter: &[u8; EXPORTER_LEN],
        dialler: &PeerId,
        accepter: &PeerId,
    ) -> [u8; PROOF_LEN] {
        let tag = hmac::sign(&self.proof, &message(role, exporter, dialler, accepter));
        let mut proof = [0; PROOF_LEN];
        proof.copy_from_slice(tag.as_ref());
        proof
    }

    /// Whether `proof` is the one the end `role` of this session would make; in constant time.
    #[must_use]
    pub fn verify(
        &self,
        role: Role,
        exporter: &[u8; EXPORTER_LEN],
        dialler: &PeerId,
        accepter: &PeerId,
        proof: &[u8; PROOF_LEN],
    ) -> bool {
        hmac::verify(&self.proof, &message(role, exporter, dialler, accepter), proof).is_ok()
    }
}

fn message(
    role: Role,
    exporter: &[u8; EXPORTER_LEN],
    dialler: &PeerId,
    accepter: &PeerId,
) -> Vec<u8> {
    [role.label(), exporter, dialler.as_bytes(), accepter.as_bytes()].concat()
}

/// One 32-byte key for one purpose.
fn expand(key: &hkdf::Prk, purpose: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let info = [purpose];
    // 32 bytes is HKDF-SHA256's own block length, so neither call can fail.
    let filled = key.expand(&info, HKDF_SHA256).and_then(|okm| okm.fill(&mut out));
    debug_assert!(filled.is_ok());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(byte: u8) -> PeerId {
        PeerId::from_bytes([byte; 32])
    }

    #[test]
    fn a_proof_fits_one_session_one_role_one_pair() {
        let ours = MeshSecret::derive(b"correct horse battery").unwrap();
        let same = MeshSecret::derive(b"correct horse battery").unwrap();
        let other = MeshSecret::derive(b"correct horse battery!").unwrap();
        assert_eq!(ours.tag(), same.tag());
        assert_ne!(ours.tag(), other.tag());
        let (exporter, a, b) = ([9; 32], peer(1), peer(2));
        let proof = ours.prove(Role::Dialler, &exporter, &a, &b);
        assert!(same.verify(Role::Dialler, &exporter, &a, &b, &proof));
        assert!(!other.verify(Role::Dialler, &exporter, &a, &b, &proof));
        assert!(!same.verify(Role::Accepter, &exporter, &a, &b, &proof), "reflection");
        assert!(!same.verify(Role::Dialler, &[8; 32], &a, &b, &proof), "relay");
        assert!(!same.verify(Role::Dialler, &exporter, &b, &a, &proof));
    }

    #[test]
    fn weak_secrets_are_refused_and_nothing_is_printed() {
        assert_eq!(MeshSecret::derive(b"short").unwrap_err(), SecretError::TooShort(5));
        assert_eq!(MeshSecret::derive(&[b'x'; 2000]).unwrap_err(), SecretError::TooLong(2000));
        let secret = MeshSecret::derive(b"correct horse battery").unwrap();
        assert_eq!(format!("{secret:?}"), "MeshSecret { .. }");
    }
}
