//! A closure to one machine.

use std::fs;
use std::time::Duration;

use system_tests::{Agent, AgentSpec, CacheCompression, Host, Lab, Nix, NixClient, StaticCache};

use crate::corpus::{Corpus, disk_usage};
use crate::measure::{Row, Run, measure, processes, say};
use crate::{How, Options, Source, machine};

/// What peers may take to find each other.
pub const FIND_LIMIT: Duration = Duration::from_secs(60);

/// Where an agent answers Nix on its host.
pub const AGENT_URL: &str = "http://127.0.0.1:5299";

/// Hosts 0 to 2 have the closure (0 also behind nginx, 1 behind nginx with zstd), 3
/// fetches.
const CLIENT: usize = 3;

/// Where nginx serves what.
pub struct Caches {
    pub raw: Option<StaticCache>,
    pub zstd: Option<StaticCache>,
}

impl Caches {
    /// Starts what is wanted, on the first two hosts.
    pub fn start(options: &Options, lab: &Lab, nix: &Nix, corpus: &Corpus) -> Option<Self> {
        let top = [corpus.top.clone()];
        let start = |host: &Host, how| {
            let cache = StaticCache::start(host, nix, &corpus.root, &top, how)?;
            let name = if how == CacheCompression::None { "cache-none" } else { "cache-zstd" };
            let size = disk_usage(&host.dir().join(name));
            eprintln!("{name}: {:.0} MB", size as f64 / 1e6);
            Some(cache)
        };
        let mut caches = Self { raw: None, zstd: None };
        if options.wants(Source::Nginx) {
            caches.raw = Some(start(lab.host(0), CacheCompression::None)?);
        }
        if options.wants(Source::NginxZstd) {
            caches.zstd = Some(start(lab.host(1), CacheCompression::Zstd)?);
        }
        Some(caches)
    }

    pub fn get(&mut self, source: Source) -> Option<&mut StaticCache> {
        match source {
            Source::Nginx => self.raw.as_mut(),
            Source::NginxZstd => self.zstd.as_mut(),
            Source::Haulout | Source::HauloutThree => None,
        }
    }
}

/// Measures all sources and ways in turn. `None` when the tools are missing.
pub fn run(options: &Options, rate: Option<u64>, bench: &str) -> Option<Vec<Row>> {
    let lab = Lab::new(CLIENT + 1)?;
    let nix = Nix::find()?;
    let (paths, bytes) = options.size();
    let dir = options.corpus.clone().unwrap_or_else(|| lab.dir().to_owned());
    let corpus = Corpus::make(&dir, paths, bytes);
    eprintln!("{}; Nix {}", machine::describe(), nix.version());
    eprintln!("{} paths, {:.0} MB of NAR", corpus.paths.len(), corpus.bytes as f64 / 1e6);
    let mut caches = Caches::start(options, &lab, &nix, &corpus)?;
    lab.set_rate(rate);

    let sources = [Source::Haulout, Source::Nginx, Source::HauloutThree, Source::NginxZstd];
    let mut rows: Vec<(How, Source, Row)> = Vec::new();
    for how in options.hows() {
        for source in sources.into_iter().filter(|source| options.wants(*source)) {
            let row = Row {
                bench: format!("{} paths, {:.0} MB, {bench}", paths, corpus.bytes as f64 / 1e6),
                how: if how == How::Realise { "nix-store -r" } else { "nix copy" },
                source: source.text(),
                bytes: corpus.bytes,
                runs: Vec::new(),
            };
            rows.push((how, source, row));
        }
    }
    let stage = Stage { options, lab: &lab, nix: &nix, corpus: &corpus };
    for number in 0..options.runs() {
        // Every other time in reverse, so that nobody is always first after a pause.
        let order: Vec<usize> = match number % 2 {
            0 => (0..rows.len()).collect(),
            _ => (0..rows.len()).rev().collect(),
        };
        for index in order {
            let (how, source, row) = &mut rows[index];
            row.runs.push(match caches.get(*source) {
                Some(cache) => stage.nginx(cache, *how),
                None => stage.agents(source.peers(), *how, number == 0),
            });
            say(row);
        }
    }
    Some(rows.into_iter().map(|(_, _, row)| row).collect())
}

struct Stage<'a> {
    options: &'a Options,
    lab: &'a Lab,
    nix: &'a Nix,
    corpus: &'a Corpus,
}

impl<'a> Stage<'a> {
    fn client(&self, url: &str) -> NixClient<'a> {
        let host = self.lab.host(CLIENT);
        NixClient::new(self.nix, host, &[url], &[&self.corpus.key])
    }

    fn fetch(&self, client: &NixClient<'_>, url: &str, how: How) -> f64 {
        let outcome = match how {
            How::Realise => client.realise(&self.corpus.top),
            How::Copy => client.copy(url, &self.corpus.top),
        };
        outcome.ok().cpu.as_secs_f64()
    }

    fn nginx(&self, cache: &mut StaticCache, how: How) -> Run {
        let url = cache.url();
        let mut client = self.client(&url);
        let received = || machine::received(self.lab.host(CLIENT));
        let run =
            measure(Vec::new(), vec![cache.process()], received, || self.fetch(&client, &url, how));
        client.reset();
        run
    }

    fn agents(&self, peers: usize, how: How, verify: bool) -> Run {
        let host = self.lab.host(CLIENT);
        let url = AGENT_URL.to_owned();
        let mut client = self.client(&url);
        haulout_sample::create_empty(client.root()).expect("an empty store");
        let mut seeds: Vec<Agent<'_>> = (0..peers)
            .map(|seed| {
                start_agent(self.options, self.lab.host(seed), &self.corpus.root, self.corpus)
            })
            .collect();
        let mut near = [start_agent(self.options, host, client.root(), self.corpus)];
        near[0].wait_for_peers(peers, FIND_LIMIT);
        let received = || machine::received(host);
        let run = measure(processes(&mut near), processes(&mut seeds), received, || {
            self.fetch(&client, &url, how)
        });
        if verify {
            let _ = client.verify(&self.corpus.paths).ok();
        }
        stop(near);
        stop(seeds);
        client.reset();
        run
    }
}

/// Starts an agent that remembers nothing; one that holds the corpus may, if asked for.
pub fn start_agent<'lab>(
    options: &Options,
    host: &'lab Host,
    root: &std::path::Path,
    corpus: &Corpus,
) -> Agent<'lab> {
    if !(options.warm && root == corpus.root) {
        let _ = fs::remove_dir_all(host.dir().join("agent"));
    }
    let mut spec = AgentSpec::new(root, &[&corpus.key]);
    for setting in &options.set {
        let (name, value) = setting.split_once('=').expect("--set SECTION.KEY=TOML");
        // A setting lives as long as the program.
        spec = spec.set(Box::leak(name.to_owned().into_boxed_str()), value);
    }
    Agent::start(host, &spec)
}

/// Lets agents say goodbye, so that the next ones do not look for them.
pub fn stop<'lab>(agents: impl IntoIterator<Item = Agent<'lab>>) {
    for mut agent in agents {
        let status = agent.process().terminate(Duration::from_secs(20));
        assert!(status.success(), "an agent ended with {status}");
    }
}
