//! `haulout install` and `haulout uninstall`: the agent as a service of systemd, on distributions other than NixOS.
//!
//! Everything that is written is listed in [`Places`]; uninstalling takes exactly that away again and leaves nix.conf
//! to the byte as it was.

mod nix_conf;

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::cli::{InstallArgs, UninstallArgs};
use crate::error::{Context, Failure, Outcome};

/// The units, as shipped; `@haulout@` stands for the program.
const SERVICE: &str = include_str!("../../../../packaging/systemd/haulout.service");
const SOCKET: &str = include_str!("../../../../packaging/systemd/haulout.socket");

/// Where Nix and the agent talk, in the socket unit as shipped.
const LISTEN: &str = "127.0.0.1:5299";

/// Where things go, below a root (`/`, but for tests and packages).
struct Places {
    root: PathBuf,
    program: PathBuf,
    service: PathBuf,
    socket: PathBuf,
}

impl Places {
    fn below(root: &Path) -> Self {
        let at = |path: &str| root.join(path);
        Self {
            root: root.to_owned(),
            program: at("usr/local/bin/haulout"),
            service: at("etc/systemd/system/haulout.service"),
            socket: at("etc/systemd/system/haulout.socket"),
        }
    }

    /// The nix.conf to change. Determinate's installer owns nix.conf and includes one that is the user's.
    fn nix_conf(&self) -> PathBuf {
        let standard = self.root.join("etc/nix/nix.conf");
        let custom = self.root.join("etc/nix/nix.custom.conf");
        let includes_custom = fs::read_to_string(&standard)
            .is_ok_and(|text| text.lines().any(|line| line.trim() == "!include nix.custom.conf"));
        if includes_custom { custom } else { standard }
    }

    fn is_this_machine(&self) -> bool {
        self.root == Path::new("/")
    }
}

/// `haulout install`
pub(crate) fn install(args: &InstallArgs) -> Outcome<ExitCode> {
    let places = Places::below(&args.root);
    refuse_nixos(&places)?;
    let listen = args.listen.parse::<SocketAddr>().map_err(|error| {
        Failure::new(format!("--listen: {:?} is not an address with a port", args.listen))
            .because(error)
            .hint(format!("for example {LISTEN}"))
    })?;
    let nix_conf = places.nix_conf();
    let conf = read_if_there(&nix_conf)?;
    refuse_managed(&nix_conf)?;

    copy_program(&places.program)?;
    // Inside the root, the program is where it will be seen from there.
    let service = SERVICE.replace("@haulout@", "/usr/local/bin/haulout");
    write(&places.service, service.as_bytes(), 0o644)?;
    let socket = SOCKET.replace(LISTEN, &listen.to_string());
    write(&places.socket, socket.as_bytes(), 0o644)?;
    let changed = nix_conf::with_agent(&conf.unwrap_or_default(), listen);
    write(&nix_conf, changed.as_bytes(), 0o644)?;

    if places.is_this_machine() && !args.no_start {
        systemctl(&["daemon-reload"])?;
        systemctl(&["enable", "--now", "haulout.socket", "haulout.service"])?;
        restart_nix_daemon();
    }
    println!("installed: {}", places.program.display());
    println!("           {}", places.service.display());
    println!("           {}", places.socket.display());
    println!("changed:   {} (between the lines marked haulout)", nix_conf.display());
    println!(
        "The firewall must let UDP ports 5299 and 5353 in; `haulout doctor` looks at the rest."
    );
    Ok(ExitCode::SUCCESS)
}

