//! The built program, a generated store, and archives in directories.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use haulout_nix::SecretKey;
use haulout_sample::{Sample, SampleSpec, SampleStore};

/// The program, with nothing of this process's environment.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_haulout"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// What it said to people.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The standard output of a command that must have succeeded.
pub(crate) fn good(output: Output) -> String {
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// A store at `root`, signed by `cli-1`.
pub(crate) fn sample(root: &Path, seed: u64, paths: usize, bytes: u64) -> SampleStore {
    let key = SecretKey::from_seed("cli-1", [3; 32]).unwrap();
    Sample::generate(root, SampleSpec::new(seed, paths, bytes, &key)).unwrap()
}

/// The path of a store that needs all others.
pub(crate) fn top(store: &SampleStore) -> String {
    format!("/nix/store/{}", store.top)
}

/// A home with a store in it, and with credentials for S3.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: SampleStore,
}

impl World {
    pub(crate) fn new(paths: usize, bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = sample(&dir.path().join("store"), 5, paths, bytes);
        Self { dir, store }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.env("HOME", self.dir.path()).args(arguments);
        command.env("AWS_ACCESS_KEY_ID", "AKIATEST").env("AWS_SECRET_ACCESS_KEY", "s3cret");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The standard output of a command that must succeed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        good(self.run(arguments))
    }

    /// An archive in a directory, for a network of so many shards.
    pub(crate) fn archive(&self, name: &str, shards: u16) -> String {
        let (place, shards) = (self.path(name), shards.to_string());
        self.ok(&["archive", "init", &place, "--shards", &shards, "--name", name]);
        place
    }

    /// Makes an empty directory a binary cache of the store.
    pub(crate) fn push(&self, cache: &str) {
        std::fs::create_dir(self.path(cache)).unwrap();
        let (root, to) = (self.path("store"), format!("file://{}", self.path(cache)));
        self.ok(&["push", "--store-root", &root, "--to", &to, &self.top()]);
    }

    pub(crate) fn top(&self) -> String {
        top(&self.store)
    }
}
