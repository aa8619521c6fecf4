//! What is known about a store path: the content of a narinfo or a database row, without how the
//! NAR is transported.

use crate::{
    ContentAddress, KeySet, NarHash, PublicKey, SecretKey, Signature, StoreDir, StorePath,
    content_address::Method, hash::HashAlgorithm,
};
use std::borrow::Cow;

/// A store path with everything that signatures and Nix need to know about it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathInfo {
    /// The path.
    pub path: StorePath,
    /// SHA-256 of the NAR. Signed.
    pub nar_hash: NarHash,
    /// Bytes of the NAR. Signed.
    pub nar_size: u64,
    /// The paths it refers to, itself included if it does; sorted and unique
    /// (see [`PathInfo::normalise`]). Signed.
    pub references: Vec<StorePath>,
    /// The derivation that built it. Not signed: a hint.
    pub deriver: Option<StorePath>,
    /// Signatures, none of them checked.
    pub signatures: Vec<Signature>,
    /// The content address. Not signed, but see [`PathInfo::content_address_holds`].
    pub ca: Option<ContentAddress>,
}

impl PathInfo {
    /// Sorts the references and removes doubles; removes doubled signatures, keeping their order.
    pub fn normalise(&mut self) {
        if !self.references.is_sorted_by(|a, b| a < b) {
            self.references.sort_unstable();
            self.references.dedup();
        }
        let mut kept: Vec<Signature> = Vec::with_capacity(self.signatures.len());
        for signature in self.signatures.drain(..) {
            if !kept.contains(&signature) {
                kept.push(signature);
            }
        }
        self.signatures = kept;
    }

    /// The text that signatures are made over:
    /// `1;<store path>;sha256:<nix32>;<NAR size>;<references joined by ",">`.
    #[must_use]
    pub fn fingerprint(&self, dir: &StoreDir) -> String {
        let mut text = String::from("1;");
        dir.push_path(&mut text, &self.path);
        text.push_str(&format!(";{};{};", self.nar_hash, self.nar_size));
        for (i, reference) in self.sorted_references().iter().enumerate() {
            if i > 0 {
                text.push(',');
            }
            dir.push_path(&mut text, reference);
        }
        text
    }

    /// Signs the fingerprint. The signature is returned, not added.
    #[must_use]
    pub fn sign(&self, dir: &StoreDir, key: &SecretKey) -> Signature {
        key.sign(self.fingerprint(dir).as_bytes())
    }

    /// The first trusted key that really made one of the signatures (an Ed25519 check for each
    /// signature whose key name is trusted).
    #[must_use]
    pub fn verified_by<'k>(&self, dir: &StoreDir, keys: &'k KeySet) -> Option<&'k PublicKey> {
        if !self.signatures.iter().any(|signature| keys.has_name(signature.name())) {
            return None;
        }
        let fingerprint = self.fingerprint(dir);
        self.signatures.iter().find_map(|signature| keys.verify(fingerprint.as_bytes(), signature))
    }

    /// Whether the content address recomputes to this very store path with these references, so
    /// that no signature is needed.
    ///
    /// What this does **not** say: that `nar_hash` belongs to that content. It does when the
    /// address is the SHA-256 of the NAR and the path does not refer to itself, and then a
    /// different `nar_hash` makes the answer false. In all other cases
    /// ([`PathInfo::content_address_fixes_nar_hash`] is false) a liar can pair a true content
    /// address with the hash of another NAR; Nix notices on import, after the download.
    #[must_use]
    pub fn content_address_holds(&self, dir: &StoreDir) -> bool {
        let Some(ca) = self.ca else { return false };
        if self.content_address_fixes_nar_hash() && ca.hash().as_bytes() != self.nar_hash.as_bytes()
        {
            return false;
        }
        let references = self.sorted_references();
        let others: Vec<&StorePath> = references.iter().filter(|r| **r != self.path).collect();
        let self_reference = others.len() < references.len();
        let name = self.path.path_name().clone();
        ca.store_path(dir, name, &others, self_reference).as_ref() == Some(&self.path)
    }

    /// Whether the content address is itself the NAR's hash: SHA-256 of the NAR, no self
    /// reference (with one, the hash is taken with the path's own hash part blanked out).
    #[must_use]
    pub fn content_address_fixes_nar_hash(&self) -> bool {
        self.ca.is_some_and(|ca| {
            ca.method() == Method::Nar && ca.hash().algorithm() == HashAlgorithm::Sha256
        }) && !self.references.contains(&self.path)
    }

    fn sorted_references(&self) -> Cow<'_, [StorePath]> {
        if self.references.is_sorted_by(|a, b| a < b) {
            return Cow::Borrowed(&self.references);
        }
        let mut sorted = self.references.clone();
        sorted.sort_unstable();
        sorted.dedup();
        Cow::Owned(sorted)
    }
}
