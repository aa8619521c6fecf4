//! A link in memory and engines on it, with time as the tests will have it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;

use super::browser::{Found, Heard, INSTANCES_MAX};
use super::engine::Engine;
use super::message::{Data, Kind, Message, Name, Question, Record};
use super::responder::Service;
use super::{LinkId, LinkState, PORT, Time, Transmit, same_network};

const LINK: LinkId = LinkId { index: 2, v6: false };

fn name(text: &str) -> Name {
    Name::from_text(text).unwrap()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ip(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn at(ip: IpAddr) -> LinkState {
    LinkState { id: LINK, addrs: vec![(ip, 24)] }
}

fn kind() -> Name {
    name("_haulout._udp.local")
}

fn service(number: u8) -> Service {
    Service {
        instance: kind().child(&format!("haulout-{number:04}")).unwrap(),
        host: name(&format!("haulout-{number:04}.local")),
        kind: kind(),
        port: 5299,
        txt: Box::from(&b"\x03v=1"[..]),
        fixed: Vec::new(),
        v6: true,
    }
}

struct Machine {
    ip: IpAddr,
    engine: Engine,
    plugged: bool,
    /// What it sent.
    sent: Vec<(Time, Message)>,
    /// What reached it by unicast, with its own questions as a legacy asker among it.
    news: Vec<Heard>,
}

/// Machines on one link.
struct Link {
    now: Time,
    machines: Vec<Machine>,
}

impl Link {
    fn new(count: u8) -> Self {
        let mut link = Self { now: Time::ZERO, machines: Vec::new() };
        for number in 1..=count {
            link.add(number);
        }
        link
    }

    fn add(&mut self, number: u8) -> usize {
        let mut engine = Engine::new(Some(service(number)), vec![kind()], u64::from(number));
        engine.set_links(self.now, vec![at(ip(number))]);
        self.machines.push(Machine {
            ip: ip(number),
            engine,
            plugged: true,
            sent: Vec::new(),
            news: Vec::new(),
        });
        self.machines.len() - 1
    }

    /// Lets time pass; packets arrive at once, at their sender too.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next = self.machines.iter().filter_map(|one| one.engine.next()).min();
            self.now = next.unwrap_or(end).clamp(self.now, end);
            for from in 0..self.machines.len() {
                self.machines[from].engine.poll(self.now);
                self.deliver(from);
            }
            if self.now >= end {
                return;
            }
            // An engine that is due and does nothing would stand still.
            assert!(next.is_none_or(|next| next > self.now || next <= end));
            self.now += Duration::from_millis(1);
        }
    }

    fn deliver(&mut self, from: usize) {
        let packets = self.machines[from].engine.take_packets();
        let sender = SocketAddr::new(self.machines[from].ip, PORT);
        for Transmit { to, bytes, .. } in packets {
            let message = Message::parse(&bytes).unwrap();
            assert!(bytes.len() < 1_400, "fits an Ethernet frame: {}", bytes.len());
            self.machines[from].sent.push((self.now, message));
            if !self.machines[from].plugged {
                continue;
            }
            for machine in self.machines.iter_mut().filter(|one| one.plugged) {
                if to.is_none_or(|to| to.ip() == machine.ip) {
                    machine.engine.receive(self.now, LINK, sender, &bytes);
                }
            }
        }
        for machine in &mut self.machines {
            machine.news.extend(machine.engine.take_news());
        }
    }

    /// A packet from somebody who is no engine.
    fn say(&mut self, from: SocketAddr, message: &Message) {
        let bytes = message.to_bytes().unwrap();
        for machine in &mut self.machines {
            machine.engine.receive(self.now, LINK, from, &bytes);
            machine.news.extend(machine.engine.take_news());
        }
    }

    /// What a machine said since the last look.
    fn said(&mut self, machine: usize) -> Vec<Message> {
        std::mem::take(&mut self.machines[machine].sent)
            .into_iter()
            .map(|(_, message)| message)
            .collect()
    }

    /// Who a machine believes to be there, and where.
    fn present(&self, machine: usize) -> Vec<(Name, Vec<IpAddr>)> {
        let mut present: Vec<(Name, Vec<IpAddr>)> = Vec::new();
        for news in &self.machines[machine].news {
            match news {
                Heard::Found(0, Found { name, addrs, .. }) => {
                    present.retain(|(known, _)| known != name);
                    present.push((name.clone(), addrs.iter().map(|(ip, _)| *ip).collect()));
                }
                Heard::Lost(0, name) => present.retain(|(known, _)| known != name),
                other => panic!("{other:?}"),
            }
        }
        present.sort();
        present
    }

    fn responses(&mut self, machine: usize) -> Vec<Message> {
        self.said(machine).into_iter().filter(|message| message.response).collect()
    }
}

