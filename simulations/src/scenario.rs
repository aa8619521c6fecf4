//! The scenarios: what kind of site, what it wants, and what goes wrong.
//!
//! Sizes come from public figures: an update that took 1,183 MiB of downloads (5,721 MiB unpacked) in some 1,000 paths; a
//! developer's whole system of 28.7 GB unpacked, about 2,500 paths; a server of 2 GB; a laboratory of 31 machines that is
//! installed anew in one go; stores from 2,000 to 50,000 paths.

/// What goes wrong, in shares of the machines.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    /// They vanish for good in the middle, without a word.
    pub(crate) vanish: f64,
    /// They say goodbye and go.
    pub(crate) leave: f64,
    /// Their lids are closed and opened again.
    pub(crate) sleep: f64,
    /// Their agents hang: connected, and mute.
    pub(crate) hang: f64,
    /// They hand on wrong bytes, and announce what they do not have.
    pub(crate) lie: f64,
    /// The network falls into two halves, from and to these seconds; both keep their way outside.
    pub(crate) split: Option<(f64, f64)>,
    /// The line outside is dead, from and to these seconds.
    pub(crate) outage: Option<(f64, f64)>,
}

/// One scenario.
#[derive(Clone, Copy)]
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Machines unless said otherwise.
    pub(crate) agents: u32,
    /// Most machines of one subnet: multicast DNS goes no further, and an agent knows 1,000 peers at most.
    pub(crate) subnet: u32,
    /// A machine at the centre runs the agent's gateway; the agents of all subnets have it as their cache.
    pub(crate) gateway: bool,
    /// It hands on the file as it is outside, and not the NAR.
    pub(crate) packed: bool,
    pub(crate) wan_mbit: f64,
    pub(crate) wan_rtt_ms: f64,
    pub(crate) wan_loss: f64,
    pub(crate) cable_mbit: f64,
    /// Share of the machines on Wi-Fi, how many share an access point, what goes through the air in both directions
    /// together, and the share of packets lost there (after the radio's own repeats).
    pub(crate) wireless: f64,
    pub(crate) per_point: u32,
    pub(crate) air_mbit: f64,
    pub(crate) air_loss: f64,
    /// The baseline's central proxy has a line of this.
    pub(crate) proxy_mbit: f64,
    /// What one machine wants.
    pub(crate) paths: u32,
    pub(crate) bytes: u64,
    /// Share that all want alike; the rest differs by role.
    pub(crate) common: f64,
    pub(crate) roles: u32,
    /// Share of the machines that have part of it already.
    pub(crate) ahead: f64,
    /// Machines that have everything and are on from the beginning.
    pub(crate) seeds: u32,
    /// All begin within so many seconds, but for the share of late ones, which come within ten times that.
    pub(crate) spread_s: f64,
    pub(crate) late: f64,
    /// Share that does not fetch for others: on battery, or on a metered line.
    pub(crate) unwilling: f64,
    pub(crate) faults: Faults,
}

const NO_FAULTS: Faults =
    Faults { vanish: 0.0, leave: 0.0, sleep: 0.0, hang: 0.0, lie: 0.0, split: None, outage: None };

const MIB: u64 = 1 << 20;

/// What the others are made from: twenty desks, a line of 100 Mbit/s.
const OFFICE: Scene = Scene {
    name: "office",
    about: "20 machines on cable behind 100 Mbit/s take the same update in the same seconds",
    agents: 20,
    subnet: 1_000,
    gateway: false,
    packed: false,
    wan_mbit: 100.0,
    wan_rtt_ms: 20.0,
    wan_loss: 0.0,
    cable_mbit: 1_000.0,
    wireless: 0.0,
    per_point: 25,
    air_mbit: 400.0,
    air_loss: 0.0,
    proxy_mbit: 1_000.0,
    paths: 1_000,
    bytes: 1_183 * MIB,
    common: 0.85,
    roles: 3,
    ahead: 0.0,
    seeds: 0,
    spread_s: 5.0,
    late: 0.0,
    unwilling: 0.0,
    faults: NO_FAULTS,
};

