//! The fleet of one run, drawn from the seed: machines, what each wants, when it begins, and what happens to it. The same
//! fleet is given to haulout and to every baseline.

use haulout_swarm::PeerId;

use crate::catalog::Catalog;
use crate::net::{Nanos, SECOND};
use crate::random::{Random, mix};
use crate::scenario::Scene;

/// How a machine is connected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Access {
    /// A line of its own, as wide in both directions.
    Cable {
        /// In 10⁶ bits per second.
        mbit: f64,
    },
    /// Wi-Fi.
    Air {
        /// Number of the access point.
        point: u32,
    },
}

/// What happens to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// It says goodbye.
    Leave,
    /// It is gone, and nobody is told.
    Vanish,
    /// It is on again.
    Wake,
    /// Its agent hangs.
    Hang,
    /// The network falls apart, and is whole again.
    Split(bool),
    /// The line outside dies, and is back.
    Outage(bool),
}

/// One machine.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) id: PeerId,
    pub(crate) subnet: u32,
    /// In which half it is when the network falls apart.
    pub(crate) half: bool,
    pub(crate) access: Access,
    pub(crate) start: Nanos,
    /// Whose list of [`Fleet::lists`] it wants.
    pub(crate) role: u32,
    /// How much of the list, from its beginning, it has already.
    pub(crate) has: u32,
    /// Paths in its store, besides.
    pub(crate) store: u32,
    pub(crate) willing: bool,
    pub(crate) lies: bool,
    /// Fetches what others want, and wants nothing itself.
    pub(crate) gateway: bool,
    /// Gone for good in the course of the run: owes nothing.
    pub(crate) doomed: bool,
}

/// Everything about a run that does not depend on how the bytes are fetched.
#[derive(Clone)]
pub(crate) struct Fleet {
    pub(crate) seed: u64,
    pub(crate) scene: Scene,
    pub(crate) catalog: Catalog,
    /// For each role its paths, in the order in which Nix fetches them: what others refer to first.
    pub(crate) lists: Vec<Vec<u32>>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) subnets: u32,
    pub(crate) access_points: u32,
    /// What goes wrong, and when; in order.
    pub(crate) blows: Vec<(Nanos, u32, Blow)>,
    /// From here on nothing more goes wrong.
    pub(crate) calm: Nanos,
}

impl Fleet {
    /// `agents` machines in the scenario.
    pub(crate) fn new(scene: Scene, agents: u32, seed: u64) -> Self {
        let mut random = Random::new(seed, 1);
        let common = (f64::from(scene.paths) * scene.common) as u32;
        let own = scene.paths - common;
        let count = common + own * scene.roles;
        let bytes = scene.bytes as f64 * f64::from(count) / f64::from(scene.paths);
        let unpacked = scene.gateway && !scene.packed;
        let catalog = Catalog::new(&mut random, count, bytes as u64, unpacked);
        let lists = (0..scene.roles).map(|role| list(common, own, role)).collect();
        let mut fleet = Self {
            seed,
            scene,
            catalog,
            lists,
            machines: Vec::new(),
            subnets: agents.div_ceil(scene.subnet).max(1) + u32::from(scene.gateway),
            access_points: 0,
            blows: Vec::new(),
            calm: 0,
        };
        for number in 0..agents {
            let machine = fleet.draw(&mut random, number, agents);
            fleet.machines.push(machine);
        }
        if scene.gateway {
            fleet.machines.push(fleet.gateway());
        }
        fleet.number_points();
        fleet.draw_blows(&mut random, agents);
        fleet
    }

    fn draw(&self, random: &mut Random, number: u32, agents: u32) -> Machine {
        let scene = &self.scene;
        let subnets = self.subnets - u32::from(scene.gateway);
        let seed = number < scene.seeds;
        let role = if seed { 0 } else { random.below(u64::from(scene.roles)) as u32 };
        let late = if random.chance(scene.late) { 10.0 } else { 1.0 };
        let begins = scene.spread_s * late * random.unit();
        // 2,000 to 50,000 paths, the median at 12,000.
        let store = (12_000.0 * (0.7 * random.normal()).exp()).clamp(2_000.0, 50_000.0) as u32;
        let share = if random.chance(scene.ahead) { random.unit() } else { 0.0 };
        Machine {
            id: peer_id(self.seed, number),
            subnet: (u64::from(number) * u64::from(subnets) / u64::from(agents)) as u32,
            half: number.is_multiple_of(2),
            access: if !seed && random.chance(scene.wireless) {
                Access::Air { point: 0 }
            } else {
                Access::Cable { mbit: scene.cable_mbit }
            },
            start: if seed { 0 } else { (begins * SECOND as f64) as Nanos },
            role,
            has: if seed { scene.paths } else { (f64::from(scene.paths) * share) as u32 },
            store,
            willing: seed || !random.chance(scene.unwilling),
            lies: false,
            gateway: false,
            doomed: false,
        }
    }

