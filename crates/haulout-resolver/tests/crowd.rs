//! Real stores and the real mesh, with more peers than are told everything: what one holds, all resolve.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use haulout_mesh::{Identity, Mesh, MeshConfig, PeerState, StaticPeer, frames};
use haulout_nix::db::StoreLocation;
use haulout_nix::{HashPart, NarHash, PathInfo, SecretKey};
use haulout_resolver::{Resolver, ResolverConfig, Serving};
use haulout_sample::{Sample, SampleSpec};
use tempfile::TempDir;

const AGENTS: u8 = 12;
const FULL_PEERS: usize = 4;
/// Speaks the version before portions.
const ELDER: usize = 4;

fn key() -> SecretKey {
    SecretKey::from_seed("office-1", [7; 32]).unwrap()
}

struct Agent {
    resolver: Resolver,
    mesh: Mesh,
    _dir: TempDir,
}

impl Agent {
    async fn start(dir: TempDir, seed: u8, minor: u16, peers: &[Self]) -> Self {
        let keys = [key().public_key().clone()].into_iter().collect();
        let config = ResolverConfig::new(StoreLocation::chroot(dir.path()), keys);
        let serving = Serving::open(&config).unwrap();
        let mut mesh_config = MeshConfig::new(Identity::from_seed([seed; 32]).unwrap());
        mesh_config.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        mesh_config.mdns = false;
        mesh_config.minor = minor;
        mesh_config.limits.full_peers = FULL_PEERS;
        mesh_config.static_peers = peers
            .iter()
            .map(|peer| StaticPeer { addr: peer.mesh.local_addrs()[0], key: None })
            .collect();
        let mesh = Mesh::start(mesh_config, serving.serve()).await.unwrap();
        let resolver = Resolver::start(&config, serving, Arc::new(mesh.clone()));
        Self { resolver, mesh, _dir: dir }
    }

    /// Asks until it is found: what was told a moment ago may still be on its way.
    async fn finds(&self, info: &PathInfo) {
        let begun = Instant::now();
        loop {
            if let Some(found) = self.resolver.path_info(info.path.hash_part()).await {
                assert_eq!(*found, *info);
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(15), "{} was not found", info.path);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn nar(&self, info: &PathInfo) -> Vec<u8> {
        let nar = self.resolver.nar(info.path.hash_part(), info.nar_hash, 0);
        let mut body = nar.await.unwrap_or_else(|| panic!("no NAR of {}", info.path));
        let mut all = Vec::new();
        while let Some(piece) = body.stream.next().await {
            all.extend_from_slice(&piece.unwrap());
        }
        all
    }
}

fn store(dir: &Path, seed: u64, paths: usize) -> Vec<PathInfo> {
    let key = key();
    let all = Sample::generate(dir, SampleSpec::new(seed, paths, 2 << 20, &key)).unwrap().paths;
    // What nobody signed is not shared.
    all.into_iter().filter(|info| !info.signatures.is_empty()).collect()
}

async fn settled(agents: &[Agent]) {
    let begun = Instant::now();
    let told = |agent: &Agent| {
        let peers = agent.mesh.peers();
        let up = peers.iter().filter(|peer| peer.state == PeerState::Connected);
        up.filter(|peer| peer.holdings.is_some()).count() == agents.len() - 1
    };
    while !agents.iter().all(told) {
        assert!(begun.elapsed() < Duration::from_secs(15), "not everybody is connected");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_crowd_everybody_resolves_what_anybody_holds() {
    let mut agents: Vec<Agent> = Vec::new();
    let (mut one, mut other) = (Vec::new(), Vec::new());
    for seed in 0..AGENTS {
        let dir = tempfile::tempdir().unwrap();
        match seed {
            0 => one = store(dir.path(), 3, 60),
            7 => other = store(dir.path(), 4, 60),
            _ => {}
        }
        let elder = usize::from(seed) == ELDER;
        let minor = if elder { frames::MINOR_PORTIONS - 1 } else { frames::MINOR_VERSION };
        let agent = Agent::start(dir, seed + 1, minor, &agents).await;
        agents.push(agent);
    }
    settled(&agents).await;

    let unknown =
        |agent: &Agent, info: &&PathInfo| agent.mesh.who_has(&info.path.hash_part()).is_empty();
    let mut asked = 0;
    for (at, asker) in agents.iter().enumerate() {
        for paths in [&one, &other] {
            if at == 0 && std::ptr::eq(paths, &one) || at == 7 && std::ptr::eq(paths, &other) {
                continue;
            }
            let unknown = paths.iter().filter(|info| unknown(asker, info)).count();
            assert!(at != ELDER || unknown == 0, "the elder is told everything");
            asked += unknown;
            // From the top of the closure, as Nix does, and some from anywhere.
            let some = paths.iter().rev().step_by(7).chain(paths.iter().step_by(20));
            for info in some {
                asker.finds(info).await;
            }
            for info in paths.iter().step_by(25) {
                assert_eq!(NarHash::of(&asker.nar(info).await), info.nar_hash);
            }
        }
    }
    assert!(asked > 100, "only {asked} of 1,200 were not known from holdings");

    // What nobody has is not here, at once or not.
    let nothing = HashPart::from_bytes([9; 20]);
    assert!(agents[2].resolver.path_info(nothing).await.is_none());

    // Two that may be homes of something go; then the first holder.
    for at in [9, 3] {
        agents.remove(at).mesh.shutdown().await;
    }
    settled(&agents).await;
    let first = agents.remove(0);
    first.mesh.shutdown().await;
    settled(&agents).await;
    for asker in &agents[..4] {
        for info in other.iter().step_by(6) {
            asker.finds(info).await;
        }
        assert!(asker.resolver.path_info(one[0].path.hash_part()).await.is_none());
    }
    let faults: u64 =
        agents.iter().flat_map(|agent| agent.mesh.peers()).map(|peer| peer.faults).sum();
    assert_eq!(faults, 0, "nobody is blamed for what others say of it");
}
