//! A LAN of network namespaces on one machine.
//!
//! Each host is a namespace joined by a veth pair to a bridge that has a namespace of
//! its own, so nothing here can reach the machine's real network, nor it them.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::scratch::{PREFIX, Scratch, is_stale};
use crate::skip;

/// The most hosts of one lab: what the last byte of an IPv4 address can number.
pub const HOSTS_MAX: usize = 250;

/// What a burst of a shaped link may be at least: two full segmentation-offload packets,
/// bytes. Less, and the kernel drops what the sender hands over in one piece.
const BURST_MIN: u64 = 128 * 1024;

/// A switch with hosts on it; everything goes when it is dropped.
#[derive(Debug)]
pub struct Lab {
    hosts: Vec<Host>,
    switch: String,
    scratch: Scratch,
    // Last: labs take turns on a machine (see `turn`).
    _turn: File,
}

/// A machine on the LAN: a network namespace with one interface, `eth0`.
#[derive(Debug, Clone)]
pub struct Host {
    name: String,
    namespace: String,
    switch: String,
    port: String,
    address: Ipv4Addr,
    dir: PathBuf,
}

impl Lab {
    /// A LAN of `hosts` machines with unshaped links: 10.77.0.1 and up, IPv6 link-local
    /// addresses, multicast between all. `None`, reported as a skipped test, where
    /// namespaces cannot be made.
    ///
    /// # Panics
    /// When a step fails although the tools are there.
    #[must_use]
    pub fn new(hosts: usize) -> Option<Self> {
        assert!((1..=HOSTS_MAX).contains(&hosts), "1 to {HOSTS_MAX} hosts");
        if !may_make_namespaces() {
            return None;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let turn = turn();
        sweep();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{number}", std::process::id());
        let mut lab = Self {
            hosts: Vec::new(),
            switch: format!("{prefix}-sw"),
            scratch: Scratch::new(),
            _turn: turn,
        };
        lab.make_switch();
        for number in 1..=hosts {
            lab.add_host(&prefix, number);
        }
        Some(lab)
    }

    fn make_switch(&self) {
        ip(&["netns", "add", &self.switch]);
        // Snooping would hold multicast back until hosts have reported their groups; a
        // spanning tree would hold everything back for half a minute.
        let bridge = "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0";
        ip_in(&self.switch, bridge);
        ip_in(&self.switch, "link set br0 up");
    }

    fn add_host(&mut self, prefix: &str, number: usize) {
        let name = format!("h{number}");
        let last = u8::try_from(number).expect("at most HOSTS_MAX");
        let host = Host {
            namespace: format!("{prefix}-{name}"),
            switch: self.switch.clone(),
            port: format!("p{number}"),
            address: Ipv4Addr::new(10, 77, 0, last),
            dir: self.scratch.path().join(&name),
            name,
        };
        fs::create_dir(&host.dir).expect("scratch");
        ip(&["netns", "add", &host.namespace]);
        // Pushed before the namespace is set up: whatever fails from here on is cleaned.
        self.hosts.push(host);
        let host = &self.hosts[self.hosts.len() - 1];
        host.inside(|| {
            // Link-local addresses are usable at once, without a second of detecting
            // duplicates.
            for scope in ["all", "default"] {
                let file = format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad");
                let _ = fs::write(file, "0"); // absent where IPv6 is off
            }
        });
        let (port, namespace) = (&host.port, &host.namespace);
        ip_in(&self.switch, &format!("link add {port} type veth peer name eth0 netns {namespace}"));
        ip_in(&self.switch, &format!("link set {port} master br0 up"));
        host.ip("link set lo up");
        host.ip(&format!("addr add {}/24 brd + dev eth0", host.address));
        host.ip("link set eth0 up multicast on");
        host.add_multicast_route();
    }

    /// The host of number `index`, counted from 0; its name is `h<index + 1>`.
    #[must_use]
    pub fn host(&self, index: usize) -> &Host {
        &self.hosts[index]
    }

    /// All hosts.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// A directory of the test's own.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// Shapes every host's link, see [`Host::set_rate`].
    pub fn set_rate(&self, bits_per_second: Option<u64>) {
        for host in &self.hosts {
            host.set_rate(bits_per_second);
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in self.hosts.iter().map(|host| &host.namespace).chain([&self.switch]) {
            delete_namespace(namespace);
        }
    }
}

impl Host {
    /// `h1`, `h2`, ...
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address on the LAN.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A directory of its own, outside every store.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A command that runs `program` on this host: in its network and UTS namespace.
    /// The process id of the child is the program's own.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(tool("ip"));
        command
            .args(["netns", "exec", &self.namespace, "unshare", "--uts", "sh", "-c"])
            // A host's name must be its own, or every mDNS responder claims the same one.
            .arg(r#"echo "$0" > /proc/sys/kernel/hostname && exec "$@""#)
            .arg(&self.name)
            .arg(program);
        command
    }

    /// Runs `work` on a thread that is in this host's network: sockets opened there
    /// belong to the host, wherever they are used later.
    ///
    /// # Panics
    /// When `work` does.
    pub fn inside<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// As [`Host::inside`], for a server: nobody waits for its end. Threads that it
    /// starts are in the host's network too.
    pub(crate) fn inside_forever(&self, work: impl FnOnce() + Send + 'static) {
        let host = self.clone();
        std::thread::spawn(move || {
            host.enter();
            work();
        });
    }

    /// Moves the calling thread into this host's network, for good.
    fn enter(&self) {
        let path = format!("/run/netns/{}", self.namespace);
        let namespace = File::open(&path).expect("the host's namespace");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("setns");
    }

    /// Pulls (`false`) or plugs (`true`) the host's cable, at the switch: the host sees
    /// its carrier go, as with a real one.
    pub fn set_link(&self, up: bool) {
        let state = if up { "up" } else { "down" };
        ip_in(&self.switch, &format!("link set {} {state}", self.port));
    }

    /// Takes the host's own interface down or up (a laptop that sleeps): its addresses
    /// of IPv6 and its routes go, and come back.
    pub fn set_interface(&self, up: bool) {
        let state = if up { "up" } else { "down" };
        self.ip(&format!("link set eth0 {state}"));
        if up {
            self.add_multicast_route();
        }
    }

    /// Limits the host's link to this many bits per second each way; `None`: as fast as
    /// the machine.
    pub fn set_rate(&self, bits_per_second: Option<u64>) {
        shape(&self.switch, &self.port, bits_per_second);
        shape(&self.namespace, "eth0", bits_per_second);
    }

    /// Drops what this host sends to `other` and says nothing: a cable that is only
    /// broken between two.
    pub fn blackhole(&self, other: &Self, on: bool) {
        let verb = if on { "replace" } else { "del" };
        self.ip(&format!("route {verb} blackhole {}/32", other.address));
    }

    fn add_multicast_route(&self) {
        self.ip("route replace 224.0.0.0/4 dev eth0");
    }

    fn ip(&self, arguments: &str) {
        ip_in(&self.namespace, arguments);
    }
}

fn may_make_namespaces() -> bool {
    if !rustix::process::geteuid().is_root() {
        skip::skipped("network namespaces need root");
        return false;
    }
    let missing: Vec<&str> = ["ip", "tc", "unshare"]
        .into_iter()
        .filter(|program| skip::find_program(program).is_none())
        .collect();
    if !missing.is_empty() {
        skip::skipped(&format!("missing: {}", missing.join(", ")));
        return false;
    }
    // Root inside a container may still not be allowed to.
    let probe = Command::new(tool("unshare")).args(["--net", "--uts", "true"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        skip::skipped("this machine does not let root make network namespaces");
        return false;
    }
    true
}

/// Labs take turns: two networks at once on the same cores measure each other. The lock
/// lies beside the test programs, so it holds for one checkout.
fn turn() -> File {
    let exe = std::env::current_exe().expect("current_exe");
    let dir = exe.parent().and_then(Path::parent).expect("target directory");
    let file = File::create(dir.join("lab.lock")).expect("lab.lock");
    file.lock().expect("lab.lock");
    file
}

/// Removes the namespaces of tests that were killed, and what still runs in them.
fn sweep() {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        if let Some(name) = entry.file_name().to_str().filter(|name| is_stale(name)) {
            delete_namespace(name);
        }
    }
}

fn delete_namespace(name: &str) {
    let pids = Command::new(tool("ip")).args(["netns", "pids", name]).output();
    let pids = pids.map(|output| output.stdout).unwrap_or_default();
    for pid in String::from_utf8_lossy(&pids).lines().filter_map(|line| line.trim().parse().ok()) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    let deleted =
        Command::new(tool("ip")).args(["netns", "del", name]).stderr(Stdio::null()).status();
    if !deleted.is_ok_and(|status| status.success()) {
        eprintln!("cannot delete network namespace {name}");
    }
}

fn shape(namespace: &str, device: &str, bits_per_second: Option<u64>) {
    let mut tc = Command::new(tool("tc"));
    tc.args(["-n", namespace, "qdisc"]);
    let Some(rate) = bits_per_second else {
        // Fails when it was not shaped, which is what is wanted.
        let _ = tc.args(["del", "dev", device, "root"]).output();
        return;
    };
    let burst = (rate / 8000).max(BURST_MIN); // one millisecond's worth
    let (rate, burst) = (format!("{rate}bit"), burst.to_string());
    tc.args(["replace", "dev", device, "root", "tbf", "rate", &rate, "burst", &burst]);
    run(tc.args(["latency", "25ms"]));
}

fn ip_in(namespace: &str, arguments: &str) {
    let words = ["-n", namespace].into_iter().chain(arguments.split_whitespace());
    ip(&words.collect::<Vec<_>>());
}

fn ip(arguments: &[&str]) {
    run(Command::new(tool("ip")).args(arguments));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

fn tool(program: &str) -> PathBuf {
    skip::find_program(program).unwrap_or_else(|| program.into())
}
