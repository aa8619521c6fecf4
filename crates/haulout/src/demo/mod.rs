//! `haulout demo`: what haulout does, shown on this machine alone with real
//! processes and real files, and checked by the demo itself.

mod agent;
mod archive_act;
mod install;
mod mesh_act;
mod walrus_act;

use std::process::ExitCode;

use crate::cli::{Act, DemoArgs};
use crate::control::block_on;
use crate::error::{Context, Outcome};

/// Runs the acts; the exit code is 0 only if everything claimed was true.
pub(crate) fn run(args: &DemoArgs) -> Outcome<ExitCode> {
    let acts: &[Act] = match args.act {
        Some(act) => &[act],
        // Who wants to look around stays with the first.
        None if args.stay => &[Act::Mesh],
        None => &[Act::Mesh, Act::Walrus, Act::Archive],
    };
    for (number, act) in acts.iter().enumerate() {
        if number > 0 {
            println!();
        }
        match act {
            Act::Mesh => block_on(mesh_act::play(args))?,
            Act::Walrus => block_on_all(walrus_act::play(args))?,
            Act::Archive => block_on_all(archive_act::play(args))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs an act that has a network of its own in this process.
fn block_on_all<T>(act: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context(|| "cannot start the runtime".to_owned())?.block_on(act)
}
