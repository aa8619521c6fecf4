//! One segment on one agent: whom to ask for it, when to take over, when to go outside oneself.
//!
//! The caller runs one attempt at a time: [`Follow::next`] names it, the caller reports what comes of it, and asks again
//! after every report and at [`Follow::wake_at`]. A new attempt ends the one before.

use std::time::Duration;

use smallvec::SmallVec;

use super::Turn;
use crate::{Now, PeerId};

/// Each source that is too slow doubles the patience with the next, as often as this: where all are slow, something that they
/// share is, and changing from one to the other makes it no faster.
const PATIENCE_DOUBLES_MAX: u32 = 3;

/// The patience with the outside, in times of that with a peer: 24 s, more than its client takes to notice a dead connection
/// (10 s) and go on with another, less than a reader bears with a file that stands still (30 s).
const OUTSIDE_PATIENCE: u32 = 3;

/// The clocks of one [`Follow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowConfig {
    /// A source that has sent nothing at all, not even that it waits, for so long has stalled. A home says that it waits
    /// every [`FollowConfig::heartbeat`].
    pub stall_after: Duration,
    /// How often a home that waits for the outside says so.
    pub heartbeat: Duration,
    /// A source that says it waits but brings nothing is left after so long: longer than an upstream takes to answer,
    /// short against the patience of Nix.
    pub patience: Duration,
    /// The slowest pace, in bytes per second, that a source may keep over a time of patience.
    pub pace_min: u64,
    /// Peers that fail, one after the other, before this agent goes outside although it is not its turn. Silent ones count
    /// half, and as many that refuse at once do not count.
    pub peers_max: usize,
    /// Then only the first `8 << n` of the ranking go outside after `peers_max + n` failures, and all others after twice
    /// `peers_max`: the outside may be slow for everybody.
    pub elect: bool,
    /// Peers asked "only if you have it" before this agent goes outside for anything but a document.
    pub peeks_max: usize,
    /// How long such a peer may be silent at first: longer than [`FollowConfig::heartbeat`].
    pub peek_after: Duration,
    /// Peers asked "only if you have it" by an agent that takes the segment from nobody else ([`Follow::kept`]).
    pub kept_max: usize,
    /// How long a home that is at a limit is left alone before it is asked again.
    pub busy_rest: Duration,
    /// How long homes that are at a limit are waited for, all together; zero: they are left at once. Where they are, the line
    /// outside is what is narrow: somebody else who fetches the segment makes it no faster, and takes it a second time. Less
    /// than the 30 s for which a reader bears with a file that stands still.
    pub busy_for: Duration,
    /// The same for a document, with Nix waiting for the answer.
    pub busy_for_document: Duration,
    /// Whether a peer's word that the outside does not have it is believed. If not, this agent asks the outside itself.
    pub believe_absent: bool,
}

impl Default for FollowConfig {
    fn default() -> Self {
        Self {
            stall_after: Duration::from_millis(1_500),
            heartbeat: Duration::from_millis(400),
            patience: Duration::from_secs(8),
            pace_min: 4 << 10,
            peers_max: 3,
            elect: true,
            peeks_max: 8,
            peek_after: Duration::from_millis(600),
            kept_max: 6,
            busy_rest: Duration::from_millis(500),
            busy_for: Duration::from_secs(20),
            busy_for_document: Duration::from_millis(1_500),
            believe_absent: false,
        }
    }
}

/// Where an attempt gets its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// From a peer, which fetches or relays.
    Peer(PeerId),
    /// From outside, by this agent.
    Outside,
}

/// Names an attempt; reports about an earlier one are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(u32);

/// What the caller is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Stop the last attempt and begin this one, at byte `from` of the segment.
    Fetch {
        /// To report about it.
        attempt: Attempt,
        /// Where to get it.
        origin: Origin,
        /// The peer is to give it only if it has it, or is itself getting it from outside.
        held: bool,
        /// First byte wanted.
        from: u64,
    },
    /// Nothing new.
    Wait,
    /// All bytes are there.
    Complete,
    /// The outside does not have it.
    Absent,
    /// Everybody failed, and the outside too.
    Failed,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All bytes came. For a document, the end of it.
    Complete,
    /// The outside was asked and does not have it.
    Absent,
    /// The peer does not fetch this: unwilling, not configured for it, or it does not know the object.
    Refused,
    /// The peer is at a limit.
    Busy,
    /// The outside could not be reached, or broke off.
    OutsideFailed,
    /// The peer went away, or the stream broke.
    Cut,
    /// What came is wrong.
    Wrong,
}

