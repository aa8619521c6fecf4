//! Tests that cannot run here say so, loudly.

use std::io::Write as _;
use std::path::PathBuf;

/// A program that some tests need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// `nix` and `nix-store` (Debian: nix-bin).
    Nix,
    /// `nginx` (Debian: nginx-light).
    Nginx,
    /// `systemd-analyze` (Debian: systemd).
    SystemdAnalyze,
    /// `python3`.
    Python,
    /// `chromium` and its driver (Debian: chromium, chromium-driver).
    Chromium,
    /// `avahi-daemon`, its tools and a D-Bus (Debian: avahi-daemon, avahi-utils, dbus).
    Avahi,
    /// `dbus-daemon` and `busctl` (Debian: dbus, systemd).
    Dbus,
}

impl Tool {
    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Nix => &["nix", "nix-store"],
            Self::Nginx => &["nginx"],
            Self::SystemdAnalyze => &["systemd-analyze"],
            Self::Python => &["python3"],
            Self::Chromium => &["chromium", "chromedriver"],
            Self::Avahi => &["avahi-daemon", "avahi-resolve", "avahi-browse", "dbus-daemon"],
            Self::Dbus => &["dbus-daemon", "busctl"],
        }
    }
}

/// Whether the test may go on: every one of `tools` is there. If not, the test is
/// reported as skipped.
pub fn have(tools: &[Tool]) -> bool {
    let missing: Vec<&str> = tools
        .iter()
        .flat_map(|tool| tool.programs())
        .copied()
        .filter(|program| find_program(program).is_none())
        .collect();
    if missing.is_empty() {
        return true;
    }
    skipped(&format!("missing: {}", missing.join(", ")));
    false
}

/// Reports the running test as skipped: on stderr, and in the file named by
/// `HAULOUT_TEST_SKIP_LOG`, from which `./test` makes its summary.
///
/// # Panics
/// With `HAULOUT_NO_SKIPS=1`.
pub fn skipped(reason: &str) {
    let name = test_name();
    assert!(
        std::env::var("HAULOUT_NO_SKIPS").as_deref() != Ok("1"),
        "{name} cannot run here ({reason}), and HAULOUT_NO_SKIPS=1 forbids skipping"
    );
    eprintln!("SKIPPED {name}: {reason}");
    if let Some(log) = std::env::var_os("HAULOUT_TEST_SKIP_LOG") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(log);
        // One write for one line: several test processes append to the same file.
        file.and_then(|mut file| file.write_all(format!("{name}: {reason}\n").as_bytes()))
            .expect("HAULOUT_TEST_SKIP_LOG is not writable");
    }
}

/// The running test's name: the test runner's, else that of the harness's thread.
pub(crate) fn test_name() -> String {
    std::env::var("NEXTEST_TEST_NAME")
        .unwrap_or_else(|_| std::thread::current().name().unwrap_or("unnamed test").to_owned())
}

/// Where `program` is, on the `PATH` or in the directories of system programs that a
/// user's `PATH` may lack.
pub fn find_program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}
