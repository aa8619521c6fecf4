//! What this agent says about itself on one link: announcements, answers, the goodbye.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::message::{Data, Kind, Message, Name, Question, Record};
use super::{Dice, LinkId, LinkState, PORT, Time, Transmit};

/// For how long records hold that name a host or an address, in seconds (RFC 6762 §10).
const HOST_TTL: u32 = 120;
/// And all others.
const OTHER_TTL: u32 = 4_500;
/// What is said to an asker that is no multicast DNS resolver holds for so long at most (RFC 6762 §6.7).
const LEGACY_TTL: u32 = 10;
/// Pauses between the announcements after a change: at least two, a second apart (RFC 6762 §8.3); Wi-Fi loses many.
const ANNOUNCE_AFTER: [Duration; 3] =
    [Duration::from_millis(20), Duration::from_secs(1), Duration::from_secs(2)];
/// A record is not sent to the group again within this time (RFC 6762 §6).
const NOT_AGAIN_WITHIN: Duration = Duration::from_secs(1);
/// Answers that wait on one link; more askers than this share the ones that do.
const WAITING_MAX: usize = 64;
/// Answers to single addresses, per second and link: what a forged sender could have sent somewhere else.
const UNICAST_PER_SECOND: u32 = 50;
/// Addresses announced for one link.
const ADDRS_MAX: usize = 12;

/// What is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    /// Such as `_haulout._udp.local`.
    pub(crate) kind: Name,
    pub(crate) instance: Name,
    /// A host name of the agent's own.
    pub(crate) host: Name,
    pub(crate) port: u16,
    /// Strings with a length byte each.
    pub(crate) txt: Box<[u8]>,
    /// Addresses instead of those of each link, if the agent does not listen on all.
    pub(crate) fixed: Vec<IpAddr>,
    /// Whether it can be reached by IPv6.
    pub(crate) v6: bool,
}

/// A set of our records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Said(u8);

impl Said {
    /// That there are services of this kind (RFC 6763 §9).
    const KINDS: Self = Self(1);
    const PTR: Self = Self(2);
    const SRV: Self = Self(4);
    const TXT: Self = Self(8);
    const ADDRS: Self = Self(16);
    const ALL: [Self; 5] = [Self::KINDS, Self::PTR, Self::SRV, Self::TXT, Self::ADDRS];
    /// All that is announced: who wants to know which kinds there are asks for it.
    const ANNOUNCED: Self = Self(2 | 4 | 8 | 16);
    /// Others may have records of the same name.
    const SHARED: Self = Self(1 | 2);

    const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// An answer that waits for its time.
#[derive(Debug)]
struct Waiting {
    due: Time,
    said: Said,
    /// Who asked: more known answers may come from there.
    asker: IpAddr,
}

/// What is going on on one link.
#[derive(Debug)]
struct Link {
    state: LinkState,
    /// Index into [`ANNOUNCE_AFTER`] and the time of the next announcement.
    announce: Option<(usize, Time)>,
    waiting: Vec<Waiting>,
    /// When each of [`Said::ALL`] was last sent to the group.
    last: [Option<Time>; 5],
    /// Answers to single addresses in the second that began at the time.
    unicast: (Time, u32),
}

/// The responder.
#[derive(Debug)]
pub(super) struct Responder {
    service: Service,
    kinds: Name,
    links: BTreeMap<LinkId, Link>,
}

impl Responder {
    pub(super) fn new(service: Service) -> Option<Self> {
        let kinds = Name::from_text("_services._dns-sd._udp.local")?;
        Some(Self { service, kinds, links: BTreeMap::new() })
    }

    /// Takes over the links there are. What is new or has other addresses is announced on.
    pub(super) fn set_links(&mut self, now: Time, links: &[LinkState]) {
        self.links.retain(|id, _| links.iter().any(|link| link.id == *id));
        for state in links {
            let known = self.links.get(&state.id);
            if known.is_some_and(|link| link.state == *state) {
                continue;
            }
            self.links.insert(
                state.id,
                Link {
                    state: state.clone(),
                    announce: Some((0, now + ANNOUNCE_AFTER[0])),
                    waiting: Vec::new(),
                    last: known.map_or([None; 5], |link| link.last),
                    unicast: (now, 0),
                },
            );
        }
    }

