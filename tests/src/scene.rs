//! The usual cast: machines that hold a closure, machines that want it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use haulout_nix::{PathInfo, SecretKey, Signature, StoreDir};
use haulout_sample::{Sample, SampleSpec};

use crate::{Agent, AgentSpec, Host, Lab, Nix, NixClient, Process, Wiretap};

/// The name of the key that signs every closure here.
pub const KEY_NAME: &str = "lab.haulout-1";

/// What peers may take to find each other, on a busy machine.
pub const FIND_LIMIT: Duration = Duration::from_secs(20);

/// A signed closure in a chroot store of its own.
#[derive(Debug)]
pub struct Closure {
    root: PathBuf,
    top: String,
    infos: Vec<PathInfo>,
    key: SecretKey,
}

impl Closure {
    /// Makes one of `paths` store paths and about `bytes` bytes below `dir`.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn make(dir: &Path, seed: u64, paths: usize, bytes: u64) -> Self {
        let key = SecretKey::from_seed(KEY_NAME, [42; 32]).expect("a good name");
        let root = dir.join(format!("closure{seed}"));
        // Content-addressed paths need no signature, and so are not shared unless asked.
        let spec = SampleSpec { content_addressed: 0, ..SampleSpec::new(seed, paths, bytes, &key) };
        let sample = Sample::generate(&root, spec).expect("sample closure");
        let top = StoreDir::default().display(&sample.top);
        Self { root, top, infos: sample.paths, key }
    }

    /// Root of the chroot store that holds it.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path that refers to all others.
    #[must_use]
    pub fn top(&self) -> &str {
        &self.top
    }

    /// Its paths.
    #[must_use]
    pub fn infos(&self) -> &[PathInfo] {
        &self.infos
    }

    /// Its paths, in full text form.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.infos.iter().map(|info| StoreDir::default().display(&info.path)).collect()
    }

    /// The path with the largest NAR: a third of the closure.
    ///
    /// # Panics
    /// When the closure is empty.
    #[must_use]
    pub fn largest(&self) -> &PathInfo {
        self.infos.iter().max_by_key(|info| info.nar_size).expect("not empty")
    }

    /// The path that refers to all others.
    ///
    /// # Panics
    /// When the closure is empty.
    #[must_use]
    pub fn top_info(&self) -> &PathInfo {
        let is_top = |info: &&PathInfo| StoreDir::default().display(&info.path) == self.top;
        self.infos.iter().find(is_top).expect("the top is one of its paths")
    }

    /// A path that refers to no other, and so can be had on its own; number `index` of
    /// them.
    ///
    /// # Panics
    /// When there are fewer.
    #[must_use]
    pub fn leaf(&self, index: usize) -> &PathInfo {
        let alone = |info: &&PathInfo| info.references.iter().all(|other| *other == info.path);
        self.infos.iter().filter(alone).nth(index).expect("so many leaves")
    }

    /// Replaces the signatures of a path in the store's database: none makes it one that
    /// was built on the machine.
    ///
    /// # Panics
    /// When the path is not in the store.
    pub fn set_signatures(&self, path: &PathInfo, signatures: &[Signature]) {
        let texts: Vec<String> = signatures.iter().map(ToString::to_string).collect();
        let database = rusqlite::Connection::open(self.root.join("nix/var/nix/db/db.sqlite"));
        let full = StoreDir::default().display(&path.path);
        let built_here = i32::from(signatures.is_empty());
        let changed = database.expect("the store's database").execute(
            "update ValidPaths set sigs = ?1, ultimate = ?2 where path = ?3",
            (texts.join(" "), built_here, full),
        );
        assert_eq!(changed, Ok(1));
    }

    /// The key that signed it.
    #[must_use]
    pub fn key(&self) -> &SecretKey {
        &self.key
    }

    /// The public key to trust, `NAME:BASE64`.
    #[must_use]
    pub fn public_key(&self) -> String {
        self.key.public_key().to_string()
    }
}

/// A lab, a closure and the Nix versions there are.
#[derive(Debug)]
pub struct Scene {
    // The lab goes last, with the directory that everything else is in.
    closure: Closure,
    nixes: Vec<Nix>,
    lab: Lab,
}

