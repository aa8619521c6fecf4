//! Ed25519 keys and signatures in Nix's text forms `<name>:<base64>`.

use data_encoding::{BASE64, BASE64_NOPAD};
use ring::{
    rand::SecureRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

/// Most characters of a key's name. Nix has no limit; the longest names in use are host names
/// with a number.
pub const KEY_NAME_LEN_MAX: usize = 255;

/// Why a text is not a key or a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No `:`.
    #[error("no ':' between the key's name and its base64")]
    NoColon,
    /// The name is empty, too long, or has spaces, control or non-ASCII characters.
    #[error("the key's name must be 1 to 255 printable ASCII characters without spaces")]
    Name,
    /// The part after the colon is not base64 of the right number of bytes.
    #[error("not base64 of {want} bytes")]
    Bytes {
        /// Bytes needed.
        want: usize,
    },
    /// The two halves of a secret key do not belong together.
    #[error("the public half does not belong to the secret half")]
    Mismatch,
    /// The system gave no randomness.
    #[error("the system's random number generator failed")]
    Random,
}

fn check_name(name: &str) -> Result<(), KeyError> {
    let graphic = name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    if name.is_empty() || name.len() > KEY_NAME_LEN_MAX || !graphic {
        return Err(KeyError::Name);
    }
    Ok(())
}

fn split(text: &str) -> Result<(&str, &str), KeyError> {
    let (name, base64) = text.split_once(':').ok_or(KeyError::NoColon)?;
    check_name(name)?;
    Ok((name, base64))
}

fn exact<const N: usize>(decoded: Option<Vec<u8>>) -> Result<[u8; N], KeyError> {
    decoded.and_then(|bytes| bytes.try_into().ok()).ok_or(KeyError::Bytes { want: N })
}

/// Keys come from configuration files, where Nix takes base64 without its padding too.
fn key_bytes<const N: usize>(base64: &str) -> Result<[u8; N], KeyError> {
    exact(BASE64_NOPAD.decode(base64.trim_end_matches('=').as_bytes()).ok())
}

/// A public key with its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    name: Arc<str>,
    bytes: [u8; 32],
}

impl PublicKey {
    /// Joins name and bytes.
    ///
    /// # Errors
    /// When the name is not allowed.
    pub fn new(name: &str, bytes: [u8; 32]) -> Result<Self, KeyError> {
        check_name(name)?;
        Ok(Self { name: name.into(), bytes })
    }

    /// The name that signatures carry.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The 32 bytes of the key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Whether `signature` is by this key over `message`. The names are compared too.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        self.name == signature.name
            && UnparsedPublicKey::new(&ED25519, &self.bytes)
                .verify(message, &signature.bytes)
                .is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, BASE64.encode(&self.bytes))
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, base64) = split(text)?;
        Ok(Self { name: name.into(), bytes: key_bytes(base64)? })
    }
}

/// A secret key with its name. Debug shows the public half only; the text with the secret is
/// given by [`SecretKey::to_secret_text`] alone.
pub struct SecretKey {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SecretKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// A name that is not allowed, or no randomness.
    pub fn generate(name: &str, random: &dyn SecureRandom) -> Result<Self, KeyError> {
        let mut seed = [0u8; 32];
        random.fill(&mut seed).map_err(|_| KeyError::Random)?;
        Self::from_seed(name, seed)
    }

    /// Makes the key that belongs to a seed.
    ///
    /// # Errors
    /// A name that is not allowed.
    pub fn from_seed(name: &str, seed: [u8; 32]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeyError::Mismatch)?;
        let bytes = exact(Some(pair.public_key().as_ref().to_vec()))?;
        Ok(Self { seed, pair, public: PublicKey::new(name, bytes)? })
    }

    /// The name that its signatures carry.
    #[must_use]
    pub fn name(&self) -> &str {
        self.public.name()
    }

    /// The public half.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Signs.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        let mut bytes = [0u8; 64];
        bytes.copy_from_slice(self.pair.sign(message).as_ref());
        Signature { name: self.public.name.clone(), bytes }
    }

    /// The text form with the secret in it, as in Nix's secret key files.
    #[must_use]
    pub fn to_secret_text(&self) -> String {
        let bytes = [self.seed, self.public.bytes].concat();
        format!("{}:{}", self.name(), BASE64.encode(&bytes))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl FromStr for SecretKey {
    type Err = KeyError;

    /// Reads `<name>:<base64 of seed and public key>`, checking that the halves belong together.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, base64) = split(text)?;
        let bytes: [u8; 64] = key_bytes(base64)?;
        let mut seed = [0u8; 32];
        seed.copy_from_slice(&bytes[..32]);
        let key = Self::from_seed(name, seed)?;
        if key.public.bytes != bytes[32..] {
            return Err(KeyError::Mismatch);
        }
        Ok(key)
    }
}

/// A signature with the name of the key that made it. Parsing says nothing about its truth.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Signature {
    name: Arc<str>,
    bytes: [u8; 64],
}

