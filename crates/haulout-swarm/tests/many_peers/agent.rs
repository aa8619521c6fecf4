//! The agent under test: the crate's state machines, wired as the mesh and the resolver wire them.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken invariant is what this looks for")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use haulout_swarm::directory::Directory;
use haulout_swarm::flight::{Left, Role, SingleFlight, Ticket};
use haulout_swarm::holdings::Message;
use haulout_swarm::peers::{Answer, PeerTable, State, Verdict};
use haulout_swarm::plan::{NarPlan, Next, PlanConfig, RequestId, Status};
use haulout_swarm::{Fault, Now, PeerId, choose};

use crate::world::{Event, GROUP, World, content, mix, prefix};

const SOURCES: usize = 4;
const WINDOW: u64 = 2 << 20;
/// A request that brings nothing for so long is made anew, even if the peer is alive.
const PATIENCE: Duration = Duration::from_secs(5);
const RESTART_AFTER: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(20);

struct Fetch {
    nar: usize,
    plan: NarPlan<PeerId>,
    open: BTreeMap<RequestId, Open>,
    received: Vec<Range<u64>>,
    consumed: u64,
    left_alone_since: Option<Now>,
}

struct Open {
    peer: PeerId,
    asked: Now,
    first_byte: Option<Duration>,
    /// Where the stream is: what arrives is what comes next, whatever the sender thinks.
    next: u64,
    bytes: u64,
}

pub(crate) struct Agent {
    pub(crate) table: PeerTable,
    pub(crate) directory: Directory,
    flights: SingleFlight<usize>,
    members: Vec<(usize, Ticket)>,
    by_id: BTreeMap<PeerId, usize>,
    fetches: BTreeMap<usize, Fetch>,
    next_fetch: usize,
    pub(crate) wanted: Vec<usize>,
    pub(crate) obtained: BTreeMap<usize, Now>,
    /// Changes with everything that happens: two runs of a seed must agree.
    pub(crate) trace: u64,
    pub(crate) lies_seen: u64,
}

impl Agent {
    pub(crate) fn new(world: &World) -> Self {
        Self {
            table: PeerTable::new(),
            directory: Directory::new(),
            flights: SingleFlight::new(),
            members: Vec::new(),
            by_id: world.peers.iter().enumerate().map(|(n, peer)| (peer.id, n)).collect(),
            fetches: BTreeMap::new(),
            next_fetch: 0,
            wanted: Vec::new(),
            obtained: BTreeMap::new(),
            trace: 0,
            lies_seen: 0,
        }
    }

    pub(crate) fn idle(&self) -> bool {
        self.wanted.iter().all(|nar| self.obtained.contains_key(nar))
    }

    pub(crate) fn handle(&mut self, world: &mut World, event: Event) {
        let now = world.now;
        match event {
            Event::Join(peer) => {
                self.table.connected(world.peers[peer].id, now);
                world.join(peer);
            }
            Event::Leave(peer) => {
                world.peers[peer].alive = false;
                self.cut(world, peer);
            }
            Event::Vanish(peer) => {
                world.peers[peer].alive = false;
                let life = world.peers[peer].life;
                world.schedule(now + Duration::from_secs(5), Event::IdleTimeout(peer, life));
            }
            Event::IdleTimeout(peer, life) if world.peers[peer].life == life => {
                self.cut(world, peer)
            }
            Event::Announce(peer, bytes) => self.announced(world, peer, &bytes),
            Event::Change(peer) => world.change(peer),
            Event::Send(peer, life) => world.send(peer, life),
            Event::Chunk { peer, life, fetch, id, from, to, tag } => {
                if world.peers[peer].alive && world.peers[peer].life == life {
                    self.chunk(world, world.peers[peer].id, fetch, id, from..to, tag);
                }
            }
            Event::Drip { peer, life, fetch }
                if world.peers[peer].alive && world.peers[peer].life == life =>
            {
                let id = world.peers[peer].id;
                self.table.heard(&id, now);
                if let Some(fetch) = self.fetches.get_mut(&fetch) {
                    fetch.plan.heard(&id, now);
                }
            }
            Event::No { peer, life, fetch } if world.peers[peer].life == life => {
                let id = world.peers[peer].id;
                self.table.heard(&id, now);
                self.table.blame(&id, Fault::FalseHint, now);
                self.drop_source(world, fetch, id);
                // Found by seed 1705: a peer with a stale announcement was asked again and again, and always took the
                // segment that an honest peer would have brought.
                if let Some(fetch) = self.fetches.get_mut(&fetch) {
                    fetch.plan.refuse_source(&id);
                }
            }
            Event::Want(nar) => self.want(world, nar),
            Event::Quit(nar) => self.quit(world, nar),
            Event::Tick => self.tick(world),
            Event::IdleTimeout(..) | Event::No { .. } | Event::Drip { .. } => {}
        }
        self.trace = mix(self.trace ^ now.since_start().as_micros() as u64);
    }

