//! Logs go to standard error; data goes to standard output.
//!
//! Under systemd each line begins with its priority as the journal reads it (`<3>` an error, `<4>` a warning, `<6>`
//! information, `<7>` the rest), so that `journalctl -p warning` finds what it should; the journal adds the time itself.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{Format, FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use crate::error::{Failure, Outcome};

/// Starts logging with `filter`, a level or a filter of the `tracing` crates.
pub(crate) fn start(filter: &str) -> Outcome<()> {
    let parsed = EnvFilter::try_new(filter).map_err(|error| {
        Failure::new(format!("log.level: {filter:?} is not a log filter"))
            .because(error)
            .hint("error, warn, info, debug or trace; or e.g. info,haulout_mesh=debug")
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.event_format(ForJournal).init();
    } else {
        builder.init();
    }
    Ok(())
}

/// Lines for the journal.
struct ForJournal;

impl<S, N> FormatEvent<S, N> for ForJournal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        let plain =
            Format::default().without_time().with_target(false).with_level(false).with_ansi(false);
        plain.format_event(context, Writer::new(&mut text), event)?;
        let priority = priority(*event.metadata().level());
        // The journal takes each line for a message of its own.
        for line in text.trim().lines() {
            writeln!(writer, "<{priority}>{line}")?;
        }
        Ok(())
    }
}

/// As in syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}
