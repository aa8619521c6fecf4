//! Files in and out: limits on what is read, nothing half-written left behind, bars on terminals.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::error::{Context, Failure, Outcome};

/// The name that means standard input or output.
pub(super) fn is_stream(path: &Path) -> bool {
    path == Path::new("-")
}

/// Reads a whole file, or standard input, of at most `limit` bytes.
pub(super) fn read(path: &Path, limit: u64, what: &str) -> Outcome<Vec<u8>> {
    let reading = || format!("cannot read {what} {}", path.display());
    let mut bytes = Vec::new();
    if is_stream(path) {
        io::stdin().lock().take(limit + 1).read_to_end(&mut bytes).context(reading)?;
    } else {
        let file = File::open(path).context(reading)?;
        let size = file.metadata().context(reading)?;
        if size.is_dir() {
            return Err(Failure::new(reading()).hint("it is a directory; name a file"));
        }
        bytes.reserve(usize::try_from(size.len().min(limit)).unwrap_or(0));
        file.take(limit + 1).read_to_end(&mut bytes).context(reading)?;
    }
    if bytes.len() as u64 > limit {
        return Err(Failure::new(format!(
            "{what} {} is larger than {limit} bytes, the most that is possible",
            path.display()
        )));
    }
    Ok(bytes)
}

/// Writes a whole file by way of a temporary one, or to standard output.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Outcome<()> {
    let writing = || format!("cannot write {}", path.display());
    if is_stream(path) {
        let mut out = io::stdout().lock();
        return out.write_all(bytes).and_then(|()| out.flush()).context(writing);
    }
    if !path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut file = tempfile::Builder::new()
            .prefix(".haulout-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .tempfile_in(directory)
            .context(writing)?;
        file.write_all(bytes).context(writing)?;
        file.persist(path).map_err(|error| error.error).context(writing)?;
        return Ok(());
    }
    // A pipe or a device.
    std::fs::write(path, bytes).context(writing)
}

/// Prints a value as JSON: to standard output, or beside the data if that went there.
pub(super) fn print_json(value: &impl Serialize, out: Option<&Path>) -> Outcome<()> {
    let text = serde_json::to_string(value).context(|| "cannot write JSON".to_owned())?;
    if out.is_some_and(is_stream) {
        eprintln!("{text}");
        return Ok(());
    }
    print_line(&text)
}

/// Prints a line on standard output.
pub(super) fn print_line(text: &str) -> Outcome<()> {
    writeln!(io::stdout().lock(), "{text}").context(|| "cannot write to standard output".to_owned())
}

/// A bar in bytes, on terminals only.
pub(super) fn bar(total: u64, doing: &'static str) -> ProgressBar {
    let target = match io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    let style =
        ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.set_message(doing);
    bar
}
