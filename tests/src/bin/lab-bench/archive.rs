//! A closure out of an archive to one machine, and the same from nginx.
//!
//! The archive's network is a process of its own with as many shards as the public ones, on a
//! host of its own, and so is the agent: the CPU time of each is its own. Nobody else is on the
//! network, so that every sliver comes from a storage node.

use system_tests::{
    Agent, AgentSpec, CacheCompression, Devnet, Host, Lab, Nix, NixClient, StaticCache, wait_until,
};

use crate::closure::{AGENT_URL, FIND_LIMIT, stop};
use crate::corpus::Corpus;
use crate::measure::{Row, Run, measure, processes, say};
use crate::{How, Options, machine};

/// Host 0 has the network, 1 and 2 are nginx with the NARs raw and zstd, 3 fetches.
const CLIENT: usize = 3;
/// As on the public networks.
const SHARDS: u16 = 1_000;
const NODES: u16 = 20;
const PATHS: usize = 600;
const BYTES: u64 = 1_000_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Archive,
    Raw,
    Zstd,
}

impl From {
    const ALL: [Self; 3] = [Self::Archive, Self::Raw, Self::Zstd];

    const fn text(self) -> &'static str {
        match self {
            Self::Archive => "haulout, archive at n = 1000",
            Self::Raw => "nginx, raw",
            Self::Zstd => "nginx, zstd",
        }
    }
}

/// Measures all of them in turn. `None` when the tools are missing.
pub fn run(options: &Options) -> Option<Vec<Row>> {
    let lab = Lab::new(CLIENT + 1)?;
    let nix = Nix::find()?;
    let (paths, bytes) = if options.quick { (PATHS / 6, BYTES / 10) } else { (PATHS, BYTES) };
    let dir = options.corpus.clone().unwrap_or_else(|| lab.dir().to_owned());
    let corpus = Corpus::make(&dir, paths, bytes);
    let top = [corpus.top.clone()];
    let serve =
        |host: usize, how| StaticCache::start(lab.host(host), &nix, &corpus.root, &top, how);
    let raw = serve(1, CacheCompression::None)?;
    let zstd = serve(2, CacheCompression::Zstd)?;
    let network = lab.host(0);
    let devnet = Devnet::start_with(network, &network.address().to_string(), SHARDS, NODES);
    let begun = std::time::Instant::now();
    let file = devnet.publish(&corpus.root, &corpus.top);
    eprintln!(
        "{} paths, {:.0} MB of NAR, published in {:.0} s",
        corpus.paths.len(),
        corpus.bytes as f64 / 1e6,
        begun.elapsed().as_secs_f64()
    );

    let mut rows: Vec<(How, From, Row)> = Vec::new();
    for how in options.hows() {
        for from in From::ALL {
            let row = Row {
                bench: format!("{paths} paths, {:.0} MB, archive", corpus.bytes as f64 / 1e6),
                how: if how == How::Realise { "nix-store -r" } else { "nix copy" },
                source: from.text(),
                bytes: corpus.bytes,
                runs: Vec::new(),
            };
            rows.push((how, from, row));
        }
    }
    let mut stage = Stage {
        options,
        host: lab.host(CLIENT),
        nix: &nix,
        corpus: &corpus,
        devnet,
        file,
        raw,
        zstd,
    };
    for number in 0..options.runs() {
        for (how, from, row) in &mut rows {
            row.runs.push(match from {
                From::Archive => stage.archive(*how, number == 0),
                From::Raw | From::Zstd => stage.nginx(*how, *from),
            });
            say(row);
        }
        rows.reverse();
    }
    rows.sort_by_key(|(how, from, _)| (*how as u8, *from as u8));
    Some(rows.into_iter().map(|(_, _, row)| row).collect())
}

struct Stage<'lab> {
    options: &'lab Options,
    host: &'lab Host,
    nix: &'lab Nix,
    corpus: &'lab Corpus,
    devnet: Devnet<'lab>,
    file: String,
    raw: StaticCache,
    zstd: StaticCache,
}

impl<'lab> Stage<'lab> {
    fn client(&self, url: &str) -> NixClient<'lab> {
        NixClient::new(self.nix, self.host, &[url], &[&self.corpus.key])
    }

    fn nginx(&mut self, how: How, from: From) -> Run {
        let cache = if from == From::Raw { &mut self.raw } else { &mut self.zstd };
        let url = cache.url();
        let mut client = NixClient::new(self.nix, self.host, &[&url], &[&self.corpus.key]);
        let (host, top) = (self.host, self.corpus.top.as_str());
        let received = || machine::received(host);
        let run =
            measure(Vec::new(), vec![cache.process()], received, || fetch(&client, &url, top, how));
        client.reset();
        run
    }

    fn archive(&mut self, how: How, verify: bool) -> Run {
        let mut client = self.client(AGENT_URL);
        haulout_sample::create_empty(client.root()).expect("an empty store");
        let mut spec = AgentSpec::new(client.root(), &[&self.corpus.key])
            .set("archive", format!("[{{ file = {:?} }}]", self.file));
        for setting in &self.options.set {
            let (name, value) = setting.split_once('=').expect("--set SECTION.KEY=TOML");
            // A setting lives as long as the program.
            spec = spec.set(Box::leak(name.to_owned().into_boxed_str()), value);
        }
        let mut near = [Agent::start(self.host, &spec)];
        let opened = || near[0].status().archives.iter().any(|archive| archive.usable);
        assert!(wait_until(FIND_LIMIT, opened), "{:?}", near[0].status().archives);
        let (host, top) = (self.host, self.corpus.top.as_str());
        let received = || machine::received(host);
        let run = measure(processes(&mut near), vec![self.devnet.process()], received, || {
            fetch(&client, AGENT_URL, top, how)
        });
        let counters = near[0].status().counters;
        assert_eq!(counters.nars_by_source.archive, self.corpus.paths.len() as u64);
        if verify {
            let _ = client.verify(&self.corpus.paths).ok();
        }
        stop(near);
        client.reset();
        run
    }
}

/// CPU seconds of Nix.
fn fetch(client: &NixClient<'_>, url: &str, top: &str, how: How) -> f64 {
    let outcome = match how {
        How::Realise => client.realise(top),
        How::Copy => client.copy(url, top),
    };
    outcome.ok().cpu.as_secs_f64()
}
