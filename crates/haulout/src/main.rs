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
mod online;
mod progress;
mod push;
mod report;
mod shell;
mod top;
mod up;
mod verify;
mod wallet;
mod walrus;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use error::Outcome;

fn main() -> ExitCode {
    end_quietly_without_a_reader();
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{}", failure.report());
            ExitCode::FAILURE
        }
    }
}

/// `haulout doctor | head -1` is no bug: who closes the pipe has read enough. Rust reports it as a panic of `println!`.
fn end_quietly_without_a_reader() {
    /// What a shell reports of a program that SIGPIPE ended.
    const ENDED_BY_SIGPIPE: i32 = 128 + 13;
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<String>().map_or("", String::as_str);
        if text.starts_with("failed printing to stdout") && text.contains("Broken pipe") {
            std::process::exit(ENDED_BY_SIGPIPE);
        }
        usual(panic);
    }));
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
        Command::Walrus(args) => walrus::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Install(args) => install::install(&args),
        Command::Uninstall(args) => install::uninstall(&args),
        Command::Completions { shell } => shell::completions(shell),
        Command::Man { out } => shell::man(&out),
    }
}
