//! One segment on one agent: whom to ask for it, when to take over, when to go outside oneself.
//!
//! The caller runs one attempt at a time: [`Follow::next`] names it, the caller reports what comes of it, and asks again
//! after every report and at [`Follow::wake_at`]. A new attempt ends the one before.

use std::time::Duration;

use smallvec::SmallVec;

use crate::{Now, PeerId};

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
    /// Peers asked, one after the other, before this agent goes outside itself. Those that refuse at once do not count, up to
    /// as many again.
    pub peers_max: usize,
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

#[derive(Clone, Copy, Debug)]
struct Running {
    attempt: Attempt,
    origin: Origin,
    /// Last sign of life.
    alive_at: Now,
    /// Since when the pace is measured, and how much was there then.
    measured: (Now, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Open,
    Complete,
    Absent,
    Failed,
}

/// The plan for one segment on one agent.
#[derive(Clone, Debug)]
pub struct Follow {
    config: FollowConfig,
    /// Whom to try, in order.
    queue: SmallVec<[Origin; 4]>,
    /// How many of `queue` were tried.
    tried: usize,
    running: Option<Running>,
    /// Whether the outside stands in the queue at this agent's own turn, and not only because enough others were before.
    own_turn: bool,
    /// Length of the segment; `None` for a document.
    len: Option<u64>,
    have: u64,
    verdict: Verdict,
    attempts: u32,
    outside_fetches: u32,
    /// Why the next attempt is made: what became of the one before.
    why: Why,
}

impl Follow {
    /// A plan for an agent that wants the segment: `ranking` is in the order of turns, `me` in it if this agent is
    /// willing. `have` bytes from the segment's start are there.
    #[must_use]
    pub fn new(
        me: PeerId,
        ranking: &[PeerId],
        len: Option<u64>,
        have: u64,
        config: FollowConfig,
    ) -> Self {
        let mut queue = SmallVec::new();
        let mut own = None;
        for peer in ranking {
            if *peer == me {
                own.get_or_insert(queue.len());
            } else {
                queue.push(Origin::Peer(*peer));
            }
        }
        // Oneself at one's turn, and at the latest when enough others have failed.
        let own_turn = own.is_some_and(|own| own <= config.peers_max);
        let own = own.unwrap_or(usize::MAX).min(config.peers_max).min(queue.len());
        queue.insert(own, Origin::Outside);
        queue.truncate(2 * config.peers_max + 1);
        Self { own_turn, ..Self::with_queue(queue, len, have, config) }
    }

    /// A plan for an agent that was asked for the segment: it goes outside and asks nobody.
    #[must_use]
    pub fn home(len: Option<u64>, have: u64, config: FollowConfig) -> Self {
        let queue = SmallVec::from_slice(&[Origin::Outside]);
        Self { why: Why::Asked, ..Self::with_queue(queue, len, have, config) }
    }

    fn with_queue(
        queue: SmallVec<[Origin; 4]>,
        len: Option<u64>,
        have: u64,
        config: FollowConfig,
    ) -> Self {
        let verdict =
            if len.is_some_and(|len| have >= len) { Verdict::Complete } else { Verdict::Open };
        Self {
            config,
            queue,
            tried: 0,
            running: None,
            own_turn: true,
            len,
            have,
            verdict,
            attempts: 0,
            outside_fetches: 0,
            why: Why::Turn,
        }
    }

    /// What to do now.
    pub fn next(&mut self, now: Now) -> Step {
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
            self.running = None;
            self.why = Why::Late;
        }
        let Some(origin) = self.queue.get(self.tried).copied() else {
            self.verdict = Verdict::Failed;
            return Step::Failed;
        };
        self.tried += 1;
        self.begin(origin, now)
    }

    fn begin(&mut self, origin: Origin, now: Now) -> Step {
        let attempt = Attempt(self.attempts);
        self.attempts += 1;
        self.outside_fetches += u32::from(origin == Origin::Outside);
        if self.len.is_none() {
            // A document begins anew with every source: two of them need not be the same.
            self.have = 0;
        }
        self.running = Some(Running { attempt, origin, alive_at: now, measured: (now, self.have) });
        Step::Fetch { attempt, origin, from: self.have }
    }

