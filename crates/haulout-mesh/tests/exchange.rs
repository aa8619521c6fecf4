//! Agents that hand each other path infos, trees and NARs.

mod support;

use std::time::Duration;

use haulout_mesh::{Fault, PeerState, RequestError};
use support::*;

#[tokio::test]
async fn two_agents_exchange_infos_trees_and_ranges() {
    log();
    let big = Item::new(1, 3_000_000, true);
    let small = Item::new(2, 5_000, true);
    let private = Item::new(3, 5_000, false);
    let a_world = World::new([big.clone(), small.clone(), private.clone()]);
    let b_world = World::new([]);
    let a = start(config(1), &a_world).await;
    let b = start(with_peer(config(2), &a), &b_world).await;
    eventually("b knows what a has", || b.who_has(&big.hash()) == [a.id()]).await;
    assert!(b.who_has(&private.hash()).is_empty(), "strangers are not told");
    eventually("a sees b", || {
        a.peers().iter().any(|peer| peer.id == b.id() && peer.state == PeerState::Connected)
    })
    .await;

    let infos = b.path_infos(&a.id(), &small.hash(), 10, SOON).await.unwrap();
    assert_eq!(infos[0], small.info);
    assert_eq!(infos.len(), 3);
    let tree = b.nar_tree(&a.id(), &big.key(), SOON).await.unwrap();
    assert_eq!(tree.root, blake3::hash(&big.nar));

    for range in [0..3_000_000, 0..1, 2_999_999..3_000_000, 100_000..1_000_001, 262_144..524_288] {
        let mut stream = b.nar_range(&a.id(), &big.key(), range.clone(), SOON).await.unwrap();
        let got = read_all(&mut stream).await.unwrap();
        assert!(got == big.nar[range.start as usize..range.end as usize], "{range:?}");
        assert_eq!(stream.next().await, Ok(None));
    }

    assert_eq!(b.path_infos(&a.id(), &private.hash(), 1, SOON).await, Err(RequestError::No));
    assert!(matches!(
        b.nar_range(&a.id(), &private.key(), 0..10, SOON).await,
        Err(RequestError::No)
    ));
    let mut other_build = big.key();
    other_build.nar_size += 1;
    assert!(matches!(b.nar_range(&a.id(), &other_build, 0..10, SOON).await, Err(RequestError::No)));
    assert!(matches!(
        b.nar_range(&a.id(), &big.key(), 5..5, SOON).await,
        Err(RequestError::BadQuestion(_))
    ));
    assert!(matches!(
        b.nar_range(&a.id(), &big.key(), 5..3_000_001, SOON).await,
        Err(RequestError::BadQuestion(_))
    ));

    let view = b.peers().remove(0);
    assert!(
        view.bytes_taken > 3_000_000 && view.rtt.is_some() && view.holdings == Some(2),
        "{view:?}"
    );
    b.blame(&a.id(), Fault::WrongContent);
    eventually("a is banned", || {
        b.peers()[0].state == PeerState::Banned && b.who_has(&big.hash()).is_empty()
    })
    .await;
    assert!(matches!(
        b.path_infos(&a.id(), &small.hash(), 1, SOON).await,
        Err(RequestError::NotConnected | RequestError::Lost(_))
    ));
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test]
async fn holdings_follow_what_changes() {
    let a_world = World::new([]);
    let b_world = World::new([]);
    let a = start(config(3), &a_world).await;
    let b = start(with_peer(config(4), &a), &b_world).await;
    eventually("connected", || b.peers().iter().any(|peer| peer.holdings == Some(0))).await;
    let items: Vec<Item> = (0..50).map(|seed| Item::new(100 + seed, 100, true)).collect();
    for item in &items {
        a_world.add(item.clone());
    }
    eventually("all there", || items.iter().all(|item| b.who_has(&item.hash()) == [a.id()])).await;
    a_world.remove(&items[7].hash());
    eventually("one gone", || b.who_has(&items[7].hash()).is_empty()).await;
    assert_eq!(b.who_has(&items[8].hash()), [a.id()]);
    // And the other way, on the same connection.
    b_world.add(items[7].clone());
    eventually("b's", || a.who_has(&items[7].hash()) == [b.id()]).await;
    a.shutdown().await;
    eventually("a is gone", || b.who_has(&items[8].hash()).is_empty()).await;
}

#[tokio::test]
async fn five_agents_serve_each_other_in_parallel() {
    let worlds: Vec<_> = (0..5)
        .map(|agent| World::new((0..4).map(|n| Item::new(1_000 * (agent + 1) + n, 700_000, true))))
        .collect();
    let mut meshes = Vec::new();
    for (index, world) in worlds.iter().enumerate() {
        let mut config = config(20 + index as u8);
        // Eighty streams on a busy machine: pauses are not what this is about.
        config.stall_timeout = Duration::from_secs(15);
        for other in &meshes {
            config = with_peer(config, other);
        }
        meshes.push(start(config, world).await);
    }
    eventually("everybody knows everybody", || {
        meshes
            .iter()
            .all(|mesh| mesh.peers().iter().filter(|peer| peer.holdings == Some(4)).count() == 4)
    })
    .await;
    let mut tasks = tokio::task::JoinSet::new();
    for (index, mesh) in meshes.iter().enumerate() {
        for (other, world) in worlds.iter().enumerate().filter(|(other, _)| *other != index) {
            for item in world.items.lock().unwrap().values().cloned() {
                let (mesh, peer) = (mesh.clone(), meshes[other].id());
                tasks.spawn(async move {
                    assert_eq!(mesh.who_has(&item.hash()), [peer]);
                    let mut stream =
                        mesh.nar_range(&peer, &item.key(), 0..700_000, SOON).await.unwrap();
                    assert!(read_all(&mut stream).await.unwrap() == *item.nar);
                });
            }
        }
    }
    assert_eq!(tasks.len(), 80);
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_peer_that_never_answers_costs_the_deadline_and_no_more() {
    let item = Item::new(1, 1_000, true);
    let a_world = World::new([item.clone()]);
    *a_world.deaf_to.lock().unwrap() = Some(item.hash());
    let a = start(config(5), &a_world).await;
    let b = start(with_peer(config(6), &a), &World::new([])).await;
    eventually("connected", || b.peers().iter().any(|peer| peer.state == PeerState::Connected))
        .await;
    let started = std::time::Instant::now();
    let deadline = Duration::from_millis(100);
    assert_eq!(
        b.path_infos(&a.id(), &item.hash(), 1, deadline).await,
        Err(RequestError::Deadline(deadline))
    );
    assert!(started.elapsed() < Duration::from_millis(600));
}
