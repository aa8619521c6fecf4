//! A large NAR from several sources at once, every group checked against a
//! tree as it arrives.
//!
//! One task runs it all: the plan says who fetches what, the feeds are polled
//! side by side, what arrives out of order waits in a bounded window. While
//! the readers are behind, nothing is polled, and QUIC holds the senders.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{AbortHandle, Abortable};
use futures_util::stream::FuturesUnordered;
use haulout_mesh::{NarKey, NarTree};
use haulout_swarm::plan::{NarPlan, Next, PlanConfig, RequestId, Segment};
use haulout_swarm::{Now, PeerId};
use smallvec::SmallVec;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::claims::HOLDERS_MAX;
use super::feed::{Feed, FeedError};
use super::gate::{Checked, GROUP};
use super::ring::CutReason;
use super::roster::Roster;
use super::sink::Sink;

/// How often a running transfer looks for sources that came in the meantime.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A source that brought nothing for so long gets no new segments, and others
/// may take its old ones. The mesh decides whether it is dead.
const STALLED: Duration = Duration::from_millis(1500);

/// A segment younger than this is never asked of a second source. Nix fetches many NARs side by
/// side, so a segment that takes 9 ms alone on a gigabit link takes a quarter of a second among
/// its like, and a copy would only slow them all: at 50 ms three sources sent 29 % twice.
const COPY_AFTER: Duration = Duration::from_millis(500);

type Step = Pin<Box<dyn Future<Output = (RequestId, PeerId, Outcome)> + Send>>;

enum Outcome {
    Got(Box<Feed>, Vec<Checked>),
    Done,
    Failed(FeedError),
}

/// Whose bytes may be used.
pub(crate) enum Sources {
    /// Only of these, who promised this very tree.
    Promised(Vec<PeerId>),
    /// Of anybody: the tree is known to be right.
    Anybody,
}

pub(crate) struct Multi<'t> {
    shared: Arc<Shared>,
    key: NarKey,
    tree: Arc<NarTree>,
    sources: Sources,
    roster: &'t mut Roster,
    sink: &'t mut Sink,
    plan: NarPlan<PeerId>,
    begun: Instant,
    running: FuturesUnordered<Abortable<Step>>,
    aborts: HashMap<RequestId, AbortHandle>,
    /// What arrived before its turn, by offset.
    early: BTreeMap<u64, Checked>,
}

