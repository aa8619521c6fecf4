//! How long a record holds, and when it is asked for again.

use std::time::Duration;

use super::{Dice, Time};

/// A record holds no longer than this without being heard again: a day.
const TTL_MAX: u32 = 86_400;
/// Times at which a record is asked for again, in percent of its life (RFC 6762 §5.2); after the last it ends.
const REFRESH_PERCENT: [u32; 3] = [80, 87, 94];
/// What was taken back, or replaced, is gone after this (RFC 6762 §10.1, §10.2).
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// How long something holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) heard: Time,
    pub(super) until: Time,
    /// How often it was asked for again.
    pub(super) asked: usize,
    /// When it is to be asked for again.
    pub(super) refresh: Time,
}

impl Life {
    pub(super) fn new(now: Time, ttl: u32, dice: &mut Dice) -> Self {
        let ttl = Duration::from_secs(u64::from(ttl.min(TTL_MAX)));
        // Everybody heard it at the same time: who asks first spares the others the question.
        let spread = dice.millis(0, 1 + u64::try_from(ttl.as_millis()).unwrap_or(0) / 50);
        let mut life = Self { heard: now, until: now + ttl, asked: 0, refresh: now };
        life.refresh = life.at(0) + spread;
        life
    }

    pub(super) fn at(&self, stage: usize) -> Time {
        REFRESH_PERCENT
            .get(stage)
            .map_or(self.until, |percent| self.heard + (self.until - self.heard) * *percent / 100)
    }

    pub(super) fn was_asked(&mut self, now: Time) {
        self.asked += 1;
        self.refresh = self.at(self.asked).max(now + GRACE);
    }

    /// It ends in a moment, unless it is said again.
    pub(super) fn end(&mut self, now: Time) {
        self.until = self.until.min(now + GRACE);
        self.refresh = self.until;
        self.asked = REFRESH_PERCENT.len();
    }

    pub(super) fn next(&self) -> Time {
        if self.asked < REFRESH_PERCENT.len() { self.refresh.min(self.until) } else { self.until }
    }

    pub(super) fn wants_refresh(&self, by: Time) -> bool {
        self.asked < REFRESH_PERCENT.len() && self.refresh <= by
    }

    pub(super) fn left(&self, now: Time) -> u32 {
        u32::try_from(self.until.saturating_sub(now).as_secs()).unwrap_or(u32::MAX)
    }

    /// More than half of its life is left: others may be spared repeating it.
    pub(super) fn is_young(&self, now: Time) -> bool {
        self.until.saturating_sub(now) > (self.until - self.heard) / 2
    }
}
