//! The program as a user meets it: commands, exit codes, messages.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use haulout_nix::SecretKey;
use haulout_nix::nar::hash_reader;
use haulout_sample::{Sample, SampleSpec, SampleStore};
use rustix::process::{Pid, Signal, kill_process};

fn haulout(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_haulout"));
    command.args(arguments).env_clear().env("HOME", "/nonexistent").stdin(Stdio::null());
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn sample(root: &Path) -> (SampleStore, String) {
    let key = SecretKey::from_seed("cli-1", [3; 32]).unwrap();
    let store = Sample::generate(root, SampleSpec::new(5, 12, 300_000, &key)).unwrap();
    (store, key.public_key().to_string())
}

#[test]
fn a_nar_is_the_same_whole_and_in_ranges() {
    let place = tempfile::tempdir().unwrap();
    let (store, _) = sample(place.path());
    let info = store.paths.iter().max_by_key(|info| info.nar_size).unwrap();
    let path = store.location.real_path(&info.path);
    let path = path.to_str().unwrap();

    let whole = haulout(&["nar", "dump", path]);
    assert!(whole.status.success(), "{}", stderr(&whole));
    let digest = hash_reader(whole.stdout.as_slice()).unwrap();
    assert_eq!((digest.hash, digest.size), (info.nar_hash, info.nar_size));

    let range = haulout(&["nar", "dump", path, "--range", "1000-5000"]);
    assert_eq!(range.stdout, whole.stdout[1000..5000]);

    let outside = haulout(&["nar", "dump", path, "--range", "0-99999999999"]);
    assert!(!outside.status.success());
    assert!(stderr(&outside).contains("outside the NAR") && stderr(&outside).contains("hint: "));
}

#[test]
fn a_nar_file_and_the_tree_it_came_from_list_alike() {
    let place = tempfile::tempdir().unwrap();
    let (store, _) = sample(place.path());
    let tree = store.location.real_path(store.many_files.as_ref().unwrap_or(&store.top));
    let tree = tree.to_str().unwrap();
    let file = place.path().join("x.nar");
    std::fs::write(&file, haulout(&["nar", "dump", tree]).stdout).unwrap();
    let file = file.to_str().unwrap();
    for json in [&[][..], &["--json"]] {
        let [of_tree, of_file] = [tree, file].map(|x| haulout(&[&["nar", "ls", x], json].concat()));
        assert!(of_tree.status.success() && of_file.status.success(), "{}", stderr(&of_file));
        assert!(!of_tree.stdout.is_empty());
        assert_eq!(stdout(&of_tree), stdout(&of_file));
    }
    std::fs::write(file, b"\x0d\0\0\0\0\0\0\0nix-archive-1 and then nothing good").unwrap();
    let broken = haulout(&["nar", "ls", file]);
    assert!(!broken.status.success() && stderr(&broken).contains("bad NAR near byte"));
}

#[test]
fn verify_finds_the_one_altered_path() {
    let place = tempfile::tempdir().unwrap();
    let (store, key) = sample(place.path());
    let root = place.path().to_str().unwrap();
    let all = haulout(&["verify", "--store-root", root]);
    assert!(all.status.success(), "{}", stderr(&all));

    let info = store.paths.iter().find(|i| !i.signatures.is_empty()).unwrap();
    let full = store.location.store_dir.display(&info.path);
    let one = haulout(&["verify", "--store-root", root, "--key", &key, &full]);
    assert!(stdout(&one).contains("signed by cli-1"), "{}", stdout(&one));

    let file = first_file(&store.location.real_path(&info.path)).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut contents = std::fs::read(&file).unwrap();
    contents[0] ^= 1;
    std::fs::write(&file, contents).unwrap();
    let all = haulout(&["verify", "--store-root", root]);
    assert_eq!(all.status.code(), Some(1));
    assert_eq!(stdout(&all).lines().count(), 1, "{}", stdout(&all));
    assert!(stdout(&all).starts_with(&format!("WRONG {full}: has NAR hash")));

    let unknown = haulout(&["verify", "--store-root", root, "/nix/store/x"]);
    assert!(
        stderr(&unknown).contains("is not a store path") && stderr(&unknown).contains("hint: ")
    );
}

fn first_file(place: &Path) -> Option<std::path::PathBuf> {
    let kind = std::fs::symlink_metadata(place).unwrap();
    if kind.is_file() {
        return (kind.len() > 0).then(|| place.to_owned());
    }
    kind.is_dir().then_some(())?;
    std::fs::read_dir(place).unwrap().find_map(|entry| first_file(&entry.unwrap().path()))
}

/// A running agent, killed at the end of the test.
struct Agent {
    child: Child,
    address: String,
}

impl Agent {
    fn start(place: &Path, settings: &str) -> Self {
        let file = place.join("haulout.toml");
        std::fs::write(&file, settings).unwrap();
        let mut child = command(&["up", "--config", file.to_str().unwrap()])
            .env("XDG_STATE_HOME", place.join("state"))
            .env("STATE_DIRECTORY", place.join("state"))
            .env("CACHE_DIRECTORY", place.join("cache"))
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(place.join("log")).unwrap())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.map(Result::unwrap).find(|line| line.starts_with("substituter: http://"));
        let log = || std::fs::read_to_string(place.join("log")).unwrap();
        let ready = ready.unwrap_or_else(|| panic!("the agent did not start: {}", log()));
        let address = ready.trim_start_matches("substituter: http://").to_owned();
        Self { child, address }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings(place: &Path, key: &str) -> String {
    format!(
        "[store]\nroot = {place:?}\n[http]\nlisten = \"127.0.0.1:0\"\n[mesh]\nport = 0\nmdns = false\n\
         [trust]\nkeys = [{key:?}]\nnix_conf = false\n[upstream]\nenable = false\n"
    )
}

#[test]
fn build_logs_of_the_own_store_are_there_by_derivation_and_by_output() {
    let place = tempfile::tempdir().unwrap();
    let (store, key) = sample(place.path());
    let info = store.paths.iter().find(|info| info.deriver.is_some()).unwrap();
    let derivation = info.deriver.as_ref().unwrap();
    let [_, (log, _)] = store.location.build_logs(derivation);
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    std::fs::write(&log, "checking for gcc... yes\n").unwrap();

    let agent = Agent::start(place.path(), &settings(place.path(), &key));
    for name in [derivation, &info.path] {
        let answer = agent.get(&format!("/log/{name}"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.to_lowercase().contains("content-type: text/plain"), "{answer}");
        assert!(answer.ends_with("checking for gcc... yes\n"), "{answer}");
    }
    for name in [format!("{}-other", info.path.hash_part()), format!("{derivation}.drv")] {
        let answer = agent.get(&format!("/log/{name}"));
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
}

#[test]
fn an_agent_starts_without_nix_answers_and_ends_cleanly() {
    let place = tempfile::tempdir().unwrap();
    let agent = Agent::start(
        place.path(),
        &settings(place.path(), "k-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="),
    );
    assert!(agent.get("/nix-cache-info").contains("StoreDir: /nix/store\n"));
    let miss = agent.get("/00000000000000000000000000000000.narinfo");
    assert!(miss.starts_with("HTTP/1.1 404"), "{miss}");

    let status = haulout(&["status", "--agent", &agent.address]);
    assert!(status.status.success(), "{}", stderr(&status));
    assert!(stdout(&status).contains("1 asked, 0 answered, 1 not here"), "{}", stdout(&status));
    let json = haulout(&["status", "--json", "--agent", &agent.address]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["state"], "serving");
    let why = haulout(&["why", "00000000000000000000000000000000", "--agent", &agent.address]);
    assert_eq!(why.status.code(), Some(1), "{}", stdout(&why));
    let peers = haulout(&["peers", "--agent", &agent.address]);
    assert!(peers.status.success());

    agent.signal(Signal::TERM);
    let mut agent = agent;
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = agent.child.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "the agent does not end");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{status}");
}

#[test]
fn settings_are_read_again_on_hangup_and_a_mistake_changes_nothing() {
    let place = tempfile::tempdir().unwrap();
    let (store, key) = sample(place.path());
    let other = SecretKey::from_seed("other-1", [4; 32]).unwrap().public_key().to_string();
    let agent = Agent::start(place.path(), &settings(place.path(), &other));
    let info = store.paths.iter().find(|i| !i.signatures.is_empty()).unwrap();
    let question = format!("/{}.narinfo", info.path.hash_part());
    assert!(agent.get(&question).starts_with("HTTP/1.1 404"), "its key is not trusted yet");

    let file = place.path().join("haulout.toml");
    std::fs::write(&file, "[trust]\nkeyz = []\n").unwrap();
    agent.signal(Signal::HUP);
    let log = place.path().join("log");
    wait_until("the mistake is logged", || {
        std::fs::read_to_string(&log).unwrap().contains("did you mean keys?")
    });
    assert!(agent.get(&question).starts_with("HTTP/1.1 404"));

    std::fs::write(&file, settings(place.path(), &key)).unwrap();
    agent.signal(Signal::HUP);
    wait_until("the key is trusted", || agent.get(&question).starts_with("HTTP/1.1 200"));
    let logged = |text: &str| std::fs::read_to_string(&log).unwrap().contains(text);
    wait_until("what changed is logged", || logged("changed: trust.keys; keys trusted: 1"));
    assert!(!logged("need a restart"));

    let changed =
        settings(place.path(), &key).replace("[mesh]", "[cache]\nquota = \"1 GiB\"\n[mesh]");
    std::fs::write(&file, changed).unwrap();
    agent.signal(Signal::HUP);
    wait_until("what needs a restart is named", || logged("need a restart: cache.quota"));
}

fn wait_until(what: &str, mut look: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !look() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn mistakes_are_explained_with_a_hint() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("haulout.toml");
    std::fs::write(&file, "[mesh]\nport = 99999\n").unwrap();
    let file = file.to_str().unwrap();
    for (arguments, expected) in [
        (&["up", "--config", file][..], "haulout.toml:2: "),
        (&["up", "--config", "/nonexistent.toml"], "cannot read settings /nonexistent.toml"),
        (&["up", "--listen", "nowhere"], "flag --listen"),
        (&["up", "--listen", "0.0.0.0:0"], "can be reached by other machines"),
        (&["status", "--agent", "127.0.0.1:1"], "no agent answers at 127.0.0.1:1"),
        (&["why", "/nix/store/short"], "does not name a store path"),
    ] {
        let output = haulout(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let text = stderr(&output);
        assert!(text.contains(expected) && text.contains("hint: "), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn printed_settings_are_valid_settings() {
    let place = tempfile::tempdir().unwrap();
    let printed = haulout(&["up", "--check", "--set", "mesh.interfaces=eth0"]);
    assert!(printed.status.success(), "{}", stderr(&printed));
    let file = place.path().join("again.toml");
    std::fs::write(&file, &printed.stdout).unwrap();
    let again = haulout(&["up", "--check", "--config", file.to_str().unwrap()]);
    assert_eq!(stdout(&again), stdout(&printed));
}

#[test]
fn the_demo_tells_the_truth() {
    let demo = haulout(&["demo", "--act", "mesh", "--seed", "7"]);
    assert!(demo.status.success(), "{}{}", stdout(&demo), stderr(&demo));
    assert!(stdout(&demo).contains("none wrong"), "{}", stdout(&demo));
}

/// A reader that has seen enough is no reason to talk of bugs.
#[test]
fn a_pipe_that_is_closed_early_is_no_panic() {
    let script = "\"$0\" man --help | true; \"$0\" completions bash | head -c 1 >/dev/null; echo \"${PIPESTATUS[0]}\"";
    let output =
        Command::new("bash").args(["-c", script, env!("CARGO_BIN_EXE_haulout")]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked"), "{said}");
}
