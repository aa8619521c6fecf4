//! How much processor time is idle, sampled from the kernel when somebody asks.

use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Two samples closer than this say nothing (the kernel counts in 10 ms ticks).
const SAMPLE_MIN: Duration = Duration::from_millis(80);
/// An older sample says nothing about now: a new one is taken and the answer stays the last one until it ripens.
const SAMPLE_MAX: Duration = Duration::from_secs(2);
/// The kernel's unit in /proc/stat: 100 ticks a second on every Linux that matters here.
const TICKS_PER_SECOND: f32 = 100.0;
/// Assumed where the kernel does not tell (no /proc/stat): enough to compress.
const UNKNOWN_IDLE: f32 = 1.0;

#[derive(Debug)]
struct Sample {
    at: Instant,
    idle_ticks: u64,
}

/// A gauge of idle cores, cheap enough to ask for every frame.
#[derive(Debug, Default)]
pub(crate) struct CpuGauge {
    inner: Mutex<(Option<Sample>, Option<f32>)>,
}

impl CpuGauge {
    /// Idle processor time over the last fraction of a second, in cores.
    pub(crate) fn idle_cores(&self) -> f32 {
        let Ok(mut inner) = self.inner.try_lock() else {
            return UNKNOWN_IDLE;
        };
        let now = Instant::now();
        let age = inner.0.as_ref().map(|sample| now.saturating_duration_since(sample.at));
        if age.is_some_and(|age| age < SAMPLE_MIN) {
            return inner.1.unwrap_or(UNKNOWN_IDLE);
        }
        let Some(idle_ticks) =
            fs::read_to_string("/proc/stat").ok().as_deref().and_then(parse_idle)
        else {
            return UNKNOWN_IDLE;
        };
        if let (Some(sample), Some(age)) = (&inner.0, age)
            && age < SAMPLE_MAX
        {
            let ticks = idle_ticks.saturating_sub(sample.idle_ticks);
            inner.1 = Some(ticks as f32 / TICKS_PER_SECOND / age.as_secs_f32());
        }
        inner.0 = Some(Sample { at: now, idle_ticks });
        inner.1.unwrap_or(UNKNOWN_IDLE)
    }
}

/// Idle ticks of all processors together: the fourth number of the first line (waiting for disks counts as busy).
fn parse_idle(stat: &str) -> Option<u64> {
    let mut fields = stat.lines().next()?.split_ascii_whitespace();
    (fields.next()? == "cpu").then_some(())?;
    fields.nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_line_is_read() {
        assert_eq!(parse_idle("cpu  1 2 3 44 5 6 7 8 9 0\ncpu0 1\n"), Some(44));
        assert_eq!(parse_idle("cpu0 1 2 3 4"), None);
        assert_eq!(parse_idle(""), None);
    }
}
