//! The haulout agent and command line.

mod bench;
mod cli;
mod client;
mod config;
mod control;
mod demo;
mod error;
mod logging;
mod nar;
mod report;
mod up;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use error::Outcome;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{}", failure.report());
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Outcome<ExitCode> {
    match cli.command {
        Command::Up(args) => up::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Status(args) => control::status(&args),
        Command::Peers(args) => control::peers(&args),
        Command::Why { path, control } => control::why(&path, &control),
        Command::Nar(command) => nar::run(&command),
        Command::Verify(args) => verify::run(&args),
        Command::Bench(args) => bench::run(&args),
    }
}
