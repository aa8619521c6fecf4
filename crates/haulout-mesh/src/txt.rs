//! The TXT record of an announcement: strict in, small out.
//!
//! ```text
//! v=1            major version of the wire protocol
//! k=<64 hex>     the announcer's key
//! m=<16 hex>     tag of its mesh, if it has a secret
//! ```
//!
//! Anybody on the network can send any of it. What follows from an announcement is a dial that pins the key, nothing more.

use std::collections::BTreeMap;

use haulout_swarm::PeerId;

use crate::membership::TAG_LEN;

/// DNS-SD service type.
pub const SERVICE_TYPE: &str = "_haulout._udp.local.";
/// Version in `v=`.
pub const VERSION: &str = "1";
/// Longest TXT record read, in bytes. Ours has 92.
pub const TXT_BYTES_MAX: usize = 1_024;
/// Most strings read in one.
pub const TXT_STRINGS_MAX: usize = 32;

/// Why a TXT record is no announcement of a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TxtError {
    /// Longer or with more strings than allowed.
    #[error("the TXT record is too large")]
    TooLarge,
    /// A string's length runs past the end.
    #[error("the TXT record is truncated")]
    Truncated,
    /// No `v=`, or another version.
    #[error("the announcement is of another protocol version")]
    Version,
    /// No `k=`, or not a key.
    #[error("the announcement has no valid key")]
    Key,
    /// An `m=` that is no tag.
    #[error("the announcement has an invalid mesh tag")]
    Tag,
}

/// What an agent says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Its key (claimed; the handshake proves it).
    pub key: PeerId,
    /// Tag of its mesh.
    pub tag: Option<[u8; TAG_LEN]>,
}

