use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::directory::{Directory, HOLDERS_MAX};
use crate::holdings::{Ledger, Message, Update};
use crate::random::mix;

fn peer(n: u64) -> PeerId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&mix(n).to_be_bytes());
    PeerId::from_bytes(bytes)
}

fn peers(count: u64) -> Vec<PeerId> {
    (0..count).map(peer).collect()
}

/// As everybody sees the site of these agents.
fn portions_of(all: &[PeerId], me: PeerId, full_peers: usize) -> Portions {
    let mut portions = Portions::new(me, full_peers);
    portions.meet(&all.iter().copied().filter(|peer| *peer != me).collect::<Vec<_>>());
    portions
}

#[test]
fn places_are_part_of_the_protocol() {
    let numbered = |n: u8| PeerId::from_bytes([n; 32]);
    let places: Vec<u32> = (0..5).map(|n| place(&numbered(n))).collect();
    assert_eq!(places, PLACES);
    let portions = portions_of(&(0..5).map(numbered).collect::<Vec<_>>(), numbered(0), 0);
    let homes: Vec<u8> = portions.homes(0x8000_0000).map(|peer| peer.as_bytes()[0]).collect();
    assert_eq!(homes, HOMES_OF_THE_MIDDLE);
}

/// Computed once; a change here breaks sites with mixed versions.
const PLACES: [u32; 5] = [0xf334_b9d8, 0x334e_3928, 0xa4e9_4efb, 0x6765_53d8, 0xe5df_95a9];
const HOMES_OF_THE_MIDDLE: [u8; 3] = [2, 4, 0];

#[test]
fn up_to_the_limit_everybody_is_told_everything() {
    let all = peers(FULL_PEERS as u64 + 1);
    let portions = portions_of(&all, all[0], FULL_PEERS);
    assert!(!portions.is_crowd());
    assert!(all[1..].iter().all(|peer| portions.of(peer) == Portion::Whole));
    assert!(!portions.accepts_portions_of(FULL_PEERS), "who sees few wants everything");

    let all = peers(FULL_PEERS as u64 + 2);
    let portions = portions_of(&all, all[0], FULL_PEERS);
    assert!(portions.is_crowd() && portions.accepts_portions_of(FULL_PEERS + 1));
    let parts = all[1..].iter().filter(|peer| portions.of(peer) != Portion::Whole).count();
    assert_eq!(parts, 1);
    assert_eq!(portions.of(&peer(99_999)), Portion::Whole, "one that understands no portions");
}

#[test]
fn who_is_told_everything_changes_little_while_peers_come_and_go() {
    let all = peers(1_000);
    let mut portions = Portions::new(peer(1 << 40), FULL_PEERS);
    let mut told = BTreeSet::new();
    let mut snapshots = 0;
    let whole = |portions: &Portions, there: &[PeerId]| -> BTreeSet<PeerId> {
        there.iter().copied().filter(|peer| portions.of(peer) == Portion::Whole).collect()
    };
    for round in 0..400u64 {
        // Twenty others are away each time.
        let away = |n: usize| (n as u64 * 7 + round * 31).is_multiple_of(50);
        let there: Vec<PeerId> =
            all.iter().enumerate().filter(|(n, _)| !away(*n)).map(|(_, peer)| *peer).collect();
        portions.meet(&there);
        let now = whole(&portions, &there);
        assert!((FULL_PEERS..=FULL_PEERS * 9 / 8).contains(&now.len()), "{}", now.len());
        snapshots += now.difference(&told).filter(|_| round > 0).count();
        told = now;
    }
    // Each round 20 come: 1.3 of them are told everything because they come. Of the rest few are.
    assert!(snapshots < 1_200, "{snapshots}");
}

#[test]
fn an_even_share_for_everybody_more_or_less() {
    let all = peers(1_000);
    let portions = portions_of(&all, all[0], 0);
    let mut counts: BTreeMap<PeerId, usize> = BTreeMap::new();
    for n in 0..100_000 {
        let homes: Vec<PeerId> = portions.homes(mix(n) as u32).collect();
        assert_eq!(homes.iter().collect::<BTreeSet<_>>().len(), HOMES);
        homes.into_iter().for_each(|home| *counts.entry(home).or_default() += 1);
    }
    // 300 on average.
    assert!(counts.values().all(|count| *count < 1_500), "{:?}", counts.values().max());
}

