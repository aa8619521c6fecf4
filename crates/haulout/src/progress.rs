//! Progress for people: bars on a terminal, nothing elsewhere.

use std::io::IsTerminal;

use haulout_nix::PathInfo;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar for so many bytes.
pub(crate) fn bar(total: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template(
        "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style)
}

/// The bytes of all their NARs, as they say themselves: nobody has looked, and it may be anything.
pub(crate) fn nar_bytes(infos: &[PathInfo]) -> u64 {
    infos.iter().map(|info| info.nar_size).fold(0, u64::saturating_add)
}
