//! Agents on machines of their own, joined by a switch: found, lost and found again as networks change under them.
//!
//! Each test makes network namespaces, which needs root; without it the tests say `SKIPPED`.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "tests")]

mod lan;
#[path = "../support/mod.rs"]
mod support;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use haulout_mesh::{Mesh, MeshConfig, PeerState};
use lan::{Addresses, Lan};
use support::*;

/// What "within seconds" means here. On a quiet machine everything takes half of it at most.
const SECONDS: Duration = Duration::from_secs(12);

/// As the program starts it: one socket for everything, multicast DNS.
fn agent(seed: u8) -> MeshConfig {
    let mut config = config(seed);
    config.listen = vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, 5299))];
    config.mdns = true;
    config
}

fn state(mesh: &Mesh, other: &Mesh) -> Option<PeerState> {
    mesh.peers().into_iter().find(|peer| peer.id == other.id()).map(|peer| peer.state)
}

/// Waits until `other` is found in the holdings, which takes a connection that works, and can be asked.
async fn reaches(what: &str, mesh: &Mesh, other: &Mesh, item: &Item) {
    let started = Instant::now();
    loop {
        if mesh.who_has(&item.hash()) == [other.id()]
            && mesh.path_infos(&other.id(), &item.hash(), 1, Duration::from_secs(1)).await.is_ok()
        {
            println!("{what}: {:?}", started.elapsed());
            return;
        }
        assert!(
            started.elapsed() < SECONDS,
            "not in time: {what}\nhere: {:#?}\nthere: {:#?}",
            mesh.peers(),
            other.peers()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn loses(what: &str, mesh: &Mesh, other: &Mesh, item: &Item) {
    let started = Instant::now();
    while !mesh.who_has(&item.hash()).is_empty() || state(mesh, other) == Some(PeerState::Connected)
    {
        assert!(started.elapsed() < SECONDS, "not in time: {what}: {:#?}", mesh.peers());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{what}: {:?}", started.elapsed());
}

/// Two agents that see each other; the second has `item`. The keys' order decides who dials, so both are tried.
async fn pair(lan: &Lan, item: &Item, seeds: (u8, u8)) -> (Mesh, Mesh) {
    let a = lan.hosts[0].start(agent(seeds.0), &World::new([]));
    let b = lan.hosts[1].start(agent(seeds.1), &World::new([item.clone()]));
    reaches("found", &a, &b, item).await;
    (a, b)
}

/// Address of `other` in use.
fn address(mesh: &Mesh, other: &Mesh) -> SocketAddr {
    mesh.peers().into_iter().find(|peer| peer.id == other.id()).unwrap().addrs[0]
}

const ORDERS: [(u8, u8); 2] = [(101, 102), (102, 101)];

#[tokio::test]
async fn found_by_ipv4() {
    log();
    let Some(lan) = Lan::new(2, Addresses::V4) else { return };
    let item = Item::new(1, 1_000, true);
    let (a, b) = pair(&lan, &item, ORDERS[0]).await;
    assert_eq!(address(&a, &b).ip(), IpAddr::from([10, 78, 0, 2]));
}

#[tokio::test]
async fn found_by_link_local_ipv6_alone() {
    log();
    let Some(lan) = Lan::new(2, Addresses::LinkLocal) else { return };
    let item = Item::new(1, 1_000, true);
    let (a, b) = pair(&lan, &item, ORDERS[0]).await;
    let SocketAddr::V6(addr) = address(&a, &b) else { panic!("{}", address(&a, &b)) };
    assert!(addr.ip().is_unicast_link_local() && addr.scope_id() != 0, "{addr}");
}

#[tokio::test]
async fn a_new_address_is_found() {
    log();
    for seeds in ORDERS {
        let Some(lan) = Lan::new(2, Addresses::V4) else { return };
        let item = Item::new(1, 1_000, true);
        let (a, b) = pair(&lan, &item, seeds).await;
        lan.hosts[1].ip("addr del 10.78.0.2/24 dev eth0");
        lan.hosts[1].ip("addr add 10.78.0.22/24 brd + dev eth0");
        tokio::time::sleep(Duration::from_millis(500)).await;
        reaches("after the change", &a, &b, &item).await;
        assert_eq!(address(&a, &b).ip(), IpAddr::from([10, 78, 0, 22]));
    }
}

#[tokio::test]
async fn an_interface_that_went_down_and_up_heals() {
    log();
    for (seeds, addresses) in ORDERS.into_iter().zip([Addresses::V4, Addresses::LinkLocal]) {
        let Some(lan) = Lan::new(2, addresses) else { return };
        let item = Item::new(1, 1_000, true);
        let (a, b) = pair(&lan, &item, seeds).await;
        lan.hosts[1].ip("link set eth0 down");
        loses("lost", &a, &b, &item).await;
        // Long enough for pauses between dials to have grown.
        tokio::time::sleep(Duration::from_secs(6)).await;
        lan.hosts[1].ip("link set eth0 up");
        reaches("healed", &a, &b, &item).await;
    }
}

#[tokio::test]
async fn a_pulled_cable_heals() {
    log();
    for seeds in ORDERS {
        let Some(lan) = Lan::new(2, Addresses::V4) else { return };
        let item = Item::new(1, 1_000, true);
        let (a, b) = pair(&lan, &item, seeds).await;
        lan.hosts[1].set_cable(false);
        loses("lost", &a, &b, &item).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        lan.hosts[1].set_cable(true);
        reaches("healed", &a, &b, &item).await;
    }
}

/// Nothing on either machine tells that the network between them has gone, or is back.
#[tokio::test]
async fn a_switch_that_forwards_nothing_for_a_while_heals() {
    log();
    let Some(lan) = Lan::new(2, Addresses::V4) else { return };
    let item = Item::new(1, 1_000, true);
    let (a, b) = pair(&lan, &item, ORDERS[0]).await;
    lan.hosts[1].set_forwarding(false);
    loses("lost", &a, &b, &item).await;
    // Longer than the connection's idle time-out, and long enough for pauses between dials to have grown.
    tokio::time::sleep(Duration::from_secs(36)).await;
    lan.hosts[1].set_forwarding(true);
    reaches("healed", &a, &b, &item).await;
}

/// As above, until the announcements have run out on both sides and nobody has a reason to announce or ask anything.
#[tokio::test]
async fn a_long_cut_heals_too() {
    log();
    let Some(lan) = Lan::new(2, Addresses::V4) else { return };
    let item = Item::new(1, 1_000, true);
    let (a, b) = pair(&lan, &item, ORDERS[0]).await;
    lan.hosts[1].set_forwarding(false);
    tokio::time::sleep(Duration::from_secs(150)).await;
    for mesh in [&a, &b] {
        assert!(mesh.peers().iter().all(|peer| !peer.discovered), "{:#?}", mesh.peers());
    }
    lan.hosts[1].set_forwarding(true);
    tokio::time::sleep(Duration::from_secs(25)).await;
    reaches("healed", &a, &b, &item).await;
}

#[tokio::test]
async fn started_before_there_is_an_address() {
    log();
    let Some(lan) = Lan::new(2, Addresses::None) else { return };
    let item = Item::new(1, 1_000, true);
    let a = lan.hosts[0].start(agent(101), &World::new([]));
    let b = lan.hosts[1].start(agent(102), &World::new([item.clone()]));
    tokio::time::sleep(Duration::from_secs(1)).await;
    lan.hosts[0].ip("addr add 10.78.0.1/24 brd + dev eth0");
    tokio::time::sleep(Duration::from_secs(3)).await;
    lan.hosts[1].ip("addr add 10.78.0.2/24 brd + dev eth0");
    reaches("found", &a, &b, &item).await;
}

#[tokio::test]
async fn a_peer_that_vanished_is_back_after_its_restart() {
    log();
    for seeds in ORDERS {
        let Some(lan) = Lan::new(2, Addresses::V4) else { return };
        let item = Item::new(1, 1_000, true);
        let (a, b) = pair(&lan, &item, seeds).await;
        // Its goodbyes go nowhere, as if it had lost its power.
        lan.hosts[1].set_cable(false);
        b.shutdown().await;
        loses("vanished", &a, &b, &item).await;
        drop(b);
        lan.hosts[1].set_cable(true);
        let b = lan.hosts[1].start(agent(seeds.1), &World::new([item.clone()]));
        reaches("back", &a, &b, &item).await;
    }
}
