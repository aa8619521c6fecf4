//! NARs kept in the cache: written while they pass, given to the local Nix and
//! to peers, over restarts and kills, within the quota.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use haulout_cache::{Cache, CacheConfig, OpenError, UnixTime};
use haulout_gateway::Substituter as _;
use haulout_mesh::Identity;
use haulout_nix::{NarHash, PathInfo};
use haulout_resolver::{KeepNars, ResolverConfig};
use haulout_sample::{Sample, SampleSpec, SampleStore};
use support::{addresses, key, mesh_config, resolver_config, until};
use tempfile::TempDir;

/// What one agent has on disk.
struct Machine {
    dir: TempDir,
    keep: KeepNars,
    quota: u64,
}

impl Machine {
    fn new(keep: KeepNars) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), keep, quota: 1 << 30 }
    }

    fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("root")
    }

    fn cache(&self) -> std::path::PathBuf {
        self.dir.path().join("cache")
    }

    async fn start(&self, peers: &[&Agent]) -> Agent {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let config = CacheConfig { quota_bytes: self.quota, ..CacheConfig::default() };
        // The directory is free once the last thread has let go of it.
        let begun = Instant::now();
        let cache = loop {
            match Cache::open(&self.cache(), config.clone(), UnixTime(now)) {
                Err(OpenError::InUse { .. }) if begun.elapsed() < Duration::from_secs(10) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                opened => break opened.unwrap(),
            }
        };
        let config = ResolverConfig {
            cache: Some(cache.clone()),
            keep_nars: self.keep,
            ..resolver_config(&self.root())
        };
        let peers = addresses(peers.iter().map(|peer| &peer.mesh));
        let mesh = mesh_config(Identity::generate().unwrap(), peers);
        Agent { all: support::Agent::start(&config, mesh).await, cache }
    }
}

struct Agent {
    all: support::Agent,
    cache: Cache,
}

impl std::ops::Deref for Agent {
    type Target = support::Agent;

    fn deref(&self) -> &support::Agent {
        &self.all
    }
}

impl Agent {
    /// The NAR of a path that it has to find first.
    async fn found(&self, info: &PathInfo) -> Option<Vec<u8>> {
        self.resolver.path_info(info.path.hash_part()).await?;
        self.nar(info).await
    }

    async fn fetches(&self, info: &PathInfo) {
        let Some(nar) = self.found(info).await else {
            let why = self.resolver.why(info.path.hash_part()).await;
            panic!("{} was not found: {why:?} {:?}", info.path, self.mesh.peers());
        };
        assert_eq!(NarHash::of(&nar), info.nar_hash);
    }

    async fn keeps(&self, count: u64) {
        until("NARs were kept", || self.resolver.stats().nar_kept.get() == count).await;
    }

    /// Ends it, as far as an agent can end within a test.
    async fn stop(self) {
        self.mesh.shutdown().await;
    }
}

