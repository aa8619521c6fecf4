//! The same fleet on the same network without haulout, in three ways. Nothing goes wrong there: machines neither die nor
//! lie, which flatters these.

use std::collections::VecDeque;

use crate::agent::{INFOS_MAX, JOBS_MAX};
use crate::catalog::NARINFO_BYTES;
use crate::fleet::Fleet;
use crate::net::{MILLI, Nanos, Net, OUTSIDE, Passed, SECOND, Way};
use crate::queue::Queue;
use crate::random::Random;

/// Bytes in one parcel, and parcels under way: nothing is relayed here, so coarse will do.
const PARCEL: u64 = 1 << 20;
const WINDOW: u8 = 2;
/// What the cache outside thinks before it answers.
const THINKING: Nanos = 15 * MILLI;
/// How long a question by broadcast takes, as measured with peerix: answered, and answered by nobody.
const ANSWERED: Nanos = 2_400_000;
const UNANSWERED: Nanos = 50 * MILLI;
/// Longer than any of them takes.
const UNTIL: Nanos = 60 * 24 * 3_600 * SECOND;

/// How the bytes are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Everyone for themselves, from outside.
    Alone,
    /// A central pull-through cache (as nginx with `proxy_cache` and `proxy_cache_lock`): each file comes once, and is given out
    /// when it is whole.
    Proxy,
    /// Who needs a path asks all by broadcast (as peerix): one that has it gives it unpacked; if nobody has it, it comes from
    /// outside, for each who asks.
    Broadcast,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Alone, Self::Proxy, Self::Broadcast];

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Proxy => "proxy",
            Self::Broadcast => "broadcast",
        }
    }
}

/// How it went.
#[derive(Clone, Debug, Default)]
pub(crate) struct Course {
    pub(crate) wan_bytes: u64,
    /// When each machine was done that is counted, ascending, in seconds.
    pub(crate) finished: Vec<f64>,
    /// Seconds, and bytes from outside by then.
    pub(crate) samples: Vec<(f64, u64)>,
}

impl Course {
    pub(crate) fn finish_s(&self) -> f64 {
        self.finished.last().copied().unwrap_or(0.0)
    }
}

struct Transfer {
    from: u32,
    to: u32,
    path: u32,
    bytes: u64,
    sent: u64,
    taken: u64,
}

enum Event {
    Start(u32),
    /// The machine knows all narinfos.
    Informed(u32),
    Begin(u32, u32),
    Parcel {
        transfer: u32,
        bytes: u64,
        line: u8,
    },
    Arrived {
        transfer: u32,
        bytes: u64,
    },
}

#[derive(Default)]
struct Client {
    next: usize,
    got: usize,
    open: usize,
    finished: Option<Nanos>,
}

/// What the proxy has of a path.
enum Cached {
    No,
    Coming(Vec<u32>),
    Yes,
}

struct Base<'f> {
    kind: Kind,
    fleet: &'f Fleet,
    net: Net,
    queue: Queue<Event>,
    random: Random,
    now: Nanos,
    clients: Vec<Client>,
    transfers: Vec<Transfer>,
    free: VecDeque<u32>,
    proxy: u32,
    cached: Vec<Cached>,
    informed: Vec<bool>,
    holders: Vec<Vec<u32>>,
    unfinished: usize,
    samples: Vec<(f64, u64)>,
    sampled: Nanos,
}

/// Runs the fleet this way.
pub(crate) fn run(fleet: &Fleet, kind: Kind) -> Course {
    let with_proxy;
    let fleet = if kind == Kind::Proxy && !fleet.scene.gateway {
        with_proxy = fleet.with_proxy();
        &with_proxy
    } else {
        fleet
    };
    let mut base = Base::new(fleet, kind);
    base.run();
    let mut finished: Vec<f64> = fleet
        .machines
        .iter()
        .zip(&base.clients)
        .filter(|(machine, _)| !machine.doomed && !machine.gateway)
        .filter_map(|(_, client)| client.finished)
        .map(|at| at as f64 / SECOND as f64)
        .collect();
    finished.sort_by(f64::total_cmp);
    Course { wan_bytes: base.net.wan_bytes(), finished, samples: base.samples }
}

