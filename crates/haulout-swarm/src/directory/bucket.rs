//! One bucket: what starts with the same 16 bits.

use super::slots::SlotSet;

/// Entries with few holders as pairs, entries with many as bitsets. An entry is in one of both, never in both.
#[derive(Debug, Clone, Default)]
pub(super) struct Bucket {
    /// Ascending; remaining bits of the prefix in the high half, slot in the low half.
    pairs: Vec<u32>,
    /// Records of `1 + words` words, ascending by their first word: remaining bits of the prefix in its high half,
    /// number of holders in its low half. The other words have one bit per slot.
    sets: Vec<u64>,
}

/// Most holders kept as pairs: beyond it the bitset record is smaller.
const fn pairs_max(words: usize) -> usize {
    2 * (1 + words)
}

const fn pair(rest: u16, slot: u16) -> u32 {
    (rest as u32) << 16 | slot as u32
}

impl Bucket {
    /// Adds a holder; false if it was there.
    pub(super) fn insert(&mut self, rest: u16, slot: u16, words: usize) -> bool {
        if let Ok(at) = self.find_set(rest, words) {
            let (word, bit) = bit_of(at, slot);
            let new = self.sets[word] & bit == 0;
            self.sets[word] |= bit;
            self.sets[at] += u64::from(new);
            return new;
        }
        let at = lower_bound(&self.pairs, pair(rest, slot));
        if self.pairs.get(at) == Some(&pair(rest, slot)) {
            return false;
        }
        make_room(&mut self.pairs, 1);
        self.pairs.insert(at, pair(rest, slot));
        if self.run(rest).len() > pairs_max(words) {
            self.promote(rest, words);
        }
        true
    }

    /// Removes a holder; false if it was not there.
    pub(super) fn remove(&mut self, rest: u16, slot: u16, words: usize) -> bool {
        if let Ok(at) = self.find_set(rest, words) {
            let (word, bit) = bit_of(at, slot);
            if self.sets[word] & bit == 0 {
                return false;
            }
            self.sets[word] &= !bit;
            self.sets[at] -= 1;
            self.demote_if_small(at, words);
            return true;
        }
        let at = lower_bound(&self.pairs, pair(rest, slot));
        let found = self.pairs.get(at) == Some(&pair(rest, slot));
        if found {
            self.pairs.remove(at);
            trim(&mut self.pairs);
        }
        found
    }

    /// Calls `each` with every slot that holds the entry until it returns false, beginning at a place that `random`
    /// decides.
    pub(super) fn visit(
        &self,
        rest: u16,
        words: usize,
        random: u64,
        mut each: impl FnMut(u16) -> bool,
    ) {
        let run = &self.pairs[self.run(rest)];
        if !run.is_empty() {
            let (later, first) = run.split_at(scaled(random, run.len()));
            let _ = first.iter().chain(later).all(|pair| each(*pair as u16));
        } else if let Ok(at) = self.find_set(rest, words) {
            let set = &self.sets[at + 1..=at + words];
            let start = scaled(random, words);
            let _ = (start..words).chain(0..start).all(|word| {
                let mut bits = set[word];
                while bits != 0 {
                    if !each((word * 64) as u16 + bits.trailing_zeros() as u16) {
                        return false;
                    }
                    bits &= bits - 1;
                }
                true
            });
        }
    }

    /// Removes all slots of `dead`; returns how many pairs that were.
    pub(super) fn sweep(&mut self, dead: &SlotSet, words: usize) -> usize {
        let is_dead = |pair: &u32| {
            let slot = *pair as u16;
            dead[usize::from(slot / 64)] >> (slot % 64) & 1 == 1
        };
        let before = self.pairs.len();
        if self.pairs.iter().any(is_dead) {
            self.pairs.retain(|pair| !is_dead(pair));
        }
        let mut removed = before - self.pairs.len();
        let mut at = 0;
        while at < self.sets.len() {
            let mut gone = 0;
            for (word, dead) in self.sets[at + 1..=at + words].iter_mut().zip(dead) {
                gone += (*word & dead).count_ones();
                *word &= !dead;
            }
            removed += gone as usize;
            self.sets[at] -= u64::from(gone);
            if gone == 0 || !self.demote_if_small(at, words) {
                at += 1 + words;
            }
        }
        trim(&mut self.pairs);
        removed
    }

    /// Rewrites the bitsets with `to` instead of `from` words.
    pub(super) fn widen(&mut self, from: usize, to: usize) {
        if self.sets.is_empty() {
            return;
        }
        let mut wider = Vec::with_capacity(self.sets.len() / (1 + from) * (1 + to));
        for record in self.sets.chunks_exact(1 + from) {
            wider.extend_from_slice(record);
            wider.resize(wider.len() + to - from, 0);
        }
        self.sets = wider;
    }

