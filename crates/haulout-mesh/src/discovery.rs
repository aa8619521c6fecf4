//! Finding peers by DNS-SD over multicast DNS.
//!
//! An announcement is a hint from anybody: it leads to a dial that pins the announced key, and to nothing else.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

use haulout_swarm::PeerId;

use crate::config::{InterfaceRules, Strangers};
use crate::mdns::{self, Found, Heard, Name};
use crate::membership::TAG_LEN;
use crate::neighbours::{self, Caches};
use crate::registry::{Shared, lock};
use crate::session;
use crate::txt::{Announcement, SERVICE_TYPE};

/// Addresses taken from one announcement.
const ADDRS_MAX: usize = 12;

/// Kinds of services looked for, in this order.
const PEERS: usize = 0;
const CACHES: usize = 1;

/// Running discovery.
pub(crate) struct Discovery {
    mdns: Option<mdns::Running>,
}

impl Discovery {
    /// Starts announcing and looking, if the configuration says so. Runs on the mesh's runtime.
    pub(crate) fn start(shared: &Arc<Shared>, addrs: &[SocketAddr]) -> Self {
        if !shared.config.mdns {
            return Self { mdns: None };
        }
        // Names made of digits and constants are never refused.
        let service = service(shared, addrs);
        let kinds = [
            Some(SERVICE_TYPE),
            shared.config.neighbours.as_ref().map(|_| neighbours::CACHE_SERVICE_TYPE),
        ];
        let kinds: Vec<Name> = kinds.into_iter().flatten().filter_map(Name::from_text).collect();
        let engine = mdns::Engine::new(service, kinds, shared.roll());
        let mut watcher = Watcher {
            shared: Arc::clone(shared),
            own_tag: shared.config.secret.as_ref().map(crate::MeshSecret::tag),
            names: HashMap::new(),
            caches: shared.config.neighbours.clone().map(Caches::new),
        };
        let v6 = addrs.iter().any(SocketAddr::is_ipv6);
        let tell = Box::new(move |news| watcher.hear(news));
        Self { mdns: Some(mdns::start(engine, shared.networks.subscribe(), v6, tell)) }
    }

    /// Says goodbye.
    pub(crate) async fn stop(self) {
        if let Some(mdns) = self.mdns {
            mdns.stop().await;
        }
    }
}

/// What we announce: names and TXT from the key, addresses of the allowed interfaces as they come and go.
fn service(shared: &Shared, addrs: &[SocketAddr]) -> Option<mdns::Service> {
    let announcement = Announcement {
        key: shared.id,
        tag: shared.config.secret.as_ref().map(crate::MeshSecret::tag),
    };
    let wildcard = addrs.iter().find(|addr| addr.ip().is_unspecified());
    let port = wildcard.or_else(|| addrs.first()).map_or(0, SocketAddr::port);
    // A socket bound to one address is announced with that; one bound to all with whatever the machine has.
    let fixed = addrs
        .iter()
        .filter(|addr| wildcard.is_none() && addr.port() == port)
        .map(SocketAddr::ip)
        .collect();
    let kind = Name::from_text(SERVICE_TYPE)?;
    Some(mdns::Service {
        instance: kind.child(&Announcement::instance_name(&shared.id))?,
        host: Name::from_text(&Announcement::host_name(&shared.id))?,
        kind,
        port,
        txt: announcement.to_rdata().into_boxed_slice(),
        fixed,
        v6: addrs.iter().any(SocketAddr::is_ipv6),
    })
}

/// Follows the machine's networks for the registry: dead connections, new chances, networks that are not known. Ends with
/// the mesh.
pub(crate) async fn follow_networks(shared: Arc<Shared>) {
    let mut networks = shared.networks.subscribe();
    let mut before = networks.borrow_and_update().clone();
    while networks.changed().await.is_ok() {
        let now = networks.borrow_and_update().clone();
        let had: BTreeMap<IpAddr, ()> = before.ips().map(|ip| (ip, ())).collect();
        let has: BTreeMap<IpAddr, ()> = now.ips().map(|ip| (ip, ())).collect();
        for gone in had.keys().filter(|ip| !has.contains_key(ip)) {
            shared.network_changed(Some(*gone));
        }
        shared.close_unknown(&now);
        if now.wakes != before.wakes {
            // Others gave up on us, or will say so at the first packet.
            for link in shared.links() {
                tokio::spawn(session::probe(Arc::clone(&shared), link));
            }
        }
        shared.network_changed(None);
        before = now;
    }
}

