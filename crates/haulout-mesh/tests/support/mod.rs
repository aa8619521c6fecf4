//! A small world for the tests: an agent's content in memory, and meshes on loopback.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of this"
)]

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use haulout_mesh::{
    Asker, Audience, HoldingsFeed, Identity, Membership, Mesh, MeshConfig, NarKey, NarReader,
    NarTree, NarTreeBuilder, PeerId, ProofQuestion, Serve, SiteEnd, SitePiece, SiteRequest,
    SiteSource, StaticPeer,
};
use haulout_nix::{HashPart, NarHash, PathInfo, Signature, StorePath};

pub type Peer = PeerId;

pub const SOON: Duration = Duration::from_secs(5);

/// One thing that an agent holds.
#[derive(Clone)]
pub struct Item {
    pub info: PathInfo,
    pub nar: Arc<Vec<u8>>,
    /// Also for strangers.
    pub public: bool,
}

impl Item {
    pub fn new(seed: u32, size: usize, public: bool) -> Self {
        let nar = text(seed, size);
        let mut hash = [0; 20];
        hash.copy_from_slice(&blake3::hash(&seed.to_be_bytes()).as_bytes()[..20]);
        let path =
            StorePath::new(HashPart::from_bytes(hash), format!("item-{seed}").parse().unwrap());
        let info = PathInfo {
            references: vec![path.clone()],
            path,
            nar_hash: NarHash::of(&nar),
            nar_size: size as u64,
            deriver: None,
            signatures: vec![Signature::new("cache.example-1", [1; 64]).unwrap()],
            ca: None,
        };
        Self { info, nar: Arc::new(nar), public }
    }

    pub fn hash(&self) -> HashPart {
        self.info.path.hash_part()
    }

    pub fn key(&self) -> NarKey {
        NarKey { path: self.hash(), nar_hash: self.info.nar_hash, nar_size: self.info.nar_size }
    }
}

/// Compressible, different everywhere.
pub fn text(seed: u32, size: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(size + 64);
    let mut line = 0_u32;
    while out.len() < size {
        out.extend(
            format!("{seed} {line} the quick brown fox {}\n", line.wrapping_mul(2_654_435_761))
                .bytes(),
        );
        line += 1;
    }
    out.truncate(size);
    out
}

/// An agent's content. Everything can be changed while it runs.
pub struct World {
    pub items: Mutex<HashMap<HashPart, Item>>,
    pub members: Arc<HoldingsFeed>,
    pub strangers: Arc<HoldingsFeed>,
    pub calls: Mutex<Vec<Asker>>,
    /// Never answer for this path.
    pub deaf_to: Mutex<Option<HashPart>>,
    /// How requests for site objects are answered; nobody is served without.
    pub site: Mutex<Option<SiteAnswer>>,
    /// The proof of an archive that there is: of which, its version, the document.
    pub proof: Mutex<Option<([u8; 32], u64, Bytes)>>,
}

pub type SiteAnswer = Box<dyn Fn(SiteRequest) -> Box<dyn SiteSource> + Send>;

/// Pieces with pauses before them.
pub struct Script(pub std::collections::VecDeque<(Duration, SitePiece)>);

impl Script {
    pub fn source(pieces: impl IntoIterator<Item = (Duration, SitePiece)>) -> Box<dyn SiteSource> {
        Box::new(Self(pieces.into_iter().collect()))
    }
}

impl SiteSource for Script {
    fn next(&mut self) -> std::pin::Pin<Box<dyn Future<Output = SitePiece> + Send + '_>> {
        Box::pin(async {
            let Some((pause, piece)) = self.0.pop_front() else {
                return std::future::pending().await;
            };
            tokio::time::sleep(pause).await;
            piece
        })
    }
}

impl World {
    pub fn new(items: impl IntoIterator<Item = Item>) -> Arc<Self> {
        let world = Self {
            items: Mutex::default(),
            members: HoldingsFeed::new(),
            strangers: HoldingsFeed::new(),
            calls: Mutex::default(),
            deaf_to: Mutex::default(),
            site: Mutex::default(),
            proof: Mutex::default(),
        };
        for item in items {
            world.add(item);
        }
        Arc::new(world)
    }

