//! Eight machines that want the same closure in the same second, behind one uplink.
//!
//! Each for itself, through a central caching proxy, with an agent each, and with an agent each of which two die in the
//! middle. The column "wire" is what came over the uplink.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use system_tests::{
    Agent, AgentSpec, CacheCompression, Lab, Nix, NixClient, StaticCache, Wan, wait_until,
};

use crate::Options;
use crate::closure::{AGENT_URL, FIND_LIMIT, stop};
use crate::corpus::{Corpus, disk_usage};
use crate::machine;
use crate::measure::{Row, Run, measure, processes, say};

/// Host 0 is the world outside, 1 the proxy, the others are the site.
const FIRST: usize = 2;
const MACHINES: usize = 8;
const DYING: usize = 2;
const LINE: u64 = 100_000_000;
const ROUND_TRIP: Duration = Duration::from_millis(20);
const PATHS: usize = 300;
const BYTES: u64 = 300_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Alone,
    Proxy,
    Agents,
    AgentsDying,
}

impl How {
    const ALL: [Self; 4] = [Self::Alone, Self::Proxy, Self::Agents, Self::AgentsDying];

    const fn text(self) -> &'static str {
        match self {
            Self::Alone => "each for itself",
            Self::Proxy => "nginx proxy_cache",
            Self::Agents => "haulout",
            Self::AgentsDying => "haulout, 2 of 8 killed",
        }
    }
}

/// Measures all of them in turn. `None` when the tools are missing.
pub fn run(options: &Options) -> Option<Vec<Row>> {
    let lab = Lab::new(FIRST + MACHINES)?;
    let nix = Nix::find()?;
    let dir = options.corpus.clone().unwrap_or_else(|| lab.dir().to_owned());
    let (paths, bytes) = if options.quick { (PATHS / 3, BYTES / 5) } else { (PATHS, BYTES) };
    let corpus = Corpus::make(&dir, paths, bytes);
    let top = [corpus.top.clone()];
    let outside = lab.host(0);
    let cache = StaticCache::start(outside, &nix, &corpus.root, &top, CacheCompression::Zstd)?;
    let compressed = disk_usage(&outside.dir().join("cache-zstd"));
    let wan = Wan::start(outside, cache.address(), LINE, ROUND_TRIP);
    lab.set_rate(Some(1_000_000_000));
    let ideal = compressed as f64 * 8.0 / LINE as f64;
    eprintln!("{:.1} MB compressed: {ideal:.1} s at the least", compressed as f64 / 1e6);
    let bench = format!(
        "{MACHINES} at once, {paths} paths, {:.1} MB compressed, uplink 100 Mbit/s 20 ms, ideal {ideal:.1} s",
        compressed as f64 / 1e6
    );
    let ways: Vec<How> =
        How::ALL.into_iter().filter(|how| how.text().starts_with(&options.only)).collect();
    let mut rows: Vec<Row> = ways
        .iter()
        .map(|how| Row {
            bench: bench.clone(),
            how: "nix copy",
            source: how.text(),
            bytes: corpus.bytes,
            runs: Vec::new(),
        })
        .collect();
    let stage = Stage { lab: &lab, nix: &nix, corpus: &corpus, wan: &wan };
    for _ in 0..options.runs() {
        for (how, row) in ways.iter().copied().zip(&mut rows) {
            let run = stage.run(how);
            eprintln!(
                "{}: {:.3} × over the uplink",
                how.text(),
                run.wire as f64 / compressed as f64
            );
            row.runs.push(run);
            say(row);
        }
    }
    Some(rows)
}

struct Stage<'lab> {
    lab: &'lab Lab,
    nix: &'lab Nix,
    corpus: &'lab Corpus,
    wan: &'lab Wan,
}

