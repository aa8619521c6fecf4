//! Does what Nix does with a substituter: narinfos from the top down, NARs from
//! the bottom up, everything checked; and it trusts the agent no more than Nix would.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use haulout_nix::{HashPart, KeySet, NarHash, NarInfo, PathInfo, StoreDir, StorePath};
use hyper::StatusCode;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::error::{Context, Failure, Outcome};

/// As many substitutions at once as Nix does (`max-substitution-jobs`).
const JOBS: usize = 16;

/// A NAR that breaks off is asked for again, as Nix does.
const ATTEMPTS: usize = 3;

/// The demo's closures are small; nothing near this is expected.
const NAR_BYTES_MAX: usize = 1 << 30;

const NARINFO_BYTES_MAX: usize = 1 << 20;

/// Installs closures into the store of one machine, from its own agent.
pub(super) struct Installer {
    agent: SocketAddr,
    root: PathBuf,
    dir: StoreDir,
    trusted: KeySet,
    idle: Mutex<Vec<Client>>,
    installed_bytes: AtomicU64,
    database: Mutex<()>,
}

/// What an installation came to.
#[derive(Debug)]
pub(super) struct Installed {
    pub(super) paths: usize,
    pub(super) nar_bytes: u64,
    pub(super) time: Duration,
}

impl Installer {
    pub(super) fn new(agent: SocketAddr, root: PathBuf, trusted: KeySet) -> Arc<Self> {
        Arc::new(Self {
            agent,
            root,
            dir: StoreDir::default(),
            trusted,
            idle: Mutex::default(),
            installed_bytes: AtomicU64::new(0),
            database: Mutex::new(()),
        })
    }

    /// NAR bytes unpacked so far.
    pub(super) fn installed_bytes(&self) -> u64 {
        self.installed_bytes.load(Ordering::Relaxed)
    }

    /// Installs `top` and all it needs.
    pub(super) async fn install(self: &Arc<Self>, top: &StorePath) -> Outcome<Installed> {
        let begun = Instant::now();
        let infos = self.closure(top).await?;
        for level in levels(&infos) {
            let mut jobs = JoinSet::new();
            for info in level {
                while jobs.len() >= JOBS {
                    finish_one(&mut jobs).await?;
                }
                let me = Arc::clone(self);
                jobs.spawn(async move { me.fetch_path(&info).await });
            }
            while !jobs.is_empty() {
                finish_one(&mut jobs).await?;
            }
        }
        Ok(Installed {
            paths: infos.len(),
            nar_bytes: infos.values().map(|info| info.nar_size).sum(),
            time: begun.elapsed(),
        })
    }

    /// All narinfos of the closure, breadth first.
    async fn closure(
        self: &Arc<Self>,
        top: &StorePath,
    ) -> Outcome<HashMap<HashPart, Arc<PathInfo>>> {
        let mut seen: HashSet<StorePath> = HashSet::from([top.clone()]);
        let mut wave = vec![top.clone()];
        let mut infos = HashMap::new();
        while !wave.is_empty() {
            let mut next = Vec::new();
            let mut jobs = JoinSet::new();
            let mut rest = wave.into_iter();
            loop {
                while jobs.len() < JOBS {
                    let Some(path) = rest.next() else { break };
                    let me = Arc::clone(self);
                    jobs.spawn(async move { me.narinfo(&path).await });
                }
                if jobs.is_empty() {
                    break;
                }
                let Some(info) = finish_one(&mut jobs).await? else { continue };
                for reference in &info.references {
                    if seen.insert(reference.clone()) {
                        next.push(reference.clone());
                    }
                }
                infos.insert(info.path.hash_part(), info);
            }
            wave = next;
        }
        Ok(infos)
    }

