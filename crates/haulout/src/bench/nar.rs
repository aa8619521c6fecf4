//! NARs out of files: whole, against `nix-store --dump`, and at random places.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use haulout_nix::nar::{self, Layout};

use super::directory::mix;
use super::figure::{Figure, Goal, median};
use crate::error::{Context, Failure, Outcome};

const PIECE_BYTES: usize = 256 << 10;
/// Times of each, in alternating order.
const RUNS: usize = 7;
const ONE_FILE_BYTES: usize = 300_000_000;
const READ_BYTES: usize = 64 << 10;
const READS: u64 = 5_000;

/// The two trees that NARs are made of.
struct Trees {
    dir: tempfile::TempDir,
}

impl Trees {
    /// One file of 300 MB; 20,000 files of 0.5 to 5.9 kB in 200 directories. They are
    /// in the page cache afterwards, as a store path is that was just asked for.
    fn make() -> Outcome<Self> {
        let making = || "cannot make files to measure with".to_owned();
        let dir = tempfile::tempdir().context(making)?;
        let noise: Vec<u8> =
            (0..ONE_FILE_BYTES as u64 / 8).flat_map(|n| mix(n).to_le_bytes()).collect();
        std::fs::write(dir.path().join("one"), &noise).context(making)?;
        for number in 0..20_000 {
            let path = dir.path().join(format!("many/directory-{:03}", number / 100));
            if number % 100 == 0 {
                std::fs::create_dir_all(&path).context(making)?;
            }
            let file = path.join(format!("file-{:02}.txt", number % 100));
            std::fs::write(file, &noise[..500 + number * 7919 % 5400]).context(making)?;
        }
        Ok(Self { dir })
    }

    fn each(&self) -> [(&'static str, std::path::PathBuf, f64); 2] {
        [
            ("one file of 300 MB", self.dir.path().join("one"), 1.2),
            ("20,000 small files", self.dir.path().join("many"), 3.0),
        ]
    }
}

/// Seconds until a command has written everything through a pipe.
fn through_a_pipe(mut command: Command) -> Outcome<f64> {
    let running = || format!("cannot run {command:?}");
    let failed = Failure::new(running());
    let begun = Instant::now();
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|error| failed.because(error))?;
    let mut piece = vec![0; PIECE_BYTES];
    if let Some(mut pipe) = child.stdout.take() {
        while pipe.read(&mut piece).context(|| "cannot read a NAR".to_owned())? > 0 {}
    }
    let status = child.wait().context(|| "cannot wait for a program".to_owned())?;
    if !status.success() {
        return Err(Failure::new(format!("{command:?} failed: {status}")));
    }
    Ok(begun.elapsed().as_secs_f64())
}

fn has_nix() -> bool {
    let version = Command::new("nix-store").arg("--version").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Dumps of whole trees.
pub(super) fn dump() -> Outcome<Vec<Figure>> {
    let trees = Trees::make()?;
    let own = std::env::current_exe().context(|| "cannot find this program".to_owned())?;
    let nix = has_nix();
    let mut figures = Vec::new();
    for (name, path, goal) in trees.each() {
        let size = Layout::scan(&path).context(|| "cannot scan".to_owned())?.nar_size();
        let (mut ours, mut theirs, mut inside) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..RUNS {
            ours.push(through_a_pipe(dump_command(&own, &["nar", "dump"], &path))?);
            if nix {
                theirs.push(through_a_pipe(dump_command(
                    "nix-store".as_ref(),
                    &["--dump"],
                    &path,
                ))?);
            }
            let begun = Instant::now();
            nar::dump(&path, &mut std::io::sink()).context(|| "cannot dump".to_owned())?;
            inside.push(begun.elapsed().as_secs_f64());
        }
        let rate = |seconds: f64| size as f64 / 1e6 / seconds;
        let theirs = median(theirs).map(rate);
        let mut figure = |what: &str, seconds: Vec<f64>| {
            let value = median(seconds).map_or(0.0, rate);
            figures.push(
                Figure::new(format!("NAR of {name}, {what}"), "MB/s", value)
                    .than("nix-store --dump through a pipe", theirs)
                    .goal(Goal::TimesOther(goal)),
            );
        };
        figure("program through a pipe", ours);
        figure("in the agent", inside);
    }
    Ok(figures)
}

fn dump_command(program: &Path, arguments: &[&str], path: &Path) -> Command {
    let mut command = Command::new(program);
    // Nix may have something to say about its settings.
    command.args(arguments).arg(path).stderr(Stdio::null());
    command
}

/// Reads at random places, as peers ask for ranges.
pub(super) fn read() -> Outcome<Vec<Figure>> {
    let trees = Trees::make()?;
    let mut figures = Vec::new();
    for (name, path, _) in trees.each() {
        let begun = Instant::now();
        let layout = Layout::scan(&path).context(|| "cannot scan".to_owned())?;
        let scanned = begun.elapsed();
        let mut piece = vec![0; READ_BYTES];
        let last = layout.nar_size().saturating_sub(READ_BYTES as u64).max(1);
        let begun = Instant::now();
        for n in 0..READS {
            layout.read_at(mix(n) % last, &mut piece).context(|| "cannot read".to_owned())?;
        }
        let seconds = begun.elapsed().as_secs_f64() / READS as f64;
        let what = |text: &str| format!("NAR of {name}, {text}");
        figures.push(Figure::new(what("layout by lstat alone"), "ms", scanned.as_secs_f64() * 1e3));
        figures.push(Figure::new(what("64 KiB at random"), "µs", seconds * 1e6));
        figures.push(Figure::new(
            what("64 KiB at random"),
            "MB/s",
            READ_BYTES as f64 / 1e6 / seconds,
        ));
    }
    Ok(figures)
}
