//! What this machine believes: which path infos may reach Nix.

use haulout_nix::{KeySet, PathInfo, StoreDir};

/// What makes a path info believable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A valid signature by this trusted key (its name).
    Signed(String),
    /// The content address is the hash of the NAR and recomputes to the path.
    ContentAddressed,
}

/// Why a path info is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing speaks for it, but nothing is wrong either.
    #[error("no signature by a trusted key")]
    Untrusted,
    /// It has a signature in the name of a trusted key that does not hold. That
    /// alone proves nothing against who sent it: names are free, and another
    /// mesh may call a key of its own the same.
    #[error(
        "a signature in the name of a trusted key does not hold: forged, or by another key of that name"
    )]
    NotByOurKey,
    /// It describes something no NAR can be.
    #[error("it makes no sense")]
    Nonsense,
}

/// The keys this machine believes in (`trusted-public-keys` of its Nix).
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// The store directory all paths live in.
    pub store_dir: StoreDir,
    /// The trusted keys.
    pub keys: KeySet,
}

impl Trust {
    /// Checks an info that came from anywhere. One Ed25519 check per
    /// signature by a trusted name, 33 µs each.
    ///
    /// A content address alone is only accepted when it fixes the NAR's
    /// hash; any other could be paired with a hash of the sender's choice.
    pub fn judge(&self, info: &PathInfo) -> Result<Proof, Refusal> {
        if info.nar_size == 0 {
            return Err(Refusal::Nonsense);
        }
        if let Some(key) = info.verified_by(&self.store_dir, &self.keys) {
            return Ok(Proof::Signed(key.name().to_owned()));
        }
        if info.content_address_fixes_nar_hash() && info.content_address_holds(&self.store_dir) {
            return Ok(Proof::ContentAddressed);
        }
        if info.signatures.iter().any(|signature| self.keys.has_name(signature.name())) {
            return Err(Refusal::NotByOurKey);
        }
        Err(Refusal::Untrusted)
    }
}
