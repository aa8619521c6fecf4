//! Machines on a switch: network namespaces, one veth pair each, a bridge in a namespace of its own.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use haulout_mesh::{Mesh, MeshConfig, Serve};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::support::World;

/// What the namespaces' names start with; the process id follows, so that runs do not meet.
const PREFIX: &str = "haulout-mesh-test-";

/// Which addresses the machines have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// 10.78.0.1 and up, IPv6 switched off.
    V4,
    /// Link-local IPv6 and nothing else.
    LinkLocal,
    /// Neither, until the test gives some (IPv6 switched off).
    None,
}

/// A switch with machines on it; everything goes when it is dropped.
pub struct Lan {
    switch: String,
    pub hosts: Vec<Host>,
}

/// A machine with one interface, `eth0`.
pub struct Host {
    namespace: String,
    switch: String,
    port: String,
}

impl Lan {
    /// `None`, said aloud, where namespaces cannot be made.
    pub fn new(count: usize, addresses: Addresses) -> Option<Self> {
        if let Some(reason) = obstacle() {
            skipped(&reason);
            return None;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{number}", std::process::id());
        let switch = format!("{prefix}-sw");
        let mut lan = Self { switch: switch.clone(), hosts: Vec::new() };
        run(&format!("netns add {switch}"));
        // Snooping would hold multicast back, a spanning tree everything.
        run(&format!(
            "-n {switch} link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        ));
        run(&format!("-n {switch} link set br0 up"));
        for index in 1..=count {
            let host = Host {
                namespace: format!("{prefix}-h{index}"),
                switch: switch.clone(),
                port: format!("p{index}"),
            };
            run(&format!("netns add {}", host.namespace));
            // Pushed first: what fails from here on is cleaned up too.
            lan.hosts.push(host);
            lan.hosts[index - 1].set_up(index, addresses);
        }
        Some(lan)
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for namespace in self.hosts.iter().map(|host| &host.namespace).chain([&self.switch]) {
            let _ = Command::new(ip_tool()).args(["netns", "del", namespace]).status();
        }
    }
}

impl Host {
    fn set_up(&self, index: usize, addresses: Addresses) {
        let v6 = addresses == Addresses::LinkLocal;
        self.inside(|| {
            for scope in ["all", "default"] {
                let conf = format!("/proc/sys/net/ipv6/conf/{scope}");
                // Absent where the kernel has no IPv6. Addresses are usable at once, without a second of looking for
                // doubles.
                let _ = fs::write(format!("{conf}/accept_dad"), "0");
                let _ = fs::write(format!("{conf}/disable_ipv6"), if v6 { "0" } else { "1" });
            }
        });
        let (switch, port, namespace) = (&self.switch, &self.port, &self.namespace);
        run(&format!("-n {switch} link add {port} type veth peer name eth0 netns {namespace}"));
        run(&format!("-n {switch} link set {port} master br0 up"));
        self.ip("link set lo up");
        self.ip("link set eth0 up");
        if addresses == Addresses::V4 {
            self.ip(&format!("addr add 10.78.0.{index}/24 brd + dev eth0"));
        }
    }

    /// `ip` in this machine's network.
    pub fn ip(&self, arguments: &str) {
        run(&format!("-n {} {arguments}", self.namespace));
    }

    /// Pulls the cable at the switch, or plugs it in.
    pub fn set_cable(&self, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        run(&format!("-n {} link set {} {state}", self.switch, self.port));
    }

    /// Stops the switch from forwarding to and from this machine, or starts it again; the cable stays in.
    pub fn set_forwarding(&self, on: bool) {
        let master = if on { "master br0" } else { "nomaster" };
        run(&format!("-n {} link set {} {master}", self.switch, self.port));
    }

    /// Runs `work` on a thread in this machine's network: sockets opened and threads started there stay in it.
    fn inside<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let namespace = File::open(format!("/run/netns/{}", self.namespace)).unwrap();
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .unwrap();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts an agent on this machine. The handle works from anywhere.
    pub fn start(&self, config: MeshConfig, world: &Arc<World>) -> Mesh {
        let world = Arc::clone(world) as Arc<dyn Serve>;
        self.inside(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(Mesh::start(config, world)).unwrap()
        })
    }
}

/// Why namespaces cannot be made here.
fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces need root".to_owned());
    }
    // Root in a container may still not be allowed to.
    let probe = format!("{PREFIX}{}-probe", std::process::id());
    let made = Command::new(ip_tool()).args(["netns", "add", &probe]).output();
    let _ = Command::new(ip_tool()).args(["netns", "del", &probe]).output();
    match made {
        Err(error) => Some(format!("cannot run ip: {error}")),
        Ok(output) if !output.status.success() => {
            Some("this machine does not let root make network namespaces".to_owned())
        }
        Ok(_) => None,
    }
}

/// Says that the running test is skipped; fails it where that is forbidden.
fn skipped(reason: &str) {
    let name = std::env::var("NEXTEST_TEST_NAME")
        .unwrap_or_else(|_| std::thread::current().name().unwrap_or("unnamed test").to_owned());
    assert!(
        std::env::var("HAULOUT_NO_SKIPS").as_deref() != Ok("1"),
        "{name} cannot run here ({reason}), and HAULOUT_NO_SKIPS=1 forbids skipping"
    );
    eprintln!("SKIPPED: {name}: {reason}");
    if let Some(log) = std::env::var_os("HAULOUT_TEST_SKIP_LOG") {
        let file = fs::OpenOptions::new().append(true).create(true).open(log);
        file.and_then(|mut file| file.write_all(format!("{name}: {reason}\n").as_bytes())).unwrap();
    }
}

fn ip_tool() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join("ip"))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| "ip".into())
}

fn run(arguments: &str) {
    let output = Command::new(ip_tool()).args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
