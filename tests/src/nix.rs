//! Real Nix, kept away from the machine's own store and caches.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::skip::{self, Tool};
use crate::{Host, Process};

/// What a Nix command may take at most before it counts as hung.
const COMMAND_LIMIT: Duration = Duration::from_secs(240);

/// One version of Nix.
#[derive(Debug, Clone)]
pub struct Nix {
    bin: PathBuf,
    version: String,
}

impl Nix {
    /// Every version there is: that of the `PATH` first, then those of the directories
    /// in `HAULOUT_TEST_NIX_DIRS` (separated by `:`). Empty, reported as a skipped
    /// test, when there is none.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let more = std::env::var_os("HAULOUT_TEST_NIX_DIRS").unwrap_or_default();
        let installed =
            skip::find_program("nix-store").and_then(|path| Some(path.parent()?.to_owned()));
        let found: Vec<Self> = installed
            .into_iter()
            .chain(std::env::split_paths(&more))
            .filter_map(Self::at)
            .collect();
        if found.is_empty() {
            skip::have(&[Tool::Nix]);
        }
        found
    }

    /// The first of [`Nix::all`].
    #[must_use]
    pub fn find() -> Option<Self> {
        Self::all().into_iter().next()
    }

    fn at(bin: PathBuf) -> Option<Self> {
        let output = Command::new(bin.join("nix-store")).arg("--version").output().ok()?;
        // "nix-store (Nix) 2.8.0"
        let version = String::from_utf8_lossy(&output.stdout).split_whitespace().last()?.to_owned();
        bin.join("nix").exists().then_some(Self { bin, version })
    }

    /// The value of a Nix expression as JSON, without a store: `nix-instantiate --eval` on `file`, a function of
    /// `arguments` (name and expression). Files are found relative to `dir`.
    ///
    /// # Errors
    /// What Nix said.
    pub fn evaluate(
        &self,
        dir: &Path,
        file: &str,
        arguments: &[(&str, &str)],
    ) -> Result<serde_json::Value, String> {
        let mut command = Command::new(self.bin.join("nix-instantiate"));
        command.args(["--store", "dummy://", "--eval", "--strict", "--json"]).current_dir(dir);
        for (name, expression) in arguments {
            command.args(["--arg", name, expression]);
        }
        let output = command.arg(file).output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
    }

    /// For example `2.26.3`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// `program` (`nix`, `nix-store`) working on the chroot store `root`, with
    /// settings and caches in `home`. Without a host: in the machine's own network.
    fn command(&self, host: Option<&Host>, program: &str, root: &Path, home: &Path) -> Command {
        let program = self.bin.join(program);
        let mut command =
            host.map_or_else(|| Command::new(&program), |host| host.command(&program));
        command
            .env("NIX_CONF_DIR", home)
            .env("XDG_CACHE_HOME", home.join("cache"))
            .env("HOME", home)
            // Some commands open the default store whatever they are told to use, and
            // would make /nix. So this is the default store.
            .env("NIX_REMOTE", store_uri(root))
            .env_remove("NIX_PATH")
            .env_remove("NIX_CONFIG");
        command
    }

    /// Makes `dir` a binary cache of `paths` and their closures out of the chroot store
    /// `root`; `compression` as Nix names it.
    ///
    /// # Panics
    /// When Nix fails.
    pub fn make_cache(&self, root: &Path, paths: &[String], dir: &Path, compression: &str) {
        let home = dir.with_extension("home");
        write_conf(&home, "substituters =\n");
        let mut command = self.command(None, "nix", root, &home);
        let target = format!("file://{}?compression={compression}", dir.display());
        let output =
            command.args(["copy", "--no-check-sigs", "--to", &target]).args(paths).output();
        let output = output.expect("nix copy");
        assert!(output.status.success(), "nix copy: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// What a Nix command did.
#[derive(Debug)]
pub struct Outcome {
    /// It ended with status 0.
    pub success: bool,
    /// It was still running when [`Outcome::wall`] had passed, and was killed.
    pub hung: bool,
    /// Everything that it printed.
    pub output: String,
    /// How long it took.
    pub wall: Duration,
    /// User and system time of it and its children.
    pub cpu: Duration,
}

impl Outcome {
    /// Itself, if the command succeeded.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> Self {
        assert!(
            self.success,
            "Nix failed{} after {:?}:\n{}",
            if self.hung { " (hung)" } else { "" },
            self.wall,
            self.output
        );
        self
    }
}

/// Nix on a host, with a store of its own.
#[derive(Debug)]
pub struct NixClient<'lab> {
    nix: Nix,
    host: &'lab Host,
    dir: PathBuf,
    root: PathBuf,
}

