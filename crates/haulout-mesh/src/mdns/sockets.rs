//! The sockets, and the task that runs the engine on them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{sleep, sleep_until, timeout};

use super::browser::Heard;
use super::engine::Engine;
use super::message::PACKET_MAX;
use super::{LinkId, LinkState, PORT, Transmit};
use crate::networks::Snapshot;

/// The groups of multicast DNS (RFC 6762 §3).
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// Hop limit of every packet (RFC 6762 §11).
const HOPS: u32 = 255;
/// Packets read and not yet looked at: more wait in the kernel.
const PACKETS_WAITING: usize = 256;
/// Pause after a socket could not be read.
const READ_PAUSE: Duration = Duration::from_millis(200);
/// How long the goodbye may take.
const GOODBYE: Duration = Duration::from_millis(300);
/// Interfaces that are listened on: a machine with more has most of them for its containers.
const LINKS_MAX: usize = 64;

/// A packet, and where it came from.
type Packet = (LinkId, SocketAddr, Vec<u8>);

/// Told what is heard; must not block.
pub(crate) type Tell = Box<dyn FnMut(Heard) + Send>;

/// The running task.
pub(crate) struct Running {
    quit: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    /// Says goodbye and ends the task.
    pub(crate) async fn stop(self) {
        let _ = self.quit.send(());
        let _ = timeout(GOODBYE, self.task).await;
    }
}

/// Runs `engine` on the interfaces that discovery may use, for as long as the handle lives. `v6`: on IPv6, too.
pub(crate) fn start(
    engine: Engine,
    networks: watch::Receiver<Arc<Snapshot>>,
    v6: bool,
    tell: Tell,
) -> Running {
    let (quit, quitting) = oneshot::channel();
    let (packets, arriving) = mpsc::channel(PACKETS_WAITING);
    let task = Task { engine, started: Instant::now(), ports: BTreeMap::new(), packets, v6, tell };
    Running { quit, task: tokio::spawn(task.run(networks, arriving, quitting)) }
}

/// The socket of one link.
struct Port {
    state: LinkState,
    socket: Arc<UdpSocket>,
    reader: AbortHandle,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

struct Task {
    engine: Engine,
    started: Instant,
    ports: BTreeMap<LinkId, Port>,
    packets: mpsc::Sender<Packet>,
    v6: bool,
    tell: Tell,
}

impl Task {
    async fn run(
        mut self,
        mut networks: watch::Receiver<Arc<Snapshot>>,
        mut arriving: mpsc::Receiver<Packet>,
        mut quitting: oneshot::Receiver<()>,
    ) {
        let mut seen = networks.borrow_and_update().clone();
        self.follow(&seen);
        loop {
            let wake = self.engine.next().map(|at| self.started + at);
            let due = async {
                match wake {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = &mut quitting => break,
                changed = networks.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let now = networks.borrow_and_update().clone();
                    self.follow(&now);
                    if differs(&seen, &now) {
                        self.engine.refresh(self.started.elapsed());
                    }
                    seen = now;
                }
                Some((id, from, bytes)) = arriving.recv() => {
                    self.engine.receive(self.started.elapsed(), id, from, &bytes);
                }
                () = due => {}
            }
            self.engine.poll(self.started.elapsed());
            self.work_off();
        }
        self.engine.goodbye();
        self.work_off();
    }

    /// Sends and tells what the engine has for others.
    fn work_off(&mut self) {
        for packet in self.engine.take_packets() {
            self.send(&packet);
        }
        for news in self.engine.take_news() {
            (self.tell)(news);
        }
    }

    fn send(&self, packet: &Transmit) {
        let Some(port) = self.ports.get(&packet.link) else { return };
        let to = packet.to.unwrap_or_else(|| group(packet.link));
        // What cannot be sent now is sent again by and by, like everything here.
        if let Err(error) = port.socket.try_send_to(&packet.bytes, to) {
            tracing::debug!(%to, link = packet.link.index, %error, "multicast DNS packet not sent");
        }
    }

