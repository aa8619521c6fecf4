//! The door for machines without an agent: who may come in.
//!
//! The port on localhost is for this machine and asks nobody who it is. The door is another port,
//! with TLS or behind a proxy that has it, with a list of networks, with names and passwords. It
//! leads to the substituter's routes and, for those who may, to uploads; never to the control
//! interface or to build logs.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use haulout_nix::HashPart;
use hyper::header::{self, HeaderMap};

/// Logins of one file, at most.
pub const LOGINS_MAX: usize = 4096;

/// How the door is kept.
#[derive(Clone, Default)]
pub struct Door {
    /// TLS; `None`: plain, for a proxy in front or a network of one's own.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Networks that may come in; empty: all.
    pub allow: Vec<Network>,
    /// Who may read; empty: everybody who may come in.
    pub readers: Logins,
    /// Who may upload (and read); empty: nobody.
    pub writers: Logins,
    /// Where uploads go.
    pub uploads: Option<Arc<dyn Uploads>>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door")
            .field("tls", &self.tls.is_some())
            .field("allow", &self.allow)
            .finish_non_exhaustive()
    }
}

/// What a request may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum May {
    /// Nothing before it says who it is.
    Nothing,
    /// Read.
    Read,
    /// Read and upload.
    Write,
}

impl Door {
    /// Whether a connection from there is taken at all.
    pub(crate) fn admits(&self, peer: SocketAddr) -> bool {
        self.allow.is_empty() || self.allow.iter().any(|network| network.contains(peer.ip()))
    }

    /// What the sender of a request may do.
    pub(crate) fn may(&self, fields: &HeaderMap) -> May {
        let said = fields.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        match said {
            Some(said) if self.writers.admit(said) => May::Write,
            Some(said) if self.readers.admit(said) => May::Read,
            _ if self.readers.is_empty() => May::Read,
            _ => May::Nothing,
        }
    }
}

/// A place that takes uploads. Everything it gives was checked when it came.
pub trait Uploads: Send + Sync + 'static {
    /// The narinfo of an uploaded path.
    fn narinfo(&self, hash: HashPart) -> BoxFuture<'_, Option<Bytes>>;
    /// Bytes of an uploaded NAR file (`nar/…`).
    fn size_of<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<u64>>;
    /// The file from a byte on.
    fn open<'a>(
        &'a self,
        name: &'a str,
        from: u64,
    ) -> BoxFuture<'a, Option<BoxStream<'static, Result<Bytes, crate::Cut>>>>;
    /// Takes a NAR file.
    fn put_file<'a>(
        &'a self,
        name: &'a str,
        body: BoxStream<'static, Result<Bytes, crate::Cut>>,
    ) -> BoxFuture<'a, Result<(), Refused>>;
    /// Takes a narinfo.
    fn put_narinfo(&self, hash: HashPart, text: Bytes) -> BoxFuture<'_, Result<(), Refused>>;
}

/// An upload that is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// 400, 403, 429 or 507: Nix does not try again after the first two.
    pub status: u16,
    /// Why, for the person at the other end.
    pub why: String,
}

/// A network in CIDR notation, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether an address is in it. An IPv4 address in IPv6 clothes is the IPv4 address.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let canonical = ip.to_canonical();
        match (self.base, canonical) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => {
                let shift = 32 - u32::from(self.bits);
                let cut = |ip: u32| ip.checked_shr(shift).unwrap_or(0);
                cut(base.to_bits()) == cut(ip.to_bits())
            }
            (IpAddr::V6(base), IpAddr::V6(ip)) => {
                let shift = 128 - u32::from(self.bits);
                let cut = |ip: u128| ip.checked_shr(shift).unwrap_or(0);
                cut(base.to_bits()) == cut(ip.to_bits())
            }
            _ => false,
        }
    }
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a network such as 10.0.0.0/8 or fd00::/8");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let base: IpAddr = address.parse().map_err(|_| bad())?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| bad()))?;
        if bits > most { Err(bad()) } else { Ok(Self { base, bits }) }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

/// Names with passwords, and tokens without a name.
#[derive(Clone, Default)]
pub struct Logins {
    by_name: HashMap<String, String>,
}

