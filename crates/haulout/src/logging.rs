//! Logs go to standard error; data goes to standard output.

use tracing_subscriber::EnvFilter;

use crate::error::{Failure, Outcome};

/// Starts logging with `filter`, a level or a filter of the `tracing` crates.
pub(crate) fn start(filter: &str) -> Outcome<()> {
    let parsed = EnvFilter::try_new(filter).map_err(|error| {
        Failure::new(format!("log.level: {filter:?} is not a log filter"))
            .because(error)
            .hint("error, warn, info, debug or trace; or e.g. info,haulout_mesh=debug")
    })?;
    // Under systemd the journal adds the time itself.
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    if journal {
        builder.without_time().init()
    } else {
        builder.init()
    }
    Ok(())
}