impl<'lab> NixClient<'lab> {
    /// With an empty store. `substituters` are URLs in order; `keys` (`NAME:BASE64`)
    /// are trusted; signatures are required.
    ///
    /// # Panics
    /// When its files cannot be written.
    #[must_use]
    pub fn new(nix: &Nix, host: &'lab Host, substituters: &[&str], keys: &[&str]) -> Self {
        Self::with_conf(nix, host, substituters, keys, "")
    }

    /// As [`NixClient::new`], with more lines for its `nix.conf`.
    #[must_use]
    pub fn with_conf(
        nix: &Nix,
        host: &'lab Host,
        substituters: &[&str],
        keys: &[&str],
        more: &str,
    ) -> Self {
        let number = (0..).find(|n| !host.dir().join(format!("nix{n}")).exists()).unwrap_or(0);
        let dir = host.dir().join(format!("nix{number}"));
        let conf = format!(
            "substituters = {}\ntrusted-public-keys = {}\nrequire-sigs = true\n{more}\n",
            substituters.join(" "),
            keys.join(" ")
        );
        write_conf(&dir, &conf);
        Self { nix: nix.clone(), host, root: dir.join("root"), dir }
    }

    /// The root of its chroot store.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The URI of its store.
    #[must_use]
    pub fn store(&self) -> String {
        store_uri(&self.root)
    }

    /// Forgets everything: the store, and what it remembers of caches.
    pub fn reset(&mut self) {
        crate::scratch::remove(&self.root);
        self.forget();
    }

    /// Forgets what Nix has on disk about caches (answers to narinfos, for 30 days).
    pub fn forget(&self) {
        crate::scratch::remove(&self.dir.join("cache"));
    }

    /// `nix copy --from URL PATH` into the store.
    pub fn copy(&self, from: &str, path: &str) -> Outcome {
        self.run("nix", &["copy", "--from", from, "--to", &store_uri(&self.root), path])
    }

    /// `nix-store --realise PATH`, which is what every build and switch does.
    pub fn realise(&self, path: &str) -> Outcome {
        self.realise_with(path, &[])
    }

    /// As [`NixClient::realise`], with more arguments.
    pub fn realise_with(&self, path: &str, more: &[&str]) -> Outcome {
        self.run("nix-store", &[&["--realise", path], more].concat())
    }

    /// `nix-store --verify-path` on all `paths`: they are valid, and their content has
    /// the hash that was signed.
    pub fn verify(&self, paths: &[String]) -> Outcome {
        let arguments: Vec<&str> =
            ["--verify-path"].into_iter().chain(paths.iter().map(String::as_str)).collect();
        self.run("nix-store", &arguments)
    }

    /// Any Nix program with this client's settings and store.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Outcome {
        self.run_for(COMMAND_LIMIT, program, arguments)
    }

    /// As [`NixClient::run`], killed after `limit`.
    pub fn run_for(&self, limit: Duration, program: &str, arguments: &[&str]) -> Outcome {
        let (mut process, start, log) = self.start(program, arguments);
        let status = process.wait(limit);
        let wall = start.elapsed();
        if status.is_none() {
            process.kill();
        }
        let output = process.log();
        let _ = fs::remove_file(log);
        Outcome {
            success: status.is_some_and(|status| status.success()),
            hung: status.is_none(),
            output,
            wall,
            cpu: process.usage().cpu,
        }
    }

    /// Starts a Nix program and leaves it running.
    pub fn spawn(&self, program: &str, arguments: &[&str]) -> Process {
        self.start(program, arguments).0
    }

    fn start(&self, program: &str, arguments: &[&str]) -> (Process, Instant, PathBuf) {
        let number = (0..).find(|n| !self.dir.join(format!("log{n}")).exists()).unwrap_or(0);
        let log = self.dir.join(format!("log{number}"));
        let mut command = self.nix.command(Some(self.host), program, &self.root, &self.dir);
        command.args(arguments);
        let name = format!("{program} {} on {}", self.nix.version, self.host.name());
        (Process::start(&name, command, &log), Instant::now(), log)
    }
}

/// The URL of a substituter at `address`, asked before or after others by `priority`
/// (lower is earlier).
#[must_use]
pub fn substituter(address: SocketAddr, priority: u32) -> String {
    format!("http://{address}?priority={priority}")
}

fn store_uri(root: &Path) -> String {
    format!("local?root={}", root.display())
}

fn write_conf(dir: &Path, more: &str) {
    // Single user and without builds: all that these tests need, and possible anywhere.
    let conf = format!(
        "experimental-features = nix-command\nbuild-users-group =\nsandbox = false\n{more}"
    );
    fs::create_dir_all(dir).and_then(|()| fs::write(dir.join("nix.conf"), conf)).expect("nix.conf");
}
