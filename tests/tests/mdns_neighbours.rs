//! Agents beside the multicast DNS programs that machines have anyway: nobody is in the other's way.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use haulout_mesh::mdns::message::{Kind, Message, Name, Question};
use socket2::{Domain, Protocol, Socket, Type};
use system_tests::{Agent, AgentSpec, Avahi, FIND_LIMIT, Host, Lab, Resolved, wait_until};

const PORT: u16 = 5353;
/// Questions for one finding.
const ASKED: usize = 6;

/// Asks `host` itself (not the group) for the address of its name, as programs without multicast DNS of their own do, and
/// counts the answers.
fn unicast_answers(from: &Host, host: &Host) -> usize {
    let name = Name::from_text(&format!("{}.local", host.name())).unwrap();
    let questions = vec![Question { name, kind: Kind::A, unicast: true }];
    let question = Message { id: 7, questions, ..Message::default() }.to_bytes().unwrap();
    from.inside(|| {
        let answered = |_: &usize| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            socket.send_to(&question, (host.address(), PORT)).unwrap();
            socket.recv(&mut [0; 9_000]).is_ok()
        };
        (0..ASKED).filter(answered).count()
    })
}

/// What our agents must not have: a socket on the port and every address.
fn thief(host: &Host) -> Socket {
    host.inside(|| {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into()).unwrap();
        socket
    })
}

fn agents(lab: &Lab) -> [Agent<'_>; 2] {
    let spec = AgentSpec::new(&lab.dir().join("empty"), &[]);
    [Agent::start(lab.host(0), &spec), Agent::start(lab.host(1), &spec)]
}

/// Everything that Avahi is asked for on two hosts.
fn avahi_works(lab: &Lab, avahis: [&Avahi<'_>; 2], when: &str) {
    for (here, there) in [(0, 1), (1, 0)] {
        let (name, address) = (lab.host(there).name(), lab.host(there).address().to_string());
        let found = avahis[here].resolve(&format!("{name}.local"));
        assert_eq!(found, address, "{when}: {name} from the other host\n{}", avahis[here].log());
        assert_eq!(
            unicast_answers(lab.host(here), lab.host(there)),
            ASKED,
            "{when}: unicast to {name}"
        );
    }
}

#[test]
fn avahi_and_an_agent_share_the_port() {
    let Some(lab) = Lab::new(2) else { return };
    let Some(first) = Avahi::start(lab.host(0)) else { return };
    let Some(second) = Avahi::start(lab.host(1)) else { return };
    let avahis = [&first, &second];
    avahi_works(&lab, avahis, "before");
    {
        let _thief = thief(lab.host(0));
        assert_eq!(unicast_answers(lab.host(1), lab.host(0)), 0, "what this test can see");
    }
    let mut agents = agents(&lab);
    for agent in &agents {
        agent.wait_for_peers(1, FIND_LIMIT);
    }
    avahi_works(&lab, avahis, "with agents");
    // Avahi sees the agents as it sees everything: also the one on its own machine.
    let ids =
        [0, 1].map(|index| format!("haulout-{}", &agents[index].status().peer_id.unwrap()[..16]));
    for avahi in avahis {
        let complete = || {
            let seen = avahi.browse("_haulout._udp");
            ids.iter().zip(lab.hosts()).all(|(id, host)| {
                let resolved = format!(";{}.local;{};5299;", id, host.address());
                seen.lines().any(|line| line.starts_with('=') && line.contains(&resolved))
            })
        };
        assert!(wait_until(FIND_LIMIT, complete), "{}", avahi.browse("_haulout._udp"));
    }
    // What ended said so.
    assert!(agents[1].process().terminate(Duration::from_secs(20)).success());
    let gone = || !first.browse("_haulout._udp").contains(&ids[1]);
    assert!(wait_until(Duration::from_secs(20), gone), "{}", first.browse("_haulout._udp"));
    avahi_works(&lab, avahis, "after");
    for avahi in avahis {
        let log = avahi.log().to_lowercase();
        assert!(!log.contains("conflict") && !log.contains("-2.local"), "{log}");
    }
}

#[test]
fn avahi_that_starts_after_the_agent_shares_the_port_too() {
    let Some(lab) = Lab::new(2) else { return };
    let agents = agents(&lab);
    let Some(first) = Avahi::start(lab.host(0)) else { return };
    let Some(second) = Avahi::start(lab.host(1)) else { return };
    avahi_works(&lab, [&first, &second], "after the agents");
    for agent in &agents {
        agent.wait_for_peers(1, FIND_LIMIT);
    }
}

#[test]
fn systemd_resolved_and_an_agent_share_the_port() {
    let Some(lab) = Lab::new(2) else { return };
    let spec = AgentSpec::new(&lab.dir().join("empty"), &[]);
    // On one host resolved was first, on the other the agent.
    let Some(first) = Resolved::start(lab.host(0)) else { return };
    let agents = [Agent::start(lab.host(0), &spec), Agent::start(lab.host(1), &spec)];
    let Some(second) = Resolved::start(lab.host(1)) else { return };
    for agent in &agents {
        agent.wait_for_peers(1, FIND_LIMIT);
    }
    for (resolved, here, there) in [(&first, 0, 1), (&second, 1, 0)] {
        assert!(wait_until(FIND_LIMIT, || resolved.does_mdns()), "{}", resolved.log());
        let address = lab.host(there).address().to_string();
        let name = format!("{}.local", lab.host(there).name());
        let found = wait_until(FIND_LIMIT, || resolved.resolve(&name).contains(&address));
        assert!(found, "{name}: {}\n{}", resolved.resolve(&name), resolved.log());
        let answers = unicast_answers(lab.host(here), lab.host(there));
        assert_eq!(answers, ASKED, "unicast to {name}\n{}", resolved.log());
        assert!(!resolved.log().to_lowercase().contains("conflict"), "{}", resolved.log());
    }
}