#[test]
fn one_liar_cannot_crowd_out_what_the_others_say() {
    let lies = peers(40);
    let (one, two) = (peer(100), peer(101));
    let merged = merge(&[lies.clone(), vec![one, two], vec![two]]);
    assert_eq!(merged.len(), NAMED_MAX);
    assert_eq!(merged[0], two, "named twice");
    assert!(merged[1..3].contains(&one) && merged[1..3].contains(&lies[0]));
    assert_eq!(merge(&[lies.clone(), lies.clone()]), lies[..NAMED_MAX]);
    assert!(merge(&[vec![], vec![]]).is_empty());
}

#[test]
fn views_that_differ_by_half_are_not_alike() {
    assert!(alike(1_000, 700) && alike(700, 1_000) && alike(65, 65));
    assert!(!alike(1_000, 600) && !alike(600, 1_000) && !alike(5, 70) && !alike(usize::MAX, 1));
}

/// A circle passes zero, and agents may stand at one place.
#[test]
fn stretches_and_homes_say_the_same_even_at_the_edges() {
    let at = |places: &[u32]| {
        let mut ring: Vec<_> = places.iter().zip(0..).map(|(place, n)| (*place, peer(n))).collect();
        ring.sort_unstable();
        Ring(ring)
    };
    for places in [
        &[0, 10, 20, 30, 40][..],
        &[10, 20, 30, u32::MAX],
        &[5, 5, 5, 5, 5, 9],
        &[7, 7, 7, 7],
        &[0, 0, 0, u32::MAX, u32::MAX],
        &[1, 2, 3],
    ] {
        let ring = at(places);
        let edges = places.iter().flat_map(|at| [at.wrapping_sub(1), *at, at.wrapping_add(1)]);
        for entry in edges.chain([0, 1 << 31, u32::MAX]) {
            let homes: BTreeSet<PeerId> = ring.homes(entry).collect();
            assert_eq!(homes.len(), HOMES.min(places.len()));
            for (place, peer) in &ring.0 {
                // Stretches are found by an agent's own place, which this test chooses.
                let stretch = stretch_at(&ring, (*place, *peer));
                assert_eq!(
                    stretch.contains(entry),
                    homes.contains(peer),
                    "{places:?} {entry} {place}"
                );
            }
        }
    }
}

fn stretch_at(ring: &Ring, who: (u32, PeerId)) -> Stretch {
    ring.stretch_of(ring.0.binary_search(&who).unwrap())
}

#[test]
fn what_moves_to_another_home_is_not_taken_back_at_once() {
    let mut ledger = Ledger::new(5);
    ledger.change([], (0..1_000).map(|n| mix(n) as u32));
    let half = Stretch::between(0, u32::MAX / 2);
    let mut told = Told::nothing(ledger.version());
    let Some(Message::Snapshot(first)) = told.next(&ledger, &half) else { panic!() };
    assert_eq!(first.entries(), ledger.within(&half));
    assert_eq!(told.next(&ledger, &half), None);
    let less = Stretch::between(0, u32::MAX / 2 - (u32::MAX >> 6));
    assert_eq!(told.next(&ledger, &less), None, "a superfluous entry does no harm");
    // But one that this machine has no longer does.
    let gone = first.entries()[0];
    ledger.change([gone], []);
    let Some(Message::Delta(delta)) = told.next(&ledger, &less) else { panic!() };
    assert!(delta.removed().contains(&gone) && delta.removed().len() > 1, "and cleans up");
    assert!(delta.added().is_empty());
    assert_eq!(told.next(&ledger, &less), None);
    // Far too many are taken back in any case.
    let little = Stretch::between(0, u32::MAX / 32);
    let Some(Message::Snapshot(last)) = told.next(&ledger, &little) else { panic!() };
    assert_eq!(last.entries(), ledger.within(&little));
    assert_eq!(told.next(&ledger, &Stretch::default()), None);
}

/// One agent of the model: what it holds, whom it tells what, what it knows.
struct Agent {
    ledger: Ledger,
    held: BTreeSet<u32>,
    portions: Portions,
    /// By receiver: whether all is told there, and what was.
    streams: BTreeMap<PeerId, Stream>,
    directory: Directory,
}

