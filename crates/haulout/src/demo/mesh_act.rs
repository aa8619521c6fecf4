//! The first act: machines on one network hand a closure to each other, and
//! neither a damaged nor a dead neighbour changes what arrives.

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use haulout_gateway::api::PeerReport;
use haulout_nix::nar::hash_path;
use haulout_nix::{KeySet, PathInfo, SecretKey, StorePath};
use haulout_sample::{Sample, SampleSpec};
use ring::rand::SystemRandom;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::agent::Machine;
use super::install::{Installed, Installer};
use crate::cli::DemoArgs;
use crate::error::{Context, Failure, Outcome};
use crate::report::{self, Table};

/// Paths and bytes of the generated closure: enough to see rates, over in seconds.
const PATHS: usize = 300;
const BYTES: u64 = 60_000_000;

/// The stores go to `/dev/shm` only when it has several times what they need.
const ROOM_IN_MEMORY: u64 = 1 << 30;

/// How many paths are damaged on machine A.
const DAMAGED: usize = 40;

/// How often progress is looked at while waiting to kill a peer.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The office: where the machines live and what they believe.
struct Office {
    place: tempfile::TempDir,
    key: Arc<SecretKey>,
    trusted: KeySet,
}

/// One line of the final table.
struct Row {
    machine: &'static str,
    got: Installed,
    given: Vec<(&'static str, u64)>,
    remark: String,
}

/// Plays the act; every claim it prints was checked.
pub(super) async fn play(args: &DemoArgs) -> Outcome<()> {
    let office = Office::open()?;
    let begun = Instant::now();
    let (a_root, paths) = office.furnish(args.seed).await?;
    let top = paths.last().map(|info| info.path.clone());
    let top = top.ok_or_else(|| Failure::new("the generated closure is empty"))?;
    let total: u64 = paths.iter().map(|info| info.nar_size).sum();
    println!(
        "Machine A has a system of {} store paths, {} as NARs, made up from seed {} in {}.",
        paths.len(),
        report::bytes(total),
        args.seed,
        report::duration(begun.elapsed())
    );
    let held = paths.len() as u64;

    let (a, mut b, c) = office.start_three(&a_root).await?;
    let mut rows = vec![office.fetch("B", &b, &top, &paths, &[(&a, held)]).await?];
    rows.push(office.fetch("C", &c, &top, &paths, &[(&a, held), (&b, held)]).await?);
    let many = rows[1].given.iter().filter(|(_, bytes)| *bytes > 0).count();
    if many < 2 {
        return Err(Failure::new("machine C had two neighbours but used only one"));
    }

    println!(
        "\nNow A's disk goes bad: a bit flips in each of its {DAMAGED} largest paths. And B is killed."
    );
    damage_largest(&a_root, &paths)?;
    let (d, row) = office.fetch_with_trouble(&a, &mut b, &c, &top, &paths).await?;
    rows.push(row);

    print_table(&rows, total);
    println!(
        "Every path on B, C and D was hashed again on disk: {} in all, none wrong.",
        report::bytes(total * 3)
    );
    if args.stay {
        stay(&[&a, &c, &d]).await?;
    }
    Ok(())
}

impl Drop for Office {
    fn drop(&mut self) {
        // Directories of a store are read-only, which stops the usual clean-up
        // for whoever is not root. What is left lies in the temporary directory.
        let _ = haulout_sample::delete_all(self.place.path());
    }
}

impl Office {
    fn open() -> Outcome<Self> {
        let place = tempfile::Builder::new()
            .prefix("haulout-demo-")
            .tempdir_in(place_for_stores())
            .context(|| "cannot make a temporary directory".to_owned())?;
        let key = SecretKey::generate("demo-1", &SystemRandom::new())
            .context(|| "cannot make a signing key".to_owned())?;
        let mut trusted = KeySet::new();
        trusted.insert(key.public_key().clone());
        Ok(Self { place, key: Arc::new(key), trusted })
    }

    fn root(&self, name: &str) -> std::path::PathBuf {
        self.place.path().join(name)
    }

    /// Fills machine A's store.
    async fn furnish(&self, seed: u64) -> Outcome<(std::path::PathBuf, Vec<PathInfo>)> {
        let root = self.root("a");
        let key = Arc::clone(&self.key);
        let target = root.clone();
        // What is only content-addressed is not given to strangers: none here.
        let generate = move || {
            let spec =
                SampleSpec { content_addressed: 0, ..SampleSpec::new(seed, PATHS, BYTES, &key) };
            Sample::generate(&target, spec)
        };
        let sample = tokio::task::spawn_blocking(generate)
            .await
            .context(|| "generating was cut off".to_owned())?
            .context(|| format!("cannot generate a store in {}", root.display()))?;
        Ok((root, sample.paths))
    }

