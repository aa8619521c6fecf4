//! Writing a file tree as a NAR.

use super::{
    TARGET_LEN_MAX,
    format::{self, Kind, Put},
    helper::{Helper, Part},
    tree::{self, Entries},
};
use rustix::{
    fd::{AsFd, BorrowedFd},
    fs::{CWD, Dir, FileType},
};
use std::{
    io::{self, Write},
    ops::Range,
    path::Path,
    sync::Arc,
};

/// Size of the output buffer. Files are read straight into it; small enough to stay in the
/// second-level cache, large enough that the number of writes does not matter.
const BUFFER_BYTES: usize = 256 << 10;

/// The same for some entries only, into memory: it is new each time, and has to be cleared.
const PART_BUFFER_BYTES: usize = 32 << 10;

/// Entries of a directory done in one go: two threads take turns at such groups. Enough that
/// handing over (some 10 µs) does not count beside opening files (3 µs each).
const GROUP_ENTRIES: usize = 64;
/// A directory with fewer entries is not worth a second thread.
const SHARED_MIN: usize = 8;
/// Groups not handed over after one turned out to be too large.
const REST_GROUPS: usize = 8;

/// Writes the NAR of the tree at `path` to `out`, in one pass and with bounded memory. Symlinks
/// are never followed, not at `path` either. Names come out as they are (Nix's `use-case-hack`,
/// a macOS option, is not undone).
///
/// # Errors
/// From `out`, from reading the tree (a path that vanishes or changes meanwhile included), and
/// for what no NAR holds: sockets, devices, trees deeper than [`DEPTH_MAX`](super::DEPTH_MAX).
/// What was written until then is no complete NAR.
pub fn dump(path: &Path, out: &mut impl Write) -> io::Result<()> {
    // Small files cost their opening and closing, and two processors open twice as many.
    let helper = std::thread::available_parallelism().is_ok_and(|n| n.get() > 1);
    let mut dumper = Dumper::new(out, BUFFER_BYTES, helper.then(Helper::default));
    dumper.node(CWD, path, None, FileType::Unknown, 0)?;
    dumper.flush()
}

/// Writes some entries of a directory: what a [`Helper`] does.
pub(super) fn dump_entries(
    directory: BorrowedFd<'_>,
    entries: &Entries,
    range: Range<usize>,
    depth: usize,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut dumper = Dumper::new(out, PART_BUFFER_BYTES, None);
    dumper.entries(directory, entries, range, depth)?;
    dumper.flush()
}

struct Dumper<'w, W> {
    out: &'w mut W,
    buffer: Box<[u8]>,
    filled: usize,
    target: [u8; TARGET_LEN_MAX + 1],
    helper: Option<Helper>,
}

impl<'w, W: Write> Dumper<'w, W> {
    fn new(out: &'w mut W, buffer_bytes: usize, helper: Option<Helper>) -> Self {
        Self {
            out,
            buffer: vec![0; buffer_bytes].into_boxed_slice(),
            filled: 0,
            target: [0; TARGET_LEN_MAX + 1],
            helper,
        }
    }

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
        if entries.len() < SHARED_MIN || !self.helper.as_ref().is_some_and(Helper::is_free) {
            let all = 0..entries.len();
            return self.entries(dir.fd()?, &entries, all, depth);
        }
        self.shared(dir.fd()?, Arc::new(entries), depth)
    }

    fn entries(
        &mut self,
        directory: BorrowedFd<'_>,
        entries: &Entries,
        range: Range<usize>,
        depth: usize,
    ) -> io::Result<()> {
        for (entry, hint) in entries.iter(range) {
            self.node(directory, entry, Some(entry), hint, depth + 1)?;
        }
        Ok(())
    }

    /// A whole directory, every second group of entries by the helper. What it cannot do, for
    /// whatever reason, is done here, and fails here if it must.
    fn shared(
        &mut self,
        directory: BorrowedFd<'_>,
        entries: Arc<Entries>,
        depth: usize,
    ) -> io::Result<()> {
        let owned = Arc::new(directory.try_clone_to_owned()?);
        let groups = entries.groups(GROUP_ENTRIES);
        let mut rest = 0_usize;
        let mut at = 0;
        while at < groups.len() {
            let ahead = groups.get(at + 1).filter(|_| rest == 0).and_then(|range| {
                let (directory, entries) = (Arc::clone(&owned), Arc::clone(&entries));
                self.helper.as_mut()?.start(Part {
                    directory,
                    entries,
                    range: range.clone(),
                    depth,
                })
            });
            rest = rest.saturating_sub(1);
            self.entries(directory, &entries, groups[at].clone(), depth)?;
            at += 1;
            if let Some(ahead) = ahead {
                match self.helper.as_mut().and_then(|helper| helper.finish(ahead)) {
                    Some(bytes) => self.put(&bytes)?,
                    None => {
                        rest = REST_GROUPS;
                        self.entries(directory, &entries, groups[at].clone(), depth)?;
                    }
                }
                at += 1;
            }
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
        if bytes.len() > self.buffer.len() - self.filled {
            self.flush()?;
        }
        // The longest token is a symlink's target, far shorter than the buffer. What a helper
        // made may be longer.
        if bytes.len() > self.buffer.len() {
            return self.out.write_all(bytes);
        }
        self.buffer[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
        Ok(())
    }
}
