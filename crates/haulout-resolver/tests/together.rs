//! Machines that fetch the same closure from one holder in the same second: real stores, the real mesh over loopback. What is
//! counted are the holder's bytes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use haulout_mesh::{
    Asker, Audience, Fault, HoldingsFeed, Identity, Mesh, MeshConfig, NarKey, NarReader, NarTree,
    PeerId, Serve, SitePiece, SiteRequest, SiteSource, StaticPeer,
};
use haulout_nix::db::StoreLocation;
use haulout_nix::{HashPart, KeySet, NarHash, PathInfo, SecretKey};
use haulout_resolver::{Resolver, ResolverConfig, Serving};
use haulout_sample::{Sample, SampleSpec};
use haulout_swarm::site::HOLDERS_ENOUGH;

fn key() -> SecretKey {
    SecretKey::from_seed("office-1", [7; 32]).unwrap()
}

struct Agent {
    resolver: Resolver,
    mesh: Mesh,
}

impl Agent {
    async fn start(root: &Path, seed: u8, peers: &[&Self], lies: bool) -> Self {
        let keys: KeySet = [key().public_key().clone()].into_iter().collect();
        let config = ResolverConfig::new(StoreLocation::chroot(root), keys);
        let serving = Serving::open(&config).unwrap();
        let serve = match lies {
            true => Arc::new(Liar(serving.serve())) as Arc<dyn Serve>,
            false => serving.serve(),
        };
        let mut mesh_config = MeshConfig::new(Identity::from_seed([seed; 32]).unwrap());
        mesh_config.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        mesh_config.mdns = false;
        mesh_config.static_peers = peers
            .iter()
            .map(|peer| StaticPeer { addr: peer.mesh.local_addrs()[0], key: None })
            .collect();
        let mesh = Mesh::start(mesh_config, serve).await.unwrap();
        Self { resolver: Resolver::start(&config, serving, Arc::new(mesh.clone())), mesh }
    }

    fn given(&self) -> u64 {
        self.mesh.peers().iter().map(|view| view.bytes_given).sum()
    }

    async fn nar(&self, info: &PathInfo) -> Option<Vec<u8>> {
        let mut body = self.resolver.nar(info.path.hash_part(), info.nar_hash, 0).await?;
        let mut all = Vec::new();
        while let Some(piece) = body.stream.next().await {
            all.extend_from_slice(&piece.ok()?);
        }
        Some(all)
    }

    /// Fetches everything as Nix does: narinfos, then NARs, several side by side. How many were good.
    async fn fetch(self: Arc<Self>, paths: Vec<PathInfo>) -> usize {
        for info in paths.iter().rev() {
            assert!(self.resolver.path_info(info.path.hash_part()).await.is_some());
        }
        let nars = paths.into_iter().map(|info| {
            let agent = Arc::clone(&self);
            async move {
                let nar = agent.nar(&info).await;
                nar.is_some_and(|nar| NarHash::of(&nar) == info.nar_hash)
            }
        });
        let good = futures_util::stream::iter(nars).buffer_unordered(8);
        good.filter(|good| std::future::ready(*good)).count().await
    }
}

/// Relays with a bit turned in every piece; everything else is as it should be.
struct Liar(Arc<dyn Serve>);

impl Serve for Liar {
    fn path_infos(&self, asker: &Asker, hash: &HashPart, max: usize) -> Vec<PathInfo> {
        self.0.path_infos(asker, hash, max)
    }
    fn nar_tree(&self, asker: &Asker, key: &NarKey) -> Option<NarTree> {
        self.0.nar_tree(asker, key)
    }
    fn open_nar(&self, asker: &Asker, key: &NarKey) -> Option<Box<dyn NarReader>> {
        self.0.open_nar(asker, key)
    }
    fn site(&self, asker: &Asker, request: SiteRequest) -> Box<dyn SiteSource> {
        Box::new(Twisted(self.0.site(asker, request)))
    }
    fn holdings(&self, audience: Audience) -> Option<Arc<HoldingsFeed>> {
        self.0.holdings(audience)
    }
}

struct Twisted(Box<dyn SiteSource>);

impl SiteSource for Twisted {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = SitePiece> + Send + '_>> {
        Box::pin(async {
            match self.0.next().await {
                SitePiece::Bytes(bytes) => {
                    let mut bytes = bytes.to_vec();
                    bytes[0] ^= 1;
                    SitePiece::Bytes(bytes.into())
                }
                end => end,
            }
        })
    }
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
        holders.push(Agent::start(dir.path(), 99 + n as u8, &[], false).await);
    }
    let mut agents: Vec<Arc<Agent>> = Vec::new();
    for n in 0..count {
        let mut peers: Vec<&Agent> = agents.iter().map(Arc::as_ref).collect();
        peers.extend(&holders);
        let agent =
            Agent::start(dirs[holding + n].path(), n as u8 + 1, &peers, liar == Some(n)).await;
        agents.push(Arc::new(agent));
    }
    let begun = Instant::now();
    let ready = |agent: &Agent| {
        let knows = |other: &Arc<Agent>| agent.mesh.standing_of(&other.mesh.id()).is_some();
        agents.iter().all(knows)
            && paths.iter().all(|info| agent.mesh.who_has(&info.path.hash_part()).len() == holding)
    };
    while !agents.iter().all(|agent| ready(agent)) {
        assert!(begun.elapsed() < Duration::from_secs(20), "they do not find each other");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let bytes = paths.iter().map(|info| info.nar_size).sum();
    Office { paths, bytes, holders, agents, _dirs: dirs }
}

impl Office {
    /// All at once; how many NARs each got right.
    async fn fetch(&self) -> Vec<usize> {
        let one = |agent: &Arc<Agent>| Arc::clone(agent).fetch(self.paths.clone());
        join_all(self.agents.iter().map(one)).await
    }

    fn given(&self) -> u64 {
        self.holders.iter().map(Agent::given).sum()
    }

    fn copies(&self) -> f64 {
        let copies = self.given() as f64 / self.bytes as f64;
        let others: Vec<f64> =
            self.agents.iter().map(|a| a.given() as f64 / self.bytes as f64).collect();
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
    let fetching = tokio::spawn(Arc::clone(&dying).fetch(office.paths.clone()));
    let living = office.fetch();
    let death = async {
        let begun = Instant::now();
        while dying.given() < office.bytes / 10 && begun.elapsed() < Duration::from_secs(30) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let gave = dying.given();
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