    fn announced(&mut self, world: &World, peer: usize, bytes: &[u8]) {
        let id = world.peers[peer].id;
        if !world.peers[peer].alive {
            return;
        }
        match Message::decode(bytes).expect("what the ledger makes decodes") {
            Message::Snapshot(snapshot) => {
                let displaced =
                    self.directory.apply_snapshot(id, &snapshot).expect("there is room");
                assert!(displaced.is_empty());
            }
            Message::Delta(delta) => {
                self.directory.apply_delta(id, &delta).expect("deltas come in order")
            }
        }
    }

    fn cut(&mut self, world: &mut World, peer: usize) {
        let id = world.peers[peer].id;
        self.table.disconnected(&id);
        self.directory.remove_peer(&id);
        if self.fetches.values().any(|fetch| fetch.open.values().any(|open| open.peer == id)) {
            self.table.blame(&id, Fault::Cut, world.now);
        }
        self.drop_everywhere(world, id);
    }

    fn drop_everywhere(&mut self, world: &mut World, peer: PeerId) {
        for fetch in self.fetches.keys().copied().collect::<Vec<_>>() {
            self.drop_source(world, fetch, peer);
        }
    }

    fn drop_source(&mut self, world: &mut World, number: usize, peer: PeerId) {
        let Some(fetch) = self.fetches.get_mut(&number) else { return };
        for id in fetch.plan.remove_source(&peer) {
            let open = fetch.open.remove(&id).expect("the plan knows only open requests");
            assert_eq!(open.peer, peer);
            world.cancel(self.by_id[&peer], number, id);
            self.table.abandoned(&peer);
        }
    }

    fn want(&mut self, world: &mut World, nar: usize) {
        self.wanted.push(nar);
        if self.obtained.contains_key(&nar) {
            return;
        }
        match self.flights.join(nar) {
            Role::Leader(ticket) => {
                assert!(self.fetches.values().all(|fetch| fetch.nar != nar), "one fetch per NAR");
                self.members.push((nar, ticket));
                self.start(world, nar);
            }
            Role::Follower(ticket) => self.members.push((nar, ticket)),
            Role::Busy => panic!("there is room"),
        }
    }

    fn start(&mut self, world: &mut World, nar: usize) {
        let plan = NarPlan::new(world.sizes[nar], 0, config(&self.table));
        let fetch = Fetch {
            nar,
            plan,
            open: BTreeMap::new(),
            received: Vec::new(),
            consumed: 0,
            left_alone_since: None,
        };
        let number = self.next_fetch;
        self.next_fetch += 1;
        self.fetches.insert(number, fetch);
        self.find_sources(world, number);
        self.pump(world, number);
    }