impl Stage<'_> {
    fn clients(&self, url: &str) -> Vec<NixClient<'_>> {
        let hosts = &self.lab.hosts()[FIRST..];
        let key = &self.corpus.key;
        hosts.iter().map(|host| NixClient::new(self.nix, host, &[url], &[key])).collect()
    }

    fn run(&self, how: How) -> Run {
        match how {
            How::Alone => self.from(&self.wan.url(), None),
            How::Proxy => {
                let mut proxy = StaticCache::proxy(self.lab.host(1), &self.wan.url());
                let url = proxy.url();
                self.from(&url, Some(&mut proxy))
            }
            How::Agents => self.by_agents(0),
            How::AgentsDying => self.by_agents(DYING),
        }
    }

    fn from(&self, url: &str, proxy: Option<&mut StaticCache>) -> Run {
        let mut clients = self.clients(url);
        let far = proxy.map(|proxy| vec![proxy.process()]).unwrap_or_default();
        let run =
            measure(Vec::new(), far, || self.wan.bytes(), || self.fetch(&clients, url, || {}));
        clients.iter_mut().for_each(NixClient::reset);
        run
    }

    /// With `dying` machines switched off when a third of the bytes are there.
    fn by_agents(&self, dying: usize) -> Run {
        let mut clients = self.clients(AGENT_URL);
        let urls = format!("[{:?}]", self.wan.url());
        let mut near: Vec<Agent<'_>> = clients
            .iter()
            .zip(&self.lab.hosts()[FIRST..])
            .map(|(client, host)| {
                let _ = std::fs::remove_dir_all(host.dir().join("agent"));
                haulout_sample::create_empty(client.root()).expect("an empty store");
                let spec = AgentSpec::new(client.root(), &[&self.corpus.key])
                    .set("upstream.urls", urls.clone())
                    .set("upstream.nix_conf", "false");
                Agent::start(host, &spec)
            })
            .collect();
        near.iter().for_each(|agent| agent.wait_for_peers(MACHINES - 1, FIND_LIMIT));
        let mut gone: Vec<Agent<'_>> = near.drain(..dying).collect();
        let ends: Vec<_> = clients[..dying]
            .iter()
            .map(|client| {
                let store = client.store();
                client
                    .spawn("nix", &["copy", "--from", AGENT_URL, "--to", &store, &self.corpus.top])
            })
            .collect();
        let before = self.wan.bytes();
        let third = disk_usage(&self.lab.host(0).dir().join("cache-zstd")) / 3;
        let run = measure(
            processes(&mut near),
            Vec::new(),
            || self.wan.bytes(),
            || {
                self.fetch(&clients[dying..], AGENT_URL, || {
                    if dying > 0 {
                        wait_until(Duration::from_secs(120), || self.wan.bytes() - before > third);
                        ends.into_iter().for_each(|mut nix| nix.kill());
                        gone.iter_mut().for_each(|agent| agent.process().kill());
                    }
                })
            },
        );
        let _ = clients[MACHINES - 1].verify(&self.corpus.paths).ok();
        near.iter().for_each(tell);
        stop(near);
        clients.iter_mut().for_each(NixClient::reset);
        run
    }

    /// All at the same time; CPU seconds of all together.
    fn fetch(&self, clients: &[NixClient<'_>], url: &str, meanwhile: impl FnOnce()) -> f64 {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let pace = scope.spawn(|| self.pace(&done));
            let threads: Vec<_> = clients
                .iter()
                .map(|client| {
                    scope.spawn(move || client.copy(url, &self.corpus.top).ok().cpu.as_secs_f64())
                })
                .collect();
            meanwhile();
            let cpu = threads.into_iter().map(|thread| thread.join().expect("Nix")).sum();
            done.store(true, Ordering::Relaxed);
            eprintln!(
                "  each second: % of the uplink / processors busy: {}",
                pace.join().expect("the clock")
            );
            cpu
        })
    }

    /// How much of the uplink and of the machine is used in each second, until `done`.
    fn pace(&self, done: &AtomicBool) -> String {
        let mut seconds = Vec::new();
        let mut before = self.wan.bytes();
        let mut cpu = machine::busy().as_secs_f64();
        loop {
            let next = Instant::now() + Duration::from_secs(1);
            while Instant::now() < next && !done.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
            }
            if done.load(Ordering::Relaxed) {
                return seconds.join(" ");
            }
            let now = self.wan.bytes();
            let busy = machine::busy().as_secs_f64();
            seconds.push(format!("{}/{:.1}", (now - before) * 800 / LINE, busy - cpu));
            (before, cpu) = (now, busy);
        }
    }
}

/// Why an agent went outside, in MB.
fn tell(agent: &Agent<'_>) {
    let site = agent.status().counters.site;
    let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
    let because: Vec<String> = site
        .bytes_fetched_because
        .iter()
        .map(|(why, bytes)| format!("{why} {}", megabytes(*bytes)))
        .collect();
    eprintln!(
        "  {}: {} MB from outside in {} fetches ({}), {} again; {} relayed in, {} out",
        agent.host().name(),
        megabytes(site.bytes_fetched),
        site.fetches,
        because.join(", "),
        megabytes(site.bytes_fetched_again),
        megabytes(site.bytes_relayed_in),
        megabytes(site.bytes_relayed_out)
    );
}
