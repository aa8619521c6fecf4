//! Fleets of machines in virtual time, on the swarm's own state machines.
//!
//! `simulations SCENARIO` draws a fleet from a seed ([`fleet`]), lets it take an update with haulout ([`world`]) and without
//! ([`baseline`]) on the same network ([`net`]), checks at every step what must hold ([`check`]), and says how it went
//! ([`report`], [`picture`]). What is simulated and what is not: `docs/scale.md`.

mod agent;
mod baseline;
mod catalog;
mod check;
mod event;
mod fellows;
mod files;
mod fleet;
mod give;
mod infos;
mod keep;
mod kept;
mod life;
mod nars;
mod net;
mod picture;
mod queue;
mod random;
mod report;
mod scenario;
mod site;
#[cfg(test)]
mod tests;
mod view;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::baseline::Kind;
use crate::check::Broken;
use crate::fleet::Fleet;
use crate::net::{Nanos, SECOND};
use crate::report::Outcome;
use crate::scenario::Scene;
use crate::world::{Sabotage, World};

/// Fewest and most machines of a run.
const AGENTS: std::ops::RangeInclusive<u32> = 3..=10_000;
/// Virtual time after which a run must be over.
const UNTIL: Nanos = 48 * 3_600 * SECOND;

/// Simulates a fleet of machines that take an update, with haulout and without.
///
/// The exit status is 1 if an invariant is broken (the seed and the step are printed), 2 for a wrong command line.
#[derive(Parser)]
#[command(name = "simulations", version, after_help = after_help())]
struct Cli {
    /// The scenario, or "all".
    #[arg(required_unless_present = "list")]
    scenario: Option<String>,
    /// Machines, 3 to 10,000 [default: the scenario's]. More than fit into one subnet (1,000 in most scenarios) are several
    /// subnets, with a gateway at the centre that is everybody's cache.
    #[arg(long, value_name = "N")]
    agents: Option<u32>,
    /// Where there are several subnets, a gateway at the centre fetches for all (as always in campus).
    #[arg(long)]
    gateway: bool,
    /// The gateway hands on files as they are outside, and not NARs.
    #[arg(long)]
    packed: bool,
    /// The seed: the same one gives the same run, bit by bit.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// So many seeds, counting up from --seed.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    seeds: u64,
    /// One JSON object for each run on standard output.
    #[arg(long)]
    json: bool,
    /// Draws the run: bytes from outside and machines done over time, beside the baselines.
    #[arg(long, value_name = "FILE", conflicts_with = "seeds")]
    svg: Option<PathBuf>,
    /// Only haulout, nothing to compare with.
    #[arg(long, conflicts_with = "svg")]
    no_baselines: bool,
    /// Lists the scenarios.
    #[arg(long)]
    list: bool,
    /// Breaks the simulated agents, to see the checks fail.
    #[arg(long, hide = true)]
    sabotage: Option<Sabotage>,
}

fn after_help() -> String {
    let mut text = "Scenarios:\n".to_owned();
    for scene in scenario::ALL {
        text += &format!("  {:<12} {}\n", scene.name, scene.about);
    }
    text + "\nJSON keys: wan_bytes (from outside), closure_bytes (everything wanted, once), finish_s and ideal_s (last machine,\nsince the wave began), wrong_bytes, baselines {alone, proxy, broadcast}, and more. See docs/scale.md."
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.list {
        for scene in scenario::ALL {
            println!("{:<12} {:>6}  {}", scene.name, scene.agents, scene.about);
        }
        return ExitCode::SUCCESS;
    }
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Trouble::Usage(text)) => {
            eprintln!("error: {text}");
            ExitCode::from(2)
        }
        Err(Trouble::Broken(scene, broken)) => {
            eprintln!("error: {broken}");
            eprintln!("hint: simulations {scene} --seed {} repeats it", broken.seed);
            ExitCode::from(1)
        }
        Err(Trouble::File(text)) => {
            eprintln!("error: {text}");
            ExitCode::from(1)
        }
    }
}

enum Trouble {
    Usage(String),
    Broken(String, Broken),
    File(String),
}

fn run(cli: &Cli) -> Result<(), Trouble> {
    let scenes = scenes(cli.scenario.as_deref().unwrap_or_default())?;
    if scenes.len() > 1 && cli.svg.is_some() {
        return Err(Trouble::Usage("--svg draws one scenario, not all".to_owned()));
    }
    let several = scenes.len() > 1 || cli.seeds > 1;
    for scene in scenes {
        let agents = cli.agents.unwrap_or(scene.agents);
        if !AGENTS.contains(&agents) {
            let (least, most) = (AGENTS.start(), AGENTS.end());
            return Err(Trouble::Usage(format!(
                "--agents {agents}: from {least} to {most} machines"
            )));
        }
        for seed in cli.seed..cli.seed.saturating_add(cli.seeds) {
            let fleet = Fleet::new(scene.of(agents, cli.gateway, cli.packed), agents, seed);
            let outcome = simulate(&fleet, !cli.no_baselines, cli.sabotage).map_err(|broken| {
                Trouble::Broken(format!("{} --agents {agents}", scene.name), broken)
            })?;
            print(cli, &fleet, &outcome, several);
            if let Some(file) = &cli.svg {
                let wrong =
                    |error| Trouble::File(format!("cannot write {}: {error}", file.display()));
                std::fs::write(file, picture::draw(&outcome)).map_err(wrong)?;
            }
        }
    }
    Ok(())
}

fn scenes(name: &str) -> Result<Vec<Scene>, Trouble> {
    if name == "all" {
        return Ok(scenario::ALL.to_vec());
    }
    scenario::by_name(name).map(|scene| vec![scene]).ok_or_else(|| {
        let names: Vec<&str> = scenario::ALL.iter().map(|scene| scene.name).collect();
        Trouble::Usage(format!("no scenario \"{name}\"\nhint: one of {}, or all", names.join(", ")))
    })
}

fn print(cli: &Cli, fleet: &Fleet, outcome: &Outcome, several: bool) {
    if cli.json {
        println!("{}", outcome.json());
    } else if several {
        println!(
            "{:<12} {:>6} machines, seed {:<6} {:>9} from outside = {:.3} × wanted, last machine {} (ideal {})",
            outcome.scenario,
            outcome.agents,
            outcome.seed,
            report::bytes(outcome.own.wan_bytes),
            outcome.own.wan_bytes as f64 / outcome.closure_bytes.max(1) as f64,
            report::seconds(outcome.own.finish_s()),
            report::seconds(outcome.ideal_s),
        );
    } else {
        print!("{}", outcome.table(fleet));
    }
}

/// One run with haulout and, on another thread, the same without.
fn simulate(fleet: &Fleet, baselines: bool, sabotage: Option<Sabotage>) -> Result<Outcome, Broken> {
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            let kinds = if baselines { &Kind::ALL[..] } else { &[] };
            kinds.iter().map(|kind| (kind.word(), baseline::run(fleet, *kind))).collect::<Vec<_>>()
        });
        let mut world = World::new(fleet).sabotaged(sabotage);
        let ran = world.run(UNTIL);
        let others = others.join().unwrap_or_default();
        ran.map(|()| Outcome::new(&world, others))
    })
}
