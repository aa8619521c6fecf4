//! What others say: services of the kinds that are looked for, kept for as long as their records hold.

mod life;
mod sighting;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use super::message::{Data, Kind, Message, Name, Question, Record};
use super::{Dice, LinkId, Time, Transmit};
use life::{GRACE, Life};
use sighting::{Hosts, MISSING_AFTER, Sighting, ask, leave};

/// First pause between questions for instances; doubles (RFC 6762 §5.2).
const ASK_FIRST: Duration = Duration::from_secs(1);
/// Longest pause.
const ASK_LAST: Duration = Duration::from_secs(3_600);
/// Instances of one kind remembered: more than an agent connects to. A flood of invented names costs no more than this.
pub(crate) const INSTANCES_MAX: usize = 4_096;
/// Addresses kept for one host on one link.
const ADDRS_MAX: usize = 12;
/// How long our own name holds, when it is named among what is known, in seconds.
const OWN_TTL: u32 = 4_500;
/// Longest TXT record kept, in bytes.
const TXT_MAX: usize = 1_024;
/// Questions that become due within this are asked together.
const TOGETHER: Duration = Duration::from_millis(500);
/// Questions in one packet, and known answers: about 1,200 bytes each, so that packets fit an Ethernet frame.
const QUESTIONS_MAX: usize = 24;
const KNOWN_MAX: usize = 28;
/// Packets of known answers for one question; whoever is not in them answers once more.
const KNOWN_PACKETS_MAX: usize = 40;

/// An instance of a service, all links together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) name: Name,
    pub(crate) port: u16,
    /// With the number of the interface each was heard on.
    pub(crate) addrs: BTreeSet<(IpAddr, u32)>,
    /// Strings with a length byte each.
    pub(crate) txt: Box<[u8]>,
}

/// News. The number is that of the kind of service, as given to [`super::engine::Engine::new`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It is there, or there with other particulars.
    Found(usize, Found),
    /// It is no longer.
    Lost(usize, Name),
    /// Another machine announces this agent's own host name with the address.
    Twin(IpAddr),
}

#[derive(Debug)]
struct Instance {
    kind: usize,
    sightings: BTreeMap<LinkId, Sighting>,
    told: Option<Found>,
    /// Its entry in [`Browser::due`].
    due: Option<Time>,
}

/// When a link is asked for instances.
#[derive(Clone, Copy, Debug)]
struct Asking {
    next: Time,
    pause: Duration,
}

/// The browser.
#[derive(Debug)]
pub(super) struct Browser {
    kinds: Vec<Name>,
    /// A name that is not reported: our own.
    own: Option<Name>,
    links: BTreeMap<LinkId, Asking>,
    instances: HashMap<Name, Instance>,
    hosts: Hosts,
    /// When each instance needs a look.
    due: BTreeSet<(Time, Name)>,
}

impl Browser {
    pub(super) fn new(kinds: Vec<Name>, own: Option<Name>) -> Self {
        Self {
            kinds,
            own,
            links: BTreeMap::new(),
            instances: HashMap::new(),
            hosts: HashMap::new(),
            due: BTreeSet::new(),
        }
    }

    /// Takes over the links there are: new ones are asked, and what was heard on those that went is forgotten. `changed`
    /// are asked anew.
    pub(super) fn set_links(
        &mut self,
        now: Time,
        links: &[LinkId],
        changed: &[LinkId],
        dice: &mut Dice,
        heard: &mut Vec<Heard>,
    ) {
        self.links.retain(|id, _| links.contains(id));
        for id in links {
            if !self.links.contains_key(id) || changed.contains(id) {
                let next = now + dice.millis(20, 120);
                self.links.insert(*id, Asking { next, pause: ASK_FIRST });
            }
        }
        self.hosts.retain(|(id, _), _| links.contains(id));
        let names: Vec<Name> = self.instances.keys().cloned().collect();
        for name in names {
            if let Some(instance) = self.instances.get_mut(&name) {
                instance.sightings.retain(|id, _| links.contains(id));
            }
            self.settle(&name, heard);
        }
    }

