//! Who has what: the holdings of all peers, merged for look-up from memory.
//!
//! # Shape
//!
//! The top 16 bits of a prefix pick one of 65,536 buckets. A bucket is a sorted list of 4-byte pairs (remaining 16
//! bits, number of the peer's slot), so an entry that one peer holds costs 4 bytes. What many peers hold (on NixOS
//! machines, most of it) would repeat there; from the point where a bit per peer is smaller, the entry becomes a
//! bitset instead. Either way `n` holders of an entry cost at most `4 n` bytes, whatever hostile peers announce.
//!
//! A snapshot that replaces an older one takes a new slot, and the old slot dies: it is invisible at once, and its
//! pairs are swept out some buckets at a time. So no call takes long, and no per-peer copy of the set is kept.
//!
//! A hit is a hint: the peer's answer decides.

mod bucket;
mod slots;
#[cfg(test)]
mod tests;

use smallvec::SmallVec;

use crate::PeerId;
use crate::holdings::{Delta, ENTRIES_MAX, Snapshot, Version};
use crate::peers::PEERS_MAX;
use bucket::Bucket;
use slots::Slots;

/// Most pairs of peer and prefix, over all peers: the design's 1,000 peers with 50,000 entries each and a quarter
/// more. At 4 bytes and an eighth of growing room this is 290 MB if no two peers had anything in common; with 80 %
/// in common it is under 80 MB.
pub const PAIRS_MAX: usize = 64_000_000;

/// Most holders named in one answer. Nobody fetches from more than ten peers; the rest is spare.
pub const HOLDERS_MAX: usize = 16;

/// Most entries of one peer in one bucket in one message. Prefixes are bits of a hash: even [`ENTRIES_MAX`] honest ones
/// put 15 into a bucket on average, and 128 practically never. Crowding would make each insertion slow.
pub const CROWD_MAX: usize = 128;

/// Buckets swept along with each change while there is something to sweep, so that memory comes back without a call
/// of its own. Eight changes make a round, so the spare slots never run out: sixteen changes at most free a slot.
const SWEEP_PER_CHANGE: usize = 8_192;

/// One for each value of a prefix's top 16 bits, so that the rest fits 16 bits.
const BUCKETS: usize = 1 << 16;

/// The holders of one prefix, at most [`HOLDERS_MAX`].
pub type Holders = SmallVec<[PeerId; HOLDERS_MAX]>;

/// Why holdings were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// Too many peers, or too many pairs and this peer's column would be the largest.
    #[error("the directory of holdings is full")]
    Full,
    /// More than [`CROWD_MAX`] entries with the same 16 bits: made up, not hashes. A protocol violation.
    #[error("holdings whose entries are not spread like hashes")]
    Crowded,
    /// No snapshot of this peer.
    #[error("a change of holdings that were never announced")]
    NoSnapshot,
    /// The delta changes another version: ask for a snapshot.
    #[error("a change of version {wanted} of the holdings, but version {have} is known")]
    WrongBase {
        /// The version known here.
        have: Version,
        /// The version the delta changes.
        wanted: Version,
    },
    /// The deltas together announce more than [`ENTRIES_MAX`].
    #[error("the holdings have grown beyond the limit")]
    TooMany,
}

/// The merged holdings of all peers.
#[derive(Debug, Clone)]
pub struct Directory {
    buckets: Vec<Bucket>,
    slots: Slots,
    /// Words of 64 bits in each bitset: enough for the highest slot in use, a power of two.
    words: usize,
    /// Pairs stored, those of dead slots included.
    pairs: usize,
    sweep_at: usize,
    pairs_max: usize,
}

impl Default for Directory {
    fn default() -> Self {
        Self::new()
    }
}

impl Directory {
    /// An empty directory: 3 MB of empty buckets.
    #[must_use]
    pub fn new() -> Self {
        Self::with_pairs_max(PAIRS_MAX)
    }

    /// An empty directory with a lower limit than [`PAIRS_MAX`], for small machines.
    #[must_use]
    pub fn with_pairs_max(pairs_max: usize) -> Self {
        Self {
            buckets: vec![Bucket::default(); BUCKETS],
            slots: Slots::new(),
            words: 1,
            pairs: 0,
            sweep_at: 0,
            pairs_max: pairs_max.min(PAIRS_MAX),
        }
    }

