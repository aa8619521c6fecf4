//! Two connections of one pair, and peers that come back.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use haulout_swarm::holdings::{Delta, Snapshot, Version};
use quinn::{Connection, Endpoint, SendStream, TokioRuntime, VarInt};

use crate::frames::{Hello, UNI_HOLDINGS};
use crate::hostile::{raw_endpoint, raw_stranger, read_raw_hello};
use crate::registry::{closed_with, code};
use crate::support::*;
use crate::{Identity, Mesh, PeerState, RequestError, StaticPeer, transport};

async fn connected(mesh: &Mesh, other: &Mesh) {
    eventually("connected", || {
        mesh.peers().iter().any(|peer| peer.id == other.id() && peer.state == PeerState::Connected)
    })
    .await;
}

#[tokio::test]
async fn two_that_dial_each_other_keep_one_connection() {
    for round in 0..2 {
        let item = Item::new(1, 200_000, true);
        let (world_a, world_b) = (World::new([item.clone()]), World::new([]));
        // Fixed ports, so that both can name the other before either runs.
        let ports: Vec<u16> = (0..2)
            .map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port())
            .collect();
        let make = |own: usize, seed: u8, other: u8| {
            let mut config = config(seed);
            config.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, ports[own]))];
            let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, ports[1 - own]));
            config.static_peers.push(StaticPeer { addr, key: Some(identity(other).id()) });
            config
        };
        let (a, b) = tokio::join!(
            start(make(0, 40 + round, 50), &world_a),
            start(make(1, 50, 40 + round), &world_b)
        );
        connected(&a, &b).await;
        connected(&b, &a).await;
        eventually("holdings", || b.who_has(&item.hash()) == [a.id()]).await;
        // Long enough for a second connection to have come up and been closed.
        for _ in 0..20 {
            let mut stream = b.nar_range(&a.id(), &item.key(), 0..200_000, SOON).await.unwrap();
            assert!(read_all(&mut stream).await.unwrap() == *item.nar);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(a.peers().len(), 1);
        assert_eq!(b.who_has(&item.hash()), [a.id()]);
        a.shutdown().await;
        b.shutdown().await;
    }
}

#[tokio::test]
async fn a_peer_that_comes_back_is_found_again() {
    let item = Item::new(1, 1_000, true);
    let world = World::new([item.clone()]);
    let a = start(config(1), &world).await;
    let addr = a.local_addrs()[0];
    let b = start(with_peer(config(2), &a), &World::new([])).await;
    eventually("there", || b.who_has(&item.hash()) == [a.id()]).await;
    a.shutdown().await;
    eventually("gone", || b.who_has(&item.hash()).is_empty()).await;
    let gone = b.path_infos(&a.id(), &item.hash(), 1, SOON).await;
    assert_eq!(gone, Err(RequestError::NotConnected));
    let mut again = config(1);
    again.listen = vec![addr];
    let _a = start(again, &world).await;
    eventually("back", || b.who_has(&item.hash()) == [a.id()]).await;
}

/// Says hello to the mesh that dials `endpoint`, and keeps the connection.
async fn greet(endpoint: &Endpoint) -> Connection {
    let conn = endpoint.accept().await.unwrap().await.unwrap();
    let (mut send, mut recv) = conn.accept_bi().await.unwrap();
    read_raw_hello(&mut recv).await;
    send.write_all(&Hello { minor: 0, proof: None }.encode()).await.unwrap();
    send.finish().unwrap();
    conn
}

