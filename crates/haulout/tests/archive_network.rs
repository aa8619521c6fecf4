//! `haulout archive --network` as its users have it: on a network of storage nodes and a full node, all processes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use haulout_nix::nar::hash_reader;
use haulout_nix::{HashPart, PathInfo};
use haulout_sample::SampleStore;
use serde_json::Value;
use support::{good, program, stderr};

/// A running network; it goes when this does.
struct Devnet {
    process: Child,
    dir: PathBuf,
    facts: Value,
}

impl Drop for Devnet {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct World {
    dir: tempfile::TempDir,
    devnet: Devnet,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("devnet");
    let mut command = program();
    command.args(["devnet", "up", "--json", "--shards", "10", "--nodes", "10", "--dir"]);
    let mut process = command.arg(&place).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let facts = serde_json::from_str(&line).unwrap();
    World { dir, devnet: Devnet { process, dir: place, facts } }
}

impl World {
    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn sample(&self, name: &str, seed: u64, paths: usize) -> (SampleStore, String) {
        let store = support::sample(&self.dir.path().join(name), seed, paths, 600_000);
        let top = support::top(&store);
        (store, top)
    }

    /// As somebody with a home, and the network's account as wallet, would run it.
    fn run_as(&self, home: &str, arguments: &[&str]) -> Output {
        let mut command = program();
        command.env("HOME", self.dir.path().join(home)).args(arguments);
        command.env("HAULOUT_SUI_WALLET", self.fact("account")).output().unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        self.ok_as("publisher", arguments)
    }

    fn ok_as(&self, home: &str, arguments: &[&str]) -> String {
        good(self.run_as(home, arguments))
    }

    fn fact(&self, name: &str) -> &str {
        self.devnet.facts[name].as_str().unwrap_or_else(|| panic!("{name}"))
    }

    fn fault(&self, node: usize, faults: &[&str]) {
        let dir = self.devnet.dir.display().to_string();
        let node = node.to_string();
        self.ok(&[&["devnet", "fault", "--dir", &dir, &node], faults].concat());
    }

    fn archive(&self, name: &str) -> String {
        let file = self.path(name);
        let network = self.fact("network").to_owned();
        let id =
            self.ok(&["archive", "init", &file, "--network", &network, "--name", name, "--yes"]);
        assert!(id.trim().starts_with("0x") && id.trim().len() == 66, "{id}");
        file
    }

    fn listed(&self, home: &str, archive: &str) -> Vec<String> {
        let list = self.ok_as(home, &["archive", "ls", "--archive", archive]);
        list.lines().map(str::to_owned).collect()
    }

