//! `haulout nar`: archives on the command line, by the code that serves peers.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;

use haulout_nix::nar::{Decoder, Layout, Visitor, dump};

use crate::cli::NarCommand;
use crate::error::{Context, Failure, Outcome};

/// Bytes read at a time.
const PIECE_BYTES: usize = 256 << 10;

/// Bytes a pipe may hold: what every user may ask for (`/proc/sys/fs/pipe-max-size`).
const PIPE_BYTES: usize = 1 << 20;

/// What every NAR begins with: the length of the magic and the magic itself.
const NAR_START: &[u8] = b"\x0d\0\0\0\0\0\0\0nix-archive-1";

/// Runs a `haulout nar` command.
pub(crate) fn run(command: &NarCommand) -> Outcome<ExitCode> {
    let done = match command {
        NarCommand::Dump { path, range } => dump_to_stdout(path, range.as_deref()),
        NarCommand::Ls { path, json } => list(path, *json),
    };
    match done {
        Err(failure) if failure.is_closed_pipe() => Ok(ExitCode::SUCCESS),
        other => other.map(|()| ExitCode::SUCCESS),
    }
}

/// Standard output for bytes by the megabyte: the standard library's own looks for lines in
/// them, and a pipe as made lets two programs take turns every 64 KiB.
fn bulk_stdout() -> io::Result<File> {
    let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    // No pipe, or more than this user may have: then it stays as it is.
    let _ = rustix::pipe::fcntl_setpipe_size(&out, PIPE_BYTES);
    Ok(out)
}

fn dump_to_stdout(path: &Path, range: Option<&str>) -> Outcome<()> {
    let dumping = || format!("cannot write {} as a NAR", path.display());
    let mut out = bulk_stdout().context(dumping)?;
    match range {
        None => dump(path, &mut out).context(dumping),
        Some(range) => {
            let layout = Layout::scan(path).context(dumping)?;
            let Range { start, end } = parse_range(range, layout.nar_size())?;
            let mut piece = vec![0; PIECE_BYTES];
            let mut offset = start;
            while offset < end {
                let want =
                    usize::try_from(end - offset).map_or(PIECE_BYTES, |n| n.min(PIECE_BYTES));
                let got = layout.read_at(offset, &mut piece[..want]).context(dumping)?;
                out.write_all(&piece[..got]).context(dumping)?;
                offset += got as u64;
            }
            Ok(())
        }
    }
}

/// `A-B` with B excluded; either may be left out.
fn parse_range(text: &str, size: u64) -> Outcome<Range<u64>> {
    let bad = |why: &str| {
        Failure::new(format!("--range {text}: {why}"))
            .hint(format!("A-B counts bytes from 0, B excluded; this NAR has {size}"))
    };
    let (start, end) = text.split_once('-').ok_or_else(|| bad("not of the form A-B"))?;
    let number = |digits: &str, default| match digits {
        "" => Ok(default),
        digits => digits.parse::<u64>().map_err(|_| bad("not of the form A-B")),
    };
    let range = number(start, 0)?..number(end, size)?;
    if range.start > range.end || range.end > size {
        return Err(bad("outside the NAR"));
    }
    Ok(range)
}

fn list(path: &Path, json: bool) -> Outcome<()> {
    let reading = || format!("cannot read {}", path.display());
    if path == Path::new("-") {
        return list_archive(&mut io::stdin().lock(), &[], json, &reading);
    }
    if std::fs::symlink_metadata(path).context(reading)?.is_file() {
        let mut file = File::open(path).context(reading)?;
        let mut start = Vec::with_capacity(NAR_START.len());
        (&mut file).take(NAR_START.len() as u64).read_to_end(&mut start).context(reading)?;
        if start == NAR_START {
            return list_archive(&mut file, &start, json, &reading);
        }
    }
    let layout = Layout::scan(path).context(reading)?;
    if json {
        return print_json(&layout);
    }
    // The archive that the path would become, without its contents being kept.
    let mut lister = Lister::new(io::stdout().lock());
    let mut decoder = Decoder::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut offset = 0;
    while offset < layout.nar_size() {
        let got = layout.read_at(offset, &mut piece).context(reading)?;
        decoder.push(&piece[..got], &mut lister).context(reading)?;
        offset += got as u64;
    }
    Ok(())
}

