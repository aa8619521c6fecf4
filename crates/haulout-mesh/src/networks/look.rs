//! What the kernel says about interfaces, routes and neighbours.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use super::{Gateway, INTERFACES_MAX, Interface, KnownNetwork, Mac, NetworkRules, Snapshot};

/// Where this thread's network is described. (`/proc/net` is that of the process's first thread.)
const PROC_NET: &str = "/proc/thread-self/net";
/// Of a table there no more is read: machines with whole routing tables of the internet have their default route first.
const TABLE_MAX: u64 = 1 << 20;
/// How often a gateway's hardware address is looked for, once a second, before it is given up until the next change.
const LOOKS_MAX: u32 = 20;
/// "Discard": a datagram there makes the kernel find the hardware address, and asks nothing of the gateway.
const DISCARD: u16 = 9;

/// Looks, and remembers what could not be seen yet.
pub(super) struct Eye {
    rules: NetworkRules,
    /// Looks left for what is not known yet.
    looks: u32,
    /// The gateways as last seen.
    last: HashMap<String, Gateway>,
}

impl Eye {
    pub(super) fn new(rules: NetworkRules) -> Self {
        Self { rules, looks: LOOKS_MAX, last: HashMap::new() }
    }

    /// Whether something may be known in a moment that is not yet.
    pub(super) fn wants_another_look(&self) -> bool {
        self.looks > 0
    }

    /// Looks at everything. Unless something `changed`, a gateway is taken for the one it was while the kernel has forgotten
    /// its hardware address for want of packets.
    pub(super) fn look(&mut self, changed: bool) -> Snapshot {
        let mut interfaces = interfaces(&self.rules);
        let gateways = gateways();
        let neighbours = hardware_addresses(&table("arp"));
        let wants_ssid = self.rules.known.iter().any(|rule| matches!(rule, KnownNetwork::Ssid(_)));
        let wants_mac =
            self.rules.known.iter().any(|rule| matches!(rule, KnownNetwork::Gateway(_)));
        let mut incomplete = false;
        for one in &mut interfaces {
            one.gateway = gateways.get(&one.name).map(|ip| {
                let before = self.last.get(&one.name).filter(|last| !changed && last.ip == *ip);
                let mac = neighbours.get(&(one.name.clone(), *ip)).copied();
                Gateway { ip: *ip, mac: mac.or_else(|| before.and_then(|last| last.mac)) }
            });
            if wants_ssid && !one.loopback {
                one.ssid = self.rules.ssid_of.as_ref().and_then(|ssid_of| ssid_of(&one.name));
            }
            let known = self.rules.known.iter().find(|rule| rule.matches(one));
            one.known_by = known.map(ToString::to_string);
            if let (true, None, Some(Gateway { ip: IpAddr::V4(ip), mac: None })) =
                (wants_mac, &one.known_by, &one.gateway)
            {
                incomplete = true;
                nudge(*ip);
            }
        }
        let seen =
            interfaces.iter().filter_map(|one| Some((one.name.clone(), one.gateway.clone()?)));
        self.last = seen.collect();
        if changed {
            self.looks = LOOKS_MAX;
        }
        self.looks = if incomplete { self.looks.saturating_sub(1) } else { 0 };
        Snapshot { interfaces, only_known: !self.rules.known.is_empty(), wakes: 0 }
    }
}

/// Has the kernel look up the gateway's hardware address.
fn nudge(gateway: Ipv4Addr) {
    let sent = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.send_to(&[], (gateway, DISCARD)));
    if let Err(error) = sent {
        tracing::debug!(%gateway, %error, "the gateway's hardware address cannot be looked up");
    }
}

/// What is up and has an address, in the kernel's order.
fn interfaces(rules: &NetworkRules) -> Vec<Interface> {
    let listed = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::warn!(%error, "the network interfaces cannot be listed");
        Vec::new()
    });
    let mut interfaces: Vec<Interface> = Vec::new();
    for one in listed {
        let Some(index) = one.index.filter(|_| one.is_oper_up()) else { continue };
        let addr = match &one.addr {
            if_addrs::IfAddr::V4(v4) => (IpAddr::V4(v4.ip), v4.prefixlen),
            if_addrs::IfAddr::V6(v6) => (IpAddr::V6(v6.ip), v6.prefixlen),
        };
        if let Some(known) = interfaces.iter_mut().find(|known| known.index == index) {
            known.addrs.push(addr);
            continue;
        }
        if interfaces.len() >= INTERFACES_MAX {
            continue;
        }
        let loopback = one.is_loopback();
        let tunnel = one.is_p2p() && !rules.interfaces.lists(&one.name);
        interfaces.push(Interface {
            index,
            loopback,
            addrs: vec![addr],
            gateway: None,
            ssid: None,
            discover: !tunnel && rules.interfaces.permits(&one.name, loopback),
            known_by: None,
            name: one.name,
        });
    }
    for one in &mut interfaces {
        one.addrs.sort_unstable();
        one.addrs.dedup();
    }
    interfaces.sort_unstable_by_key(|one| one.index);
    interfaces
}