/// `haulout uninstall`
pub(crate) fn uninstall(args: &UninstallArgs) -> Outcome<ExitCode> {
    let places = Places::below(&args.root);
    refuse_nixos(&places)?;
    let nix_conf = places.nix_conf();
    // First of all Nix must stop asking.
    if let Some(text) = read_if_there(&nix_conf)?.filter(|text| nix_conf::has_agent(text)) {
        refuse_managed(&nix_conf)?;
        let restored = nix_conf::without_agent(&text);
        if restored.is_empty() {
            remove(&nix_conf)?;
        } else {
            write(&nix_conf, restored.as_bytes(), 0o644)?;
        }
        println!("restored: {}", nix_conf.display());
    }
    if places.is_this_machine() {
        restart_nix_daemon();
        // Not running, or never enabled, is what is wanted.
        let _ = systemctl(&["disable", "--now", "haulout.socket", "haulout.service"]);
    }
    for file in [&places.service, &places.socket, &places.program] {
        if remove(file)? {
            println!("removed:  {}", file.display());
        }
    }
    for dir in [
        "var/lib/private/haulout",
        "var/cache/private/haulout",
        "var/lib/haulout",
        "var/cache/haulout",
        "run/haulout",
    ] {
        if remove_tree(&places.root.join(dir))? {
            println!("removed:  {}", places.root.join(dir).display());
        }
    }
    if places.is_this_machine() {
        systemctl(&["daemon-reload"])?;
    }
    Ok(ExitCode::SUCCESS)
}

/// There the configuration is made from one place, and /etc is not to be written to.
fn refuse_nixos(places: &Places) -> Outcome<()> {
    if places.root.join("etc/NIXOS").exists() {
        return Err(Failure::new("this is NixOS, where services are not installed by hand")
            .hint("add the module: `services.haulout.enable = true;` (docs/install.md)"));
    }
    Ok(())
}

/// A nix.conf that is a link into the store belongs to home-manager, nix-darwin or the like.
fn refuse_managed(nix_conf: &Path) -> Outcome<()> {
    if fs::symlink_metadata(nix_conf).is_ok_and(|found| found.is_symlink()) {
        return Err(Failure::new(format!("{} is managed by another program", nix_conf.display()))
            .hint(format!(
                "add there: extra-substituters = http://{LISTEN} and !include /run/haulout/nix.conf"
            )));
    }
    Ok(())
}

fn copy_program(to: &Path) -> Outcome<()> {
    let from = std::env::current_exe().context(|| "cannot find this program".to_owned())?;
    if from == to {
        return Ok(());
    }
    let program = fs::read(&from).context(|| format!("cannot read {}", from.display()))?;
    write(to, &program, 0o755)
}

fn read_if_there(path: &Path) -> Outcome<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::new(format!("cannot read {}", path.display())).because(error)),
    }
}

/// Whole or not at all: a half-written nix.conf would stop Nix.
fn write(path: &Path, content: &[u8], mode: u32) -> Outcome<()> {
    let writing = || format!("cannot write {}", path.display());
    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
    let failed = |error| Failure::new(writing()).because(error).hint("run it as root");
    fs::create_dir_all(dir).map_err(failed)?;
    // An existing file keeps its mode.
    let mode = fs::metadata(path).map_or(mode, |found| found.permissions().mode());
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

fn remove(path: &Path) -> Outcome<bool> {
    gone(path, fs::remove_file(path))
}

/// `true` when it was there. `DynamicUser=` leaves a link to a private directory; both go.
fn remove_tree(path: &Path) -> Outcome<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => remove(path),
        _ => gone(path, fs::remove_dir_all(path)),
    }
}

fn gone(path: &Path, removed: std::io::Result<()>) -> Outcome<bool> {
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Failure::new(format!("cannot remove {}", path.display()))
            .because(error)
            .hint("run it as root")),
    }
}

fn systemctl(arguments: &[&str]) -> Outcome<()> {
    let running = || format!("systemctl {}", arguments.join(" "));
    let status = Command::new("systemctl").args(arguments).status().map_err(|error| {
        Failure::new(format!("cannot run `{}`", running()))
            .because(error)
            .hint("without systemd, run `haulout up` by your own means and add the lines it prints to nix.conf")
    })?;
    if !status.success() {
        return Err(Failure::new(format!("`{}` failed ({status})", running()))
            .hint("`systemctl status haulout` says more"));
    }
    Ok(())
}

/// The daemon reads nix.conf when it starts. Single-user installations have none.
fn restart_nix_daemon() {
    // Its complaint that there is no such unit would only puzzle.
    let _ = Command::new("systemctl").args(["-q", "try-restart", "nix-daemon.service"]).output();
}