    async fn narinfo(&self, path: &StorePath) -> Outcome<Arc<PathInfo>> {
        let url = format!("/{}.narinfo", path.hash_part());
        let (mut status, mut body) = self.get(&url, NARINFO_BYTES_MAX).await?;
        // On a machine that is busy with something else a neighbour may answer
        // too late; Nix would go to its next substituter, the demo has none.
        for _ in 1..ATTEMPTS {
            if status != StatusCode::OK {
                (status, body) = self.get(&url, NARINFO_BYTES_MAX).await?;
            }
        }
        if status != StatusCode::OK {
            return Err(Failure::new(format!("the agent has no narinfo for {path}: {status}")));
        }
        let narinfo =
            NarInfo::parse(&body, &self.dir).context(|| format!("bad narinfo for {path}"))?;
        if narinfo.info.path != *path {
            return Err(Failure::new(format!("asked for {path}, got {}", narinfo.info.path)));
        }
        if narinfo.info.verified_by(&self.dir, &self.trusted).is_none()
            && !narinfo.info.content_address_holds(&self.dir)
        {
            return Err(Failure::new(format!("{path} has no signature by the demo's key")));
        }
        Ok(Arc::new(narinfo.info))
    }

    async fn fetch_path(self: &Arc<Self>, info: &Arc<PathInfo>) -> Outcome<()> {
        let url = format!("/{}", haulout_nix::narinfo::raw_url(info));
        let mut problem = Failure::new("never asked");
        for _ in 0..ATTEMPTS {
            match self.get(&url, NAR_BYTES_MAX).await {
                Ok((StatusCode::OK, nar)) => {
                    let (me, info) = (Arc::clone(self), Arc::clone(info));
                    return tokio::task::spawn_blocking(move || me.unpack(&info, &nar))
                        .await
                        .context(|| "unpacking was cut off".to_owned())?;
                }
                Ok((status, _)) => problem = Failure::new(format!("the agent answered {status}")),
                Err(failure) => problem = failure,
            }
        }
        Err(Failure::new(format!("no NAR for {} after {ATTEMPTS} attempts", info.path))
            .because(problem))
    }

    fn unpack(&self, info: &PathInfo, nar: &[u8]) -> Outcome<()> {
        if NarHash::of(nar) != info.nar_hash || nar.len() as u64 != info.nar_size {
            return Err(Failure::new(format!(
                "WRONG CONTENTS for {} reached the client",
                info.path
            )));
        }
        // SQLite has one writer at a time; waiting here is cheaper than its retries.
        let _one_writer = self.database.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        haulout_sample::install(&self.root, info, nar)
            .context(|| format!("cannot install {} in the demo's store", info.path))?;
        self.installed_bytes.fetch_add(info.nar_size, Ordering::Relaxed);
        Ok(())
    }

    async fn get(&self, path: &str, limit: usize) -> Outcome<(StatusCode, bytes::Bytes)> {
        let idle = self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
        let mut client = match idle {
            Some(client) => client,
            None => Client::connect(self.agent).await?,
        };
        let answer = client.get(path, limit).await?;
        // Only a connection whose answer was read to the end can be used again.
        self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(client);
        Ok(answer)
    }
}

async fn finish_one<T: 'static>(jobs: &mut JoinSet<Outcome<T>>) -> Outcome<Option<T>> {
    match jobs.join_next().await {
        None => Ok(None),
        Some(done) => done.context(|| "a job was cut off".to_owned())?.map(Some),
    }
}

/// The closure in groups such that everything a path refers to is in an earlier group.
fn levels(infos: &HashMap<HashPart, Arc<PathInfo>>) -> Vec<Vec<Arc<PathInfo>>> {
    let mut depth: HashMap<HashPart, usize> = HashMap::new();
    let mut left: Vec<&Arc<PathInfo>> = infos.values().collect();
    while !left.is_empty() {
        let before = left.len();
        left.retain(|info| {
            let hash = info.path.hash_part();
            let others = info.references.iter().map(StorePath::hash_part).filter(|r| *r != hash);
            let depths: Option<Vec<usize>> = others.map(|r| depth.get(&r).copied()).collect();
            let Some(depths) = depths else { return true };
            depth.insert(hash, depths.into_iter().max().map_or(0, |d| d + 1));
            false
        });
        if left.len() == before {
            break; // A cycle, which a store never has.
        }
    }
    let mut levels: BTreeMap<usize, Vec<Arc<PathInfo>>> = BTreeMap::new();
    for info in infos.values() {
        levels
            .entry(depth.get(&info.path.hash_part()).copied().unwrap_or(0))
            .or_default()
            .push(Arc::clone(info));
    }
    levels.into_values().collect()
}
