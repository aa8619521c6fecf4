//! `haulout bench`: what one machine can measure without root and without Nix, each
//! figure beside the goal and, where the tool is installed, the ordinary alternative
//! doing the same work in the same run.
//!
//! Closures by real Nix over real links are measured by `lab-bench` of the system tests.

mod archive;
mod directory;
mod figure;
mod load;
mod nar;
mod narinfo;
mod walrus;

use std::process::ExitCode;

use clap::ValueEnum;

use crate::cli::{Bench, BenchArgs};
use crate::error::{Context, Outcome};
use crate::report::Table;

use directory::Crowd;
use figure::Figure;

/// Runs the benches that were named, or all.
pub(crate) fn run(args: &BenchArgs) -> Outcome<ExitCode> {
    if args.list {
        for bench in Bench::value_variants() {
            let Some(value) = bench.to_possible_value() else { continue };
            let help = value.get_help().map(ToString::to_string).unwrap_or_default();
            println!("{:<10} {help}", value.get_name());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let all = Bench::value_variants();
    let names = if args.names.is_empty() { all } else { &args.names };
    let mut figures = Vec::new();
    let mut crowd = None;
    for bench in names {
        figures.extend(match bench {
            Bench::NarDump => nar::dump()?,
            Bench::NarRead => nar::read()?,
            Bench::Lookup => directory::look_ups(crowd.get_or_insert_with(Crowd::make)),
            Bench::Archive => archive::look_ups()?,
            Bench::Proofs => archive::proofs()?,
            Bench::Walrus => walrus::run()?,
            Bench::Narinfo => narinfo::run(crowd.get_or_insert_with(Crowd::make))?,
        });
    }
    if args.json {
        let text = serde_json::to_string_pretty(&figures);
        println!("{}", text.context(|| "cannot print JSON".to_owned())?);
    } else if args.markdown {
        print_markdown(&figures);
    } else {
        print(&figures);
    }
    Ok(ExitCode::SUCCESS)
}

const HEADING: [&str; 7] = ["", "haulout", "compared with", "", "times", "goal", ""];

fn print_markdown(figures: &[Figure]) {
    println!("| {} |", HEADING.join(" | "));
    println!("|---|--:|---|--:|--:|---|---|");
    for figure in figures {
        println!("| {} |", figure.cells().join(" | "));
    }
}

fn print(figures: &[Figure]) {
    let mut table = Table::new(&HEADING, &[1, 3, 4]);
    for figure in figures {
        table.row(figure.cells());
    }
    print!("{}", table.render());
}
