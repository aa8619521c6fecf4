//! What an agent costs that has nothing to do.

use std::path::Path;
use std::time::{Duration, Instant};

use haulout_nix::{HashPart, NarHash, PathInfo, SecretKey, StorePath};
use serde::Serialize;
use system_tests::{Agent, Lab, Usage};

use crate::closure::{FIND_LIMIT, start_agent, stop};
use crate::corpus::{self, Corpus};
use crate::{Options, machine};

/// Paths in every agent's store.
const PATHS: u32 = 50_000;
const PEERS: usize = 20;
/// How long agents are left alone before they are watched: what they do to get to know
/// each other is not idleness.
const SETTLE: Duration = Duration::from_secs(15);

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Idle {
    /// Paths in each store.
    pub paths: u32,
    /// Peers of each agent.
    pub peers: usize,
    /// For how long, seconds.
    pub seconds: f64,
    /// Resident memory of each agent at the end, bytes, ascending.
    pub rss: Vec<u64>,
    /// CPU of each agent, percent of a core, ascending.
    pub cpu_percent: Vec<f64>,
    /// From the start of the first agent until it answered, seconds.
    pub start_seconds: f64,
    /// Load average of the machine.
    pub load: f64,
}

/// Measures it. `None` when the tools are missing.
pub fn run(options: &Options) -> Option<Idle> {
    let lab = Lab::new(PEERS + 1)?;
    let root = lab.dir().join("store");
    fill(&root, &corpus::key());
    let corpus = Corpus {
        root,
        top: String::new(),
        largest: String::new(),
        paths: Vec::new(),
        bytes: 0,
        key: corpus::key().public_key().to_string(),
    };
    let begun = Instant::now();
    let first = start_agent(options, lab.host(0), &corpus.root, &corpus);
    let start_seconds = begun.elapsed().as_secs_f64();
    let others = lab.hosts()[1..].iter();
    let others = others.map(|host| start_agent(options, host, &corpus.root, &corpus));
    let mut agents: Vec<Agent<'_>> = [first].into_iter().chain(others).collect();
    agents.iter().for_each(|agent| agent.wait_for_peers(PEERS, FIND_LIMIT * 3));
    std::thread::sleep(SETTLE);
    let before: Vec<Usage> = agents.iter_mut().map(|agent| agent.process().usage()).collect();
    let (load, start) = (machine::load(), Instant::now());
    std::thread::sleep(Duration::from_secs(options.idle_seconds()));
    let after: Vec<Usage> = agents.iter_mut().map(|agent| agent.process().usage()).collect();
    let seconds = start.elapsed().as_secs_f64();
    let cpu = |(before, after): (&Usage, &Usage)| {
        (after.cpu - before.cpu).as_secs_f64() / seconds * 100.0
    };
    let mut cpu_percent: Vec<f64> = before.iter().zip(&after).map(cpu).collect();
    cpu_percent.sort_by(f64::total_cmp);
    let mut rss: Vec<u64> = after.iter().map(|usage| usage.rss).collect();
    rss.sort_unstable();
    stop(agents);
    Some(Idle { paths: PATHS, peers: PEERS, seconds, rss, cpu_percent, start_seconds, load })
}

/// A store of that many paths, in its database only: nobody reads their files.
fn fill(root: &Path, key: &SecretKey) {
    let location = haulout_sample::create_empty(root).expect("an empty store");
    let info = |number: u32| {
        let digest = ring::digest::digest(&ring::digest::SHA256, &number.to_le_bytes());
        let mut hash = [0; 20];
        hash.copy_from_slice(&digest.as_ref()[..20]);
        let name = format!("package-{number}-1.{}", number % 10).parse().expect("a good name");
        let mut info = PathInfo {
            path: StorePath::new(HashPart::from_bytes(hash), name),
            nar_hash: NarHash::of(&number.to_le_bytes()),
            nar_size: 1000 + u64::from(number),
            references: Vec::new(),
            deriver: None,
            signatures: Vec::new(),
            ca: None,
        };
        info.signatures.push(info.sign(&location.store_dir, key));
        info
    };
    let infos: Vec<PathInfo> = (0..PATHS).map(info).collect();
    haulout_sample::register_all(&location, &infos).expect("registered");
}
