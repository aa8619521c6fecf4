//! The checkpoints that a chain remembers. Their number is bounded: those in which only the clock moved go first, or
//! a devnet that is left alone would fill the memory.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::Checkpoint;

/// Checkpoints without a user's transaction that are kept: about 5 kB each.
const IDLE_MAX: usize = 10_000;
/// Checkpoints with one that are kept: what their objects are proven by.
const BUSY_MAX: usize = 100_000;

/// Checkpoints by number. The first one and those that end an epoch always stay: trust starts from them.
#[derive(Debug)]
pub(crate) struct History {
    kept: BTreeMap<u64, Arc<Checkpoint>>,
    idle: VecDeque<u64>,
    busy: VecDeque<u64>,
    idle_max: usize,
    busy_max: usize,
    /// The lowest number from which all are kept.
    lowest: u64,
}

impl Default for History {
    fn default() -> Self {
        Self::with_limits(IDLE_MAX, BUSY_MAX)
    }
}

impl History {
    /// At most so many of either kind.
    pub(crate) fn with_limits(idle_max: usize, busy_max: usize) -> Self {
        let (idle, busy) = (VecDeque::new(), VecDeque::new());
        Self { kept: BTreeMap::new(), idle, busy, idle_max, busy_max, lowest: 0 }
    }

    /// Adds the next one. Gives the one that is forgotten for it.
    pub(crate) fn push(&mut self, checkpoint: Arc<Checkpoint>) -> Option<Arc<Checkpoint>> {
        let number = checkpoint.summary.sequence_number;
        let pinned = number == 0 || checkpoint.summary.end_of_epoch_data.is_some();
        let busy = checkpoint.has_users_transaction();
        self.kept.insert(number, checkpoint);
        let (numbers, most) = match (pinned, busy) {
            (true, _) => return None,
            (false, true) => (&mut self.busy, self.busy_max),
            (false, false) => (&mut self.idle, self.idle_max),
        };
        numbers.push_back(number);
        if numbers.len() <= most {
            return None;
        }
        let oldest = numbers.pop_front()?;
        self.lowest = self.lowest.max(oldest + 1);
        self.kept.remove(&oldest)
    }

    /// How many there ever were: the number of the next one.
    pub(crate) fn len(&self) -> usize {
        self.kept.last_key_value().map_or(0, |(last, _)| *last as usize + 1)
    }

    pub(crate) fn first(&self) -> Option<&Arc<Checkpoint>> {
        self.kept.first_key_value().map(|(_, first)| first)
    }

    pub(crate) fn last(&self) -> Option<&Arc<Checkpoint>> {
        self.kept.last_key_value().map(|(_, last)| last)
    }

    /// The checkpoint of this number, if it is kept.
    pub(crate) fn get(&self, number: u64) -> Option<&Arc<Checkpoint>> {
        self.kept.get(&number)
    }

    /// The newest one that is kept up to this number. The first one always is.
    pub(crate) fn up_to(&self, number: u64) -> &Arc<Checkpoint> {
        let number = self.kept.range(..=number).next_back().map_or(0, |(number, _)| *number);
        &self.kept[&number]
    }

    /// All that are kept, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Checkpoint>> {
        self.kept.values()
    }

    /// The lowest number from which all are kept.
    pub(crate) fn lowest(&self) -> u64 {
        self.lowest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sui::tests::history_of;

    #[test]
    fn the_clock_is_forgotten_first_and_where_trust_begins_never() {
        // The first, an end of an epoch (3), users' (5, 9), and the clock's.
        let all = history_of(12, &[3], &[5, 9]);
        let mut history = History::with_limits(3, 1);
        let forgotten: Vec<u64> = all
            .into_iter()
            .filter_map(|checkpoint| history.push(checkpoint))
            .map(|checkpoint| checkpoint.summary.sequence_number)
            .collect();
        assert_eq!(forgotten, [1, 2, 4, 5, 6, 7]);
        let kept: Vec<u64> = history.iter().map(|c| c.summary.sequence_number).collect();
        assert_eq!(kept, [0, 3, 8, 9, 10, 11]);
        assert_eq!((history.len(), history.lowest()), (12, 8));
        assert!(history.get(4).is_none() && history.get(3).is_some());
        assert_eq!(history.up_to(7).summary.sequence_number, 3);
    }
}
