//! The sharing rule: who may have which path.
//!
//! Only what is public anyway is shared without being asked: paths with a
//! valid signature by a key on the share list. What was built here goes to
//! members of the mesh only, under the mesh's signing key, if one was given.
//! Content-addressed sources stay here unless the owner says otherwise.

use std::sync::Arc;

use haulout_mesh::Membership;
use haulout_nix::{KeySet, PathInfo, SecretKey, StoreDir};

use super::index::{Checked, Class, Standing};

/// What the owner of this machine wants to share.
#[derive(Clone, Default)]
pub struct SharePolicy {
    /// Paths signed by one of these are public. Default in the agent: the
    /// trusted public keys.
    pub keys: KeySet,
    /// With a key, members may have paths that were built here, signed with it.
    pub mesh_key: Option<Arc<SecretKey>>,
    /// Whether unsigned content-addressed paths are shared: with members,
    /// never with strangers.
    pub content_addressed: bool,
    /// Name of the key whose signatures are for this machine's Nix alone: its own.
    pub withheld: Option<String>,
    /// Nothing is given to anybody at the moment: this machine runs on battery
    /// or over a metered link, and its owner does not want it.
    pub paused: bool,
}

impl std::fmt::Debug for SharePolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharePolicy")
            .field("keys", &self.keys)
            .field("mesh_key", &self.mesh_key.as_ref().map(|key| key.name().to_owned()))
            .field("content_addressed", &self.content_addressed)
            .field("paused", &self.paused)
            .finish()
    }
}

impl SharePolicy {
    /// Whether a path of this standing may go to such a peer.
    pub(crate) fn allows(&self, standing: Standing, to: Membership) -> bool {
        if self.paused {
            return false;
        }
        if standing.is_public() {
            return true;
        }
        to == Membership::Member
            && match standing.class {
                Class::Addressed => self.content_addressed,
                Class::Signed | Class::Local => self.mesh_key.is_some(),
            }
    }

    /// The class of a path by the names of its signers.
    pub(crate) fn classify<'n>(
        &self,
        signers: impl IntoIterator<Item = &'n str>,
        content_addressed: bool,
    ) -> Class {
        if signers.into_iter().any(|name| self.keys.has_name(name)) {
            Class::Signed
        } else if content_addressed {
            Class::Addressed
        } else {
            Class::Local
        }
    }

    /// Whether anybody may have a path that is not in the store.
    pub(crate) fn public(&self, dir: &StoreDir, info: &PathInfo) -> bool {
        !self.paused && info.verified_by(dir, &self.keys).is_some()
    }

    /// Really checks what [`Class::Signed`] only claims.
    pub(crate) fn check(&self, dir: &StoreDir, info: &PathInfo) -> Checked {
        if info.verified_by(dir, &self.keys).is_some() { Checked::Holds } else { Checked::Fails }
    }

    /// Takes this machine's own signature off an info that goes out, and adds the mesh's if it goes out for no other
    /// reason.
    pub(crate) fn sign(&self, dir: &StoreDir, standing: Standing, info: &mut PathInfo) {
        if let Some(own) = &self.withheld {
            info.signatures.retain(|signature| signature.name() != own);
        }
        let needed = !standing.is_public() && standing.class != Class::Addressed;
        if let Some(key) = self.mesh_key.as_ref().filter(|_| needed) {
            // Ed25519 signatures are a function of key and message: one by
            // another key of that name is another one.
            let signature = info.sign(dir, key);
            if !info.signatures.contains(&signature) {
                info.signatures.push(signature);
            }
        }
    }
}