fn office(dir: &Path, paths: usize, bytes: u64) -> SampleStore {
    let key = key();
    let spec = SampleSpec { content_addressed: 0, ..SampleSpec::new(3, paths, bytes, &key) };
    Sample::generate(dir, spec).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passed_once_is_given_again_without_its_source_and_after_a_restart() {
    let (a, b, c) =
        (Machine::new(KeepNars::Never), Machine::new(KeepNars::All), Machine::new(KeepNars::Never));
    let store = office(&a.root(), 30, 24 << 20);
    let source = a.start(&[]).await;
    let keeper = b.start(&[&source]).await;
    keeper.knows(&store.paths[0], 1).await;
    for info in &store.paths {
        keeper.fetches(info).await;
    }
    keeper.keeps(store.paths.len() as u64).await;
    assert_eq!(source.resolver.stats().nar_kept.get(), 0);
    source.stop().await;

    // For the local Nix.
    for info in &store.paths {
        keeper.fetches(info).await;
    }
    assert_eq!(keeper.resolver.stats().nar_cache.get(), store.paths.len() as u64);
    // For peers: the sharing rule sees the same signatures as in a store.
    let other = c.start(&[&keeper]).await;
    for info in &store.paths {
        other.knows(info, 1).await;
        other.fetches(info).await;
    }
    other.stop().await;

    // After a restart, every file is hashed again before it is given.
    keeper.stop().await;
    let largest = store.paths.iter().max_by_key(|info| info.nar_size).unwrap();
    let file = b.cache().join("nar").join(format!("{}.nar", largest.nar_hash.to_nix32()));
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let keeper = b.start(&[]).await;
    let other = c.start(&[&keeper]).await;
    other.knows(largest, 1).await;
    for info in store.paths.iter().filter(|info| *info != largest) {
        other.fetches(info).await;
        keeper.fetches(info).await;
    }
    assert!(keeper.found(largest).await.is_none(), "damaged on disk");
    other.knows(largest, 0).await;
    assert!(other.found(largest).await.is_none());
    other.stop().await;
    keeper.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_store_of_its_own_only_what_is_asked_for_is_kept() {
    let (a, b) = (Machine::new(KeepNars::Never), Machine::new(KeepNars::Auto));
    let store = office(&a.root(), 10, 2 << 20);
    let source = a.start(&[]).await;
    // Without a store, this machine's copy is the only one it has.
    let keeper = b.start(&[&source]).await;
    keeper.knows(&store.paths[0], 1).await;
    keeper.fetches(&store.paths[0]).await;
    keeper.keeps(1).await;
    // With one, Nix is about to register what it fetches.
    haulout_sample::create_empty(&b.root()).unwrap();
    keeper.fetches(&store.paths[1]).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(keeper.cache.stats().nars, 1);
    keeper.stop().await;
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_info_lost_in_a_kill_costs_one_question() {
    let (a, b) = (Machine::new(KeepNars::Never), Machine::new(KeepNars::All));
    let store = office(&a.root(), 10, 2 << 20);
    let source = a.start(&[]).await;
    let keeper = b.start(&[&source]).await;
    keeper.knows(&store.paths[0], 1).await;
    keeper.fetches(&store.paths[0]).await;
    keeper.keeps(1).await;
    keeper.stop().await;
    // As after a kill before the index was written: the NAR is there, and nothing else.
    std::fs::remove_file(b.cache().join("index.redb")).unwrap();
    std::fs::write(b.cache().join("tmp").join("1.part"), "half a NAR").unwrap();
    let keeper = b.start(&[&source]).await;
    assert_eq!(keeper.cache.stats().nars, 1);
    keeper.knows(&store.paths[0], 1).await;
    keeper.fetches(&store.paths[0]).await;
    assert_eq!(keeper.resolver.stats().nar_cache.get(), 1);
    assert_eq!(keeper.resolver.stats().nar_peers.get(), 0);
    keeper.stop().await;
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quota_holds_and_what_was_evicted_is_no_longer_announced() {
    let a = Machine::new(KeepNars::Never);
    let store = office(&a.root(), 60, 24 << 20);
    let source = a.start(&[]).await;
    // One NAR may take a quarter of the quota.
    let quota = 512 << 10;
    let fits: Vec<_> = store.paths.iter().filter(|info| info.nar_size <= quota / 4).collect();
    assert!(fits.iter().map(|info| info.nar_size).sum::<u64>() > quota, "not all have room");
    let b = Machine { quota, ..Machine::new(KeepNars::All) };
    let keeper = b.start(&[&source]).await;
    keeper.knows(&store.paths[0], 1).await;
    for (count, info) in (1..).zip(&fits) {
        keeper.fetches(info).await;
        keeper.keeps(count).await;
        assert!(keeper.cache.stats().used_bytes <= quota);
    }
    source.stop().await;
    let c = Machine::new(KeepNars::Never);
    let other = c.start(&[&keeper]).await;
    let kept = || fits.iter().filter(|info| keeper.cache.has_nar(&info.nar_hash).is_some());
    assert!(kept().count() < fits.len());
    let announced = |agent: &Agent| {
        fits.iter().filter(|info| !agent.mesh.who_has(&info.path.hash_part()).is_empty()).count()
    };
    until("announced is what is kept", || announced(&other) == kept().count()).await;
    for info in kept() {
        other.fetches(info).await;
    }
    other.stop().await;
    keeper.stop().await;
}
