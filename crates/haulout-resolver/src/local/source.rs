//! An open NAR of this machine, wherever it lies.

use std::io;
use std::sync::Arc;

use haulout_cache::CachedNar;
use haulout_mesh::NarKey;
use haulout_nix::nar::Layout;

use super::LocalStore;

/// Where a NAR lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Its files are in the own store.
    Store,
    /// It is a file in the cache.
    Cache,
}

/// Random access to the bytes of a NAR.
pub(crate) enum Source {
    Store(Arc<Layout>),
    Cache(CachedNar),
}

impl Source {
    pub(crate) fn place(&self) -> Place {
        match self {
            Self::Store(_) => Place::Store,
            Self::Cache(_) => Place::Cache,
        }
    }

    /// Reads at `offset`, as much as comes in one go; 0 at the end.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Store(layout) => layout.read_at(offset, buffer),
            Self::Cache(nar) => nar.read_at(offset, buffer),
        }
    }

    /// Closes files that were opened while reading.
    pub(crate) fn release(&self) {
        if let Self::Store(layout) = self {
            layout.release();
        }
    }
}

impl LocalStore {
    /// Exactly this NAR, from the store or else from the cache (blocking).
    pub(crate) fn source(&self, key: &NarKey) -> io::Result<Source> {
        match self.layout(key) {
            Ok(layout) => Ok(Source::Store(layout)),
            Err(error) => self.kept.open_nar(key).map(Source::Cache).ok_or(error),
        }
    }
}