impl Logins {
    /// Reads lines `NAME:PASSWORD`; empty lines and those that begin with `#` are passed over. A
    /// password alone opens as a bearer token too.
    ///
    /// # Errors
    /// The first line that is neither, by its number.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut by_name = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let pair =
                line.split_once(':').filter(|(name, word)| !name.is_empty() && !word.is_empty());
            let (name, word) =
                pair.ok_or_else(|| format!("line {} is not NAME:PASSWORD", index + 1))?;
            by_name.insert(name.to_owned(), word.to_owned());
            if by_name.len() > LOGINS_MAX {
                return Err(format!("more than {LOGINS_MAX} logins"));
            }
        }
        Ok(Self { by_name })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Whether an `Authorization` field is one of these.
    fn admit(&self, field: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(field) else { return false };
        let Some((scheme, value)) = text.split_once(' ') else { return false };
        let value = value.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            // All are compared, so that time tells nothing.
            return self.by_name.values().fold(false, |found, word| found | same(word, value));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return false;
        }
        let decoded = data_encoding::BASE64.decode(value.as_bytes()).ok();
        let Some(pair) = decoded.and_then(|bytes| String::from_utf8(bytes).ok()) else {
            return false;
        };
        let Some((name, word)) = pair.split_once(':') else { return false };
        self.by_name.get(name).is_some_and(|right| same(right, word))
    }
}

/// Compares in a time that depends on the length alone.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let network = |text: &str| text.parse::<Network>().unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(network("10.0.0.0/8").contains(ip("10.255.0.1")));
        assert!(network("10.0.0.0/8").contains(ip("::ffff:10.1.2.3")));
        assert!(!network("10.0.0.0/8").contains(ip("11.0.0.1")));
        assert!(network("192.168.7.3").contains(ip("192.168.7.3")));
        assert!(!network("192.168.7.3").contains(ip("192.168.7.4")));
        assert!(network("0.0.0.0/0").contains(ip("1.2.3.4")));
        assert!(!network("0.0.0.0/0").contains(ip("::1")));
        assert!(network("fd00::/8").contains(ip("fdab::1")));
        assert!(network("::/0").contains(ip("fdab::1")));
        for bad in ["", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/-1", "x"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn logins() {
        let logins = Logins::parse("# team\nci:s3cret\n\nann:with:colon\n").unwrap();
        let basic = |pair: &str| format!("Basic {}", data_encoding::BASE64.encode(pair.as_bytes()));
        for good in [
            basic("ci:s3cret"),
            basic("ann:with:colon"),
            "Bearer s3cret".into(),
            "bearer  s3cret".into(),
        ] {
            assert!(logins.admit(good.as_bytes()), "{good}");
        }
        for bad in [
            basic("ci:s3cre"),
            basic("ci:s3cret2"),
            basic("ann:s3cret"),
            basic("ci"),
            "Bearer".into(),
            "Bearer ".into(),
            "Basic !!".into(),
            "Digest x".into(),
            String::new(),
        ] {
            assert!(!logins.admit(bad.as_bytes()), "{bad}");
        }
        assert!(Logins::parse("nobody").is_err());
        assert!(Logins::parse("x:").is_err());
        assert!(!Logins::default().admit(b"Bearer "));
    }

    #[test]
    fn who_may_what() {
        let field = |value: &'static str| {
            HeaderMap::from_iter([(header::AUTHORIZATION, header::HeaderValue::from_static(value))])
        };
        let (readers, writers) =
            (Logins::parse("r:read").unwrap(), Logins::parse("w:write").unwrap());
        let open = Door { writers: writers.clone(), ..Door::default() };
        assert_eq!(open.may(&HeaderMap::new()), May::Read);
        assert_eq!(open.may(&field("Bearer write")), May::Write);
        let closed = Door { readers, writers, ..Door::default() };
        assert_eq!(closed.may(&HeaderMap::new()), May::Nothing);
        assert_eq!(closed.may(&field("Bearer wrong")), May::Nothing);
        assert_eq!(closed.may(&field("Bearer read")), May::Read);
        assert_eq!(closed.may(&field("Bearer write")), May::Write);
    }
}
