//! The networks this machine is in: its interfaces, and which of them the agent may use.
//!
//! A thread listens to the kernel (netlink) and looks again when something changes: addresses, links, routes. It notices that
//! the machine slept, too. Everybody else follows [`Networks::subscribe`].
//!
//! With a list of *known networks* an agent is silent in all others: it neither announces itself nor looks for anybody, dials
//! nobody and answers nobody. Its own machine's Nix is served as always.

mod known;
mod look;
mod watch;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

pub use known::{KnownNetwork, KnownNetworkError, Mac};
use tokio::sync::watch as channel;

use crate::config::InterfaceRules;
use crate::mdns::same_network;

/// Interfaces looked at; a machine with more has most of them for its containers.
const INTERFACES_MAX: usize = 256;

/// Says which wireless network an interface is in (its name given), if any. Called on the thread that watches: it may take a
/// few seconds.
pub type SsidOf = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What decides which networks are used.
#[derive(Clone, Default)]
pub struct NetworkRules {
    /// Interfaces that discovery may use.
    pub interfaces: InterfaceRules,
    /// Networks in which the agent takes part; empty: all.
    pub known: Vec<KnownNetwork>,
    /// How to learn names of wireless networks; asked only if a rule needs one.
    pub ssid_of: Option<SsidOf>,
}

impl fmt::Debug for NetworkRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkRules")
            .field("interfaces", &self.interfaces)
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

/// Where a network's way out is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its address.
    pub ip: IpAddr,
    /// Its hardware address, if the kernel knows it (IPv4 only).
    pub mac: Option<Mac>,
}

/// An interface that is up and has addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name, such as `eth0`.
    pub name: String,
    /// The kernel's number of it.
    pub index: u32,
    /// It reaches this machine alone.
    pub loopback: bool,
    /// With the lengths of their prefixes, in bits.
    pub addrs: Vec<(IpAddr, u8)>,
    /// The default gateway on it.
    pub gateway: Option<Gateway>,
    /// The wireless network it is in; only if a rule asks for one.
    pub ssid: Option<String>,
    /// Discovery may use it ([`InterfaceRules`]).
    pub discover: bool,
    /// The rule by which its network is known.
    pub known_by: Option<String>,
}

/// The networks at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What is up.
    pub interfaces: Vec<Interface>,
    /// Whether there is a list of known networks.
    pub only_known: bool,
    /// How often the machine was found to have slept.
    pub wakes: u64,
}

impl Snapshot {
    /// Whether the agent takes part in the network of an interface.
    #[must_use]
    pub fn uses(&self, interface: &Interface) -> bool {
        !self.only_known || interface.loopback || interface.known_by.is_some()
    }

    /// Whether the agent is silent everywhere.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.only_known && !self.interfaces.iter().any(|one| one.known_by.is_some())
    }

    /// Whether somebody may be talked to at this address of ours. Unknown addresses are those of networks just left.
    #[must_use]
    pub fn allows_local(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let has = |one: &&Interface| one.addrs.iter().any(|(own, _)| *own == ip);
        !self.only_known
            || ip.is_loopback()
            || self.interfaces.iter().find(has).is_some_and(|one| self.uses(one))
    }

    /// Whether a peer at this address may be dialled: its network is known, or, if it is far away, any is.
    #[must_use]
    pub fn allows_remote(&self, addr: SocketAddr) -> bool {
        let ip = addr.ip().to_canonical();
        if !self.only_known || ip.is_loopback() {
            return true;
        }
        let scope = match addr {
            SocketAddr::V6(v6) => v6.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        let near = |one: &&Interface| {
            (scope == 0 || scope == one.index)
                && one.addrs.iter().any(|(own, prefix)| same_network(*own, ip, *prefix))
        };
        self.interfaces.iter().find(near).map_or_else(|| !self.is_silent(), |one| self.uses(one))
    }

    /// Every address of this machine in use.
    pub(crate) fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.interfaces.iter().flat_map(|one| &one.addrs).map(|(ip, _)| *ip)
    }
}

struct Inner {
    state: channel::Sender<Arc<Snapshot>>,
}

/// A handle to the watching thread, which ends with the last of them. Started in the network namespace of its caller.
#[derive(Clone)]
pub struct Networks {
    inner: Arc<Inner>,
}

impl fmt::Debug for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Networks").field("now", &self.now()).finish()
    }
}

