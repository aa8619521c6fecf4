//! Settings of the mesh, every one with its default and its reason.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use haulout_swarm::PeerId;
use haulout_swarm::peers::PEERS_MAX;
use haulout_swarm::portions::FULL_PEERS;

use crate::frames::MINOR_VERSION;
use crate::identity::Identity;
use crate::membership::MeshSecret;
use crate::neighbours::OnNeighbour;
use crate::networks::Networks;

/// UDP port of the mesh unless configured otherwise (firewalls need a fixed one).
pub const PORT_DEFAULT: u16 = 5299;

/// What a machine with a mesh secret does with peers that do not know it.
///
/// Without a secret everybody is a stranger and this setting has no effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strangers {
    /// They are not dialled and get "no" for everything. The default: whoever sets a secret wants a closed mesh.
    #[default]
    Ignore,
    /// They get, and are asked for, what any open site shares: [`crate::Membership::Stranger`] answers of `Serve`.
    Public,
}

/// A peer named in the configuration, for networks without multicast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticPeer {
    /// Where its UDP socket is.
    pub addr: SocketAddr,
    /// Its key. Without one, whoever answers at the address is taken for the peer (contents are verified anyway).
    pub key: Option<PeerId>,
}

/// Which network interfaces discovery may use. Patterns are names with an optional final `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceRules {
    /// If not empty: only these, and they override `deny`.
    pub allow: Vec<String>,
    /// Never these.
    pub deny: Vec<String>,
    /// Also on loopback: for several agents on one machine (the demo, tests).
    pub loopback: bool,
}

impl Default for InterfaceRules {
    fn default() -> Self {
        let deny = [
            "docker*",
            "veth*",
            "virbr*",
            "br-*",
            "tun*",
            "tap*",
            "wg*",
            "tailscale*",
            "zt*",
            "ppp*",
            "podman*",
            "cni*",
            "lxc*",
            "lxd*",
            "vmnet*",
            "vboxnet*",
        ];
        Self {
            allow: Vec::new(),
            deny: deny.iter().map(|pattern| (*pattern).to_owned()).collect(),
            loopback: false,
        }
    }
}

/// Whether `name` matches `pattern` (an exact name, or a prefix followed by `*`).
fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |prefix| name.starts_with(prefix))
}

impl InterfaceRules {
    /// Whether the allow list names this interface.
    pub(crate) fn lists(&self, name: &str) -> bool {
        self.allow.iter().any(|pattern| matches(pattern, name))
    }

    /// Whether loopback addresses are to be dialled.
    pub(crate) fn uses_loopback(&self) -> bool {
        self.loopback || self.lists("lo")
    }

    /// Whether discovery may use the interface `name`.
    #[must_use]
    pub fn permits(&self, name: &str, is_loopback: bool) -> bool {
        let listed = self.lists(name);
        if is_loopback {
            return self.loopback || listed;
        }
        if !self.allow.is_empty() {
            return listed;
        }
        !self.deny.iter().any(|pattern| matches(pattern, name))
    }
}

