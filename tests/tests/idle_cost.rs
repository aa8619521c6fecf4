//! What an agent costs when it has nothing to give: the time of a narinfo that nobody
//! has, with and without peers. Correctness is asserted; times are printed, as they say
//! more about the machine than about the code when other work shares it.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use system_tests::http::Connection;
use system_tests::{Agent, AgentSpec, FIND_LIMIT, Lab, Scene, quantile};

const ASKED: u64 = 2000;

/// A hash part that no closure has.
fn nobody_has(number: u64) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";
    // A step of a linear congruential generator spreads the numbers over the prefixes.
    let spread = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(0x9e37_79b9_7f4a_7c15);
    (0..32).map(|i| char::from(ALPHABET[(spread.rotate_left(5 * i) & 31) as usize])).collect()
}

/// Asks for narinfos that nobody has, over one connection.
fn misses(agent: &Agent<'_>, from: u64) -> Vec<Duration> {
    let mut connection = Connection::open(agent.host(), Agent::HTTP).unwrap();
    let ask = |number| {
        let start = Instant::now();
        let answer = connection.get(&format!("/{}.narinfo", nobody_has(number))).unwrap();
        assert_eq!(answer.status, 404);
        start.elapsed()
    };
    (from..from + ASKED).map(ask).collect()
}

fn report(what: &str, samples: &mut [Duration]) {
    println!(
        "narinfo miss, {what:<32} p50 {:>7.3} ms   p99 {:>7.3} ms   worst {:>8.3} ms",
        quantile(samples, 0.5).as_secs_f64() * 1e3,
        quantile(samples, 0.99).as_secs_f64() * 1e3,
        quantile(samples, 1.0).as_secs_f64() * 1e3,
    );
}

/// No single miss may take longer, whatever else the machine does: far above what is
/// measured, far below what a user would call slow.
const MISS_MAX: Duration = Duration::from_millis(500);

fn check(samples: &mut [Duration]) {
    assert!(quantile(samples, 1.0) < MISS_MAX, "a miss took {:?}", quantile(samples, 1.0));
}

#[test]
fn idle_cost() {
    let Some(lab) = Lab::new(1) else { return };
    let spec = AgentSpec::new(&lab.dir().join("empty"), &[]);
    {
        let agent = Agent::start(lab.host(0), &spec.clone().set("mesh.enable", "false"));
        let _ = misses(&agent, 0); // warm
        report("mesh turned off", &mut misses(&agent, ASKED));
    }
    let mut agent = Agent::start(lab.host(0), &spec);
    let mut alone = misses(&agent, 0);
    report("no peers", &mut alone);
    check(&mut alone);
    let before = agent.process().usage();
    std::thread::sleep(Duration::from_secs(5));
    let after = agent.process().usage();
    println!(
        "idle, no peers: {:.2} % of a core, {:.1} MiB resident",
        (after.cpu - before.cpu).as_secs_f64() / 5.0 * 100.0,
        after.rss as f64 / f64::from(1 << 20)
    );
}

#[test]
fn idle_cost_with_one_silent_peer() {
    let Some(scene) = Scene::new(2, 50, 1 << 20) else { return };
    let mut a = scene.seed(0);
    let agent = Agent::start(
        scene.lab().host(1),
        &AgentSpec::new(&scene.lab().dir().join("empty"), &[&scene.closure().public_key()]),
    );
    agent.wait_for_peers(1, FIND_LIMIT);
    report("one peer that answers", &mut misses(&agent, 0));
    a.process().signal(Signal::STOP);
    let mut silent = misses(&agent, ASKED);
    report("one silent peer", &mut silent);
    check(&mut silent);

    // What the silent one has announced: asked for, waited for shortly, given up.
    let mut connection = Connection::open(agent.host(), Agent::HTTP).unwrap();
    let mut held: Vec<Duration> = Vec::new();
    for info in scene.closure().infos() {
        let start = Instant::now();
        let answer = connection.get(&format!("/{}.narinfo", info.path.hash_part())).unwrap();
        assert!([200, 404].contains(&answer.status));
        held.push(start.elapsed());
    }
    report("held by the silent peer", &mut held);
    check(&mut held);
    a.process().signal(Signal::CONT);
}

#[test]
fn idle_cost_with_twenty_peers() {
    const PEERS: usize = 20;
    let Some(scene) = Scene::new(PEERS + 1, 50, 1 << 20) else { return };
    let seeds: Vec<Agent<'_>> = (0..PEERS).map(|host| scene.seed(host)).collect();
    let mut agent = Agent::start(
        scene.lab().host(PEERS),
        &AgentSpec::new(&scene.lab().dir().join("empty"), &[&scene.closure().public_key()]),
    );
    agent.wait_for_peers(PEERS, FIND_LIMIT * 2);
    let mut samples = misses(&agent, 0);
    report("twenty peers", &mut samples);
    check(&mut samples);
    let rss = agent.process().usage().rss as f64 / f64::from(1 << 20);
    println!("{PEERS} peers: {rss:.1} MiB resident");
    drop(seeds);
}
