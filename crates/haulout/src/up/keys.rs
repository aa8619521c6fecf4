//! Whose signatures are believed, and what is shared because of whose.

use std::path::Path;
use std::sync::Arc;

use haulout_gateway::api::Warning;
use haulout_nix::conf::NixConf;
use haulout_nix::{KeySet, PublicKey, SecretKey};
use haulout_resolver::SharePolicy;

use crate::config::Settings;
use crate::error::{Context, Failure, Outcome};

/// A key file is one line.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// The keys of this machine.
pub(crate) struct Keys {
    /// Signatures by these are believed.
    pub(crate) trusted: KeySet,
    /// What is given to whom.
    pub(crate) share: SharePolicy,
    /// What nix.conf says that could not be used.
    pub(crate) warnings: Vec<Warning>,
}

impl Keys {
    /// Gathers the keys from the settings, nix.conf and key files.
    pub(crate) fn gather(settings: &Settings) -> Outcome<Self> {
        let mut warnings = Vec::new();
        let mut trusted = parse(&settings.trust.keys, "trust.keys")?;
        if settings.trust.nix_conf {
            let conf = NixConf::load();
            for key in conf.trusted_public_keys.iter() {
                trusted.insert(key.clone());
            }
            warnings.extend(conf.warnings.into_iter().map(|warning| Warning {
                code: "nix-conf".to_owned(),
                text: format!("{}:{}: {}", warning.place, warning.line, warning.what),
                hint: None,
            }));
        }
        let signing =
            settings.mesh.signing_key_file.as_deref().map(read_signing_key).transpose()?;
        if let Some(key) = &signing {
            // What a colleague's machine signed for the mesh is believed here.
            trusted.insert(key.public_key().clone());
        }
        let share = share_policy(settings, &trusted, signing)?;
        Ok(Self { trusted, share, warnings })
    }
}

fn share_policy(
    settings: &Settings,
    trusted: &KeySet,
    signing: Option<SecretKey>,
) -> Outcome<SharePolicy> {
    if !settings.share.enable {
        return Ok(SharePolicy::default());
    }
    let keys = match &settings.share.keys {
        Some(keys) => parse(keys, "share.keys")?,
        // What the mesh signed is for its members, not for everybody.
        None => {
            let mut keys = KeySet::new();
            let own = signing.as_ref().map(SecretKey::public_key);
            for key in trusted.iter().filter(|key| Some(*key) != own) {
                keys.insert(key.clone());
            }
            keys
        }
    };
    if settings.share.local_builds && signing.is_none() {
        return Err(Failure::new("share.local_builds needs mesh.signing_key_file")
            .hint("make a key with `nix-store --generate-binary-cache-key mesh-1 secret public`"));
    }
    let mesh_key = signing.filter(|_| settings.share.local_builds).map(Arc::new);
    Ok(SharePolicy { keys, mesh_key, ..SharePolicy::default() })
}

fn parse(texts: &[String], setting: &str) -> Outcome<KeySet> {
    let mut keys = KeySet::new();
    for text in texts {
        let key: PublicKey = text.parse().map_err(|error: haulout_nix::keys::KeyError| {
            Failure::new(format!("{setting}: {text:?} is not a public key"))
                .because(error)
                .hint("as in trusted-public-keys of nix.conf: NAME:BASE64")
        })?;
        keys.insert(key);
    }
    Ok(keys)
}

fn read_signing_key(path: &Path) -> Outcome<SecretKey> {
    let text = read_small_file(path, "mesh.signing_key_file")?;
    text.trim().parse().map_err(|error: haulout_nix::keys::KeyError| {
        Failure::new(format!("{} is not a signing key", path.display()))
            .because(error)
            .hint("`nix-store --generate-binary-cache-key mesh-1 secret public` makes one")
    })
}

/// Reads a file that should hold a line; `setting` names where it was given.
pub(crate) fn read_small_file(path: &Path, setting: &str) -> Outcome<String> {
    let reading = || format!("{setting}: cannot read {}", path.display());
    let size = std::fs::metadata(path).context(reading)?.len();
    if size > KEY_FILE_BYTES_MAX {
        return Err(Failure::new(format!("{}: has {size} bytes", reading()))
            .hint("it should hold one line"));
    }
    std::fs::read_to_string(path).context(reading)
}
