//! More peers than are told everything: portions, and questions to the homes of an entry.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use haulout_mesh::{Mesh, MeshConfig, PeerState, RequestError, frames};
use support::*;

/// Agents that tell everything to so many peers only.
const FULL_PEERS: usize = 4;

struct Agent {
    mesh: Mesh,
    world: Arc<World>,
    items: Vec<Item>,
}

fn crowded(seed: u8) -> MeshConfig {
    let mut config = config(seed);
    config.limits.full_peers = FULL_PEERS;
    config.limits.portion_look = Duration::from_secs(600);
    config
}

/// Agents that each know all others, with ten items of its own each.
async fn crowd(count: u8, configure: impl Fn(u8, &mut MeshConfig)) -> Vec<Agent> {
    let mut agents: Vec<Agent> = Vec::new();
    for seed in 1..=count {
        let mut config = crowded(seed);
        configure(seed, &mut config);
        let config = agents.iter().fold(config, |config, agent| with_peer(config, &agent.mesh));
        let items: Vec<Item> =
            (0..10).map(|n| Item::new(u32::from(seed) * 100 + n, 1_000, true)).collect();
        let world = World::new(items.clone());
        agents.push(Agent { mesh: start(config, &world).await, world, items });
    }
    for agent in &agents {
        connected(agent, usize::from(count) - 1).await;
    }
    agents
}

async fn connected(agent: &Agent, count: usize) {
    eventually("everybody is connected, and has told something", || {
        let peers = agent.mesh.peers();
        let up = |peer: &&haulout_mesh::PeerView| {
            peer.state == PeerState::Connected && peer.holdings.is_some()
        };
        peers.iter().filter(up).count() == count
    })
    .await;
}

/// Everybody finds everything that the others hold. Gives how often a question was needed.
async fn all_found(agents: &[Agent]) -> usize {
    let mut asked = 0;
    for asker in agents {
        for holder in agents.iter().filter(|holder| holder.mesh.id() != asker.mesh.id()) {
            for item in &holder.items {
                let known = || asker.mesh.who_has(&item.hash()) == [holder.mesh.id()];
                let begun = std::time::Instant::now();
                while !known() {
                    assert!(asker.mesh.knows_in_part());
                    asked += 1;
                    asker.mesh.locate(&item.hash()).await;
                    assert!(begun.elapsed() < Duration::from_secs(15), "not found");
                    tokio::task::yield_now().await;
                }
                if asked % 16 == 1 {
                    let (holder, hash) = (holder.mesh.id(), item.hash());
                    let infos = asker.mesh.path_infos(&holder, &hash, 1, SOON).await.unwrap();
                    assert_eq!(infos[0], item.info);
                }
            }
        }
    }
    asked
}

fn faults(agents: &[Agent]) -> u64 {
    agents.iter().flat_map(|agent| agent.mesh.peers()).map(|peer| peer.faults).sum()
}

