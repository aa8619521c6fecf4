//! NARs that nobody here has: from an archive, or else from the caches.

use std::sync::{Arc, OnceLock};

use haulout_mesh::NarKey;

use crate::archives::Archives;
use crate::peers::Answer;
use crate::site::upstream::Upstream;
use crate::transfer::{NarBytes, NarOutside};

/// Everything outside that NARs come from, once it is known.
#[derive(Default)]
pub(crate) struct Outsides {
    pub(crate) archives: OnceLock<Arc<Archives>>,
    pub(crate) upstream: OnceLock<Upstream>,
}

impl NarOutside for Outsides {
    fn is_there(&self) -> bool {
        self.archives.get().is_some() || self.upstream.get().is_some_and(Upstream::is_there)
    }

    fn open(&self, key: NarKey) -> Answer<Option<NarBytes>> {
        let (archives, upstream) = (self.archives.get().cloned(), self.upstream.get().cloned());
        Box::pin(async move {
            if let Some(archives) = archives
                && let Some(bytes) = archives.open(key).await
            {
                return Some(bytes);
            }
            upstream?.open(key).await
        })
    }

    fn kept(&self, key: NarKey) -> Option<NarBytes> {
        self.upstream.get()?.kept(key)
    }

    fn kept_wrong(&self, key: NarKey) {
        if let Some(upstream) = self.upstream.get() {
            upstream.kept_wrong(key);
        }
    }

    fn kept_was_wrong(&self, key: NarKey) {
        if let Some(upstream) = self.upstream.get() {
            upstream.kept_was_wrong(key);
        }
    }

    fn wrong(&self, key: NarKey) {
        // An archive's NAR never ends well without being right.
        if let Some(upstream) = self.upstream.get() {
            upstream.wrong(key);
        }
    }
}
