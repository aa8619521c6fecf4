//! One peer.

use std::fmt;
use std::time::Duration;

use super::{
    BACK_OFF_MAX, BACK_OFF_MIN, BAN_MAX, BAN_MIN, FALSE_HINTS_IN_A_ROW_MAX, SILENCE,
    SILENCE_REMEMBERED, STRIKE_FORGIVEN_AFTER,
};
use crate::estimate::{Ewma, Histogram};
use crate::fault::Severity;
use crate::{Fault, Now};

/// Answers shorter than this say nothing about bandwidth, only about delay.
const THROUGHPUT_SAMPLE_BYTES_MIN: u64 = 64 * 1024;

/// What a peer is at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Announced, not connected.
    Discovered,
    /// Connected and responsive.
    Connected,
    /// Asked, and nothing heard for [`SILENCE`].
    Silent {
        /// How long nothing was heard.
        for_now: Duration,
    },
    /// Left alone after failures that need not be its fault.
    BackingOff {
        /// When that ends.
        until: Now,
        /// The failure.
        fault: Fault,
    },
    /// It lied.
    Banned {
        /// When the ban ends.
        until: Now,
        /// The lie.
        fault: Fault,
    },
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Discovered => f.write_str("discovered"),
            Self::Connected => f.write_str("connected"),
            Self::Silent { for_now } => write!(f, "silent for {} ms", for_now.as_millis()),
            Self::BackingOff { fault, .. } => write!(f, "left alone for a while: {fault}"),
            Self::Banned { fault, .. } => write!(f, "banned: {fault}"),
        }
    }
}

/// What follows from a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Counted.
    Noted,
    /// Not asked first until then.
    BackedOff {
        /// End of the pause.
        until: Now,
    },
    /// Not asked at all until then; drop what is under way.
    Banned {
        /// End of the ban.
        until: Now,
    },
}

/// How a complete answer went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// From asking to the first byte.
    pub first_byte: Duration,
    /// From asking (or from the end of the request before it on the same peer, if later) to the last byte.
    pub took: Duration,
    /// Bytes of content received.
    pub bytes: u64,
}

/// What happened with a peer so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Requests sent.
    pub asked: u64,
    /// Complete answers.
    pub answered: u64,
    /// Requests given up.
    pub abandoned: u64,
    /// Bytes of content in complete answers.
    pub bytes: u64,
    /// Bans spoken.
    pub bans: u64,
    /// Faults by [`Fault::index`].
    pub faults: [u64; Fault::ALL.len()],
}

/// A standing measure against a peer.
#[derive(Debug, Clone, Copy)]
struct Measure {
    until: Now,
    fault: Fault,
}

/// All that is known of one peer.
#[derive(Debug, Clone)]
pub struct Peer {
    connected: bool,
    last_heard: Now,
    in_flight: u32,
    /// The oldest moment since which an answer is due and nothing was heard.
    waiting_since: Option<Now>,
    rtt_seconds: Ewma,
    bytes_per_second: Ewma,
    first_byte: Histogram,
    idle_percent: u8,
    ban: Option<Measure>,
    strikes: u32,
    back_off: Option<Measure>,
    failures_in_a_row: u32,
    false_hints_in_a_row: u32,
    counters: Counters,
}

impl Peer {
    pub(super) fn new(now: Now) -> Self {
        Self {
            connected: false,
            last_heard: now,
            in_flight: 0,
            waiting_since: None,
            rtt_seconds: Ewma::default(),
            bytes_per_second: Ewma::default(),
            first_byte: Histogram::default(),
            idle_percent: 100,
            ban: None,
            strikes: 0,
            back_off: None,
            failures_in_a_row: 0,
            false_hints_in_a_row: 0,
            counters: Counters::default(),
        }
    }

