//! Which nodes have everything, and how long to go on once enough of them have. Pure.

use std::time::Duration;

use crate::{Committee, limits::QUORUM_GRACE, plan::Clock};

/// The least number of shards that are a quorum.
pub(super) fn quorum(committee: &Committee) -> u32 {
    // 3 w >= 2 n + 1.
    (2 * u32::from(committee.n_shards.get()) + 1).div_ceil(3)
}

/// Counts nodes that are done.
#[derive(Debug)]
pub(super) struct Tally<'a> {
    committee: &'a Committee,
    done: Vec<bool>,
    deadline: Option<Clock>,
}

impl<'a> Tally<'a> {
    pub(super) fn new(committee: &'a Committee) -> Self {
        Self { committee, done: vec![false; committee.members.len()], deadline: None }
    }

    /// The node at `position` is done.
    pub(super) fn add(&mut self, position: usize, now: Clock) {
        if let Some(done) = self.done.get_mut(position) {
            *done = true;
        }
        if self.deadline.is_none() && self.committee.is_quorum(self.weight()) {
            self.deadline = Some(now + grace(now));
        }
    }

    /// Shards of the nodes that are done.
    pub(super) fn weight(&self) -> u32 {
        let done = self.done.iter().enumerate().filter(|(_, done)| **done);
        self.committee.weight(done.map(|(position, _)| position))
    }

    /// Until when the others are waited for; `None` before there is a quorum.
    pub(super) fn deadline(&self) -> Option<Clock> {
        self.deadline
    }
}

/// What slower nodes get after a quorum needed `elapsed`.
fn grace(elapsed: Clock) -> Duration {
    elapsed / 2 + QUORUM_GRACE
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use redstuff::{ShardCount, ShardIndex};

    use super::*;
    use crate::{ObjectId, StorageNode};

    fn committee() -> Committee {
        let node = |id: u8| StorageNode {
            node_id: ObjectId([id; 32]),
            name: String::new(),
            address: "127.0.0.1:1".to_owned(),
            network_public_key: [&[2][..], &[id; 32]].concat(),
            bls_public_key: [0; 48],
            shards: vec![ShardIndex((id * 2).into()), ShardIndex((id * 2 + 1).into())],
        };
        let n = ShardCount::new(10).unwrap();
        Committee::new(1, n, (0..5).map(node).collect()).unwrap()
    }

    #[test]
    fn a_quorum_starts_the_clock_for_the_others() {
        let committee = committee();
        assert_eq!(quorum(&committee), 7);
        let mut tally = Tally::new(&committee);
        for (position, at) in [(0, 1), (3, 2), (3, 3), (1, 4)] {
            tally.add(position, Duration::from_secs(at));
            assert_eq!(tally.deadline(), None);
        }
        assert_eq!(tally.weight(), 6);
        tally.add(4, Duration::from_secs(8));
        assert_eq!(tally.deadline(), Some(Duration::from_millis(12_500)));
        tally.add(2, Duration::from_secs(9));
        assert_eq!((tally.weight(), tally.deadline()), (10, Some(Duration::from_millis(12_500))));
    }
}
