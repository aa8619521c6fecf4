//! Samples under the eyes of real Nix. Without Nix on the machine these tests
//! say so and pass, unless `HAULOUT_NO_SKIPS=1`.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use haulout_nix::db::{Database, Follower};
use haulout_nix::{SecretKey, nar};
use haulout_sample::{Sample, SampleSpec, SampleStore, create_empty, delete_all, install};

/// A directory for stores, with the configuration that Nix gets.
struct Lab {
    dir: tempfile::TempDir,
    key: SecretKey,
}

impl Lab {
    /// `None`, said aloud, when there is no Nix.
    fn new(test: &str) -> Option<Self> {
        if Command::new("nix-store").arg("--version").output().is_err() {
            assert_ne!(std::env::var("HAULOUT_NO_SKIPS").as_deref(), Ok("1"), "no Nix here");
            eprintln!("SKIPPED: {test}: nix-store is not installed");
            println!("SKIPPED: {test}: nix-store is not installed");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let key = SecretKey::from_seed("sample-1", [9; 32]).unwrap();
        let conf = format!(
            "experimental-features = nix-command\nbuild-users-group =\nsandbox = false\n\
             substituters =\nrequire-sigs = true\ntrusted-public-keys = {}\n",
            key.public_key()
        );
        std::fs::create_dir(dir.path().join("conf")).unwrap();
        std::fs::write(dir.path().join("conf/nix.conf"), conf).unwrap();
        Some(Self { dir, key })
    }

    fn root(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn generate(&self, name: &str) -> SampleStore {
        Sample::generate(&self.root(name), SampleSpec::new(1, 60, 4 << 20, &self.key)).unwrap()
    }

    fn nix(&self, program: &str, root: &Path, arguments: &[&str]) -> Output {
        Command::new(program)
            .args(arguments)
            .args(["--store", &format!("local?root={}", root.display())])
            .env("NIX_CONF_DIR", self.root("conf"))
            .env("HOME", self.dir.path())
            .env_remove("NIX_REMOTE")
            .env_remove("NIX_CONFIG")
            .output()
            .unwrap()
    }

    fn ok(&self, program: &str, root: &Path, arguments: &[&str]) -> String {
        let output = self.nix(program, root, arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = delete_all(self.dir.path());
    }
}

fn full(store: &SampleStore) -> Vec<String> {
    store.paths.iter().map(|info| store.location.store_dir.display(&info.path)).collect()
}

#[test]
fn nix_verifies_every_path() {
    let Some(lab) = Lab::new("nix_verifies_every_path") else { return };
    let store = lab.generate("a");
    let paths = full(&store);
    let mut arguments = vec!["--verify-path"];
    arguments.extend(paths.iter().map(String::as_str));
    lab.ok("nix-store", &lab.root("a"), &arguments);
    lab.ok("nix-store", &lab.root("a"), &["--verify", "--check-contents"]);
    let mut closure: Vec<String> = lab
        .ok("nix", &lab.root("a"), &["path-info", "-r", &paths[paths.len() - 1]])
        .lines()
        .map(str::to_owned)
        .collect();
    let mut paths = paths;
    closure.sort();
    paths.sort();
    assert_eq!(closure, paths, "the closure of the top is everything");
    // Signatures and content addresses hold in Nix's eyes.
    lab.ok("nix", &lab.root("a"), &["store", "verify", "--all"]);
    // Nothing is garbage.
    assert_eq!(lab.ok("nix-store", &lab.root("a"), &["--gc", "--print-dead"]).trim(), "");
}

#[test]
fn nix_copies_it_with_signatures_checked() {
    let Some(lab) = Lab::new("nix_copies_it_with_signatures_checked") else { return };
    let store = lab.generate("a");
    let top = store.location.store_dir.display(&store.top);
    let from = format!("local?root={}", lab.root("a").display());
    let copy = |to: &Path| {
        Command::new("nix")
            .args(["copy", "--from", &from, "--to", &format!("local?root={}", to.display()), &top])
            .env("NIX_CONF_DIR", lab.root("conf"))
            .env("HOME", lab.dir.path())
            .output()
            .unwrap()
    };
    let output = copy(&lab.root("b"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    lab.ok("nix-store", &lab.root("b"), &["--verify-path", &top]);

    // What Nix wrote reads the same as what we wrote.
    let location = haulout_nix::db::StoreLocation::chroot(&lab.root("b"));
    let database = Database::open(&location).unwrap();
    for info in &store.paths {
        let copied = database.path_info(&info.path.hash_part()).unwrap().unwrap();
        assert_eq!(&copied, info);
    }

    // One unsigned path, and Nix refuses.
    let spec = SampleSpec { unsigned: 1, ..SampleSpec::new(1, 60, 4 << 20, &lab.key) };
    std::fs::create_dir(lab.root("odd")).unwrap();
    let odd = Sample::generate(&lab.root("odd"), spec).unwrap();
    let from = format!("local?root={}", lab.root("odd").display());
    let output = Command::new("nix")
        .args(["copy", "--from", &from, "--to", &format!("local?root={}", lab.root("c").display())])
        .arg(odd.location.store_dir.display(&odd.top))
        .env("NIX_CONF_DIR", lab.root("conf"))
        .env("HOME", lab.dir.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
}

#[test]
fn nix_accepts_what_was_installed_from_nars() {
    let Some(lab) = Lab::new("nix_accepts_what_was_installed_from_nars") else { return };
    let store = lab.generate("a");
    let root = lab.root("b");
    create_empty(&root).unwrap();
    assert_eq!(lab.ok("nix", &root, &["path-info", "--all"]), "");
    for info in &store.paths {
        let mut bytes = Vec::new();
        nar::dump(&store.location.real_path(&info.path), &mut bytes).unwrap();
        install(&root, info, &bytes[..]).unwrap();
    }
    lab.ok("nix-store", &root, &["--verify", "--check-contents"]);
    lab.ok("nix", &root, &["store", "verify", "--all"]);
}

#[test]
fn what_nix_does_is_followed() {
    let Some(lab) = Lab::new("what_nix_does_is_followed") else { return };
    let store = lab.generate("a");
    let root = lab.root("a");
    let database = Arc::new(Database::open(&store.location).unwrap());
    let mut follower = Follower::new(Arc::clone(&database));
    assert_eq!(follower.poll().unwrap().added.len(), 60);

    // Adding.
    let file = lab.root("file");
    std::fs::write(&file, "hello\n").unwrap();
    let added = lab.ok("nix-store", &root, &["--add", file.to_str().unwrap()]);
    let changes = follower.poll().unwrap();
    assert_eq!((changes.added.len(), changes.removed.len()), (1, 0));
    let hash = changes.added[0].hash;
    assert!(added.contains(&hash.to_string()));
    assert!(changes.added[0].content_addressed);
    let info = database.path_info(&hash).unwrap().unwrap();
    assert!(info.content_address_holds(&store.location.store_dir));

    // Signing.
    let secret = lab.root("secret");
    let other = SecretKey::from_seed("other-1", [5; 32]).unwrap();
    std::fs::write(&secret, other.to_secret_text()).unwrap();
    lab.ok("nix", &root, &["store", "sign", "--key-file", secret.to_str().unwrap(), added.trim()]);
    let changes = follower.poll().unwrap();
    assert_eq!(changes.changed.len(), 1);
    assert_eq!(&*follower.signers().names(changes.changed[0].signers)[0], "other-1");

    // Collecting, with an addition in the same breath.
    lab.ok("nix-store", &root, &["--gc"]);
    std::fs::write(&file, "again\n").unwrap();
    lab.ok("nix-store", &root, &["--add", file.to_str().unwrap()]);
    let changes = follower.poll().unwrap();
    assert_eq!((changes.added.len(), changes.changed.len()), (1, 0));
    assert_eq!(changes.removed, [hash]);
    assert_eq!(follower.rows().len(), 61);
}