fn ask(name: &Name, kind: Kind, unicast: bool) -> Message {
    let questions = vec![Question { name: name.clone(), kind, unicast }];
    Message { questions, ..Message::default() }
}

fn port(last: u8, port: u16) -> SocketAddr {
    SocketAddr::new(ip(last), port)
}

#[test]
fn agents_find_each_other_at_once_and_notice_a_goodbye() {
    let mut link = Link::new(2);
    link.pass(Duration::from_millis(300));
    assert_eq!(link.present(0), [(service(2).instance, vec![ip(2)])]);
    assert_eq!(link.present(1), [(service(1).instance, vec![ip(1)])]);
    // One that comes late finds everybody, and is found.
    link.pass(secs(100));
    link.add(3);
    link.pass(Duration::from_millis(300));
    assert_eq!(link.present(2).len(), 2);
    assert_eq!(link.present(0).len(), 2);
    link.machines[0].engine.goodbye();
    link.deliver(0);
    link.pass(secs(2));
    assert_eq!(link.present(1), [(service(3).instance, vec![ip(3)])]);
    assert!(link.present(2).iter().all(|(name, _)| *name != service(1).instance));
}

#[test]
fn who_vanishes_is_forgotten_after_two_minutes_and_found_again() {
    let mut link = Link::new(2);
    link.pass(secs(30));
    link.machines[1].plugged = false;
    link.said(0);
    link.pass(secs(80));
    assert_eq!(link.present(0).len(), 1, "its records hold");
    link.pass(secs(45));
    assert!(link.present(0).is_empty());
    let asked: Vec<Message> = link.said(0);
    let about_it = asked
        .iter()
        .flat_map(|message| &message.questions)
        .filter(|one| one.name == service(2).instance);
    assert_eq!(about_it.count(), 3, "it was asked for before it was given up: {asked:#?}");
    link.machines[1].plugged = true;
    // The cable is in again: the kernel says so.
    link.machines[1].engine.set_links(link.now, Vec::new());
    link.machines[1].engine.set_links(link.now, vec![at(ip(2))]);
    link.pass(secs(1));
    assert_eq!(link.present(0).len(), 1);
}

#[test]
fn after_sleep_it_announces_and_asks_anew() {
    let mut link = Link::new(2);
    link.pass(secs(30));
    link.said(0);
    link.machines[0].engine.refresh(link.now);
    link.pass(Duration::from_millis(500));
    let said = link.said(0);
    assert!(
        said.iter().any(|message| message.response) && said.iter().any(|message| !message.response)
    );
}

#[test]
fn for_a_day_everybody_stays_known_and_little_is_said() {
    let machines = 20;
    let mut link = Link::new(machines);
    link.pass(secs(600));
    (0..usize::from(machines)).for_each(|index| drop(link.said(index)));
    link.pass(secs(3_600));
    let packets: usize = (0..usize::from(machines)).map(|index| link.said(index).len()).sum();
    for index in 0..usize::from(machines) {
        assert_eq!(link.present(index).len(), usize::from(machines) - 1);
        let lost = link.machines[index].news.iter().any(|news| matches!(news, Heard::Lost(..)));
        assert!(!lost, "never in between either");
    }
    // Each is asked for every 96 seconds by whoever is first, and answers: some 38 questions or answers an hour each.
    let each = packets / usize::from(machines);
    assert!((40..100).contains(&each), "{each} packets an hour and machine");
}

#[test]
fn a_new_address_replaces_the_old() {
    let mut link = Link::new(2);
    link.pass(secs(30));
    link.machines[1].ip = ip(22);
    link.machines[1].engine.set_links(link.now, vec![at(ip(22))]);
    link.pass(secs(2));
    assert_eq!(link.present(0), [(service(2).instance, vec![ip(22)])]);
}

