//! The stage itself: if one of these fails, no other system test means anything.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use system_tests::{Lab, Process, wait_until};

fn name_of(host: &system_tests::Host) -> String {
    let output = host.command("cat").arg("/proc/sys/kernel/hostname").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn hosts_have_names_of_their_own_and_reach_each_other_only() {
    let Some(lab) = Lab::new(2) else { return };
    assert_eq!((name_of(lab.host(0)), name_of(lab.host(1))), ("h1".into(), "h2".into()));

    let address = SocketAddr::from((lab.host(0).address(), 7000));
    let listener = lab.host(0).inside(|| TcpListener::bind(address)).unwrap();
    let stream = lab.host(1).inside(|| TcpStream::connect(address)).unwrap();
    let (_, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), lab.host(1).address());
    assert_eq!(stream.peer_addr().unwrap(), address);

    let limit = Duration::from_millis(300);
    // Whatever answers at that address in the machine's own network, it is not our host.
    let _ = TcpStream::connect_timeout(&address, limit);
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "reached from outside the lab");
    let outside = SocketAddr::from(([192, 0, 2, 1], 80));
    let attempt = lab.host(1).inside(|| TcpStream::connect_timeout(&outside, limit));
    assert!(attempt.is_err(), "a lab host reached the outside");
}

#[test]
fn link_local_addresses_of_ipv6_work_at_once() {
    let Some(lab) = Lab::new(2) else { return };
    let receiver = lab.host(0).inside(|| {
        let table = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
        let line = table.lines().find(|line| line.ends_with("eth0"))?;
        let address = u128::from_str_radix(line.split(' ').next()?, 16).ok()?;
        let scope = u32::from_str_radix(line.split(' ').nth(1)?, 16).ok()?;
        UdpSocket::bind(SocketAddrV6::new(address.into(), 7000, 0, scope)).ok()
    });
    let Some(receiver) = receiver else {
        system_tests::skip::skipped("this machine has no IPv6");
        return;
    };
    let SocketAddr::V6(mut to) = receiver.local_addr().unwrap() else { unreachable!() };
    lab.host(1).inside(|| {
        let index = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
        let line = index.lines().find(|line| line.ends_with("eth0")).unwrap();
        to.set_scope_id(u32::from_str_radix(line.split(' ').nth(1).unwrap(), 16).unwrap());
        UdpSocket::bind("[::]:0").unwrap().send_to(b"six", to).unwrap();
    });
    receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut buffer = [0; 16];
    assert_eq!(receiver.recv(&mut buffer).unwrap(), 3);
}

#[test]
fn multicast_reaches_every_host() {
    let Some(lab) = Lab::new(3) else { return };
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let listen = |host: &system_tests::Host| {
        host.inside(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5353)).unwrap();
            socket.join_multicast_v4(&group, &host.address()).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            socket
        })
    };
    let listeners = [listen(lab.host(0)), listen(lab.host(2))];
    lab.host(1).inside(|| {
        UdpSocket::bind((lab.host(1).address(), 0))
            .unwrap()
            .send_to(b"who", (group, 5353))
            .unwrap();
    });
    for listener in listeners {
        let (length, from) = listener.recv_from(&mut [0; 16]).unwrap();
        assert_eq!((length, from.ip()), (3, lab.host(1).address().into()));
    }
}

/// Seconds that `bytes` take from host 0 to host 1.
fn transfer(lab: &Lab, bytes: usize) -> Duration {
    let address = SocketAddr::from((lab.host(0).address(), 7001));
    let listener = lab.host(0).inside(|| TcpListener::bind(address)).unwrap();
    let sender = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, &vec![7; bytes]).unwrap();
    });
    let start = Instant::now();
    let mut stream = lab.host(1).inside(|| TcpStream::connect(address)).unwrap();
    assert_eq!(std::io::copy(&mut stream, &mut std::io::sink()).unwrap(), bytes as u64);
    sender.join().unwrap();
    start.elapsed()
}

#[test]
fn links_can_be_shaped_and_cut_and_healed() {
    let Some(lab) = Lab::new(2) else { return };
    lab.set_rate(Some(80_000_000)); // 10 MB/s
    let shaped = transfer(&lab, 5_000_000);
    assert!(shaped > Duration::from_millis(400), "too fast: {shaped:?}");
    lab.set_rate(None);
    let unshaped = transfer(&lab, 5_000_000);
    assert!(unshaped < shaped, "{unshaped:?}, shaped {shaped:?}");

    let address = SocketAddr::from((lab.host(0).address(), 7002));
    let _listener = lab.host(0).inside(|| TcpListener::bind(address)).unwrap();
    let reaches = || {
        let limit = Duration::from_millis(300);
        lab.host(1).inside(|| TcpStream::connect_timeout(&address, limit)).is_ok()
    };
    assert!(reaches());
    lab.host(0).set_link(false);
    assert!(!reaches());
    lab.host(0).set_link(true);
    assert!(wait_until(Duration::from_secs(5), reaches));
    lab.host(1).set_interface(false);
    assert!(!reaches());
    lab.host(1).set_interface(true);
    assert!(wait_until(Duration::from_secs(5), reaches));
}

#[test]
fn a_lab_leaves_nothing_behind() {
    let Some(lab) = Lab::new(1) else { return };
    let dir = lab.dir().to_owned();
    let mut sleep = lab.host(0).command("sleep");
    sleep.arg("600");
    // Outlives its owner, as a daemon would: the lab has to end it.
    let process = Process::start("sleep", sleep, &dir.join("log"));
    let pid = process.id();
    std::mem::forget(process);
    let namespaces = || {
        let list = Command::new("ip").args(["netns", "list"]).output().unwrap();
        String::from_utf8_lossy(&list.stdout).into_owned()
    };
    let mine = format!("haulout-test-{}-", std::process::id());
    assert!(namespaces().contains(&mine));
    drop(lab);
    assert!(!namespaces().contains(&mine));
    assert!(!dir.exists());
    let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Killed; as nobody waits for it, it stays a zombie of this process.
    assert!(wait_until(Duration::from_secs(5), || state().is_empty() || state().contains(") Z ")));
}
