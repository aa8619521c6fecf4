//! How real Nix punishes a substituter for each kind of failure, and that the agent
//! never gives it reason to. One test per row; the rows are what was measured with Nix
//! 2.8, 2.26 and 2.34.
//!
//! | what a substituter does | what Nix does | what the agent does instead |
//! | --- | --- | --- |
//! | 5xx, 429 or 400 for a narinfo | retries for seconds, fails builds, or hangs | 404 |
//! | a malformed narinfo | fails builds (before 2.32) | writes its own, canonical |
//! | a narinfo without a trusted signature | skips it | 404 |
//! | no answer to a narinfo | waits for minutes | 404 in time |
//! | 404 for a NAR | the next substituter, at once | that, when it is gone |
//! | 5xx for a NAR | retries for 4 s first | 404 |
//! | a wrong byte in a NAR | reads it all, then the next substituter | never the last byte of it |
//! | a NAR that stalls | waits for 300 s | another peer, or a cut |
//! | a cut NAR | resumes by Range, or the next substituter | Range holds |
//! | a closure with a hole in it | looks for the rest elsewhere | the same |
//! | connection refused | 4 to 30 s, or a failed build | an open socket (activation) |

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use haulout_nix::{NarHash, NarInfo, PathInfo, StoreDir};
use rustix::process::Signal;
use system_tests::http::Connection;
use system_tests::wiretap::assert_no_server_errors;
use system_tests::{Agent, FIND_LIMIT, Machine, NixClient, Scene};

const PATHS: usize = 60;
const BYTES: u64 = 12 << 20;

/// What Nix may take over the closure with one fault in the way.
const BOUND: Duration = Duration::from_secs(30);

/// A narinfo question is answered within this, whatever peers do. A silent peer costs 0.3 s,
/// one that is alive and slow 1.5 s at most; the rest is room for a machine that runs other tests.
const ANSWER_BOUND: Duration = Duration::from_millis(2500);

fn narinfo_of(info: &PathInfo) -> String {
    format!("/{}.narinfo", info.path.hash_part())
}

/// Asks a machine's agent for the narinfo and returns the NAR's URL.
fn nar_url(agent: &Agent<'_>, info: &PathInfo) -> String {
    let answer = agent.get(&narinfo_of(info)).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let parsed = NarInfo::parse(&answer.body, &StoreDir::default()).unwrap();
    format!("/{}", parsed.url)
}

/// Realises on every version of Nix through `machine`'s agent, with a second substituter
/// that works; the agent may contribute or not, but not spoil.
/// `spoil` happens once the peer is found, `mend` before the next version's turn.
fn nix_succeeds_anyway(scene: &Scene, spoil: impl Fn(&Machine<'_>), mend: impl Fn()) {
    let other = scene.other_cache();
    for nix in scene.nixes() {
        let machine = scene.machine_with(1, nix, &[&other], |spec| spec);
        machine.agent.wait_for_peers(1, FIND_LIMIT);
        spoil(&machine);
        let outcome = machine.nix.realise(scene.closure().top()).ok();
        assert!(outcome.wall < BOUND, "Nix {}: {:?}", nix.version(), outcome.wall);
        let _ = machine.nix.verify(&scene.closure().paths()).ok();
        let seen = machine.tap.take();
        assert_no_server_errors(&seen);
        let narinfos = seen.iter().filter(|seen| seen.path.ends_with(".narinfo"));
        let slowest = narinfos.map(|seen| seen.waited).max().unwrap_or_default();
        assert!(slowest < ANSWER_BOUND, "a narinfo took {slowest:?}");
        mend();
    }
}

#[test]
fn narinfos_are_canonical_relative_and_complete() {
    let Some(scene) = Scene::new(2, PATHS, BYTES) else { return };
    let _a = scene.seed(0);
    let b = scene.machine(1);
    b.agent.wait_for_peers(1, FIND_LIMIT);
    let mut connection = Connection::open(b.agent.host(), Agent::HTTP).unwrap();
    for info in scene.closure().infos() {
        let answer = connection.get(&narinfo_of(info)).unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/x-nix-narinfo"));
        let text = answer.text();
        assert!(text.ends_with('\n') && !text.contains('\r') && !text.contains("\n\n"), "{text}");
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.strip_prefix(": ")).map(str::to_owned)
        };
        assert_eq!(field("StorePath"), Some(StoreDir::default().display(&info.path)));
        assert_eq!(field("Compression").as_deref(), Some("none"));
        assert_eq!(field("NarSize"), Some(info.nar_size.to_string()));
        assert!(field("References").is_some(), "no space after References: {text}");
        let url = field("URL").unwrap();
        assert!(!url.contains("://") && !url.starts_with('/'), "not relative: {url}");
        assert!(
            text.contains(&format!("Sig: {}", info.signatures[0])),
            "the signature is not the original"
        );

        let head = connection.request("HEAD", &narinfo_of(info), &[]).unwrap();
        assert_eq!(
            (head.status, head.header("content-length")),
            (200, Some(&*text.len().to_string()))
        );
    }
}

