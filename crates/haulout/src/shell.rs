//! What shells and `man` want to know of the command line.

use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::error::{Context, Outcome};

/// `haulout completions SHELL`: the script, on standard output.
pub(crate) fn completions(shell: Shell) -> ExitCode {
    clap_complete::generate(shell, &mut Cli::command(), "haulout", &mut std::io::stdout());
    ExitCode::SUCCESS
}

/// `haulout man --out DIR`: one page for the program and one for each command.
pub(crate) fn man(out: &Path) -> Outcome<ExitCode> {
    std::fs::create_dir_all(out).context(|| format!("cannot make {}", out.display()))?;
    clap_mangen::generate_to(Cli::command(), out)
        .context(|| format!("cannot write the pages to {}", out.display()))?;
    Ok(ExitCode::SUCCESS)
}
