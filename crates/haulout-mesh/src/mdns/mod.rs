//! Multicast DNS and DNS-SD (RFC 6762, RFC 6763), as much of them as agents need: one service announced, a few kinds looked for.
//!
//! Of our own, because of how the sockets are bound. Whoever binds the wildcard address on port 5353 takes away every unicast
//! answer that was meant for Avahi or systemd-resolved on the same machine (Linux gives a unicast datagram to one socket
//! only). Ours are bound to the *group's* address: they hear what everybody hears and nothing else, and need nothing else,
//! because every question of ours is asked from port 5353 and answered to the group.
//!
//! * `message`: packets as checked types, with limits (the encoding itself is `simple-dns`);
//! * `responder`, `browser`: what is said and what is heard, without sockets or a clock; `engine` joins the two;
//! * `sockets`: one pair for each interface, and the task that runs the engine.
//!
//! Names are not probed for and never changed: they hold 64 bits of the agent's key, so nobody has them by accident, and who
//! has them on purpose must not be able to rename us. The machine's own `.local` name is never touched.

mod browser;
mod engine;
pub mod message;
mod responder;
mod sockets;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Duration;

pub(crate) use browser::{Found, Heard};
pub(crate) use engine::Engine;
pub(crate) use message::Name;
pub(crate) use responder::Service;
pub(crate) use sockets::{Running, start};

/// Port of multicast DNS.
pub(crate) const PORT: u16 = 5353;

/// Since the engine was made. All state here is kept in it, so that tests can make time pass.
pub(crate) type Time = Duration;

/// One interface in one address family: what hears and is heard on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LinkId {
    /// The kernel's number of the interface.
    pub(crate) index: u32,
    /// IPv6, not IPv4.
    pub(crate) v6: bool,
}

/// An interface as the engine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkState {
    pub(crate) id: LinkId,
    /// The interface's addresses of both families, with the lengths of their prefixes in bits.
    pub(crate) addrs: Vec<(IpAddr, u8)>,
}

impl LinkState {
    /// Whether an address is one of this link's networks: whoever is not must not be answered (RFC 6762 §11).
    pub(crate) fn is_near(&self, ip: IpAddr) -> bool {
        self.addrs.iter().any(|(own, prefix)| same_network(*own, ip, *prefix))
            || matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
    }
}

/// Whether two addresses agree in their first `prefix` bits.
pub(crate) fn same_network(a: IpAddr, b: IpAddr, prefix: u8) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            a.to_bits() & mask == b.to_bits() & mask
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            a.to_bits() & mask == b.to_bits() & mask
        }
        _ => false,
    }
}

/// A packet to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transmit {
    pub(crate) link: LinkId,
    /// To one asker; `None`: to the group.
    pub(crate) to: Option<std::net::SocketAddr>,
    pub(crate) bytes: Vec<u8>,
}

/// Numbers that need not be secret: delays that spread who speaks first.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A time between `low` and `high`, in milliseconds.
    pub(crate) fn millis(&mut self, low: u64, high: u64) -> Duration {
        // splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Duration::from_millis(low + (z ^ (z >> 31)) % (high - low + 1))
    }
}

/// Has an agent hear packets, for the fuzzer: each has a byte for its length (times four) and one for the pause before it, in
/// seconds.
///
/// # Panics
/// When the agent would talk without end.
#[doc(hidden)]
pub fn hear(mut input: &[u8]) {
    let id = LinkId { index: 1, v6: false };
    let near = IpAddr::from([10, 0, 0, 1]);
    let name = |text| Name::from_text(text);
    let kinds: Vec<Name> = ["_haulout._udp.local", "_nix_binary_cache._tcp.local"]
        .into_iter()
        .filter_map(name)
        .collect();
    let service = || {
        let kind = name("_haulout._udp.local")?;
        let (instance, host) = (kind.child("haulout-1")?, name("haulout-1.local")?);
        Some(Service {
            kind,
            instance,
            host,
            port: 5299,
            txt: Box::default(),
            fixed: Vec::new(),
            v6: true,
        })
    };
    let mut engine = Engine::new(service(), kinds, 1);
    let mut now = Time::ZERO;
    engine.set_links(now, vec![LinkState { id, addrs: vec![(near, 24)] }]);
    let mut said = 0;
    let mut heard = 0;
    while let Some((&[length, pause], rest)) = input.split_first_chunk::<2>() {
        let (packet, rest) = rest.split_at(rest.len().min(usize::from(length) * 4));
        input = rest;
        heard += 1;
        now += Duration::from_secs(u64::from(pause));
        let from = std::net::SocketAddr::new(IpAddr::from([10, 0, 0, pause]), PORT);
        engine.receive(now, id, from, packet);
        engine.poll(now);
        said += engine.take_packets().len();
        drop(engine.take_news());
    }
    engine.goodbye();
    assert!(said <= 64 + heard * 64, "{said} packets said after {heard} heard");
}
