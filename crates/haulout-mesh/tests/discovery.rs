//! Agents that find each other by multicast DNS, here on the loopback interface.

mod support;

use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use haulout_mesh::{Mesh, MeshConfig, MeshSecret, PeerState};
use support::*;

fn on_loopback(seed: u8) -> MeshConfig {
    let mut config = config(seed);
    config.listen = vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))];
    config.mdns = true;
    // Only loopback, whatever else the machine has.
    config.interfaces.allow = vec!["lo".into()];
    config
}

fn sees(mesh: &Mesh, other: &Mesh) -> bool {
    mesh.peers().iter().any(|peer| peer.id == other.id() && peer.state == PeerState::Connected)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_find_each_other_and_notice_a_goodbye() {
    log();
    let item = Item::new(1, 1_000, true);
    let a = start(on_loopback(201), &World::new([item.clone()])).await;
    let started = Instant::now();
    let b = start(on_loopback(202), &World::new([])).await;
    eventually("they see each other", || sees(&a, &b) && sees(&b, &a)).await;
    let took = started.elapsed();
    println!("found in {took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
    eventually("and what is there", || b.who_has(&item.hash()) == [a.id()]).await;
    let view = b.peers().into_iter().find(|peer| peer.id == a.id()).unwrap();
    assert!(
        view.discovered || a.peers().iter().any(|peer| peer.id == b.id() && peer.discovered),
        "{view:?}"
    );
    let c = start(on_loopback(203), &World::new([])).await;
    eventually("the third", || sees(&c, &a) && sees(&c, &b) && sees(&a, &c)).await;
    a.shutdown().await;
    eventually("the goodbye", || !sees(&b, &a) && !sees(&c, &a)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_mesh_does_not_dial_others() {
    let secret = MeshSecret::derive(b"correct horse battery staple").unwrap();
    let closed = |seed| {
        let mut config = on_loopback(seed);
        config.secret = Some(secret.clone());
        config
    };
    let a = start(closed(211), &World::new([])).await;
    let b = start(closed(212), &World::new([])).await;
    let open = start(on_loopback(213), &World::new([])).await;
    eventually("members find each other", || sees(&a, &b) && sees(&b, &a)).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    for member in [&a, &b] {
        assert!(!sees(member, &open) && !sees(&open, member));
    }
}
