//! Every setting of sockets and QUIC, in one place with its reason.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use haulout_swarm::PeerId;
use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout,
    MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use socket2::{Domain, Protocol, Socket, Type};

use crate::error::StartError;
use crate::identity::Identity;
use crate::membership::Role;
use crate::tls;

/// Asked of the kernel for each direction: its default of 208 KiB loses hundreds of packets per GiB to a busy receiver.
pub(crate) const SOCKET_BUFFER: usize = 4 << 20;
/// Flow control per stream: covers 2.5 Gbit/s at 6 ms; less costs throughput, more gains little.
pub(crate) const STREAM_WINDOW: u32 = 2 << 20;
/// Flow control per connection: what one peer can make us buffer. quinn's own default is unlimited.
pub(crate) const CONNECTION_WINDOW: u32 = 12 << 20;
/// Unacknowledged bytes kept for one peer: what one slow reader can make us hold.
pub(crate) const SEND_WINDOW: u64 = 4 << 20;
/// Streams a peer may have open; every allowed stream costs memory on an idle connection too.
pub(crate) const BIDI_STREAMS: u32 = 64;
/// One-way streams a peer may have open: its holdings, with room for a successor.
pub(crate) const UNI_STREAMS: u32 = 2;
/// Ethernet's 1500 bytes less IPv6 and UDP headers. quinn sends trains of ten segments and breaks above 6 550 bytes.
pub(crate) const MTU_MAX: u16 = 1452;
/// A connection without any packet for this long is gone.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A quiet connection is touched this often, so that a vanished peer is noticed (see [`SILENT_AFTER`]).
/// Two packets every few seconds per peer; the interval grows with the number of peers ([`keep_alive`]).
pub(crate) const KEEP_ALIVE_MIN: Duration = Duration::from_secs(3);
/// A peer not heard from for this many keep-alive intervals is shown, and treated, as silent.
pub(crate) const SILENT_AFTER: u32 = 2;
/// First guess of the round-trip time, before anything is measured: a LAN, not quinn's 333 ms. Lost first packets are
/// repeated after about three times this.
const INITIAL_RTT: Duration = Duration::from_millis(20);

/// How often to touch a quiet connection on a site of so many peers: about twice a second in all, as far as
/// [`IDLE_TIMEOUT`] allows. With 20 peers that is nearly all that an idle agent does, and a peer that vanished is noticed by
/// the first question to it anyway. The end that dialled does it; the other only where it has heard nothing for half as
/// long again, because two timers of the same length go off together and every packet is sent twice.
pub(crate) fn keep_alive(peers: usize, role: Role) -> Duration {
    let spread =
        Duration::from_millis(u64::try_from(peers).unwrap_or(u64::MAX).saturating_mul(500));
    let dialler = spread.clamp(KEEP_ALIVE_MIN, IDLE_TIMEOUT / 3);
    match role {
        Role::Dialler => dialler,
        Role::Accepter => dialler * 3 / 2,
    }
}

/// QUIC settings of one connection on a site of so many peers.
pub(crate) fn transport(peers: usize, role: Role) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_MAX);
    config
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .max_concurrent_bidi_streams(VarInt::from_u32(BIDI_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS))
        // Datagrams are not used: allow none, buffer none.
        .datagram_receive_buffer_size(None)
        // BBR keeps sending into the full buffer of a busy receiver; CUBIC backs off.
        .congestion_controller_factory(Arc::new(CubicConfig::default()))
        .mtu_discovery_config(Some(mtu))
        .initial_rtt(INITIAL_RTT)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(
            u32::try_from(IDLE_TIMEOUT.as_millis()).unwrap_or(u32::MAX),
        ))))
        .keep_alive_interval(Some(keep_alive(peers, role)));
    Arc::new(config)
}

/// Configuration of the accepting side.
pub(crate) fn server_config(
    identity: &Identity,
    handshakes: usize,
) -> Result<ServerConfig, StartError> {
    let crypto = tls::server(identity).map_err(StartError::Identity)?;
    let crypto = QuicServerConfig::try_from(crypto)
        .map_err(|error| StartError::Identity(rustls::Error::General(error.to_string())))?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        // Each connection gets settings of its own when it is accepted.
        .transport_config(transport(0, Role::Accepter))
        .max_incoming(handshakes)
        // What a client may send before it is accepted: a hello, not more.
        .incoming_buffer_size(64 << 10)
        .incoming_buffer_size_total(4 << 20)
        // A peer that moves announces its new address and is dialled again; following it by migration
        // would let an address escape the limits per address.
        .migration(false);
    Ok(config)
}

/// Configuration for dialling `expected`, or whoever answers.
pub(crate) fn client_config(
    identity: &Identity,
    expected: Option<PeerId>,
    peers: usize,
) -> Result<ClientConfig, rustls::Error> {
    let crypto = tls::client(identity, expected)?;
    let crypto = QuicClientConfig::try_from(crypto)
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport(peers, Role::Dialler));
    Ok(config)
}

/// Random connection ids. quinn's own carry a check value under a key of this run, by which it ignores packets for the
/// connections of an earlier run instead of resetting those.
#[derive(Debug)]
struct RandomIds;

/// Bytes of a connection id: as quinn's own.
const CONNECTION_ID_LEN: usize = 8;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; CONNECTION_ID_LEN];
        // Without random numbers TLS does not come this far.
        let _ = SystemRandom::new().fill(&mut bytes);
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Settings of the endpoint itself.
///
/// The key for stateless resets derives from the identity: after a crash the next process tells peers at once that their
/// connections to the last one are gone, instead of leaving them to time out.
pub(crate) fn endpoint_config(identity: &Identity) -> EndpointConfig {
    let reset = identity.derive(b"haulout quic stateless reset");
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &reset)));
    config.cid_generator(|| Box::new(RandomIds));
    // Cannot fail: the value is above the 1200 bytes QUIC demands.
    let _ = config.max_udp_payload_size(MTU_MAX);
    config
}

/// A bound UDP socket, and the receive buffer the kernel really gave.
pub(crate) struct Bound {
    pub(crate) socket: UdpSocket,
    pub(crate) receive_buffer: usize,
}

/// Binds `addr` with large buffers; an IPv6 wildcard also takes IPv4.
pub(crate) fn bind(addr: SocketAddr) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    // Failing to enlarge is not an error: the kernel's limit is reported below.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&addr.into())?;
    socket.set_nonblocking(true)?;
    // Linux reports twice what was granted (its own bookkeeping included).
    let receive_buffer = socket.recv_buffer_size().unwrap_or(0) / 2;
    Ok(Bound { socket: socket.into(), receive_buffer })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_alive_spreads_over_many_peers() {
        assert_eq!(keep_alive(0, Role::Dialler), KEEP_ALIVE_MIN);
        assert_eq!(keep_alive(6, Role::Dialler), KEEP_ALIVE_MIN);
        assert_eq!(keep_alive(18, Role::Dialler), Duration::from_secs(9));
        assert_eq!(keep_alive(10_000, Role::Dialler), Duration::from_secs(10));
        assert_eq!(keep_alive(10_000, Role::Accepter), IDLE_TIMEOUT / 2);
    }
}