enum Stream {
    Whole(Option<u64>),
    Part(Told),
}

impl Agent {
    fn new(
        me: PeerId,
        held: impl IntoIterator<Item = u32>,
        full_peers: usize,
        random: u64,
    ) -> Self {
        let held: BTreeSet<u32> = held.into_iter().collect();
        let mut ledger = Ledger::new(random);
        ledger.change([], held.iter().copied());
        let portions = Portions::new(me, full_peers);
        Self { ledger, held, portions, streams: BTreeMap::new(), directory: Directory::new() }
    }

    /// What is due to a peer, as the bytes of the real codec, and whether it is a portion.
    fn tell(&mut self, to: PeerId) -> Option<(Vec<u8>, bool)> {
        let version = self.ledger.version();
        match self.portions.of(&to) {
            Portion::Whole => {
                let stream = self.streams.entry(to).or_insert(Stream::Whole(None));
                if matches!(stream, Stream::Part(_)) {
                    *stream = Stream::Whole(None);
                }
                let Stream::Whole(known) = stream else { unreachable!() };
                let message = match self.ledger.since(*known) {
                    Update::Nothing => return None,
                    Update::Delta(delta) => Message::Delta(delta),
                    Update::Snapshot(snapshot) => Message::Snapshot(snapshot),
                };
                *known = Some(version);
                Some((message.encode(), false))
            }
            Portion::Part(stretch) => {
                let fresh = || Stream::Part(Told::nothing(version));
                let stream = self.streams.entry(to).or_insert_with(fresh);
                if matches!(stream, Stream::Whole(_)) {
                    *stream = fresh();
                }
                let Stream::Part(told) = stream else { unreachable!() };
                Some((told.next(&self.ledger, &stretch)?.encode(), true))
            }
        }
    }

    fn hear(&mut self, from: PeerId, bytes: &[u8], part: bool) {
        match Message::decode(bytes).unwrap() {
            Message::Snapshot(snapshot) => {
                self.directory.apply_snapshot(from, &snapshot).unwrap();
                if part {
                    self.directory.mark_part(&from);
                }
            }
            Message::Delta(delta) => self.directory.apply_delta(from, &delta).unwrap(),
        }
        assert_eq!(self.directory.knows_part(&from), part);
    }

    /// Whom it names to who asks.
    fn names(&self, me: PeerId, prefix: u32) -> BTreeSet<PeerId> {
        let mut named: BTreeSet<PeerId> = self.directory.who_has(prefix, 0).into_iter().collect();
        if self.ledger.contains(prefix) {
            named.insert(me);
        }
        named
    }
}

#[derive(Debug, Clone)]
enum Event {
    Joins(u8),
    Leaves(u8),
    Gains(u8, u16),
    Loses(u8, u16),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        any::<u8>().prop_map(Event::Joins),
        any::<u8>().prop_map(Event::Leaves),
        any::<(u8, u16)>().prop_map(|(who, what)| Event::Gains(who, what)),
        any::<(u8, u16)>().prop_map(|(who, what)| Event::Loses(who, what)),
    ]
}

struct Site {
    agents: BTreeMap<PeerId, Agent>,
    full_peers: usize,
    random: u64,
}

impl Site {
    fn apply(&mut self, event: &Event) {
        self.random += 1;
        let nth = |agents: &BTreeMap<PeerId, Agent>, n: u8| {
            agents.keys().nth(usize::from(n) % agents.len().max(1)).copied()
        };
        match *event {
            Event::Joins(n) => {
                let held = (0..u64::from(n) + 3).map(|i| mix(mix(u64::from(n)) ^ (i % 40)) as u32);
                let agent = Agent::new(peer(n.into()), held, self.full_peers, mix(self.random));
                self.agents.entry(peer(n.into())).or_insert(agent);
            }
            Event::Leaves(n) => {
                if let Some(gone) = nth(&self.agents, n) {
                    self.agents.remove(&gone);
                    for agent in self.agents.values_mut() {
                        agent.directory.remove_peer(&gone);
                        agent.streams.remove(&gone);
                    }
                }
            }
            Event::Gains(n, what) | Event::Loses(n, what) => {
                let Some(who) = nth(&self.agents, n) else { return };
                let agent = self.agents.get_mut(&who).unwrap();
                let prefix = mix(u64::from(what) % 200) as u32;
                if matches!(event, Event::Gains(..)) {
                    if agent.held.insert(prefix) {
                        agent.ledger.change([], [prefix]);
                    }
                } else if agent.held.remove(&prefix) {
                    agent.ledger.change([prefix], []);
                }
            }
        }
    }