    fn gateway(&self) -> Machine {
        Machine {
            id: peer_id(self.seed, self.machines.len() as u32),
            subnet: self.subnets - 1,
            half: true,
            access: Access::Cable { mbit: self.scene.proxy_mbit },
            start: 0,
            role: 0,
            has: 0,
            store: 2_000,
            willing: true,
            lies: false,
            gateway: true,
            doomed: false,
        }
    }

    /// The same with a machine at the centre that fetches for all.
    pub(crate) fn with_proxy(&self) -> Self {
        let mut fleet = self.clone();
        fleet.subnets += 1;
        let proxy = fleet.gateway();
        fleet.machines.push(proxy);
        fleet
    }

    /// Access points, each with the machines of one subnet.
    fn number_points(&mut self) {
        let (mut point, mut filled, mut subnet) = (0, 0, 0);
        for machine in &mut self.machines {
            let Access::Air { point: at } = &mut machine.access else { continue };
            if filled == self.scene.per_point || (machine.subnet != subnet && filled > 0) {
                (point, filled) = (point + 1, 0);
            }
            subnet = machine.subnet;
            *at = point;
            filled += 1;
        }
        self.access_points = point + 1;
    }

    fn draw_blows(&mut self, random: &mut Random, agents: u32) {
        let faults = self.scene.faults;
        let seeds = self.scene.seeds;
        let shares = [faults.lie, faults.vanish, faults.leave, faults.hang, faults.sleep];
        let counts = shares.map(|share| (f64::from(agents) * share).round() as usize);
        let mut picked = random.pick(counts.iter().sum(), (agents - seeds) as usize);
        // In random order, or the liars would always be the first.
        for place in (1..picked.len()).rev() {
            picked.swap(place, random.below(place as u64 + 1) as usize);
        }
        let mut picked = picked.into_iter().map(|number| number as u32 + seeds);
        for number in picked.by_ref().take(counts[0]) {
            self.machines[number as usize].lies = true;
        }
        let kinds = [Blow::Vanish, Blow::Leave, Blow::Hang, Blow::Vanish];
        for (kind, count) in
            kinds.into_iter().zip(&counts[1..]).enumerate().map(|(n, (k, c))| ((n, k), *c))
        {
            for number in picked.by_ref().take(count) {
                let machine = &mut self.machines[number as usize];
                let after = 2.0 + 0.7 * self.scene.spread_s.max(20.0) * random.unit();
                let at = machine.start + (after * SECOND as f64) as Nanos;
                self.blows.push((at, number, kind.1));
                if kind.0 == 3 {
                    let asleep = (5.0 + 55.0 * random.unit()) * SECOND as f64;
                    self.blows.push((at + asleep as Nanos, number, Blow::Wake));
                } else {
                    machine.doomed = true;
                }
            }
        }
        let pairs = [
            (faults.split, [Blow::Split(true), Blow::Split(false)]),
            (faults.outage, [Blow::Outage(true), Blow::Outage(false)]),
        ];
        for (times, blows) in pairs {
            let Some((from, to)) = times else { continue };
            for (at, blow) in [from, to].into_iter().zip(blows) {
                self.blows.push(((at * SECOND as f64) as Nanos, 0, blow));
            }
        }
        self.blows.sort_by_key(|(at, number, _)| (*at, *number));
        self.calm = self.blows.last().map_or(0, |(at, ..)| *at);
    }

    /// What a machine wants and does not have, in Nix' order.
    pub(crate) fn wanted(&self, machine: &Machine) -> &[u32] {
        if machine.gateway {
            return &[];
        }
        let list = &self.lists[machine.role as usize];
        &list[(machine.has as usize).min(list.len())..]
    }

    /// Bytes of everything that anybody wants, as files and narinfos outside, each once.
    pub(crate) fn union_bytes(&self) -> u64 {
        let mut wanted = vec![false; self.catalog.paths.len()];
        for machine in &self.machines {
            self.wanted(machine).iter().for_each(|path| wanted[*path as usize] = true);
        }
        (0..)
            .zip(wanted)
            .filter(|(_, wanted)| *wanted)
            .map(|(path, _)| self.catalog.outside_bytes(path))
            .sum()
    }

