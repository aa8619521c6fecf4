//! Finding peers by DNS-SD over multicast DNS.
//!
//! `mdns-sd` answers and asks on a thread of its own; another one hands what it finds to the registry. An announcement is
//! a hint from anybody: it leads to a dial that pins the announced key, and to nothing else.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use haulout_swarm::PeerId;
use mdns_sd::{
    DaemonEvent, IfKind, IfPredicate, Receiver, ResolvedService, ScopedIp, ServiceDaemon,
    ServiceEvent, ServiceInfo,
};

use crate::config::{InterfaceRules, Strangers};
use crate::membership::TAG_LEN;
use crate::neighbours;
use crate::registry::Shared;
use crate::session;
use crate::txt::{Announcement, SERVICE_TYPE};

/// How often the machine's addresses are looked at, in seconds: after a change of network the agent is found again
/// about that soon.
const ADDRESS_CHECK_SECONDS: u32 = 2;
/// How long the goodbye may take.
const GOODBYE: Duration = Duration::from_millis(200);
/// Addresses taken from one announcement.
const ADDRS_MAX: usize = 12;
/// Announcements remembered at once: more names than this are ignored, so that a flood of invented ones costs nothing.
const NAMES_MAX: usize = 4_096;

/// Running discovery. Dropping it says goodbye.
pub(crate) struct Discovery {
    daemon: Option<(ServiceDaemon, String)>,
}

impl Discovery {
    /// Starts announcing and looking, if the configuration says so. Failures are logged: static peers still work.
    pub(crate) fn start(shared: &Arc<Shared>, addrs: &[SocketAddr]) -> Self {
        if !shared.config.mdns {
            return Self { daemon: None };
        }
        match begin(shared, addrs) {
            Ok(daemon) => Self { daemon: Some(daemon) },
            Err(error) => {
                tracing::warn!(%error, "no discovery by mDNS; peers in the configuration still work");
                Self { daemon: None }
            }
        }
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        let Some((daemon, name)) = self.daemon.take() else { return };
        if let Ok(status) = daemon.unregister(&name) {
            let _ = status.recv_timeout(GOODBYE);
        }
        if let Ok(status) = daemon.shutdown() {
            let _ = status.recv_timeout(GOODBYE);
        }
    }
}

fn begin(
    shared: &Arc<Shared>,
    addrs: &[SocketAddr],
) -> Result<(ServiceDaemon, String), mdns_sd::Error> {
    let daemon = ServiceDaemon::new()?;
    let rules = shared.config.interfaces.clone();
    let forbidden = IfPredicate::new(move |interface| {
        let tunnel = interface.is_p2p() && !rules.lists(&interface.name);
        tunnel || !rules.permits(&interface.name, interface.is_loopback())
    });
    daemon.disable_interface(IfKind::Predicate(forbidden))?;
    if !addrs.iter().any(SocketAddr::is_ipv6) {
        daemon.disable_interface(IfKind::IPv6)?;
    }
    daemon.set_ip_check_interval(ADDRESS_CHECK_SECONDS)?;
    let service = service(shared, addrs)?;
    let name = service.get_fullname().to_owned();
    let changes = daemon.monitor()?;
    daemon.register(service)?;
    let events = daemon.browse(SERVICE_TYPE)?;
    let watcher = Watcher {
        shared: Arc::clone(shared),
        own_name: name.clone(),
        own_tag: shared.config.secret.as_ref().map(crate::MeshSecret::tag),
        names: HashMap::new(),
    };
    std::thread::Builder::new()
        .name("haulout-mdns".to_owned())
        .spawn(move || watcher.run(&events))
        .map_err(|error| mdns_sd::Error::Msg(error.to_string()))?;
    if let Some(tell) = shared.config.neighbours.clone() {
        let caches = daemon.browse(neighbours::CACHE_SERVICE_TYPE)?;
        std::thread::Builder::new()
            .name("haulout-caches".to_owned())
            .spawn(move || neighbours::watch(&caches, &tell))
            .map_err(|error| mdns_sd::Error::Msg(error.to_string()))?;
    }
    let shared = Arc::clone(shared);
    std::thread::Builder::new()
        .name("haulout-net".to_owned())
        .spawn(move || watch_addresses(&shared, &changes))
        .map_err(|error| mdns_sd::Error::Msg(error.to_string()))?;
    Ok((daemon, name))
}

