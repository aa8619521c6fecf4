//! A limit on bytes per second: how long must this wait?
//!
//! A virtual line: every byte occupies it for its time. Whoever sends books first and waits then, so those that share a
//! limiter are served in the order in which they came. A line that was idle lets [`BURST`] of its time through at once.
//!
//! Who asks with many streams at once would get many shares of such a line. Where several peers share one, [`FairLine`] lets
//! them wait and gives each peer its turn, whatever the number of its streams.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use crate::{Now, PeerId};

/// What may pass at once after idleness, as time at the full rate: short, or a limited uplink's queue fills.
pub const BURST: Duration = Duration::from_millis(100);

/// One limit. Without a rate it lets everything through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limiter {
    rate: Option<NonZeroU64>,
    free_at: Now,
}

impl Limiter {
    /// A limit of so many bytes per second; `None` or 0: none.
    #[must_use]
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self { rate: bytes_per_second.and_then(NonZeroU64::new), free_at: Now::START }
    }

    /// Bytes per second.
    #[must_use]
    pub fn rate(&self) -> Option<u64> {
        self.rate.map(NonZeroU64::get)
    }

    /// Changes the limit; what was booked stays booked.
    pub fn set(&mut self, bytes_per_second: Option<u64>) {
        self.rate = bytes_per_second.and_then(NonZeroU64::new);
    }

    /// How long until the line is free.
    #[must_use]
    pub fn wait(&self, now: Now) -> Duration {
        self.free_at.since(now)
    }

    /// Books `bytes` and says how long to wait before they may go (or, for what has arrived, before more is taken).
    pub fn book(&mut self, bytes: u64, now: Now) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let seconds = bytes as f64 / rate.get() as f64;
        // Absurd sizes wait for ever rather than overflow.
        let time = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let now_or_earlier = Now::from_start(now.since_start().saturating_sub(BURST));
        let start = self.free_at.max(now_or_earlier);
        self.free_at = start + time;
        self.free_at.since(now)
    }
}

/// Whether somebody waits for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// A Nix does.
    Awaited,
    /// Nobody yet: it is fetched because it will probably be asked for.
    Ahead,
}

impl Urgency {
    /// What is fetched ahead takes so many times the room on a line: little where somebody waits, and never nothing, for who
    /// gets nothing for long looks elsewhere.
    const AHEAD_WEIGHT: u64 = 8;

    const fn weight(self) -> u64 {
        match self {
            Self::Awaited => 1,
            Self::Ahead => Self::AHEAD_WEIGHT,
        }
    }
}

/// A limit that peers share alike: `T` is whatever waits, and is given back when it may go.
///
/// Start-time fair queueing: a peer's bytes are lined up one after the other on a line of its own, and what begins earliest
/// there goes first. Who has paused begins where the others are, so that a pause earns nothing. What is fetched ahead has a
/// line beside it, with an eighth of the share.
#[derive(Debug)]
pub struct FairLine<T> {
    line: Limiter,
    /// By where each begins on its peer's line, then by age.
    waiting: BTreeMap<(u64, u64), (u64, T)>,
    /// Where each line ends.
    ends: BTreeMap<(PeerId, Urgency), u64>,
    /// Where what was served last began.
    level: u64,
    age: u64,
}

/// What a [`FairLine`] does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn<T> {
    /// This may go.
    Go(T),
    /// Nothing before then.
    Wait(Duration),
    /// Nobody waits.
    Nobody,
}