/// Hands what is heard to the registry.
struct Watcher {
    shared: Arc<Shared>,
    own_tag: Option<[u8; TAG_LEN]>,
    /// Which key an instance name announced. No longer than what the browser remembers.
    names: HashMap<Name, PeerId>,
    caches: Option<Caches>,
}

impl Watcher {
    fn hear(&mut self, news: Heard) {
        match news {
            Heard::Found(PEERS, found) => self.found(&found),
            Heard::Lost(PEERS, name) => {
                if let Some(peer) = self.names.remove(&name) {
                    tracing::debug!(peer = %peer.short(), "announcement ended");
                    self.shared.unlearn(&peer);
                }
            }
            Heard::Found(CACHES, found) => {
                if let Some(caches) = &mut self.caches {
                    caches.found(&found);
                }
            }
            Heard::Lost(CACHES, name) => {
                if let Some(caches) = &mut self.caches {
                    caches.lost(&name);
                }
            }
            Heard::Found(..) | Heard::Lost(..) => {}
            Heard::Twin(ip) => {
                tracing::warn!(%ip, "another machine uses this machine's identity, so peers find only one of the two. hint: delete identity.key in the state directory of the copy, and restart it");
                *lock(&self.shared.twin) = Some(ip);
            }
        }
    }

    fn found(&mut self, found: &Found) {
        let announcement = match Announcement::from_rdata(&found.txt) {
            Ok(announcement) => announcement,
            Err(error) => {
                tracing::debug!(%error, "announcement ignored");
                return;
            }
        };
        if !self.wanted(&announcement) {
            return;
        }
        let addrs = usable_addrs(found, &self.shared.config.interfaces);
        if addrs.is_empty() {
            return;
        }
        tracing::debug!(peer = %announcement.key.short(), ?addrs, "announced");
        self.names.insert(found.name.clone(), announcement.key);
        let moved = self.shared.learn(announcement.key, &addrs, true);
        if let (Some(link), Some(runtime)) = (moved, self.shared.runtime.get()) {
            runtime.spawn(session::probe(Arc::clone(&self.shared), link));
        }
    }

    /// In a closed mesh only those with our tag are dialled. The tag proves nothing; the hello does.
    fn wanted(&self, announcement: &Announcement) -> bool {
        self.own_tag.is_none()
            || self.own_tag == announcement.tag
            || self.shared.config.strangers == Strangers::Public
    }
}

/// Addresses worth dialling, best first: IPv4, then global IPv6, then link-local.
fn usable_addrs(found: &Found, rules: &InterfaceRules) -> Vec<SocketAddr> {
    if found.port == 0 {
        return Vec::new();
    }
    let mut addrs: Vec<(u8, SocketAddr)> = found
        .addrs
        .iter()
        .filter(|(ip, _)| usable(*ip, rules))
        .map(|(ip, interface)| {
            let addr = match ip {
                IpAddr::V6(v6) => {
                    let scope = if v6.is_unicast_link_local() { *interface } else { 0 };
                    SocketAddrV6::new(*v6, found.port, 0, scope).into()
                }
                IpAddr::V4(_) => SocketAddr::new(*ip, found.port),
            };
            (rank(*ip), addr)
        })
        .collect();
    addrs.sort_unstable();
    addrs.dedup();
    addrs.truncate(ADDRS_MAX);
    addrs.into_iter().map(|(_, addr)| addr).collect()
}

/// Not every address an announcement can contain is one to send packets to.
fn usable(ip: IpAddr, rules: &InterfaceRules) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !ip.is_unspecified()
        && !ip.is_multicast()
        && !broadcast
        && (!ip.is_loopback() || rules.uses_loopback())
}

fn rank(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(v4) if !v4.is_loopback() => 0,
        IpAddr::V6(v6) if v6.is_unicast_link_local() => 2,
        IpAddr::V6(v6) if !v6.is_loopback() => 1,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_hosts_are_dialled() {
        let rules = InterfaceRules::default();
        for bad in
            ["0.0.0.0", "255.255.255.255", "224.0.0.251", "127.0.0.1", "::", "::1", "ff02::fb"]
        {
            assert!(!usable(bad.parse().unwrap(), &rules), "{bad}");
        }
        for good in ["192.168.1.9", "fe80::1", "fd00::2"] {
            assert!(usable(good.parse().unwrap(), &rules), "{good}");
        }
        let rules = InterfaceRules { loopback: true, ..InterfaceRules::default() };
        assert!(usable("127.0.0.1".parse().unwrap(), &rules));
    }
}
