//! Looking at the file system: everything relative to directory descriptors, nothing through
//! symlinks.

use super::{DEPTH_MAX, TARGET_LEN_MAX};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat},
    io::Errno,
};
use std::{io, ops::Range};

/// Opens a directory, not through a symlink.
pub(super) fn open_directory(at: impl AsFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

/// Opens a file for reading, not through a symlink. `NONBLOCK` does nothing to regular files and
/// keeps a FIFO put in a file's place from blocking for ever.
pub(super) fn open_file(at: impl AsFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

/// `lstat`.
pub(super) fn stat_at(at: impl AsFd, name: impl rustix::path::Arg) -> io::Result<Stat> {
    Ok(rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// The kind of file that a `stat` tells.
pub(super) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Whether the owner may execute it: all that a NAR keeps of the permissions.
pub(super) fn is_executable(stat: &Stat) -> bool {
    stat.st_mode & 0o100 != 0
}

/// The size that a `stat` tells.
#[allow(clippy::cast_sign_loss, reason = "no file system reports a negative size")]
pub(super) fn size(stat: &Stat) -> u64 {
    stat.st_size as u64
}

/// Reads a symlink's target into `buf` and returns its length.
pub(super) fn read_link(
    at: impl AsFd,
    name: impl rustix::path::Arg,
    buf: &mut [u8; TARGET_LEN_MAX + 1],
) -> io::Result<usize> {
    let len = rustix::fs::readlinkat_raw(at, name, &mut buf[..])?;
    match len {
        1..=TARGET_LEN_MAX => Ok(len),
        _ => Err(unsupported("a symlink's target is empty or longer than 4095 bytes")),
    }
}

/// The error for what no NAR can hold.
pub(super) fn unsupported(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// The error for a tree that is not what it was a moment ago.
pub(super) fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the file tree changed while it was read")
}

/// Fails where Nix would not unpack any more.
pub(super) fn check_depth(depth: usize) -> io::Result<()> {
    if depth >= DEPTH_MAX {
        return Err(unsupported("the tree is deeper than 64 levels, which Nix does not unpack"));
    }
    Ok(())
}

/// The entries of one directory in the order of a NAR, names in one piece of memory.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// All names, one after the other.
    names: Vec<u8>,
    /// Start and end in `names`, and the kind if the directory tells.
    entries: Vec<(u32, u32, FileType)>,
}

impl Entries {
    /// Reads all entries of an open directory.
    pub(super) fn read(dir: &mut Dir) -> io::Result<Self> {
        let mut all = Self::default();
        while let Some(entry) = dir.read() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let start = u32::try_from(all.names.len()).map_err(|_| Errno::OVERFLOW)?;
            all.names.extend_from_slice(name);
            let end = u32::try_from(all.names.len()).map_err(|_| Errno::OVERFLOW)?;
            all.entries.push((start, end, entry.file_type()));
        }
        let names = &all.names;
        all.entries.sort_unstable_by_key(|(start, end, _)| &names[*start as usize..*end as usize]);
        Ok(all)
    }

    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Those of `range`.
    pub(super) fn iter(&self, range: Range<usize>) -> impl Iterator<Item = (&[u8], FileType)> {
        self.entries[range]
            .iter()
            .map(|(start, end, kind)| (&self.names[*start as usize..*end as usize], *kind))
    }

    /// All entries in groups: a directory alone, others up to `max` at a time, and no more than
    /// half of them.
    pub(super) fn groups(&self, max: usize) -> Vec<Range<usize>> {
        let max = max.min(self.entries.len().div_ceil(2)).max(1);
        let mut groups = Vec::new();
        let mut start = 0;
        while start < self.entries.len() {
            let mut end = start + 1;
            if self.entries[start].2 != FileType::Directory {
                let more = self.entries[end..].iter().take(max - 1);
                end += more.take_while(|entry| entry.2 != FileType::Directory).count();
            }
            groups.push(start..end);
            start = end;
        }
        groups
    }
}
