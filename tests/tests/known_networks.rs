//! A laptop that travels: it takes part where it was told to, and is silent in the café.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use haulout_mesh::mdns::message::{Data, Kind, Message, Name, Question};
use rustix::process::Signal;
use system_tests::{Agent, AgentSpec, FIND_LIMIT, Host, Lab, Scene, haulout, http, wait_until};

/// "Within seconds", on a busy machine.
const SECONDS: Duration = Duration::from_secs(20);
/// How long answers are waited for where none may come.
const QUIET: Duration = Duration::from_secs(3);

fn ip(host: &Host, arguments: &str) {
    let output = host.command("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn hardware_address(host: &Host) -> String {
    let output = host.command("cat").arg("/sys/class/net/eth0/address").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn gateway(host: &Host, via: &Host) {
    ip(host, &format!("route replace default via {}", via.address()));
}

/// What anybody on the network can learn of agents: the names that answer a question.
fn announced(from: &Host) -> BTreeSet<String> {
    let kind = Name::from_text("_haulout._udp.local").unwrap();
    let questions = vec![Question { name: kind, kind: Kind::Ptr, unicast: false }];
    let question = Message { id: 1, questions, ..Message::default() }.to_bytes().unwrap();
    from.inside(|| {
        let socket = UdpSocket::bind((from.address(), 0)).unwrap();
        socket.set_read_timeout(Some(QUIET)).unwrap();
        socket.send_to(&question, (Ipv4Addr::new(224, 0, 0, 251), 5353)).unwrap();
        let started = Instant::now();
        let (mut names, mut buffer) = (BTreeSet::new(), [0; 9_000]);
        while started.elapsed() < QUIET {
            let Ok(length) = socket.recv(&mut buffer) else { break };
            let answer = Message::parse(&buffer[..length]).unwrap();
            names.extend(answer.records.into_iter().filter_map(|record| match record.data {
                Data::Ptr(name) => Some(name.to_string()),
                _ => None,
            }));
        }
        names
    })
}

fn name_of(agent: &Agent<'_>) -> String {
    format!("haulout-{}._haulout._udp.local.", &agent.status().peer_id.unwrap()[..16])
}

fn says(agent: &Agent<'_>, what: &str) -> String {
    let address = agent.url().replace("http://", "");
    let output =
        agent.host().command(haulout()).args([what, "--agent", &address]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn connected(agent: &Agent<'_>) -> usize {
    agent.peers().iter().filter(|peer| peer.state == "connected").count()
}

#[test]
fn a_laptop_is_silent_in_the_cafe_and_takes_part_at_home() {
    let Some(scene) = Scene::new(3, 20, 2 << 20) else { return };
    let (lab, cache) = (scene.lab(), scene.other_cache());
    let (home, cafe) = (lab.host(2), lab.host(0));
    gateway(lab.host(1), home);
    let rule = format!("gateway {}", hardware_address(home));
    let neighbour = scene.seed(0);
    let laptop = scene.machine_with(1, scene.nix(), &[], |spec| {
        spec.set("network.known", format!("[{rule:?}]"))
            .set("gateway.listen", "\"0.0.0.0:5300\"")
            .set("upstream.urls", format!("[{cache:?}]"))
    });
    let agent = &laptop.agent;
    agent.wait_for_peers(1, FIND_LIMIT);
    assert!(announced(home).contains(&name_of(agent)));
    // Machines without an agent may ask it here, and not in the café.
    let door = SocketAddr::from((lab.host(1).address(), 5300));
    let asks = || http::get(home, door, "/nix-cache-info").map(|answer| answer.status);
    assert_eq!(asks().unwrap(), 200);
    assert!(
        says(agent, "status").contains(&format!("known by \"{rule}\"")),
        "{}",
        says(agent, "status")
    );

    // Another gateway: another network, whatever the addresses say.
    gateway(lab.host(1), cafe);
    assert!(wait_until(SECONDS, || agent.status().silent), "{}", says(agent, "status"));
    assert!(wait_until(SECONDS, || connected(agent) == 0 && connected(&neighbour) == 0));
    assert_eq!(
        announced(home),
        BTreeSet::from([name_of(&neighbour)]),
        "who asks learns of the other alone"
    );
    assert!(asks().is_err(), "{:?}", asks());
    let status = says(agent, "status");
    assert!(status.contains("silent") && status.contains(&hardware_address(cafe)), "{status}");
    assert!(says(agent, "doctor").contains("none of the known networks is here"));
    // The neighbour goes on looking for it: it is not answered.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((connected(agent), connected(&neighbour)), (0, 0));
    // Its own Nix is served as ever.
    let _ = laptop.nix.realise(scene.closure().top()).ok();
    let _ = laptop.nix.verify(&scene.closure().paths()).ok();
    assert_eq!(agent.status().counters.bytes_from_peers, 0);

    gateway(lab.host(1), home);
    agent.wait_for_peers(1, SECONDS);
    assert!(!agent.status().silent);
}

#[test]
fn a_network_may_be_known_by_its_addresses() {
    let Some(lab) = Lab::new(3) else { return };
    let spec = AgentSpec::new(&lab.dir().join("empty"), &[]);
    let other = Agent::start(lab.host(0), &spec);
    let known = |rules: &str| spec.clone().set("network.known", rules);
    let abroad = Agent::start(lab.host(1), &known(r#"["subnet 192.168.77.0/24", "ssid Nowhere"]"#));
    assert!(wait_until(SECONDS, || abroad.status().silent));
    assert_eq!(announced(lab.host(2)), BTreeSet::from([name_of(&other)]), "not even at the start");
    assert_eq!(connected(&other), 0);
    // A second address, in a known network: there it takes part.
    ip(lab.host(1), "addr add 192.168.77.2/24 dev eth0");
    assert!(wait_until(SECONDS, || !abroad.status().silent));
    abroad.wait_for_peers(1, SECONDS);
    ip(lab.host(1), "addr del 192.168.77.2/24 dev eth0");
    assert!(wait_until(SECONDS, || connected(&abroad) == 0), "{:#?}", abroad.status().networks);
}

/// As when the lid is closed and opened: for the machine no time passed, for the others it did.
#[test]
fn after_sleep_peers_are_there_at_once() {
    let Some(lab) = Lab::new(2) else { return };
    let spec = AgentSpec::new(&lab.dir().join("empty"), &[]);
    let awake = Agent::start(lab.host(0), &spec);
    let mut asleep = Agent::start(lab.host(1), &spec);
    awake.wait_for_peers(1, FIND_LIMIT);
    asleep.wait_for_peers(1, FIND_LIMIT);
    asleep.signal(Signal::STOP);
    // Longer than a connection lives without a word.
    std::thread::sleep(Duration::from_secs(35));
    assert_eq!(connected(&awake), 0);
    asleep.signal(Signal::CONT);
    let woken = Instant::now();
    assert!(wait_until(SECONDS, || connected(&awake) == 1), "{}", asleep.process().log());
    asleep.wait_for_peers(1, SECONDS);
    println!("connected {:?} after waking", woken.elapsed());
    assert!(asleep.process().log().contains("this machine slept"), "{}", asleep.process().log());
}