#[test]
fn an_interface_that_goes_takes_what_was_heard_on_it() {
    let mut link = Link::new(2);
    link.pass(secs(3));
    link.machines[0].engine.set_links(link.now, Vec::new());
    link.pass(secs(1));
    assert!(link.present(0).is_empty());
}

#[test]
fn a_legacy_asker_is_answered_by_unicast_and_only_nearby() {
    let mut link = Link::new(1);
    link.pass(secs(5));
    link.said(0);
    let mut question = ask(&service(1).host, Kind::A, false);
    question.id = 77;
    link.say(port(9, 40_000), &question);
    let packets = link.machines[0].engine.take_packets();
    assert_eq!(packets.len(), 1);
    assert_eq!(packets[0].to, Some(port(9, 40_000)));
    let answer = Message::parse(&packets[0].bytes).unwrap();
    assert_eq!((answer.id, &answer.questions), (77, &question.questions));
    assert!(answer.records.iter().all(|record| !record.flush && record.ttl <= 10));
    assert!(answer.records.iter().any(|record| record.data == Data::Addr(ip(1))));
    // A forged sender outside of the network would be hit by our answer.
    link.say("192.0.2.1:40000".parse().unwrap(), &question);
    assert!(link.machines[0].engine.take_packets().is_empty());
    // And one inside is not hit often.
    for _ in 0..500 {
        link.say(port(9, 40_000), &question);
    }
    assert_eq!(link.machines[0].engine.take_packets().len(), 49);
}

#[test]
fn who_would_rather_have_unicast_gets_it_if_the_group_heard_it_lately() {
    let mut link = Link::new(1);
    link.pass(secs(4));
    let question = ask(&service(1).instance, Kind::Srv, true);
    link.say(port(9, PORT), &question);
    let packets = link.machines[0].engine.take_packets();
    assert_eq!(packets.len(), 1);
    assert_eq!(packets[0].to, Some(port(9, PORT)));
    link.pass(secs(60));
    link.said(0);
    link.say(port(9, PORT), &question);
    link.pass(secs(1));
    assert_eq!(link.responses(0).len(), 1, "to the group");
}

#[test]
fn known_answers_are_not_repeated_even_if_they_come_in_a_second_packet() {
    let mut link = Link::new(1);
    link.pass(secs(10));
    link.said(0);
    let known = |ttl| {
        vec![Record { name: kind(), flush: false, ttl, data: Data::Ptr(service(1).instance) }]
    };
    let question = |ttl, truncated| Message {
        records: known(ttl),
        truncated,
        ..ask(&kind(), Kind::Ptr, false)
    };
    link.say(port(9, PORT), &question(4_000, false));
    link.pass(secs(1));
    assert!(link.responses(0).is_empty());
    link.say(port(9, PORT), &question(1_000, false));
    link.pass(secs(1));
    assert_eq!(link.responses(0).len(), 1, "what is about to end is said again");
    let begin = Message { truncated: true, ..ask(&kind(), Kind::Ptr, false) };
    link.pass(secs(2));
    link.say(port(9, PORT), &begin);
    link.pass(Duration::from_millis(100));
    link.say(port(9, PORT), &Message { records: known(4_000), ..Message::default() });
    link.pass(secs(2));
    assert!(link.responses(0).is_empty());
    // From somebody else it does not count.
    link.say(port(9, PORT), &begin);
    link.say(port(8, PORT), &Message { records: known(4_000), ..Message::default() });
    link.pass(secs(2));
    assert_eq!(link.responses(0).len(), 1);
}

#[test]
fn many_askers_get_one_answer_a_second() {
    let mut link = Link::new(1);
    link.pass(secs(10));
    link.said(0);
    for asker in 0..200_u8 {
        link.say(port(asker, PORT), &ask(&kind(), Kind::Ptr, false));
    }
    link.pass(Duration::from_millis(500));
    assert_eq!(link.responses(0).len(), 1);
    for asker in 0..200_u8 {
        link.say(port(asker, PORT), &ask(&kind(), Kind::Ptr, false));
    }
    link.pass(Duration::from_millis(300));
    assert_eq!(link.responses(0).len(), 0, "not yet");
    link.pass(secs(2));
    assert_eq!(link.responses(0).len(), 1, "but then");
}

