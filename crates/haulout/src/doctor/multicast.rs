//! Multicast DNS: whether it leaves and enters this machine, and who else uses its port.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::Finding;

/// The group and port of multicast DNS (RFC 6762).
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const PORT: u16 = 5353;
/// How long answers are waited for: responders wait up to 120 ms themselves.
const WAIT: Duration = Duration::from_millis(1500);
/// Processes looked at, to find those that hold the port.
const PROCESSES_MAX: usize = 100_000;

/// Everything about multicast.
pub(super) fn examine() -> Vec<Finding> {
    let mut findings = vec![listen()];
    findings.extend(neighbours());
    findings
}

/// Asks for agents as an agent would and listens whether anything is heard.
fn listen() -> Finding {
    let blocked = "the firewall must let UDP port 5353 in; in a container, multicast needs the host's network";
    match ask_for_agents() {
        Ok(0) => Finding::bad(
            "multicast",
            "no multicast DNS is heard, not even from this machine",
            blocked,
        ),
        Ok(1) => Finding::warning(
            "multicast",
            "multicast DNS is heard from this machine only",
            "fine when it is alone; otherwise look at the firewalls and at the access point's client isolation",
        ),
        Ok(machines) => Finding::good(
            "multicast",
            format!("multicast DNS is heard from {} other machines", machines - 1),
        ),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Finding::bad(
            "multicast",
            "another program keeps UDP port 5353 for itself",
            "let it share the port: avahi needs disallow-other-stacks=no",
        ),
        Err(error) => {
            Finding::bad("multicast", format!("multicast DNS cannot be used: {error}"), blocked)
        }
    }
}

/// How many addresses something was heard from, this machine included.
fn ask_for_agents() -> std::io::Result<usize> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    // Bound to the group, so that answers meant for others on this port stay theirs.
    socket.bind(&SocketAddr::from((GROUP, PORT)).into())?;
    socket.join_multicast_v4(&GROUP, &Ipv4Addr::UNSPECIFIED)?;
    socket.set_multicast_loop_v4(true)?;
    let socket = UdpSocket::from(socket);
    socket.send_to(&query(), (GROUP, PORT))?;
    let mut heard = BTreeSet::new();
    let deadline = Instant::now() + WAIT;
    let mut buffer = [0; 9000];
    while let Some(left) =
        deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    {
        socket.set_read_timeout(Some(left))?;
        match socket.recv_from(&mut buffer) {
            Ok((_, from)) => drop(heard.insert(from.ip())),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(heard.len())
}

/// "Who is `_haulout._udp.local`?" as a DNS message (RFC 1035).
fn query() -> Vec<u8> {
    let mut message = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["_haulout", "_udp", "local"] {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    // End of name; type PTR; class IN.
    message.extend_from_slice(&[0, 0, 12, 0, 1]);
    message
}

/// Other programs with a socket on the port.
fn neighbours() -> Vec<Finding> {
    let mut findings = Vec::new();
    let programs: BTreeSet<String> = processes()
        .into_iter()
        .filter(|name| ["avahi-daemon", "systemd-resolve"].contains(&name.as_str()))
        .collect();
    if programs.contains("avahi-daemon") {
        let conf = fs::read_to_string("/etc/avahi/avahi-daemon.conf").unwrap_or_default();
        findings.push(if keeps_port_to_itself(&conf) {
            Finding::bad(
                "avahi",
                "avahi is told not to share the port of multicast DNS",
                "set disallow-other-stacks=no in /etc/avahi/avahi-daemon.conf and restart it",
            )
        } else {
            Finding::good("avahi", "avahi runs too and shares the port")
        });
    }
    if programs.contains("systemd-resolve") {
        findings.push(Finding::good(
            "resolved",
            "systemd-resolved runs too and shares the port, if it uses it",
        ));
    }
    findings
}

/// The names of the running processes, as the kernel cuts them (15 characters).
fn processes() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .take(PROCESSES_MAX)
        .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()))
        .filter_map(|entry| fs::read_to_string(entry.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect()
}

/// Whether avahi's configuration forbids other programs on its port.
fn keeps_port_to_itself(conf: &str) -> bool {
    conf.lines().any(|line| {
        let line = line.split('#').next().unwrap_or_default();
        line.split_once('=').is_some_and(|(key, value)| {
            key.trim() == "disallow-other-stacks" && value.trim() == "yes"
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn avahis_choice_is_read() {
        assert!(keeps_port_to_itself("[server]\ndisallow-other-stacks = yes\n"));
        assert!(!keeps_port_to_itself("#disallow-other-stacks=yes\ndisallow-other-stacks=no"));
        assert!(!keeps_port_to_itself(""));
    }

    #[test]
    fn the_question_is_a_dns_message() {
        let query = query();
        assert_eq!(&query[12..21], b"\x08_haulout");
        assert_eq!(&query[query.len() - 5..], [0, 0, 12, 0, 1]);
    }
}
