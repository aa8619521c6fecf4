//! narinfos over loopback HTTP: an agent with 50,000 paths of its own and 1,000 peers
//! with as many each, beside nginx with a file for each hit.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use haulout_gateway::GatewayConfig;
use haulout_mesh::{NarKey, NarTree};
use haulout_nix::db::StoreLocation;
use haulout_nix::{HashPart, KeySet, NarHash, NarInfo, PathInfo, SecretKey, StorePath};
use haulout_resolver::peers::{Answer, Chunks, NoPeers, Patience, PeerError, Peers};
use haulout_resolver::{Resolver, ResolverConfig, Serving};
use haulout_swarm::{Fault, PeerId};
use tokio::sync::oneshot;

use super::directory::{Crowd, mix};
use super::figure::{Figure, Goal};
use super::load::{Latencies, ask};
use crate::control::block_on;
use crate::error::{Context, Failure, Outcome};

const PATHS: u64 = 50_000;
const REQUESTS: usize = 4000;
/// Of the hits, so many different ones.
const ASKED: u64 = 2000;
/// nginx is up within this, or it is left out.
const NGINX_PATIENCE: Duration = Duration::from_secs(3);

/// Peers whose holdings are known, and one that answers at once: look-ups cost what they
/// cost in the agent, packets aside.
struct KnownPeers {
    crowd: haulout_swarm::directory::Directory,
    infos: HashMap<HashPart, PathInfo>,
}

const ANSWERING: PeerId = PeerId::from_bytes([9; 32]);

impl Peers for KnownPeers {
    fn who_has(&self, hash: &HashPart) -> Vec<PeerId> {
        let crowd = self.crowd.who_has(hash.prefix(), 0).into_iter();
        self.infos.contains_key(hash).then_some(ANSWERING).into_iter().chain(crowd).collect()
    }

    fn undeclared(&self) -> Vec<PeerId> {
        Vec::new()
    }

    fn path_infos(
        &self,
        _: PeerId,
        hash: HashPart,
        _: usize,
        _: Patience,
    ) -> Answer<Result<Vec<PathInfo>, PeerError>> {
        let answer = self.infos.get(&hash).cloned().ok_or(PeerError::No);
        Box::pin(async { Ok(vec![answer?]) })
    }

    fn nar_tree(&self, peer: PeerId, key: NarKey) -> Answer<Result<NarTree, PeerError>> {
        NoPeers.nar_tree(peer, key)
    }

    fn nar_range(
        &self,
        peer: PeerId,
        key: NarKey,
        range: Range<u64>,
    ) -> Answer<Result<Box<dyn Chunks>, PeerError>> {
        NoPeers.nar_range(peer, key, range)
    }

    fn blame(&self, _: PeerId, _: Fault) {}

    fn hedge_delay(&self) -> Duration {
        NoPeers.hedge_delay()
    }
}

/// Measures.
pub(super) fn run(crowd: &Crowd) -> Outcome<Vec<Figure>> {
    let making = || "cannot make a store to measure with".to_owned();
    let dir = tempfile::tempdir().context(making)?;
    let key = SecretKey::from_seed("bench-1", [7; 32]).context(making)?;
    let location = haulout_sample::create_empty(dir.path()).context(making)?;
    let infos = (0..PATHS).map(|n| path_info(n, &location, &key)).collect::<Outcome<Vec<_>>>()?;
    haulout_sample::register_all(&location, &infos).context(making)?;

    let name = |hash: &dyn std::fmt::Display| format!("/{hash}.narinfo");
    let of_peers = (PATHS..PATHS + ASKED).map(|n| path_info(n, &location, &key));
    let of_peers = of_peers.collect::<Outcome<Vec<_>>>()?;
    let names =
        |infos: &[PathInfo]| infos.iter().map(|info| name(&info.path.hash_part())).collect();
    let hits = names(&of_peers);
    let own = names(&infos[..ASKED as usize]);
    // Prefixes that no peer has announced: every one is a miss that memory answers.
    let miss = (PATHS * 2..).map(hash_part);
    let miss = miss.filter(|hash| !crowd.directory.anybody_has(hash.prefix()));
    let misses = miss.take(ASKED as usize).map(|hash| name(&hash)).collect();
    let paths = [Arc::new(hits), Arc::new(misses), Arc::new(own)];

    let files = dir.path().join("files");
    let nginx = Nginx::start(&files, &[&of_peers, &infos[..ASKED as usize]].concat(), &location)?;
    let mut keys = KeySet::new();
    keys.insert(key.public_key().clone());
    let config = ResolverConfig::new(location, keys);
    let serving = Serving::open(&config).context(making)?;
    let by_hash = of_peers.into_iter().map(|info| (info.path.hash_part(), info)).collect();
    let peers = Arc::new(KnownPeers { crowd: crowd.directory.clone(), infos: by_hash });
    block_on(async {
        let resolver = Arc::new(Resolver::start(&config, serving, peers));
        let gateway = Gateway::start(resolver)?;
        let figures = figures(gateway.address, nginx.as_ref(), &paths).await;
        gateway.stop();
        figures
    })
}