    /// The seconds that a perfect site would need: every byte leaves the outside once, and every machine gets what it wants at
    /// the full rate of its line, from the moment when it begins.
    pub(crate) fn ideal_s(&self) -> f64 {
        let scene = &self.scene;
        let first = self
            .machines
            .iter()
            .filter(|one| !one.gateway && one.has < scene.paths)
            .map(|one| one.start)
            .min();
        let first = first.unwrap_or(0) as f64 / SECOND as f64;
        let outside =
            if scene.seeds > 0 { 0.0 } else { self.union_bytes() as f64 * 8e-6 / scene.wan_mbit };
        let mut ideal = first + outside;
        let mut air = vec![(f64::MAX, 0.0); self.access_points as usize];
        for machine in self.machines.iter().filter(|machine| !machine.doomed) {
            let bytes: u64 =
                self.wanted(machine).iter().map(|path| self.catalog.outside_bytes(*path)).sum();
            let megabits = bytes as f64 * 8e-6;
            let start = machine.start as f64 / SECOND as f64;
            match machine.access {
                Access::Cable { mbit } => ideal = ideal.max(start + megabits / mbit),
                Access::Air { point } => {
                    let (from, sum) = &mut air[point as usize];
                    (*from, *sum) = (from.min(start), *sum + megabits);
                    ideal = ideal.max(start + megabits / scene.air_mbit);
                }
            }
        }
        air.into_iter()
            .filter(|(_, sum)| *sum > 0.0)
            .fold(ideal, |ideal, (from, sum)| ideal.max(from + sum / scene.air_mbit))
    }
}

/// The common paths with those of a role spread among them.
fn list(common: u32, own: u32, role: u32) -> Vec<u32> {
    let all = common + own;
    let mut list = Vec::with_capacity(all as usize);
    let (mut shared, mut of_role) = (0, common + own * role);
    for place in 0..all {
        let due = u64::from(place + 1) * u64::from(own) / u64::from(all.max(1));
        if due > u64::from(of_role - common - own * role) {
            list.push(of_role);
            of_role += 1;
        } else {
            list.push(shared);
            shared += 1;
        }
    }
    list
}

/// Random, but for four bytes that say which machine it is.
fn peer_id(seed: u64, number: u32) -> PeerId {
    let mut id = [0; 32];
    for (place, word) in (0..).zip(id.chunks_exact_mut(8)) {
        word.copy_from_slice(&mix(mix(seed) ^ u64::from(number) << 8 ^ place).to_be_bytes());
    }
    id[28..].copy_from_slice(&number.to_be_bytes());
    PeerId::from_bytes(id)
}

/// The machine that has this key.
pub(crate) fn number_of(peer: &PeerId) -> u32 {
    let [.., a, b, c, d] = *peer.as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{ALL, by_name};

    #[test]
    fn fleets_are_drawn_alike_and_differ_by_seed() {
        for scene in ALL {
            let (a, b, c) =
                (Fleet::new(scene, 30, 5), Fleet::new(scene, 30, 5), Fleet::new(scene, 30, 6));
            assert_eq!(
                format!("{:?}{:?}", a.machines, a.blows),
                format!("{:?}{:?}", b.machines, b.blows)
            );
            assert_ne!(format!("{:?}", a.machines), format!("{:?}", c.machines));
            assert!(a.machines.iter().enumerate().all(|(n, one)| number_of(&one.id) as usize == n));
            assert!(a.ideal_s() > 0.0 && a.union_bytes() >= scene.bytes / 2, "{}", scene.name);
        }
    }

    #[test]
    fn lists_hold_each_path_once() {
        let mut list = list(70, 30, 2);
        list.sort_unstable();
        let expected: Vec<u32> = (0..70).chain(130..160).collect();
        assert_eq!(list, expected);
    }

    #[test]
    fn as_many_blows_as_the_scenario_says() {
        let fleet = Fleet::new(by_name("liars").unwrap(), 100, 1);
        assert_eq!(fleet.machines.iter().filter(|one| one.lies).count(), 10);
        let fleet = Fleet::new(by_name("churn").unwrap(), 100, 1);
        assert_eq!(fleet.machines.iter().filter(|one| one.doomed).count(), 15);
    }
}
