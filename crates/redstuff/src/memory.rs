//! Memory for what an encoding makes, in huge pages where the system has them.
//!
//! The system zeroes and maps fresh memory page by page when it is first touched. In pages of
//! 4 KiB that takes about as long as encoding what goes there, in pages of 2 MiB a fraction.

use std::{
    ops::{Deref, DerefMut, Range},
    sync::Arc,
};

use bytes::Bytes;
use memmap2::MmapMut;

/// From this many bytes on huge pages are asked for: two of those of x86-64.
const HUGE_FROM: usize = 4 << 20;

/// Bytes to write to.
#[derive(Debug)]
pub(crate) struct Memory {
    store: Store,
    length: usize,
}

#[derive(Debug)]
enum Store {
    Heap(Vec<u8>),
    Mapped(MmapMut),
}

impl Memory {
    /// `length` bytes: those of `earlier` with whatever is in them if there are enough, else
    /// fresh ones.
    pub(crate) fn new(length: usize, earlier: Option<Self>) -> Self {
        let store = match earlier {
            Some(Self { store, .. }) if store.bytes().len() >= length => store,
            _ => Store::new(length),
        };
        Self { store, length }
    }
}

impl Store {
    fn new(length: usize) -> Self {
        let mapped = || {
            let map = MmapMut::map_anon(length).ok()?;
            // A wish: without huge pages it is slower, not wrong.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            Some(Self::Mapped(map))
        };
        let mapped = if length >= HUGE_FROM { mapped() } else { None };
        mapped.unwrap_or_else(|| Self::Heap(vec![0; length]))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.store.bytes()[..self.length]
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.store.bytes_mut()[..self.length]
    }
}

/// Memory that slivers share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    bytes: Bytes,
    memory: Arc<Memory>,
}

/// What [`Bytes`] holds on to.
struct Owner(Arc<Memory>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Shared {
    /// A part of it. Shares the memory.
    pub(crate) fn slice(&self, range: Range<usize>) -> Bytes {
        self.bytes.slice(range)
    }

    /// The memory, if nobody else uses it.
    pub(crate) fn reclaim(self) -> Option<Memory> {
        let Self { bytes, memory } = self;
        drop(bytes);
        Arc::into_inner(memory)
    }
}

impl From<Memory> for Shared {
    fn from(memory: Memory) -> Self {
        let memory = Arc::new(memory);
        Self { bytes: Bytes::from_owner(Owner(Arc::clone(&memory))), memory }
    }
}

impl Deref for Shared {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_once_nobody_uses_it() {
        for length in [10, HUGE_FROM] {
            let mut memory = Memory::new(length, None);
            assert!(memory.iter().all(|&byte| byte == 0));
            memory[length - 1] = 7;
            let shared = Shared::from(memory);
            let part = shared.slice(length - 1..length);
            assert!(shared.clone().reclaim().is_none());
            assert_eq!(part, [7][..]);
            drop(part);
            let memory = shared.reclaim().unwrap();
            let smaller = Memory::new(length - 1, Some(memory));
            assert_eq!(smaller.len(), length - 1);
            let larger = Memory::new(length + 1, Some(smaller));
            assert_eq!(larger.len(), length + 1);
        }
    }
}