impl Signature {
    /// Joins name and bytes.
    ///
    /// # Errors
    /// When the name is not allowed.
    pub fn new(name: &str, bytes: [u8; 64]) -> Result<Self, KeyError> {
        check_name(name)?;
        Ok(Self { name: name.into(), bytes })
    }

    /// The name of the key.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The 64 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.bytes
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, BASE64.encode(&self.bytes))
    }
}

impl FromStr for Signature {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, base64) = split(text)?;
        Ok(Self { name: name.into(), bytes: exact(BASE64.decode(base64.as_bytes()).ok())? })
    }
}

/// The public keys that are trusted, by name. Several keys may share a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySet {
    by_name: BTreeMap<Arc<str>, Vec<PublicKey>>,
}

impl KeySet {
    /// A set that trusts nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key; false when it was there already.
    pub fn insert(&mut self, key: PublicKey) -> bool {
        let keys = self.by_name.entry(key.name.clone()).or_default();
        let new = !keys.contains(&key);
        if new {
            keys.push(key);
        }
        new
    }

    /// Whether this very key is trusted.
    #[must_use]
    pub fn contains(&self, key: &PublicKey) -> bool {
        self.by_name.get(key.name()).is_some_and(|keys| keys.contains(key))
    }

    /// Whether any key of this name is trusted. Says nothing about a signature: names are free.
    #[must_use]
    pub fn has_name(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// All keys, by name.
    pub fn iter(&self) -> impl Iterator<Item = &PublicKey> {
        self.by_name.values().flatten()
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.values().map(Vec::len).sum()
    }

    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The trusted key that made `signature` over `message`, if there is one.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Option<&PublicKey> {
        let keys = self.by_name.get(&signature.name)?;
        keys.iter().find(|key| key.verifies(message, signature))
    }
}

impl FromIterator<PublicKey> for KeySet {
    fn from_iter<I: IntoIterator<Item = PublicKey>>(keys: I) -> Self {
        let mut set = Self::new();
        set.extend(keys);
        set
    }
}

impl Extend<PublicKey> for KeySet {
    fn extend<I: IntoIterator<Item = PublicKey>>(&mut self, keys: I) {
        for key in keys {
            self.insert(key);
        }
    }
}

impl FromStr for KeySet {
    type Err = KeyError;

    /// Reads keys separated by white space, as in `trusted-public-keys`.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        text.split_ascii_whitespace().map(PublicKey::from_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, seed: u8) -> SecretKey {
        SecretKey::from_seed(name, [seed; 32]).unwrap()
    }

    #[test]
    fn texts_survive_a_round_trip_and_debug_hides_the_secret() {
        let secret = key("k-1", 7);
        let again: SecretKey = secret.to_secret_text().parse().unwrap();
        assert_eq!(again.public_key(), secret.public_key());
        let public: PublicKey = secret.public_key().to_string().parse().unwrap();
        assert_eq!(&public, secret.public_key());
        let signature = secret.sign(b"m");
        assert_eq!(signature.to_string().parse::<Signature>().unwrap(), signature);
        let shown = format!("{secret:?}");
        assert!(!shown.contains("seed") && !shown.contains("7, 7"), "{shown}");
    }

    #[test]
    fn keys_may_lack_padding_and_signatures_may_not() {
        let secret = key("k-1", 7);
        let text = secret.public_key().to_string();
        assert!(text.trim_end_matches('=').parse::<PublicKey>().is_ok());
        let text = secret.sign(b"m").to_string();
        assert!(text.trim_end_matches('=').parse::<Signature>().is_err());
    }

    #[test]
    fn corrupt_texts_are_refused() {
        let good = key("k", 1).sign(b"m").to_string();
        let base64 = good.strip_prefix("k:").unwrap();
        for text in [
            "".to_owned(),
            "k".to_owned(),
            "k:".to_owned(),
            format!(":{base64}"),
            format!("a b:{base64}"),
            format!("a:b:{base64}"),
            format!("k:{base64} "),
            format!("k: {base64}"),
            format!("k:{base64}A"),
            format!("k:{}", &base64[4..]),
        ] {
            assert!(text.parse::<Signature>().is_err(), "{text}");
        }
        let mut halves = BASE64.decode(&key("k", 1).to_secret_text().as_bytes()[2..]).unwrap();
        halves[63] ^= 1;
        let text = format!("k:{}", BASE64.encode(&halves));
        assert_eq!(text.parse::<SecretKey>().unwrap_err(), KeyError::Mismatch);
    }

    #[test]
    fn several_keys_of_one_name_are_all_tried() {
        let (old, new, other) = (key("k", 1), key("k", 2), key("other", 1));
        let set: KeySet = format!("{} \n\t{}", old.public_key(), new.public_key()).parse().unwrap();
        assert_eq!(set.len(), 2);
        assert_eq!(set.verify(b"m", &new.sign(b"m")), Some(new.public_key()));
        assert_eq!(set.verify(b"m", &old.sign(b"m")), Some(old.public_key()));
        assert_eq!(set.verify(b"m", &old.sign(b"n")), None);
        // The same key under a name that is not trusted is not tried.
        assert_eq!(set.verify(b"m", &other.sign(b"m")), None);
    }
}