/// Why an agent goes outside itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// A peer asked for the segment.
    Asked,
    /// It is this agent's own turn, or there is nobody else.
    Turn,
    /// A peer refused it.
    Refused,
    /// A peer was at a limit.
    Busy,
    /// A peer fell silent, or was too slow.
    Late,
    /// A peer went away, or broke off.
    Cut,
    /// A peer says that the outside has failed it, or does not have it.
    Failed,
    /// A peer's bytes were wrong.
    Wrong,
    /// The peer that was to fetch it waited for this agent.
    Mutual,
}

impl Why {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Asked,
        Self::Turn,
        Self::Refused,
        Self::Busy,
        Self::Late,
        Self::Cut,
        Self::Failed,
        Self::Wrong,
        Self::Mutual,
    ];

    /// For reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Turn => "turn",
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::Late => "late",
            Self::Cut => "cut",
            Self::Failed => "failed",
            Self::Wrong => "wrong",
            Self::Mutual => "mutual",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Running {
    attempt: Attempt,
    origin: Origin,
    held: bool,
    /// Last sign of life, and whether there was any.
    alive_at: Now,
    heard: bool,
    /// Since when the pace is measured, and how much was there then.
    measured: (Now, u64),
}

/// A home at a limit that is asked again.
#[derive(Clone, Copy, Debug)]
struct Rest {
    peer: PeerId,
    /// When; `None` before the clock was looked at.
    until: Option<Now>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Open,
    Complete,
    Absent,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It wants the segment itself.
    Wants,
    /// This peer asked for it.
    Home { asker: PeerId },
    /// It wants the segment if somebody has it.
    Takes,
}

/// The plan for one segment on one agent.
#[derive(Clone, Debug)]
pub struct Follow {
    config: FollowConfig,
    me: PeerId,
    role: Role,
    asked: SmallVec<[PeerId; 4]>,
    /// Asked only for what they have.
    peeked: SmallVec<[PeerId; 3]>,
    /// Peers that failed, that refused, and that were silent.
    failed: usize,
    refused: usize,
    silent: usize,
    /// Sources that were there and brought too little.
    slow: u32,
    went_outside: bool,
    /// The outside is next, whatever the ranking says.
    must_go: bool,
    running: Option<Running>,
    rest: Option<Rest>,
    /// When a home was at a limit for the first time.
    busy_since: Option<Now>,
    /// Why the next attempt is made: what became of the one before.
    why: Why,
    /// Length of the segment; `None` for a document.
    len: Option<u64>,
    have: u64,
    verdict: Verdict,
    attempts: u32,
    outside_fetches: u32,
}

impl Follow {
    /// A plan for an agent that wants the segment. `have` bytes from the segment's start are there.
    #[must_use]
    pub fn new(me: PeerId, len: Option<u64>, have: u64, config: FollowConfig) -> Self {
        Self::with_role(me, Role::Wants, len, have, config)
    }

    /// A plan for an agent that was asked for the segment: it goes outside, unless somebody before it has it.
    #[must_use]
    pub fn home(
        me: PeerId,
        asker: PeerId,
        len: Option<u64>,
        have: u64,
        config: FollowConfig,
    ) -> Self {
        Self::with_role(me, Role::Home { asker }, len, have, config)
    }

    /// A plan for an agent that can have the same elsewhere, and takes the segment only from one of its homes that has it: it
    /// does not go outside, and nobody does for it. Once a peer relies on it, it is as good as [`Follow::home`].
    #[must_use]
    pub fn kept(me: PeerId, len: Option<u64>, have: u64, config: FollowConfig) -> Self {
        Self::with_role(me, Role::Takes, len, have, config)
    }

