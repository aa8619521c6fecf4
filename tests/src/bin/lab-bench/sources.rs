//! One NAR from one peer and from three: from which size on several sources pay.
//!
//! The holders' links are slow (a machine on Wi-Fi, or busy with others), that of the
//! machine that asks is fast. No Nix: a client asks the agent for the narinfo and, as
//! Nix does, some milliseconds later for the NAR.

use std::time::{Duration, Instant};

use system_tests::http::Connection;
use system_tests::{Agent, Lab};

use crate::closure::{FIND_LIMIT, start_agent, stop};
use crate::corpus::Corpus;
use crate::{Options, machine};

/// Hosts 0 to 2 hold the NARs, 3 asks.
const CLIENT: usize = 3;
/// Sizes of the largest file of a closure, in bytes.
const SIZES: [u64; 6] = [1 << 20, 2 << 20, 4 << 20, 8 << 20, 16 << 20, 64 << 20];
/// Of a closure of eight paths, the largest file is about a third.
const SHARE: u64 = 3;
/// Links of those that hold: bits per second.
const HOLDER_RATE: u64 = 200_000_000;
const CLIENT_RATE: u64 = 1_000_000_000;
/// What Nix takes at least between a closure's narinfos and its NARs.
const PAUSE: Duration = Duration::from_millis(30);

/// Times of one size, in milliseconds.
#[derive(Debug, serde::Serialize)]
pub struct Figure {
    /// Bytes of the NAR.
    pub bytes: u64,
    /// From one peer, from three: median of the runs.
    pub one: f64,
    pub three: f64,
}

/// Measures all sizes. `None` when the tools are missing.
pub fn run(options: &Options) -> Option<Vec<Figure>> {
    let lab = Lab::new(CLIENT + 1)?;
    eprintln!("{}", machine::describe());
    for host in &lab.hosts()[..CLIENT] {
        host.set_rate(Some(HOLDER_RATE));
    }
    lab.host(CLIENT).set_rate(Some(CLIENT_RATE));
    let runs = options.runs().max(5);
    SIZES.into_iter().map(|size| Some(one_size(options, &lab, size * SHARE, runs))).collect()
}

fn one_size(options: &Options, lab: &Lab, bytes: u64, runs: usize) -> Figure {
    let corpus = Corpus::make(lab.dir(), 8, bytes);
    let (mut one, mut three, mut size) = (Vec::new(), Vec::new(), 0);
    for _ in 0..runs {
        for (peers, times) in [(1, &mut one), (3, &mut three)] {
            let (took, got) = fetch(options, lab, &corpus, peers);
            times.push(took.as_secs_f64() * 1e3);
            size = got;
        }
    }
    let figure = Figure { bytes: size, one: median(one), three: median(three) };
    eprintln!("{figure:.1?}");
    figure
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Fetches the largest path through an agent that knows nothing yet.
fn fetch(options: &Options, lab: &Lab, corpus: &Corpus, peers: usize) -> (Duration, u64) {
    let host = lab.host(CLIENT);
    let empty = host.dir().join("empty");
    haulout_sample::create_empty(&empty).expect("an empty store");
    let holders: Vec<Agent<'_>> = (0..peers)
        .map(|holder| start_agent(options, lab.host(holder), &corpus.root, corpus))
        .collect();
    let agent = start_agent(options, host, &empty, corpus);
    agent.wait_for_peers(peers, FIND_LIMIT);
    let mut client = Connection::open(host, ([127, 0, 0, 1], 5299).into()).expect("the agent");
    let path = format!("/{}.narinfo", hash_part(&corpus.largest));
    let info = client.get(&path).expect("narinfo");
    let url = info.text().lines().find_map(|line| Some(line.strip_prefix("URL: ")?.to_owned()));
    std::thread::sleep(PAUSE);
    let begun = Instant::now();
    let nar = client.get(&format!("/{}", url.expect("a URL"))).expect("NAR");
    let took = begun.elapsed();
    assert!(nar.status == 200 && !nar.cut, "NAR: status {}", nar.status);
    stop([agent]);
    stop(holders);
    (took, nar.body.len() as u64)
}

fn hash_part(path: &str) -> &str {
    path.rsplit('/').next().and_then(|name| name.split('-').next()).unwrap_or_default()
}
