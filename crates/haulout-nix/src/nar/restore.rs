//! Unpacking a NAR.

use super::{NarDigest, NarError, Visitor, decode, tree};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{CWD, Mode, OFlags},
};
use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// Unpacks the NAR from `reader` to `dest`, which must not exist, and gives its digest. Modes are
/// 0666 or 0777 less the umask, as with `nix-store --restore`.
///
/// Nothing outside `dest` is written, whatever the archive says: names have one component, every
/// file is created new inside a directory that this call created, and nothing is followed. After
/// an error, what was unpacked so far is left at `dest`.
///
/// # Errors
/// For a NAR that the [`Decoder`](super::Decoder) refuses, from `reader`, and from the file system (inside
/// [`NarErrorKind::Visitor`](super::NarErrorKind::Visitor)), `dest` existing already included.
pub fn restore(reader: impl Read, dest: &Path) -> Result<NarDigest, NarError> {
    decode(reader, &mut TreeWriter { dest, directories: Vec::new(), file: None })
}

struct TreeWriter<'p> {
    dest: &'p Path,
    /// The directories that are being filled, from the root down.
    directories: Vec<OwnedFd>,
    file: Option<File>,
}

impl TreeWriter<'_> {
    /// Where to create a node: a directory of ours and the name in it, or `dest` for the root.
    fn place<'a>(&'a self, name: &'a [u8]) -> (BorrowedFd<'a>, &'a [u8]) {
        match self.directories.last() {
            None => (CWD, self.dest.as_os_str().as_bytes()),
            Some(directory) => (directory.as_fd(), name),
        }
    }
}

impl Visitor for TreeWriter<'_> {
    fn enter_directory(&mut self, name: &[u8]) -> io::Result<()> {
        let (at, name) = self.place(name);
        rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o777))?;
        let directory = tree::open_directory(at, name)?;
        self.directories.push(directory);
        Ok(())
    }

    fn leave_directory(&mut self) -> io::Result<()> {
        self.directories.pop();
        Ok(())
    }

    fn start_file(&mut self, name: &[u8], executable: bool, _size: u64) -> io::Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(if executable { 0o777 } else { 0o666 });
        let (at, name) = self.place(name);
        let file = rustix::fs::openat(at, name, flags, mode)?;
        self.file = Some(file.into());
        Ok(())
    }

    fn file_data(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(data))
    }

    fn end_file(&mut self) -> io::Result<()> {
        self.file = None;
        Ok(())
    }

    fn symlink(&mut self, name: &[u8], target: &[u8]) -> io::Result<()> {
        let (at, name) = self.place(name);
        Ok(rustix::fs::symlinkat(target, at, name)?)
    }
}