    /// Peers that can serve `prefix` according to their holdings, at most [`HOLDERS_MAX`]. When there are more,
    /// `random` decides where the selection starts, so that load is spread.
    #[must_use]
    pub fn who_has(&self, prefix: u32, random: u64) -> Holders {
        let (bucket, rest) = split(prefix);
        let mut holders = Holders::new();
        self.buckets[bucket].visit(rest, self.words, random, |slot| {
            holders.extend(self.slots.peer(slot));
            holders.len() < HOLDERS_MAX
        });
        holders
    }

    /// Whether any peer announced `prefix`.
    #[must_use]
    pub fn anybody_has(&self, prefix: u32) -> bool {
        let (bucket, rest) = split(prefix);
        let mut found = false;
        self.buckets[bucket].visit(rest, self.words, 0, |slot| {
            found = self.slots.peer(slot).is_some();
            !found
        });
        found
    }

    /// How many peers announced `prefix`: for evicting first what many others hold.
    #[must_use]
    pub fn holders_count(&self, prefix: u32) -> usize {
        let (bucket, rest) = split(prefix);
        let mut count = 0;
        self.buckets[bucket].visit(rest, self.words, 0, |slot| {
            count += usize::from(self.slots.peer(slot).is_some());
            true
        });
        count
    }

    /// Whether this peer announced `prefix`.
    #[must_use]
    pub fn announces(&self, peer: &PeerId, prefix: u32) -> bool {
        let Some(column) = self.slots.get(peer) else { return false };
        let (bucket, rest) = split(prefix);
        let mut found = false;
        self.buckets[bucket].visit(rest, self.words, 0, |slot| {
            found = slot == column.slot;
            !found
        });
        found
    }

    /// What is known of a peer is only a portion ([`crate::portions`]), until its next snapshot.
    pub fn mark_part(&mut self, peer: &PeerId) {
        self.slots.mark_part(peer);
    }

    /// Whether only a portion of what this peer holds is known.
    #[must_use]
    pub fn knows_part(&self, peer: &PeerId) -> bool {
        self.slots.get(peer).is_some_and(|column| column.part)
    }