    pub(super) fn memory_bytes(&self) -> usize {
        heap_bytes(self.pairs.capacity() * 4) + heap_bytes(self.sets.capacity() * 8)
    }

    /// Positions of the pairs of one entry.
    fn run(&self, rest: u16) -> std::ops::Range<usize> {
        let start = lower_bound(&self.pairs, pair(rest, 0));
        let len =
            self.pairs[start..].iter().take_while(|pair| **pair >> 16 == u32::from(rest)).count();
        start..start + len
    }

    /// Position of the record of `rest`, or where it belongs.
    fn find_set(&self, rest: u16, words: usize) -> Result<usize, usize> {
        let stride = 1 + words;
        let (mut low, mut high) = (0, self.sets.len() / stride);
        while low < high {
            let middle = low.midpoint(high);
            match ((self.sets[middle * stride] >> 32) as u16).cmp(&rest) {
                std::cmp::Ordering::Equal => return Ok(middle * stride),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low * stride)
    }

    /// Turns the pairs of one entry into a bitset.
    fn promote(&mut self, rest: u16, words: usize) {
        let run = self.run(rest);
        let Err(at) = self.find_set(rest, words) else {
            return;
        };
        let mut record = vec![0u64; 1 + words];
        record[0] = u64::from(rest) << 32 | run.len() as u64;
        for pair in self.pairs.drain(run) {
            let (word, bit) = bit_of(0, pair as u16);
            record[word] |= bit;
        }
        trim(&mut self.pairs);
        make_room(&mut self.sets, record.len());
        self.sets.splice(at..at, record);
    }

    /// Turns a bitset with few holders back into pairs. Half the promotion limit, so that one peer coming and going
    /// does not rewrite the bucket each time.
    fn demote_if_small(&mut self, at: usize, words: usize) -> bool {
        let holders = self.sets[at] as u32 as usize;
        if holders > pairs_max(words) / 2 {
            return false;
        }
        let rest = (self.sets[at] >> 32) as u16;
        let mut run = Vec::with_capacity(holders);
        for word in 0..words {
            let mut bits = self.sets[at + 1 + word];
            while bits != 0 {
                run.push(pair(rest, (word * 64) as u16 + bits.trailing_zeros() as u16));
                bits &= bits - 1;
            }
        }
        self.sets.drain(at..=at + words);
        self.sets.shrink_to_fit();
        let at = lower_bound(&self.pairs, pair(rest, 0));
        make_room(&mut self.pairs, run.len());
        self.pairs.splice(at..at, run);
        true
    }
}

/// Word and bit of a slot in the record at `at`.
fn bit_of(at: usize, slot: u16) -> (usize, u64) {
    (at + 1 + usize::from(slot / 64), 1 << (slot % 64))
}

/// A random number as an index below `len`.
fn scaled(random: u64, len: usize) -> usize {
    ((u128::from(random) * len as u128) >> 64) as usize
}

/// First position whose pair is not below `key`. The pairs of honest peers are spread evenly, so the search begins
/// where the key should be and touches one or two cache lines; for any other spread it is a galloping search.
fn lower_bound(pairs: &[u32], key: u32) -> usize {
    let len = pairs.len();
    if len == 0 {
        return 0;
    }
    let guess = ((key >> 16) as usize * len) >> 16;
    let mut step = 8;
    let (mut low, mut high);
    if pairs[guess] < key {
        low = guess + 1;
        high = (low + step).min(len);
        while high < len && pairs[high - 1] < key {
            low = high;
            step *= 2;
            high = (low + step).min(len);
        }
    } else {
        high = guess;
        low = high.saturating_sub(step);
        while low > 0 && pairs[low] >= key {
            high = low;
            step *= 2;
            low = high.saturating_sub(step);
        }
    }
    low + pairs[low..high].partition_point(|pair| *pair < key)
}

/// Grows by an eighth instead of doubling: 65,536 buckets of a few hundred bytes each must not be half empty.
fn make_room<T>(list: &mut Vec<T>, more: usize) {
    if list.capacity() - list.len() < more {
        list.reserve_exact(more.max(list.len() / 8).max(2));
    }
}

/// Gives memory back when more than a quarter lies idle.
fn trim<T>(list: &mut Vec<T>) {
    if list.capacity() > 8 && list.len() + list.len() / 4 + 4 < list.capacity() {
        list.shrink_to(list.len() + list.len() / 8);
    }
}

/// What an allocation of `bytes` takes from the heap: eight bytes of header, rounded up to 16, at least 32 (glibc).
pub(super) const fn heap_bytes(bytes: usize) -> usize {
    if bytes == 0 {
        return 0;
    }
    let whole = (bytes + 8).next_multiple_of(16);
    if whole < 32 { 32 } else { whole }
}
