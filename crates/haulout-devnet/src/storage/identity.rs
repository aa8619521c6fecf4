//! A node's keys and its certificate.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use haulout_walrus::bls;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use ring::rand::{SecureRandom, SystemRandom};

/// The keys of one node. The BLS key signs confirmations; the P-256 key is the node's TLS
/// identity, by which clients know it.
#[derive(Debug)]
pub struct Identity {
    bls: bls::SecretKey,
    network: KeyPair,
}

/// Keys or a certificate cannot be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file of keys.
    #[error("cannot read or write the key file {path}")]
    File {
        /// Which file.
        path: String,
        /// What is wrong with it.
        source: io::Error,
    },
    /// A key file holds something else.
    #[error("{0} does not hold a key of its kind")]
    Content(String),
    /// The machine gives no randomness, or a certificate cannot be made.
    #[error("{0}")]
    Crypto(String),
}

fn crypto(error: impl std::fmt::Display) -> IdentityError {
    IdentityError::Crypto(error.to_string())
}

impl Identity {
    /// New random keys.
    ///
    /// # Errors
    /// The machine gives no randomness.
    pub fn generate() -> Result<Self, IdentityError> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| crypto("no randomness"))?;
        let bls = bls::SecretKey::from_seed(&seed).map_err(crypto)?;
        let network = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(crypto)?;
        Ok(Self { bls, network })
    }

    /// The keys in directory `dir`, made and written there if there are none.
    ///
    /// # Errors
    /// They cannot be read or written, or are not keys.
    pub fn load_or_generate(dir: &Path) -> Result<Self, IdentityError> {
        let (bls_path, network_path) = (dir.join("protocol.key"), dir.join("network.key"));
        if !bls_path.exists() {
            let new = Self::generate()?;
            // The file that is looked for comes last, so a kill in between leaves no half identity.
            write_secret(&network_path, &new.network.serialize_der())?;
            write_secret(&bls_path, &new.bls.to_bytes())?;
            return Ok(new);
        }
        let content = |path: &Path| IdentityError::Content(path.display().to_string());
        let bytes: [u8; 32] = read_secret(&bls_path)?.try_into().map_err(|_| content(&bls_path))?;
        let bls = bls::SecretKey::from_bytes(&bytes).map_err(|_| content(&bls_path))?;
        let network =
            KeyPair::try_from(read_secret(&network_path)?).map_err(|_| content(&network_path))?;
        Ok(Self { bls, network })
    }

    /// The key that signs confirmations.
    #[must_use]
    pub fn bls(&self) -> &bls::SecretKey {
        &self.bls
    }

    /// The TLS key in the chain's form: 33 bytes, compressed.
    #[must_use]
    pub fn network_public_key(&self) -> Vec<u8> {
        // 04 ‖ x ‖ y becomes 02 or 03, by the parity of y, ‖ x.
        let point = self.network.public_key_raw();
        let odd = point.last().is_some_and(|y| y & 1 == 1);
        let mut key = vec![2 + u8::from(odd)];
        key.extend_from_slice(point.get(1..33).unwrap_or_default());
        key
    }

    /// A self-signed certificate as real nodes have: named after the key, valid for ever.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn certificate(&self, address: IpAddr) -> Result<Vec<u8>, IdentityError> {
        let name = certificate_name(&self.network_public_key());
        let mut params = CertificateParams::new(vec![name.clone()]).map_err(crypto)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names.push(SanType::IpAddress(address));
        let certificate = params.self_signed(&self.network).map_err(crypto)?;
        Ok(certificate.der().to_vec())
    }

    /// The TLS key, PKCS #8.
    #[must_use]
    pub fn network_key_der(&self) -> Vec<u8> {
        self.network.serialize_der()
    }
}

/// The name in the certificate of the node with this key. The real service writes the bytes
/// without leading zeros, so this does too.
#[must_use]
pub fn certificate_name(network_public_key: &[u8]) -> String {
    let hex: String = network_public_key.iter().take(4).map(|byte| format!("{byte:x}")).collect();
    format!("{hex}.network.walrus.alt")
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.display().to_string();
    move |source| IdentityError::File { path, source }
}

fn read_secret(path: &Path) -> Result<Vec<u8>, IdentityError> {
    fs::read(path).map_err(file(path))
}

fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    let mut out = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(file(path))?;
    out.write_all(bytes).and_then(|()| out.sync_all()).map_err(file(path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn keys_are_kept_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load_or_generate(dir.path()).unwrap();
        let again = Identity::load_or_generate(dir.path()).unwrap();
        assert_eq!(first.network_public_key(), again.network_public_key());
        assert_eq!(first.bls().public_key(), again.bls().public_key());
        assert_eq!(first.network_public_key().len(), 33);
        // From a real node: 02 23 14 70 … is in a certificate for this name.
        let name = certificate_name(&[0x02, 0x23, 0x14, 0x70, 0x14]);
        assert_eq!(name, "2231470.network.walrus.alt");
    }
}