#[test]
fn which_kinds_there_are_and_what_there_is_not_is_answered() {
    let mut link = Link::new(1);
    link.pass(secs(10));
    link.said(0);
    link.say(port(9, PORT), &ask(&name("_services._dns-sd._udp.local"), Kind::Ptr, false));
    link.pass(secs(1));
    let answers = link.responses(0);
    assert_eq!(answers[0].records[0].data, Data::Ptr(kind()));
    // Somebody else's names are none of our business.
    for other in ["h1.local", "_http._tcp.local", "haulout-0002.local", "_haulout._tcp.local"] {
        link.say(port(9, PORT), &ask(&name(other), Kind::Any, false));
    }
    link.pass(secs(2));
    assert!(link.responses(0).is_empty());
}

#[test]
fn what_an_announcement_lacks_is_asked_for() {
    let mut link = Link::new(1);
    link.pass(secs(10));
    link.said(0);
    let other = service(9);
    let say = |data, name: &Name, flush| Message {
        response: true,
        records: vec![Record { name: name.clone(), flush, ttl: 120, data }],
        ..Message::default()
    };
    link.say(port(9, PORT), &say(Data::Ptr(other.instance.clone()), &kind(), false));
    link.pass(Duration::from_millis(400));
    let asked: Vec<Kind> =
        link.said(0).iter().flat_map(|message| &message.questions).map(|one| one.kind).collect();
    assert_eq!(asked, [Kind::Srv, Kind::Txt]);
    link.say(
        port(9, PORT),
        &say(Data::Srv { port: 1, target: other.host.clone() }, &other.instance, true),
    );
    link.say(port(9, PORT), &say(Data::Txt(Box::from(&b"\x03v=1"[..])), &other.instance, true));
    link.pass(secs(3));
    let asked: Vec<Kind> =
        link.said(0).iter().flat_map(|message| &message.questions).map(|one| one.kind).collect();
    assert!(asked.contains(&Kind::A) && asked.contains(&Kind::Aaaa), "{asked:?}");
    assert!(link.present(0).is_empty());
    link.say(port(9, PORT), &say(Data::Addr(ip(9)), &other.host, true));
    link.pass(secs(1));
    assert_eq!(link.present(0), [(other.instance, vec![ip(9)])]);
}

#[test]
fn a_copied_machine_is_noticed_and_ones_own_echo_is_not() {
    let mut link = Link::new(1);
    let data = |ip| Message {
        response: true,
        records: vec![Record {
            name: service(1).host,
            flush: true,
            ttl: 120,
            data: Data::Addr(ip),
        }],
        ..Message::default()
    };
    link.pass(secs(5));
    // A reflector sends our own words back, with the address we had a moment ago.
    link.say(port(200, PORT), &data(ip(1)));
    link.say(port(200, PORT), &data(ip(7)));
    link.pass(secs(20));
    link.say(port(200, PORT), &data(ip(1)));
    assert!(link.machines[0].news.is_empty());
    for _ in 0..3 {
        link.say(port(3, PORT), &data(ip(3)));
        link.pass(secs(10));
    }
    assert_eq!(link.machines[0].news, [Heard::Twin(ip(3))]);
}

#[test]
fn a_flood_costs_a_bounded_amount() {
    let mut link = Link::new(1);
    let mut told = 0;
    for number in 0..INSTANCES_MAX + 500 {
        let instance = kind().child(&format!("invented-{number}")).unwrap();
        let host = name(&format!("invented-{number}.local"));
        let mut records = vec![Record {
            name: kind(),
            flush: false,
            ttl: u32::MAX,
            data: Data::Ptr(instance.clone()),
        }];
        let mut say = |name: &Name, data| {
            records.push(Record { name: name.clone(), flush: true, ttl: u32::MAX, data })
        };
        say(&instance, Data::Txt(Box::from(&b"\x03v=1"[..])));
        say(&instance, Data::Srv { port: 1, target: host.clone() });
        for last in 0..30 {
            say(&host, Data::Addr(ip(last)));
        }
        link.now += Duration::from_millis(3);
        link.say(port(9, PORT), &Message { response: true, records, ..Message::default() });
        for news in std::mem::take(&mut link.machines[0].news) {
            let Heard::Found(_, found) = news else { panic!("{news:?}") };
            assert_eq!(found.addrs.len(), 12);
            told += 1;
        }
    }
    assert_eq!(told, INSTANCES_MAX);
    // More packets than a link may bring are not even read.
    let question = ask(&service(1).host, Kind::A, false);
    for _ in 0..20_000 {
        link.say(port(9, PORT), &question);
    }
    link.machines[0].engine.poll(link.now);
    assert!(link.machines[0].engine.take_packets().len() < 100);
}