impl<'f> Base<'f> {
    fn new(fleet: &'f Fleet, kind: Kind) -> Self {
        let paths = fleet.catalog.paths.len();
        let mut base = Self {
            kind,
            net: Net::new(fleet),
            queue: Queue::new(),
            random: Random::new(fleet.seed, 3),
            now: 0,
            clients: fleet.machines.iter().map(|_| Client::default()).collect(),
            transfers: Vec::new(),
            free: VecDeque::new(),
            proxy: fleet.machines.len() as u32 - 1,
            cached: (0..paths).map(|_| Cached::No).collect(),
            informed: vec![false; paths],
            holders: vec![Vec::new(); paths],
            unfinished: fleet.machines.iter().filter(|one| !one.gateway).count(),
            samples: vec![(0.0, 0)],
            sampled: 0,
            fleet,
        };
        for (n, machine) in (0..).zip(&fleet.machines) {
            if !machine.gateway {
                base.queue.push(machine.start, Event::Start(n));
            }
        }
        base
    }

    fn run(&mut self) {
        while self.unfinished > 0
            && let Some((at, _, event)) = self.queue.pop()
        {
            if at > UNTIL {
                return;
            }
            self.now = at;
            if at >= self.sampled {
                self.sample();
            }
            self.handle(event);
        }
        self.sample();
    }

