//! `haulout archive`: archives on Walrus, named by an object on Sui.

mod anchor;
mod args;
mod cost;
mod open;
mod owner;
mod read;
mod source;
mod write;

use std::process::ExitCode;

pub(crate) use args::ArchiveCommand;

use crate::error::Outcome;
use crate::online::online;

/// Runs a `haulout archive` command.
pub(crate) fn run(command: &ArchiveCommand) -> Outcome<ExitCode> {
    let done = |()| ExitCode::SUCCESS;
    match command {
        ArchiveCommand::Init(args) => online(write::init(args)).map(done),
        ArchiveCommand::Publish(args) => online(write::from_store(args)).map(done),
        ArchiveCommand::Import(args) => online(write::from_cache(args)).map(done),
        ArchiveCommand::Ls(args) => online(read::ls(args)).map(done),
        ArchiveCommand::Cat(args) => online(read::cat(args)).map(done),
        ArchiveCommand::Verify(args) => online(read::verify(args)),
        ArchiveCommand::Diff(args) => online(read::diff(args)).map(done),
        ArchiveCommand::Status(args) => online(read::status(args)).map(done),
        ArchiveCommand::Merge(args) => online(write::merge(args)).map(done),
        ArchiveCommand::Fund(args) => online(write::fund(args)).map(done),
        ArchiveCommand::Beat(args) => online(write::beat(args)).map(done),
        ArchiveCommand::Publisher(command) => online(owner::publisher(command)).map(done),
        ArchiveCommand::Freeze(args) => online(owner::freeze(args)).map(done),
        ArchiveCommand::Anchor(args) => online(anchor::anchor(args)).map(done),
        ArchiveCommand::Cost(args) => cost::cost(args).map(done),
    }
}
