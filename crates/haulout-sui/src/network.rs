//! Which network is meant: a preset by name, or a TOML file.
//!
//! ```toml
//! rpc_urls = ["https://fullnode.mainnet.sui.io:443"]   # Sui full nodes (gRPC), at least one
//! system_object = "0x2134…"                            # Walrus' System object
//! staking_object = "0x10b9…"                           # Walrus' Staking object
//! aggregators = ["https://aggregator.example.org"]     # optional; asked last
//! walrus_package = "0xfdc8…"                           # optional: package that defined the types
//! wal_package = "0x356a…"                              # optional: package of the WAL coin
//!
//! [trust_anchor]                                       # optional; needed to prove archives
//! checkpoint = "5Qe…"                                  # digest of an end-of-epoch checkpoint, or
//! committee = "committee.json"                         # a committee file
//! ```
//!
//! The names are those of Walrus' own client configuration.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::ObjectId;

/// Bytes of a network file; it is text that people write.
pub const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Full nodes or aggregators in one list: more are never asked.
pub const URLS_MAX: usize = 16;
/// Bytes of one URL.
pub const URL_BYTES_MAX: usize = 2048;

/// A Sui network with Walrus on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The preset's name, or the file it was read from.
    pub name: String,
    /// Sui full nodes (`http` or `https`), 1 to [`URLS_MAX`], in order of preference.
    pub rpc_urls: Vec<String>,
    /// Walrus' shared `system::System` object.
    pub system_object: ObjectId,
    /// Walrus' shared `staking::Staking` object.
    pub staking_object: ObjectId,
    /// Walrus aggregators (`http` or `https`), the last resort for reading.
    pub aggregators: Vec<String>,
    /// The package that first defined Walrus' types; read from the chain where absent.
    pub walrus_package: Option<ObjectId>,
    /// The package that defined the WAL coin; read from the chain where absent.
    pub wal_package: Option<ObjectId>,
    /// What proofs start from; `None` means that nothing on this network can be proven.
    pub trust_anchor: Option<TrustAnchor>,
}

/// What a machine believes about the chain before it has asked anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustAnchor {
    /// The digest of a checkpoint that names a committee: the last one of an epoch, or
    /// the first of the chain.
    Checkpoint([u8; 32]),
    /// A file with a committee and its epoch; see `haulout_sui::proof::committee_file`.
    Committee(PathBuf),
}

/// Why there is no [`Network`].
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct NetworkError {
    message: String,
    hint: String,
    #[source]
    source: Option<std::io::Error>,
}

impl NetworkError {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), source: None }
    }

    /// What the reader can do about it.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rpc_urls: Vec<String>,
    system_object: ObjectId,
    staking_object: ObjectId,
    #[serde(default)]
    aggregators: Vec<String>,
    walrus_package: Option<ObjectId>,
    wal_package: Option<ObjectId>,
    trust_anchor: Option<AnchorFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnchorFile {
    checkpoint: Option<String>,
    committee: Option<PathBuf>,
}

/// The names [`Network::preset`] knows.
pub const PRESETS: [&str; 2] = ["mainnet", "testnet"];

impl Network {
    /// A preset by name, or the file at this path.
    ///
    /// # Errors
    /// Neither a preset nor a readable, well-formed file; the message names the file, the
    /// line and what is wrong with it.
    pub fn load(name_or_path: &str) -> Result<Self, NetworkError> {
        match Self::preset(name_or_path) {
            Some(network) => Ok(network),
            None => Self::read(Path::new(name_or_path)),
        }
    }

    /// The public networks: `mainnet` and `testnet`. They come without a trust anchor,
    /// which is the reader's own decision.
    #[must_use]
    pub fn preset(name: &str) -> Option<Self> {
        let text = match name {
            "mainnet" => include_str!("network/mainnet.toml"),
            "testnet" => include_str!("network/testnet.toml"),
            _ => return None,
        };
        Self::parse(text, name, Path::new("")).ok()
    }

