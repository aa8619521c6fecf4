//! The haulout agent and command line.

mod archive;
mod bench;
mod cli;
mod client;
mod config;
mod control;
mod demo;
mod devnet;
mod doctor;
mod error;
mod install;
mod logging;
mod nar;
mod push;
mod report;
mod shell;
mod top;
mod up;
mod verify;
mod walrus;

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
        Command::Top(args) => top::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Why { path, control } => control::why(&path, &control),
        Command::Devnet(command) => devnet::run(&command),
        Command::Nar(command) => nar::run(&command),
        Command::Archive(command) => archive::run(&command),
        Command::Verify(args) => verify::run(&args),
        Command::Push(args) => push::run(&args),
        Command::Walrus(command) => walrus::run(&command),
        Command::Bench(args) => bench::run(&args),
        Command::Install(args) => install::install(&args),
        Command::Uninstall(args) => install::uninstall(&args),
        Command::Completions { shell } => Ok(shell::completions(shell)),
        Command::Man { out } => shell::man(&out),
    }
}
