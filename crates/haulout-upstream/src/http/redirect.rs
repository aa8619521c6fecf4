//! Which redirects are followed.
//!
//! An agent runs inside a network that a cache does not belong to, and on the road behind login
//! pages. So: within the host a redirect may lead anywhere (and from http up to https); to another
//! host only from https to https at the usual port, and only if that host has a public address,
//! which the connector checks once more when the name is resolved.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hyper::header;
use hyper::{Response, Uri};

use super::shown;
use crate::error::Trouble;

/// Longest `Location` that is looked at, in bytes; signed URLs have about 1,500.
const LOCATION_BYTES_MAX: usize = 8192;

/// A redirect that may be followed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) to: Uri,
    /// It leads to a host that only this redirect names.
    pub(super) leaves_host: bool,
}

/// Where a response redirects to; `None`: it is no redirect.
pub(super) fn target<B>(response: &Response<B>) -> Option<String> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(header::LOCATION).map(|value| value.as_bytes());
    Some(String::from_utf8_lossy(location.unwrap_or_default()).into_owned())
}

/// Judges a redirect from `from` to `location` (absolute or relative).
pub(super) fn check(
    from: &Uri,
    location: &str,
    may_visit: fn(IpAddr) -> bool,
) -> Result<Hop, Trouble> {
    let refuse = |to: String, why| Err(Trouble::Redirect { to, why });
    if location.is_empty() || location.len() > LOCATION_BYTES_MAX {
        return refuse(String::new(), "the target is missing or too long");
    }
    let base = url::Url::parse(&from.to_string());
    let Some(url) = base.ok().and_then(|base| base.join(location).ok()) else {
        return refuse(String::new(), "the target is no URL");
    };
    let to: Uri = match url.as_str().split('#').next().unwrap_or_default().parse() {
        Ok(to) => to,
        Err(_) => return refuse(String::new(), "the target is no URL"),
    };
    if !matches!(url.scheme(), "http" | "https") {
        return refuse(shown(&to), "the target is neither http nor https");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse(shown(&to), "the target carries a password");
    }
    let downgrade = from.scheme_str() == Some("https") && url.scheme() == "http";
    if downgrade {
        return refuse(shown(&to), "it leads from https to http");
    }
    let same_host = from.host().is_some_and(|host| Some(host) == to.host());
    if same_host {
        return Ok(Hop { to, leaves_host: false });
    }
    // A login page is met on http: this is what it does.
    if from.scheme_str() != Some("https") {
        return Err(Trouble::Portal(format!("a redirect to {}", shown(&to))));
    }
    if url.port().is_some() && !may_visit(IpAddr::V4(Ipv4Addr::LOCALHOST)) {
        return refuse(shown(&to), "another host is visited at the usual port only");
    }
    let literal = match url.host() {
        Some(url::Host::Ipv4(ip)) => Some(IpAddr::V4(ip)),
        Some(url::Host::Ipv6(ip)) => Some(IpAddr::V6(ip)),
        _ => None,
    };
    if literal.is_some_and(|ip| !may_visit(ip)) {
        return refuse(shown(&to), "the address is not a public one");
    }
    Ok(Hop { to, leaves_host: true })
}

/// Whether an address is one of the public internet.
pub(crate) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_broadcast()
        || ip.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b)) // shared by carriers
        || (a == 192 && b == 0 && c == 0) // protocol assignments
        || (a == 198 && (b == 18 || b == 19))) // benchmarks
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    if let Some(v4) = ip.to_ipv4_mapped() {
        return is_public_v4(v4);
    }
    let [a, b, c, d, _, _, g, h] = ip.segments();
    let embedded = |high: u16, low: u16| {
        let [w, x] = high.to_be_bytes();
        let [y, z] = low.to_be_bytes();
        Ipv4Addr::new(w, x, y, z)
    };
    match (a, b) {
        (0x64, 0xff9b) => c == 0 && d == 0 && is_public_v4(embedded(g, h)), // NAT64
        (0x2002, _) => is_public_v4(embedded(b, c)),                        // 6to4
        (0x2001, 0xdb8) | (0x2001, 0) => false,                             // documentation, Teredo
        _ => a & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(from: &str, to: &str) -> Result<Hop, Trouble> {
        check(&from.parse().unwrap(), to, is_public)
    }

    #[test]
    fn what_is_followed() {
        for (from, to, lands, leaves) in [
            ("https://c.example/a/b", "c", "https://c.example/a/c", false),
            ("https://c.example/a", "/x?y=z#frag", "https://c.example/x?y=z", false),
            ("http://c.lan:5000/a", "https://c.lan/a", "https://c.lan/a", false),
            (
                "https://c.example/a",
                "https://s3.example/k?sig=1",
                "https://s3.example/k?sig=1",
                true,
            ),
            ("https://c.example/a", "//cdn.example/k", "https://cdn.example/k", true),
            ("https://c.example/a", "https://1.1.1.1/k", "https://1.1.1.1/k", true),
        ] {
            let want = Hop { to: lands.parse().unwrap(), leaves_host: leaves };
            assert_eq!(hop(from, to), Ok(want), "{from} -> {to}");
        }
    }

    #[test]
    fn what_is_not() {
        for (from, to) in [
            ("https://c.example/a", ""),
            ("https://c.example/a", "http://c.example/a"),
            ("https://c.example/a", "https://10.0.0.1/admin"),
            ("https://c.example/a", "https://[::1]/"),
            ("https://c.example/a", "https://169.254.169.254/latest"),
            ("https://c.example/a", "https://other.example:8443/"),
            ("https://c.example/a", "https://u:p@other.example/"),
            ("https://c.example/a", "file:///etc/passwd"),
            ("https://c.example/a", "http://other.example/"),
        ] {
            assert!(matches!(hop(from, to), Err(Trouble::Redirect { .. })), "{from} -> {to}");
        }
        let portal = hop("http://c.example/a", "http://login.hotel.example/?for=c");
        assert!(matches!(portal, Err(Trouble::Portal(_))), "{portal:?}");
    }

    #[test]
    fn public_addresses() {
        for ip in
            ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::"]
        {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "0.0.0.0",
            "10.1.2.3",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.0.1",
            "100.64.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "ff02::fb",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2001:db8::1",
        ] {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
    }
}