    /// Whether a connection stands.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.connected
    }

    /// Requests under way.
    #[must_use]
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// When anything last arrived.
    #[must_use]
    pub const fn last_heard(&self) -> Now {
        self.last_heard
    }

    /// Smoothed round-trip time.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt_seconds.get().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }

    /// Smoothed bandwidth of large answers, bytes per second.
    #[must_use]
    pub const fn throughput(&self) -> Option<f64> {
        self.bytes_per_second.get()
    }

    /// Share of its upload that the peer says is idle, percent.
    #[must_use]
    pub const fn idle_percent(&self) -> u8 {
        self.idle_percent
    }

    /// How long its first bytes took.
    #[must_use]
    pub const fn first_byte(&self) -> &Histogram {
        &self.first_byte
    }

    /// What happened so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Bans that are not yet forgiven.
    #[must_use]
    pub fn strikes(&self, now: Now) -> u32 {
        let Some(ban) = self.ban else { return 0 };
        let forgiven = now.since(ban.until).as_secs() / STRIKE_FORGIVEN_AFTER.as_secs();
        self.strikes.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }

    /// What the peer is now.
    #[must_use]
    pub fn state(&self, now: Now) -> State {
        if let Some(Measure { until, fault }) = self.ban.filter(|ban| now < ban.until) {
            return State::Banned { until, fault };
        }
        if let Some(for_now) = self.silent_for(now) {
            return State::Silent { for_now };
        }
        if let Some(Measure { until, fault }) = self.back_off.filter(|pause| now < pause.until) {
            return State::BackingOff { until, fault };
        }
        if self.connected { State::Connected } else { State::Discovered }
    }

    /// Whether the peer may be asked first.
    #[must_use]
    pub fn is_usable(&self, now: Now) -> bool {
        matches!(self.state(now), State::Discovered | State::Connected)
    }

    pub(super) fn is_banned(&self, now: Now) -> bool {
        self.ban.is_some_and(|ban| now < ban.until)
    }

    pub(super) fn excluded_until(&self, now: Now) -> Option<Now> {
        match self.state(now) {
            State::Banned { until, .. } | State::BackingOff { until, .. } => Some(until),
            _ => None,
        }
    }

    fn silent_for(&self, now: Now) -> Option<Duration> {
        let waited = now.since(self.waiting_since?);
        let remembered = self.in_flight > 0 || waited < SILENCE_REMEMBERED;
        (waited >= SILENCE && remembered).then_some(waited)
    }

    pub(super) fn connected(&mut self, now: Now) {
        self.connected = true;
        self.back_off = None;
        self.failures_in_a_row = 0;
        self.waiting_since = None;
        self.heard(now);
    }

    pub(super) fn disconnected(&mut self) {
        self.connected = false;
    }

    pub(super) fn heard(&mut self, now: Now) {
        self.last_heard = now;
        // What is under way may be a stream that its reader holds up: only a new question waits again.
        self.waiting_since = None;
    }

    pub(super) fn asked(&mut self, now: Now) {
        // Nothing under way and the silence long past: this request is the new try.
        if self.waiting_since.is_none() || (self.in_flight == 0 && self.silent_for(now).is_none()) {
            self.waiting_since = Some(now);
        }
        self.in_flight = self.in_flight.saturating_add(1);
        self.counters.asked += 1;
    }

    pub(super) fn measured_rtt(&mut self, rtt: Duration) {
        self.rtt_seconds.add(rtt.as_secs_f64());
    }

    pub(super) fn announced_idle(&mut self, percent: u8) {
        self.idle_percent = percent.min(100);
    }

    pub(super) fn answered(&mut self, answer: Answer, now: Now) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.heard(now);
        self.first_byte.add(answer.first_byte);
        if answer.bytes >= THROUGHPUT_SAMPLE_BYTES_MIN && !answer.took.is_zero() {
            self.bytes_per_second.add(answer.bytes as f64 / answer.took.as_secs_f64());
        }
        if answer.bytes > 0 {
            self.false_hints_in_a_row = 0;
        }
        self.failures_in_a_row = 0;
        self.back_off = None;
        self.counters.answered += 1;
        self.counters.bytes = self.counters.bytes.saturating_add(answer.bytes);
    }

    pub(super) fn abandoned(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.counters.abandoned += 1;
    }

    pub(super) fn blame(&mut self, fault: Fault, now: Now) -> Verdict {
        self.counters.faults[fault.index()] += 1;
        match fault.severity() {
            Severity::Ban => self.ban(fault, now),
            Severity::BackOff => self.back_off(fault, now),
            Severity::Noted => {
                self.false_hints_in_a_row += 1;
                if self.false_hints_in_a_row < FALSE_HINTS_IN_A_ROW_MAX {
                    return Verdict::Noted;
                }
                self.false_hints_in_a_row = 0;
                self.back_off(fault, now)
            }
        }
    }

    fn ban(&mut self, fault: Fault, now: Now) -> Verdict {
        // Lies already on their way when the ban was spoken are the same lie.
        if let Some(ban) = self.ban.filter(|ban| now < ban.until) {
            return Verdict::Banned { until: ban.until };
        }
        self.strikes = self.strikes(now).saturating_add(1);
        self.counters.bans += 1;
        let until = now + doubled(BAN_MIN, self.strikes - 1, BAN_MAX);
        self.ban = Some(Measure { until, fault });
        Verdict::Banned { until }
    }

    fn back_off(&mut self, fault: Fault, now: Now) -> Verdict {
        // Several requests cut by one event are one failure.
        if let Some(pause) = self.back_off.filter(|pause| now < pause.until) {
            return Verdict::BackedOff { until: pause.until };
        }
        let until = now + doubled(BACK_OFF_MIN, self.failures_in_a_row, BACK_OFF_MAX);
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        self.back_off = Some(Measure { until, fault });
        Verdict::BackedOff { until }
    }
}

/// `first` doubled `times` times, at most `most`.
fn doubled(first: Duration, times: u32, most: Duration) -> Duration {
    2u32.checked_pow(times)
        .and_then(|factor| first.checked_mul(factor))
        .map_or(most, |span| span.min(most))
}
