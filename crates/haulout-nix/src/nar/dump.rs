//! Writing a file tree as a NAR.

use std::{
    io::{self, Write},
    path::Path,
};

/// Writes the NAR of the tree at `path` to `out`, in one pass and with bounded memory.
///
/// # Errors
/// From reading the tree (a path that vanishes or changes meanwhile included) or from `out`. What
/// was written until then is no complete NAR.
pub fn dump(_path: &Path, _out: &mut impl Write) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
