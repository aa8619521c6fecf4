//! Where a disk can fail: the seam through which tests make it fail.

use std::{io, sync::Arc};

/// An operation on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOp {
    /// Creating a temporary file.
    Create,
    /// Writing NAR content.
    Write,
    /// Making a NAR's content durable.
    Sync,
    /// Giving a NAR its final name.
    Rename,
    /// Growing, writing or syncing the index.
    Index,
}

/// Asked before every [`DiskOp`]; an error is what the disk would have said.
pub trait Faults: Send + Sync + 'static {
    /// `Err` makes the operation fail with it.
    ///
    /// # Errors
    /// As the test pleases.
    fn before(&self, op: DiskOp) -> io::Result<()>;
}

/// No faults, or those of a test.
#[derive(Clone, Default)]
pub(crate) struct Disk(pub(crate) Option<Arc<dyn Faults>>);

impl Disk {
    pub(crate) fn before(&self, op: DiskOp) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |faults| faults.before(op))
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Disk(with faults)" } else { "Disk" })
    }
}
