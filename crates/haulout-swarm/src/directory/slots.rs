//! Which peer has which slot (a column of the directory), and which slots wait to be swept.

use std::collections::BTreeMap;

use crate::PeerId;
use crate::holdings::Version;

/// Number of slots. More than `PEERS_MAX`, so that peers that replace their snapshot at the same time find a fresh
/// slot; when all are taken, the dead ones are swept at once.
pub(super) const SLOTS_MAX: usize = 1_024;

/// One bit for each slot.
pub(super) type SlotSet = [u64; SLOTS_MAX / 64];

/// A peer's place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) slot: u16,
    pub(super) version: Version,
    pub(super) entries: usize,
    /// Only a portion of what the peer holds.
    pub(super) part: bool,
}

/// A slot is free, live (has a peer), dead (waits for a sweep) or being swept.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    columns: BTreeMap<PeerId, Column>,
    peers: Vec<Option<PeerId>>,
    free: SlotSet,
    dead: SlotSet,
    sweeping: SlotSet,
    /// How many columns are portions.
    parts: usize,
}

impl Slots {
    pub(super) const fn new() -> Self {
        Self {
            columns: BTreeMap::new(),
            peers: Vec::new(),
            free: [u64::MAX; SLOTS_MAX / 64],
            dead: [0; SLOTS_MAX / 64],
            sweeping: [0; SLOTS_MAX / 64],
            parts: 0,
        }
    }

    pub(super) fn live(&self) -> usize {
        self.columns.len()
    }

    /// The peer of a live slot.
    pub(super) fn peer(&self, slot: u16) -> Option<PeerId> {
        self.peers.get(usize::from(slot)).copied().flatten()
    }

    pub(super) fn get(&self, peer: &PeerId) -> Option<&Column> {
        self.columns.get(peer)
    }

    pub(super) fn all_taken(&self) -> bool {
        is_empty(&self.free)
    }

    /// Gives the peer the lowest free slot (so that bitsets stay narrow).
    pub(super) fn take(&mut self, peer: PeerId, version: Version) -> Option<u16> {
        let word = self.free.iter().position(|word| *word != 0)?;
        let slot = word * 64 + self.free[word].trailing_zeros() as usize;
        self.free[word] &= self.free[word] - 1;
        if self.peers.len() <= slot {
            self.peers.resize(slot + 1, None);
        }
        self.peers[slot] = Some(peer);
        self.columns.insert(peer, Column { slot: slot as u16, version, entries: 0, part: false });
        Some(slot as u16)
    }

    /// Books entries that came or went, and the version they belong to.
    pub(super) fn grow(&mut self, peer: &PeerId, change: isize, version: Version) {
        if let Some(column) = self.columns.get_mut(peer) {
            column.entries = column.entries.saturating_add_signed(change);
            column.version = version;
        }
    }

    /// Notes that only a portion of what the peer holds is known.
    pub(super) fn mark_part(&mut self, peer: &PeerId) {
        if let Some(column) = self.columns.get_mut(peer).filter(|column| !column.part) {
            column.part = true;
            self.parts += 1;
        }
    }

    /// How many columns are portions.
    pub(super) const fn parts(&self) -> usize {
        self.parts
    }

    pub(super) fn kill(&mut self, peer: &PeerId) {
        if let Some(column) = self.columns.remove(peer) {
            self.parts -= usize::from(column.part);
            let slot = usize::from(column.slot);
            self.peers[slot] = None;
            self.dead[slot / 64] |= 1 << (slot % 64);
        }
    }

    /// The peer with the most entries.
    pub(super) fn largest(&self) -> Option<(PeerId, usize)> {
        self.columns
            .iter()
            .map(|(peer, column)| (*peer, column.entries))
            .max_by_key(|(_, entries)| *entries)
    }

    pub(super) const fn sweeping(&self) -> &SlotSet {
        &self.sweeping
    }

    pub(super) fn any_dead(&self) -> bool {
        !is_empty(&self.dead)
    }

    /// All slots dead by now go into this round; later ones wait for the next. False if there are none.
    pub(super) fn begin_sweep(&mut self) -> bool {
        self.sweeping = std::mem::take(&mut self.dead);
        !is_empty(&self.sweeping)
    }

    pub(super) fn end_sweep(&mut self) {
        let swept = std::mem::take(&mut self.sweeping);
        for (free, swept) in self.free.iter_mut().zip(swept) {
            *free |= swept;
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        // A B-tree leaf is on average two thirds full.
        let columns = self.columns.len() * (size_of::<PeerId>() + size_of::<Column>()) * 3 / 2;
        columns + self.peers.capacity() * size_of::<Option<PeerId>>()
    }
}

fn is_empty(set: &SlotSet) -> bool {
    set.iter().all(|word| *word == 0)
}