async fn figures(
    agent: SocketAddr,
    nginx: Option<&Nginx>,
    paths: &[Arc<Vec<String>>; 3],
) -> Outcome<Vec<Figure>> {
    let mut figures = Vec::new();
    let first = ask(agent, &paths[0], 200, 1, ASKED as usize).await?;
    figures.push(Figure::new("narinfo, asked for the first time, p50", "ms", first.ms(0.5)));
    // Goals of p50 for one connection, of p99 for sixteen.
    for (paths, what, status, p50) in [
        (&paths[0], "hit, known from a peer", 200, 0.10),
        (&paths[1], "miss", 404, 0.08),
        (&paths[2], "hit, own store", 200, 0.10),
    ] {
        for connections in [1, 16] {
            let ask = |server| ask(server, paths, status, connections, REQUESTS / connections);
            let ours = ask(agent).await?;
            let theirs = match nginx {
                Some(nginx) => Some(ask(nginx.address).await?),
                None => None,
            };
            for (quantile, text) in [(0.5, "p50"), (0.99, "p99")] {
                let plural = if connections == 1 { "" } else { "s" };
                let what = format!("narinfo {what}, {connections} connection{plural}, {text}");
                let theirs = theirs.as_ref().map(|theirs: &Latencies| theirs.ms(quantile));
                let figure =
                    Figure::new(what, "ms", ours.ms(quantile)).than("nginx, a file", theirs);
                figures.push(match (connections, text) {
                    (1, "p50") => figure.goal(Goal::AtMost(p50)),
                    (16, "p99") => figure.goal(Goal::AtMost(2.0)),
                    _ => figure,
                });
            }
        }
    }
    Ok(figures)
}

fn hash_part(number: u64) -> HashPart {
    let mut bytes = [0; 20];
    for (piece, n) in bytes.chunks_mut(8).zip(0..) {
        piece.copy_from_slice(&mix(number << 8 | n).to_be_bytes()[..piece.len()]);
    }
    HashPart::from_bytes(bytes)
}

fn path_info(number: u64, location: &StoreLocation, key: &SecretKey) -> Outcome<PathInfo> {
    let name = format!("package-1.{number}").parse();
    let name = name.context(|| "cannot name a path".to_owned())?;
    let mut info = PathInfo {
        path: StorePath::new(hash_part(number), name),
        nar_hash: NarHash::of(&number.to_le_bytes()),
        nar_size: 1000 + number,
        references: Vec::new(),
        deriver: None,
        signatures: Vec::new(),
        ca: None,
    };
    info.signatures.push(info.sign(&location.store_dir, key));
    Ok(info)
}

/// The HTTP side on a thread of its own, as in the agent.
struct Gateway {
    address: SocketAddr,
    end: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Gateway {
    fn start(resolver: Arc<Resolver>) -> Outcome<Self> {
        let starting = || "cannot start the substituter".to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context(starting)?;
        let address = listener.local_addr().context(starting)?;
        let (end, ended) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let _ = block_on(async {
                let end = async { ended.await.unwrap_or_default() };
                haulout_gateway::serve(listener, resolver, GatewayConfig::default(), end)
                    .await
                    .context(starting)
            });
        });
        Ok(Self { address, end, thread })
    }

    fn stop(self) {
        drop(self.end);
        let _ = self.thread.join();
    }
}

/// nginx with some narinfos as files; killed when dropped.
struct Nginx {
    child: Child,
    address: SocketAddr,
}

impl Nginx {
    /// `None` when it is not installed or does not start.
    fn start(dir: &Path, infos: &[PathInfo], location: &StoreLocation) -> Outcome<Option<Self>> {
        let making = || "cannot write files for nginx".to_owned();
        std::fs::create_dir_all(dir).context(making)?;
        for info in infos {
            let text = NarInfo::raw(info.clone()).to_text(&location.store_dir);
            let file = dir.join(format!("{}.narinfo", info.path.hash_part()));
            std::fs::write(file, text).context(making)?;
        }
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
        let address = free.context(making)?;
        let place = dir.display();
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let conf = format!(
            "daemon off; {user} worker_processes 1; pid {place}/pid; error_log stderr crit;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; keepalive_requests 1000000; sendfile on; tcp_nopush on;\n\
               client_body_temp_path {place}/a; proxy_temp_path {place}/b;\n\
               fastcgi_temp_path {place}/c; uwsgi_temp_path {place}/d; scgi_temp_path {place}/e;\n\
               server {{ listen {address}; root {place}; log_not_found off; }} }}\n"
        );
        let file = dir.join("nginx.conf");
        std::fs::write(&file, conf).context(making)?;
        let path = std::env::var("PATH").unwrap_or_default();
        let child = Command::new("nginx")
            .env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin"))
            .arg("-p")
            .arg(dir)
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else { return Ok(None) };
        let nginx = Self { child, address };
        let begun = Instant::now();
        while begun.elapsed() < NGINX_PATIENCE {
            if std::net::TcpStream::connect(address).is_ok() {
                return Ok(Some(nginx));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(Failure::new("nginx is installed but does not start"))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM, so that its worker ends too.
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
