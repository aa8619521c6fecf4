//! Who is told how much of the holdings when there are many peers, and what is known of others' holdings by hearsay.
//! The rules are in [`haulout_swarm::portions`].

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use haulout_swarm::PeerId;
use haulout_swarm::directory::Holders;
use haulout_swarm::hearsay::Hearsay;
use haulout_swarm::portions::{NAMED_MAX, Portion, Portions};
use tokio::sync::watch;
use tokio::time::sleep;

use super::{Entry, Link, Shared, lock, read};
use crate::api::{HoldingsFeed, Membership};
use crate::frames::MINOR_PORTIONS;

/// An agent that has just come to a crowd looks this often whether half of those it has heard of are connected before it tells
/// anything, and so many times: whom it tells everything depends on who there is.
const GATHERING_LOOK: Duration = Duration::from_millis(500);
const GATHERING_LOOKS: usize = 6;

/// What is shared about portions. `portions` is locked before `peers` by whoever needs both.
pub(crate) struct Spread {
    portions: Mutex<Portions>,
    hearsay: Mutex<Hearsay>,
    /// Counts how often it changed who is told how much; never, while there are few peers.
    moved: watch::Sender<u64>,
    /// What is told to those that portions are for.
    feed: OnceLock<Arc<HoldingsFeed>>,
}

impl Spread {
    pub(crate) fn new(me: PeerId, full_peers: usize) -> Self {
        Self {
            portions: Mutex::new(Portions::new(me, full_peers)),
            hearsay: Mutex::default(),
            moved: watch::channel(0).0,
            feed: OnceLock::new(),
        }
    }

    /// To be woken when it changes who is told how much.
    pub(crate) fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// What is told to those that portions are for. The same each time.
    pub(crate) fn set_feed(&self, feed: &Arc<HoldingsFeed>) {
        let _ = self.feed.set(Arc::clone(feed));
    }

    /// How many peers there are that understand portions.
    pub(crate) fn peers(&self) -> usize {
        lock(&self.portions).peers()
    }

    /// Whether there are so many that not all are told everything.
    pub(crate) fn is_crowd(&self) -> bool {
        lock(&self.portions).is_crowd()
    }

    /// Whether the portion of a peer that sees `theirs` others is of use here.
    pub(crate) fn accepts_portions_of(&self, theirs: usize) -> bool {
        lock(&self.portions).accepts_portions_of(theirs)
    }
}

impl Shared {
    /// Whether this peer can be told a portion, and be asked for others: it knows how, and it is told the same as all others
    /// of its kind. (What a member knows is not for strangers, and strangers of a mesh with a secret are told everything that
    /// is public.)
    pub(crate) fn takes_portions(&self, link: &Link) -> bool {
        let kind = match self.config.secret {
            Some(_) => Membership::Member,
            None => Membership::Stranger,
        };
        link.minor >= MINOR_PORTIONS && link.membership == kind
    }

    /// Somebody came or went.
    pub(crate) fn met(&self) {
        let mut portions = lock(&self.spread.portions);
        let links = self.links();
        let there: Vec<PeerId> =
            links.iter().filter(|link| self.takes_portions(link)).map(|link| link.peer).collect();
        let crowd = portions.is_crowd();
        portions.meet(&there);
        if crowd || portions.is_crowd() {
            self.spread.moved.send_modify(|times| *times += 1);
        }
    }

    /// How much this peer is to be told.
    pub(crate) fn portion(&self, link: &Link) -> Portion {
        if !self.takes_portions(link) || link.wants_all.load(Ordering::Relaxed) {
            return Portion::Whole;
        }
        lock(&self.spread.portions).of(&link.peer)
    }

    /// Waits until most of those that are expected are connected, if a crowd is expected. Not at all otherwise.
    pub(crate) async fn gathered(&self) {
        for _ in 0..GATHERING_LOOKS {
            let expected = self.peers_expected();
            if expected <= self.config.limits.full_peers || 2 * self.spread.peers() >= expected {
                return;
            }
            sleep(GATHERING_LOOK).await;
        }
    }

    /// Whether somebody may hold what no holdings here name, so that the homes are worth a question.
    pub(crate) fn knows_in_part(&self) -> bool {
        self.spread.is_crowd() && read(&self.hints).parts() > 0
    }

    /// The homes of an entry that can be asked: connected, and not silent.
    pub(crate) fn homes_of(&self, prefix: u32) -> Vec<PeerId> {
        let homes: Vec<PeerId> = {
            let portions = lock(&self.spread.portions);
            portions.homes(prefix).filter(|home| *home != self.id).collect()
        };
        let peers = self.lock_peers();
        let link = |home: &PeerId| peers.entries.get(home).and_then(Entry::link);
        let asked =
            homes.into_iter().filter(|home| link(home).is_some_and(|link| !is_silent(link)));
        asked.collect()
    }

    /// Whom to name to a peer that asks who holds an entry: this agent, and the peers that announced it, if the asker is one of
    /// those that are told the same.
    pub(crate) fn named(&self, asker: &Link, prefix: u32) -> Vec<PeerId> {
        if !self.takes_portions(asker) {
            return Vec::new();
        }
        let own = self.spread.feed.get().is_some_and(|feed| feed.announces(prefix));
        let mut named: Vec<PeerId> = own.then_some(self.id).into_iter().collect();
        let holders = read(&self.hints).who_has(prefix, self.random());
        let peers = self.lock_peers();
        let link = |peer: &PeerId| peers.entries.get(peer).and_then(Entry::link);
        named.extend(holders.into_iter().filter(|peer| {
            let usable = |link: &Arc<Link>| !is_silent(link) && self.takes_portions(link);
            *peer != asker.peer && link(peer).is_some_and(usable)
        }));
        named.truncate(NAMED_MAX);
        named
    }

    /// These peers are said to hold an entry. Those whose holdings are known as a whole are not believed to, and those that
    /// are not connected are of no use.
    pub(crate) fn heard_of(&self, prefix: u32, named: Vec<PeerId>) {
        let known: Vec<PeerId> = {
            let hints = read(&self.hints);
            named.into_iter().filter(|peer| hints.knows_part(peer)).collect()
        };
        lock(&self.spread.hearsay).heard(prefix, known, self.now());
    }

    /// A peer has described what stands for these entries, so it holds it.
    pub(crate) fn described(&self, peer: &PeerId, prefixes: impl Iterator<Item = u32>) {
        if !read(&self.hints).knows_part(peer) {
            return;
        }
        let now = self.now();
        let mut hearsay = lock(&self.spread.hearsay);
        prefixes.for_each(|prefix| hearsay.heard(prefix, [*peer], now));
    }

    /// A peer said that it does not hold this.
    pub(crate) fn denied(&self, peer: &PeerId, prefix: u32) {
        lock(&self.spread.hearsay).denied(prefix, peer);
    }

    /// Who holds an entry by hearsay.
    pub(crate) fn hearsay(&self, prefix: u32) -> Holders {
        let hearsay = lock(&self.spread.hearsay);
        if hearsay.is_empty() { Holders::new() } else { hearsay.who_has(prefix, self.now()) }
    }

    /// Whether a peer never announced this entry here, and need not have: only a portion of its holdings is told here.
    pub(crate) fn is_hearsay(&self, peer: &PeerId, prefix: u32) -> bool {
        let hints = read(&self.hints);
        hints.knows_part(peer) && !hints.announces(peer, prefix)
    }
}

fn is_silent(link: &Link) -> bool {
    link.silent.load(Ordering::Relaxed)
}
