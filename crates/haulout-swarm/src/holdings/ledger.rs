//! The sending side: what this machine serves now, and what it said before.

use std::collections::{BTreeMap, VecDeque};

use super::{Delta, ENTRIES_MAX, Snapshot, Version};
use crate::portions::Stretch;

/// Changes remembered for making deltas. A peer further behind gets a snapshot. 16,384 changes are several large
/// system updates, at 16 bytes each 256 KiB.
pub const LEDGER_CHANGES_MAX: usize = 16_384;

/// What to send to a peer that knows some version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// It is up to date.
    Nothing,
    /// The changes since.
    Delta(Delta),
    /// Everything: it knows nothing, or a version too old, or the delta would be no smaller.
    Snapshot(Snapshot),
}

/// The current set of prefixes with its recent history.
///
/// Several keys may share one prefix (with 50,000 keys there is one such pair in every fourth store), so prefixes are
/// counted, and only the first and the last key of a prefix show on the wire.
#[derive(Debug, Clone)]
pub struct Ledger {
    counts: BTreeMap<u32, u32>,
    version: Version,
    /// (version it belongs to, prefix, true = added); versions ascend.
    changes: VecDeque<(Version, u32, bool)>,
    /// The oldest version from which a delta can be made.
    oldest: Version,
    keys_refused: u64,
}

impl Ledger {
    /// An empty set. `random` makes its versions distinct from those of an earlier run of the agent.
    #[must_use]
    pub fn new(random: u64) -> Self {
        // The top bits stay clear, so that counting up never wraps.
        let version = random >> 2;
        Self {
            counts: BTreeMap::new(),
            version,
            changes: VecDeque::new(),
            oldest: version,
            keys_refused: 0,
        }
    }

    /// The current version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// How many different prefixes are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Whether this prefix is held.
    #[must_use]
    pub fn contains(&self, prefix: u32) -> bool {
        self.counts.contains_key(&prefix)
    }

    /// The prefixes held in a stretch, strictly ascending.
    #[must_use]
    pub fn within(&self, stretch: &Stretch) -> Vec<u32> {
        let ranges = stretch.ranges().flat_map(|(from, to)| self.counts.range(from..=to));
        ranges.map(|(prefix, _)| *prefix).collect()
    }

    /// Keys that were not announced because [`ENTRIES_MAX`] prefixes are held already.
    #[must_use]
    pub fn keys_refused(&self) -> u64 {
        self.keys_refused
    }

    /// Takes one batch of keys that came and keys that went; each key must be reported once for each coming and
    /// going. Returns the new version, or `None` if nothing changed on the wire.
    pub fn change(
        &mut self,
        gone: impl IntoIterator<Item = u32>,
        come: impl IntoIterator<Item = u32>,
    ) -> Option<Version> {
        let next = self.version + 1;
        let mut changed = false;
        for prefix in gone {
            changed |= self.forget(prefix, next);
        }
        for prefix in come {
            changed |= self.learn(prefix, next);
        }
        if !changed {
            return None;
        }
        self.version = next;
        self.trim();
        Some(next)
    }

    fn learn(&mut self, prefix: u32, version: Version) -> bool {
        if let Some(count) = self.counts.get_mut(&prefix) {
            *count = count.saturating_add(1);
            return false;
        }
        if self.counts.len() >= ENTRIES_MAX {
            self.keys_refused += 1;
            return false;
        }
        self.counts.insert(prefix, 1);
        self.changes.push_back((version, prefix, true));
        true
    }

    fn forget(&mut self, prefix: u32, version: Version) -> bool {
        match self.counts.get_mut(&prefix) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            Some(_) => {
                self.counts.remove(&prefix);
                self.changes.push_back((version, prefix, false));
                true
            }
            None => false,
        }
    }

    /// Drops the oldest changes beyond the limit, always whole versions.
    fn trim(&mut self) {
        while self.changes.len() > LEDGER_CHANGES_MAX {
            let Some(&(dropped, ..)) = self.changes.front() else {
                return;
            };
            while self.changes.front().is_some_and(|(version, ..)| *version == dropped) {
                self.changes.pop_front();
            }
            self.oldest = dropped;
        }
        // A first load of 50,000 paths passes through here; its room is not needed again.
        if self.changes.capacity() > 2 * LEDGER_CHANGES_MAX {
            self.changes.shrink_to(LEDGER_CHANGES_MAX);
        }
    }

    /// Everything, for a new peer.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { version: self.version, entries: self.counts.keys().copied().collect() }
    }

    /// What a peer needs that has been told `known`.
    #[must_use]
    pub fn since(&self, known: Option<Version>) -> Update {
        let Some(base) = known else {
            return Update::Snapshot(self.snapshot());
        };
        if base == self.version {
            return Update::Nothing;
        }
        if base < self.oldest || base > self.version {
            return Update::Snapshot(self.snapshot());
        }
        let (removed, added) = self.net_changes(base);
        if removed.len() + added.len() >= self.counts.len().max(1) {
            return Update::Snapshot(self.snapshot());
        }
        // Fails only for changes that cancel out: then the peer needs a new version number, which is cheapest to
        // give with the next real change.
        Delta::new(base, self.version, removed, added).map_or(Update::Nothing, Update::Delta)
    }

    /// The first change of a prefix tells whether the peer knows it, the last one whether it exists now.
    fn net_changes(&self, base: Version) -> (Vec<u32>, Vec<u32>) {
        let from = self.changes.partition_point(|(version, ..)| *version <= base);
        let mut net: BTreeMap<u32, (bool, bool)> = BTreeMap::new();
        for &(_, prefix, added) in self.changes.range(from..) {
            net.entry(prefix).or_insert((added, added)).1 = added;
        }
        let pick = |wanted: bool| {
            net.iter()
                .filter(|(_, (first, last))| *first == wanted && *last == wanted)
                .map(|(prefix, _)| *prefix)
                .collect()
        };
        (pick(false), pick(true))
    }
}