/// Maxima of everything a peer can make this machine spend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Peers known at once (bounds every table keyed by peer). More than [`PEERS_MAX`] has no effect.
    pub peers: usize,
    /// Connections at once, both directions; one quinn connection costs about 40 KiB idle. More than `peers` has no effect.
    pub connections: usize,
    /// Connections at once from one IP address (several agents may share a machine).
    pub connections_per_address: usize,
    /// Handshakes in progress at once; beyond half of it, clients must prove their address first.
    pub handshakes: usize,
    /// Requests per second one peer may make for long.
    pub requests_per_second: u32,
    /// Requests one peer may make in a burst: a closure of a thousand paths asks about three times each.
    pub request_burst: u32,
    /// Entries of holdings (in snapshots and deltas together) that one peer may announce per second for long. What comes
    /// faster waits, and the peer's flow control with it: a store in upheaval is no offence. At a microsecond each, a
    /// peer that never stops costs a twentieth of a core.
    pub holdings_per_second: u32,
    /// Entries that one peer may announce at once: twice the largest snapshot.
    pub holdings_burst: u32,
    /// Up to so many peers, each is told everything that is held here; with more, so many are, and the others a portion.
    /// Anything but the default is for tests.
    pub full_peers: usize,
    /// How long after a portion it is looked whether this machine and its sender see the same network, and every so often
    /// after that.
    pub portion_look: Duration,
    /// NAR frames (256 KiB each) being read or waiting to be sent for one peer.
    pub frames_per_peer: usize,
    /// The same for all peers together: 256 × 256 KiB = 64 MiB.
    pub frames: usize,
    /// Bytes of compressed frames kept for the next asker.
    pub compressed_cache_bytes: usize,
    /// How long a compressed frame is kept after its last use.
    pub compressed_cache_ttl: Duration,
    /// Blocking threads for `Serve`, file reads and compression.
    pub blocking_threads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            peers: PEERS_MAX,
            connections: PEERS_MAX,
            connections_per_address: 32,
            handshakes: 64,
            requests_per_second: 2_000,
            request_burst: 6_000,
            holdings_per_second: 50_000,
            holdings_burst: 2_000_000,
            full_peers: FULL_PEERS,
            portion_look: Duration::from_secs(10),
            frames_per_peer: 32,
            frames: 256,
            compressed_cache_bytes: 64 << 20,
            compressed_cache_ttl: Duration::from_secs(30),
            blocking_threads: 8,
        }
    }
}

/// Everything [`crate::Mesh::start`] needs to know.
#[derive(Clone, Debug)]
pub struct MeshConfig {
    /// This machine's key.
    pub identity: Identity,
    /// UDP addresses to listen on. One `[::]` socket serves IPv4 too. Default: `[::]:0`.
    pub listen: Vec<SocketAddr>,
    /// Announce and look for others by multicast DNS.
    pub mdns: bool,
    /// On which interfaces.
    pub interfaces: InterfaceRules,
    /// Which networks there are and may be used; `None`: all of `interfaces`, watched by the mesh itself.
    pub networks: Option<Networks>,
    /// Peers to dial without discovery.
    pub static_peers: Vec<StaticPeer>,
    /// The mesh secret, if this is a closed mesh.
    pub secret: Option<MeshSecret>,
    /// What peers get that do not know the secret.
    pub strangers: Strangers,
    /// How long one dial may take. A LAN answers in under a millisecond; a dead address must not hold anybody up.
    pub dial_timeout: Duration,
    /// A NAR stream without a byte for this long is given up.
    pub stall_timeout: Duration,
    /// Highest minor version of the protocol that is spoken; anything but the default is for tests of how versions work
    /// together.
    pub minor: u16,
    /// Limits on peers.
    pub limits: Limits,
    /// Whom to tell of caches that others announce on the network; `None`: they are not looked for.
    pub neighbours: Option<OnNeighbour>,
    /// Bytes per second given to all peers together; `None`: no limit.
    pub upload: Option<u64>,
    /// Bytes per second given to one peer.
    pub upload_per_peer: Option<u64>,
}

impl MeshConfig {
    /// The defaults for a given key: any port, mDNS on, open, no static peers.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            listen: vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))],
            mdns: true,
            interfaces: InterfaceRules::default(),
            networks: None,
            static_peers: Vec::new(),
            secret: None,
            strangers: Strangers::default(),
            dial_timeout: Duration::from_millis(500),
            stall_timeout: Duration::from_secs(1),
            minor: MINOR_VERSION,
            limits: Limits::default(),
            neighbours: None,
            upload: None,
            upload_per_peer: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_interfaces_are_off_unless_allowed() {
        let rules = InterfaceRules::default();
        for name in ["docker0", "veth12ab", "virbr0", "br-9f", "tun0", "wg0", "tailscale0"] {
            assert!(!rules.permits(name, false), "{name}");
        }
        for name in ["eth0", "enp3s0", "wlan0", "br0"] {
            assert!(rules.permits(name, false), "{name}");
        }
        assert!(!rules.permits("lo", true));
        let rules = InterfaceRules { allow: vec!["veth*".into()], ..InterfaceRules::default() };
        assert!(rules.permits("veth1", false));
        assert!(!rules.permits("eth0", false));
        let rules = InterfaceRules { loopback: true, ..InterfaceRules::default() };
        assert!(rules.permits("lo", true));
    }
}
