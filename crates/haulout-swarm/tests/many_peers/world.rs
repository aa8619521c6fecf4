//! The simulated site: peers with their faults, a network, and virtual time. Nothing here knows what is under test.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use haulout_swarm::holdings::{Ledger, Message, Update};
use haulout_swarm::plan::{RequestId, Segment};
use haulout_swarm::{Now, PeerId};

/// Contents are checked in groups of this many bytes.
pub(crate) const GROUP: u64 = 64 * 1024;

/// How often a slow group shows signs of life.
const DRIP: Duration = Duration::from_millis(100);

/// From here on no new faults happen, and everything must finish.
pub(crate) const CALM: Now = Now::from_start(Duration::from_secs(20));

pub(crate) fn mix(n: u64) -> u64 {
    let z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A sequence of random numbers from one seed.
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// What stands for the bytes of one group of a NAR.
pub(crate) fn content(nar: usize, group: u64) -> u64 {
    mix((nar as u64) << 32 | group)
}

pub(crate) fn prefix(nar: usize) -> u32 {
    mix(nar as u64 | 1 << 50) as u32
}

/// What happens at a moment.
pub(crate) enum Event {
    /// Comes up (again), connects and announces its holdings.
    Join(usize),
    /// Its connection closes, noticed at once.
    Leave(usize),
    /// It vanishes without a word; the transport notices after its idle time-out.
    Vanish(usize),
    IdleTimeout(usize, u32),
    /// Holdings arrive.
    Announce(usize, Vec<u8>),
    /// Its store changes; it may forget to say so.
    Change(usize),
    /// Bytes `from..to` of an answer arrive, with what they look like.
    Chunk {
        peer: usize,
        life: u32,
        fetch: usize,
        id: RequestId,
        from: u64,
        to: u64,
        tag: u64,
    },
    /// A peer sends the next group of some answer.
    Send(usize, u32),
    /// Packets arrive that do not complete a group yet.
    Drip {
        peer: usize,
        life: u32,
        fetch: usize,
    },
    /// A "no" arrives.
    No {
        peer: usize,
        life: u32,
        fetch: usize,
    },
    /// Somebody on this machine wants a NAR.
    Want(usize),
    /// And loses interest.
    Quit(usize),
    Tick,
}

struct Sending {
    fetch: usize,
    nar: usize,
    id: RequestId,
    from: u64,
    end: u64,
    lie: u64,
}

pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) alive: bool,
    /// Counts its lives, so that answers of an earlier one do not arrive.
    pub(crate) life: u32,
    pub(crate) liar: bool,
    latency: Duration,
    bytes_per_second: u64,
    /// Answers under way, served in turns, a group at a time, as streams share a connection.
    sending: VecDeque<Sending>,
    pub(crate) has: BTreeSet<usize>,
    ledger: Ledger,
    told: Option<u64>,
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) now: Now,
    pub(crate) peers: Vec<Peer>,
    pub(crate) sizes: Vec<u64>,
    loss_percent: u64,
    queue: BinaryHeap<Reverse<(Now, u64)>>,
    events: BTreeMap<u64, Event>,
    sequence: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random(mix(seed));
        let sizes: Vec<u64> = (0..40)
            .map(|_| match random.below(4) {
                0 => 1 + random.below(5_000),
                1 | 2 => 1 + random.below(900_000),
                _ => 1 + random.below(9 << 20),
            })
            .collect();
        let peers = (0..30).map(|n| Self::peer(n, &mut random, sizes.len())).collect();
        let mut world = Self {
            loss_percent: random.below(6),
            random,
            now: Now::START,
            peers,
            sizes,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            sequence: 0,
        };
        world.script();
        world
    }

    fn peer(n: u64, random: &mut Random, nars: usize) -> Peer {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&mix(n ^ random.next()).to_be_bytes());
        let liar = random.percent(20);
        let share = if liar { 100 } else { 5 + random.below(40) };
        let bytes_per_second = match random.below(5) {
            0 => 200_000,
            1 => 5_000_000,
            _ => 117_000_000,
        };
        Peer {
            id: PeerId::from_bytes(id),
            alive: false,
            life: 0,
            liar,
            latency: Duration::from_micros(200 + random.below(20_000)),
            bytes_per_second,
            sending: VecDeque::new(),
            has: (0..nars).filter(|_| random.percent(share)).collect(),
            ledger: Ledger::new(random.next()),
            told: None,
        }
    }

    /// Who comes and goes, and who wants what.
    fn script(&mut self) {
        for peer in 0..self.peers.len() {
            let early = self.random.percent(60);
            let join = if early { 0 } else { self.random.below(15_000) };
            self.at_millis(join, Event::Join(peer));
            if self.random.percent(40) {
                let end = join + self.random.below(10_000);
                let event =
                    if self.random.percent(50) { Event::Leave(peer) } else { Event::Vanish(peer) };
                self.at_millis(end, event);
                if self.random.percent(50) {
                    let back = end + 100 + self.random.below(8_000);
                    self.at_millis(back, Event::Join(peer));
                }
            }
            for _ in 0..self.random.below(4) {
                let at = self.random.below(18_000);
                self.at_millis(at, Event::Change(peer));
            }
        }
        for nar in 0..self.sizes.len() {
            for _ in 0..=self.random.below(2) {
                let at = self.random.below(15_000);
                self.at_millis(at, Event::Want(nar));
            }
            if self.random.percent(10) {
                let at = self.random.below(16_000);
                self.at_millis(at, Event::Quit(nar));
            }
        }
        self.at_millis(0, Event::Tick);
    }

    fn at_millis(&mut self, millis: u64, event: Event) {
        self.schedule(Now::from_start(Duration::from_millis(millis)), event);
    }

    pub(crate) fn schedule(&mut self, at: Now, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((at.max(self.now), self.sequence)));
        self.events.insert(self.sequence, event);
    }

    /// Moves time to the next event.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let Reverse((at, sequence)) = self.queue.pop()?;
        self.now = at;
        self.events.remove(&sequence)
    }

    fn lost(&mut self) -> bool {
        self.now < CALM && {
            let chance = self.loss_percent;
            self.random.percent(chance)
        }
    }

    pub(crate) fn join(&mut self, peer: usize) {
        let announced: Vec<u32> = self.peers[peer].has.iter().map(|nar| prefix(*nar)).collect();
        let who = &mut self.peers[peer];
        who.alive = true;
        who.life += 1;
        who.sending.clear();
        who.told = None;
        who.ledger = Ledger::new(mix(u64::from(who.life) ^ u64::from(announced.len() as u32)));
        who.ledger.change([], announced);
        self.announce(peer);
    }

    /// Tells what changed since it told last.
    pub(crate) fn announce(&mut self, peer: usize) {
        let who = &mut self.peers[peer];
        let message = match who.ledger.since(who.told) {
            Update::Nothing => return,
            Update::Delta(delta) => Message::Delta(delta),
            Update::Snapshot(snapshot) => Message::Snapshot(snapshot),
        };
        who.told = Some(who.ledger.version());
        let at = self.now + who.latency;
        self.schedule(at, Event::Announce(peer, message.encode()));
    }

    /// A NAR comes or goes; one time in four the peer fails to say so.
    pub(crate) fn change(&mut self, peer: usize) {
        let nar = self.random.below(self.sizes.len() as u64) as usize;
        let told = !self.random.percent(25);
        let who = &mut self.peers[peer];
        if !who.alive || who.liar {
            return;
        }
        let come = who.has.insert(nar);
        if !come {
            who.has.remove(&nar);
        }
        // A NAR that it has but never announces cannot be expected to be found.
        if come || told {
            let (gone, come) =
                if come { (None, Some(prefix(nar))) } else { (Some(prefix(nar)), None) };
            who.ledger.change(gone, come);
            self.announce(peer);
        }
    }

    /// Sends a request; the answer, if any, becomes events.
    pub(crate) fn request(&mut self, peer: usize, fetch: usize, nar: usize, segment: Segment) {
        let lost = self.lost();
        let lie = self.random.below(6);
        let now = self.now;
        let who = &mut self.peers[peer];
        if lost || !who.alive {
            return;
        }
        let life = who.life;
        if !who.has.contains(&nar) || (who.liar && lie == 0) {
            let at = now + who.latency * 2;
            self.schedule(at, Event::No { peer, life, fetch });
            return;
        }
        let end = segment.offset + segment.len;
        who.sending.push_back(Sending {
            fetch,
            nar,
            id: segment.id,
            from: segment.offset,
            end,
            lie,
        });
        if who.sending.len() == 1 {
            let at = now + who.latency;
            self.schedule(at, Event::Send(peer, life));
        }
    }

    /// Sends one group of the answer whose turn it is.
    pub(crate) fn send(&mut self, peer: usize, life: u32) {
        let now = self.now;
        let who = &mut self.peers[peer];
        if !who.alive || who.life != life {
            return;
        }
        let Some(mut answer) = who.sending.pop_front() else { return };
        let Sending { fetch, nar, id, from, end, lie } = answer;
        let to = ((from / GROUP + 1) * GROUP).min(end);
        // Liars send wrong bytes, leave groups out, or stop in the middle without a word.
        let wrong = who.liar && mix(from ^ now.since_start().as_micros() as u64).is_multiple_of(3);
        let (from, to) = if who.liar && lie == 2 && to < end { (to, to + 1) } else { (from, to) };
        let tag = content(nar, from / GROUP) ^ u64::from(wrong);
        answer.from = to;
        if to < end && !(who.liar && lie == 1) {
            who.sending.push_back(answer);
        }
        let sent = now + Duration::from_micros((to - from) * 1_000_000 / who.bytes_per_second);
        let mut drip = now + who.latency + DRIP;
        let (arrives, more) = (sent + who.latency, !who.sending.is_empty());
        self.schedule(arrives, Event::Chunk { peer, life, fetch, id, from, to, tag });
        while drip < arrives {
            self.schedule(drip, Event::Drip { peer, life, fetch });
            drip = drip + DRIP;
        }
        if more {
            self.schedule(sent, Event::Send(peer, life));
        }
    }

    /// The asker no longer wants this answer.
    pub(crate) fn cancel(&mut self, peer: usize, fetch: usize, id: RequestId) {
        self.peers[peer].sending.retain(|answer| (answer.fetch, answer.id) != (fetch, id));
    }

    /// Whether an honest peer that is up could serve this NAR.
    pub(crate) fn honestly_available(&self, nar: usize) -> bool {
        self.peers.iter().any(|peer| peer.alive && !peer.liar && peer.has.contains(&nar))
    }
}
