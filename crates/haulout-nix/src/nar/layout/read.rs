//! Reading ranges of a [`Layout`].

use super::{Layout, Node, NodeKind};
use crate::nar::{
    format::{self, Put},
    tree,
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{CWD, FileType},
};
use std::io;

/// Directories that a cursor leaves open after a read, from the root down. Deeper ones are opened
/// anew when needed.
const DIRECTORIES_KEPT: usize = 8;

/// Where a reader of a [`Layout`] is, with the file and the directories it has open (about two to
/// eight descriptors). Use one cursor with one layout only.
#[derive(Debug, Default)]
pub struct Cursor {
    /// End of the last read in the NAR.
    offset: u64,
    /// The node that `offset` is in: where to look first.
    node: usize,
    /// The chain of open directories from the root down, each with its node's index.
    directories: Vec<(u32, OwnedFd)>,
    /// The open file and its node's index.
    file: Option<(usize, OwnedFd)>,
}

impl Cursor {
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }
}

impl Layout {
    /// [`Layout::read_at`] for readers that keep their own place.
    ///
    /// # Errors
    /// As for [`Layout::read_at`].
    pub fn read_with(&self, cursor: &mut Cursor, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if offset >= self.nar_size || buf.is_empty() {
            return Ok(0);
        }
        let mut index = self.find(cursor.node, offset);
        let mut window = Window { skip: offset - self.nodes[index].start, out: buf, filled: 0 };
        loop {
            self.put_node(cursor, index, &mut window)?;
            if window.is_full() || index + 1 == self.nodes.len() {
                break;
            }
            index += 1;
        }
        cursor.directories.truncate(DIRECTORIES_KEPT);
        cursor.node = index;
        cursor.offset = offset + window.filled as u64;
        Ok(window.filled)
    }

    /// The node whose bytes `offset` is among; `near` is tried first.
    fn find(&self, near: usize, offset: u64) -> usize {
        let starts_after = |node: &Node| node.start > offset;
        let follows = |index: usize| self.nodes.get(index + 1).is_none_or(starts_after);
        if self.nodes.get(near).is_some_and(|node| node.start <= offset) && follows(near) {
            return near;
        }
        // The root starts at 0, so at least one node does not start after the offset.
        self.nodes.partition_point(|node| !starts_after(node)) - 1
    }

    /// Emits everything of one node into the window, which drops what is not wanted.
    fn put_node(
        &self,
        cursor: &mut Cursor,
        index: usize,
        window: &mut Window<'_>,
    ) -> io::Result<()> {
        let node = &self.nodes[index];
        let header_len = self.header_len(node);
        if window.skip >= header_len {
            window.skip -= header_len;
        } else {
            format::put_header(window, self.header_name(node), self.kind(node))?;
        }
        if node.is_file() {
            self.put_contents(cursor, index, window)?;
            format::put_padding(window, node.size)?;
        }
        if window.is_full() {
            return Ok(());
        }
        format::put_closing(window, self.closing_count(index))
    }

    fn put_contents(
        &self,
        cursor: &mut Cursor,
        index: usize,
        window: &mut Window<'_>,
    ) -> io::Result<()> {
        let size = self.nodes[index].size;
        let from = window.skip.min(size);
        window.skip -= from;
        let room = window.out.len() - window.filled;
        let want = usize::try_from(size - from).unwrap_or(room).min(room);
        if want == 0 {
            return Ok(());
        }
        let file = self.file(cursor, index)?;
        let mut done = 0;
        while done < want {
            let free = &mut window.out[window.filled..window.filled + want - done];
            let at = from + done as u64;
            let got = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *free, at))?;
            if got == 0 {
                return Err(tree::changed());
            }
            done += got;
            window.filled += got;
        }
        Ok(())
    }

    /// The open file of a node, checked to be as it was when it was scanned.
    fn file<'c>(&self, cursor: &'c mut Cursor, index: usize) -> io::Result<BorrowedFd<'c>> {
        if cursor.file.as_ref().is_none_or(|(open, _)| *open != index) {
            cursor.file = None;
            let known_directories = !cursor.directories.is_empty();
            let file = match self.open_file(cursor, index) {
                // The path may have been deleted and put back since its directories were opened.
                Err(error) if known_directories && error.kind() == io::ErrorKind::NotFound => {
                    cursor.directories.clear();
                    self.open_file(cursor, index)
                }
                other => other,
            }?;
            cursor.file = Some((index, file));
        }
        match &cursor.file {
            Some((_, file)) => Ok(file.as_fd()),
            None => Err(tree::changed()),
        }
    }

    fn open_file(&self, cursor: &mut Cursor, index: usize) -> io::Result<OwnedFd> {
        let node = &self.nodes[index];
        let file = if node.depth == 0 {
            tree::open_file(CWD, &self.root)?
        } else {
            tree::open_file(self.directory(cursor, node.parent)?, self.name(node))?
        };
        let stat = rustix::fs::fstat(&file)?;
        let executable = node.kind == NodeKind::Executable;
        if tree::file_type(&stat) != FileType::RegularFile
            || tree::size(&stat) != node.size
            || tree::is_executable(&stat) != executable
        {
            return Err(tree::changed());
        }
        Ok(file)
    }

    /// Makes `wanted` the last of the cursor's open directories.
    fn directory<'c>(&self, cursor: &'c mut Cursor, wanted: u32) -> io::Result<BorrowedFd<'c>> {
        let open = &mut cursor.directories;
        // From the wanted directory up to one that is open already, or to the root.
        let mut missing = Vec::new();
        let mut index = wanted;
        loop {
            let depth = usize::from(self.nodes[index as usize].depth);
            if open.get(depth).is_some_and(|(at, _)| *at == index) {
                open.truncate(depth + 1);
                break;
            }
            missing.push(index);
            if depth == 0 {
                open.clear();
                break;
            }
            index = self.nodes[index as usize].parent;
        }
        for index in missing.into_iter().rev() {
            let node = &self.nodes[index as usize];
            let fd = match open.last() {
                None => tree::open_directory(CWD, &self.root)?,
                Some((_, parent)) => tree::open_directory(parent, self.name(node))?,
            };
            open.push((index, fd));
        }
        match open.last() {
            Some((_, fd)) => Ok(fd.as_fd()),
            None => Err(tree::changed()),
        }
    }
}

/// The part of the NAR that is wanted: drops `skip` bytes, then fills `out`, then drops the rest.
struct Window<'b> {
    skip: u64,
    out: &'b mut [u8],
    filled: usize,
}

impl Window<'_> {
    const fn is_full(&self) -> bool {
        self.filled == self.out.len()
    }
}

impl Put for Window<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let skip = usize::try_from(self.skip).unwrap_or(bytes.len()).min(bytes.len());
        self.skip -= skip as u64;
        let rest = &bytes[skip..];
        let take = rest.len().min(self.out.len() - self.filled);
        self.out[self.filled..self.filled + take].copy_from_slice(&rest[..take]);
        self.filled += take;
        Ok(())
    }
}