    /// Opens sockets on the links there are and closes the others.
    fn follow(&mut self, snapshot: &Snapshot) {
        let links = links(snapshot, self.v6);
        self.ports.retain(|_, port| links.contains(&port.state));
        for state in &links {
            if self.ports.contains_key(&state.id) {
                continue;
            }
            match self.open(state) {
                Ok(port) => drop(self.ports.insert(state.id, port)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => tracing::warn!(
                    "another program keeps UDP port {PORT} for itself: no peers are found by multicast DNS. hint: avahi needs disallow-other-stacks=no"
                ),
                Err(error) => {
                    tracing::debug!(link = state.id.index, %error, "no multicast DNS on this interface");
                }
            }
        }
        let open = links.into_iter().filter(|link| self.ports.contains_key(&link.id)).collect();
        self.engine.set_links(self.started.elapsed(), open);
    }

    fn open(&self, state: &LinkState) -> io::Result<Port> {
        let socket = if state.id.v6 { open_v6(state.id.index)? } else { open_v4(state)? };
        socket.set_nonblocking(true)?;
        let socket = Arc::new(UdpSocket::from_std(socket.into())?);
        let reader = tokio::spawn(read(state.id, Arc::clone(&socket), self.packets.clone()));
        Ok(Port { state: state.clone(), socket, reader: reader.abort_handle() })
    }
}

/// Whether something is different that addresses do not show.
fn differs(before: &Snapshot, now: &Snapshot) -> bool {
    let gateways = |snapshot: &Snapshot| -> Vec<(u32, Option<IpAddr>)> {
        let gateway =
            |one: &crate::networks::Interface| one.gateway.as_ref().map(|gateway| gateway.ip);
        snapshot.interfaces.iter().map(|one| (one.index, gateway(one))).collect()
    };
    before.wakes != now.wakes || gateways(before) != gateways(now)
}

/// The links of the interfaces that discovery may use.
fn links(snapshot: &Snapshot, v6: bool) -> Vec<LinkState> {
    let used = snapshot.interfaces.iter().filter(|one| one.discover && snapshot.uses(one));
    let mut links = Vec::new();
    for one in used.take(LINKS_MAX) {
        let mut add = |v6| {
            let id = LinkId { index: one.index, v6 };
            links.push(LinkState { id, addrs: one.addrs.clone() });
        };
        if one.addrs.iter().any(|(ip, _)| ip.is_ipv4()) {
            add(false);
        }
        // Nothing routes the group on loopback in IPv6.
        if v6 && !one.loopback && one.addrs.iter().any(|(ip, _)| ip.is_ipv6()) {
            add(true);
        }
    }
    links
}

fn group(link: LinkId) -> SocketAddr {
    if link.v6 {
        SocketAddrV6::new(GROUP_V6, PORT, 0, link.index).into()
    } else {
        SocketAddrV4::new(GROUP_V4, PORT).into()
    }
}

fn open_v4(state: &LinkState) -> io::Result<Socket> {
    let own = state.addrs.iter().find_map(|(ip, _)| match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    });
    let own = own.ok_or(io::ErrorKind::AddrNotAvailable)?;
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // Shared with every other responder on the machine, and bound to the group: a socket on the wildcard address would be
    // given the unicast answers that are meant for them.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((GROUP_V4, PORT)).into())?;
    socket.set_multicast_all_v4(false)?;
    socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(state.id.index))?;
    socket.set_multicast_if_v4(&own)?;
    socket.set_multicast_ttl_v4(HOPS)?;
    socket.set_ttl_v4(HOPS)?;
    socket.set_multicast_loop_v4(true)?;
    Ok(socket)
}

fn open_v6(index: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_only_v6(true)?;
    socket.bind(&SocketAddrV6::new(GROUP_V6, PORT, 0, index).into())?;
    socket.set_multicast_all_v6(false)?;
    socket.join_multicast_v6(&GROUP_V6, index)?;
    socket.set_multicast_if_v6(index)?;
    socket.set_multicast_hops_v6(HOPS)?;
    socket.set_unicast_hops_v6(HOPS)?;
    socket.set_multicast_loop_v6(true)?;
    Ok(socket)
}

/// Reads one socket until it is closed.
async fn read(id: LinkId, socket: Arc<UdpSocket>, packets: mpsc::Sender<Packet>) {
    let mut buffer = vec![0; PACKET_MAX + 1];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) => {
                let Some(bytes) = buffer.get(..length) else { continue };
                if packets.send((id, from, bytes.to_vec())).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "multicast DNS socket");
                sleep(READ_PAUSE).await;
            }
        }
    }
}