#[test]
fn networks_are_compared_bit_by_bit() {
    let same = |a: &str, b: &str, bits| same_network(a.parse().unwrap(), b.parse().unwrap(), bits);
    assert!(same("10.0.0.1", "10.0.0.200", 24) && !same("10.0.0.1", "10.0.1.1", 24));
    assert!(same("10.0.0.1", "192.168.0.1", 0) && !same("10.0.0.1", "10.0.0.2", 32));
    assert!(
        same("fd00::1", "fd00::2", 64) && !same("fd00::1", "fd01::1", 64) && same("::", "ff::", 0)
    );
    assert!(!same("10.0.0.1", "fd00::1", 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Packets made of plausible parts, in any order and at any time.
    #[test]
    fn nothing_that_is_heard_panics_or_makes_it_talk_without_end(
        packets in prop::collection::vec((0..4_u64, prop::collection::vec(part(), 0..6), any::<bool>(), any::<bool>()), 0..40)
    ) {
        let mut link = Link::new(2);
        for (pause, parts, response, truncated) in packets {
            link.pass(secs(pause * pause * 40));
            let mut message = Message { response, truncated, ..Message::default() };
            for (question, record) in parts {
                message.questions.extend(question);
                message.records.extend(record);
            }
            link.say(port(9, PORT), &message);
        }
        link.pass(secs(300));
        for index in 0..2 {
            prop_assert!(link.said(index).len() < 5_000);
        }
    }
}

fn part() -> impl Strategy<Value = (Option<Question>, Option<Record>)> {
    let names = prop_oneof![
        Just(kind()),
        (1..4_u8).prop_map(|number| service(number).instance),
        (1..4_u8).prop_map(|number| service(number).host),
    ];
    let kinds = prop_oneof![Just(Kind::Ptr), Just(Kind::Srv), Just(Kind::A), Just(Kind::Any)];
    let question = (names.clone(), kinds, any::<bool>())
        .prop_map(|(name, kind, unicast)| Question { name, kind, unicast });
    let data = prop_oneof![
        names.clone().prop_map(Data::Ptr),
        (any::<u16>(), names.clone()).prop_map(|(port, target)| Data::Srv { port, target }),
        Just(Data::Txt(Box::from(&b"\x03v=1"[..]))),
        any::<u8>().prop_map(|last| Data::Addr(ip(last))),
    ];
    let ttl = prop_oneof![Just(0), Just(1), Just(120), Just(u32::MAX)];
    let record = (names, any::<bool>(), ttl, data).prop_map(|(name, flush, ttl, data)| Record {
        name,
        flush,
        ttl,
        data,
    });
    (prop::option::of(question), prop::option::of(record))
}

/// What the fuzzer begins with.
const SEEDS: [&[u8]; 3] = [
    include_bytes!("../../../../fuzz/seeds/mdns/answer"),
    include_bytes!("../../../../fuzz/seeds/mdns/legacy"),
    include_bytes!("../../../../fuzz/seeds/mdns/conversation"),
];

proptest! {
    /// As the fuzz target, for a moment.
    #[test]
    fn mangled_packets_are_read_and_written_alike(
        seed in 0..SEEDS.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = SEEDS[seed].to_vec();
        for (index, to) in changes {
            let index = index.index(bytes.len());
            bytes[index] = to;
        }
        bytes.truncate(cut.index(bytes.len()).max(bytes.len() / 2));
        super::hear(&bytes);
        if let Ok(message) = Message::parse(&bytes)
            && message.questions.iter().all(|question| question.kind != Kind::Other)
            && let Some(written) = message.to_bytes()
        {
            prop_assert_eq!(Message::parse(&written), Ok(message));
        }
    }
}
