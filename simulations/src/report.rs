//! What a run says: a table for people, one object for programs.

use serde_json::{Value, json};

use crate::baseline::Course;
use crate::fleet::{Access, Fleet};
use crate::net::SECOND;
use crate::world::World;

/// The result of a run.
pub(crate) struct Outcome {
    pub(crate) scenario: &'static str,
    pub(crate) agents: usize,
    pub(crate) seed: u64,
    pub(crate) closure_bytes: u64,
    pub(crate) ideal_s: f64,
    pub(crate) own: Course,
    pub(crate) cable_s: f64,
    pub(crate) air_s: f64,
    pub(crate) baselines: Vec<(&'static str, Course)>,
    pub(crate) up: Spread,
    pub(crate) down: Spread,
    pub(crate) outside: Spread,
    pub(crate) memory: Spread,
    pub(crate) table: Spread,
    pub(crate) directory_bytes: usize,
    pub(crate) details: Value,
    pub(crate) wrong_bytes: u64,
    pub(crate) steps: u64,
    pub(crate) trace: u64,
}

/// A quantity over all machines.
#[derive(Clone, Copy, Default)]
pub(crate) struct Spread {
    pub(crate) median: u64,
    pub(crate) p95: u64,
    pub(crate) max: u64,
}

impl Spread {
    fn of(numbers: impl Iterator<Item = u64>) -> Self {
        let mut all: Vec<u64> = numbers.collect();
        all.sort_unstable();
        let at = |share: usize| {
            all.get((all.len() * share / 100).min(all.len().saturating_sub(1))).copied()
        };
        Self {
            median: at(50).unwrap_or(0),
            p95: at(95).unwrap_or(0),
            max: all.last().copied().unwrap_or(0),
        }
    }

    fn json(self) -> Value {
        json!({ "median": self.median, "p95": self.p95, "max": self.max })
    }
}

impl Outcome {
    /// What came of a run.
    pub(crate) fn new(world: &World<'_>, baselines: Vec<(&'static str, Course)>) -> Self {
        let fleet = world.fleet;
        let counted = || {
            world.agents.iter().zip(&fleet.machines).filter(|(_, one)| !one.doomed && !one.gateway)
        };
        let seconds = |at: u64| at as f64 / SECOND as f64;
        let mut finished: Vec<f64> =
            counted().filter_map(|(agent, _)| agent.finished).map(seconds).collect();
        finished.sort_by(f64::total_cmp);
        let last = |air: bool| {
            counted()
                .filter(|(_, one)| matches!(one.access, Access::Air { .. }) == air)
                .filter_map(|(agent, _)| agent.finished)
                .map(seconds)
                .fold(0.0, f64::max)
        };
        let loads = || world.agents.iter().map(|agent| &agent.load);
        let own =
            Course { wan_bytes: world.net.wan_bytes(), finished, samples: world.samples.clone() };
        Self {
            scenario: fleet.scene.name,
            agents: fleet.machines.iter().filter(|one| !one.gateway).count(),
            seed: fleet.seed,
            closure_bytes: fleet.union_bytes(),
            ideal_s: fleet.ideal_s(),
            cable_s: last(false),
            air_s: last(true),
            baselines,
            up: Spread::of(loads().map(|load| load.up)),
            down: Spread::of(loads().map(|load| load.down)),
            outside: Spread::of(loads().map(|load| load.wan)),
            memory: Spread::of(loads().map(|load| load.memory)),
            table: Spread::of(
                world.agents.iter().map(|agent| agent.table.len() as u64 * PEER_RECORD),
            ),
            directory_bytes: world
                .views
                .iter()
                .map(|view| view.directory.memory_bytes())
                .max()
                .unwrap_or(0),
            details: details(world, own.finish_s()),
            wrong_bytes: world.totals.wrong_bytes,
            steps: world.step,
            trace: world.trace,
            own,
        }
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let baselines: serde_json::Map<String, Value> = self
            .baselines
            .iter()
            .map(|(name, course)| {
                let one = json!({ "wan_bytes": course.wan_bytes, "finish_s": course.finish_s(), "median_s": median(course) });
                ((*name).to_owned(), one)
            })
            .collect();
        json!({
            "scenario": self.scenario,
            "agents": self.agents,
            "seed": self.seed,
            "wan_bytes": self.own.wan_bytes,
            "closure_bytes": self.closure_bytes,
            "finish_s": self.own.finish_s(),
            "median_s": median(&self.own),
            "ideal_s": self.ideal_s,
            "wrong_bytes": self.wrong_bytes,
            "baselines": baselines,
            "finish_cable_s": self.cable_s,
            "finish_air_s": self.air_s,
            "up_bytes": self.up.json(),
            "down_bytes": self.down.json(),
            "outside_bytes": self.outside.json(),
            "memory_bytes": self.memory.json(),
            "peer_table_bytes": self.table.json(),
            "directory_bytes": self.directory_bytes,
            "details": self.details,
            "steps": self.steps,
            "trace": format!("{:016x}", self.trace),
        })
    }