    /// Asks every link from the beginning.
    pub(super) fn restart(&mut self, now: Time, dice: &mut Dice) {
        for asking in self.links.values_mut() {
            *asking = Asking { next: now + dice.millis(20, 120), pause: ASK_FIRST };
        }
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Time> {
        let asking = self.links.values().map(|asking| asking.next).min();
        [asking, self.due.first().map(|(at, _)| *at)].into_iter().flatten().min()
    }

    /// Hears an answer.
    pub(super) fn answered(
        &mut self,
        now: Time,
        id: LinkId,
        message: &Message,
        dice: &mut Dice,
        heard: &mut Vec<Heard>,
    ) {
        if !self.links.contains_key(&id) {
            return;
        }
        let mut touched = BTreeSet::new();
        // Whatever their order in the packet: instances first, then where they are, then the hosts' addresses.
        for record in &message.records {
            if let Data::Ptr(name) = &record.data {
                self.heard_instance(now, id, record, name, dice, &mut touched);
            }
        }
        for record in &message.records {
            self.heard_particulars(now, id, record, dice, &mut touched);
        }
        self.heard_addrs(now, id, &message.records, dice, &mut touched);
        for name in touched {
            self.settle(&name, heard);
        }
    }

    /// Another machine asked: the answer will be heard here, too.
    pub(super) fn overheard(&mut self, now: Time, id: LinkId, questions: &[Question]) {
        for question in questions.iter().filter(|question| !question.unicast) {
            let sighting =
                self.instances.get_mut(&question.name).and_then(|one| one.sightings.get_mut(&id));
            if let Some(sighting) = sighting
                && let Some((_, _, life)) = &mut sighting.srv
                && matches!(question.kind, Kind::Srv | Kind::Any)
                && life.wants_refresh(now + TOGETHER)
            {
                life.was_asked(now);
            }
        }
    }

    /// Asks what is due and ends what was not heard again.
    pub(super) fn poll(&mut self, now: Time, out: &mut Vec<Transmit>, heard: &mut Vec<Heard>) {
        let mut questions: BTreeMap<LinkId, Vec<Question>> = BTreeMap::new();
        if self.due.first().is_some_and(|(at, _)| *at <= now) {
            self.tend(now, &mut questions, heard);
        }
        let ids: Vec<LinkId> = self.links.keys().copied().collect();
        for id in ids {
            let mut asked = Vec::new();
            if let Some(asking) = self.links.get_mut(&id)
                && asking.next <= now
            {
                asking.next = now + asking.pause;
                asking.pause = (asking.pause * 2).min(ASK_LAST);
                asked = self.kinds.iter().map(|name| ask(name, Kind::Ptr)).collect();
            }
            if !asked.is_empty() {
                self.ask_instances(now, id, asked, out);
            }
        }
        for (id, questions) in questions {
            for some in questions.chunks(QUESTIONS_MAX) {
                let message = Message { questions: some.to_vec(), ..Message::default() };
                out.extend(message.to_bytes().map(|bytes| Transmit { link: id, to: None, bytes }));
            }
        }
    }

    /// Asks for instances, and says which are known.
    fn ask_instances(
        &self,
        now: Time,
        id: LinkId,
        questions: Vec<Question>,
        out: &mut Vec<Transmit>,
    ) {
        let mut known = Vec::new();
        // Our questions come back to us, too: ourselves we know.
        if let Some(own) = &self.own {
            let kind = self.kinds.iter().find(|kind| own.is_instance_of(kind));
            known.extend(kind.map(|kind| Record {
                name: kind.clone(),
                flush: false,
                ttl: OWN_TTL,
                data: Data::Ptr(own.clone()),
            }));
        }
        for (name, instance) in &self.instances {
            let ptr = instance.sightings.get(&id).map(|sighting| sighting.ptr);
            let Some(ptr) = ptr.filter(|ptr| ptr.is_young(now)) else { continue };
            if let Some(kind) = self.kinds.get(instance.kind) {
                known.push(Record {
                    name: kind.clone(),
                    flush: false,
                    ttl: ptr.left(now),
                    data: Data::Ptr(name.clone()),
                });
            }
        }
        known.truncate(KNOWN_MAX * KNOWN_PACKETS_MAX);
        let mut packets: Vec<Message> = known
            .chunks(KNOWN_MAX)
            .map(|some| Message { records: some.to_vec(), truncated: true, ..Message::default() })
            .collect();
        if packets.is_empty() {
            packets.push(Message::default());
        }
        if let Some(first) = packets.first_mut() {
            first.questions = questions;
        }
        if let Some(last) = packets.last_mut() {
            last.truncated = false;
        }
        out.extend(packets.iter().filter_map(Message::to_bytes).map(|bytes| Transmit {
            link: id,
            to: None,
            bytes,
        }));
    }

    fn heard_instance(
        &mut self,
        now: Time,
        id: LinkId,
        record: &Record,
        name: &Name,
        dice: &mut Dice,
        touched: &mut BTreeSet<Name>,
    ) {
        let Some(kind) = self.kinds.iter().position(|kind| *kind == record.name) else { return };
        if self.own.as_ref() == Some(name) || !name.is_instance_of(&record.name) {
            return;
        }
        let known = self.instances.get_mut(name);
        if record.ttl == 0 {
            if let Some(sighting) = known.and_then(|one| one.sightings.get_mut(&id)) {
                sighting.ptr.end(now);
                touched.insert(name.clone());
            }
            return;
        }
        if known.is_none() {
            let same = self.instances.values().filter(|one| one.kind == kind).count();
            if same >= INSTANCES_MAX {
                return;
            }
        }
        let life = Life::new(now, record.ttl, dice);
        let instance = self.instances.entry(name.clone()).or_insert_with(|| Instance {
            kind,
            sightings: BTreeMap::new(),
            told: None,
            due: None,
        });
        let fresh =
            || Sighting { ptr: life, srv: None, txt: None, missing: (0, now + MISSING_AFTER[0]) };
        let sighting = instance.sightings.entry(id).or_insert_with(fresh);
        sighting.ptr = life;
        sighting.missing = (0, now + MISSING_AFTER[0]);
        touched.insert(name.clone());
    }

    fn heard_particulars(
        &mut self,
        now: Time,
        id: LinkId,
        record: &Record,
        dice: &mut Dice,
        touched: &mut BTreeSet<Name>,
    ) {
        let sighting =
            self.instances.get_mut(&record.name).and_then(|one| one.sightings.get_mut(&id));
        let Some(sighting) = sighting else { return };
        match &record.data {
            Data::Srv { .. } if record.ttl == 0 => {
                if let Some((_, _, life)) = &mut sighting.srv {
                    life.end(now);
                }
            }
            Data::Srv { port, target } => {
                let life = Life::new(now, record.ttl, dice);
                let before = sighting.srv.replace((*port, target.clone(), life));
                if let Some((_, old, _)) = before.filter(|(_, old, _)| old != target) {
                    leave(&mut self.hosts, id, &old, &record.name);
                }
                let host = self.hosts.entry((id, target.clone())).or_default();
                host.instances.insert(record.name.clone());
            }
            Data::Txt(_) if record.ttl == 0 => {
                if let Some((_, life)) = &mut sighting.txt {
                    life.end(now);
                }
            }
            Data::Txt(txt) if txt.len() <= TXT_MAX => {
                sighting.txt = Some((txt.clone(), Life::new(now, record.ttl, dice)));
            }
            _ => return,
        }
        touched.insert(record.name.clone());
    }

    fn heard_addrs(
        &mut self,
        now: Time,
        id: LinkId,
        records: &[Record],
        dice: &mut Dice,
        touched: &mut BTreeSet<Name>,
    ) {
        for record in records {
            let Data::Addr(ip) = record.data else { continue };
            let Some(host) = self.hosts.get_mut(&(id, record.name.clone())) else { continue };
            touched.extend(host.instances.iter().cloned());
            if record.flush {
                // What this packet does not repeat is void, if it is older than a second.
                for (other, life) in &mut host.addrs {
                    let repeated = records
                        .iter()
                        .any(|one| one.name == record.name && one.data == Data::Addr(*other));
                    if !repeated
                        && other.is_ipv4() == ip.is_ipv4()
                        && now.saturating_sub(life.heard) > GRACE
                    {
                        life.end(now);
                    }
                }
            }
            let room = host.addrs.len() < ADDRS_MAX;
            match host.addrs.iter_mut().find(|(known, _)| *known == ip) {
                Some((_, life)) if record.ttl == 0 => life.end(now),
                Some((_, life)) => *life = Life::new(now, record.ttl, dice),
                None if record.ttl > 0 && room => {
                    host.addrs.push((ip, Life::new(now, record.ttl, dice)));
                }
                None => {}
            }
        }
    }

    /// Looks at the instances that are due: asks for what is missing or about to end, and drops what has ended.
    fn tend(
        &mut self,
        now: Time,
        questions: &mut BTreeMap<LinkId, Vec<Question>>,
        heard: &mut Vec<Heard>,
    ) {
        let soon = now + TOGETHER;
        let due: Vec<Name> = self
            .due
            .iter()
            .take_while(|(at, _)| *at <= soon)
            .map(|(_, name)| name.clone())
            .collect();
        for name in due {
            let Some(instance) = self.instances.get_mut(&name) else { continue };
            let ended = instance.sightings.extract_if(.., |_, sighting| sighting.ptr.until <= now);
            for (id, sighting) in ended {
                if let Some((_, target, _)) = sighting.srv {
                    leave(&mut self.hosts, id, &target, &name);
                }
            }
            for (id, sighting) in &mut instance.sightings {
                let asked = questions.entry(*id).or_default();
                if let Some((_, target, _)) = sighting.srv.take_if(|(_, _, life)| life.until <= now)
                {
                    // It was asked for in time, and in vain.
                    sighting.missing.0 = MISSING_AFTER.len();
                    leave(&mut self.hosts, *id, &target, &name);
                }
                sighting.txt.take_if(|(_, life)| life.until <= now);
                if sighting.ptr.wants_refresh(soon) {
                    sighting.ptr.was_asked(now);
                    let question = self.kinds.get(instance.kind).map(|kind| ask(kind, Kind::Ptr));
                    asked.extend(question.filter(|question| !asked.contains(question)));
                }
                let host = sighting
                    .srv
                    .as_ref()
                    .and_then(|(_, target, _)| self.hosts.get_mut(&(*id, target.clone())));
                let host = host.map(|host| &mut host.addrs);
                sighting.tend(now, soon, &name, host, asked);
            }
            self.settle(&name, heard);
        }
        questions.retain(|_, questions| !questions.is_empty());
    }

    /// After something about an instance changed: tells of it, and notes when it needs the next look.
    fn settle(&mut self, name: &Name, heard: &mut Vec<Heard>) {
        self.report(name, heard);
        let next = self.next_look(name);
        let before =
            self.instances.get_mut(name).and_then(|one| std::mem::replace(&mut one.due, next));
        if before != next {
            if let Some(at) = before {
                self.due.remove(&(at, name.clone()));
            }
            self.due.extend(next.map(|at| (at, name.clone())));
        }
    }

    /// Tells of an instance what changed since it was last told of.
    fn report(&mut self, name: &Name, heard: &mut Vec<Heard>) {
        let Some(instance) = self.instances.get_mut(name) else { return };
        let found = found(name, instance, &self.hosts);
        if found != instance.told {
            match (&found, &instance.told) {
                (Some(found), _) => heard.push(Heard::Found(instance.kind, found.clone())),
                (None, Some(_)) => heard.push(Heard::Lost(instance.kind, name.clone())),
                (None, None) => {}
            }
            instance.told = found;
        }
        if instance.sightings.is_empty()
            && let Some(at) = self.instances.remove(name).and_then(|one| one.due)
        {
            self.due.remove(&(at, name.clone()));
        }
    }

    fn next_look(&self, name: &Name) -> Option<Time> {
        let instance = self.instances.get(name)?;
        let mut times = Vec::with_capacity(8);
        for (id, sighting) in &instance.sightings {
            times.push(sighting.ptr.next());
            times.extend(sighting.txt.as_ref().map(|(_, life)| life.next()));
            times.extend(sighting.srv.as_ref().map(|(_, _, life)| life.next()));
            let addrs = sighting.addrs(*id, &self.hosts);
            times.extend(addrs.iter().map(|(_, life)| life.next()));
            if sighting.lacks(addrs) && sighting.missing.0 < MISSING_AFTER.len() {
                times.push(sighting.missing.1);
            }
        }
        times.into_iter().min()
    }
}

/// The instance over all links, if any has all of it.
fn found(name: &Name, instance: &Instance, hosts: &Hosts) -> Option<Found> {
    let mut found: Option<Found> = None;
    for (id, sighting) in &instance.sightings {
        let (Some((port, _, _)), Some((txt, _))) = (&sighting.srv, &sighting.txt) else { continue };
        let addrs = sighting.addrs(*id, hosts);
        if addrs.is_empty() {
            continue;
        }
        let one = found.get_or_insert_with(|| Found {
            name: name.clone(),
            port: *port,
            addrs: BTreeSet::new(),
            txt: txt.clone(),
        });
        if one.port == *port {
            one.addrs.extend(addrs.iter().map(|(ip, _)| (*ip, id.index)));
        }
    }
    found
}
