//! An agent meets what an earlier or a later version left on the disk: it says what it does with it, and loses nothing.

use std::fs;
use std::time::Duration;

use haulout_gateway::api::{AgentState, AgentStatus};
use system_tests::{Agent, AgentSpec, FIND_LIMIT, Lab, Scene, wait_until};

const SECONDS: Duration = Duration::from_secs(20);

/// The directory of an agent's own files; there was one on the host before.
fn home(lab: &Lab, host: usize) -> std::path::PathBuf {
    lab.host(host).dir().join("agent0")
}

#[test]
fn a_cache_of_a_later_version_is_left_alone_and_used_again_after_the_downgrade() {
    let Some(scene) = Scene::new(2, 20, 2 << 20) else { return };
    let _seed = scene.seed(0);
    let mut machine =
        scene.machine_with(1, scene.nix(), &[], |spec| spec.set("cache.nars", "\"all\""));
    machine.agent.wait_for_peers(1, FIND_LIMIT);
    let _ = machine.nix.realise(scene.closure().top()).ok();
    let kept = |agent: &Agent<'_>| agent.status().cache.nars;
    assert!(wait_until(SECONDS, || kept(&machine.agent) > 0), "{}", machine.agent.process().log());
    let before = kept(&machine.agent);
    assert!(machine.agent.process().terminate(SECONDS).success());

    // As a later version would have left it.
    let dir = home(scene.lab(), 1).join("cache");
    let ours = fs::read_to_string(dir.join("VERSION")).unwrap();
    fs::write(dir.join("VERSION"), "haulout-cache 99\n").unwrap();
    let listing = || {
        let mut names: Vec<_> = walk(&dir);
        names.sort();
        names
    };
    let files = listing();
    machine.agent.restart();
    let status = settled(&machine.agent);
    assert_eq!(status.cache.dir, None, "it runs without a cache");
    let warning = status.warnings.iter().find(|one| one.code == "no-cache").expect("and says so");
    assert!(
        warning.text.contains("format 99") && warning.text.contains("knows 1"),
        "{}",
        warning.text
    );
    // Everything else works.
    machine.agent.wait_for_peers(1, FIND_LIMIT);
    let narinfo = format!("/{}.narinfo", scene.closure().top_info().path.hash_part());
    assert_eq!(machine.agent.get(&narinfo).unwrap().status, 200);
    assert!(machine.agent.process().terminate(SECONDS).success());
    assert_eq!(listing(), files, "nothing in it was touched");

    fs::write(dir.join("VERSION"), ours).unwrap();
    machine.agent.restart();
    assert_eq!(settled(&machine.agent).cache.nars, before, "and nothing is lost");
}

/// What it says of itself once it has read what is on the disk.
fn settled(agent: &Agent<'_>) -> AgentStatus {
    assert!(wait_until(SECONDS, || agent.status().state == AgentState::Serving));
    agent.status()
}

fn walk(dir: &std::path::Path) -> Vec<(std::path::PathBuf, u64)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        if meta.is_dir() {
            files.extend(walk(&entry.path()));
        } else {
            files.push((entry.path(), meta.len()));
        }
    }
    files
}

#[test]
fn the_identity_and_the_sums_of_other_versions_are_kept_or_refused_by_name() {
    let Some(lab) = Lab::new(1) else { return };
    let spec = AgentSpec::new(&lab.dir().join("empty"), &[]);
    let mut agent = Agent::start(lab.host(0), &spec);
    let id = settled(&agent).peer_id;
    assert!(agent.process().terminate(SECONDS).success());
    let state = home(&lab, 0).join("state");

    // Sums with a field that this version does not know, and without one that it does: both count on.
    fs::write(state.join("savings.json"), r#"{"day":1,"total_bytes":4242,"by_moon":[1]}"#).unwrap();
    agent.restart();
    assert_eq!(settled(&agent).peer_id, id, "the same machine for the others");
    assert!(wait_until(SECONDS, || agent.status().saved.total_bytes == 4242));
    assert!(agent.process().terminate(SECONDS).success());

    // A key file that cannot be read is no reason to become somebody else.
    let key = state.join("identity.key");
    let ours = fs::read_to_string(&key).unwrap();
    let (first, rest) = ours.split_once('\n').unwrap();
    fs::write(&key, format!("{first}-99\n{rest}")).unwrap();
    let output = lab
        .host(0)
        .command(system_tests::haulout())
        .args(["up", "--config"])
        .arg(home(&lab, 0).join("haulout.toml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("identity.key"), "{said}");
    assert_ne!(fs::read_to_string(&key).unwrap(), ours, "it was not overwritten");
    fs::write(&key, ours).unwrap();
    agent.restart();
    assert_eq!(settled(&agent).peer_id, id);
}
