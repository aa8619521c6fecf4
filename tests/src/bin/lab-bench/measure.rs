//! One run, and the rows that runs add up to.

use std::time::{Duration, Instant};

use serde::Serialize;
use system_tests::{Agent, Process, Usage};

use crate::machine;

/// What one run cost.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Run {
    /// From the start of Nix to its end, seconds; with several: to the end of the last.
    pub wall: f64,
    /// CPU seconds of Nix.
    pub cpu_nix: f64,
    /// CPU seconds of the agents beside Nix.
    pub cpu_near: f64,
    /// CPU seconds of what serves: agents, or nginx.
    pub cpu_far: f64,
    /// CPU seconds of everything on the machine, the kernel's packet work and all that
    /// has nothing to do with this included.
    pub cpu_machine: f64,
    /// Most memory of an agent beside Nix, bytes.
    pub rss_near: u64,
    /// Most memory of what serves (the largest process of several), bytes.
    pub rss_far: u64,
    /// Bytes received on the links of those that fetch.
    pub wire: u64,
    /// Load average of the machine when it began.
    pub load: f64,
}

impl Run {
    /// CPU seconds of all processes that take part.
    pub fn cpu(&self) -> f64 {
        self.cpu_nix + self.cpu_near + self.cpu_far
    }
}

/// Runs of the same thing.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Which measurement, such as `1 Gbit/s`.
    pub bench: String,
    /// How Nix was told to fetch.
    pub how: &'static str,
    /// Where from.
    pub source: &'static str,
    /// Bytes of NAR that each fetching machine received.
    pub bytes: u64,
    /// The runs, in order.
    pub runs: Vec<Run>,
}

impl Row {
    /// The middle of what `value` says of the runs; the lower one of two.
    pub fn median(&self, value: impl Fn(&Run) -> f64) -> f64 {
        let mut values: Vec<f64> = self.runs.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
    }

    /// The least and the most.
    pub fn range(&self, value: impl Fn(&Run) -> f64) -> (f64, f64) {
        self.runs
            .iter()
            .map(value)
            .fold((f64::INFINITY, 0.0), |(least, most), v| (v.min(least), v.max(most)))
    }
}

/// The other rows of the same table section.
pub fn peer_of<'r>(rows: &'r [Row], row: &Row, source: &str) -> Option<&'r Row> {
    rows.iter()
        .find(|other| other.bench == row.bench && other.how == row.how && other.source == source)
}

/// What processes have used since they were looked at.
pub struct Meter<'p> {
    processes: Vec<&'p mut Process>,
    before: Vec<Usage>,
}

impl<'p> Meter<'p> {
    /// Looks at `processes` now.
    pub fn start(mut processes: Vec<&'p mut Process>) -> Self {
        let before = processes.iter_mut().map(|process| process.usage()).collect();
        Self { processes, before }
    }

    /// CPU seconds since then, and the most memory any of them ever had.
    pub fn stop(self) -> (f64, u64) {
        let mut cpu = Duration::ZERO;
        let mut rss = 0;
        for (process, before) in self.processes.into_iter().zip(self.before) {
            let after = process.usage();
            cpu += after.cpu.saturating_sub(before.cpu);
            rss = after.rss_peak.max(rss);
        }
        (cpu.as_secs_f64(), rss)
    }
}

/// The processes of agents.
pub fn processes<'p>(agents: &'p mut [Agent<'_>]) -> Vec<&'p mut Process> {
    agents.iter_mut().map(Agent::process).collect()
}

/// Runs `fetch`, which returns the CPU seconds of Nix, between two looks at everything.
pub fn measure(
    near: Vec<&mut Process>,
    far: Vec<&mut Process>,
    received: impl Fn() -> u64,
    fetch: impl FnOnce() -> f64,
) -> Run {
    let (near, far) = (Meter::start(near), Meter::start(far));
    let (load, wire, busy) = (machine::load(), received(), machine::busy());
    let start = Instant::now();
    let cpu_nix = fetch();
    let wall = start.elapsed().as_secs_f64();
    let cpu_machine = machine::busy().saturating_sub(busy).as_secs_f64();
    let ((cpu_near, rss_near), (cpu_far, rss_far)) = (near.stop(), far.stop());
    let wire = received().saturating_sub(wire);
    Run { wall, cpu_nix, cpu_near, cpu_far, cpu_machine, rss_near, rss_far, wire, load }
}

/// For those who watch.
pub fn say(row: &Row) {
    let Some(run) = row.runs.last() else { return };
    eprintln!(
        "{}, {}, {}: {:.2} s, CPU {:.2} + {:.2} + {:.2} s (machine {:.1}), {:.0} MB received, load {:.1}",
        row.bench,
        row.how,
        row.source,
        run.wall,
        run.cpu_nix,
        run.cpu_near,
        run.cpu_far,
        run.cpu_machine,
        run.wire as f64 / 1e6,
        run.load
    );
}
