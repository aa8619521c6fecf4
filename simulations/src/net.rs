//! The network: lines that bytes pass one after the other.
//!
//! The model is packet batches, not packets and not fluid rates. A *parcel* (up to some hundred kilobytes) passes each line
//! on its way in turn, and occupies it for its bytes. Who sends has only a few parcels of one stream under way, so streams
//! that share a line get equal shares. Loss makes a parcel late by a round trip, costs its bytes again, and caps a stream's
//! rate (Mathis: 1.22 × packet ÷ (round trip × √loss)). What there is not: queues that overflow, slow start, CPUs, disks.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use smallvec::SmallVec;

use crate::fleet::{Access, Fleet};
use crate::random::{Random, Spreading};

/// Nanoseconds since the wave began.
pub(crate) type Nanos = u64;

pub(crate) const SECOND: Nanos = 1_000_000_000;
pub(crate) const MILLI: Nanos = 1_000_000;

/// Stands for everything outside, as the sender of a parcel.
pub(crate) const OUTSIDE: u32 = u32::MAX;

/// Bytes in one packet, for loss.
const PACKET: f64 = 1_400.0;
/// One way between two machines on cable, one switch, the agents' own work included.
const CABLE: Nanos = 300_000;
/// The same for each machine on Wi-Fi.
const WIFI: Nanos = 3 * MILLI;
/// Added between subnets.
const ROUTED: Nanos = 500_000;
/// Lines between subnets: 10 Gbit/s each way.
const BACKBONE: f64 = 10e9;

/// A queue so long makes senders careful.
pub(crate) const CROWDED: Nanos = 200 * MILLI;

/// Something that bytes pass one after the other.
#[derive(Clone)]
struct Line {
    nanos_per_byte: f64,
    free_at: Nanos,
    carried: u64,
}

impl Line {
    fn new(bits_per_second: f64) -> Self {
        Self { nanos_per_byte: 8e9 / bits_per_second, free_at: 0, carried: 0 }
    }

    /// When the bytes are through.
    fn book(&mut self, bytes: f64, now: Nanos) -> Nanos {
        let start = self.free_at.max(now);
        self.free_at = start + (bytes * self.nanos_per_byte) as Nanos;
        self.carried += bytes as u64;
        self.free_at
    }
}

#[derive(Clone)]
struct Place {
    up: u32,
    down: u32,
    subnet: u32,
    wireless: bool,
    loss: f64,
}

/// Where a parcel goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) from: u32,
    pub(crate) to: u32,
}

/// What becomes of a parcel on its next line.
pub(crate) enum Passed {
    /// It is at the next line then.
    Next(Nanos),
    /// It has arrived then.
    Arrives(Nanos),
}

/// All lines, with what is booked on them.
#[derive(Clone)]
pub(crate) struct Net {
    lines: Vec<Line>,
    places: Vec<Place>,
    /// The line from outside.
    wan: u32,
    wan_latency: Nanos,
    wan_loss: f64,
    /// First of two lines of each subnet: out, in.
    backbone: u32,
    random: Random,
    /// Where there is loss: when the last parcel between two arrives. What is lost holds up what comes after it.
    order: HashMap<(u32, u32), Nanos, BuildHasherDefault<Spreading>>,
}

impl Net {
    pub(crate) fn new(fleet: &Fleet) -> Self {
        let scene = &fleet.scene;
        let mut lines = vec![Line::new(scene.wan_mbit * 1e6)];
        let backbone = lines.len() as u32;
        for _ in 0..fleet.subnets {
            lines.extend([Line::new(BACKBONE), Line::new(BACKBONE)]);
        }
        let air = lines.len() as u32;
        lines.extend((0..fleet.access_points).map(|_| Line::new(scene.air_mbit * 1e6)));
        let mut places = Vec::new();
        for machine in &fleet.machines {
            let place = match machine.access {
                Access::Cable { mbit } => {
                    lines.extend([Line::new(mbit * 1e6), Line::new(mbit * 1e6)]);
                    let up = lines.len() as u32 - 2;
                    Place { up, down: up + 1, subnet: machine.subnet, wireless: false, loss: 0.0 }
                }
                // One medium for both directions and for all at the access point.
                Access::Air { point } => Place {
                    up: air + point,
                    down: air + point,
                    subnet: machine.subnet,
                    wireless: true,
                    loss: scene.air_loss,
                },
            };
            places.push(place);
        }
        Self {
            lines,
            places,
            wan: 0,
            wan_latency: (scene.wan_rtt_ms * MILLI as f64 / 2.0) as Nanos,
            wan_loss: scene.wan_loss,
            backbone,
            random: Random::new(fleet.seed, 11),
            order: HashMap::default(),
        }
    }