impl Networks {
    /// Looks once, and goes on watching.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(rules: NetworkRules) -> std::io::Result<Self> {
        let mut eye = look::Eye::new(rules);
        let state = channel::Sender::new(Arc::new(eye.look(true)));
        let inner = Arc::new(Inner { state });
        let weak = Arc::downgrade(&inner);
        std::thread::Builder::new()
            .name("haulout-net".to_owned())
            .spawn(move || keep_looking(&weak, eye))?;
        Ok(Self { inner })
    }

    /// As they are.
    #[must_use]
    pub fn now(&self) -> Arc<Snapshot> {
        self.inner.state.borrow().clone()
    }

    /// As they are and as they change.
    #[must_use]
    pub fn subscribe(&self) -> channel::Receiver<Arc<Snapshot>> {
        self.inner.state.subscribe()
    }
}

/// The thread.
fn keep_looking(inner: &Weak<Inner>, mut eye: look::Eye) {
    let mut watcher = watch::Watcher::new();
    loop {
        let why = watcher.wait(eye.wants_another_look());
        let Some(inner) = inner.upgrade() else { return };
        if why == watch::Why::Nothing {
            continue;
        }
        let mut seen = eye.look(why != watch::Why::Again);
        let before = inner.state.borrow().clone();
        seen.wakes = before.wakes + u64::from(why == watch::Why::Slept);
        if seen != *before {
            describe(&before, &seen);
            inner.state.send_replace(Arc::new(seen));
        }
    }
}

fn describe(before: &Snapshot, now: &Snapshot) {
    if now.wakes != before.wakes {
        tracing::info!("this machine slept; peers are looked for anew");
    }
    let old: Vec<IpAddr> = before.ips().collect();
    let new: Vec<IpAddr> = now.ips().collect();
    for ip in new.iter().filter(|ip| !old.contains(ip)) {
        tracing::debug!(%ip, "address appeared");
    }
    for ip in old.iter().filter(|ip| !new.contains(ip)) {
        tracing::debug!(%ip, "address gone");
    }
    match (before.is_silent(), now.is_silent()) {
        (false, true) => {
            tracing::info!("no known network here: silent, only this machine is served")
        }
        (true, false) => tracing::info!("a known network: taking part"),
        _ => {}
    }
}

/// Time that passes while the machine sleeps, too.
pub(crate) fn boot_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, addr: &str, known: bool) -> Interface {
        Interface {
            name: name.to_owned(),
            index: 2 + u32::from(known),
            loopback: false,
            addrs: vec![(addr.parse().unwrap(), 24)],
            gateway: None,
            ssid: None,
            discover: true,
            known_by: known.then(|| "a rule".to_owned()),
        }
    }

    #[test]
    fn without_rules_everything_is_allowed() {
        let snapshot =
            Snapshot { interfaces: vec![interface("a", "10.0.0.1", false)], ..Snapshot::default() };
        assert!(!snapshot.is_silent() && snapshot.allows_local("10.9.9.9".parse().unwrap()));
        assert!(snapshot.allows_remote("1.2.3.4:1".parse().unwrap()));
    }

    #[test]
    fn in_a_cafe_nobody_is_talked_to() {
        let cafe = interface("wlan0", "10.0.0.1", false);
        let snapshot = Snapshot { interfaces: vec![cafe.clone()], only_known: true, wakes: 0 };
        assert!(snapshot.is_silent());
        assert!(!snapshot.allows_local("10.0.0.1".parse().unwrap()));
        assert!(snapshot.allows_local("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!snapshot.allows_remote("10.0.0.7:1".parse().unwrap()));
        assert!(!snapshot.allows_remote("1.2.3.4:1".parse().unwrap()));
        assert!(snapshot.allows_remote("127.0.0.1:1".parse().unwrap()));
        // At the same time at a cable of the office.
        let office = interface("eth0", "10.1.0.1", true);
        let snapshot = Snapshot { interfaces: vec![cafe, office], ..snapshot };
        assert!(!snapshot.is_silent());
        assert!(snapshot.allows_local("10.1.0.1".parse().unwrap()));
        assert!(!snapshot.allows_local("10.0.0.1".parse().unwrap()));
        assert!(
            !snapshot.allows_local("10.2.0.1".parse().unwrap()),
            "an address that is no longer ours"
        );
        assert!(snapshot.allows_remote("10.1.0.7:1".parse().unwrap()));
        assert!(!snapshot.allows_remote("10.0.0.7:1".parse().unwrap()));
        assert!(snapshot.allows_remote("1.2.3.4:1".parse().unwrap()));
    }
}