    async fn machine(&self, name: &'static str) -> Outcome<Machine> {
        let root = self.root(&name.to_lowercase());
        if !root.exists() {
            haulout_sample::create_empty(&root)
                .context(|| format!("cannot make a store in {}", root.display()))?;
        }
        Machine::start(name, &root, &self.key.public_key().to_string()).await
    }

    async fn start_three(&self, a_root: &Path) -> Outcome<(Machine, Machine, Machine)> {
        debug_assert_eq!(a_root, self.root("a"));
        let (a, b, c) =
            (self.machine("A").await?, self.machine("B").await?, self.machine("C").await?);
        let begun = Instant::now();
        a.wait_for_peers(&[(&b, 0), (&c, 0)]).await?;
        b.wait_for_peers(&[(&a, 0), (&c, 0)]).await?;
        c.wait_for_peers(&[(&a, 0), (&b, 0)]).await?;
        println!(
            "Three agents found each other by multicast DNS in {}:",
            report::duration(begun.elapsed())
        );
        for machine in [&a, &b, &c] {
            println!("  {}  http://{}  peer {}", machine.name, machine.address, &machine.peer[..8]);
        }
        Ok((a, b, c))
    }

    /// Lets `machine` install the closure once its agent knows what the others hold.
    async fn fetch(
        &self,
        name: &'static str,
        machine: &Machine,
        top: &StorePath,
        paths: &[PathInfo],
        from: &[(&Machine, u64)],
    ) -> Outcome<Row> {
        machine.wait_for_peers(from).await?;
        let names: Vec<&str> = from.iter().map(|(other, _)| other.name).collect();
        println!("\nMachine {name} installs the system; {} could give it.", names.join(" and "));
        let got = self.installer(machine).install(top).await?;
        check_store(machine, paths).await?;
        let others: Vec<&Machine> = from.iter().map(|(other, _)| *other).collect();
        let given = given_by(&machine.peers().await?, &others);
        Ok(Row { machine: name, got, given, remark: "-".to_owned() })
    }

    /// A fourth machine, while A's disk is damaged and B dies.
    async fn fetch_with_trouble(
        &self,
        a: &Machine,
        b: &mut Machine,
        c: &Machine,
        top: &StorePath,
        paths: &[PathInfo],
    ) -> Outcome<(Machine, Row)> {
        let d = self.machine("D").await?;
        let held = paths.len() as u64;
        d.wait_for_peers(&[(a, held), (b, held), (c, held)]).await?;
        let installer = self.installer(&d);
        let job = tokio::spawn({
            let (installer, top) = (Arc::clone(&installer), top.clone());
            async move { installer.install(&top).await }
        });
        while installer.installed_bytes() < BYTES / 10 && !job.is_finished() {
            sleep(POLL_INTERVAL).await;
        }
        let killed_at = installer.installed_bytes();
        b.kill().await?;
        let got = job.await.context(|| "installing was cut off".to_owned())??;
        check_store(&d, paths).await?;
        let peers = d.peers().await?;
        let caught = peers.iter().find(|p| p.peer == a.peer).and_then(|p| p.last_fault.clone());
        let caught =
            caught.ok_or_else(|| Failure::new("nobody noticed the damage on machine A"))?;
        println!(
            "  B was killed when D had {}; D went on with the others.",
            report::bytes(killed_at)
        );
        println!("  D says of A: {caught}");
        let given = given_by(&peers, &[a, b, c]);
        Ok((d, Row { machine: "D", got, given, remark: "A damaged, B killed".to_owned() }))
    }

    fn installer(&self, machine: &Machine) -> Arc<Installer> {
        Installer::new(machine.address, machine.root.clone(), self.trusted.clone())
    }
}

/// Four stores of many small files: in memory where there is room, to spare the
/// disk a quarter of a gigabyte that is deleted a few seconds later.
pub(super) fn place_for_stores() -> std::path::PathBuf {
    let memory = Path::new("/dev/shm");
    let free = rustix::fs::statvfs(memory).map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize));
    match free {
        Ok(free) if free > ROOM_IN_MEMORY && std::env::var_os("TMPDIR").is_none() => {
            memory.to_owned()
        }
        _ => std::env::temp_dir(),
    }
}