#[test]
fn nar_answers_have_a_length_and_ranges() {
    let Some(scene) = Scene::new(2, PATHS, BYTES) else { return };
    let _a = scene.seed(0);
    let b = scene.machine(1);
    b.agent.wait_for_peers(1, FIND_LIMIT);
    let info = scene.closure().largest();
    let url = nar_url(&b.agent, info);
    let mut connection = Connection::open(b.agent.host(), Agent::HTTP).unwrap();
    let whole = connection.get(&url).unwrap();
    assert_eq!((whole.status, whole.cut), (200, false));
    assert_eq!(NarHash::of(&whole.body), info.nar_hash);
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    assert_eq!(whole.header("content-length"), Some(&*info.nar_size.to_string()));

    // What Nix sends to resume its own interrupted transfer.
    for from in [1, 4096, info.nar_size / 2, info.nar_size - 1] {
        let rest =
            connection.request("GET", &url, &[("Range", &format!("bytes={from}-"))]).unwrap();
        assert_eq!(rest.status, 206);
        assert_eq!(
            rest.header("content-range"),
            Some(&*format!("bytes {from}-{}/{}", info.nar_size - 1, info.nar_size))
        );
        assert!(
            rest.body == whole.body[usize::try_from(from).unwrap()..],
            "other bytes from {from}"
        );
    }
}

#[test]
fn nix_cache_info_is_what_nix_can_read() {
    let Some(scene) = Scene::new(1, 12, 1 << 20) else { return };
    let a = scene.seed(0);
    let answer = a.get("/nix-cache-info").unwrap();
    let fields: BTreeMap<String, String> = answer
        .text()
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect();
    assert_eq!(fields["StoreDir"], "/nix/store");
    assert!(fields["Priority"].parse::<u32>().is_ok_and(|priority| priority < 40), "{fields:?}");
    for nix in scene.nixes() {
        // Nobody may write here, and being told so is no crash.
        let client =
            NixClient::new(nix, scene.lab().host(0), &[], &[&scene.closure().public_key()]);
        let upload = client.run("nix", &["copy", "--to", &a.url(), scene.closure().top()]);
        assert!(!upload.success && !upload.hung, "{upload:#?}");
    }
}

#[test]
fn odd_questions_get_no_server_error() {
    let Some(scene) = Scene::new(1, 12, 1 << 20) else { return };
    let a = scene.seed(0);
    let long = format!("/{}.narinfo", "a".repeat(4000));
    for path in [
        "/",
        "/x.narinfo",
        "/..%2f..%2fetc%2fpasswd",
        "/nar/x.nar",
        "/nar/",
        "/nar/../../etc/passwd",
        "/log/x.drv",
        "/%00.narinfo",
        "/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee.narinfo",
        &long,
        "/realisations/sha256:00!out.doi",
        "/debuginfo/00",
        "/build-trace-v2/x.drv/out.doi",
    ] {
        for method in ["GET", "HEAD"] {
            let mut connection = Connection::open(a.host(), Agent::HTTP).unwrap();
            let status = connection.request(method, path, &[]).unwrap().status;
            assert!(status < 500, "{method} {path}: {status}");
        }
    }
    assert_eq!(a.status().counters.http.panics, 0);
}

#[test]
fn narinfo_question_to_a_silent_peer_is_answered_in_time() {
    let Some(scene) = Scene::new(2, PATHS, BYTES) else { return };
    let a = scene.seed(0);
    nix_succeeds_anyway(&scene, |_| a.signal(Signal::STOP), || a.signal(Signal::CONT));
}