    /// For people.
    pub(crate) fn table(&self, fleet: &Fleet) -> String {
        let scene = &fleet.scene;
        let mut text = format!(
            "{}: {} machines, seed {}. {}.\nEach wants {} paths, {} from outside; together {} once. Line outside {} Mbit/s.\n\n",
            self.scenario,
            self.agents,
            self.seed,
            scene.about,
            scene.paths,
            bytes(scene.bytes),
            bytes(self.closure_bytes),
            scene.wan_mbit,
        );
        text += &format!(
            "  {:<12} {:>12} {:>9} {:>14} {:>14}\n",
            "", "from outside", "× wanted", "median machine", "last machine"
        );
        let ours = std::iter::once(("haulout", &self.own));
        for (name, course) in
            ours.chain(self.baselines.iter().map(|(name, course)| (*name, course)))
        {
            text += &format!(
                "  {name:<12} {:>12} {:>9.3} {:>14} {:>14}\n",
                bytes(course.wan_bytes),
                course.wan_bytes as f64 / self.closure_bytes.max(1) as f64,
                seconds(median(course)),
                seconds(course.finish_s()),
            );
        }
        text += &format!(
            "  {:<12} {:>12} {:>9.3} {:>14} {:>14}\n\n",
            "ideal",
            bytes(self.closure_bytes),
            1.0,
            "",
            seconds(self.ideal_s)
        );
        if self.air_s > 0.0 && self.cable_s > 0.0 {
            text += &format!(
                "  last on cable {}, last on Wi-Fi {}\n\n",
                seconds(self.cable_s),
                seconds(self.air_s)
            );
        }
        text +=
            &format!("  {:<34} {:>10} {:>10} {:>10}\n", "each machine", "median", "p95", "most");
        for (what, spread) in [
            ("gave to others", self.up),
            ("took in all", self.down),
            ("fetched from outside itself", self.outside),
            ("held in memory of pieces and NARs", self.memory),
            ("knew of other peers (records)", self.table),
        ] {
            text += &format!(
                "  {what:<34} {:>10} {:>10} {:>10}\n",
                bytes(spread.median),
                bytes(spread.p95),
                bytes(spread.max)
            );
        }
        text += &format!(
            "  {:<34} {:>10}\n\n",
            "directory of holdings (this update)",
            bytes(self.directory_bytes as u64)
        );
        for (name, value) in self.details.as_object().into_iter().flatten() {
            text += &format!(
                "  {:<34} {:>10}\n",
                name.replace('_', " "),
                value.to_string().trim_matches('"')
            );
        }
        text += &format!(
            "\n  wrong bytes in stores: {}; {} steps, trace {:016x}\n",
            self.wrong_bytes, self.steps, self.trace
        );
        text
    }
}

/// Bytes of one record of the peer table, with its share of the tree.
const PEER_RECORD: u64 = 3 * (size_of::<haulout_swarm::peers::Peer>() as u64 + 32) / 2;

fn details(world: &World<'_>, finish: f64) -> Value {
    let totals = &world.totals;
    let agents = world.agents.len().max(1) as f64;
    let per_agent = |bytes: u64| (bytes as f64 / agents).round();
    json!({
        "nars_from_peers": totals.nars_from_peers,
        "nars_with_fellow_fetchers": totals.nars_from_fellows,
        "nars_through_the_site": totals.nars_from_site,
        "nars_from_kept_pieces": totals.nars_kept,
        "kept_pieces_asked_for": totals.kept_asked,
        "nars_with_a_piece_that_nobody_kept": totals.kept_missing,
        "pieces_relayed": totals.pieces_relayed,
        "fetches_from_outside": totals.outside_fetches,
        "fetches_asked_as_home": totals.fetches_why[0],
        "fetches_asked_as_stand_in": totals.fetches_why[1],
        "fetches_for_itself_as_home": totals.fetches_why[2],
        "fetches_after_peers_failed": totals.fetches_why[3],
        "questions_for_what_a_peer_has": totals.peeks,
        "answers_busy": totals.busy,
        "retries": totals.retries,
        "streams_of_the_hottest_home": totals.relays_peak,
        "lies_caught": totals.lies_caught,
        "bans_of_liars": totals.liars_banned,
        "bans_of_honest_peers": totals.honest_banned,
        "holdings_snapshots_bytes_per_machine": per_agent(totals.snapshot_bytes),
        "holdings_deltas_sent_per_machine": per_agent(totals.deltas),
        "holdings_deltas_bytes_per_machine": per_agent(totals.delta_bytes),
        "holdings_deltas_bytes_per_second": (per_agent(totals.delta_bytes) / finish.max(1.0)).round(),
        "holdings_deltas_bytes_busiest_second": per_agent(totals.holdings_peak),
    })
}

pub(crate) fn median(course: &Course) -> f64 {
    course.finished.get(course.finished.len() / 2).copied().unwrap_or(0.0)
}

/// With three digits and a unit.
pub(crate) fn bytes(count: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut number, mut unit) = (count as f64, 0);
    while number >= 999.5 && unit + 1 < units.len() {
        (number, unit) = (number / 1e3, unit + 1);
    }
    let digits = if unit == 0 || number >= 100.0 {
        0
    } else if number >= 10.0 {
        1
    } else {
        2
    };
    format!("{number:.digits$} {}", units[unit])
}

/// As people say it.
pub(crate) fn seconds(count: f64) -> String {
    match count {
        0.0..100.0 => format!("{count:.1} s"),
        100.0..5_400.0 => format!("{:.1} min", count / 60.0),
        _ => format!("{:.1} h", count / 3_600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_240_000_000), "1.24 GB");
        assert_eq!(bytes(999_900), "1.00 MB");
        assert_eq!(seconds(12.34), "12.3 s");
        assert_eq!(seconds(7_200.0), "2.0 h");
    }
}