    /// Everybody sees who is there, and tells what is due.
    fn settle(&mut self) -> usize {
        let all: Vec<PeerId> = self.agents.keys().copied().collect();
        let mut bytes = 0;
        for from in &all {
            let others: Vec<PeerId> = all.iter().copied().filter(|peer| peer != from).collect();
            let agent = self.agents.get_mut(from).unwrap();
            agent.portions.meet(&others);
            let told: Vec<_> =
                others.iter().filter_map(|to| Some((*to, agent.tell(*to)?))).collect();
            for (to, (message, part)) in told {
                bytes += message.len();
                self.agents.get_mut(&to).unwrap().hear(*from, &message, part);
            }
        }
        bytes
    }

    /// Whoever looks for what anybody holds finds a holder: in its own directory, or by asking any one of the homes.
    fn check(&self) {
        let everything: BTreeSet<u32> =
            self.agents.values().flat_map(|agent| agent.held.iter().copied()).collect();
        for prefix in everything {
            let holders: BTreeSet<PeerId> = self
                .agents
                .iter()
                .filter(|(_, agent)| agent.held.contains(&prefix))
                .map(|(peer, _)| *peer)
                .collect();
            let (_, anybody) = self.agents.first_key_value().unwrap();
            for home in anybody.portions.homes(prefix) {
                let named = self.agents[&home].names(home, prefix);
                let wanted = holders.len().min(HOLDERS_MAX);
                assert!(named.len() >= wanted, "{prefix:#x}: {named:?} of {holders:?}");
                assert!(named.is_subset(&holders));
            }
            for (peer, agent) in &self.agents {
                assert!(agent.portions.homes(prefix).eq(anybody.portions.homes(prefix)));
                let known = agent.names(*peer, prefix);
                assert!(known.is_subset(&holders), "nobody knows more than there is");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn what_anybody_holds_is_found_through_its_homes(
        full_peers in 0usize..6,
        rounds in proptest::collection::vec(proptest::collection::vec(event(), 0..6), 1..12),
    ) {
        let mut site = Site { agents: BTreeMap::new(), full_peers, random: 0 };
        for n in 0..8 {
            site.apply(&Event::Joins(n * 31));
        }
        for round in rounds {
            round.iter().for_each(|event| site.apply(event));
            site.settle();
            if !site.agents.is_empty() {
                site.check();
            }
            prop_assert_eq!(site.settle(), 0, "once told, nothing is told again");
        }
    }
}

/// The promise in numbers: a site where everybody has a store of 12,000 paths.
#[test]
fn a_joiner_in_a_crowd_moves_a_fraction_of_what_it_did() {
    let all = peers(1_000);
    let newcomer = peer(5_000);
    let mut everybody = all.clone();
    everybody.push(newcomer);
    let mut ledger = Ledger::new(1);
    ledger.change([], (0..12_000).map(|n| mix(n) as u32));
    let whole = ledger.snapshot().encode().len();
    let (mut inwards, mut outwards) = (0, 0);
    let portions = portions_of(&everybody, newcomer, FULL_PEERS);
    let told = |portions: &Portions, to: &PeerId| match portions.of(to) {
        Portion::Whole => whole,
        Portion::Part(stretch) => {
            let message = Told::nothing(1).next(&ledger, &stretch).unwrap();
            let entries = match &message {
                Message::Snapshot(snapshot) => snapshot.entries().len(),
                Message::Delta(_) => panic!("first a snapshot"),
            };
            assert!(entries < 400, "{entries}");
            message.encode().len()
        }
    };
    for one in &all {
        outwards += told(&portions, one);
        inwards += told(&portions_of(&everybody, *one, FULL_PEERS), &newcomer);
    }
    let before = 2 * all.len() * whole;
    println!(
        "a joiner among 1,000: {} kB in, {} kB out; {} kB in all before",
        inwards / 1000,
        outwards / 1000,
        before / 1000
    );
    assert!(inwards + outwards < before / 10, "{inwards} {outwards} {before}");
}