#[test]
fn a_peer_that_crashed_is_back_at_once() {
    let build = || {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    };
    let outer = build();
    // The mesh dials, and its connections are the ones to keep: the hard case.
    let (first, second) = (identity(1), identity(2));
    let (mesh_key, peer) = if first.id() < second.id() { (1, second) } else { (2, first) };
    let doomed = build();
    let (endpoint, addr) = doomed.block_on(async {
        let endpoint = raw_endpoint(&peer);
        let addr = endpoint.local_addr().unwrap();
        (endpoint, addr)
    });
    let mut dialling = config(mesh_key);
    dialling.static_peers.push(StaticPeer { addr, key: Some(peer.id()) });
    let mesh = outer.block_on(start(dialling, &World::new([])));
    let conn = doomed.block_on(greet(&endpoint));
    let connected = || mesh.peers().iter().any(|peer| peer.state == PeerState::Connected);
    outer.block_on(eventually("connected", connected));
    // The process dies: nothing is said, the socket is closed by the kernel.
    let runtime_gone = std::thread::spawn(move || {
        doomed.shutdown_background();
        drop((conn, endpoint));
    });
    runtime_gone.join().unwrap();
    outer.block_on(async {
        let started = Instant::now();
        let bound = loop {
            match transport::bind(addr) {
                Ok(bound) => break bound,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let server = transport::server_config(&peer, 8).unwrap();
        let endpoint = Endpoint::new(
            transport::endpoint_config(&peer),
            Some(server),
            bound.socket,
            Arc::new(TokioRuntime),
        )
        .unwrap();
        // The mesh notices by its next keep-alive at the latest, and dials again.
        let _conn = tokio::time::timeout(Duration::from_secs(6), greet(&endpoint)).await.unwrap();
        println!("back after {:?}", started.elapsed());
        assert!(started.elapsed() < Duration::from_secs(5));
    });
}

/// A key for the mesh and one for the peer, which is the end that `chooses` between connections.
fn keys(mesh_chooses: bool) -> (u8, Identity) {
    let (small, large) = if identity(1).id() < identity(2).id() { (1, 2) } else { (2, 1) };
    if mesh_chooses { (small, identity(large)) } else { (large, identity(small)) }
}

/// Says that we hold `prefix`, and goes on from there with the stream that comes back.
async fn say_holdings(conn: &Connection, version: Version, prefix: u32) -> SendStream {
    let mut uni = conn.open_uni().await.unwrap();
    uni.write_all(&[UNI_HOLDINGS]).await.unwrap();
    say(&mut uni, Snapshot::new(version, vec![prefix]).unwrap().encode()).await;
    uni
}

async fn say(uni: &mut SendStream, message: Vec<u8>) {
    uni.write_all(&u32::try_from(message.len()).unwrap().to_be_bytes()).await.unwrap();
    uni.write_all(&message).await.unwrap();
}

/// Longer than any connection that an end gives up stays open.
const SETTLED: Duration = Duration::from_secs(8);

fn closed(conn: &Connection) -> bool {
    conn.close_reason().is_some()
}

#[tokio::test]
async fn whichever_connection_the_other_end_chooses_stays() {
    let (item, late) = (Item::new(1, 1_000, true), Item::new(2, 1_000, true));
    for chosen in [0, 1] {
        let (mesh_key, peer) = keys(false);
        let mesh = start(config(mesh_key), &World::new([])).await;
        let (_first_endpoint, first) = raw_stranger(&peer, &mesh).await;
        let version = 1;
        let mut news = say_holdings(&first, version, item.hash().prefix()).await;
        eventually("holdings", || mesh.who_has(&item.hash()) == [peer.id()]).await;
        let (_second_endpoint, second) = raw_stranger(&peer, &mesh).await;
        let lost = |mesh: &Mesh| mesh.peers()[0].state != PeerState::Connected;
        // Both work until we have chosen, and the mesh closes neither.
        tokio::time::sleep(Duration::from_millis(1_800)).await;
        assert!(!closed(&first) && !closed(&second) && !lost(&mesh));
        if chosen == 1 {
            news = say_holdings(&second, version, item.hash().prefix()).await;
        }
        let (kept, given_up) = if chosen == 0 { (first, second) } else { (second, first) };
        given_up.close(VarInt::from_u32(code::DUPLICATE), b"another connection is in use");
        // What it holds is known all the time, and what is new as well.
        let until = Instant::now() + SETTLED;
        let next = 2;
        let more = Delta::new(version, next, vec![], vec![late.hash().prefix()]).unwrap();
        say(&mut news, more.encode()).await;
        eventually("news", || mesh.who_has(&late.hash()) == [peer.id()]).await;
        while Instant::now() < until {
            assert!(!closed(&kept) && !lost(&mesh), "{chosen}: {:?}", mesh.peers());
            assert_eq!(mesh.who_has(&item.hash()), [peer.id()]);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn the_end_that_chooses_closes_one_and_keeps_the_newer() {
    let (mesh_key, peer) = keys(true);
    let mesh = start(config(mesh_key), &World::new([])).await;
    let (_first_endpoint, first) = raw_stranger(&peer, &mesh).await;
    let (_second_endpoint, second) = raw_stranger(&peer, &mesh).await;
    assert_eq!(closed_with(&first.closed().await), Some(code::DUPLICATE));
    tokio::time::sleep(SETTLED).await;
    assert!(!closed(&second) && mesh.peers()[0].state == PeerState::Connected);
}

#[tokio::test]
async fn without_a_choice_one_is_closed_in_the_end() {
    let (mesh_key, peer) = keys(false);
    let mesh = start(config(mesh_key), &World::new([])).await;
    let (_first_endpoint, first) = raw_stranger(&peer, &mesh).await;
    let (_second_endpoint, second) = raw_stranger(&peer, &mesh).await;
    tokio::time::sleep(SETTLED).await;
    assert!(closed(&first) && !closed(&second));
    assert_eq!(mesh.peers()[0].state, PeerState::Connected);
}