fn in_part(mesh: &Mesh) -> usize {
    mesh.peers().iter().filter(|peer| peer.holdings_in_part).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_anybody_holds_is_found_by_asking_the_homes_of_its_entry() {
    let mut agents = crowd(12, |_, _| {}).await;
    eventually("most are told portions", || {
        agents.iter().all(|agent| in_part(&agent.mesh) > 0)
            && agents.iter().map(|agent| in_part(&agent.mesh)).sum::<usize>() >= 12 * 5
    })
    .await;
    assert!(all_found(&agents).await > 12, "some of it is not known without a question");

    // Something new, and something that goes.
    let late = Item::new(7_777, 1_000, true);
    agents[3].world.add(late.clone());
    let holder = agents[3].mesh.id();
    for asker in [&agents[0], &agents[7], &agents[11]] {
        found(&asker.mesh, &late, &[holder]).await;
    }
    agents[3].world.remove(&late.hash());
    for asker in [&agents[0], &agents[1], &agents[7]] {
        found(&asker.mesh, &late, &[]).await;
    }

    // Two go, whatever they are homes of.
    for _ in 0..2 {
        let gone = agents.remove(5);
        gone.mesh.shutdown().await;
    }
    for agent in &agents {
        connected(agent, 9).await;
    }
    all_found(&agents).await;
    assert_eq!(faults(&agents), 0);
}

/// Asks until the answer is that these hold it.
async fn found(mesh: &Mesh, item: &Item, holders: &[Peer]) {
    let begun = std::time::Instant::now();
    loop {
        mesh.locate(&item.hash()).await;
        let named = mesh.who_has(&item.hash());
        if named == holders {
            return;
        }
        for peer in named.iter().filter(|peer| !holders.contains(peer)) {
            // Who was told before may ask in vain, once; that is nobody's fault.
            let asked = mesh.path_infos(peer, &item.hash(), 1, SOON).await;
            assert_eq!(asked, Err(RequestError::No));
        }
        assert!(begun.elapsed() < Duration::from_secs(15), "not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_agent_is_told_everything_and_tells_everything() {
    let elder = |seed: u8, config: &mut MeshConfig| {
        if seed == 3 {
            config.minor = frames::MINOR_PORTIONS - 1;
        }
    };
    let agents = crowd(8, elder).await;
    eventually("the elder knows everything without a question", || {
        let known = |item: &Item, holder: &Agent| {
            agents[2].mesh.who_has(&item.hash()) == [holder.mesh.id()]
        };
        let others = agents.iter().filter(|agent| agent.mesh.id() != agents[2].mesh.id());
        others.into_iter().all(|agent| agent.items.iter().all(|item| known(item, agent)))
    })
    .await;
    assert_eq!(in_part(&agents[2].mesh), 0);
    assert!(!agents[2].mesh.knows_in_part());
    for agent in agents.iter().filter(|agent| agent.mesh.id() != agents[2].mesh.id()) {
        for item in &agents[2].items {
            let everybody = || agent.mesh.who_has(&item.hash()) == [agents[2].mesh.id()];
            eventually("all know what the elder has", everybody).await;
        }
    }
    all_found(&agents).await;
    assert_eq!(faults(&agents), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_peers_tell_each_other_everything_also_after_there_were_many() {
    let mut agents = crowd(5, |_, _| {}).await;
    for agent in &agents {
        assert_eq!(in_part(&agent.mesh), 0);
    }
    let more = crowd_with(&agents, 6..=8).await;
    eventually("portions", || more.iter().all(|agent| in_part(&agent.mesh) > 0)).await;
    for agent in more {
        agent.mesh.shutdown().await;
    }
    for agent in &agents {
        connected(agent, 4).await;
        eventually("everything again", || in_part(&agent.mesh) == 0).await;
    }
    assert_eq!(all_found(&agents).await, 0);
    assert_eq!(faults(&agents), 0);
    agents.clear();
}

async fn crowd_with(agents: &[Agent], seeds: std::ops::RangeInclusive<u8>) -> Vec<Agent> {
    let mut more: Vec<Agent> = Vec::new();
    for seed in seeds {
        let all = agents.iter().chain(&more);
        let config = all.fold(crowded(seed), |config, agent| with_peer(config, &agent.mesh));
        let world = World::new([Item::new(u32::from(seed) * 100, 1_000, true)]);
        more.push(Agent { mesh: start(config, &world).await, world, items: Vec::new() });
    }
    for agent in &more {
        connected(agent, agents.len() + more.len() - 1).await;
    }
    more
}

/// An agent that sees few others would not find anything by asking homes: it wants to be told everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sees_few_peers_is_told_everything_by_one_that_sees_many() {
    let mut agents = crowd(8, |_, config| config.limits.full_peers = 0).await;
    let mut lonely = with_peer(crowded(9), &agents[0].mesh);
    lonely.limits.portion_look = Duration::from_millis(50);
    let world = World::new([]);
    let lonely = Agent { mesh: start(lonely, &world).await, world, items: Vec::new() };
    eventually("everything", || {
        agents[0].items.iter().all(|item| lonely.mesh.who_has(&item.hash()).len() == 1)
    })
    .await;
    eventually("not as a portion", || in_part(&lonely.mesh) == 0).await;
    assert_eq!(lonely.mesh.peers()[0].holdings, Some(10));
    // And hears of changes.
    let late = Item::new(7_777, 1_000, true);
    agents[0].world.add(late.clone());
    eventually("news", || lonely.mesh.who_has(&late.hash()).len() == 1).await;
    agents.push(lonely);
    assert_eq!(faults(&agents), 0);
}
