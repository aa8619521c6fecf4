//! The agent as a service: a port handed over, notes to systemd, installing and removing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// An agent with nothing but a port, started by a shell that hands over descriptor 3 as systemd would.
struct Service {
    child: Child,
    notes: UnixDatagram,
    _place: tempfile::TempDir,
}

impl Service {
    fn start(listener: TcpListener, extra: &[&str]) -> Self {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("notify");
        let notes = UnixDatagram::bind(&socket).unwrap();
        notes.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let run = place.path().join("run");
        std::fs::create_dir(&run).unwrap();
        let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";
        let child = Command::new("/bin/sh")
            .args(["-c", script, env!("CARGO_BIN_EXE_haulout"), "up", "--set", "mesh.enable=false"])
            .args(["--set", "upstream.enable=false"])
            .args(["--set", "trust.nix_conf=false", "--state-dir"])
            .arg(place.path().join("state"))
            .arg("--set")
            .arg(format!("cache.dir={}", place.path().join("cache").display()))
            .arg("--store-root")
            .arg(place.path().join("root"))
            .args(extra)
            .env_clear()
            .env("HOME", "/nonexistent")
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "400000")
            .env("RUNTIME_DIRECTORY", &run)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, notes, _place: place }
    }

    /// Waits for a note with this line.
    fn wait_for(&self, line: &str) {
        let mut note = [0; 4096];
        loop {
            let length =
                self.notes.recv(&mut note).unwrap_or_else(|error| panic!("{line}: {error}"));
            let text = String::from_utf8_lossy(&note[..length]).into_owned();
            if text.lines().any(|one| one == line) {
                return;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn first_line(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn systemd_holds_the_port_and_hears_how_the_agent_is() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // A request that came before the agent: it waits in the socket, and is answered.
    let early = std::thread::spawn(move || {
        first_line(address, "/0c0nqf1k8r8xyh5hbz4w1mfcmdlz7hpj.narinfo")
    });
    let mut service = Service::start(listener.try_clone().unwrap(), &[]);
    assert_eq!(early.join().unwrap(), "HTTP/1.1 404 Not Found");
    service.wait_for("READY=1");
    let conf = service._place.path().join("run/nix.conf");
    assert!(
        std::fs::read_to_string(conf)
            .unwrap()
            .contains("extra-trusted-public-keys = haulout-host-")
    );
    assert_eq!(first_line(address, "/nix-cache-info"), "HTTP/1.1 200 OK");
    service.wait_for("WATCHDOG=1");
    service.signal(Signal::HUP);
    service.wait_for("RELOADING=1");
    service.wait_for("READY=1");
    service.signal(Signal::TERM);
    service.wait_for("STOPPING=1");
    assert!(service.child.wait().unwrap().success());
    // The socket is systemd's: it outlives the agent, and the next one goes on with it.
    let again = Service::start(listener, &[]);
    again.wait_for("READY=1");
    assert_eq!(first_line(address, "/nix-cache-info"), "HTTP/1.1 200 OK");
}

#[test]
fn a_socket_for_the_whole_network_is_not_taken_unasked() {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let mut service = Service::start(listener, &[]);
    let mut said = String::new();
    service.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!service.child.wait().unwrap().success());
    assert!(said.contains("which other machines can reach") && said.contains("hint: "), "{said}");
}

fn files_below(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

fn haulout(arguments: &[&str], root: &Path) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_haulout"))
        .args(arguments)
        .arg("--root")
        .arg(root)
        .env_clear()
        .output()
        .unwrap()
}

#[test]
fn what_install_brings_uninstall_takes_away() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let conf = root.join("etc/nix/nix.conf");
    std::fs::create_dir_all(conf.parent().unwrap()).unwrap();
    // Without an end of line, on purpose.
    let before = "max-jobs = 4\nsubstituters = https://cache.nixos.org/";
    std::fs::write(&conf, before).unwrap();

    let installed = haulout(&["install", "--listen", "127.0.0.1:5300"], root);
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    assert_eq!(
        files_below(root),
        [
            "etc/nix/nix.conf",
            "etc/systemd/system/haulout.service",
            "etc/systemd/system/haulout.socket",
            "usr/local/bin/haulout"
        ]
    );
    let text = std::fs::read_to_string(&conf).unwrap();
    assert!(
        text.starts_with(before) && text.contains("extra-substituters = http://127.0.0.1:5300\n")
    );
    let socket = std::fs::read_to_string(root.join("etc/systemd/system/haulout.socket")).unwrap();
    assert!(socket.contains("ListenStream=127.0.0.1:5300\n"));
    let service = std::fs::read_to_string(root.join("etc/systemd/system/haulout.service")).unwrap();
    assert!(
        service.contains("ExecStart=/usr/local/bin/haulout up\n") && !service.contains("@haulout@")
    );

    std::fs::create_dir_all(root.join("var/lib/private/haulout")).unwrap();
    std::fs::write(root.join("var/lib/private/haulout/identity.key"), "x").unwrap();
    let removed = haulout(&["uninstall"], root);
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    assert_eq!(files_below(root), ["etc/nix/nix.conf"]);
    assert_eq!(std::fs::read_to_string(&conf).unwrap(), before);
    // A second time there is nothing to do.
    assert!(haulout(&["uninstall"], root).status.success());
}

#[test]
fn on_nixos_and_with_managed_settings_nothing_is_touched() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    std::fs::create_dir_all(root.join("etc/nix")).unwrap();
    std::os::unix::fs::symlink("/nix/store/somewhere", root.join("etc/nix/nix.conf")).unwrap();
    let managed = haulout(&["install"], root);
    assert!(!managed.status.success());
    assert!(String::from_utf8_lossy(&managed.stderr).contains("managed by another program"));
    std::fs::write(root.join("etc/NIXOS"), "").unwrap();
    let nixos = haulout(&["install"], root);
    assert!(String::from_utf8_lossy(&nixos.stderr).contains("services.haulout.enable = true"));
    assert_eq!(files_below(root), ["etc/NIXOS", "etc/nix/nix.conf"]);
}