#[test]
fn peer_that_died_after_its_yes_is_a_404_for_the_nar() {
    let Some(scene) = Scene::new(2, PATHS, BYTES) else { return };
    let mut a = scene.seed(0);
    let b = scene.machine(1);
    b.agent.wait_for_peers(1, FIND_LIMIT);
    let url = nar_url(&b.agent, scene.closure().largest());
    a.process().kill();
    let start = Instant::now();
    let answer = b.agent.get(&url).unwrap();
    assert_eq!(answer.status, 404);
    // A second to notice, three in which a flapping link may come back.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn path_collected_after_the_yes_is_a_404_for_the_nar() {
    let Some(scene) = Scene::new(2, PATHS, BYTES) else { return };
    let _a = scene.seed(0);
    let b = scene.machine(1);
    b.agent.wait_for_peers(1, FIND_LIMIT);
    // The only one that no other path needs.
    let info = scene.closure().top_info();
    let url = nar_url(&b.agent, info);
    haulout_sample::remove(scene.closure().root(), &info.path).unwrap();
    let answer = b.agent.get(&url).unwrap();
    assert_eq!(answer.status, 404);
    // And the others are still there.
    let other = scene.closure().leaf(0);
    assert_eq!(b.agent.get(&nar_url(&b.agent, other)).unwrap().status, 200);
}

#[test]
fn files_that_vanish_under_the_peer_never_make_a_wrong_nar() {
    let Some(scene) = Scene::new(2, PATHS, BYTES) else { return };
    let _a = scene.seed(0);
    let b = scene.machine(1);
    b.agent.wait_for_peers(1, FIND_LIMIT);
    let info = scene.closure().largest();
    let url = nar_url(&b.agent, info);
    // Gone from the disk, still in the database: a collector at work.
    let real = scene.closure().root().join("nix/store").join(info.path.to_string());
    if real.is_dir() { std::fs::remove_dir_all(&real) } else { std::fs::remove_file(&real) }
        .unwrap();
    let answer = b.agent.get(&url).unwrap();
    assert!(answer.status == 404 || answer.cut, "{} {}", answer.status, answer.body.len());
}

#[test]
fn nar_changed_on_the_peers_disk_never_arrives_whole() {
    let Some(scene) = Scene::new(2, PATHS, BYTES) else { return };
    let _a = scene.seed(0);
    let _ = scene.other_cache();
    // A disk that rots: same size, other bytes, no lie intended.
    let rotten = scene.closure().largest();
    let real = scene.closure().root().join("nix/store").join(rotten.path.to_string());
    rot(&real);
    let asked = |machine: &Machine<'_>| {
        let answer = machine.agent.get(&nar_url(&machine.agent, rotten)).unwrap();
        assert!(answer.status == 404 || answer.cut, "a rotten NAR arrived whole");
        assert!((answer.body.len() as u64) < rotten.nar_size);
    };
    nix_succeeds_anyway(&scene, asked, || ());
}

/// Changes one byte in the middle of the largest file at `path`.
fn rot(path: &std::path::Path) {
    let mut files = vec![path.to_owned()];
    let mut largest = (0, path.to_owned());
    while let Some(file) = files.pop() {
        let meta = std::fs::symlink_metadata(&file).unwrap();
        if meta.is_dir() {
            files.extend(std::fs::read_dir(&file).unwrap().map(|entry| entry.unwrap().path()));
        } else if meta.is_file() && meta.len() > largest.0 {
            largest = (meta.len(), file);
        }
    }
    let mut bytes = std::fs::read(&largest.1).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&largest.1, bytes).unwrap();
}

#[test]
fn a_reference_that_no_peer_gives_comes_from_the_other_substituter() {
    let Some(scene) = Scene::new(2, PATHS, BYTES) else { return };
    // Made while everything is signed.
    let _ = scene.other_cache();
    let leaf = scene.closure().leaf(0).clone();
    scene.closure().set_signatures(&leaf, &[]);
    let _a = scene.seed(0);
    let hole = |machine: &Machine<'_>| {
        assert_eq!(machine.agent.get(&narinfo_of(&leaf)).unwrap().status, 404);
    };
    nix_succeeds_anyway(&scene, hole, || ());
}

#[test]
fn agent_that_was_never_there_costs_seconds_but_no_build() {
    let Some(scene) = Scene::new(1, 12, 1 << 20) else { return };
    let other = scene.other_cache();
    for nix in scene.nixes() {
        let absent = format!("http://{}?priority=10", Agent::HTTP);
        let keys = [scene.closure().public_key()];
        let client = NixClient::new(nix, scene.lab().host(0), &[&absent, &other], &[&keys[0]]);
        let outcome = client.realise(scene.closure().top()).ok();
        println!("Nix {}, no agent: {:.1} s", nix.version(), outcome.wall.as_secs_f64());
    }
}