    fn with_role(
        me: PeerId,
        role: Role,
        len: Option<u64>,
        have: u64,
        config: FollowConfig,
    ) -> Self {
        let verdict =
            if len.is_some_and(|len| have >= len) { Verdict::Complete } else { Verdict::Open };
        Self {
            config,
            me,
            role,
            asked: SmallVec::new(),
            peeked: SmallVec::new(),
            failed: 0,
            refused: 0,
            silent: 0,
            slow: 0,
            went_outside: false,
            must_go: false,
            running: None,
            rest: None,
            busy_since: None,
            why: if matches!(role, Role::Home { .. }) { Why::Asked } else { Why::Turn },
            len,
            have,
            verdict,
            attempts: 0,
            outside_fetches: 0,
        }
    }

    /// What to do now. `turns` is asked when a new attempt begins: who is there at that moment, in the order of turns, this
    /// agent among them if it is willing.
    pub fn next(&mut self, now: Now, turns: impl FnOnce() -> Vec<Turn>) -> Step {
        match self.verdict {
            Verdict::Complete => return Step::Complete,
            Verdict::Absent => return Step::Absent,
            Verdict::Failed => return Step::Failed,
            Verdict::Open => {}
        }
        if let Some(running) = self.running {
            if !self.is_late(&running, now) {
                return Step::Wait;
            }
            let silent = now >= running.alive_at + self.silence(&running);
            self.count(&running, silent);
            self.note(&running, Why::Late);
            self.slow += u32::from(!silent);
            self.running = None;
        }
        let mut again = None;
        if let Some(rest) = &mut self.rest {
            let until = *rest.until.get_or_insert(now + self.config.busy_rest);
            if now < until {
                return Step::Wait;
            }
            let since = *self.busy_since.get_or_insert(now);
            again = Some(rest.peer).filter(|_| now < since + self.busy_for());
            self.failed += usize::from(again.is_none());
            self.rest = None;
        }
        let turns = turns();
        let again = again.filter(|peer| turns.iter().any(|turn| turn.peer == *peer));
        let again = again.map(|peer| (Origin::Peer(peer), false));
        match again.or_else(|| self.choose(&turns)) {
            Some((origin, held)) => self.begin(origin, held, now),
            None => {
                self.verdict = Verdict::Failed;
                Step::Failed
            }
        }
    }

    /// Whom to try next, and whether only for what it has.
    fn choose(&self, turns: &[Turn]) -> Option<(Origin, bool)> {
        let outside = (!self.went_outside).then_some((Origin::Outside, false));
        if self.must_go && outside.is_some() {
            return outside;
        }
        match self.role {
            Role::Wants => {}
            Role::Takes => return self.take(turns),
            Role::Home { .. } => {
                return outside.and_then(|outside| self.peek(turns).or(Some(outside)));
            }
        }
        let own = turns.iter().position(|turn| turn.peer == self.me);
        let next = turns
            .iter()
            .enumerate()
            .find(|(_, turn)| turn.peer != self.me && !self.asked.contains(&turn.peer))
            .map(|(place, turn)| (place, (Origin::Peer(turn.peer), false)));
        let Some(outside) = outside else {
            let enough = self.asked.len() >= 2 * self.config.peers_max;
            return next.filter(|_| !enough).map(|(_, peer)| peer);
        };
        match next {
            // Its own turn.
            Some((place, _)) if own.is_some_and(|own| own < place) => {
                self.peek(turns).or(Some(outside))
            }
            Some((_, peer)) if !self.has_waited_enough(own) => Some(peer),
            Some(_) => Some(outside),
            None => self.peek(turns).or(Some(outside)),
        }
    }

    /// Somebody who may have it from the time before this agent came.
    fn peek(&self, turns: &[Turn]) -> Option<(Origin, bool)> {
        let is_asker = |peer: &PeerId| self.role == Role::Home { asker: *peer };
        // A document has a few kilobytes: it is not worth the round trips, with Nix waiting for the answer.
        if self.len.is_none() || self.peeked.len() >= self.config.peeks_max {
            return None;
        }
        let mut may = turns.iter().filter(|turn| turn.elder && turn.peer != self.me);
        may.find(|Turn { peer, .. }| {
            !is_asker(peer) && !self.peeked.contains(peer) && !self.asked.contains(peer)
        })
        .map(|turn| (Origin::Peer(turn.peer), true))
    }