#[test]
fn every_command_has_a_manual_page_and_shells_complete_them() {
    let out = tempfile::tempdir().unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_haulout"))
        .args(["man", "--out"])
        .arg(out.path())
        .output()
        .unwrap();
    assert!(made.status.success());
    let pages = files_below(out.path());
    for page in ["haulout.1", "haulout-up.1", "haulout-status.1", "haulout-nar-dump.1"] {
        assert!(pages.iter().any(|one| one == page), "{page} not in {pages:?}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = Command::new(env!("CARGO_BIN_EXE_haulout"))
            .args(["completions", shell])
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&script.stdout).contains("uninstall"), "{shell}");
    }
}

/// Each line says how serious it is in the way the journal reads, and no secret is in any.
#[test]
fn the_journal_is_told_priorities_and_no_secrets() {
    let place = tempfile::tempdir().unwrap();
    let secret = place.path().join("secret");
    std::fs::write(&secret, "correct horse battery staple").unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_haulout"))
        .args([
            "up",
            "--set",
            "http.listen=127.0.0.1:0",
            "--set",
            "mesh.port=0",
            "--set",
            "mesh.mdns=false",
        ])
        .args([
            "--set",
            "upstream.enable=false",
            "--set",
            "trust.nix_conf=false",
            "--set",
            "log.level=trace",
        ])
        .args(["--set", &format!("mesh.secret_file={}", secret.display())])
        .args(["--set", &format!("cache.dir={}", place.path().join("cache").display())])
        .args(["--state-dir".as_ref(), place.path().join("state").as_os_str()])
        .args(["--store-root".as_ref(), place.path().join("root").as_os_str()])
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("JOURNAL_STREAM", "8:1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    while !ready.contains("substituter: ") {
        assert!(std::io::BufRead::read_line(&mut stdout, &mut ready).unwrap() > 0, "{ready}");
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    child.wait().unwrap();
    for line in log.lines() {
        let priority = line.strip_prefix('<').and_then(|rest| rest.split_once('>')).map(|(n, _)| n);
        assert!(matches!(priority, Some("3" | "4" | "6" | "7")), "{line}");
    }
    assert!(
        log.contains("<4>no key is trusted") && log.contains("<6>substituter for Nix at"),
        "{log}"
    );
    let identity = std::fs::read(place.path().join("state/identity.key")).unwrap();
    let identity = String::from_utf8_lossy(&identity);
    let key = identity.lines().nth(1).unwrap();
    assert!(!log.contains("battery") && !log.contains(key), "{log}");
}
