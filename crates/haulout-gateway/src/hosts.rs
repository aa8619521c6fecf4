//! Which `Host` a browser may have used: the defence against DNS rebinding.
//!
//! A web page can point its own name at 127.0.0.1 and then read the control interface as if it were
//! its own site. The
//! `Host` header still says the page's name, so the control interface answers only to names that
//! are this machine's. Nix' own routes are left alone: they say nothing a page could not learn from
//! a public cache.

use std::net::{IpAddr, SocketAddr};

/// The names the control interface answers to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts {
    names: Vec<String>,
    bound: Option<IpAddr>,
}

impl Hosts {
    /// `localhost`, loopback addresses, the bound address (unless it is the wildcard) and `extra`.
    pub(crate) fn new(bound: Option<SocketAddr>, extra: &[String]) -> Self {
        let bound = bound.map(|addr| addr.ip()).filter(|ip| !ip.is_unspecified());
        Self {
            names: extra
                .iter()
                .map(|name| name.trim_end_matches('.').to_ascii_lowercase())
                .collect(),
            bound,
        }
    }

    /// Whether a `Host` value (or the authority of an absolute request target) names this machine.
    /// The port is not looked at: a forwarded port is no attack.
    pub(crate) fn allows(&self, host: &str) -> bool {
        let Some(name) = without_port(host) else {
            return false;
        };
        if let Some(ip) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return ip.parse().is_ok_and(|ip| self.allows_ip(IpAddr::V6(ip)));
        }
        if let Ok(ip) = name.parse() {
            return self.allows_ip(IpAddr::V4(ip));
        }
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        name == "localhost" || self.names.contains(&name)
    }

    fn allows_ip(&self, ip: IpAddr) -> bool {
        ip == IpAddr::from([127, 0, 0, 1])
            || ip == IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)
            || self.bound == Some(ip)
            || self.names.contains(&ip.to_string())
    }
}

/// `name:port` or `[v6]:port` without the port; `None` when there is rubbish after the name.
fn without_port(host: &str) -> Option<&str> {
    let name_end = match host.starts_with('[') {
        true => host.find(']')? + 1,
        false => host.find(':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at(name_end);
    let port_ok = match port.strip_prefix(':') {
        Some(digits) => digits.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    (port_ok && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_names_pass_others_do_not() {
        let hosts = Hosts::new(
            Some("192.168.7.3:5299".parse().unwrap()),
            &["Box.lan".into(), "10.0.0.9".into()],
        );
        for ok in [
            "localhost",
            "LOCALHOST:5299",
            "localhost.:80",
            "127.0.0.1",
            "127.0.0.1:5299",
            "[::1]",
            "[::1]:5299",
            "192.168.7.3:5299",
            "box.lan",
            "BOX.LAN.:1",
            "10.0.0.9:5299",
        ] {
            assert!(hosts.allows(ok), "{ok}");
        }
        for bad in [
            "",
            ":80",
            "evil.example",
            "evil.example:5299",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.168.7.4",
            "[::2]",
            "::1",
            "[::1",
            "[::1]x",
            "localhost:",
            "localhost:x",
            "localhost:99999",
            "0.0.0.0",
            "127.0.0.1@evil",
            "box.lan.evil",
        ] {
            assert!(!hosts.allows(bad), "{bad}");
        }
    }

    #[test]
    fn the_wildcard_is_no_name() {
        let hosts = Hosts::new(Some("0.0.0.0:5299".parse().unwrap()), &[]);
        assert!(!hosts.allows("0.0.0.0:5299"));
        assert!(hosts.allows("localhost:5299"));
    }
}