fn table(name: &str) -> String {
    let mut text = String::new();
    let read = fs::File::open(format!("{PROC_NET}/{name}"))
        .and_then(|file| file.take(TABLE_MAX).read_to_string(&mut text));
    if let Err(error) = read {
        tracing::trace!(name, %error, "a table of the kernel's cannot be read");
    }
    text
}

/// The default gateway of each interface that has one; IPv4 before IPv6.
fn gateways() -> HashMap<String, IpAddr> {
    let mut gateways = gateways_v6(&table("ipv6_route"));
    gateways.extend(gateways_v4(&table("route")));
    gateways
}

/// `/proc/net/route`: name, destination, gateway, flags, ..., metric, mask; addresses as the machine's own integers.
fn gateways_v4(text: &str) -> HashMap<String, IpAddr> {
    let mut best: HashMap<String, (u32, IpAddr)> = HashMap::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [name, "00000000", gateway, _, _, _, metric, "00000000", ..] = fields[..] else {
            continue;
        };
        let (Ok(gateway), Ok(metric)) = (u32::from_str_radix(gateway, 16), metric.parse()) else {
            continue;
        };
        let gateway = Ipv4Addr::from(gateway.to_ne_bytes());
        if gateway.is_unspecified() {
            continue;
        }
        let known = best.get(name).map(|(metric, _)| *metric);
        if known.is_none_or(|known| metric < known) {
            best.insert(name.to_owned(), (metric, gateway.into()));
        }
    }
    best.into_iter().map(|(name, (_, ip))| (name, ip)).collect()
}

/// `/proc/net/ipv6_route`: destination, length, source, length, gateway, metric, uses, uses, flags, name.
fn gateways_v6(text: &str) -> HashMap<String, IpAddr> {
    let mut gateways = HashMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "00", _, _, gateway, _, _, _, _, name] = fields[..] else { continue };
        let Ok(gateway) = u128::from_str_radix(gateway, 16) else { continue };
        let gateway = Ipv6Addr::from_bits(gateway);
        if !gateway.is_unspecified() {
            gateways.entry(name.to_owned()).or_insert(IpAddr::V6(gateway));
        }
    }
    gateways
}

/// `/proc/net/arp`: address, kind, flags, hardware address, mask, name.
fn hardware_addresses(text: &str) -> HashMap<(String, IpAddr), Mac> {
    let mut known = HashMap::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [ip, _, flags, mac, _, name] = fields[..] else { continue };
        let (Ok(ip), Ok(mac)) = (ip.parse::<Ipv4Addr>(), mac.parse::<Mac>()) else { continue };
        let flags = flags.strip_prefix("0x").and_then(|hex| u32::from_str_radix(hex, 16).ok());
        // Bit 1: the kernel has an answer.
        if flags.is_some_and(|flags| flags & 2 != 0) {
            known.insert((name.to_owned(), IpAddr::V4(ip)), mac);
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let route = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t0200000A\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
                     eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                     eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                     ppp0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n";
        if cfg!(target_endian = "little") {
            let gateways = gateways_v4(route);
            assert_eq!(gateways.len(), 1);
            assert_eq!(gateways["eth0"], IpAddr::from([10, 0, 0, 1]));
        }
        let zero = "0".repeat(32);
        let route6 = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n"
        );
        let gateways = gateways_v6(&route6);
        assert_eq!(gateways.len(), 1);
        assert_eq!(gateways["eth0"], "fe80::1".parse::<IpAddr>().unwrap());
        let arp = "IP address       HW type     Flags       HW address            Mask     Device\n\
                   10.0.0.1         0x1         0x2         52:54:00:12:34:56     *        eth0\n\
                   10.0.0.2         0x1         0x0         00:00:00:00:00:00     *        eth0\n";
        let known = hardware_addresses(arp);
        assert_eq!(known.len(), 1);
        let mac = known[&("eth0".to_owned(), IpAddr::from([10, 0, 0, 1]))];
        assert_eq!(mac.to_string(), "52:54:00:12:34:56");
    }

    #[test]
    fn rubbish_in_a_table_is_nothing() {
        for text in ["", "\n\n\n", "a b c d e f g h i j\n", "Iface\nx 00000000 zz 1 1 1 1 00000000"]
        {
            assert!(
                gateways_v4(text).is_empty()
                    && gateways_v6(text).is_empty()
                    && hardware_addresses(text).is_empty()
            );
        }
    }

    #[test]
    fn this_machine_has_a_loopback_interface() {
        let seen = Eye::new(NetworkRules::default()).look(true);
        assert!(seen.interfaces.iter().any(|one| one.loopback && !one.discover), "{seen:?}");
    }
}
