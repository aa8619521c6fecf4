//! Random access to the NAR of a file tree without dumping it.

use std::{io, path::Path};

/// Where every byte of a tree's NAR is: made from `lstat`, `readdir` and `readlink` alone.
#[derive(Debug)]
pub struct Layout {
    nar_size: u64,
}

impl Layout {
    /// Scans the tree at `path`; reads no file.
    ///
    /// # Errors
    /// From the file system, and for what no NAR can hold (sockets, devices, too deep a tree).
    pub fn scan(_path: &Path) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Bytes of the whole NAR.
    #[must_use]
    pub const fn nar_size(&self) -> u64 {
        self.nar_size
    }

    /// Fills `buf` with the NAR's bytes from `offset` on. The count is less than `buf.len()` only
    /// at the end of the NAR.
    ///
    /// # Errors
    /// When a file vanished, changed its size or its kind since the scan: never wrong data.
    pub fn read_at(&self, _offset: u64, _buf: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
