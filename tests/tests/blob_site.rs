//! Eight machines that read one blob at once, as real processes on a real network: storage nodes give it away once, and two
//! machines that die in the middle cost little.

use std::time::Duration;

use system_tests::{Agent, AgentSpec, Devnet, FIND_LIMIT, Lab, wait_until};

const MACHINES: usize = 8;
const BYTES: usize = 24 << 20;

/// A hundred shards, so that each machine is home to about four slivers of thirty-four.
const SHARDS: u16 = 100;
const NODES: u16 = 10;
/// Bytes a second of each answer of a node: slow enough that a read has a middle.
const PACE: u32 = 400_000;

fn content() -> Vec<u8> {
    (0..BYTES as u64).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn two_of_eight_readers_are_killed_and_the_others_finish() {
    let Some(lab) = Lab::new(1 + MACHINES) else { return };
    let outside = lab.host(0).address().to_string();
    let devnet = Devnet::start_with(lab.host(0), &outside, SHARDS, NODES);
    let data = content();
    let blob = devnet.store(&data);
    let network = format!("{:?}", devnet.file("network.toml"));
    let mut agents: Vec<Agent<'_>> = (1..=MACHINES)
        .map(|index| {
            let host = lab.host(index);
            let root = host.dir().join("store");
            haulout_sample::create_empty(&root).expect("an empty store");
            let spec = AgentSpec::new(&root, &[]).set("upstream.enable", "false");
            Agent::start(host, &spec.set("walrus.network", network.clone()))
        })
        .collect();
    for agent in &agents {
        agent.wait_for_peers(MACHINES - 1, FIND_LIMIT);
    }
    for node in 0..NODES {
        devnet.command(&["fault", &node.to_string(), "--rate", &PACE.to_string()]);
    }
    let before = devnet.bytes_sent();
    let path = format!("/v1/blobs/{blob}");
    let (dying, living) = agents.split_at_mut(2);
    std::thread::scope(|scope| {
        let doomed: Vec<_> = dying.iter().map(|agent| (agent.host(), path.clone())).collect();
        for (host, path) in doomed {
            // Whatever becomes of these.
            scope.spawn(move || system_tests::http::get(host, Agent::HTTP, &path).map(drop));
        }
        let reads: Vec<_> = living
            .iter()
            .map(|agent| scope.spawn(|| agent.get(&path).expect("an answer")))
            .collect();
        let half = || devnet.bytes_sent() - before > BYTES as u64 / 2;
        assert!(wait_until(Duration::from_secs(60), half), "nothing is read");
        assert!(reads.iter().any(|read| !read.is_finished()), "too late for a middle");
        for agent in &mut *dying {
            agent.process().kill();
        }
        for read in reads {
            let answer = read.join().expect("a reader");
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(!answer.cut && answer.body == data);
        }
    });
    let given = devnet.bytes_sent() - before;
    // A row of zeros or two at the end is not fetched; the metadata is small.
    let times = given as f64 / BYTES as f64;
    println!("two killed: {times:.3} × the blob");
    assert!(times <= 1.3, "{given} bytes");
    for agent in &*living {
        for peer in agent.peers() {
            assert!(
                !peer.faults.contains_key("wrong-content"),
                "an honest peer was blamed: {peer:#?}"
            );
        }
    }
}
