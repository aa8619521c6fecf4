//! Responder and browser on all links: packets in, packets and news out. No sockets, no clock.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::browser::{Browser, Heard};
use super::message::{Message, Name};
use super::responder::{Responder, Service};
use super::{Dice, LinkId, LinkState, PORT, Time, Transmit};

/// Packets read per second and link, and at once: a thousand agents may answer one question, and one machine's flood must
/// not cost more than a few percent of a core.
const PACKETS_PER_SECOND: u32 = 500;
const PACKETS_BURST: u32 = 4_000;
/// A foreign address for our own name counts after it was heard again, this much later: echoes of our own last address do not.
const TWIN_AGAIN: Duration = Duration::from_secs(5);
/// And is told of once in this time.
const TWIN_EVERY: Duration = Duration::from_secs(600);

/// How many packets a link may still bring.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    at: Time,
    left: u32,
}

/// The engine.
#[derive(Debug)]
pub(crate) struct Engine {
    responder: Option<Responder>,
    browser: Browser,
    links: Vec<LinkState>,
    buckets: BTreeMap<LinkId, Bucket>,
    dice: Dice,
    out: Vec<Transmit>,
    heard: Vec<Heard>,
    /// A foreign address under our name: which, heard first and last told of.
    twin: Option<(IpAddr, Time, Option<Time>)>,
    dropped: u64,
}

impl Engine {
    /// Announces `service`, if any, and looks for `kinds`.
    pub(crate) fn new(service: Option<Service>, kinds: Vec<Name>, seed: u64) -> Self {
        let own = service.as_ref().map(|service| service.instance.clone());
        Self {
            responder: service.and_then(Responder::new),
            browser: Browser::new(kinds, own),
            links: Vec::new(),
            buckets: BTreeMap::new(),
            dice: Dice::new(seed),
            out: Vec::new(),
            heard: Vec::new(),
            twin: None,
            dropped: 0,
        }
    }

    /// Takes over the links that may be used. New ones, and those with other addresses, are announced on and asked.
    pub(crate) fn set_links(&mut self, now: Time, links: Vec<LinkState>) {
        if let Some(responder) = &mut self.responder {
            responder.set_links(now, &links);
        }
        let ids: Vec<LinkId> = links.iter().map(|link| link.id).collect();
        let changed: Vec<LinkId> =
            links.iter().filter(|link| !self.links.contains(link)).map(|link| link.id).collect();
        self.browser.set_links(now, &ids, &changed, &mut self.dice, &mut self.heard);
        self.buckets.retain(|id, _| ids.contains(id));
        self.links = links;
    }

    /// Announces and asks anew everywhere, as after a change of network.
    pub(crate) fn refresh(&mut self, now: Time) {
        if let Some(responder) = &mut self.responder {
            responder.announce(now);
        }
        self.browser.restart(now, &mut self.dice);
    }

    /// Takes a packet that a link brought.
    pub(crate) fn receive(&mut self, now: Time, id: LinkId, from: SocketAddr, bytes: &[u8]) {
        if !self.may_read(now, id) {
            return;
        }
        let message = match Message::parse(bytes) {
            Ok(message) => message,
            Err(error) => {
                tracing::trace!(%from, %error, "multicast DNS packet ignored");
                return;
            }
        };
        if message.response {
            // Answers come from the port (RFC 6762 §11); ours come back, too.
            if from.port() == PORT {
                self.browser.answered(now, id, &message, &mut self.dice, &mut self.heard);
                self.look_for_twin(now, &message);
            }
            return;
        }
        if from.port() == PORT {
            self.browser.overheard(now, id, &message.questions);
        }
        if let Some(responder) = &mut self.responder {
            responder.asked(now, id, from, &message, &mut self.dice, &mut self.out);
        }
    }

    /// Does what is due.
    pub(crate) fn poll(&mut self, now: Time) {
        self.browser.poll(now, &mut self.out, &mut self.heard);
        if let Some(responder) = &mut self.responder {
            responder.poll(now, &mut self.out);
        }
    }

    /// When [`Engine::poll`] is to be called next; `None`: not before something happens.
    pub(crate) fn next(&self) -> Option<Time> {
        let responder = self.responder.as_ref().and_then(Responder::next);
        [responder, self.browser.next()].into_iter().flatten().min()
    }

    /// Takes everything back that was announced.
    pub(crate) fn goodbye(&mut self) {
        if let Some(responder) = &mut self.responder {
            responder.goodbye(&mut self.out);
        }
    }

    /// Packets to send.
    pub(crate) fn take_packets(&mut self) -> Vec<Transmit> {
        std::mem::take(&mut self.out)
    }

    /// What was heard.
    pub(crate) fn take_news(&mut self) -> Vec<Heard> {
        std::mem::take(&mut self.heard)
    }

    fn may_read(&mut self, now: Time, id: LinkId) -> bool {
        let bucket = self.buckets.entry(id).or_insert(Bucket { at: now, left: PACKETS_BURST });
        let since = now.saturating_sub(bucket.at);
        let more = u32::try_from(since.as_millis() * u128::from(PACKETS_PER_SECOND) / 1_000)
            .unwrap_or(u32::MAX);
        if more > 0 {
            bucket.left = bucket.left.saturating_add(more).min(PACKETS_BURST);
            bucket.at = now;
        }
        if bucket.left == 0 {
            self.dropped += 1;
            if self.dropped.is_power_of_two() {
                tracing::warn!(
                    dropped = self.dropped,
                    "a flood of multicast DNS packets; some are not read"
                );
            }
            return false;
        }
        bucket.left -= 1;
        true
    }

    /// Two machines with one key (a copied disk) take turns in being found, and nobody else can tell.
    fn look_for_twin(&mut self, now: Time, message: &Message) {
        let Some(ip) =
            self.responder.as_ref().and_then(|responder| responder.foreign_addr(message))
        else {
            return;
        };
        match &mut self.twin {
            Some((known, first, told)) if *known == ip => {
                let again = now.saturating_sub(*first) >= TWIN_AGAIN;
                if again && told.is_none_or(|told| now.saturating_sub(told) >= TWIN_EVERY) {
                    *told = Some(now);
                    self.heard.push(Heard::Twin(ip));
                }
            }
            _ => self.twin = Some((ip, now, None)),
        }
    }
}