    /// Announces on every link again: others may have forgotten us while this machine slept.
    pub(super) fn announce(&mut self, now: Time) {
        for link in self.links.values_mut() {
            link.announce = Some((0, now + ANNOUNCE_AFTER[0]));
        }
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Time> {
        let times = |link: &Link| {
            let waiting = link.waiting.iter().map(|one| one.due).min();
            [waiting, link.announce.map(|(_, at)| at)].into_iter().flatten().min()
        };
        self.links.values().filter_map(times).min()
    }

    /// Sends what is due.
    pub(super) fn poll(&mut self, now: Time, out: &mut Vec<Transmit>) {
        let ids: Vec<LinkId> = self.links.keys().copied().collect();
        for id in ids {
            let Some(link) = self.links.get_mut(&id) else { continue };
            let mut said = Said::default();
            if let Some((index, at)) = link.announce
                && at <= now
            {
                said = Said::ANNOUNCED;
                link.announce =
                    ANNOUNCE_AFTER.get(index + 1).map(|pause| (index + 1, now + *pause));
            }
            link.waiting.retain(|one| {
                let due = one.due <= now;
                if due {
                    said = said.and(one.said);
                }
                !due
            });
            if said.is_empty() {
                continue;
            }
            for (one, last) in Said::ALL.into_iter().zip(&mut link.last) {
                if said.has(one) {
                    *last = Some(now);
                }
            }
            // Whoever asked a little later is answered with this, too.
            for one in &mut link.waiting {
                one.said = one.said.without(said);
            }
            link.waiting.retain(|one| !one.said.is_empty());
            let state = link.state.clone();
            out.extend(self.packet(&state, said, None).map(|bytes| Transmit {
                link: id,
                to: None,
                bytes,
            }));
        }
    }

    /// Hears a question.
    pub(super) fn asked(
        &mut self,
        now: Time,
        id: LinkId,
        from: SocketAddr,
        message: &Message,
        dice: &mut Dice,
        out: &mut Vec<Transmit>,
    ) {
        let Some(link) = self.links.get_mut(&id).filter(|link| link.state.is_near(from.ip()))
        else {
            return;
        };
        let known = known(&self.service, &self.kinds, message);
        if message.questions.is_empty() {
            // The rest of the known answers of an earlier question.
            for one in link.waiting.iter_mut().filter(|one| one.asker == from.ip()) {
                one.said = one.said.without(known);
            }
            link.waiting.retain(|one| !one.said.is_empty());
            return;
        }
        let wanted = |only_unicast: Option<bool>| {
            let questions = message
                .questions
                .iter()
                .filter(|question| only_unicast.is_none_or(|only| question.unicast == only));
            questions.fold(Said::default(), |said, question| {
                said.and(answers(&self.service, &self.kinds, question))
            })
        };
        if from.port() != PORT {
            let said = wanted(None);
            if !said.is_empty() && link.may_unicast(now) {
                let state = link.state.clone();
                let bytes = self.packet(&state, said, Some(message));
                out.extend(bytes.map(|bytes| Transmit { link: id, to: Some(from), bytes }));
            }
            return;
        }
        let mut to_group = wanted(Some(false)).without(known);
        let aside = wanted(Some(true)).without(known).without(to_group);
        if !aside.is_empty() {
            // The others' memories are kept fresh: once in a quarter of a record's life the group hears it (RFC 6762 §5.4).
            if link.fresh(aside, now) && link.may_unicast(now) {
                let state = link.state.clone();
                let bytes = self.packet(&state, aside, None);
                out.extend(bytes.map(|bytes| Transmit { link: id, to: Some(from), bytes }));
            } else {
                to_group = to_group.and(aside);
            }
        }
        if to_group.is_empty() {
            return;
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        let delay = if message.truncated {
            dice.millis(400, 500)
        } else if to_group.has(Said::SHARED) {
            dice.millis(20, 120)
        } else {
            Duration::ZERO
        };
        link.wait(now, now + delay, to_group, from.ip());
    }

    /// Takes everything back, on every link.
    pub(super) fn goodbye(&mut self, out: &mut Vec<Transmit>) {
        for (id, link) in std::mem::take(&mut self.links) {
            let mut records = self.records(&link.state, Said::ANNOUNCED);
            for record in &mut records {
                record.ttl = 0;
            }
            let message = Message { response: true, records, ..Message::default() };
            out.extend(message.to_bytes().map(|bytes| Transmit { link: id, to: None, bytes }));
        }
    }

    /// The answer; to a legacy asker (`question`), with its question and number.
    fn packet(&self, link: &LinkState, said: Said, question: Option<&Message>) -> Option<Vec<u8>> {
        let mut all = said;
        // Who learns of the instance will ask for the rest (RFC 6763 §12).
        if said.has(Said::PTR) {
            all = all.and(Said::SRV).and(Said::TXT);
        }
        if all.has(Said::SRV) {
            all = all.and(Said::ADDRS);
        }
        let mut message =
            Message { response: true, records: self.records(link, all), ..Message::default() };
        if let Some(asked) = question {
            message.id = asked.id;
            message.questions.clone_from(&asked.questions);
            for record in &mut message.records {
                record.flush = false;
                record.ttl = record.ttl.min(LEGACY_TTL);
            }
        }
        message.to_bytes()
    }

    fn records(&self, link: &LinkState, said: Said) -> Vec<Record> {
        let service = &self.service;
        let mut records = Vec::new();
        let mut say = |name: &Name, flush: bool, ttl: u32, data: Data| {
            records.push(Record { name: name.clone(), flush, ttl, data });
        };
        if said.has(Said::KINDS) {
            say(&self.kinds, false, OTHER_TTL, Data::Ptr(service.kind.clone()));
        }
        if said.has(Said::PTR) {
            say(&service.kind, false, OTHER_TTL, Data::Ptr(service.instance.clone()));
        }
        if said.has(Said::SRV) {
            let data = Data::Srv { port: service.port, target: service.host.clone() };
            say(&service.instance, true, HOST_TTL, data);
        }
        if said.has(Said::TXT) {
            say(&service.instance, true, OTHER_TTL, Data::Txt(service.txt.clone()));
        }
        if said.has(Said::ADDRS) {
            let addrs = self.addrs(link);
            for ip in &addrs {
                say(&service.host, true, HOST_TTL, Data::Addr(*ip));
            }
            let (v4, v6) = (addrs.iter().any(IpAddr::is_ipv4), addrs.iter().any(IpAddr::is_ipv6));
            if v4 != v6 {
                say(&service.host, true, HOST_TTL, Data::OnlyAddrs { v4, v6 });
            }
        }
        records
    }

    /// The addresses that are announced on a link.
    pub(super) fn addrs(&self, link: &LinkState) -> Vec<IpAddr> {
        let all: Vec<IpAddr> = if self.service.fixed.is_empty() {
            link.addrs.iter().map(|(ip, _)| *ip).collect()
        } else {
            self.service.fixed.clone()
        };
        all.into_iter().filter(|ip| ip.is_ipv4() || self.service.v6).take(ADDRS_MAX).collect()
    }

    /// An address that another machine announces for our host name, and none of ours.
    pub(super) fn foreign_addr(&self, message: &Message) -> Option<IpAddr> {
        let ours = |ip: IpAddr| {
            self.links.values().flat_map(|link| &link.state.addrs).any(|(own, _)| *own == ip)
                || self.service.fixed.contains(&ip)
        };
        message.records.iter().find_map(|record| match record.data {
            Data::Addr(ip) if record.name == self.service.host && record.ttl > 0 => {
                (!ours(ip)).then_some(ip)
            }
            _ => None,
        })
    }
}

impl Link {
    fn may_unicast(&mut self, now: Time) -> bool {
        if now.saturating_sub(self.unicast.0) >= Duration::from_secs(1) {
            self.unicast = (now, 0);
        }
        self.unicast.1 += 1;
        self.unicast.1 <= UNICAST_PER_SECOND
    }

    /// Whether the group heard all of these not long ago.
    fn fresh(&self, said: Said, now: Time) -> bool {
        let quarter = Duration::from_secs(u64::from(HOST_TTL / 4));
        let heard =
            |last: &Option<Time>| last.is_some_and(|last| now.saturating_sub(last) < quarter);
        Said::ALL.into_iter().zip(&self.last).all(|(one, last)| !said.has(one) || heard(last))
    }

    /// Has an answer wait, and at least until the group may hear it again.
    fn wait(&mut self, now: Time, due: Time, said: Said, asker: IpAddr) {
        let last = Said::ALL.into_iter().zip(&self.last).filter(|(one, _)| said.has(*one));
        let may =
            last.filter_map(|(_, last)| *last).max().map_or(now, |last| last + NOT_AGAIN_WITHIN);
        let due = due.max(may);
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push(Waiting { due, said, asker });
        } else if let Some(one) = self.waiting.iter_mut().min_by_key(|one| one.due) {
            one.said = one.said.and(said);
        }
    }
}

/// What of ours answers a question.
fn answers(service: &Service, kinds: &Name, question: &Question) -> Said {
    let wants = |kind| question.kind == kind || question.kind == Kind::Any;
    let mut said = Said::default();
    if question.name == *kinds && wants(Kind::Ptr) {
        said = said.and(Said::KINDS);
    }
    if question.name == service.kind && wants(Kind::Ptr) {
        said = said.and(Said::PTR);
    }
    if question.name == service.instance {
        if wants(Kind::Srv) {
            said = said.and(Said::SRV);
        }
        if wants(Kind::Txt) {
            said = said.and(Said::TXT);
        }
    }
    // Who asks for a family that we do not have gets the other, and is told that it is all.
    if question.name == service.host && (wants(Kind::A) || wants(Kind::Aaaa)) {
        said = said.and(Said::ADDRS);
    }
    said
}

/// What the asker knows already, for at least half of its time (RFC 6762 §7.1).
fn known(service: &Service, kinds: &Name, message: &Message) -> Said {
    let mut said = Said::default();
    for record in &message.records {
        match &record.data {
            Data::Ptr(name) if record.ttl >= OTHER_TTL / 2 => {
                if record.name == service.kind && *name == service.instance {
                    said = said.and(Said::PTR);
                } else if record.name == *kinds && *name == service.kind {
                    said = said.and(Said::KINDS);
                }
            }
            Data::Srv { port, target }
                if record.ttl >= HOST_TTL / 2
                    && record.name == service.instance
                    && *port == service.port
                    && *target == service.host =>
            {
                said = said.and(Said::SRV);
            }
            _ => {}
        }
    }
    said
}
