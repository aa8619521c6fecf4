//! One fetch per key at a time: who leads, who follows, and who takes over.
//!
//! Pure bookkeeping. The caller keeps what leader and followers share (a stream, a result) and wakes them.

use std::collections::{BTreeMap, VecDeque};

/// Most keys in flight at once. Nix asks for up to 25 things in parallel per process; this is many Nix processes.
pub const FLIGHTS_MAX: usize = 4_096;

/// Most who wait for one key.
pub const FOLLOWERS_MAX: usize = 1_024;

/// Names one participant; never given twice by the same [`SingleFlight`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What a participant is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Fetch, then call [`SingleFlight::finish`].
    Leader(Ticket),
    /// Wait for the leader.
    Follower(Ticket),
    /// Too many already: answer "no", or fetch without sharing.
    Busy,
}

/// What follows when a participant goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// The leader is still there.
    Nothing,
    /// The leader went: this follower, the one who waited longest, leads from here on, where the leader stopped.
    Handover(Ticket),
    /// Nobody wants the key any more: stop fetching.
    Last,
}

/// The flights of one kind of key.
#[derive(Debug, Clone)]
pub struct SingleFlight<K> {
    // First in each queue: the leader.
    flights: BTreeMap<K, VecDeque<Ticket>>,
    next_ticket: u64,
    refused: u64,
}

impl<K: Ord> Default for SingleFlight<K> {
    fn default() -> Self {
        Self { flights: BTreeMap::new(), next_ticket: 0, refused: 0 }
    }
}

impl<K: Ord> SingleFlight<K> {
    /// No flights.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Somebody wants `key`.
    pub fn join(&mut self, key: K) -> Role {
        let ticket = Ticket(self.next_ticket);
        let room = self.flights.len() < FLIGHTS_MAX;
        let role = match self.flights.get_mut(&key) {
            Some(queue) if queue.len() <= FOLLOWERS_MAX => {
                queue.push_back(ticket);
                Role::Follower(ticket)
            }
            None if room => {
                self.flights.insert(key, VecDeque::from([ticket]));
                Role::Leader(ticket)
            }
            _ => {
                self.refused += 1;
                return Role::Busy;
            }
        };
        self.next_ticket += 1;
        role
    }

    /// A participant no longer wants the key, or could not go on.
    pub fn leave(&mut self, key: &K, ticket: Ticket) -> Left {
        let Some(queue) = self.flights.get_mut(key) else {
            return Left::Nothing;
        };
        let Some(place) = queue.iter().position(|other| *other == ticket) else {
            return Left::Nothing;
        };
        queue.remove(place);
        match queue.front() {
            None => {
                self.flights.remove(key);
                Left::Last
            }
            Some(next) if place == 0 => Left::Handover(*next),
            Some(_) => Left::Nothing,
        }
    }

    /// The leader is done, well or badly. Returns the followers to wake. Nothing if `leader` does not lead (any
    /// more): a leader that was replaced must not end the flight of its successor.
    pub fn finish(&mut self, key: &K, leader: Ticket) -> Vec<Ticket> {
        if self.leader(key) != Some(leader) {
            return Vec::new();
        }
        self.flights
            .remove(key)
            .map(|queue| queue.into_iter().skip(1).collect())
            .unwrap_or_default()
    }

    /// Who leads the flight for `key`.
    #[must_use]
    pub fn leader(&self, key: &K) -> Option<Ticket> {
        self.flights.get(key).and_then(|queue| queue.front().copied())
    }

    /// Keys in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flights.len()
    }

    /// Whether nothing is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// Requests that found no room.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_leader_that_leaves_hands_over() {
        let mut flights = SingleFlight::new();
        let (Role::Leader(a), Role::Follower(b), Role::Follower(c)) =
            (flights.join("k"), flights.join("k"), flights.join("k"))
        else {
            panic!("one leads, the others follow");
        };
        assert_eq!(flights.leave(&"k", a), Left::Handover(b));
        assert_eq!(flights.finish(&"k", a), [], "the old leader has no say");
        assert_eq!(flights.finish(&"k", b), [c]);
        assert!(flights.is_empty());
        assert_eq!(flights.leave(&"k", c), Left::Nothing);
    }

    #[test]
    fn limits_hold() {
        let mut flights = SingleFlight::new();
        (0..FLIGHTS_MAX).for_each(|key| assert!(matches!(flights.join(key), Role::Leader(_))));
        assert_eq!(flights.join(FLIGHTS_MAX), Role::Busy);
        (0..FOLLOWERS_MAX).for_each(|_| assert!(matches!(flights.join(0), Role::Follower(_))));
        assert_eq!(flights.join(0), Role::Busy);
        assert_eq!(flights.refused(), 2);
    }

    proptest! {
        /// Each key in flight has exactly one leader, and nobody who joined is ever forgotten.
        #[test]
        fn everybody_is_led_or_told(steps in prop::collection::vec((0u8..3, 0u8..4, any::<prop::sample::Index>()), 0..200)) {
            let mut flights = SingleFlight::new();
            let mut members: Vec<(u8, Ticket)> = Vec::new();
            for (action, key, pick) in steps {
                match action {
                    0 => match flights.join(key) {
                        Role::Leader(ticket) => {
                            prop_assert!(members.iter().all(|(other, _)| *other != key));
                            members.push((key, ticket));
                        }
                        Role::Follower(ticket) => members.push((key, ticket)),
                        Role::Busy => prop_assert!(false, "there is room"),
                    },
                    1 if !members.is_empty() => {
                        let (key, ticket) = members.remove(pick.index(members.len()));
                        match flights.leave(&key, ticket) {
                            Left::Handover(next) => prop_assert!(members.contains(&(key, next))),
                            Left::Last => prop_assert!(members.iter().all(|(other, _)| *other != key)),
                            Left::Nothing => prop_assert!(flights.leader(&key).is_some()),
                        }
                    }
                    _ => if let Some(leader) = flights.leader(&key) {
                        let told = flights.finish(&key, leader);
                        let led = members.iter().filter(|(other, _)| *other == key).count();
                        prop_assert_eq!(told.len() + 1, led);
                        members.retain(|(other, _)| *other != key);
                    },
                }
                for (key, _) in &members {
                    prop_assert!(flights.leader(key).is_some());
                }
            }
        }
    }
}