impl Announcement {
    /// The key-value strings in the order they are sent.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = vec![("v", VERSION.to_owned()), ("k", self.key.to_string())];
        if let Some(tag) = &self.tag {
            pairs.push(("m", hex(tag)));
        }
        pairs
    }

    /// Reads key-value strings. Keys are matched without regard to case and the first of a double key counts, as RFC 6763
    /// §6.4 says; unknown keys belong to later versions.
    ///
    /// # Errors
    /// [`TxtError`].
    pub fn from_pairs<'a>(
        pairs: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    ) -> Result<Self, TxtError> {
        let mut seen: BTreeMap<char, Option<&[u8]>> = BTreeMap::new();
        let mut bytes = 0;
        for (count, (key, value)) in pairs.into_iter().enumerate() {
            bytes += key.len() + value.map_or(0, <[u8]>::len) + 2;
            if count >= TXT_STRINGS_MAX || bytes > TXT_BYTES_MAX {
                return Err(TxtError::TooLarge);
            }
            let mut letters = key.chars();
            if let (Some(letter), None) = (letters.next(), letters.next()) {
                seen.entry(letter.to_ascii_lowercase()).or_insert(value);
            }
        }
        let text = |key: char| {
            seen.get(&key).copied().flatten().and_then(|value| std::str::from_utf8(value).ok())
        };
        if text('v') != Some(VERSION) {
            return Err(TxtError::Version);
        }
        let key = text('k').and_then(|text| text.parse().ok()).ok_or(TxtError::Key)?;
        let tag = match seen.get(&'m') {
            None => None,
            Some(_) => Some(text('m').and_then(parse_tag).ok_or(TxtError::Tag)?),
        };
        Ok(Self { key, tag })
    }

    /// Reads the data of a TXT record: strings with a length byte each.
    ///
    /// # Errors
    /// [`TxtError`].
    pub fn from_rdata(mut rdata: &[u8]) -> Result<Self, TxtError> {
        if rdata.len() > TXT_BYTES_MAX {
            return Err(TxtError::TooLarge);
        }
        let mut pairs = Vec::new();
        while let Some((len, rest)) = rdata.split_first() {
            let (string, rest) =
                rest.split_at_checked(usize::from(*len)).ok_or(TxtError::Truncated)?;
            rdata = rest;
            let mut parts = string.splitn(2, |byte| *byte == b'=');
            let key =
                parts.next().and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default();
            pairs.push((key, parts.next()));
        }
        Self::from_pairs(pairs)
    }

    /// The data of a TXT record.
    #[must_use]
    pub fn to_rdata(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        for (key, value) in self.pairs() {
            let string = format!("{key}={value}");
            out.push(u8::try_from(string.len()).unwrap_or(u8::MAX));
            out.extend(string.bytes());
        }
        out
    }

    /// Instance name of the agent with this key: opaque, the same after every restart, and never the machine's name.
    #[must_use]
    pub fn instance_name(key: &PeerId) -> String {
        format!("haulout-{}", hex(&key.as_bytes()[..8]))
    }

    /// Host name its service record points to: its own, so that no other responder on the machine has a say in it.
    #[must_use]
    pub fn host_name(key: &PeerId) -> String {
        format!("haulout-{}.local.", hex(&key.as_bytes()[..8]))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse_tag(text: &str) -> Option<[u8; TAG_LEN]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * TAG_LEN
        || !digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    {
        return None;
    }
    u64::from_str_radix(text, 16).ok().map(u64::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Announcement {
        Announcement { key: PeerId::from_bytes([0xab; 32]), tag: Some([1, 2, 3, 4, 5, 6, 7, 8]) }
    }

    #[test]
    fn announcements_round_trip_and_say_no_more() {
        for announcement in [sample(), Announcement { tag: None, ..sample() }] {
            let rdata = announcement.to_rdata();
            assert_eq!(Announcement::from_rdata(&rdata), Ok(announcement));
            assert!(rdata.len() < 100);
        }
        assert_eq!(Announcement::instance_name(&sample().key), "haulout-abababababababab");
    }

    #[test]
    fn later_fields_are_ignored_and_first_values_count() {
        let key = "ab".repeat(32);
        let good = [
            ("V", Some(&b"1"[..])),
            ("k", Some(key.as_bytes())),
            ("x", None),
            ("new", Some(&[0xff][..])),
            ("v", Some(&b"2"[..])),
        ];
        assert_eq!(Announcement::from_pairs(good).unwrap().key, sample().key);
    }

    #[test]
    fn hostile_records_are_refused() {
        let key = "ab".repeat(32);
        let upper = key.to_uppercase();
        let k = |value: &'static str| ("k", Some(value.as_bytes()));
        let v = ("v", Some(&b"1"[..]));
        assert_eq!(Announcement::from_pairs([k("")]), Err(TxtError::Version));
        assert_eq!(Announcement::from_pairs([("v", Some(&b"2"[..]))]), Err(TxtError::Version));
        assert_eq!(Announcement::from_pairs([v]), Err(TxtError::Key));
        assert_eq!(
            Announcement::from_pairs([v, ("k", Some(upper.as_bytes()))]),
            Err(TxtError::Key)
        );
        assert_eq!(Announcement::from_pairs([v, k("abc")]), Err(TxtError::Key));
        let m = |value: &'static [u8]| {
            Announcement::from_pairs([v, ("k", Some(key.as_bytes())), ("m", Some(value))])
        };
        assert_eq!(m(b"0102030405060708").unwrap(), sample());
        for bad in
            [&b"01020304050607"[..], b"+102030405060708", b"", b"0102030405060G08", &[0xff; 16]]
        {
            assert_eq!(m(bad), Err(TxtError::Tag));
        }
        assert_eq!(Announcement::from_rdata(&[5, b'v']), Err(TxtError::Truncated));
        assert_eq!(Announcement::from_rdata(&vec![0; TXT_BYTES_MAX + 1]), Err(TxtError::TooLarge));
        assert_eq!(Announcement::from_rdata(&[0; 100]), Err(TxtError::TooLarge));
        assert_eq!(Announcement::from_rdata(&[]), Err(TxtError::Version));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_not_but_never_panic(rdata in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(announcement) = Announcement::from_rdata(&rdata) {
                prop_assert_eq!(Announcement::from_rdata(&announcement.to_rdata()), Ok(announcement));
            }
        }
    }
}