impl<'t> Multi<'t> {
    /// Fetches what `sink` still lacks. `window` bytes may wait out of order.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        key: NarKey,
        claim: (Arc<NarTree>, Sources),
        roster: &'t mut Roster,
        sink: &'t mut Sink,
        window: u64,
    ) -> Self {
        let config = PlanConfig {
            window_bytes: window,
            stall_after: STALLED,
            hedge_after: COPY_AFTER,
            ..PlanConfig::default()
        };
        Self {
            shared: Arc::clone(shared),
            key,
            tree: claim.0,
            sources: claim.1,
            roster,
            plan: NarPlan::new(key.nar_size, sink.at(), config),
            sink,
            begun: Instant::now(),
            running: FuturesUnordered::new(),
            aborts: HashMap::new(),
            early: BTreeMap::new(),
        }
    }

    fn now(&self) -> Now {
        Now::from_start(self.begun.elapsed())
    }

    /// Runs until the sink is full or nobody is left to deliver.
    pub(crate) async fn run(mut self) -> Result<(), CutReason> {
        let mut look_at = Instant::now();
        let mut lonely_since = None;
        while !self.sink.is_full() {
            if Instant::now() >= look_at || self.plan.sources().next().is_none() {
                self.look();
                look_at = Instant::now() + LOOK_EVERY;
            }
            self.hand_out();
            if self.running.is_empty() {
                let since = *lonely_since.get_or_insert_with(Instant::now);
                if self.roster.is_exhausted() || since.elapsed() >= self.roster.patience() {
                    return Err(CutReason::NoSource);
                }
                tokio::time::sleep(super::roster::LOOK_AGAIN).await;
                continue;
            }
            lonely_since = None;
            let wake =
                self.plan.wake_at(self.now()).map_or(look_at, |at| self.begun + at.since_start());
            tokio::select! {
                biased;
                Some(step) = self.running.next() => {
                    if let Ok((id, peer, outcome)) = step {
                        self.heard(id, peer, outcome).await;
                    }
                }
                () = sleep_until(wake.min(look_at)) => {
                    let _ = self.plan.stalled(self.now());
                }
            }
        }
        Ok(())
    }

    /// Takes in the sources there are now.
    fn look(&mut self) {
        let now = self.now();
        for peer in self.roster.usable().into_iter().take(HOLDERS_MAX) {
            let known = self.plan.sources().any(|(known, _)| *known == peer);
            let welcome = match &self.sources {
                Sources::Anybody => true,
                Sources::Promised(promised) => promised.contains(&peer),
            };
            if welcome && !known && self.plan.add_source(peer, now) {
                self.roster.using(peer);
            }
        }
    }

    /// Asks everybody who is not busy for the next segment.
    fn hand_out(&mut self) {
        for peer in self.sources_now() {
            while let Next::Fetch(segment) = self.plan.next(peer, self.now()) {
                self.start(peer, segment);
            }
        }
    }

    fn sources_now(&self) -> SmallVec<[PeerId; 8]> {
        self.plan.sources().map(|(peer, _)| *peer).collect()
    }

    fn start(&mut self, peer: PeerId, segment: Segment) {
        let (shared, key, tree) = (Arc::clone(&self.shared), self.key, Arc::clone(&self.tree));
        let range = segment.offset..segment.offset + segment.len;
        let step: Step = Box::pin(async move {
            let opened = Feed::open(&*shared.peers, peer, key, range, Some(tree)).await;
            match opened {
                Ok(feed) => advance(segment.id, peer, Box::new(feed)).await,
                Err(error) => (segment.id, peer, Outcome::Failed(error)),
            }
        });
        self.run_step(segment.id, step);
    }

    fn run_step(&mut self, id: RequestId, step: Step) {
        let (abort, registration) = AbortHandle::new_pair();
        self.aborts.insert(id, abort);
        self.running.push(Abortable::new(step, registration));
    }

    async fn heard(&mut self, id: RequestId, peer: PeerId, outcome: Outcome) {
        self.aborts.remove(&id);
        match outcome {
            Outcome::Got(feed, good) => {
                let mut finished = false;
                let mut bytes = 0;
                for checked in good {
                    bytes += checked.bytes.len() as u64;
                    finished |= self.keep(id, checked);
                }
                if self.shared.took(bytes).await {
                    // Waiting for our own limit is no source's fault.
                    let now = self.now();
                    for source in self.sources_now() {
                        self.plan.heard(&source, now);
                    }
                }
                if !finished {
                    self.run_step(id, Box::pin(advance(id, peer, feed)));
                }
                self.deliver().await;
            }
            Outcome::Done => {
                // The last bytes finished it already, unless it was a copy.
                self.plan.failed(id);
            }
            Outcome::Failed(error) => self.lost(id, peer, &error),
        }
    }

    /// Keeps what is new; says whether the request has done its duty.
    fn keep(&mut self, id: RequestId, checked: Checked) -> bool {
        let end = checked.offset + checked.bytes.len() as u64;
        let progress = self.plan.progress(id, end, self.now());
        for (_, other) in progress.cancel {
            self.stop(other);
        }
        if !progress.fresh.is_empty() {
            let fresh = checked.from(progress.fresh.start);
            self.early.insert(fresh.offset, fresh);
        }
        progress.finished
    }

    /// Hands on everything whose turn it is.
    async fn deliver(&mut self) {
        while let Some(first) = self.early.first_entry() {
            if *first.key() != self.sink.at() {
                break;
            }
            self.sink.take(first.remove()).await;
            self.plan.consumed(self.sink.at());
        }
    }

    fn lost(&mut self, id: RequestId, peer: PeerId, error: &FeedError) {
        self.plan.failed(id);
        self.roster.failed(peer, error);
        if !self.roster.usable().contains(&peer) {
            for other in self.plan.remove_source(&peer) {
                self.stop(other);
            }
        }
        self.shared.stats.replaced.one();
    }

    fn stop(&mut self, id: RequestId) {
        if let Some(abort) = self.aborts.remove(&id) {
            abort.abort();
        }
    }
}

async fn advance(id: RequestId, peer: PeerId, mut feed: Box<Feed>) -> (RequestId, PeerId, Outcome) {
    match feed.next().await {
        Ok(Some(good)) => (id, peer, Outcome::Got(feed, good)),
        Ok(None) => (id, peer, Outcome::Done),
        Err(error) => (id, peer, Outcome::Failed(error)),
    }
}

impl Checked {
    /// The part from `offset` on (a group boundary within).
    pub(crate) fn from(mut self, offset: u64) -> Self {
        let skip = offset.saturating_sub(self.offset);
        if skip > 0 {
            let bytes =
                usize::try_from(skip).map_or(self.bytes.len(), |skip| skip.min(self.bytes.len()));
            let groups = usize::try_from(skip / GROUP)
                .map_or(self.groups.len(), |n| n.min(self.groups.len()));
            self.bytes = self.bytes.slice(bytes..);
            self.groups.drain(..groups);
            self.offset = offset;
        }
        self
    }
}