    /// Reads a network file. A relative `committee` is relative to the file's directory.
    ///
    /// # Errors
    /// As [`Network::load`].
    pub fn read(path: &Path) -> Result<Self, NetworkError> {
        let shown = path.display();
        let unreadable = |source: std::io::Error| NetworkError {
            message: format!("cannot read the network file {shown}"),
            hint: format!("give the path of a network file, or one of: {}", PRESETS.join(", ")),
            source: Some(source),
        };
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > FILE_BYTES_MAX {
            return Err(NetworkError::new(
                format!("{shown} has {size} bytes; a network file has at most {FILE_BYTES_MAX}"),
                "this is probably another file",
            ));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let directory = path.parent().unwrap_or_else(|| Path::new(""));
        Self::parse(&text, &shown.to_string(), directory)
    }

    /// Reads the text of a network file called `name`; `directory` is where a relative
    /// `committee` path starts.
    ///
    /// # Errors
    /// The message names `name`, the line and what is wrong.
    pub fn parse(text: &str, name: &str, directory: &Path) -> Result<Self, NetworkError> {
        let file: File = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            NetworkError::new(
                format!("{name}, line {line}: {}", error.message().trim()),
                "keys: rpc_urls, system_object, staking_object, aggregators, walrus_package, \
                 wal_package (top level) and [trust_anchor] with checkpoint or committee",
            )
        })?;
        let at = |key: &str| format!("{name}, line {}", line_of_key(text, key));
        if file.rpc_urls.is_empty() {
            return Err(NetworkError::new(
                format!("{}: rpc_urls is empty", at("rpc_urls")),
                "name at least one Sui full node, e.g. \"https://fullnode.mainnet.sui.io:443\"",
            ));
        }
        check_urls(&file.rpc_urls, "rpc_urls", &at)?;
        check_urls(&file.aggregators, "aggregators", &at)?;
        if file.system_object == file.staking_object {
            return Err(NetworkError::new(
                format!("{}: the same id as system_object", at("staking_object")),
                "System and Staking are two objects; `sui client object ID` shows the type",
            ));
        }
        let trust_anchor = file
            .trust_anchor
            .map(|anchor| {
                read_anchor(anchor, directory).map_err(|(m, h)| {
                    NetworkError::new(format!("{}: {m}", at("[trust_anchor]")), h)
                })
            })
            .transpose()?;
        Ok(Self {
            name: name.to_owned(),
            rpc_urls: file.rpc_urls,
            system_object: file.system_object,
            staking_object: file.staking_object,
            aggregators: file.aggregators,
            walrus_package: file.walrus_package,
            wal_package: file.wal_package,
            trust_anchor,
        })
    }

    /// The text of a file that reads back as this network.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let list = |urls: &[String]| {
            let quoted: Vec<String> = urls.iter().map(|url| quote(url)).collect();
            format!("[{}]", quoted.join(", "))
        };
        let mut text = format!(
            "rpc_urls = {}\nsystem_object = \"{}\"\nstaking_object = \"{}\"\n",
            list(&self.rpc_urls),
            self.system_object,
            self.staking_object
        );
        if !self.aggregators.is_empty() {
            text.push_str(&format!("aggregators = {}\n", list(&self.aggregators)));
        }
        let packages = [("walrus_package", self.walrus_package), ("wal_package", self.wal_package)];
        for (key, id) in packages {
            if let Some(id) = id {
                text.push_str(&format!("{key} = \"{id}\"\n"));
            }
        }
        match &self.trust_anchor {
            Some(TrustAnchor::Checkpoint(digest)) => text.push_str(&format!(
                "\n[trust_anchor]\ncheckpoint = \"{}\"\n",
                base58_encode(digest)
            )),
            Some(TrustAnchor::Committee(path)) => text.push_str(&format!(
                "\n[trust_anchor]\ncommittee = {}\n",
                quote(&path.to_string_lossy())
            )),
            None => {}
        }
        text
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn quote(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn read_anchor(file: AnchorFile, directory: &Path) -> Result<TrustAnchor, (String, String)> {
    match (file.checkpoint, file.committee) {
        (Some(text), None) => base58_decode(&text).map(TrustAnchor::Checkpoint).ok_or_else(|| {
            (
                format!("{text:?} is not a checkpoint digest"),
                "a digest is 32 bytes in base58, 43 or 44 characters, as explorers show it".into(),
            )
        }),
        (None, Some(path)) => Ok(TrustAnchor::Committee(directory.join(path))),
        (both, _) => Err((
            format!("{} of checkpoint and committee", if both.is_some() { "both" } else { "none" }),
            "give exactly one: the digest of an end-of-epoch checkpoint, or a committee file"
                .into(),
        )),
    }
}

fn check_urls(
    urls: &[String],
    key: &str,
    at: &impl Fn(&str) -> String,
) -> Result<(), NetworkError> {
    if urls.len() > URLS_MAX {
        return Err(NetworkError::new(
            format!("{}: {key} has {} entries", at(key), urls.len()),
            format!("name at most {URLS_MAX}"),
        ));
    }
    for url in urls {
        check_url(url).map_err(|(message, hint)| {
            // Not the whole text: it may carry a password.
            NetworkError::new(format!("{}: {key}: {message}", at(key)), hint)
        })?;
    }
    Ok(())
}

fn check_url(url: &str) -> Result<(), (String, String)> {
    let hint = || "a URL is http:// or https://, a host and perhaps a port".to_owned();
    if url.len() > URL_BYTES_MAX {
        return Err((format!("a URL of {} bytes", url.len()), hint()));
    }
    let (scheme, rest) = url.split_once("://").ok_or_else(|| ("not a URL".into(), hint()))?;
    if !matches!(scheme, "http" | "https") {
        return Err((format!("a URL with the scheme {scheme:?}"), hint()));
    }
    if !url.chars().all(|c| c.is_ascii_graphic()) {
        return Err((
            "a URL with spaces or other characters that have no place in it".into(),
            hint(),
        ));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err((
            "a URL with a user name or password".into(),
            "network files are shared and shown: leave credentials out of URLs".into(),
        ));
    }
    let (host, port) = split_port(authority);
    if host.is_empty() {
        return Err(("a URL without a host".into(), hint()));
    }
    if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
        return Err((format!("a URL with the port {:?}", port.unwrap_or_default()), hint()));
    }
    Ok(())
}