    fn is_late(&self, running: &Running, now: Now) -> bool {
        now >= self.deadline(running)
    }

    /// When a source counts as stalled unless it does something before.
    fn deadline(&self, running: &Running) -> Now {
        let (since, _) = running.measured;
        let patience = since + self.config.patience;
        match running.origin {
            // The outside has its own clocks below this one.
            Origin::Outside => patience,
            Origin::Peer(_) => patience.min(running.alive_at + self.config.stall_after),
        }
    }

    /// When to call [`Follow::next`] if nothing happens before.
    #[must_use]
    pub fn wake_at(&self) -> Option<Now> {
        let running = self.running.as_ref().filter(|_| self.verdict == Verdict::Open);
        running.map(|running| self.deadline(running))
    }

    fn current(&mut self, attempt: Attempt) -> Option<&mut Running> {
        self.running.as_mut().filter(|running| running.attempt == attempt)
    }

    /// The source accepted, or says that it still waits.
    pub fn waiting(&mut self, attempt: Attempt, now: Now) {
        if let Some(running) = self.current(attempt) {
            running.alive_at = now;
        }
    }

    /// Bytes of the segment up to `upto` are there.
    pub fn progress(&mut self, attempt: Attempt, upto: u64, now: Now) {
        let needed = self.config.pace_min * self.config.patience.as_secs().max(1);
        let len = self.len;
        let Some(running) = self.current(attempt) else { return };
        running.alive_at = now;
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
        let Some(origin) = self.current(attempt).map(|running| running.origin) else { return };
        self.running = None;
        self.why = match end {
            End::Refused => Why::Refused,
            End::Busy => Why::Busy,
            End::Absent | End::OutsideFailed => Why::Failed,
            End::Complete | End::Cut => Why::Cut,
            End::Wrong => Why::Wrong,
        };
        match end {
            End::Complete if self.len.is_none_or(|len| self.have >= len) => {
                self.verdict = Verdict::Complete;
            }
            End::Absent if origin == Origin::Outside || self.config.believe_absent => {
                self.verdict = Verdict::Absent;
            }
            End::Absent => self.go_outside_next(),
            End::Refused => self.one_more_peer(),
            End::Wrong => self.have = 0,
            _ => {}
        }
    }

    /// A peer has gone.
    pub fn left(&mut self, peer: &PeerId) {
        if self.running.is_some_and(|running| running.origin == Origin::Peer(*peer)) {
            self.running = None;
            self.why = Why::Cut;
        }
    }

    /// A peer asks this agent for the segment. If it is the one that this agent waits for, nobody would ever fetch: this
    /// agent goes outside.
    pub fn relied_on_by(&mut self, peer: &PeerId) {
        let waits_for_it =
            self.running.is_some_and(|running| running.origin == Origin::Peer(*peer));
        if waits_for_it {
            self.running = None;
            self.why = Why::Mutual;
            self.go_outside_next();
        }
    }

    /// Puts the outside next in the queue, unless it was tried.
    fn go_outside_next(&mut self) {
        let left = self.queue.get(self.tried..).unwrap_or_default();
        if let Some(place) = left.iter().position(|origin| *origin == Origin::Outside) {
            let place = self.tried + place;
            self.queue.remove(place);
            self.queue.insert(self.tried, Origin::Outside);
        }
    }

    /// A peer that refuses costs a round trip and no patience: the next in the ranking comes before the outside, unless it is
    /// this agent's own turn.
    fn one_more_peer(&mut self) {
        if self.own_turn {
            return;
        }
        let left = self.queue.get_mut(self.tried..).unwrap_or_default();
        if let Some(place) = left.iter().position(|origin| *origin == Origin::Outside)
            && place + 1 < left.len()
        {
            left.swap(place, place + 1);
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
