//! `haulout demo`: what haulout does, shown on this machine alone with real
//! processes and real files, and checked by the demo itself.

mod agent;
mod install;
mod mesh_act;

use std::process::ExitCode;

use crate::cli::{Act, DemoArgs};
use crate::control::block_on;
use crate::error::Outcome;

/// Runs the acts; the exit code is 0 only if everything claimed was true.
pub(crate) fn run(args: &DemoArgs) -> Outcome<ExitCode> {
    match args.act {
        None | Some(Act::Mesh) => block_on(mesh_act::play(args))?,
    }
    Ok(ExitCode::SUCCESS)
}
