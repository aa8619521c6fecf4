//! Index pages in memory.

use haulout_archive::{Digest, Page};
use lru::LruCache;
use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::OnceCell;

/// Pages that are kept: at about 150 kB decompressed, 40 MB.
const PAGES_MAX: NonZeroUsize = match NonZeroUsize::new(256) {
    Some(max) => max,
    None => unreachable!(),
};

/// One page, fetched once however many ask for it.
pub(crate) type Slot = Arc<OnceCell<Arc<Page>>>;

/// Checked pages of all levels, by root and number.
#[derive(Debug)]
pub(crate) struct PageCache {
    slots: Mutex<LruCache<(Digest, u64), Slot>>,
}

impl PageCache {
    pub(crate) fn new() -> Self {
        Self { slots: Mutex::new(LruCache::new(PAGES_MAX)) }
    }

    pub(crate) fn slot(&self, root: &Digest, page: u64) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.get_or_insert((*root, page), Slot::default))
    }
}
