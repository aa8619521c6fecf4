//! The key with which this machine tells its own Nix that it has checked something.
//!
//! It signs narinfos of paths that carry no signature Nix knows but were proven otherwise (an archive's
//! entry). Only this machine's Nix trusts it, so it is worth nothing anywhere else; it never leaves the
//! machine, and peers never see what it signed. It is derived from the agent's identity: nothing more to
//! keep, and the same after a restart.

use std::io;
use std::path::{Path, PathBuf};

use haulout_mesh::Identity;
use haulout_nix::{PublicKey, SecretKey};

use crate::error::{Context, Outcome};

/// What the identity's secret is derived for.
const PURPOSE: &[u8] = b"haulout host signing key 1";

/// Name of the file with settings for Nix, in the runtime directory.
const NIX_CONF: &str = "nix.conf";

/// The signing key of the machine with this identity. Its name carries the identity, so that keys of
/// different machines cannot be taken for each other.
pub(crate) fn host_key(identity: &Identity) -> Outcome<SecretKey> {
    let id: String = identity.id().to_string().chars().take(16).collect();
    SecretKey::from_seed(&format!("haulout-host-{id}"), identity.derive(PURPOSE))
        .context(|| "cannot make the host's signing key".to_owned())
}

/// The settings Nix needs to believe this machine's agent, for `!include` in nix.conf.
pub(crate) fn nix_conf(key: &PublicKey) -> String {
    format!(
        "# Written by haulout at every start: the key of this machine's agent.\n\
         extra-trusted-public-keys = {key}\n"
    )
}

/// Where systemd wants such files (`RuntimeDirectory=`), if it runs this process.
pub(crate) fn runtime_dir() -> Option<PathBuf> {
    std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from).filter(|dir| dir.is_absolute())
}

/// Writes the settings for Nix to `dir`, readable for everybody, whole or not at all.
///
/// # Errors
/// What the system said.
pub(crate) fn write_nix_conf(dir: &Path, key: &PublicKey) -> io::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join(NIX_CONF);
    let mut file = tempfile::Builder::new().prefix(".nix.conf").tempfile_in(dir)?;
    io::Write::write_all(&mut file, nix_conf(key).as_bytes())?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    file.persist(&path).map_err(|error| error.error)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_identity_has_one_key_and_another_a_different_one() {
        let key = |seed| host_key(&Identity::from_seed([seed; 32]).unwrap()).unwrap();
        assert_eq!(key(1).public_key(), key(1).public_key());
        assert_ne!(key(1).name(), key(2).name());
        assert!(!key(1).to_secret_text().contains("0101010101"));
    }

    #[test]
    fn the_settings_for_nix_can_be_read_by_everybody_and_replaced() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let key = host_key(&Identity::from_seed([3; 32]).unwrap()).unwrap();
        for _ in 0..2 {
            let path = write_nix_conf(dir.path(), key.public_key()).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
            let text = std::fs::read_to_string(path).unwrap();
            assert!(text.ends_with(&format!("extra-trusted-public-keys = {}\n", key.public_key())));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
