//! Peers that send too much, or come in too large numbers.

use std::time::{Duration, Instant};

use haulout_swarm::holdings::{Delta, Message, Snapshot};
use haulout_swarm::peers::PEERS_MAX;
use quinn::{Connection, SendStream};

use crate::config::Limits;
use crate::hostile::{raw_dial, raw_endpoint, raw_stranger};
use crate::registry::{closed_with, code};
use crate::support::*;
use crate::tls::SERVER_NAME;
use crate::{Mesh, PeerState, transport};

async fn open_holdings(conn: &Connection) -> SendStream {
    let mut uni = conn.open_uni().await.unwrap();
    uni.write_all(&[crate::frames::UNI_HOLDINGS]).await.unwrap();
    uni
}

async fn say(uni: &mut SendStream, message: Message) -> Result<(), quinn::WriteError> {
    let body = message.encode();
    uni.write_all(&u32::try_from(body.len()).unwrap().to_be_bytes()).await?;
    uni.write_all(&body).await
}

/// `count` prefixes, spread like hashes.
fn spread(count: u32, salt: u32) -> Vec<u32> {
    (0..count).map(|n| n.wrapping_mul(0x9e37_79b9) ^ salt).collect()
}

fn snapshot(version: u64, entries: Vec<u32>) -> Message {
    Message::Snapshot(Snapshot::new(version, entries).unwrap())
}

fn delta(base: u64, added: Vec<u32>) -> Message {
    Message::Delta(Delta::new(base, base + 1, Vec::new(), added).unwrap())
}

fn banned_for(mesh: &Mesh, words: &str) -> bool {
    mesh.peers().iter().any(|peer| {
        peer.state == PeerState::Banned && peer.reasons.iter().any(|reason| reason.contains(words))
    })
}

#[tokio::test]
async fn holdings_that_are_no_hashes_are_an_offence() {
    let crowd: Vec<u32> = (0..129).map(|n| 0x1234_0000 + n * 7).collect();
    for by_delta in [false, true] {
        let mesh = start(config(1), &World::new([])).await;
        let (_endpoint, conn) = raw_stranger(&identity(5), &mesh).await;
        let mut uni = open_holdings(&conn).await;
        if by_delta {
            say(&mut uni, snapshot(1, spread(10, 0))).await.unwrap();
            say(&mut uni, delta(1, crowd.clone())).await.unwrap();
        } else {
            say(&mut uni, snapshot(1, crowd.clone())).await.unwrap();
        }
        assert_eq!(closed_with(&conn.closed().await), Some(code::BANNED));
        eventually("blamed", || banned_for(&mesh, "not spread like hashes")).await;
    }
}

#[tokio::test]
async fn a_flood_of_holdings_messages_is_an_offence() {
    let mesh = start(config(1), &World::new([])).await;
    let (_endpoint, conn) = raw_stranger(&identity(5), &mesh).await;
    let mut uni = open_holdings(&conn).await;
    say(&mut uni, snapshot(0, spread(10, 0))).await.unwrap();
    for base in 0..1_000 {
        if say(&mut uni, delta(base, spread(1, 77 + base as u32))).await.is_err() {
            break;
        }
    }
    assert_eq!(closed_with(&conn.closed().await), Some(code::BANNED));
    eventually("blamed", || banned_for(&mesh, "flood of holdings")).await;
}

#[tokio::test]
async fn many_changes_have_to_wait_and_are_no_offence() {
    let mut limited = config(1);
    limited.limits.holdings_per_second = 1_000;
    limited.limits.holdings_burst = 1_000;
    let mesh = start(limited, &World::new([])).await;
    let (_endpoint, conn) = raw_stranger(&identity(5), &mesh).await;
    let mut uni = open_holdings(&conn).await;
    let started = Instant::now();
    say(&mut uni, snapshot(1, spread(1_000, 0))).await.unwrap();
    for base in 1..=3 {
        say(&mut uni, delta(base, spread(500, 0x5555_0000 + base as u32))).await.unwrap();
    }
    let known = || mesh.peers().first().and_then(|peer| peer.holdings).unwrap_or(0);
    eventually("the first", || known() >= 1_000).await;
    eventually("the last", || known() > 2_000).await;
    // The third has to wait for what the first two owe.
    assert!(started.elapsed() > Duration::from_millis(900), "{:?}", started.elapsed());
    assert_eq!(mesh.peers()[0].faults, 0);
}

#[tokio::test]
async fn one_address_gets_so_many_connections() {
    let mut limited = config(1);
    limited.limits.connections_per_address = 3;
    let mesh = start(limited, &World::new([])).await;
    let mut standing = Vec::new();
    for seed in 10..13 {
        standing.push(raw_stranger(&identity(seed), &mesh).await);
    }
    eventually("three", || mesh.peers().len() == 3).await;
    let late = identity(20);
    let endpoint = raw_endpoint(&late);
    let connect = || {
        let config = transport::client_config(&late, None, 0).unwrap();
        endpoint.connect_with(config, mesh.local_addrs()[0], SERVER_NAME).unwrap()
    };
    assert!(connect().await.is_err());
    assert_eq!(mesh.peers().len(), 3, "and nothing is kept of it");
    // One goes, one may come.
    let (_endpoint, gone) = standing.pop().unwrap();
    gone.close(0_u32.into(), b"");
    eventually("room", || {
        mesh.peers().iter().filter(|peer| peer.state == PeerState::Connected).count() == 2
    })
    .await;
    let _conn = raw_dial(&endpoint, &late, mesh.local_addrs()[0]).await;
}

#[tokio::test]
async fn nobody_is_remembered_beyond_the_limit() {
    let limits = Limits::default();
    assert_eq!((limits.peers, limits.connections), (PEERS_MAX, PEERS_MAX), "one truth");
    let mut limited = config(1);
    limited.limits.peers = 4;
    let mesh = start(limited, &World::new([])).await;
    // One after the other: those that are gone make room.
    for seed in 10..30 {
        let (_endpoint, conn) = raw_stranger(&identity(seed), &mesh).await;
        let there = || {
            mesh.peers()
                .iter()
                .any(|peer| peer.id == identity(seed).id() && peer.state == PeerState::Connected)
        };
        eventually("connected", there).await;
        conn.close(0_u32.into(), b"");
        eventually("gone", || !there()).await;
        assert!(mesh.peers().len() <= 4);
    }
    // All at once: the fifth is refused.
    let mut standing = Vec::new();
    for seed in 40..44 {
        standing.push(raw_stranger(&identity(seed), &mesh).await);
    }
    eventually("four", || {
        mesh.peers().iter().filter(|peer| peer.state == PeerState::Connected).count() == 4
    })
    .await;
    let (_endpoint, fifth) = raw_stranger(&identity(50), &mesh).await;
    assert_eq!(closed_with(&fifth.closed().await), Some(code::FULL));
    assert_eq!(mesh.peers().len(), 4);
}
