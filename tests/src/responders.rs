//! Other multicast DNS programs on a host: a real avahi-daemon, a real systemd-resolved.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::skip::{self, Tool};
use crate::{Bus, Host, Process, wait_until};

/// What such a program may take to start on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a question to it may take, in seconds: it asks five seconds itself.
const ASK_LIMIT: &str = "15";

/// `avahi-daemon` on a host, under the host's name.
#[derive(Debug)]
pub struct Avahi<'lab> {
    host: &'lab Host,
    bus: Bus,
    daemon: Process,
}

impl<'lab> Avahi<'lab> {
    /// Starts one; `None`, reported as a skipped test, where it is not installed.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(host: &'lab Host) -> Option<Self> {
        if !skip::have(&[Tool::Avahi]) {
            return None;
        }
        let bus = Bus::start(host);
        let config = host.dir().join("avahi.conf");
        fs::write(
            &config,
            "[server]\nuse-ipv4=yes\nuse-ipv6=yes\n[publish]\npublish-workstation=no\n",
        )
        .expect("scratch");
        let mut command = bus.command(host, Path::new("unshare"));
        // Its files in /run are its own: there may be one on each host, and one on the machine.
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg("mount -t tmpfs none /run && exec \"$@\"").arg("sh");
        command.arg(skip::find_program("avahi-daemon").expect("avahi-daemon"));
        command
            .args(["--no-drop-root", "--no-chroot", "--no-rlimits", "--debug", "-f"])
            .arg(config);
        let mut daemon = Process::start("avahi-daemon", command, &host.dir().join("avahi.log"));
        daemon.wait_for_log("Server startup complete", START_LIMIT);
        Some(Self { host, bus, daemon })
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// The address it finds for a host name.
    #[must_use]
    pub fn resolve(&self, name: &str) -> String {
        let answer = self.ask("avahi-resolve", &["-4", "-n", name]);
        answer.split_whitespace().nth(1).unwrap_or_default().to_owned()
    }

    /// The services of a type it finds, as `avahi-browse` prints them for programs.
    #[must_use]
    pub fn browse(&self, kind: &str) -> String {
        self.ask("avahi-browse", &["--parsable", "--resolve", "--terminate", kind])
    }

    fn ask(&self, program: &str, arguments: &[&str]) -> String {
        let program = skip::find_program(program).expect("avahi-utils");
        let mut command = self.bus.command(self.host, Path::new("timeout"));
        let output = command.arg(ASK_LIMIT).arg(program).args(arguments).output().expect("runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// `systemd-resolved` on a host, with multicast DNS on its interface.
#[derive(Debug)]
pub struct Resolved<'lab> {
    host: &'lab Host,
    bus: Bus,
    daemon: Process,
    control: PathBuf,
}

impl<'lab> Resolved<'lab> {
    /// Starts one; `None`, reported as a skipped test, where there is none. It need not be installed (its package changes
    /// the machine's own DNS): `./test` unpacks it.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(host: &'lab Host) -> Option<Self> {
        let (Some(program), Some(control)) = (find("systemd-resolved"), find("resolvectl")) else {
            skip::skipped("missing: systemd-resolved");
            return None;
        };
        if !skip::have(&[Tool::Dbus]) {
            return None;
        }
        let bus = Bus::start(host);
        let dir = host.dir().join("resolved");
        let conf = dir.join("run/systemd/resolved.conf.d");
        fs::create_dir_all(&conf).expect("scratch");
        fs::write(conf.join("mdns.conf"), "[Resolve]\nMulticastDNS=yes\nLLMNR=no\n")
            .expect("scratch");
        // The user it wants to become may not exist here.
        let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
        let others = users.lines().filter(|line| !line.starts_with("systemd-resolve:"));
        let users =
            others.chain(["systemd-resolve:x:0:0::/:/bin/false"]).collect::<Vec<_>>().join("\n");
        fs::write(dir.join("passwd"), users + "\n").expect("scratch");
        let mut command = bus.command(host, Path::new("unshare"));
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command
            .arg("mount --bind \"$1/run\" /run && mount --bind \"$1/passwd\" /etc/passwd && exec \"$2\"")
            .args(["sh".as_ref(), dir.as_os_str(), program.as_os_str()]);
        let daemon = Process::start("systemd-resolved", command, &host.dir().join("resolved.log"));
        let resolved = Self { host, bus, daemon, control };
        let on = wait_until(START_LIMIT, || resolved.control(&["mdns", "eth0", "yes"]).0);
        assert!(on, "{}\n{}", resolved.daemon.log(), resolved.control(&["status"]).1);
        Some(resolved)
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// What it answers about a host name.
    #[must_use]
    pub fn resolve(&self, name: &str) -> String {
        self.control(&["query", "--cache=no", "-4", "--protocol=mdns", name]).1
    }

    /// Whether it does multicast DNS on the host's interface.
    #[must_use]
    pub fn does_mdns(&self) -> bool {
        self.control(&["mdns", "eth0"]).1.trim_end().ends_with("yes")
            && self.control(&["status", "eth0"]).1.contains("mDNS/IPv4")
    }

    /// Whether it worked, and what was said.
    fn control(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = self.bus.command(self.host, Path::new("timeout"));
        let output =
            command.arg(ASK_LIMIT).arg(&self.control).args(arguments).output().expect("runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }
}

/// A program of systemd-resolved's: the machine's, or the one that `./test` unpacked beside the test programs.
fn find(program: &str) -> Option<PathBuf> {
    let exe = std::env::current_exe().expect("current_exe");
    let unpacked = exe.ancestors().map(|dir| dir.join("test-tools/systemd-resolved"));
    let roots = unpacked.chain([PathBuf::from("/")]);
    let places = ["usr/lib/systemd", "lib/systemd", "usr/bin"];
    let candidates = roots.flat_map(|root| places.map(|place| root.join(place).join(program)));
    candidates.into_iter().find(|candidate| candidate.is_file())
}