fn print_json(layout: &Layout) -> Outcome<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &layout.listing())
        .context(|| "cannot write JSON".to_owned())?;
    writeln!(out).context(|| "cannot write JSON".to_owned())
}

/// Lists an archive whose first bytes were read already.
fn list_archive(
    reader: &mut impl Read,
    start: &[u8],
    json: bool,
    reading: &dyn Fn() -> String,
) -> Outcome<()> {
    if json {
        // The listing's offsets come from a layout, which needs the tree itself.
        let place =
            tempfile::tempdir().context(|| "cannot make a temporary directory".to_owned())?;
        let root = place.path().join("root");
        haulout_nix::nar::restore(start.chain(reader), &root).context(reading)?;
        return print_json(&Layout::scan(&root).context(reading)?);
    }
    let mut lister = Lister::new(io::stdout().lock());
    let mut decoder = Decoder::new();
    decoder.push(start, &mut lister).context(reading)?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match reader.read(&mut piece).context(reading)? {
            0 => return decoder.finish().context(reading),
            got => decoder.push(&piece[..got], &mut lister).context(reading)?,
        }
    }
}

/// Prints a line for each entry, like `nix nar ls -lR`: kind, size, path.
struct Lister<W> {
    out: W,
    path: Vec<Vec<u8>>,
}

impl<W: Write> Lister<W> {
    fn new(out: W) -> Self {
        Self { out, path: Vec::new() }
    }

    fn line(
        &mut self,
        kind: &str,
        size: u64,
        name: &[u8],
        target: Option<&[u8]>,
    ) -> io::Result<()> {
        let mut path =
            self.path.iter().map(Vec::as_slice).chain([name]).collect::<Vec<_>>().join(&b'/');
        if path.is_empty() {
            path.push(b'.');
        }
        if let Some(target) = target {
            path.extend_from_slice(b" -> ");
            path.extend_from_slice(target);
        }
        writeln!(self.out, "{kind} {size:>12} {}", printable(&path))
    }
}

/// Names may hold anything, a terminal's control characters among it.
fn printable(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

impl<W: Write> Visitor for Lister<W> {
    fn enter_directory(&mut self, name: &[u8]) -> io::Result<()> {
        self.line("dr-xr-xr-x", 0, name, None)?;
        if self.path.is_empty() && name.is_empty() {
            self.path.push(b".".to_vec());
        } else {
            self.path.push(name.to_vec());
        }
        Ok(())
    }

    fn leave_directory(&mut self) -> io::Result<()> {
        self.path.pop();
        Ok(())
    }

    fn start_file(&mut self, name: &[u8], executable: bool, size: u64) -> io::Result<()> {
        let kind = if executable { "-r-xr-xr-x" } else { "-r--r--r--" };
        self.line(kind, size, name, None)
    }

    fn symlink(&mut self, name: &[u8], target: &[u8]) -> io::Result<()> {
        self.line("lrwxrwxrwx", 0, name, Some(target))
    }
}

/// The kind of mistake, for callers that tell a bad archive from a bad disk.
#[cfg(test)]
fn kind_of(failure: &Failure) -> Option<&haulout_nix::nar::NarErrorKind> {
    let source = std::error::Error::source(failure)?;
    source.downcast_ref::<haulout_nix::nar::NarError>().map(|error| &error.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked_against_the_size() {
        assert_eq!(parse_range("2-5", 10).unwrap(), 2..5);
        assert_eq!(parse_range("-", 10).unwrap(), 0..10);
        assert_eq!(parse_range("7-", 10).unwrap(), 7..10);
        for bad in ["", "5", "5-2", "0-11", "a-b", "-1-3", "0-99999999999999999999"] {
            assert!(parse_range(bad, 10).unwrap_err().report().contains("hint: "), "{bad}");
        }
    }

    #[test]
    fn hostile_names_do_not_reach_the_terminal() {
        assert_eq!(printable(b"a\x1b[31mb"), "a\\u{1b}[31mb");
    }

    #[test]
    fn a_broken_archive_is_named_as_such() {
        let failure =
            list_archive(&mut &b"\0\0\0"[..], NAR_START, false, &|| "x".to_owned()).unwrap_err();
        assert!(kind_of(&failure).is_some(), "{}", failure.report());
    }
}
