//! Recently used NAR layouts, and reading through them.

use std::io;
use std::sync::Arc;

use haulout_mesh::{NarKey, NarReader};
use haulout_nix::db::StoreLocation;
use haulout_nix::nar::Layout;
use haulout_nix::{HashPart, StorePath};

use super::giving::Giving;
use super::source::Source;
use crate::bounded::Bounded;
use crate::stats::Stats;

/// What all kept layouts may take, in bytes. One of a path with 20,000 files
/// takes about 2 MB.
const LAYOUTS_BYTES: usize = 8 << 20;

/// A layout, made from `lstat` alone and kept while it is in use.
pub(crate) struct Layouts {
    kept: Bounded<HashPart, Arc<Layout>>,
    location: StoreLocation,
}

impl Layouts {
    pub(crate) fn new(location: StoreLocation) -> Self {
        Self { kept: Bounded::new(LAYOUTS_BYTES), location }
    }

    /// The layout of a path whose NAR must have this size. Scans the path if
    /// need be: for blocking threads.
    pub(crate) fn get(&self, path: &StorePath, nar_size: u64) -> io::Result<Arc<Layout>> {
        let hash = path.hash_part();
        if let Some(layout) = self.kept.get(&hash).filter(|layout| layout.nar_size() == nar_size) {
            return Ok(layout);
        }
        let layout = Layout::scan(&self.location.real_path(path))?;
        if layout.nar_size() != nar_size {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the files of the path are not those the store database describes",
            ));
        }
        let layout = Arc::new(layout);
        self.kept.put(hash, Arc::clone(&layout), layout.memory_bytes());
        Ok(layout)
    }

    /// Forgets the layout of a path that is gone or was found changed.
    pub(crate) fn forget(&self, hash: &HashPart) {
        self.kept.remove(hash);
    }
}

/// A NAR of this machine, given to a peer.
pub(crate) struct GivenNar {
    pub(crate) source: Source,
    pub(crate) layouts: Arc<Layouts>,
    pub(crate) key: NarKey,
    pub(crate) giving: Arc<Giving>,
    pub(crate) stats: Arc<Stats>,
}

impl NarReader for GivenNar {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        match self.source.read_at(offset, buf) {
            Ok(read) => {
                self.stats.bytes_out.add(read as u64);
                self.giving.add(read as u64);
                Ok(read)
            }
            Err(error) => {
                // Deleted or altered: the next asker gets a fresh look.
                self.layouts.forget(&self.key.path);
                Err(error)
            }
        }
    }
}

impl Drop for GivenNar {
    fn drop(&mut self) {
        // No open file outlives the transfer: it would keep garbage on disk.
        self.source.release();
    }
}