/// Host and port of `host:port`, `[v6]:port` or `host`.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    if let Some(rest) = authority.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((host, tail)) if host.parse::<IpAddr>().is_ok() => (host, tail.strip_prefix(':')),
            _ => ("", None),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
}

/// The line on which a key or table header stands; 1 if it does not.
fn line_of_key(text: &str, key: &str) -> usize {
    text.lines().position(|line| line.trim_start().starts_with(key)).map_or(1, |line| line + 1)
}

const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// 32 bytes as base58, the text form of digests.
#[must_use]
pub fn base58_encode(bytes: &[u8; 32]) -> String {
    let mut digits: Vec<u8> = Vec::with_capacity(44);
    for &byte in bytes {
        let mut carry = u32::from(byte);
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = u8::try_from(carry % 58).unwrap_or_default();
            carry /= 58;
        }
        while carry > 0 {
            digits.push(u8::try_from(carry % 58).unwrap_or_default());
            carry /= 58;
        }
    }
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    let ones = std::iter::repeat_n(0, zeros);
    digits.into_iter().chain(ones).rev().map(|d| char::from(BASE58[usize::from(d)])).collect()
}

/// The 32 bytes of a digest's text form; `None` if it is not one.
#[must_use]
pub fn base58_decode(text: &str) -> Option<[u8; 32]> {
    // 58^44 > 2^256: no digest is longer, none shorter than its 32 zero bytes.
    if !(32..=44).contains(&text.len()) {
        return None;
    }
    let mut bytes = [0u8; 32];
    for character in text.bytes() {
        let mut carry = u32::try_from(BASE58.iter().position(|&c| c == character)?).ok()?;
        for byte in bytes.iter_mut().rev() {
            carry += u32::from(*byte) * 58;
            let [low, ..] = carry.to_le_bytes();
            *byte = low;
            carry >>= 8;
        }
        if carry != 0 {
            return None;
        }
    }
    // Leading ones are leading zero bytes, one for one.
    (base58_encode(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests;