/// Who gave how many bytes, as the receiver counted them.
fn given_by(peers: &[PeerReport], others: &[&Machine]) -> Vec<(&'static str, u64)> {
    let bytes =
        |other: &Machine| peers.iter().find(|p| p.peer == other.peer).map_or(0, |p| p.bytes_from);
    others.iter().map(|other| (other.name, bytes(other))).collect()
}

/// Flips one bit in each of the largest paths, so that whoever asks this machine
/// for a good part of the closure is sure to meet one.
fn damage_largest(root: &Path, paths: &[PathInfo]) -> Outcome<()> {
    let mut by_size: Vec<&PathInfo> = paths.iter().collect();
    by_size.sort_by_key(|info| std::cmp::Reverse(info.nar_size));
    for info in by_size.into_iter().take(DAMAGED) {
        let place = root.join("nix/store").join(info.path.to_string());
        let file = largest_file(&place)
            .ok_or_else(|| Failure::new(format!("{} has no file", info.path)))?;
        damage(&file)?;
    }
    Ok(())
}

/// Flips one bit in the middle of a file.
fn damage(file: &Path) -> Outcome<()> {
    let damaging = || format!("cannot damage {}", file.display());
    let permissions = |mode| std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode));
    permissions(0o644).context(damaging)?;
    let mut open = std::fs::File::options().read(true).write(true).open(file).context(damaging)?;
    let middle = open.metadata().context(damaging)?.len() / 2;
    let mut byte = [0];
    open.seek(SeekFrom::Start(middle)).context(damaging)?;
    open.read_exact(&mut byte).context(damaging)?;
    open.seek(SeekFrom::Start(middle)).context(damaging)?;
    open.write_all(&[byte[0] ^ 1]).context(damaging)?;
    permissions(0o444).context(damaging)
}

fn largest_file(place: &Path) -> Option<std::path::PathBuf> {
    let kind = std::fs::symlink_metadata(place).ok()?;
    if kind.is_file() {
        return Some(place.to_owned());
    }
    let inside =
        std::fs::read_dir(place).ok()?.filter_map(|entry| largest_file(&entry.ok()?.path()));
    inside.max_by_key(|file| std::fs::metadata(file).map_or(0, |m| m.len()))
}

/// Hashes every path of the machine's store again, from its disk.
pub(super) async fn check_store(machine: &Machine, paths: &[PathInfo]) -> Outcome<()> {
    let (root, paths, name) = (machine.root.clone(), paths.to_vec(), machine.name);
    tokio::task::spawn_blocking(move || {
        for info in &paths {
            let place = root.join("nix/store").join(info.path.to_string());
            let digest =
                hash_path(&place).context(|| format!("machine {name} lacks {}", info.path))?;
            if (digest.hash, digest.size) != (info.nar_hash, info.nar_size) {
                return Err(Failure::new(format!(
                    "machine {name} has WRONG CONTENTS in {}",
                    info.path
                )));
            }
        }
        Ok(())
    })
    .await
    .context(|| "checking was cut off".to_owned())?
}

fn print_table(rows: &[Row], total: u64) {
    let mut table = Table::new(
        &["machine", "paths", "NAR bytes", "time", "rate", "over the network, by whom", "trouble"],
        &[1, 2, 3, 4],
    );
    for row in rows {
        let given: Vec<String> = row
            .given
            .iter()
            .map(|(name, bytes)| format!("{name} {}", report::bytes(*bytes)))
            .collect();
        table.row([
            row.machine.to_owned(),
            row.got.paths.to_string(),
            report::bytes(row.got.nar_bytes),
            report::duration(row.got.time),
            report::rate(total, row.got.time),
            given.join(", "),
            row.remark.clone(),
        ]);
    }
    println!("\n{}", table.render());
}

/// Keeps the office open until Ctrl-C.
pub(super) async fn stay(machines: &[&Machine]) -> Outcome<()> {
    println!("\nThe agents stay up until Ctrl-C. To look at one:");
    for machine in machines {
        println!(
            "  haulout status --agent {}    # machine {}, http://{}/",
            machine.address, machine.name, machine.address
        );
    }
    let waiting = || "cannot wait for Ctrl-C".to_owned();
    let mut terminate = signal(SignalKind::terminate()).context(waiting)?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt.context(waiting),
        _ = terminate.recv() => Ok(()),
    }
}
