//! Values with a syntax of their own.

use std::fmt;
use std::str::FromStr;

use haulout_mesh::networks::{KnownNetwork, KnownNetworkError};
use haulout_swarm::PeerId;
use serde::{Deserialize, Serialize};

/// A number of bytes; reads and prints as `"2 GiB"` or a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "String")]
pub(crate) struct ByteSize(pub u64);

/// What TOML may hold where a size is expected.
#[derive(Deserialize)]
#[serde(untagged)]
enum Raw {
    Number(u64),
    Text(String),
}

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a size such as \"500 MiB\" or \"20 GB\"");
        let text = text.trim();
        let (number, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| text.strip_suffix(name).map(|number| (number.trim(), *unit)))
            .unwrap_or((text, 1));
        let number: u64 = number.parse().map_err(|_| bad())?;
        number.checked_mul(unit).map(Self).ok_or_else(bad)
    }
}

impl TryFrom<Raw> for ByteSize {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        match raw {
            Raw::Number(bytes) => Ok(Self(bytes)),
            Raw::Text(text) => text.parse(),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, unit) = UNITS[..4]
            .iter()
            .find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit))
            .unwrap_or(&("B", 1));
        write!(f, "{} {name}", self.0 / unit)
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}

/// Where a peer listens, and who it must be: `HOST:PORT` or `PEERID@HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct PeerAddress {
    /// The key the peer must prove; none: whoever answers there.
    pub(crate) id: Option<PeerId>,
    /// Host name or address, and port.
    pub(crate) host: String,
}

impl FromStr for PeerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (id, host) = match text.split_once('@') {
            None => (None, text),
            Some((id, host)) => {
                let id = id.parse().map_err(|_| format!("{id:?} is not a peer id"))?;
                (Some(id), host)
            }
        };
        let port = host.rsplit_once(':').and_then(|(name, port)| {
            (!name.is_empty()).then_some(())?;
            port.parse::<u16>().ok()
        });
        match port {
            Some(port) if port > 0 => Ok(Self { id, host: host.to_owned() }),
            _ => Err(format!("{text:?} is not HOST:PORT or PEERID@HOST:PORT")),
        }
    }
}

impl TryFrom<String> for PeerAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            Some(id) => write!(f, "{id}@{}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

impl From<PeerAddress> for String {
    fn from(address: PeerAddress) -> Self {
        address.to_string()
    }
}

/// Which NARs that came from elsewhere are written to the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CachedNars {
    /// None.
    Never,
    /// What nobody on this network would hold otherwise.
    Auto,
    /// All of them.
    All,
}

/// What a mesh with a secret gives to machines that do not know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StrangerPolicy {
    /// Nothing, not even an answer.
    Nothing,
    /// What carries a signature of a key on the share list.
    Public,
}

/// A cache outside, checked and kept as it was written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct UpstreamUrl {
    text: String,
    /// What it means.
    pub(crate) url: haulout_upstream::CacheUrl,
}

impl TryFrom<String> for UpstreamUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.parse() {
            Ok(url) => Ok(Self { text, url }),
            Err(error) => Err(format!("{text:?}: {error}")),
        }
    }
}

impl From<UpstreamUrl> for String {
    fn from(url: UpstreamUrl) -> Self {
        url.text
    }
}

/// Which paths are pushed by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PushWhat {
    /// What was built here: without a signature, or with one of the signing keys.
    Local,
    /// Everything that carries a signature by a trusted key.
    Signed,
}

/// A network as people write it.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct NetworkText(pub(crate) haulout_gateway::Network);

impl TryFrom<String> for NetworkText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self)
    }
}

/// A rule by which a network is known, as people write it.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct KnownNetworkText(pub(crate) KnownNetwork);

impl TryFrom<String> for KnownNetworkText {
    type Error = KnownNetworkError;

    fn try_from(text: String) -> Result<Self, KnownNetworkError> {
        text.parse().map(Self)
    }
}

impl Serialize for KnownNetworkText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Writes networks as [`NetworkText`] reads them.
pub(super) fn networks<S: serde::Serializer>(
    networks: &[haulout_gateway::Network],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(networks.iter().map(ToString::to_string))
}