    fn sample(&mut self) {
        self.samples.push((self.now as f64 / SECOND as f64, self.net.wan_bytes()));
        self.sampled = self.now + (self.now / 64).max(100 * MILLI);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Start(n) => {
                let machine = &self.fleet.machines[n as usize];
                let list = &self.fleet.lists[machine.role as usize];
                for path in list.iter().take(machine.has as usize) {
                    self.holders[*path as usize].push(n);
                }
                let takes = self.infos_take(n);
                self.queue.push(self.now + takes, Event::Informed(n));
            }
            Event::Informed(n) => self.go_on(n),
            Event::Begin(n, path) => self.begin(n, path),
            Event::Parcel { transfer, bytes, line } => self.pass(transfer, bytes, line),
            Event::Arrived { transfer, bytes } => self.arrived(transfer, bytes),
        }
    }

    /// How long it takes to ask for all narinfos, 25 side by side.
    fn infos_take(&mut self, n: u32) -> Nanos {
        let outside = 2 * self.net.latency(Way { from: OUTSIDE, to: n }) + THINKING;
        let wanted = self.fleet.wanted(&self.fleet.machines[n as usize]);
        let mut total = 0;
        for path in wanted {
            let (place, path) = (*path as usize, *path);
            let (takes, wan) = match self.kind {
                Kind::Alone => (outside, true),
                Kind::Proxy => {
                    let here = 2 * self.net.latency(Way { from: self.proxy, to: n });
                    let known = std::mem::replace(&mut self.informed[place], true);
                    (if known { here } else { here + outside }, !known)
                }
                Kind::Broadcast => match self.holder(n, path) {
                    Some(_) => (ANSWERED, false),
                    None => (UNANSWERED + outside, true),
                },
            };
            total += takes;
            if wan {
                self.net.carry_wan(u64::from(NARINFO_BYTES));
            }
        }
        total / INFOS_MAX as u64
    }

    fn go_on(&mut self, n: u32) {
        let wanted = self.fleet.wanted(&self.fleet.machines[n as usize]);
        while self.clients[n as usize].open < JOBS_MAX
            && let Some(path) = wanted.get(self.clients[n as usize].next)
        {
            let client = &mut self.clients[n as usize];
            (client.next, client.open) = (client.next + 1, client.open + 1);
            let asks = if self.kind == Kind::Broadcast {
                if self.holder(n, *path).is_some() { ANSWERED } else { UNANSWERED }
            } else {
                0
            };
            self.queue.push(self.now + asks, Event::Begin(n, *path));
        }
        let client = &mut self.clients[n as usize];
        if client.got == wanted.len() && client.finished.is_none() {
            client.finished = Some(self.now);
            self.unfinished -= 1;
        }
    }

    /// Somebody in the subnet who has it: a broadcast goes no further.
    fn holder(&mut self, n: u32, path: u32) -> Option<u32> {
        let all = &self.holders[path as usize];
        let subnet = self.net.subnet(n);
        let start = self.random.below(all.len() as u64) as usize;
        let mut turns = all[start..].iter().chain(&all[..start]);
        turns.find(|other| self.net.subnet(**other) == subnet && **other != n).copied()
    }

    fn begin(&mut self, n: u32, path: u32) {
        let (file, nar) = {
            let path = &self.fleet.catalog.paths[path as usize];
            (path.file, path.nar)
        };
        match self.kind {
            Kind::Alone => self.transfer(OUTSIDE, n, path, file),
            Kind::Broadcast => match self.holder(n, path) {
                Some(holder) => self.transfer(holder, n, path, nar),
                None => self.transfer(OUTSIDE, n, path, file),
            },
            Kind::Proxy => match &mut self.cached[path as usize] {
                Cached::Yes => self.transfer(self.proxy, n, path, file),
                Cached::Coming(waiting) => waiting.push(n),
                Cached::No => {
                    self.cached[path as usize] = Cached::Coming(vec![n]);
                    self.transfer(OUTSIDE, self.proxy, path, file);
                }
            },
        }
    }

    fn transfer(&mut self, from: u32, to: u32, path: u32, bytes: u64) {
        let transfer = Transfer { from, to, path, bytes, sent: 0, taken: 0 };
        let number = match self.free.pop_front() {
            Some(number) => {
                self.transfers[number as usize] = transfer;
                number
            }
            None => {
                self.transfers.push(transfer);
                self.transfers.len() as u32 - 1
            }
        };
        (0..WINDOW).for_each(|_| self.send(number));
    }

    fn send(&mut self, transfer: u32) {
        let one = &mut self.transfers[transfer as usize];
        let bytes = PARCEL.min(one.bytes - one.sent);
        if bytes > 0 {
            one.sent += bytes;
            self.pass(transfer, bytes, 0);
        }
    }

    fn pass(&mut self, transfer: u32, bytes: u64, line: u8) {
        let one = &self.transfers[transfer as usize];
        let way = Way { from: one.from, to: one.to };
        match self.net.pass(way, line, bytes, self.now, false) {
            Passed::Next(at) => {
                // The request went out first.
                let asked = line == 0 && one.sent == bytes;
                let at = if asked { at + self.net.latency(way) } else { at };
                self.queue.push(at, Event::Parcel { transfer, bytes, line: line + 1 });
            }
            Passed::Arrives(at) => self.queue.push(at, Event::Arrived { transfer, bytes }),
        }
    }

    fn arrived(&mut self, transfer: u32, bytes: u64) {
        let one = &mut self.transfers[transfer as usize];
        one.taken += bytes;
        if one.taken < one.bytes {
            return self.send(transfer);
        }
        let (to, path) = (one.to, one.path);
        self.free.push_back(transfer);
        if self.kind == Kind::Proxy && to == self.proxy {
            let before = std::mem::replace(&mut self.cached[path as usize], Cached::Yes);
            if let Cached::Coming(waiting) = before {
                let file = self.fleet.catalog.paths[path as usize].file;
                waiting.into_iter().for_each(|n| self.transfer(to, n, path, file));
            }
            return;
        }
        if self.kind == Kind::Broadcast {
            self.holders[path as usize].push(to);
        }
        let client = &mut self.clients[to as usize];
        (client.got, client.open) = (client.got + 1, client.open - 1);
        self.go_on(to);
    }
}
