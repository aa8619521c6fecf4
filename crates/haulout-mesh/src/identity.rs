//! This machine's Ed25519 key: its name in the mesh.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use haulout_swarm::PeerId;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};

/// First line of a key file; the second is the seed in hexadecimal.
const FILE_HEADER: &str = "haulout-identity-1";
/// A key file is 84 bytes; anything much larger is another file.
const FILE_BYTES_MAX: u64 = 256;
/// DER before the 32 seed bytes in a PKCS#8 v1 Ed25519 key (RFC 8410 §7).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// DER before the 32 key bytes in an Ed25519 SubjectPublicKeyInfo (RFC 8410 §4).
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why an identity could not be loaded or made.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key file could not be read or written.
    #[error("cannot {what} identity file {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The file is not a key file.
    #[error(
        "{} is not a haulout identity file\n  hint: move it away to get a new identity at the next start",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// Group or others may read the file.
    #[error("identity file {} may be read by others (mode {mode:o})\n  hint: chmod 600 it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The system's random numbers failed, or the seed was refused.
    #[error("cannot make an Ed25519 key")]
    Crypto,
}

/// An Ed25519 key pair. Cheap to clone; never printed.
#[derive(Clone)]
pub struct Identity {
    seed: Arc<[u8; 32]>,
    id: PeerId,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Identity {
    /// The key with this secret seed.
    ///
    /// # Errors
    /// [`IdentityError::Crypto`] if the library refuses it (it takes any 32 bytes).
    pub fn from_seed(seed: [u8; 32]) -> Result<Self, IdentityError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| IdentityError::Crypto)?;
        let public: [u8; 32] =
            pair.public_key().as_ref().try_into().map_err(|_| IdentityError::Crypto)?;
        Ok(Self { seed: Arc::new(seed), id: PeerId::from_bytes(public) })
    }

    /// A new random key, kept nowhere.
    ///
    /// # Errors
    /// [`IdentityError::Crypto`] if the system has no random numbers.
    pub fn generate() -> Result<Self, IdentityError> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| IdentityError::Crypto)?;
        Self::from_seed(seed)
    }

    /// Reads the key file at `path`, or makes a key and writes it there with mode 0600.
    ///
    /// Two agents starting at once agree on one key: the file appears whole or not at all, and the first one wins.
    ///
    /// # Errors
    /// [`IdentityError`]; a file that others may read is refused rather than used.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        match Self::load(path) {
            Err(IdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Self::create(path)
            }
            other => other,
        }
    }

    fn load(path: &Path) -> Result<Self, IdentityError> {
        let failed = |source| IdentityError::Io { what: "read", path: path.to_owned(), source };
        let file = fs::File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Exposed { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        file.take(FILE_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|_| IdentityError::Malformed { path: path.to_owned() })?;
        let seed =
            parse_file(&text).ok_or_else(|| IdentityError::Malformed { path: path.to_owned() })?;
        Self::from_seed(seed)
    }

    fn create(path: &Path) -> Result<Self, IdentityError> {
        let identity = Self::generate()?;
        let failed = |source| IdentityError::Io { what: "write", path: path.to_owned(), source };
        let mut random = [0; 8];
        SystemRandom::new().fill(&mut random).map_err(|_| IdentityError::Crypto)?;
        let temporary = path.with_extension(format!("{:016x}.tmp", u64::from_be_bytes(random)));
        let mut text = format!("{FILE_HEADER}\n");
        for byte in identity.seed.iter() {
            text.push_str(&format!("{byte:02x}"));
        }
        text.push('\n');
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            // A link fails if the name exists, so a concurrent start cannot lose its key to ours.
            .and_then(|()| fs::hard_link(&temporary, path));
        let _ = fs::remove_file(&temporary);
        match written {
            Ok(()) => Ok(identity),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::load(path),
            Err(error) => Err(failed(error)),
        }
    }

    /// The public half: this machine's name in the mesh.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// A secret key for another purpose, the same after every start (HMAC-SHA256 of the purpose). It tells neither the
    /// identity's own secret nor the key for any other purpose.
    #[must_use]
    pub fn derive(&self, purpose: &[u8]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.seed[..]);
        let mut out = [0; 32];
        out.copy_from_slice(hmac::sign(&key, purpose).as_ref());
        out
    }

    /// PKCS#8 form for the TLS library.
    pub(crate) fn pkcs8(&self) -> Vec<u8> {
        [&PKCS8_PREFIX[..], &self.seed[..]].concat()
    }
}

/// SubjectPublicKeyInfo of a peer's key: what TLS carries instead of a certificate (RFC 7250).
pub(crate) fn spki(id: &PeerId) -> Vec<u8> {
    [&SPKI_PREFIX[..], &id.as_bytes()[..]].concat()
}

/// The key in a SubjectPublicKeyInfo, if that is exactly an Ed25519 one.
pub(crate) fn peer_of_spki(der: &[u8]) -> Option<PeerId> {
    let key: [u8; 32] = der.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?;
    Some(PeerId::from_bytes(key))
}

/// The seed in a key file.
fn parse_file(text: &str) -> Option<[u8; 32]> {
    let hex = text.strip_prefix(FILE_HEADER)?.strip_prefix('\n')?.strip_suffix('\n')?;
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    let mut seed = [0; 32];
    for (byte, digits) in seed.iter_mut().zip(hex.as_bytes().chunks(2)) {
        if digits.iter().any(|digit| !digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_survives_a_restart_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        let first = Identity::load_or_create(&path).unwrap();
        let again = Identity::load_or_create(&path).unwrap();
        assert_eq!(first.id(), again.id());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(!format!("{first:?}").contains(&fs::read_to_string(&path).unwrap()[19..30]));
    }

    #[test]
    fn exposed_and_malformed_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        Identity::load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Identity::load_or_create(&path), Err(IdentityError::Exposed { .. })));
        for text in ["", "haulout-identity-1\n00\n", "haulout-identity-1\n+0", "x"] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(
                Identity::load_or_create(&path),
                Err(IdentityError::Malformed { .. })
            ));
        }
    }

    #[test]
    fn public_keys_travel_as_spki() {
        let id = Identity::from_seed([7; 32]).unwrap().id();
        assert_eq!(peer_of_spki(&spki(&id)), Some(id));
        assert_eq!(peer_of_spki(&spki(&id)[1..]), None);
        let mut long = spki(&id);
        long.push(0);
        assert_eq!(peer_of_spki(&long), None);
    }
}