    /// One way, without bytes.
    pub(crate) fn latency(&self, way: Way) -> Nanos {
        if way.from == OUTSIDE || way.to == OUTSIDE {
            let end = if way.from == OUTSIDE { way.to } else { way.from };
            return self.wan_latency + self.access(end);
        }
        let routed = self.subnet(way.from) != self.subnet(way.to);
        self.access(way.from) + self.access(way.to) + if routed { ROUTED } else { 0 }
    }

    /// As [`Net::latency`] for a small message that may be lost and is sent again.
    pub(crate) fn message(&mut self, way: Way) -> Nanos {
        let one_way = self.latency(way);
        let loss = self.loss(way);
        let mut at = one_way;
        while loss > 0.0 && self.random.chance(loss) && at < 5 * SECOND {
            at += 2 * one_way + 25 * MILLI;
        }
        at
    }

    fn access(&self, node: u32) -> Nanos {
        if self.places[node as usize].wireless { WIFI } else { CABLE / 2 }
    }

    pub(crate) fn subnet(&self, node: u32) -> u32 {
        self.places[node as usize].subnet
    }

    fn loss(&self, way: Way) -> f64 {
        let of = |node: u32| match node {
            OUTSIDE => self.wan_loss,
            node => self.places[node as usize].loss,
        };
        of(way.from) + of(way.to)
    }

    fn lines_of(&self, way: Way) -> SmallVec<[u32; 4]> {
        let mut lines = SmallVec::new();
        let to = &self.places[way.to as usize];
        if way.from == OUTSIDE {
            lines.push(self.wan);
        } else {
            let from = &self.places[way.from as usize];
            lines.push(from.up);
            if from.subnet != to.subnet {
                lines.push(self.backbone + 2 * from.subnet);
                lines.push(self.backbone + 2 * to.subnet + 1);
            }
        }
        lines.push(to.down);
        lines
    }

    /// A parcel enters the line with this number on its way. A sparse stream (one small answer) does not queue: routers and
    /// Wi-Fi drivers let those pass first (fq_codel).
    pub(crate) fn pass(
        &mut self,
        way: Way,
        line: u8,
        bytes: u64,
        now: Nanos,
        sparse: bool,
    ) -> Passed {
        let lines = self.lines_of(way);
        let loss = self.loss(way);
        let number = lines[usize::from(line)] as usize;
        let bytes_sent = bytes as f64 * (1.0 + loss);
        let through = if sparse {
            self.lines[number].carried += bytes_sent as u64;
            now + (bytes_sent * self.lines[number].nanos_per_byte) as Nanos
        } else {
            self.lines[number].book(bytes_sent, now)
        };
        if usize::from(line) + 1 < lines.len() {
            let latency = if line == 0 { self.latency(way) } else { 0 };
            return Passed::Next(through + latency);
        }
        if loss == 0.0 {
            return Passed::Arrives(through);
        }
        let round = 2.0 * self.latency(way) as f64;
        let hit = 1.0 - (1.0 - loss).powf((bytes as f64 / PACKET).ceil());
        let again = if self.random.chance(hit) { round as Nanos } else { 0 };
        // The cap, as the least time that these bytes take.
        let least = bytes as f64 * round * loss.sqrt() / (1.22 * PACKET);
        let at = through.max(now + least as Nanos) + again;
        let last = self.order.entry((way.from, way.to)).or_default();
        *last = at.max(*last);
        Passed::Arrives(*last)
    }

    /// How long what is sent from outside now waits.
    pub(crate) fn wan_backlog(&self, now: Nanos) -> Nanos {
        self.lines[self.wan as usize].free_at.saturating_sub(now)
    }

    /// Bytes that came in from outside so far, repeats included.
    pub(crate) fn wan_bytes(&self) -> u64 {
        self.lines[self.wan as usize].carried
    }

    /// Bytes of a document or the like, too few to queue for.
    pub(crate) fn carry_wan(&mut self, bytes: u64) {
        self.lines[self.wan as usize].carried += bytes;
    }
}
