//! What shells and `man` want to know of the command line.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::error::{Context, Outcome};

/// `haulout completions SHELL`: the script, on standard output.
pub(crate) fn completions(shell: Shell) -> Outcome<ExitCode> {
    // In memory first: the generator panics when it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "haulout", &mut script);
    match std::io::stdout().write_all(&script) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        other => other.context(|| "cannot write the script".to_owned()).map(|()| ExitCode::SUCCESS),
    }
}

/// `haulout man --out DIR`: one page for the program and one for each command.
pub(crate) fn man(out: &Path) -> Outcome<ExitCode> {
    std::fs::create_dir_all(out).context(|| format!("cannot make {}", out.display()))?;
    clap_mangen::generate_to(Cli::command(), out)
        .context(|| format!("cannot write the pages to {}", out.display()))?;
    Ok(ExitCode::SUCCESS)
}