    /// The next home that may have it.
    fn take(&self, turns: &[Turn]) -> Option<(Origin, bool)> {
        let mut may = turns.iter().map(|turn| turn.peer);
        may.find(|peer| *peer != self.me && !self.peeked.contains(peer))
            .filter(|_| self.peeked.len() < self.config.kept_max)
            .map(|peer| (Origin::Peer(peer), true))
    }

    /// Whether so many have failed that this agent goes outside although others are before it.
    fn has_waited_enough(&self, own: Option<usize>) -> bool {
        let (failures, most) = (self.failed + self.silent / 2, self.config.peers_max);
        if failures + self.refused >= 2 * most {
            return true;
        }
        let Some(extra) = failures.checked_sub(most) else { return false };
        !self.config.elect || own.is_some_and(|own| own < 8 << extra)
    }

    fn begin(&mut self, origin: Origin, held: bool, now: Now) -> Step {
        let attempt = Attempt(self.attempts);
        self.attempts += 1;
        match origin {
            Origin::Outside => {
                self.outside_fetches += 1;
                self.went_outside = true;
            }
            Origin::Peer(peer) if held => self.peeked.push(peer),
            Origin::Peer(peer) if self.asked.contains(&peer) => {}
            Origin::Peer(peer) => self.asked.push(peer),
        }
        if self.len.is_none() {
            // A document begins anew with every source: two of them need not be the same.
            self.have = 0;
        }
        let measured = (now, self.have);
        self.running =
            Some(Running { attempt, origin, held, alive_at: now, heard: false, measured });
        Step::Fetch { attempt, origin, held, from: self.have }
    }

    /// Books an attempt at a peer that came to nothing.
    fn count(&mut self, running: &Running, silent: bool) {
        match running.origin {
            Origin::Peer(_) if running.held => {}
            Origin::Peer(_) if silent => self.silent += 1,
            Origin::Peer(_) => self.failed += 1,
            Origin::Outside => {}
        }
    }

    /// What the next attempt follows from. Who was asked only for what it has changes nothing about that.
    fn note(&mut self, running: &Running, why: Why) {
        if !running.held {
            self.why = why;
        }
    }

    fn busy_for(&self) -> Duration {
        match self.len {
            Some(_) => self.config.busy_for,
            None => self.config.busy_for_document,
        }
    }

    /// How long a peer may give no sign of life.
    fn silence(&self, running: &Running) -> Duration {
        let peeks = running.held && !running.heard;
        if peeks { self.config.peek_after } else { self.config.stall_after }
    }

    fn is_late(&self, running: &Running, now: Now) -> bool {
        now >= self.deadline(running)
    }

    /// When a source counts as stalled unless it does something before.
    fn deadline(&self, running: &Running) -> Now {
        let (since, _) = running.measured;
        let patience = since + self.config.patience * (1 << self.slow.min(PATIENCE_DOUBLES_MAX));
        match running.origin {
            // The outside has its own clocks below this one. What a home gives up all its followers lose, and begin anew.
            Origin::Outside => since + self.config.patience * OUTSIDE_PATIENCE,
            Origin::Peer(_) => patience.min(running.alive_at + self.silence(running)),
        }
    }

    /// When to call [`Follow::next`] if nothing happens before.
    #[must_use]
    pub fn wake_at(&self) -> Option<Now> {
        if self.verdict != Verdict::Open {
            return None;
        }
        let rests = self.rest.and_then(|rest| rest.until);
        rests.or_else(|| self.running.as_ref().map(|running| self.deadline(running)))
    }

    fn current(&mut self, attempt: Attempt) -> Option<&mut Running> {
        self.running.as_mut().filter(|running| running.attempt == attempt)
    }

