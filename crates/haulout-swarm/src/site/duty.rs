//! One agent as a home: how much it does for others at once.

use std::collections::BTreeMap;

use crate::PeerId;

/// How much an agent does for others at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DutyLimits {
    /// Streams of segments to peers at once, relayed or fetched: each costs a task and a frame in memory.
    pub streams: u32,
    /// The same for one peer.
    pub streams_per_peer: u32,
    /// Segments being fetched from outside at once because peers asked. Beyond it the answer is "busy", and the next in
    /// the ranking is asked: a hot home sheds load.
    pub fetches: u32,
}

impl Default for DutyLimits {
    fn default() -> Self {
        // Nix asks for up to 25 NARs side by side; a hundred machines that follow one home ask for more, in turn.
        Self { streams: 1_024, streams_per_peer: 64, fetches: 64 }
    }
}

/// Whether a request is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Serve it. [`Duty::done`] must follow.
    Welcome,
    /// At a limit.
    Busy,
    /// This agent does not fetch for others now, and has nothing of it.
    Unwilling,
}

/// Counts what is under way for others.
#[derive(Clone, Debug, Default)]
pub struct Duty {
    limits: DutyLimits,
    willing: bool,
    peers: BTreeMap<PeerId, u32>,
    streams: u32,
    fetches: u32,
}

impl Duty {
    /// Nothing under way.
    #[must_use]
    pub fn new(limits: DutyLimits, willing: bool) -> Self {
        Self { limits, willing, ..Self::default() }
    }

    /// Whether this agent fetches for others from now on. What is under way goes on.
    pub fn set_willing(&mut self, willing: bool) {
        self.willing = willing;
    }

    /// Whether this agent fetches for others.
    #[must_use]
    pub fn is_willing(&self) -> bool {
        self.willing
    }

    /// Streams to peers under way.
    #[must_use]
    pub fn streams(&self) -> u32 {
        self.streams
    }

    /// A peer asks. `fresh`: nothing is here of it, it would have to be fetched for the peer.
    pub fn ask(&mut self, peer: PeerId, fresh: bool) -> Verdict {
        let of_peer = self.peers.get(&peer).copied().unwrap_or(0);
        if fresh && !self.willing {
            return Verdict::Unwilling;
        }
        if self.streams >= self.limits.streams
            || of_peer >= self.limits.streams_per_peer
            || (fresh && self.fetches >= self.limits.fetches)
        {
            return Verdict::Busy;
        }
        self.streams += 1;
        *self.peers.entry(peer).or_default() += 1;
        Verdict::Welcome
    }

    /// A stream that was welcome has ended.
    pub fn done(&mut self, peer: &PeerId) {
        self.streams = self.streams.saturating_sub(1);
        if let Some(count) = self.peers.get_mut(peer) {
            *count -= 1;
            if *count == 0 {
                self.peers.remove(peer);
            }
        }
    }

    /// A fetch for others began.
    pub fn fetching(&mut self) {
        self.fetches += 1;
    }

    /// A fetch for others ended.
    pub fn fetched(&mut self) {
        self.fetches = self.fetches.saturating_sub(1);
    }
}
