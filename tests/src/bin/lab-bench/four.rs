//! A closure to four machines at once, from one; and to one of them alone, over the same links.

use system_tests::{Agent, Lab, Nix, NixClient, StaticCache};

use crate::closure::{AGENT_URL, Caches, FIND_LIMIT, start_agent, stop};
use crate::corpus::Corpus;
use crate::measure::{Row, Run, measure, processes, say};
use crate::{Options, Source, machine};

/// Host 0 has the closure (as agent and behind nginx), 1 behind nginx with zstd, the
/// others fetch.
const FIRST_CLIENT: usize = 2;
const CLIENTS: usize = 4;

/// Measures all sources in turn. `None` when the tools are missing.
pub fn run(options: &Options) -> Option<Vec<Row>> {
    let lab = Lab::new(FIRST_CLIENT + CLIENTS)?;
    let nix = Nix::find()?;
    // As the row of the design: about a third of the paths, a quarter of the bytes.
    let (paths, bytes) = options.size();
    let (paths, bytes) = (paths / 3, bytes / 4);
    let dir = options.corpus.clone().unwrap_or_else(|| lab.dir().to_owned());
    let corpus = Corpus::make(&dir, paths, bytes);
    let mut caches = Caches::start(options, &lab, &nix, &corpus)?;
    lab.set_rate(Some(options.mbit * 1_000_000));
    let cases = [
        (Source::Haulout, 1),
        (Source::Haulout, CLIENTS),
        (Source::Nginx, CLIENTS),
        (Source::NginxZstd, CLIENTS),
    ];
    let row = |source: Source, clients: usize| Row {
        bench: format!(
            "{paths} paths, {:.0} MB, to {clients} at once, {} Mbit/s",
            corpus.bytes as f64 / 1e6,
            options.mbit
        ),
        how: "nix-store -r",
        source: source.text(),
        bytes: corpus.bytes,
        runs: Vec::new(),
    };
    let mut rows: Vec<((Source, usize), Row)> = cases
        .into_iter()
        .filter(|(source, _)| options.wants(*source))
        .map(|(source, clients)| ((source, clients), row(source, clients)))
        .collect();
    for number in 0..options.runs() {
        for ((source, count), row) in &mut rows {
            row.runs.push(match caches.get(*source) {
                Some(cache) => from_nginx(&lab, &nix, &corpus, cache),
                None => from_agents(options, *count, &lab, &nix, &corpus, number == 0),
            });
            say(row);
        }
        rows.reverse();
    }
    rows.sort_by_key(|((source, clients), _)| (*source as u8, *clients));
    Some(rows.into_iter().map(|(_, row)| row).collect())
}

fn clients<'lab>(
    count: usize,
    lab: &'lab Lab,
    nix: &Nix,
    corpus: &Corpus,
    url: &str,
) -> Vec<NixClient<'lab>> {
    let hosts = &lab.hosts()[FIRST_CLIENT..FIRST_CLIENT + count];
    hosts.iter().map(|host| NixClient::new(nix, host, &[url], &[&corpus.key])).collect()
}

/// All at the same time; CPU seconds of all together.
fn fetch(clients: &[NixClient<'_>], corpus: &Corpus) -> f64 {
    let walls = std::sync::Mutex::new(Vec::new());
    let cpu = std::thread::scope(|scope| {
        let one = |client| {
            let walls = &walls;
            scope.spawn(move || {
                let outcome = NixClient::realise(client, &corpus.top).ok();
                walls.lock().expect("walls").push(outcome.wall.as_secs_f64());
                outcome.cpu.as_secs_f64()
            })
        };
        let threads: Vec<_> = clients.iter().map(one).collect();
        threads.into_iter().map(|thread| thread.join().expect("Nix")).sum()
    });
    let walls = walls.into_inner().expect("walls");
    let walls: Vec<String> = walls.iter().map(|wall| format!("{wall:.1}")).collect();
    eprintln!("each: {} s", walls.join(", "));
    cpu
}

fn received(lab: &Lab) -> u64 {
    lab.hosts()[FIRST_CLIENT..].iter().map(machine::received).sum()
}

fn from_nginx(lab: &Lab, nix: &Nix, corpus: &Corpus, cache: &mut StaticCache) -> Run {
    let mut clients = clients(CLIENTS, lab, nix, corpus, &cache.url());
    let run =
        measure(Vec::new(), vec![cache.process()], || received(lab), || fetch(&clients, corpus));
    clients.iter_mut().for_each(NixClient::reset);
    run
}

fn from_agents(
    options: &Options,
    count: usize,
    lab: &Lab,
    nix: &Nix,
    corpus: &Corpus,
    verify: bool,
) -> Run {
    let mut clients = clients(count, lab, nix, corpus, AGENT_URL);
    let mut seed = [start_agent(options, lab.host(0), &corpus.root, corpus)];
    let mut near: Vec<Agent<'_>> = lab.hosts()[FIRST_CLIENT..]
        .iter()
        .zip(&clients)
        .map(|(host, client)| {
            haulout_sample::create_empty(client.root()).expect("an empty store");
            start_agent(options, host, client.root(), corpus)
        })
        .collect();
    near.iter().for_each(|agent| agent.wait_for_peers(count, FIND_LIMIT));
    let run = measure(
        processes(&mut near),
        processes(&mut seed),
        || received(lab),
        || fetch(&clients, corpus),
    );
    if verify {
        let _ = clients[count - 1].verify(&corpus.paths).ok();
    }
    let gave = |agent: &Agent<'_>| agent.status().counters.bytes_to_peers as f64 / 1e6;
    eprintln!(
        "given to peers, MB: seed {:.0}, the others {:.0?}",
        gave(&seed[0]),
        near.iter().map(gave).collect::<Vec<_>>()
    );
    stop(near);
    stop(seed);
    clients.iter_mut().for_each(NixClient::reset);
    run
}
