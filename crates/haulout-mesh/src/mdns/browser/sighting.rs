//! An instance and its host as they are seen on one link.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use super::super::message::{Kind, Name, Question};
use super::life::Life;
use super::{ASK_LAST, LinkId, Time};

/// Pauses before asking for what an announcement lacked: its other packets may be on their way.
pub(super) const MISSING_AFTER: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5)];
/// What one answer brings is asked for with one question: records that are about to end within this.
const ONE_ANSWER: Duration = Duration::from_secs(5);

/// An instance on one link.
#[derive(Debug)]
pub(super) struct Sighting {
    pub(super) ptr: Life,
    pub(super) srv: Option<(u16, Name, Life)>,
    pub(super) txt: Option<(Box<[u8]>, Life)>,
    /// Times that what is missing was asked for, and when it is again.
    pub(super) missing: (usize, Time),
}

/// A host that instances are at, on one link. Others are not remembered.
#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) addrs: Vec<(IpAddr, Life)>,
    pub(super) instances: BTreeSet<Name>,
}

pub(super) type Hosts = HashMap<(LinkId, Name), Host>;

/// An instance is no longer at a host.
pub(super) fn leave(hosts: &mut Hosts, id: LinkId, host: &Name, instance: &Name) {
    let key = (id, host.clone());
    if let Some(host) = hosts.get_mut(&key) {
        host.instances.remove(instance);
        if host.instances.is_empty() {
            hosts.remove(&key);
        }
    }
}

impl Sighting {
    /// The addresses of the host that it is at.
    pub(super) fn addrs<'a>(&self, id: LinkId, hosts: &'a Hosts) -> &'a [(IpAddr, Life)] {
        let host = self.srv.as_ref().and_then(|(_, target, _)| hosts.get(&(id, target.clone())));
        host.map(|host| host.addrs.as_slice()).unwrap_or_default()
    }

    /// Whether something is missing that a whole announcement has.
    pub(super) fn lacks(&self, addrs: &[(IpAddr, Life)]) -> bool {
        self.srv.is_none() || self.txt.is_none() || addrs.is_empty()
    }

    /// Asks for what is missing or about to end.
    pub(super) fn tend(
        &mut self,
        now: Time,
        soon: Time,
        name: &Name,
        addrs: Option<&mut Vec<(IpAddr, Life)>>,
        questions: &mut Vec<Question>,
    ) {
        let mut none = Vec::new();
        let addrs = addrs.unwrap_or(&mut none);
        addrs.retain(|(_, life)| life.until > now);
        let missing =
            self.lacks(addrs) && self.missing.0 < MISSING_AFTER.len() && self.missing.1 <= soon;
        if missing {
            self.missing.0 += 1;
            self.missing.1 = now + MISSING_AFTER.get(self.missing.0).copied().unwrap_or(ASK_LAST);
        }
        let ends_soon = |life: &Life| life.wants_refresh(soon);
        let place_ends = self.srv.as_ref().is_some_and(|(_, _, life)| ends_soon(life))
            || addrs.iter().any(|(_, life)| ends_soon(life));
        match &mut self.srv {
            None if missing => questions.push(ask(name, Kind::Srv)),
            Some((_, target, life)) if place_ends || (missing && addrs.is_empty()) => {
                // Whoever says where an instance is adds the addresses; if that did not help, they are asked for themselves.
                let by = now + ONE_ANSWER;
                let enough = life.wants_refresh(by)
                    && addrs.iter().all(|(_, life)| life.asked == 0)
                    && !addrs.is_empty();
                if life.wants_refresh(by) {
                    life.was_asked(now);
                    questions.push(ask(name, Kind::Srv));
                }
                for (_, life) in addrs.iter_mut().filter(|(_, life)| life.wants_refresh(by)) {
                    life.was_asked(now);
                }
                if !enough {
                    questions.extend([Kind::A, Kind::Aaaa].map(|kind| ask(target, kind)));
                }
            }
            _ => {}
        }
        match &mut self.txt {
            None if missing => questions.push(ask(name, Kind::Txt)),
            Some((_, life)) if ends_soon(life) => {
                life.was_asked(now);
                questions.push(ask(name, Kind::Txt));
            }
            _ => {}
        }
    }
}

pub(super) fn ask(name: &Name, kind: Kind) -> Question {
    Question { name: name.clone(), kind, unicast: false }
}