    fn status(&self, archive: &str) -> Value {
        let said = self.ok(&["archive", "status", "--json", "--archive", archive]);
        serde_json::from_str(&said).unwrap()
    }
}

fn full(paths: &[PathInfo]) -> Vec<String> {
    let mut all: Vec<&PathInfo> = paths.iter().collect();
    all.sort_by_key(|info| info.path.hash_part());
    all.into_iter().map(|info| format!("/nix/store/{}", info.path)).collect()
}

#[test]
fn an_archive_on_a_network_from_init_to_fund() {
    let world = world();
    let (store, top) = world.sample("store", 5, 12);
    let root = world.path("store");
    let ours = world.archive("ours");
    assert_eq!(world.status(&ours)["sequence"], 0);

    // Nobody agreed: nothing is sent, and it is said how to agree.
    let publish = ["archive", "publish", &top, "--store-root", &root, "--archive", &ours];
    let refused = world.run_as("publisher", &publish);
    let said = stderr(&refused);
    assert!(!refused.status.success() && said.contains("--yes"), "{said}");
    let publish = [&publish[..], &["--yes"]].concat();
    let said = world.ok(&publish);
    assert!(said.contains(&format!("{} paths added", store.paths.len())), "{said}");
    assert!(world.ok(&publish).contains("0 paths added"));

    // Somebody else, with nothing but the file and without three of ten nodes.
    for node in 0..3 {
        world.fault(node, &["--down"]);
    }
    assert_eq!(world.listed("reader", &ours), full(&store.paths));
    for info in store.paths.iter().take(3) {
        let name = info.path.to_string();
        let output = world.run_as("reader", &["archive", "cat", &name, "--archive", &ours]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(hash_reader(&output.stdout[..]).unwrap().hash, info.nar_hash);
    }
    let narinfo = world.ok_as("reader", &["archive", "cat", "--narinfo", &top, "--archive", &ours]);
    assert!(narinfo.contains(&format!("StorePath: {top}\n")), "{narinfo}");
    let nothing = HashPart::from_bytes([7; 20]).to_string();
    let absent = world.run_as("reader", &["archive", "cat", &nothing, "--archive", &ours]);
    assert!(stderr(&absent).contains("which is proven"));
    world.ok_as("reader", &["archive", "verify", "--deep", "--archive", &ours]);
    for node in 0..3 {
        world.fault(node, &[]);
    }

    // A binary cache imported into another archive on the contract that is there, and compared.
    let cache = format!("file://{}", world.path("cache"));
    std::fs::create_dir(world.path("cache")).unwrap();
    world.ok(&["push", "--store-root", &root, "--to", &cache, &top]);
    let theirs = world.archive("theirs");
    world.ok(&["archive", "import", "--from", &cache, "--archive", &theirs, "--yes"]);
    assert_eq!(world.ok_as("reader", &["archive", "diff", &ours, &theirs]), "");

    // A second publication, the two levels made one, a path left out.
    let (more, second) = world.sample("more", 6, 12);
    let root = world.path("more");
    let publish =
        ["archive", "publish", &second, "--store-root", &root, "--archive", &ours, "--yes"];
    world.ok(&publish);
    let both = [&store.paths[..], &more.paths[..]].concat();
    assert_eq!(world.listed("reader", &ours), full(&both));
    world.ok(&["archive", "merge", "--drop", &second, "--archive", &ours, "--yes"]);
    let levels = world.status(&ours)["levels"].as_array().map(Vec::len);
    assert_eq!(levels, Some(1));
    assert!(!world.listed("reader", &ours).contains(&second));

    // Paid for longer, and everything is still there.
    let before = world.status(&ours)["ends_with_epoch"].as_u64().unwrap();
    world.ok(&["archive", "fund", "--epochs", "40", "--archive", &ours, "--yes"]);
    assert!(world.status(&ours)["ends_with_epoch"].as_u64().unwrap() > before);
    world.ok_as("reader", &["archive", "verify", "--deep", "--archive", &ours]);
}

#[test]
fn a_full_node_that_lies_is_not_believed_by_any_command() {
    let world = world();
    let (_, top) = world.sample("store", 5, 12);
    let (root, ours) = (world.path("store"), world.archive("ours"));
    world.ok(&["archive", "publish", &top, "--store-root", &root, "--archive", &ours, "--yes"]);
    let dir = world.devnet.dir.display().to_string();
    let lie = |lie: &[&str]| {
        world.ok(&[&["devnet", "full-node", "--dir", &dir], lie].concat());
    };
    for (home, fault) in [
        ("a", "--fork"),
        ("b", "--forged-object"),
        ("c", "--bad-signature"),
        ("d", "--other-object"),
    ] {
        lie(&[fault]);
        for command in ["ls", "status", "verify"] {
            let output = world.run_as(home, &["archive", command, "--archive", &ours]);
            let said = stderr(&output);
            assert!(!output.status.success() && output.stdout.is_empty(), "{fault}: {said}");
            assert!(said.contains("error:") && !said.contains("panicked"), "{fault}: {said}");
        }
    }
    lie(&[]);
    assert!(world.listed("a", &ours).contains(&top));
    assert!(Path::new(&world.path("a/.local/state/haulout/archives")).is_dir());
}

#[test]
fn the_owner_says_who_publishes_and_ends_it() {
    let world = world();
    let (_, top) = world.sample("store", 5, 12);
    let (root, ours, theirs) = (world.path("store"), world.archive("ours"), world.path("theirs"));
    let publish = |archive: &str, top: &str, root: &str| {
        world.run_as(
            "publisher",
            &["archive", "publish", top, "--store-root", root, "--archive", archive, "--yes"],
        )
    };
    // The network's own account stands in for a second one: what counts is the cap.
    let said = String::from_utf8(publish(&ours, &top, &root).stderr).unwrap();
    assert!(world.status(&ours)["sequence"] == 1, "{said}");
    let account = said_account(&world, &ours);
    let add =
        ["archive", "publisher", "add", &account, "--out", &theirs, "--archive", &ours, "--yes"];
    let cap = world.ok(&add);
    let (_, second) = world.sample("more", 6, 12);
    assert!(publish(&theirs, &second, &world.path("more")).status.success());

    // Revoked, it publishes no more; a rotated one goes on.
    world.ok(&["archive", "publisher", "revoke", cap.trim(), "--archive", &ours, "--yes"]);
    let (_, third) = world.sample("third", 7, 12);
    let refused = publish(&theirs, &third, &world.path("third"));
    assert!(!refused.status.success(), "{}", stderr(&refused));
    world.ok(&["archive", "publisher", "rotate", "--archive", &ours, "--yes"]);
    assert!(publish(&ours, &third, &world.path("third")).status.success());
    assert_eq!(world.status(&ours)["sequence"], 3);

    // Only the owner may; and frozen is frozen.
    let stranger = ["archive", "freeze", "--archive", &theirs, "--yes"];
    let said = world.run_as("publisher", &stranger);
    assert!(stderr(&said).contains("has no owner_cap"));
    let before = std::fs::read_to_string(&ours).unwrap();
    world.ok(&["archive", "freeze", "--archive", &ours, "--yes"]);
    assert_eq!(world.status(&ours)["frozen"], true);
    std::fs::write(&ours, before).unwrap();
    let (_, fourth) = world.sample("fourth", 8, 12);
    assert!(!publish(&ours, &fourth, &world.path("fourth")).status.success());
    assert!(world.listed("reader", &ours).contains(&third));
}

/// The account behind the wallet: it is named when a transaction is shown.
fn said_account(world: &World, archive: &str) -> String {
    let shown = world.run_as("asking", &["archive", "publisher", "rotate", "--archive", archive]);
    let said = stderr(&shown);
    let account = said.split(", from ").nth(1).and_then(|rest| rest.split_whitespace().next());
    account.unwrap_or_else(|| panic!("no account in {said}")).to_owned()
}

/// A run of the program as somebody whose wallet is given in another way.
fn paid_by(world: &World, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = program();
    command.env("HOME", world.dir.path().join("payer")).args(arguments);
    command.envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn whoever_pays_may_be_named_in_any_of_the_ways() {
    let world = world();
    let network = world.fact("network").to_owned();
    let key = std::fs::read_to_string(world.fact("account")).unwrap();
    let init = |name: &str| {
        let file = world.path(name);
        ["archive", "init", &file, "--network", &network, "--yes"].map(str::to_owned)
    };
    let run = |variables: &[(&str, &str)], arguments: &[String], more: &[&str]| {
        let arguments: Vec<&str> =
            arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let output = paid_by(&world, variables, &arguments);
        (output.status.success(), stderr(&output))
    };
    let (done, said) = run(&[], &init("a"), &[]);
    assert!(!done && said.contains("HAULOUT_SUI_KEY") && said.contains("--signer"), "{said}");
    let (done, said) = run(&[("HAULOUT_SUI_KEY", key.trim())], &init("a"), &[]);
    assert!(done, "{said}");
    let (done, said) = run(&[("HAULOUT_SUI_KEY", "suiprivkey1nonsense")], &init("b"), &[]);
    assert!(!done && !said.contains("nonsense"), "{said}");
    assert!(!Path::new(&world.path("b")).exists(), "nothing is left of what failed");

    // Somebody else's program that does not sign.
    let account = format!("0x{:064x}", 0xabc);
    let (done, said) = run(&[], &init("c"), &["--signer", "exit 3"]);
    assert!(!done && said.contains("--signer-account"), "{said}");
    let signer = ["--signer", "exit 3", "--signer-account", &account];
    let (done, said) = run(&[], &init("c"), &signer);
    assert!(!done && said.contains("0 MIST of SUI"), "it has no coins: {said}");
    world.ok(&["devnet", "fund", &account, "--dir", &world.devnet.dir.display().to_string()]);
    let (done, said) = run(&[], &init("c"), &signer);
    assert!(!done && said.contains("signer command"), "{said}");

    // A place where the file cannot be is noticed before anything is paid.
    let (done, said) = run(&[("HAULOUT_SUI_KEY", key.trim())], &init("no/such/directory"), &[]);
    assert!(!done && said.contains("cannot write"), "{said}");
    // Half an account is nobody's.
    let add = ["archive", "publisher", "add", "0x12", "--out", "x", "--archive"];
    let ours = world.path("a");
    let output = world.run_as("payer", &[&add[..], &[ours.as_str(), "--yes"]].concat());
    assert!(stderr(&output).contains("in full"));
    let nobody = format!("0x{:064x}", 0xdef);
    let revoke = ["archive", "publisher", "revoke", &nobody, "--archive", &ours, "--yes"];
    let said = stderr(&world.run_as("payer", &revoke));
    assert!(said.contains("no such publisher"), "the contract's number is explained: {said}");
}

#[test]
fn an_anchor_is_asked_for_and_an_archive_lives_on_it() {
    let world = world();
    let dir = world.devnet.dir.display().to_string();
    // Without an anchor nothing is paid for, and it is said how to come by one.
    let text = std::fs::read_to_string(world.fact("network")).unwrap();
    let bare = world.path("bare.toml");
    std::fs::write(&bare, text.split("[trust_anchor]").next().unwrap()).unwrap();
    let ours = world.path("ours");
    let init = |network: &str| {
        world.run_as("publisher", &["archive", "init", &ours, "--network", network, "--yes"])
    };
    let said = stderr(&init(&bare));
    assert!(said.contains("archive anchor"), "{said}");

    // In the chain's first epoch it is the first checkpoint; later the end of the last epoch.
    let first = world.ok(&["archive", "anchor", "--network", &bare]);
    assert!(text.contains(first.lines().last().unwrap()), "{first}");
    world.ok(&["devnet", "sui-epoch", "--dir", &dir]);
    world.ok(&["devnet", "sui-epoch", "--dir", &dir]);
    let anchored = world.path("anchored.toml");
    let file = world.ok(&["archive", "anchor", "--network", &bare]);
    assert!(file.contains("checkpoint = ") && file != first, "{file}");
    std::fs::write(&anchored, file).unwrap();
    assert!(init(&anchored).status.success());
    assert_eq!(world.status(&ours)["sequence"], 0);
    world.ok(&["archive", "beat", "--archive", &ours, "--yes"]);
    assert_eq!(world.status(&ours)["sequence"], 1);
    assert_eq!(world.listed("reader", &ours), Vec::<String>::new());
}

#[test]
fn killed_in_the_middle_it_goes_on_and_pays_once() {
    let world = world();
    let root = world.path("store");
    let store = support::sample(Path::new(&root), 9, 16, 8_000_000);
    let (top, ours) = (format!("/nix/store/{}", store.top), world.archive("ours"));
    let publish = ["archive", "publish", &top, "--store-root", &root, "--archive", &ours];
    let publish = [&publish[..], &["--yes", "--json"]].concat();
    let mut command = program();
    command.env("HOME", world.dir.path().join("publisher")).args(&publish);
    command.env("HAULOUT_SUI_WALLET", world.fact("account")).stdout(Stdio::null());
    let mut running = command.spawn().unwrap();
    // As soon as one pack is stored and noted; several are to come, each with two transactions.
    let journals = world.dir.path().join("publisher/.local/state/haulout/publish");
    let noted = || {
        let files = std::fs::read_dir(&journals).into_iter().flatten().flatten();
        files
            .filter(|file| file.path().extension().is_some_and(|end| end == "journal"))
            .any(|file| std::fs::read_to_string(file.path()).is_ok_and(|t| t.contains("\"pack\"")))
    };
    while !noted() {
        assert!(running.try_wait().unwrap().is_none(), "it ended before a pack was stored");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(world.status(&ours)["sequence"], 0, "nothing half-published is visible");
    assert!(world.listed("reader", &ours).is_empty());

    let report: Value = serde_json::from_str(&world.ok(&publish)).unwrap();
    assert_eq!((&report["added"], &report["sequence"]), (&store.paths.len().into(), &1.into()));
    assert!(report["resumed"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(world.listed("reader", &ours), full(&store.paths));
    let findings = world.ok_as("reader", &["archive", "verify", "--json", "--archive", &ours]);
    let findings: Value = serde_json::from_str(&findings).unwrap();
    // Packs of both runs, each registered once.
    let (all, second) = (findings["packs"].as_u64().unwrap(), report["packs"].as_u64().unwrap());
    assert!(second < all, "{second} of {all} packs in the second run");
}