impl Scene {
    /// `hosts` machines and a closure. `None`, reported as a skipped test, where that is
    /// not possible.
    #[must_use]
    pub fn new(hosts: usize, paths: usize, bytes: u64) -> Option<Self> {
        let lab = Lab::new(hosts)?;
        let nixes = Nix::all();
        if nixes.is_empty() {
            return None;
        }
        let closure = Closure::make(lab.dir(), 1, paths, bytes);
        Some(Self { closure, nixes, lab })
    }

    /// The closure.
    #[must_use]
    pub fn closure(&self) -> &Closure {
        &self.closure
    }

    /// The network.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// All versions of Nix.
    #[must_use]
    pub fn nixes(&self) -> &[Nix] {
        &self.nixes
    }

    /// The version of Nix for tests in which that makes no difference.
    #[must_use]
    pub fn nix(&self) -> &Nix {
        &self.nixes[0]
    }

    /// The settings of an agent that holds the closure.
    #[must_use]
    pub fn seed_spec(&self) -> AgentSpec {
        AgentSpec::new(self.closure.root(), &[&self.closure.public_key()])
    }

    /// Starts an agent that holds the closure on a host.
    #[must_use]
    pub fn seed(&self, host: usize) -> Agent<'_> {
        Agent::start(self.lab.host(host), &self.seed_spec())
    }

    /// A machine with an empty store, an agent, and Nix that asks only the agent.
    #[must_use]
    pub fn machine(&self, host: usize) -> Machine<'_> {
        self.machine_with(host, self.nix(), &[], |spec| spec)
    }

    /// As [`Scene::machine`], with a version of Nix, further substituters, and settings
    /// of the agent.
    #[must_use]
    pub fn machine_with(
        &self,
        host: usize,
        nix: &Nix,
        substituters: &[&str],
        settings: impl FnOnce(AgentSpec) -> AgentSpec,
    ) -> Machine<'_> {
        Machine::start(self.lab.host(host), nix, &self.closure.public_key(), substituters, settings)
    }

    /// Makes the closure a binary cache in a directory and returns its URL: a second
    /// substituter, asked after the agent, that always works.
    #[must_use]
    pub fn other_cache(&self) -> String {
        let dir = self.lab.dir().join("other-cache");
        if !dir.exists() {
            let top = [self.closure.top().to_owned()];
            self.nix().make_cache(self.closure.root(), &top, &dir, "none");
        }
        format!("file://{}?priority=90", dir.display())
    }

    /// Starts `evil-peer`, which holds the closure and tells `lie`, on a host.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn liar(&self, host: usize, lie: &str) -> Process {
        let exe = std::env::current_exe().expect("current_exe");
        let program = exe.ancestors().nth(2).expect("target directory").join("evil-peer");
        let host = self.lab.host(host);
        let mut command = host.command(program);
        command.arg(lie).arg(self.closure.root()).arg("5299").arg(self.closure.public_key());
        let mut liar = Process::start("evil-peer", command, &host.dir().join("evil-peer.log"));
        liar.wait_for_log("ready", FIND_LIMIT);
        liar
    }
}

/// A machine that wants something: an agent over an empty store, and Nix that fills that
/// store through it.
#[derive(Debug)]
pub struct Machine<'lab> {
    /// Its agent.
    pub agent: Agent<'lab>,
    /// What lies between the two.
    pub tap: Wiretap,
    /// Its Nix; the substituters are the agent (through the relay), then the others.
    pub nix: NixClient<'lab>,
}

impl<'lab> Machine<'lab> {
    fn start(
        host: &'lab Host,
        nix: &Nix,
        key: &str,
        substituters: &[&str],
        settings: impl FnOnce(AgentSpec) -> AgentSpec,
    ) -> Self {
        // The relay's address is part of Nix's settings, the store's place of the agent's.
        let tap = Wiretap::start(host, Agent::HTTP);
        let first = format!("{}?priority=10", tap.url());
        let urls: Vec<&str> =
            [first.as_str()].into_iter().chain(substituters.iter().copied()).collect();
        let nix = NixClient::new(nix, host, &urls, &[key]);
        let agent = Agent::start(host, &settings(AgentSpec::new(nix.root(), &[key])));
        Self { agent, tap, nix }
    }
}