/// What we announce: names and TXT from the key, addresses of the allowed interfaces as they come and go.
fn service(shared: &Shared, addrs: &[SocketAddr]) -> Result<ServiceInfo, mdns_sd::Error> {
    let announcement = Announcement {
        key: shared.id,
        tag: shared.config.secret.as_ref().map(crate::MeshSecret::tag),
    };
    let wildcard = addrs.iter().find(|addr| addr.ip().is_unspecified());
    let port = wildcard.or_else(|| addrs.first()).map_or(0, SocketAddr::port);
    // A socket bound to one address is announced with that; one bound to all with whatever the machine has.
    let fixed: Vec<IpAddr> = addrs
        .iter()
        .filter(|addr| wildcard.is_none() && addr.port() == port)
        .map(SocketAddr::ip)
        .collect();
    let mut service = ServiceInfo::new(
        SERVICE_TYPE,
        &Announcement::instance_name(&shared.id),
        &Announcement::host_name(&shared.id),
        &fixed[..],
        port,
        &announcement.pairs()[..],
    )?;
    if wildcard.is_some() {
        service = service.enable_addr_auto();
    }
    // The names hold 64 bits of our key: nobody has them by accident, and who has them on purpose must not be able to
    // rename us. So there is nothing to probe for, and we are heard three quarters of a second sooner.
    service.set_requires_probe(false);
    Ok(service)
}

/// Tells the registry when the machine's addresses change; `mdns-sd` itself announces and asks anew then. Ends when the
/// daemon does.
fn watch_addresses(shared: &Shared, changes: &Receiver<DaemonEvent>) {
    while let Ok(event) = changes.recv() {
        match event {
            DaemonEvent::IpAdd(ip) => {
                tracing::debug!(%ip, "address appeared");
                shared.network_changed(None);
            }
            DaemonEvent::IpDel(ip) => {
                tracing::debug!(%ip, "address gone");
                shared.network_changed(Some(ip));
            }
            _ => {}
        }
    }
}

/// Hands events to the registry.
struct Watcher {
    shared: Arc<Shared>,
    own_name: String,
    own_tag: Option<[u8; TAG_LEN]>,
    /// Which key an instance name announced.
    names: HashMap<String, PeerId>,
}

impl Watcher {
    /// Ends when the daemon does.
    fn run(mut self, events: &Receiver<ServiceEvent>) {
        while let Ok(event) = events.recv() {
            match event {
                ServiceEvent::ServiceResolved(service) => self.resolved(&service),
                ServiceEvent::ServiceRemoved(_, name) => {
                    if let Some(peer) = self.names.remove(&name) {
                        tracing::debug!(peer = %peer.short(), "announcement ended");
                        self.shared.unlearn(&peer);
                    }
                }
                _ => {}
            }
        }
    }

    fn resolved(&mut self, service: &ResolvedService) {
        if service.fullname == self.own_name {
            return;
        }
        let pairs = service.txt_properties.iter().map(|property| (property.key(), property.val()));
        let announcement = match Announcement::from_pairs(pairs) {
            Ok(announcement) => announcement,
            Err(error) => {
                tracing::debug!(%error, "announcement ignored");
                return;
            }
        };
        if !self.wanted(&announcement)
            || (self.names.len() >= NAMES_MAX && !self.names.contains_key(&service.fullname))
        {
            return;
        }
        let addrs = usable_addrs(service, &self.shared.config.interfaces);
        if addrs.is_empty() {
            return;
        }
        tracing::debug!(peer = %announcement.key.short(), ?addrs, "announced");
        self.names.insert(service.fullname.clone(), announcement.key);
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
fn usable_addrs(service: &ResolvedService, rules: &InterfaceRules) -> Vec<SocketAddr> {
    if service.port == 0 {
        return Vec::new();
    }
    let mut addrs: Vec<(u8, SocketAddr)> = service
        .addresses
        .iter()
        .filter_map(|ip| {
            let addr = match ip {
                ScopedIp::V6(v6) => {
                    let scope = if link_local(v6.addr()) { v6.scope_id().index } else { 0 };
                    SocketAddrV6::new(*v6.addr(), service.port, 0, scope).into()
                }
                other => SocketAddr::new(other.to_ip_addr(), service.port),
            };
            usable(addr.ip(), rules).then_some((rank(addr.ip()), addr))
        })
        .collect();
    addrs.sort_unstable();
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

fn link_local(ip: &Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}

fn rank(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(v4) if !v4.is_loopback() => 0,
        IpAddr::V6(v6) if link_local(&v6) => 2,
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
