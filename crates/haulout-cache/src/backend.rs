//! The index's file as redb sees it: plain positional I/O with the fault seam in front.
//!
//! No locking here: the whole directory is locked by its `LOCK` file.

use std::{fs::File, io, os::unix::fs::FileExt};

use redb::StorageBackend;

use crate::{DiskOp, faults::Disk};

#[derive(Debug)]
pub(crate) struct Backend {
    file: File,
    disk: Disk,
}

impl Backend {
    pub(crate) fn new(file: File, disk: Disk) -> Self {
        Self { file, disk }
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.before(DiskOp::Index)?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.before(DiskOp::Index)?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.before(DiskOp::Index)?;
        self.file.write_all_at(data, offset)
    }
}