/// Every scenario.
pub(crate) const ALL: [Scene; 11] = [
    Scene {
        name: "monday",
        about: "an update wave: 1,000 machines, a fifth of them laptops on Wi-Fi, begin within a minute; a tenth comes late",
        agents: 1_000,
        wan_mbit: 1_000.0,
        wireless: 0.2,
        per_point: 8,
        air_mbit: 600.0,
        air_loss: 0.000_1,
        proxy_mbit: 10_000.0,
        // Half of that update: a week's changes, not half a year's.
        bytes: 600 * MIB,
        roles: 4,
        spread_s: 60.0,
        late: 0.1,
        unwilling: 0.1,
        ..OFFICE
    },
    OFFICE,
    Scene {
        name: "flash-crowd",
        about: "300 machines on cable begin in the same second, and want exactly the same",
        agents: 300,
        wan_mbit: 1_000.0,
        proxy_mbit: 10_000.0,
        common: 1.0,
        roles: 1,
        spread_s: 1.0,
        ..OFFICE
    },
    Scene {
        name: "conference",
        about: "300 laptops on the hall's Wi-Fi behind 50 Mbit/s with loss; most on battery, lids open and close",
        agents: 300,
        wan_mbit: 50.0,
        wan_rtt_ms: 40.0,
        wan_loss: 0.001,
        wireless: 1.0,
        per_point: 30,
        air_mbit: 300.0,
        air_loss: 0.001,
        paths: 100,
        bytes: 120 * MIB,
        common: 0.5,
        roles: 5,
        spread_s: 120.0,
        late: 0.2,
        unwilling: 0.6,
        faults: Faults { sleep: 0.15, leave: 0.05, ..NO_FAULTS },
        ..OFFICE
    },
    Scene {
        name: "classroom",
        about: "31 machines are installed anew; the controller has everything, and nothing comes from outside",
        agents: 31,
        paths: 2_500,
        bytes: 2_000 * MIB,
        common: 1.0,
        roles: 1,
        seeds: 1,
        spread_s: 10.0,
        ..OFFICE
    },
    Scene {
        name: "cold-start",
        about: "100 machines with empty stores take a whole developer's system of 28.7 GB unpacked",
        agents: 100,
        wan_mbit: 1_000.0,
        proxy_mbit: 10_000.0,
        paths: 2_500,
        bytes: 5_660 * MIB,
        common: 0.9,
        roles: 3,
        spread_s: 20.0,
        ..OFFICE
    },
    Scene {
        name: "laptops",
        about: "60 laptops: lids closed and opened in the middle, a third on battery",
        agents: 60,
        wan_mbit: 200.0,
        wireless: 0.9,
        per_point: 15,
        air_loss: 0.000_3,
        bytes: 300 * MIB,
        paths: 300,
        ahead: 0.2,
        spread_s: 60.0,
        late: 0.2,
        unwilling: 0.35,
        faults: Faults { sleep: 0.4, leave: 0.1, ..NO_FAULTS },
        ..OFFICE
    },
    Scene {
        name: "churn",
        about: "100 machines, of which a tenth dies without a word and a twentieth hangs, in the middle of the wave",
        agents: 100,
        wan_mbit: 300.0,
        bytes: 600 * MIB,
        paths: 500,
        faults: Faults { vanish: 0.1, hang: 0.05, ..NO_FAULTS },
        ..OFFICE
    },
    Scene {
        name: "liars",
        about: "100 machines, of which every tenth lies: wrong bytes, and paths announced that it does not have",
        agents: 100,
        wan_mbit: 300.0,
        bytes: 600 * MIB,
        paths: 500,
        faults: Faults { lie: 0.1, ..NO_FAULTS },
        ..OFFICE
    },
    Scene {
        name: "partition",
        about: "200 machines; the network falls into halves for 40 s, and the line outside is dead for 20 s",
        agents: 200,
        wan_mbit: 300.0,
        bytes: 600 * MIB,
        paths: 500,
        spread_s: 20.0,
        faults: Faults { split: Some((12.0, 52.0)), outage: Some((70.0, 90.0)), ..NO_FAULTS },
        ..OFFICE
    },
    Scene {
        name: "campus",
        about: "2,000 machines in subnets of 250; a gateway at the centre is everybody's cache",
        agents: 2_000,
        subnet: 250,
        gateway: true,
        wan_mbit: 1_000.0,
        proxy_mbit: 10_000.0,
        bytes: 300 * MIB,
        paths: 300,
        spread_s: 60.0,
        late: 0.05,
        ..OFFICE
    },
];

impl Scene {
    /// The same for so many machines. An agent knows 1,000 peers at most, and multicast ends at the router: a site with more
    /// machines than one subnet takes is several subnets. Each is on its own, or a `gateway` at the centre is everybody's cache.
    pub(crate) fn of(self, agents: u32, gateway: bool, packed: bool) -> Self {
        Self { gateway: self.gateway || gateway && agents > self.subnet, packed, ..self }
    }
}

/// The scenario of this name.
pub(crate) fn by_name(name: &str) -> Option<Scene> {
    ALL.into_iter().find(|scene| scene.name == name)
}
