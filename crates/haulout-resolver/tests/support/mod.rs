//! Agents over real stores and the real mesh on loopback: what the tests of this crate set up.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use haulout_mesh::{Identity, Mesh, MeshConfig, Serve, StaticPeer};
use haulout_nix::db::StoreLocation;
use haulout_nix::{KeySet, NarHash, PathInfo, SecretKey};
use haulout_resolver::{Resolver, ResolverConfig, Serving};

pub(crate) mod liar;

/// What is waited for comes by then, on a machine with nothing to spare.
const PATIENCE: Duration = Duration::from_secs(60);

/// Signs the samples.
pub(crate) fn key() -> SecretKey {
    SecretKey::from_seed("office-1", [7; 32]).unwrap()
}

/// What agents believe.
pub(crate) fn keys() -> KeySet {
    [key().public_key().clone()].into_iter().collect()
}

/// An agent over the store below `root` that believes [`keys`].
pub(crate) fn resolver_config(root: &Path) -> ResolverConfig {
    ResolverConfig::new(StoreLocation::chroot(root), keys())
}

/// Waits until it is so.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "it never came to this: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Where agents are listening.
pub(crate) fn addresses<'a>(agents: impl IntoIterator<Item = &'a Mesh>) -> Vec<SocketAddr> {
    agents.into_iter().map(|mesh| mesh.local_addrs()[0]).collect()
}

/// A mesh on loopback that knows of these and finds nobody by itself.
pub(crate) fn mesh_config(identity: Identity, peers: Vec<SocketAddr>) -> MeshConfig {
    let mut config = MeshConfig::new(identity);
    config.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
    config.mdns = false;
    config.static_peers = peers.into_iter().map(|addr| StaticPeer { addr, key: None }).collect();
    config
}

/// The same seed gives the same.
pub(crate) fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32]).unwrap()
}

/// The parts of an agent that every test needs.
pub(crate) struct Agent {
    pub(crate) resolver: Resolver,
    pub(crate) mesh: Mesh,
}

impl Agent {
    /// Over the store below `root`, believing [`keys`].
    pub(crate) async fn on(root: &Path, seed: u8, peers: Vec<SocketAddr>) -> Self {
        Self::start(&resolver_config(root), mesh_config(identity(seed), peers)).await
    }

    pub(crate) async fn start(config: &ResolverConfig, mesh: MeshConfig) -> Self {
        Self::serving(config, mesh, |serve| serve).await
    }

    /// What it serves is passed through `through`.
    pub(crate) async fn serving(
        config: &ResolverConfig,
        mesh: MeshConfig,
        through: impl FnOnce(Arc<dyn Serve>) -> Arc<dyn Serve>,
    ) -> Self {
        let serving = Serving::open(config).unwrap();
        let mesh = Mesh::start(mesh, through(serving.serve())).await.unwrap();
        Self { resolver: Resolver::start(config, serving, Arc::new(mesh.clone())), mesh }
    }

    /// Waits until so many are known to hold a path.
    pub(crate) async fn knows(&self, info: &PathInfo, holders: usize) {
        let key = info.path.hash_part();
        until("holdings arrived", || self.mesh.who_has(&key).len() == holders).await;
    }

    /// The NAR of a path from byte `from`, if it can be had to its end.
    pub(crate) async fn nar_from(&self, info: &PathInfo, from: u64) -> Option<Vec<u8>> {
        let mut body = self.resolver.nar(info.path.hash_part(), info.nar_hash, from).await?;
        assert_eq!(body.size, info.nar_size);
        let mut all = Vec::new();
        while let Some(piece) = body.stream.next().await {
            all.extend_from_slice(&piece.ok()?);
        }
        Some(all)
    }

    pub(crate) async fn nar(&self, info: &PathInfo) -> Option<Vec<u8>> {
        self.nar_from(info, 0).await
    }

    /// Fetches everything as Nix does: narinfos, then NARs, several side by side. How many NARs
    /// were good.
    pub(crate) async fn fetch(&self, paths: &[PathInfo]) -> usize {
        for info in paths.iter().rev() {
            let found = self.resolver.path_info(info.path.hash_part()).await;
            assert_eq!(found.as_deref(), Some(info), "{} was not found", info.path);
        }
        let nars = paths.iter().cloned().map(|info| async move {
            let nar = self.nar(&info).await;
            let good = nar.is_some_and(|nar| NarHash::of(&nar) == info.nar_hash);
            if !good {
                eprintln!("the NAR of {} was not given", info.path);
            }
            good
        });
        let good = futures_util::stream::iter(nars).buffer_unordered(8);
        good.filter(|good| std::future::ready(*good)).count().await
    }

    /// Fetches everything, and all of it is good.
    pub(crate) async fn fetches(&self, paths: &[PathInfo]) {
        assert_eq!(self.fetch(paths).await, paths.len());
    }
}

/// Waits until all of them know that the others fetch for everybody.
pub(crate) async fn all_met(agents: impl Iterator<Item = &Mesh> + Clone) {
    let told = |mesh: &Mesh| {
        let willing =
            |other: &&Mesh| mesh.standing_of(&other.id()).is_some_and(|standing| standing.willing);
        agents.clone().filter(willing).count()
    };
    let count = agents.clone().count();
    until("they know each other", || agents.clone().all(|mesh| told(mesh) == count)).await;
}
