//! What a peer has been told of its portion, and what it must hear next.

use super::Stretch;
use crate::holdings::{DELTA_ENTRIES_MAX, Delta, Ledger, Message, Snapshot, Version};

/// Entries that a peer is no longer a home of, and that it need not be told of at once: it may go on knowing them, since this
/// machine still has them. (So a peer that joins costs one message, the one to itself.)
const SUPERFLUOUS_MAX: usize = 64;

/// What one peer was told on one stream.
///
/// It is compared with what it should know, instead of following the changes: portions are small (three stretches in a
/// thousand of 12,000 entries are 36), and whatever was missed is made good with the next message.
#[derive(Clone, Debug)]
pub struct Told {
    version: Version,
    /// Strictly ascending; `None` before the first message.
    entries: Option<Vec<u32>>,
}

impl Told {
    /// Nothing yet. Versions count up from `version`, that of the ledger.
    #[must_use]
    pub fn nothing(version: Version) -> Self {
        Self { version, entries: None }
    }

    /// The next message, if there has to be one.
    pub fn next(&mut self, ledger: &Ledger, stretch: &Stretch) -> Option<Message> {
        let now = ledger.within(stretch);
        let Some(before) = &self.entries else {
            return self.snapshot(now);
        };
        let (removed, added) = difference(before, &now);
        let withdrawn = removed.iter().any(|entry| !ledger.contains(*entry));
        let superfluous = removed.len() > SUPERFLUOUS_MAX.max(now.len());
        if added.is_empty() && !withdrawn && !superfluous {
            return None;
        }
        let changes = removed.len() + added.len();
        if changes >= now.len().max(1) || changes > DELTA_ENTRIES_MAX {
            return self.snapshot(now);
        }
        let delta = Delta::new(self.version, self.version + 1, removed, added).ok()?;
        self.version += 1;
        self.entries = Some(now);
        Some(Message::Delta(delta))
    }

    fn snapshot(&mut self, now: Vec<u32>) -> Option<Message> {
        let snapshot = Snapshot::new(self.version + 1, now.clone()).ok()?;
        self.version += 1;
        self.entries = Some(now);
        Some(Message::Snapshot(snapshot))
    }
}

/// What only the first and what only the second of two ascending lists has.
fn difference(before: &[u32], now: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let without = |these: &[u32], those: &[u32]| {
        these.iter().copied().filter(|entry| those.binary_search(entry).is_err()).collect()
    };
    (without(before, now), without(now, before))
}
