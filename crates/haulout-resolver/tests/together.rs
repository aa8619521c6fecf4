//! Machines that fetch the same closure from one holder in the same second: real stores, the real mesh over loopback. What is
//! counted are the holder's bytes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use haulout_mesh::{Fault, PeerId};
use haulout_nix::PathInfo;
use haulout_sample::{Sample, SampleSpec};
use haulout_swarm::site::HOLDERS_ENOUGH;
use support::liar::lying;
use support::{Agent, addresses, identity, key, mesh_config, resolver_config, until};

async fn agent(root: &Path, seed: u8, peers: &[&Agent], lies: bool) -> Agent {
    let mesh = mesh_config(identity(seed), addresses(peers.iter().map(|peer| &peer.mesh)));
    Agent::serving(&resolver_config(root), mesh, lying(lies, |_| true)).await
}

fn given(agent: &Agent) -> u64 {
    agent.mesh.peers().iter().map(|view| view.bytes_given).sum()
}

struct Office {
    paths: Vec<PathInfo>,
    bytes: u64,
    holders: Vec<Agent>,
    agents: Vec<Arc<Agent>>,
    _dirs: Vec<tempfile::TempDir>,
}

/// A holder of a closure and `count` agents with empty stores that all know each other. Agent `liar` relays wrong bytes.
async fn office(count: usize, bytes: u64, liar: Option<usize>) -> Office {
    office_with(1, count, bytes, liar).await
}

/// The same with several holders.
async fn office_with(holding: usize, count: usize, bytes: u64, liar: Option<usize>) -> Office {
    let dirs: Vec<_> = (0..holding + count).map(|_| tempfile::tempdir().unwrap()).collect();
    let key = key();
    let (mut paths, mut holders) = (Vec::new(), Vec::new());
    for (n, dir) in dirs[..holding].iter().enumerate() {
        let spec = SampleSpec { content_addressed: 0, ..SampleSpec::new(3, 60, bytes, &key) };
        paths = Sample::generate(dir.path(), spec).unwrap().paths;
        holders.push(agent(dir.path(), 99 + n as u8, &[], false).await);
    }
    let mut agents: Vec<Arc<Agent>> = Vec::new();
    for n in 0..count {
        let mut peers: Vec<&Agent> = agents.iter().map(Arc::as_ref).collect();
        peers.extend(&holders);
        let lies = liar == Some(n);
        let agent = agent(dirs[holding + n].path(), n as u8 + 1, &peers, lies).await;
        agents.push(Arc::new(agent));
    }
    let ready = |agent: &Agent| {
        let knows = |other: &Arc<Agent>| agent.mesh.standing_of(&other.mesh.id()).is_some();
        agents.iter().all(knows)
            && paths.iter().all(|info| agent.mesh.who_has(&info.path.hash_part()).len() == holding)
    };
    until("they know each other", || agents.iter().all(|agent| ready(agent))).await;
    let bytes = paths.iter().map(|info| info.nar_size).sum();
    Office { paths, bytes, holders, agents, _dirs: dirs }
}

impl Office {
    /// All at once; how many NARs each got right.
    async fn fetch(&self) -> Vec<usize> {
        join_all(self.agents.iter().map(|agent| agent.fetch(&self.paths))).await
    }

    fn given(&self) -> u64 {
        self.holders.iter().map(given).sum()
    }

    fn copies(&self) -> f64 {
        let copies = self.given() as f64 / self.bytes as f64;
        let others: Vec<f64> =
            self.agents.iter().map(|agent| given(agent) as f64 / self.bytes as f64).collect();
        println!("who held it gave {copies:.3} × the closure, the fetchers {others:.2?}");
        copies
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_in_step_cost_their_holder_about_one_closure() {
    let office = office(4, 48 << 20, None).await;
    let all = office.fetch().await;
    assert_eq!(all, [office.paths.len(); 4]);
    let copies = office.copies();
    assert!(copies <= 1.5, "{copies:.3}");
    for agent in &office.agents {
        let views = agent.mesh.peers();
        assert!(views.iter().all(|view| view.banned_for.is_none()), "{views:?}");
        assert!(agent.resolver.stats().bytes_fellows_out.get() > office.bytes / 8, "all give");
    }
    assert!(office.given() >= office.bytes - (office.bytes >> 6), "somebody must have brought it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_many_hold_it_they_are_asked_alone() {
    let office = office_with(HOLDERS_ENOUGH, 2, 12 << 20, None).await;
    let all = office.fetch().await;
    assert_eq!(all, [office.paths.len(); 2]);
    let copies = office.copies();
    assert!(copies > 1.9, "{copies:.3}");
    for agent in &office.agents {
        assert_eq!(agent.resolver.stats().bytes_fellows_out.get(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_dies_in_the_middle_is_not_missed() {
    let mut office = office(4, 48 << 20, None).await;
    let dying = office.agents.pop().unwrap();
    let (fetcher, paths) = (Arc::clone(&dying), office.paths.clone());
    let fetching = tokio::spawn(async move { fetcher.fetch(&paths).await });
    let living = office.fetch();
    let death = async {
        let begun = Instant::now();
        while given(&dying) < office.bytes / 10 && begun.elapsed() < Duration::from_secs(30) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let gave = given(&dying);
        fetching.abort();
        dying.mesh.shutdown().await;
        gave
    };
    let (all, gave) = tokio::join!(living, death);
    assert_eq!(all, [office.paths.len(); 3]);
    assert!(gave > 0, "it had begun to relay");
    let copies = office.copies();
    assert!(copies <= 2.0, "{copies:.3}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_relays_wrong_bytes_costs_a_retry_and_is_found_out() {
    let office = office(4, 48 << 20, Some(0)).await;
    let liar = office.agents[0].mesh.id();
    let honest = &office.agents[1..];
    let blamed = |agent: &Arc<Agent>, who: &dyn Fn(PeerId) -> bool| {
        agent.mesh.peers().iter().any(|view| {
            let wrong = view
                .faults_by_kind
                .iter()
                .any(|(fault, n)| *fault == Fault::WrongContent && *n > 0);
            wrong && who(view.id)
        })
    };
    let noticed = || honest.iter().any(|agent| blamed(agent, &|peer| peer == liar));
    // One that is slow is asked for little: it has to be caught several times.
    for round in 1..=4 {
        let all = office.fetch().await;
        assert_eq!(all, [office.paths.len(); 4]);
        let copies = office.copies() / f64::from(round);
        assert!(copies <= 3.0, "{copies:.3}");
        if noticed() {
            break;
        }
    }
    assert!(noticed(), "nobody noticed");
    for agent in &office.agents {
        assert!(!blamed(agent, &|peer| peer != liar), "an honest one was blamed");
    }
}
