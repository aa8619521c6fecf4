//! Real Nix fetching a real closure, timed: from agents, and from nginx serving the same
//! closure as a static binary cache, in the same run and in alternating order.
//!
//! `cargo run --release -p system-tests --bin lab-bench -- [NAMES]` as root, after
//! `cargo build --release -p haulout`; `--list` shows the names. Stores are on
//! `/dev/shm`, links are shaped by `tbf`. No time is asserted: contents and exit codes
//! are. `docs/performance.md` says how to read it.

mod archive;
mod closure;
mod corpus;
mod four;
mod idle;
mod machine;
mod measure;
mod site;
mod sources;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::measure::Row;

/// Closures between network namespaces by real Nix, from agents and from nginx.
#[derive(Debug, Parser)]
#[command(name = "lab-bench")]
pub struct Options {
    /// What to measure; with nothing: everything
    names: Vec<Name>,
    /// List what can be measured
    #[arg(long)]
    list: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Runs of each row; 3, or 1 with `--quick`
    #[arg(long)]
    runs: Option<usize>,
    /// A small closure: 300 paths of 300 MB together; everything in under ten minutes
    #[arg(long)]
    quick: bool,
    /// Paths in the closure
    #[arg(long, default_value_t = 1200)]
    paths: usize,
    /// Bytes of NAR in the closure, roughly
    #[arg(long, default_value_t = 2_190_000_000)]
    bytes: u64,
    /// Only how Nix asks
    #[arg(long, value_enum)]
    how: Option<How>,
    /// Only these sources; may be repeated
    #[arg(long, value_enum)]
    from: Vec<Source>,
    /// Of `site`, only rows whose name begins so, e.g. `haulout`
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Rate of the links of `four`, in Mbit/s
    #[arg(long, default_value_t = 1000)]
    mbit: u64,
    /// Seconds of idleness; 60, or 30 with `--quick`
    #[arg(long)]
    idle_seconds: Option<u64>,
    /// Keep generated closures here between calls
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Leave the agents that hold the closure what they remember between runs
    #[arg(long)]
    warm: bool,
    /// More settings for all agents, SECTION.KEY=TOML; may be repeated
    #[arg(long = "set", value_name = "SETTING")]
    set: Vec<String>,
}

impl Options {
    /// Paths and bytes of the closure.
    fn size(&self) -> (usize, u64) {
        if self.quick { (300, 300_000_000) } else { (self.paths, self.bytes) }
    }

    fn runs(&self) -> usize {
        self.runs.unwrap_or(if self.quick { 1 } else { 3 })
    }

    fn idle_seconds(&self) -> u64 {
        self.idle_seconds.unwrap_or(if self.quick { 30 } else { 60 })
    }

    fn wants(&self, source: Source) -> bool {
        self.from.is_empty() || self.from.contains(&source)
    }

    fn hows(&self) -> Vec<How> {
        self.how.map_or_else(|| How::value_variants().to_vec(), |how| vec![how])
    }
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// The closure over links of 1 Gbit/s, from one and from three machines
    Gigabit,
    /// The same over links as fast as the machine
    Unshaped,
    /// A quarter of the closure to one machine, and to four at once, from one (1 Gbit/s, or `--mbit`)
    Four,
    /// A closure to eight machines at once from a cache behind an uplink of 100 Mbit/s
    Site,
    /// One NAR of 1 to 64 MiB from one peer and from three, whose links have 200 Mbit/s
    Sources,
    /// A closure of 1 GB out of an archive on a devnet of 1,000 shards, and from nginx
    Archive,
    /// An agent with a 50,000-path store and 20 peers, doing nothing
    Idle,
}

/// How Nix is told to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum How {
    /// `nix-store --realise`
    Realise,
    /// `nix copy`
    Copy,
}

/// Where Nix gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Source {
    /// Its agent, which has one peer that holds the closure
    #[value(name = "haulout-1")]
    Haulout,
    /// Its agent, which has three such peers
    #[value(name = "haulout-3")]
    HauloutThree,
    /// nginx, NARs as they are
    Nginx,
    /// nginx, NARs compressed beforehand
    NginxZstd,
}

impl Source {
    const fn text(self) -> &'static str {
        match self {
            Self::Haulout => "haulout, 1 peer",
            Self::HauloutThree => "haulout, 3 peers",
            Self::Nginx => "nginx, raw",
            Self::NginxZstd => "nginx, zstd",
        }
    }

    /// How many agents hold the closure.
    const fn peers(self) -> usize {
        match self {
            Self::Haulout => 1,
            Self::HauloutThree => 3,
            Self::Nginx | Self::NginxZstd => 0,
        }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        for name in Name::value_variants() {
            let Some(value) = name.to_possible_value() else { continue };
            let help = value.get_help().map(ToString::to_string).unwrap_or_default();
            println!("{:<10} {help}", value.get_name());
        }
        return ExitCode::SUCCESS;
    }
    let names = match options.names.as_slice() {
        [] => Name::value_variants(),
        some => some,
    };
    let mut rows: Vec<Row> = Vec::new();
    let mut idle = None;
    let mut sources = None;
    for name in names {
        let done = match name {
            Name::Gigabit => closure::run(&options, Some(1_000_000_000), "1 Gbit/s"),
            Name::Unshaped => closure::run(&options, None, "unshaped"),
            Name::Four => four::run(&options),
            Name::Site => site::run(&options),
            Name::Archive => archive::run(&options),
            Name::Idle => {
                idle = idle::run(&options);
                idle.as_ref().map(|_| Vec::new())
            }
            Name::Sources => {
                sources = sources::run(&options);
                sources.as_ref().map(|_| Vec::new())
            }
        };
        let Some(done) = done else {
            eprintln!("{name:?} cannot be measured here, see above");
            return ExitCode::FAILURE;
        };
        rows.extend(done);
    }
    if options.json {
        println!("{}", table::json(&rows, idle.as_ref(), sources.as_deref()));
    } else {
        table::print(&rows, idle.as_ref(), sources.as_deref());
    }
    ExitCode::SUCCESS
}
