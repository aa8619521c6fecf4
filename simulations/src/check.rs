//! What must hold at every step.
//!
//! * Nothing wrong is taken for right. Content is a sum over byte ranges, so a hole, a byte too much and a lie all show.
//! * Nobody starves: once the faults are over, whoever wants something gets a byte within [`PATIENCE`]; in the end all have all.
//! * Memory is bounded: pieces kept, transfers, streams to peers, peers known.

use std::fmt;

use haulout_swarm::peers::PEERS_MAX;

use crate::agent::{INFOS_MAX, JOBS_MAX, limits};
use crate::keep::{CACHE_BYTES, KEPT_BYTES, PIECES_MAX, SPILL_BYTES};
use crate::net::{Nanos, SECOND};
use crate::world::World;

/// Longest time without a byte, or a narinfo, for a machine that wants some.
pub(crate) const PATIENCE: Nanos = 90 * SECOND;

/// What may be held beyond [`KEPT_BYTES`]: pieces that are being read or written, 12 MiB for each NAR at most, are not
/// dropped; for others nothing is begun then.
const IN_USE: u64 = (12 << 20) * JOBS_MAX as u64 + 64 * (4 << 20);

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) seed: u64,
    pub(crate) step: u64,
    pub(crate) at: Nanos,
    pub(crate) machine: u32,
    pub(crate) what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at as f64 / SECOND as f64;
        write!(
            f,
            "broken invariant: {} (machine {}, seed {}, step {}, {seconds:.3} s)",
            self.what, self.machine, self.seed, self.step
        )
    }
}

impl World<'_> {
    pub(crate) fn broken(&self, machine: u32, what: String) -> Broken {
        Broken { seed: self.fleet.seed, step: self.step, at: self.now, machine, what }
    }

    /// What holds for an agent after everything that happens to it.
    pub(crate) fn check(&self, n: u32) -> Result<(), Broken> {
        let agent = &self.agents[n as usize];
        let gateway = self.fleet.machines[n as usize].gateway;
        let limits = limits(gateway);
        // What a gateway is asked for at once is bounded by the machines that ask, not by itself.
        let fetches = if gateway { 16_384 } else { limits.fetches };
        let in_use = if gateway { u64::from(fetches) * (4 << 20) } else { IN_USE };
        let what = if self.totals.wrong_bytes > 0 {
            "a machine has wrong bytes in its store".to_owned()
        } else if agent.held > KEPT_BYTES + in_use {
            format!("{} bytes of pieces are held in memory", agent.held)
        } else if agent.on_disk > if gateway { CACHE_BYTES } else { SPILL_BYTES } {
            format!("{} bytes of pieces are on the disk", agent.on_disk)
        } else if agent.locals.len() > PIECES_MAX + 12 * JOBS_MAX + INFOS_MAX + fetches as usize {
            format!("{} pieces are held", agent.locals.len())
        } else if agent.jobs.len() > JOBS_MAX || agent.infos_open.len() > INFOS_MAX {
            format!("{} NARs and {} narinfos at once", agent.jobs.len(), agent.infos_open.len())
        } else if agent.duty.streams() > limits.streams {
            format!("{} streams to peers", agent.duty.streams())
        } else if agent.table.len() > PEERS_MAX {
            format!("{} peers known", agent.table.len())
        } else {
            return Ok(());
        };
        Err(self.broken(n, what))
    }

    /// Whether a machine that wants something has got a byte lately.
    pub(crate) fn check_progress(&self, n: u32) -> Result<(), Broken> {
        let agent = &self.agents[n as usize];
        let since = agent.progress_at.max(self.fleet.calm);
        let waits = agent.on && !agent.hangs && !agent.is_done();
        if waits && self.is_calm() && self.now > since + PATIENCE {
            let seconds = (self.now - since) / SECOND;
            return Err(self.broken(n, format!("a machine starves: nothing for {seconds} s")));
        }
        Ok(())
    }

    /// Everybody who is there and is not gone for good has everything in the end.
    pub(crate) fn check_end(&self) -> Result<(), Broken> {
        for (n, (agent, machine)) in (0..).zip(self.agents.iter().zip(&self.fleet.machines)) {
            if agent.finished.is_none() && !machine.gateway && !machine.doomed {
                let missing = agent.wanted.len() - agent.got;
                return Err(self
                    .broken(n, format!("a machine never finished: {missing} paths are missing")));
            }
        }
        Ok(())
    }
}