    /// How many peers are known in part only.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.slots.parts()
    }

    /// The version known of a peer's holdings; `None` if it announced none (or lost its column): it hides its
    /// holdings and may still be asked.
    #[must_use]
    pub fn version(&self, peer: &PeerId) -> Option<Version> {
        self.slots.get(peer).map(|column| column.version)
    }

    /// Number of entries known of a peer.
    #[must_use]
    pub fn entries(&self, peer: &PeerId) -> usize {
        self.slots.get(peer).map_or(0, |column| column.entries)
    }

    /// Number of peers with holdings.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.slots.live()
    }

    /// Replaces all that is known of the peer. Returns the peers whose columns had to go to make room: always
    /// larger ones than this, so whoever fills the directory loses its own column.
    ///
    /// # Errors
    /// [`DirectoryError::Full`] or [`DirectoryError::Crowded`]; then nothing is known of the peer.
    pub fn apply_snapshot(
        &mut self,
        peer: PeerId,
        snapshot: &Snapshot,
    ) -> Result<Vec<PeerId>, DirectoryError> {
        self.remove_peer(&peer);
        self.sweep(SWEEP_PER_CHANGE);
        if crowded(snapshot.entries()) {
            return Err(DirectoryError::Crowded);
        }
        if self.slots.live() >= PEERS_MAX {
            return Err(DirectoryError::Full);
        }
        let displaced = self.make_room(snapshot.entries().len())?;
        if self.slots.all_taken() {
            self.sweep_all();
        }
        let slot = self.slots.take(peer, snapshot.version()).ok_or(DirectoryError::Full)?;
        self.widen(slot);
        for &prefix in snapshot.entries() {
            let (bucket, rest) = split(prefix);
            self.buckets[bucket].insert(rest, slot, self.words);
        }
        self.slots.grow(&peer, snapshot.entries().len() as isize, snapshot.version());
        self.pairs += snapshot.entries().len();
        Ok(displaced)
    }

    /// Changes what is known of the peer.
    ///
    /// # Errors
    /// All but [`DirectoryError::WrongBase`] leave nothing known of the peer; that one leaves what was known.
    pub fn apply_delta(&mut self, peer: PeerId, delta: &Delta) -> Result<(), DirectoryError> {
        self.sweep(SWEEP_PER_CHANGE);
        let Some(column) = self.slots.get(&peer) else {
            return Err(DirectoryError::NoSnapshot);
        };
        let (slot, have, entries) = (column.slot, column.version, column.entries);
        if have != delta.base() {
            return Err(DirectoryError::WrongBase { have, wanted: delta.base() });
        }
        if crowded(delta.added()) {
            self.remove_peer(&peer);
            return Err(DirectoryError::Crowded);
        }
        let mut change = 0isize;
        for &prefix in delta.removed() {
            let (bucket, rest) = split(prefix);
            change -= isize::from(self.buckets[bucket].remove(rest, slot, self.words));
        }
        for &prefix in delta.added() {
            let (bucket, rest) = split(prefix);
            change += isize::from(self.buckets[bucket].insert(rest, slot, self.words));
        }
        self.pairs = self.pairs.saturating_add_signed(change);
        self.slots.grow(&peer, change, delta.version());
        let refused = match entries.saturating_add_signed(change) {
            more if more > ENTRIES_MAX => DirectoryError::TooMany,
            _ if self.pairs > self.pairs_max => DirectoryError::Full,
            _ => return Ok(()),
        };
        self.remove_peer(&peer);
        Err(refused)
    }

    /// Forgets a peer's holdings. Takes effect at once; the memory comes back with the next changes or
    /// [`Directory::sweep`].
    pub fn remove_peer(&mut self, peer: &PeerId) {
        self.slots.kill(peer);
    }

    /// Sweeps up to `buckets` buckets (65,536 make a round, about a quarter of a microsecond each when full). Returns
    /// whether there is more to do. Call it when idle.
    pub fn sweep(&mut self, buckets: usize) -> bool {
        if self.sweep_at == 0 && !self.slots.begin_sweep() {
            return false;
        }
        let end = self.sweep_at.saturating_add(buckets).min(BUCKETS);
        for bucket in &mut self.buckets[self.sweep_at..end] {
            self.pairs -= bucket.sweep(self.slots.sweeping(), self.words);
        }
        self.sweep_at = end % BUCKETS;
        if self.sweep_at == 0 {
            self.slots.end_sweep();
        }
        self.sweep_at != 0 || self.slots.any_dead()
    }

    /// Bytes of memory held, allocator overhead included. Walks all buckets (a fraction of a millisecond).
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + bucket::heap_bytes(BUCKETS * size_of::<Bucket>())
            + self.slots.memory_bytes()
            + self.buckets.iter().map(Bucket::memory_bytes).sum::<usize>()
    }

    fn sweep_all(&mut self) {
        while self.sweep(BUCKETS) {}
    }

    /// Makes room for a column of `entries`, at the cost of larger columns only.
    fn make_room(&mut self, entries: usize) -> Result<Vec<PeerId>, DirectoryError> {
        let mut displaced = Vec::new();
        if self.pairs + entries <= self.pairs_max {
            return Ok(displaced);
        }
        self.sweep_all();
        while self.pairs + entries > self.pairs_max {
            match self.slots.largest() {
                Some((peer, largest)) if largest > entries => {
                    self.remove_peer(&peer);
                    self.sweep_all();
                    displaced.push(peer);
                }
                _ => return Err(DirectoryError::Full),
            }
        }
        Ok(displaced)
    }

    /// Makes the bitsets wide enough for `slot`.
    fn widen(&mut self, slot: u16) {
        let needed = (usize::from(slot) / 64 + 1).next_power_of_two();
        if needed > self.words {
            for bucket in &mut self.buckets {
                bucket.widen(self.words, needed);
            }
            self.words = needed;
        }
    }
}

/// Bucket number and the rest of the prefix.
const fn split(prefix: u32) -> (usize, u16) {
    ((prefix >> 16) as usize, prefix as u16)
}

/// Whether some bucket gets more than an honest peer can put there.
fn crowded(sorted: &[u32]) -> bool {
    sorted.windows(CROWD_MAX + 1).any(|window| window[0] >> 16 == window[CROWD_MAX] >> 16)
}