    /// One of those who wait for the NAR goes away; the fetch goes on while anybody is left.
    fn quit(&mut self, world: &mut World, nar: usize) {
        let Some(place) = self.members.iter().position(|(other, _)| *other == nar) else { return };
        let (_, ticket) = self.members.remove(place);
        if self.flights.leave(&nar, ticket) == Left::Last {
            let (number, fetch) =
                self.fetches.extract_if(.., |_, fetch| fetch.nar == nar).next().expect("led");
            assert!(!self.fetches.contains_key(&number));
            for (id, open) in &fetch.open {
                world.cancel(self.by_id[&open.peer], number, *id);
                self.table.abandoned(&open.peer);
            }
            self.wanted.retain(|other| *other != nar);
        }
    }

    fn find_sources(&mut self, world: &mut World, number: usize) {
        let Some(fetch) = self.fetches.get_mut(&number) else { return };
        let missing = SOURCES.saturating_sub(
            fetch.plan.sources().filter(|(_, source)| !source.is_stalled()).count(),
        );
        let holders = self.directory.who_has(prefix(fetch.nar), world.random.next());
        let left = world.sizes[fetch.nar] - fetch.plan.ready();
        let ranking = choose::rank(&self.table, holders, left, world.now, world.random.next());
        let known: Vec<PeerId> = fetch.plan.sources().map(|(peer, _)| *peer).collect();
        for peer in ranking.peers().filter(|peer| !known.contains(peer)).take(missing) {
            fetch.plan.add_source(peer, world.now);
        }
    }

    fn pump(&mut self, world: &mut World, number: usize) {
        let Some(fetch) = self.fetches.get_mut(&number) else { return };
        let sources: Vec<PeerId> = fetch.plan.sources().map(|(peer, _)| *peer).collect();
        for peer in sources {
            while let Next::Fetch(segment) = fetch.plan.next(peer, world.now) {
                let again = fetch
                    .received
                    .iter()
                    .any(|r| r.start < segment.offset + segment.len && segment.offset < r.end);
                assert!(!again, "verified bytes are never asked for again");
                self.table.asked(&peer, world.now);
                let open = Open {
                    peer,
                    asked: world.now,
                    first_byte: None,
                    next: segment.offset,
                    bytes: 0,
                };
                fetch.open.insert(segment.id, open);
                world.request(self.by_id[&peer], number, fetch.nar, segment);
            }
        }
    }

    fn chunk(
        &mut self,
        world: &mut World,
        peer: PeerId,
        number: usize,
        id: RequestId,
        range: Range<u64>,
        tag: u64,
    ) {
        let now = world.now;
        self.table.heard(&peer, now);
        let Some(fetch) = self.fetches.get_mut(&number) else { return };
        let Some(open) = fetch.open.get_mut(&id) else { return };
        let expected = content(fetch.nar, range.start / GROUP);
        if tag != expected || range.start != open.next {
            self.lies_seen += 1;
            let verdict = self.table.blame(&peer, Fault::WrongContent, now);
            assert!(matches!(verdict, Verdict::Banned { until } if until > now));
            self.drop_everywhere(world, peer);
            return self.pump(world, number);
        }
        open.first_byte.get_or_insert_with(|| now.since(open.asked));
        open.next = range.end;
        open.bytes += range.end - range.start;
        self.accept(world, number, id, range);
        self.pump(world, number);
        self.settle(world, number);
    }

    fn accept(&mut self, world: &mut World, number: usize, id: RequestId, range: Range<u64>) {
        let Some(fetch) = self.fetches.get_mut(&number) else { return };
        let progress = fetch.plan.progress(id, range.end, world.now);
        if !progress.fresh.is_empty() {
            assert!(
                range.start <= progress.fresh.start && progress.fresh.end == range.end,
                "only checked bytes are kept"
            );
            assert!(progress.fresh.end <= fetch.consumed + WINDOW, "memory is bounded");
            fetch.received.push(progress.fresh);
        }
        if progress.finished {
            let open = fetch.open.remove(&id).expect("still open");
            let answer = Answer {
                first_byte: open.first_byte.unwrap_or_default(),
                took: world.now.since(open.asked),
                bytes: open.bytes,
            };
            self.table.answered(&open.peer, answer, world.now);
            for (peer, id) in progress.cancel {
                assert!(fetch.open.remove(&id).is_some());
                world.cancel(self.by_id[&peer], number, id);
                self.table.abandoned(&peer);
            }
        }
    }

