//! Writing a file tree as a NAR.

use super::{
    TARGET_LEN_MAX,
    format::{self, Kind, Put},
    tree::{self, Entries},
};
use rustix::{
    fd::{AsFd, BorrowedFd},
    fs::{CWD, Dir, FileType},
};
use std::{
    io::{self, Write},
    path::Path,
};

/// Size of the output buffer. Files are read straight into it; small enough to stay in the
/// second-level cache, large enough that the number of writes does not matter.
const BUFFER_BYTES: usize = 256 << 10;

/// Writes the NAR of the tree at `path` to `out`, in one pass and with bounded memory. Symlinks
/// are never followed, not at `path` either. Names come out as they are (Nix's `use-case-hack`,
/// a macOS option, is not undone).
///
/// # Errors
/// From `out`, from reading the tree (a path that vanishes or changes meanwhile included), and
/// for what no NAR holds: sockets, devices, trees deeper than [`DEPTH_MAX`](super::DEPTH_MAX).
/// What was written until then is no complete NAR.
pub fn dump(path: &Path, out: &mut impl Write) -> io::Result<()> {
    let mut dumper = Dumper {
        out,
        buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
        filled: 0,
        target: [0; TARGET_LEN_MAX + 1],
    };
    dumper.node(CWD, path, None, FileType::Unknown, 0)?;
    dumper.flush()
}

struct Dumper<'w, W> {
    out: &'w mut W,
    buffer: Box<[u8]>,
    filled: usize,
    target: [u8; TARGET_LEN_MAX + 1],
}

impl<W: Write> Dumper<'_, W> {
    /// Dumps one node. `name` is its name in the NAR, `None` at the root; `hint` is what the
    /// directory said about it, which saves a call for most files.
    fn node<P: rustix::path::Arg + Copy>(
        &mut self,
        at: BorrowedFd<'_>,
        path: P,
        name: Option<&[u8]>,
        hint: FileType,
        depth: usize,
    ) -> io::Result<()> {
        tree::check_depth(depth)?;
        let kind = match hint {
            FileType::Unknown => tree::file_type(&tree::stat_at(at, path)?),
            known => known,
        };
        match kind {
            FileType::RegularFile => self.regular(at, path, name)?,
            FileType::Directory => self.directory(at, path, name, depth)?,
            FileType::Symlink => {
                let len = tree::read_link(at, path, &mut self.target)?;
                // Taken out for the moment, because emitting needs all of `self`.
                let target = self.target;
                format::put_header(self, name, Kind::Symlink { target: &target[..len] })?;
            }
            _ => {
                return Err(tree::unsupported("only files, directories and symlinks fit in a NAR"));
            }
        }
        // Every node closes itself and, but for the root, its entry.
        format::put_closing(self, if name.is_some() { 2 } else { 1 })
    }

    fn directory(
        &mut self,
        at: BorrowedFd<'_>,
        path: impl rustix::path::Arg,
        name: Option<&[u8]>,
        depth: usize,
    ) -> io::Result<()> {
        let mut dir = Dir::new(tree::open_directory(at, path)?)?;
        let entries = Entries::read(&mut dir)?;
        format::put_header(self, name, Kind::Directory)?;
        for (entry, hint) in entries.iter() {
            self.node(dir.fd()?, entry, Some(entry), hint, depth + 1)?;
        }
        Ok(())
    }

    fn regular(
        &mut self,
        at: BorrowedFd<'_>,
        path: impl rustix::path::Arg,
        name: Option<&[u8]>,
    ) -> io::Result<()> {
        let file = tree::open_file(at, path)?;
        let stat = rustix::fs::fstat(&file)?;
        if tree::file_type(&stat) != FileType::RegularFile {
            return Err(tree::changed());
        }
        let size = tree::size(&stat);
        let executable = tree::is_executable(&stat);
        format::put_header(self, name, Kind::Regular { executable, size })?;
        self.contents(&file, size)?;
        format::put_padding(self, size)
    }

    fn contents(&mut self, file: impl AsFd, size: u64) -> io::Result<()> {
        let mut left = size;
        while left > 0 {
            if self.filled == self.buffer.len() {
                self.flush()?;
            }
            let room = self.buffer.len() - self.filled;
            let want = usize::try_from(left).unwrap_or(room).min(room);
            let free = &mut self.buffer[self.filled..self.filled + want];
            let got = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut *free))?;
            if got == 0 {
                return Err(tree::changed());
            }
            self.filled += got;
            left -= got as u64;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let filled = std::mem::take(&mut self.filled);
        self.out.write_all(&self.buffer[..filled])
    }
}

impl<W: Write> Put for Dumper<'_, W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        // The longest token is a symlink's target, far shorter than the buffer.
        if bytes.len() > self.buffer.len() - self.filled {
            self.flush()?;
        }
        self.buffer[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
        Ok(())
    }
}
