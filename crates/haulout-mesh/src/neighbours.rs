//! Caches of others on the network: `_nix_binary_cache._tcp`, as nix-cache-beacon announces harmonia
//! and nix-serve.
//!
//! An announcement is a hint from anybody. It leads to plain HTTP requests to an address of this
//! network and to nothing else; whatever the cache says is checked as if a peer had said it.

use std::collections::{BTreeMap, btree_map::Entry};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::mdns::{Found, Name};

/// The DNS-SD type under which binary caches are announced.
pub const CACHE_SERVICE_TYPE: &str = "_nix_binary_cache._tcp.local.";
/// Caches remembered at once: a flood of invented ones must not become a flood of requests.
pub const NEIGHBOURS_MAX: usize = 16;

/// What became of a cache on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// It is announced at this address.
    Appeared(SocketAddr),
    /// It is no longer announced there.
    Left(SocketAddr),
}

/// Told of caches as they come and go, on the mesh's thread: it must not block.
#[derive(Clone)]
pub struct OnNeighbour(Arc<dyn Fn(Neighbour) + Send + Sync>);

impl OnNeighbour {
    /// Calls `tell`.
    pub fn new(tell: impl Fn(Neighbour) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }
}

impl fmt::Debug for OnNeighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnNeighbour(..)")
    }
}

/// Which announcement named which address.
#[derive(Debug, Default)]
struct Table {
    by_name: BTreeMap<Name, SocketAddr>,
}

impl Table {
    fn announced(&mut self, name: &Name, addr: SocketAddr) -> Vec<Neighbour> {
        let full = self.by_name.len() >= NEIGHBOURS_MAX;
        match self.by_name.entry(name.clone()) {
            Entry::Vacant(_) if full => Vec::new(),
            Entry::Vacant(place) => {
                place.insert(addr);
                vec![Neighbour::Appeared(addr)]
            }
            Entry::Occupied(mut place) => {
                let before = place.insert(addr);
                let moved = before != addr;
                let mut told = if moved { self.unless_named(before) } else { Vec::new() };
                told.extend(moved.then_some(Neighbour::Appeared(addr)));
                told
            }
        }
    }

    fn ended(&mut self, name: &Name) -> Vec<Neighbour> {
        let before = self.by_name.remove(name);
        before.map_or_else(Vec::new, |addr| self.unless_named(addr))
    }

    /// Two announcements may name one cache.
    fn unless_named(&self, addr: SocketAddr) -> Vec<Neighbour> {
        let named = self.by_name.values().any(|other| *other == addr);
        if named { Vec::new() } else { vec![Neighbour::Left(addr)] }
    }
}

/// Hands on what is announced.
pub(crate) struct Caches {
    table: Table,
    tell: OnNeighbour,
}

impl Caches {
    pub(crate) fn new(tell: OnNeighbour) -> Self {
        Self { table: Table::default(), tell }
    }

    pub(crate) fn found(&mut self, found: &Found) {
        if let Some(addr) = address(found) {
            let changes = self.table.announced(&found.name, addr);
            self.tell_of(changes);
        }
    }

    pub(crate) fn lost(&mut self, name: &Name) {
        let changes = self.table.ended(name);
        self.tell_of(changes);
    }

    fn tell_of(&self, changes: Vec<Neighbour>) {
        for change in changes {
            tracing::debug!(?change, "binary cache on the network");
            (self.tell.0)(change);
        }
    }
}

/// The address to ask: the smallest, so that the same one is taken each time.
fn address(found: &Found) -> Option<SocketAddr> {
    let ip = found.addrs.iter().map(|(ip, _)| *ip).filter(|ip| on_a_lan(*ip)).min()?;
    (found.port > 0).then_some(SocketAddr::new(ip, found.port))
}

/// Addresses that only machines nearby have. Link-local IPv6 cannot be written into a URL, and an
/// announcement that names this machine's own loopback wants something else.
const fn on_a_lan(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xfe00 == 0xfc00,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn name(text: &str) -> Name {
        Name::from_text(text).unwrap()
    }

    #[test]
    fn a_cache_comes_moves_and_goes() {
        let mut table = Table::default();
        let (a, b) = (at("10.0.0.1:5000"), at("10.0.0.2:5000"));
        assert_eq!(table.announced(&name("x"), a), [Neighbour::Appeared(a)]);
        assert_eq!(table.announced(&name("x"), a), []);
        assert_eq!(table.announced(&name("y"), a), [Neighbour::Appeared(a)]);
        assert_eq!(table.announced(&name("x"), b), [Neighbour::Appeared(b)], "y still names a");
        assert_eq!(table.ended(&name("y")), [Neighbour::Left(a)]);
        assert_eq!(table.ended(&name("y")), []);
        assert_eq!(table.announced(&name("x"), a), [Neighbour::Left(b), Neighbour::Appeared(a)]);
    }

    #[test]
    fn a_flood_is_bounded() {
        let mut table = Table::default();
        let told = (0..100u8).flat_map(|n| {
            table.announced(&name(&format!("cache {n}")), SocketAddr::from(([10, 0, 0, n], 80)))
        });
        assert_eq!(told.count(), NEIGHBOURS_MAX);
    }

    #[test]
    fn only_addresses_nearby() {
        for good in ["10.1.2.3", "192.168.1.1", "172.16.0.9", "169.254.7.7", "fd00::1"] {
            assert!(on_a_lan(good.parse().unwrap()), "{good}");
        }
        for bad in
            ["127.0.0.1", "1.1.1.1", "0.0.0.0", "224.0.0.251", "::1", "fe80::1", "2606:4700::1"]
        {
            assert!(!on_a_lan(bad.parse().unwrap()), "{bad}");
        }
    }
}