    /// Ends a fetch that is complete, and checks what came out.
    fn settle(&mut self, world: &World, number: usize) {
        if self.fetches.get(&number).is_none_or(|fetch| fetch.plan.status() != Status::Complete) {
            return;
        }
        let Some(mut fetch) = self.fetches.remove(&number) else { return };
        assert!(fetch.open.is_empty());
        fetch.received.sort_by_key(|range| range.start);
        let mut reached = 0;
        for range in &fetch.received {
            assert_eq!(range.start, reached, "each byte once, none missing");
            reached = range.end;
        }
        assert_eq!(reached, world.sizes[fetch.nar]);
        self.obtained.insert(fetch.nar, world.now);
        let leader = self.flights.leader(&fetch.nar).expect("led");
        let told = self.flights.finish(&fetch.nar, leader);
        let members = self.members.iter().filter(|(nar, _)| *nar == fetch.nar).count();
        assert_eq!(told.len() + 1, members, "all who wait are told");
        self.members.retain(|(nar, _)| *nar != fetch.nar);
    }

    fn tick(&mut self, world: &mut World) {
        let now = world.now;
        for number in self.fetches.keys().copied().collect::<Vec<_>>() {
            let Some(fetch) = self.fetches.get_mut(&number) else { continue };
            fetch.consumed = fetch.plan.ready();
            fetch.plan.consumed(fetch.consumed);
            fetch.plan.stalled(now);
            // A peer from which nothing at all comes is dropped; one that is only slow with this may go on, while others are
            // asked as well.
            let given_up: Vec<PeerId> = fetch
                .plan
                .sources()
                .filter(|(peer, source)| {
                    let silent = !matches!(
                        self.table.state(peer, now),
                        Some(State::Connected | State::BackingOff { .. })
                    );
                    source.is_stalled() && (silent || now.since(source.progress_at()) > PATIENCE)
                })
                .map(|(peer, _)| *peer)
                .collect();
            for peer in given_up {
                self.table.blame(&peer, Fault::Timeout, now);
                self.drop_source(world, number, peer);
            }
            self.find_sources(world, number);
            self.restart_if_stuck(now, number);
            self.pump(world, number);
            self.settle(world, number);
        }
        self.directory.sweep(500);
        world.schedule(now + TICK, Event::Tick);
    }

    /// Nobody is left who did not say no: some time later ask everybody again, as Nix would, and go on where it stopped.
    fn restart_if_stuck(&mut self, now: Now, number: usize) {
        let Some(fetch) = self.fetches.get_mut(&number) else { return };
        if fetch.plan.status() != Status::NobodyLeft {
            fetch.left_alone_since = None;
        } else if now.since(*fetch.left_alone_since.get_or_insert(now)) > RESTART_AFTER {
            let ready = fetch.plan.ready();
            assert!(fetch.open.is_empty());
            fetch.plan = NarPlan::new(fetch.plan.size(), ready, config(&self.table));
            // What lies beyond was never given to the consumer.
            fetch.received.retain(|range| range.start < ready);
            assert!(fetch.received.iter().all(|range| range.end <= ready));
            fetch.left_alone_since = None;
        }
    }
}

fn config(table: &PeerTable) -> PlanConfig {
    let hedge_after = choose::hedge_delay(table.first_byte());
    PlanConfig {
        segment_bytes: 256 * 1024,
        window_bytes: WINDOW,
        hedge_after,
        ..PlanConfig::default()
    }
}
