//! Archives with real Nix: published from a store, restored into empty ones on other machines, with storage nodes gone,
//! nothing trusted but the machine's own agent, and a machine that reaches nobody but its neighbours.

use haulout_gateway::api::PeerReport;
use haulout_nix::nar::hash_path;
use system_tests::wiretap::assert_no_server_errors;
use system_tests::{
    Agent, AgentSpec, Closure, Devnet, FIND_LIMIT, Host, NixClient, Scene, Wiretap, wait_until,
};

const PATHS: usize = 60;
const BYTES: u64 = 8 << 20;

/// Where the network is: not on the LAN's own addresses, so that it takes a route to reach it.
const OUTSIDE: &str = "10.99.0.1";

/// Storage nodes; three of ten may be gone.
const NODES: u16 = 10;
const F: usize = 3;

fn ip(host: &Host, arguments: &str) {
    let output = host.command("ip").args(arguments.split(' ')).output().expect("ip");
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A machine with an agent that asks an archive, and Nix that trusts nothing but that agent's key.
struct Machine<'lab> {
    agent: Agent<'lab>,
    tap: Wiretap,
    nix: NixClient<'lab>,
}

impl<'lab> Machine<'lab> {
    fn start(scene: &'lab Scene, host: usize, archive: &str) -> Self {
        let host = scene.lab().host(host);
        let tap = Wiretap::start(host, Agent::HTTP);
        let nix = NixClient::new(scene.nix(), host, &[&tap.url()], &[]);
        let spec = AgentSpec::new(nix.root(), &[]).set("archive", format!("[{archive}]"));
        Self { agent: Agent::start(host, &spec), tap, nix }
    }

    /// Whether it answers for the path within a while.
    fn has(&self, closure: &Closure) -> bool {
        let narinfo = format!("/{}.narinfo", closure.top_info().path.hash_part());
        wait_until(FIND_LIMIT, || self.agent.get(&narinfo).is_ok_and(|got| got.status == 200))
    }

    /// Real Nix fetches the closure, and every byte of it is what was published.
    fn restore(&self, closure: &Closure) {
        let key = self.agent.host_key();
        let trusting = ["--option", "trusted-public-keys", key.as_str()];
        let _ = self.nix.realise_with(closure.top(), &trusting).ok();
        let _ = self.nix.verify(&closure.paths()).ok();
        for info in closure.infos() {
            let place = self.nix.root().join("nix/store").join(info.path.to_string());
            let digest = hash_path(&place).unwrap_or_else(|error| panic!("{}: {error}", info.path));
            assert_eq!((digest.hash, digest.size), (info.nar_hash, info.nar_size), "{}", info.path);
        }
        assert_no_server_errors(&self.tap.take());
    }
}

/// Host 0 has the network; `reaching` have a route to it.
fn outside<'lab>(scene: &'lab Scene, reaching: &[usize]) -> (Devnet<'lab>, String) {
    let lab = scene.lab();
    ip(lab.host(0), &format!("addr add {OUTSIDE}/32 dev eth0"));
    for host in reaching {
        ip(lab.host(*host), &format!("route add {OUTSIDE} via {}", lab.host(0).address()));
    }
    let devnet = Devnet::start(lab.host(0), OUTSIDE, NODES);
    // Into a real store by real Nix, and published from there.
    let nix = NixClient::new(scene.nix(), lab.host(0), &[], &[&scene.closure().public_key()]);
    let _ = nix.copy(&scene.other_cache(), scene.closure().top()).ok();
    let file = devnet.publish(nix.root(), scene.closure().top());
    (devnet, file)
}

#[test]
fn a_closure_is_restored_from_an_archive_with_a_third_of_its_nodes_gone() {
    let Some(scene) = Scene::new(4, PATHS, BYTES) else { return };
    let closure = scene.closure();
    let (devnet, file) = outside(&scene, &[1, 2, 3]);
    devnet.set_down(0..F, true);

    // The key of the closure is one that this machine's Nix does not know: the settings let the archive bring it.
    let archive = format!("{{ file = {file:?}, keys = [{:?}] }}", closure.public_key());
    let first = Machine::start(&scene, 1, &archive);
    assert!(first.has(closure), "{}", first.agent.status().archives[0].state);
    first.restore(closure);
    let status = first.agent.status();
    assert_eq!(status.archives.len(), 1);
    assert!(status.archives[0].usable && status.archives[0].bytes > 0, "{:?}", status.archives);
    assert!(status.counters.nars_by_source.archive >= PATHS as u64, "{:?}", status.counters);

    // Its neighbour has the mesh as well: the same bytes, whoever gives them.
    let second = Machine::start(&scene, 2, &archive);
    second.agent.wait_for_peers(1, FIND_LIMIT);
    assert!(second.has(closure));
    second.restore(closure);

    // An archive may not bring what nobody here trusts, unless it is allowed to.
    let strict = Machine::start(&scene, 3, &format!("{{ file = {file:?} }}"));
    let opened = || strict.agent.status().archives.iter().any(|one| one.usable);
    assert!(wait_until(FIND_LIMIT, opened), "{:?}", strict.agent.status().archives);
    let narinfo = format!("/{}.narinfo", closure.top_info().path.hash_part());
    assert_eq!(strict.agent.get(&narinfo).expect("the agent").status, 404);
}

#[test]
fn a_machine_that_reaches_only_its_neighbours_restores_from_the_archive() {
    let Some(scene) = Scene::new(4, PATHS, BYTES) else { return };
    let closure = scene.closure();
    // Host 2 has no route to the network: neither full node nor storage nodes.
    let (devnet, file) = outside(&scene, &[1]);
    let committee = devnet.file("committee.bcs");
    let key = closure.public_key();
    let archive = format!("{{ file = {file:?}, committee = {committee:?}, keys = [{key:?}] }}");
    let neighbour = Machine::start(&scene, 1, &archive);
    assert!(neighbour.has(closure), "{:?}", neighbour.agent.status().archives);

    // A liar is on the network, too.
    let mut liar = scene.liar(3, "forged-proof");
    let alone = Machine::start(&scene, 2, &archive);
    assert!(alone.has(closure), "{:?}", alone.agent.status().archives);
    alone.restore(closure);
    let status = alone.agent.status();
    let detail = status.archives[0].detail.clone().unwrap_or_default();
    assert!(status.archives[0].usable && detail.contains("full nodes: "), "{detail}");
    let site = status.counters.site;
    assert_eq!(site.bytes_fetched, 0, "it has no way out");
    assert!(site.bytes_relayed_in > 0, "the slivers came from its neighbour");
    liar.wait_for_log("lied", FIND_LIMIT);
    let caught = || {
        let banned = |peer: &PeerReport| peer.faults.contains_key("wrong-content");
        alone.agent.peers().iter().filter(|peer| banned(peer)).count()
    };
    assert!(wait_until(FIND_LIMIT, || caught() > 0), "{:#?}", alone.agent.peers());
    assert_eq!(caught(), 1, "and nobody else: {:#?}", alone.agent.peers());
}
