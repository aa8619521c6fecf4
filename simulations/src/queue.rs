//! What happens when: a heap of events, ties in the order in which they were made.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::net::Nanos;

struct Entry<E> {
    at: Nanos,
    number: u64,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    // The earliest is the greatest: a binary heap gives that first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// The events to come.
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Entry<E>>,
    numbers: u64,
}

impl<E> Queue<E> {
    pub(crate) const fn new() -> Self {
        Self { heap: BinaryHeap::new(), numbers: 0 }
    }

    pub(crate) fn push(&mut self, at: Nanos, event: E) {
        self.numbers += 1;
        self.heap.push(Entry { at, number: self.numbers, event });
    }

    /// The next event, with its time and its number.
    pub(crate) fn pop(&mut self) -> Option<(Nanos, u64, E)> {
        self.heap.pop().map(|entry| (entry.at, entry.number, entry.event))
    }
}