impl<T> FairLine<T> {
    /// A line of so many bytes per second; `None` or 0: no limit.
    #[must_use]
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self {
            line: Limiter::new(bytes_per_second),
            waiting: BTreeMap::new(),
            ends: BTreeMap::new(),
            level: 0,
            age: 0,
        }
    }

    /// Bytes per second.
    #[must_use]
    pub fn rate(&self) -> Option<u64> {
        self.line.rate()
    }

    /// Changes the limit; what went is not forgotten.
    pub fn set(&mut self, bytes_per_second: Option<u64>) {
        self.line.set(bytes_per_second);
    }

    /// `bytes` for a peer wait from now on.
    pub fn push(&mut self, peer: PeerId, urgency: Urgency, bytes: u64, ticket: T) {
        let end = self.ends.entry((peer, urgency)).or_default();
        let start = self.level.max(*end);
        *end = start.saturating_add(bytes.saturating_mul(urgency.weight()));
        self.age += 1;
        self.waiting.insert((start, self.age), (bytes, ticket));
    }

    /// Who goes now. Tickets that are not `wanted` any more are thrown away and cost nothing.
    pub fn turn(&mut self, now: Now, wanted: impl Fn(&T) -> bool) -> Turn<T> {
        loop {
            let Some(first) = self.waiting.first_entry() else {
                self.ends.clear();
                return Turn::Nobody;
            };
            if !wanted(&first.get().1) {
                first.remove();
                continue;
            }
            let wait = self.line.wait(now);
            if !wait.is_zero() {
                return Turn::Wait(wait);
            }
            let ((start, _), (bytes, ticket)) = first.remove_entry();
            self.level = start;
            // Who is not ahead of the others needs no line.
            self.ends.retain(|_, end| *end > start);
            self.line.book(bytes, now);
            return Turn::Go(ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Now {
        Now::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn no_limit_no_wait() {
        assert_eq!(Limiter::new(None).book(u64::MAX, at(0)), Duration::ZERO);
        assert_eq!(Limiter::new(Some(0)).book(u64::MAX, at(0)), Duration::ZERO);
    }

    #[test]
    fn two_that_share_get_half_each() {
        let mut limit = Limiter::new(Some(1_000_000));
        let (mut a, mut b, mut now) = (0u64, 0u64, at(1_000));
        while now < at(11_000) {
            let wait = limit.book(10_000, now);
            a += 10_000;
            let other = limit.book(10_000, now);
            b += 10_000;
            now = now + wait.max(other);
        }
        assert_eq!(a, b);
        assert!((a + b).abs_diff(10_000_000) < 200_000, "{}", a + b);
    }

    proptest! {
        /// Whoever waits as told never gets more through than rate × time and one burst.
        #[test]
        fn the_rate_holds(steps in prop::collection::vec((1u64..300_000, 0u64..50), 1..200)) {
            let rate = 2_000_000;
            let mut limit = Limiter::new(Some(rate));
            let start = at(10_000);
            let (mut now, mut passed) = (start, 0u64);
            for (bytes, pause) in steps {
                now = now + Duration::from_millis(pause);
                let wait = limit.book(bytes, now);
                now = now + wait;
                passed += bytes;
                let allowed = rate as f64 * (now.since(start) + BURST).as_secs_f64();
                prop_assert!(passed as f64 <= allowed + 1.0, "{passed} > {allowed}");
            }
        }
    }

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    /// Peers with so many streams each, which all want as much as they get for ten seconds; bytes that each peer got.
    fn share(streams: &[u8]) -> Vec<u64> {
        let all: Vec<_> = streams.iter().map(|streams| (*streams, Urgency::Awaited)).collect();
        share_of(&all)
    }

    fn share_of(streams: &[(u8, Urgency)]) -> Vec<u64> {
        const PIECE: u64 = 20_000;
        let mut line = FairLine::new(Some(1_000_000));
        let mut got = vec![0; streams.len()];
        for (n, (streams, urgency)) in streams.iter().enumerate() {
            for _ in 0..*streams {
                line.push(peer(n as u8), *urgency, PIECE, n);
            }
        }
        let mut now = at(1_000);
        while now < at(11_000) {
            match line.turn(now, |_| true) {
                Turn::Go(n) => {
                    got[n] += PIECE;
                    line.push(peer(n as u8), streams[n].1, PIECE, n);
                }
                Turn::Wait(wait) => now = now + wait,
                Turn::Nobody => break,
            }
        }
        got
    }

    #[test]
    fn streams_do_not_buy_shares() {
        let got = share(&[64, 1, 8, 1]);
        let all: u64 = got.iter().sum();
        assert!(all.abs_diff(10_000_000) < 300_000, "{got:?}");
        for one in &got {
            assert!(one.abs_diff(all / 4) <= 40_000, "{got:?}");
        }
        // Alone a peer gets everything.
        assert!(share(&[3])[0] > 9_900_000);
    }

    #[test]
    fn what_is_awaited_goes_before_what_is_not() {
        let got = share_of(&[(1, Urgency::Awaited), (16, Urgency::Ahead), (1, Urgency::Awaited)]);
        assert!(got[0].abs_diff(got[2]) <= 40_000, "{got:?}");
        assert!(got[1].abs_diff(got[0] / 8) <= 40_000, "little, but something: {got:?}");
        // Where nobody waits it has everything.
        assert!(share_of(&[(3, Urgency::Ahead)])[0] > 9_900_000);
    }

    #[test]
    fn a_pause_earns_nothing_and_who_has_gone_costs_nothing() {
        let mut line = FairLine::new(Some(1_000));
        let mut now = at(10_000);
        for _ in 0..50 {
            line.push(peer(1), Urgency::Awaited, 100, 1);
            while line.turn(now, |_| true) == Turn::Wait(Duration::from_millis(100)) {
                now = now + Duration::from_millis(100);
            }
        }
        // Peer 2 comes late: turn and turn about from here, and nothing in arrears.
        for _ in 0..4 {
            line.push(peer(1), Urgency::Awaited, 100, 1);
            line.push(peer(2), Urgency::Awaited, 100, 2);
        }
        line.push(peer(3), Urgency::Awaited, 1_000_000, 3);
        let mut order = Vec::new();
        loop {
            match line.turn(now, |who| *who != 3) {
                Turn::Go(who) => order.push(who),
                Turn::Wait(wait) => now = now + wait,
                Turn::Nobody => break,
            }
        }
        assert_eq!(order.len(), 8);
        for pair in order.chunks(2) {
            assert_ne!(pair[0], pair[1], "{order:?}");
        }
    }
}