    /// The source accepted, or says that it still waits.
    pub fn waiting(&mut self, attempt: Attempt, now: Now) {
        if let Some(running) = self.current(attempt) {
            running.alive_at = now;
            running.heard = true;
        }
    }

    /// Bytes of the segment up to `upto` are there.
    pub fn progress(&mut self, attempt: Attempt, upto: u64, now: Now) {
        let needed = self.config.pace_min * self.config.patience.as_secs().max(1);
        let len = self.len;
        let Some(running) = self.current(attempt) else { return };
        running.alive_at = now;
        running.heard = true;
        // A pace is kept anew each time enough has come; a trickle does not put the clock back.
        let enough = running.measured.1 + needed;
        if upto >= enough || len.is_some_and(|len| upto >= len) {
            running.measured = (now, upto);
        }
        self.have = self.have.max(upto);
        if len.is_some_and(|len| self.have >= len) {
            self.verdict = Verdict::Complete;
        }
    }

    /// An attempt is over.
    pub fn ended(&mut self, attempt: Attempt, end: End) {
        let Some(running) = self.current(attempt).map(|running| *running) else { return };
        self.running = None;
        self.note(
            &running,
            match end {
                End::Refused => Why::Refused,
                End::Busy => Why::Busy,
                End::Absent | End::OutsideFailed => Why::Failed,
                End::Complete | End::Cut => Why::Cut,
                End::Wrong => Why::Wrong,
            },
        );
        match end {
            End::Complete if self.len.is_none_or(|len| self.have >= len) => {
                self.verdict = Verdict::Complete;
            }
            End::Absent if running.origin == Origin::Outside => self.verdict = Verdict::Absent,
            End::Absent if running.held => {}
            End::Absent if self.config.believe_absent => self.verdict = Verdict::Absent,
            End::Absent => self.must_go = true,
            End::Refused if !running.held => {
                self.refused += usize::from(running.origin != Origin::Outside);
            }
            End::Wrong => {
                self.have = 0;
                self.count(&running, false);
            }
            End::Refused => {}
            End::Cut => self.count(&running, true),
            End::Busy
                if !running.held && self.role == Role::Wants && !self.busy_for().is_zero() =>
            {
                if let Origin::Peer(peer) = running.origin {
                    self.rest = Some(Rest { peer, until: None });
                }
            }
            End::Complete | End::Busy | End::OutsideFailed => self.count(&running, false),
        }
    }

    /// A peer has gone.
    pub fn left(&mut self, peer: &PeerId) {
        if let Some(running) = self.running.filter(|one| one.origin == Origin::Peer(*peer)) {
            self.count(&running, true);
            self.note(&running, Why::Cut);
            self.running = None;
        }
        if self.rest.is_some_and(|rest| rest.peer == *peer) {
            self.rest = None;
            self.silent += 1;
        }
    }

    /// A peer asks this agent for the segment. If it is the one that this agent waits for, nobody would ever fetch: this
    /// agent goes outside.
    pub fn relied_on_by(&mut self, peer: &PeerId) {
        if self.role == Role::Takes {
            self.role = Role::Home { asker: *peer };
            self.why = Why::Asked;
        }
        let waits_for_it =
            self.running.is_some_and(|running| running.origin == Origin::Peer(*peer))
                || self.rest.is_some_and(|rest| rest.peer == *peer);
        if waits_for_it {
            (self.running, self.rest) = (None, None);
            self.why = Why::Mutual;
            self.must_go = true;
        }
    }

    /// Bytes of the segment that are there.
    #[must_use]
    pub fn have(&self) -> u64 {
        self.have
    }

    /// Where the bytes come from now.
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        self.running.map(|running| running.origin)
    }

    /// Whether this agent gets it from outside now: then others can rely on it without asking in circles.
    #[must_use]
    pub fn is_outside(&self) -> bool {
        self.origin() == Some(Origin::Outside)
    }

    /// Why the attempt that runs is made: what became of the one before it.
    #[must_use]
    pub fn why(&self) -> Why {
        self.why
    }

    /// How often this agent went outside for it.
    #[must_use]
    pub fn outside_fetches(&self) -> u32 {
        self.outside_fetches
    }
}
