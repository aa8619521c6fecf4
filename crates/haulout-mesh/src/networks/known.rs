//! By what a network is recognised.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::Interface;
use crate::mdns::same_network;

/// Longest name of a wireless network, in bytes (IEEE 802.11).
const SSID_MAX: usize = 32;

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = KnownNetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| (1..=2).contains(&part.len()));
            let hex = part.filter(|part| part.bytes().all(|digit| digit.is_ascii_hexdigit()));
            *byte = hex
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or(KnownNetworkError::Mac)?;
        }
        if parts.next().is_some() { Err(KnownNetworkError::Mac) } else { Ok(Self(bytes)) }
    }
}

/// A text that names no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KnownNetworkError {
    /// Neither of the words.
    #[error("a known network is \"gateway MAC\", \"subnet ADDRESS/BITS\" or \"ssid NAME\"")]
    Kind,
    /// Not six bytes.
    #[error("a gateway is named by its hardware address, such as 52:54:00:12:34:56")]
    Mac,
    /// No address, or a length that does not fit it.
    #[error("a subnet is an address and a length, such as 10.20.0.0/16")]
    Subnet,
    /// Empty, or longer than such names can be.
    #[error("the name of a wireless network has 1 to 32 bytes")]
    Ssid,
}

/// A rule: `gateway MAC`, `subnet ADDRESS/BITS` or `ssid NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KnownNetwork {
    /// The default gateway has this hardware address: the best of the three, because it cannot be had by accident.
    Gateway(Mac),
    /// This machine has an address in it.
    Subnet(IpAddr, u8),
    /// The wireless network is called so. Anybody can call theirs the same.
    Ssid(String),
}

impl FromStr for KnownNetwork {
    type Err = KnownNetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, value) =
            text.trim().split_once(char::is_whitespace).ok_or(KnownNetworkError::Kind)?;
        let value = value.trim();
        match kind {
            "gateway" => Ok(Self::Gateway(value.parse()?)),
            "subnet" => subnet(value).ok_or(KnownNetworkError::Subnet),
            "ssid" if (1..=SSID_MAX).contains(&value.len()) => Ok(Self::Ssid(value.to_owned())),
            "ssid" => Err(KnownNetworkError::Ssid),
            _ => Err(KnownNetworkError::Kind),
        }
    }
}

fn subnet(text: &str) -> Option<KnownNetwork> {
    let (ip, bits) = text.split_once('/')?;
    let ip: IpAddr = ip.parse().ok()?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let bits: u8 = bits.parse().ok().filter(|bits| *bits <= most)?;
    Some(KnownNetwork::Subnet(ip, bits))
}

impl fmt::Display for KnownNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(mac) => write!(f, "gateway {mac}"),
            Self::Subnet(ip, bits) => write!(f, "subnet {ip}/{bits}"),
            Self::Ssid(name) => write!(f, "ssid {name}"),
        }
    }
}

impl KnownNetwork {
    /// Whether an interface is in this network.
    pub(super) fn matches(&self, interface: &Interface) -> bool {
        match self {
            Self::Gateway(mac) => {
                interface.gateway.as_ref().is_some_and(|gateway| gateway.mac == Some(*mac))
            }
            Self::Subnet(ip, bits) => {
                interface.addrs.iter().any(|(own, _)| same_network(*own, *ip, *bits))
            }
            Self::Ssid(name) => interface.ssid.as_ref() == Some(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Gateway;
    use super::*;

    fn rule(text: &str) -> KnownNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn rules_are_read_and_written() {
        for text in [
            "gateway 52:54:00:0a:0b:0c",
            "subnet 10.20.0.0/16",
            "subnet fd00::/8",
            "ssid Office  West",
        ] {
            assert_eq!(rule(text).to_string(), text);
        }
        assert_eq!(rule("gateway 52-54-0-A-B-C"), rule("gateway 52:54:00:0a:0b:0c"));
        let long = format!("ssid {}", "x".repeat(33));
        for bad in [
            "",
            "gateway",
            "gateway 1:2:3:4:5",
            "gateway 1:2:3:4:5:6:7",
            "gateway +1:2:3:4:5:6",
            "subnet 10.0.0.0",
            "subnet 10.0.0.0/33",
            "subnet x/8",
            "ssid ",
            "wifi x",
            &long,
        ] {
            assert!(bad.parse::<KnownNetwork>().is_err(), "{bad}");
        }
    }

    #[test]
    fn networks_are_recognised() {
        let interface = Interface {
            name: "wlan0".to_owned(),
            index: 3,
            loopback: false,
            addrs: vec![("10.20.3.4".parse().unwrap(), 24), ("fe80::1".parse().unwrap(), 64)],
            gateway: Some(Gateway {
                ip: "10.20.3.1".parse().unwrap(),
                mac: Some(Mac([1, 2, 3, 4, 5, 6])),
            }),
            ssid: Some("Office".to_owned()),
            discover: true,
            known_by: None,
        };
        for text in [
            "gateway 01:02:03:04:05:06",
            "subnet 10.20.0.0/16",
            "subnet 10.20.3.4/32",
            "ssid Office",
        ] {
            assert!(rule(text).matches(&interface), "{text}");
        }
        for text in
            ["gateway 01:02:03:04:05:07", "subnet 10.21.0.0/16", "subnet ::/8", "ssid office"]
        {
            assert!(!rule(text).matches(&interface), "{text}");
        }
    }
}