    pub fn add(&self, item: Item) {
        self.members.change([], [item.hash().prefix()]);
        if item.public {
            self.strangers.change([], [item.hash().prefix()]);
        }
        self.items.lock().unwrap().insert(item.hash(), item);
    }

    pub fn remove(&self, hash: &HashPart) {
        if let Some(item) = self.items.lock().unwrap().remove(hash) {
            self.members.change([hash.prefix()], []);
            if item.public {
                self.strangers.change([hash.prefix()], []);
            }
        }
    }

    fn find(&self, asker: &Asker, hash: &HashPart) -> Option<Item> {
        self.calls.lock().unwrap().push(asker.clone());
        if *self.deaf_to.lock().unwrap() == Some(*hash) {
            std::thread::sleep(Duration::from_secs(3));
        }
        let item = self.items.lock().unwrap().get(hash).cloned()?;
        (item.public || asker.membership == Membership::Member).then_some(item)
    }
}

struct Memory(Arc<Vec<u8>>);

impl NarReader for Memory {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = self.0.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

impl Serve for World {
    fn path_infos(&self, asker: &Asker, hash: &HashPart, max: usize) -> Vec<PathInfo> {
        let Some(item) = self.find(asker, hash) else {
            return Vec::new();
        };
        let mut infos = vec![item.info];
        let items = self.items.lock().unwrap();
        infos.extend(
            items.values().filter(|other| other.hash() != *hash).map(|item| item.info.clone()),
        );
        infos.truncate(max);
        infos
    }

    fn nar_tree(&self, asker: &Asker, key: &NarKey) -> Option<NarTree> {
        let item = self.find(asker, &key.path)?;
        let mut builder = NarTreeBuilder::new();
        builder.update(&item.nar);
        Some(builder.finish())
    }

    fn open_nar(&self, asker: &Asker, key: &NarKey) -> Option<Box<dyn NarReader>> {
        let item = self.find(asker, &key.path)?;
        (item.key() == *key).then(|| Box::new(Memory(item.nar)) as Box<dyn NarReader>)
    }

    fn site(&self, _: &Asker, request: SiteRequest) -> Box<dyn SiteSource> {
        match &*self.site.lock().unwrap() {
            Some(answer) => answer(request),
            None => Box::new(SiteEnd::Refused),
        }
    }

    fn archive_proof(
        &self,
        _: &Asker,
        question: ProofQuestion,
    ) -> std::pin::Pin<Box<dyn Future<Output = Option<Bytes>> + Send + '_>> {
        let proof = self.proof.lock().unwrap().clone();
        let newer =
            proof.filter(|(of, version, _)| *of == question.archive && *version > question.known);
        Box::pin(async { newer.map(|(.., bytes)| bytes) })
    }

    fn holdings(&self, audience: Audience) -> Option<Arc<HoldingsFeed>> {
        Some(match audience {
            Membership::Member => Arc::clone(&self.members),
            Membership::Stranger => Arc::clone(&self.strangers),
        })
    }
}

pub fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32]).unwrap()
}

/// A quiet configuration on loopback: no mDNS, any port.
pub fn config(seed: u8) -> MeshConfig {
    let mut config = MeshConfig::new(identity(seed));
    config.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
    config.mdns = false;
    config
}

pub fn with_peer(mut config: MeshConfig, of: &Mesh) -> MeshConfig {
    config.static_peers.push(StaticPeer { addr: of.local_addrs()[0], key: Some(of.id()) });
    config
}

pub async fn start(config: MeshConfig, world: &Arc<World>) -> Mesh {
    Mesh::start(config, Arc::clone(world) as Arc<dyn Serve>).await.unwrap()
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(15), "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn read_all(
    stream: &mut haulout_mesh::NarStream,
) -> Result<Vec<u8>, haulout_mesh::StreamError> {
    let mut out = Vec::new();
    while let Some(piece) = stream.next().await? {
        out.extend_from_slice(&piece);
    }
    Ok(out)
}

pub fn log() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
}
