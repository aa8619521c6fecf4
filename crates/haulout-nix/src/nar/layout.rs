//! Random access to the NAR of a file tree without dumping it.

use super::{
    Listing, NAME_LEN_MAX, TARGET_LEN_MAX,
    format::{self, Kind},
    tree::{self, Entries},
};
use rustix::{
    fd::BorrowedFd,
    fs::{CWD, Dir, FileType},
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

mod read;
pub use read::Cursor;

/// Cursors that [`Layout::read_at`] keeps: readers that may take turns without opening files anew.
const CURSORS_KEPT: usize = 4;

/// Where every byte of a tree's NAR is: made from `lstat`, `readdir` and `readlink` alone, so that
/// any range of the NAR can be read without reading what is before it.
///
/// Takes 32 bytes and the name for each file. It describes the tree at the time of the scan: a
/// file that vanished, or changed its size, kind or executable bit since, makes reads of its
/// bytes fail. A file that was overwritten with as many other bytes is not noticed, as with any
/// other way of serving a store.
#[derive(Debug)]
pub struct Layout {
    root: PathBuf,
    /// In the order of the NAR.
    nodes: Vec<Node>,
    /// Names and symlink targets.
    text: Vec<u8>,
    nar_size: u64,
    cursors: Mutex<Vec<Cursor>>,
}

/// One file, symlink or directory.
#[derive(Debug, Clone, Copy)]
struct Node {
    /// Offset of its header in the NAR.
    start: u64,
    /// Bytes of a file's contents, or of a symlink's target.
    size: u64,
    /// Where its name starts in the text; a symlink's target comes right after the name.
    text_at: u32,
    /// Index of the directory it is in; 0 for the root.
    parent: u32,
    name_len: u8,
    depth: u8,
    kind: NodeKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NodeKind {
    Directory,
    Regular,
    Executable,
    Symlink,
}

// Tens of thousands of these are kept for each large path that is served.
const _: () = assert!(size_of::<Node>() == 32);

impl Layout {
    /// Scans the tree at `path`, which is not followed if it is a symlink; opens no file.
    ///
    /// # Errors
    /// From the file system, and for what no NAR holds (see [`dump`](super::dump)).
    pub fn scan(path: &Path) -> io::Result<Self> {
        let mut scan = Scan {
            layout: Self {
                root: path.to_owned(),
                nodes: Vec::new(),
                text: Vec::new(),
                nar_size: 0,
                cursors: Mutex::new(Vec::new()),
            },
            target: [0; TARGET_LEN_MAX + 1],
        };
        scan.node(CWD, path, None, FileType::Unknown, 0)?;
        let mut layout = scan.layout;
        layout.finish()?;
        layout.nodes.shrink_to_fit();
        layout.text.shrink_to_fit();
        Ok(layout)
    }

    /// Bytes of the whole NAR.
    #[must_use]
    pub const fn nar_size(&self) -> u64 {
        self.nar_size
    }

    /// The path that was scanned.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Number of files, directories and symlinks, the root included.
    #[must_use]
    pub const fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Bytes of memory that the layout takes, open files aside.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.nodes.capacity() * size_of::<Node>()
            + self.text.capacity()
            + self.root.as_os_str().len()
    }

    /// What the tree holds and where, for `.ls` files.
    #[must_use]
    pub const fn listing(&self) -> Listing<'_> {
        Listing::new(self)
    }

    /// Fills `buf` with the NAR's bytes from `offset` on. The count is less than `buf.len()` only
    /// at the end of the NAR.
    ///
    /// Files stay open between calls, so that reading in sequence opens each file once; up to
    /// four readers may take turns. See [`Layout::release`], and [`Layout::read_with`] for readers
    /// that keep their own place.
    ///
    /// # Errors
    /// When a file vanished or changed since the scan, and from reading: never wrong data. What
    /// `buf` holds then is unspecified.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut cursor = self.take_cursor(offset);
        let got = self.read_with(&mut cursor, offset, buf)?;
        let mut kept = self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < CURSORS_KEPT {
            kept.push(cursor);
        }
        Ok(got)
    }

    /// Closes the files that [`Layout::read_at`] keeps open. The next read opens what it needs.
    pub fn release(&self) {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The cursor that was left at `offset`, or else a fresh one, or else the oldest.
    fn take_cursor(&self, offset: u64) -> Cursor {
        let mut kept = self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.iter().position(|cursor| cursor.offset() == offset) {
            Some(place) => kept.remove(place),
            None if kept.len() < CURSORS_KEPT => Cursor::default(),
            None => kept.remove(0),
        }
    }

    // Nodes are made by `Scan` alone: the name it found, and after it the target of a symlink, lie in
    // `text` at the place that the node says.
    fn name(&self, node: &Node) -> &[u8] {
        &self.text[node.text_at as usize..][..usize::from(node.name_len)]
    }

    fn target(&self, node: &Node) -> &[u8] {
        // Sizes of symlinks are at most TARGET_LEN_MAX.
        &self.text[node.text_at as usize + usize::from(node.name_len)..][..node.size as usize]
    }

    fn kind(&self, node: &Node) -> Kind<'_> {
        match node.kind {
            NodeKind::Directory => Kind::Directory,
            NodeKind::Regular => Kind::Regular { executable: false, size: node.size },
            NodeKind::Executable => Kind::Regular { executable: true, size: node.size },
            NodeKind::Symlink => Kind::Symlink { target: self.target(node) },
        }
    }

    /// The name as the header has it: none for the root.
    fn header_name(&self, node: &Node) -> Option<&[u8]> {
        (node.depth > 0).then(|| self.name(node))
    }

    fn header_len(&self, node: &Node) -> u64 {
        format::header_len(self.header_name(node).map(<[u8]>::len), self.kind(node))
    }

    fn closing_count(&self, index: usize) -> usize {
        let next = self.nodes.get(index + 1).map(|next| usize::from(next.depth));
        format::closing_count(usize::from(self.nodes[index].depth), next)
    }

    /// Lays the nodes out one after the other.
    fn finish(&mut self) -> io::Result<()> {
        let mut at = 0u64;
        for index in 0..self.nodes.len() {
            self.nodes[index].start = at;
            let node = self.nodes[index];
            let contents = if node.is_file() { node.size } else { 0 };
            at = self
                .header_len(&node)
                .checked_add(contents)
                .and_then(|len| len.checked_add(format::padding(contents) as u64))
                .and_then(|len| len.checked_add(format::closing_len(self.closing_count(index))))
                .and_then(|len| at.checked_add(len))
                .ok_or_else(|| tree::unsupported("the NAR would be larger than 2^64 bytes"))?;
        }
        self.nar_size = at;
        Ok(())
    }
}

/// What the listing says about a node.
#[derive(Debug)]
pub(super) enum ListingNode<'l> {
    Directory,
    Regular { size: u64, executable: bool, nar_offset: u64 },
    Symlink { target: &'l [u8] },
}

impl Layout {
    pub(super) fn listing_node(&self, index: usize) -> ListingNode<'_> {
        let node = &self.nodes[index];
        match self.kind(node) {
            Kind::Directory => ListingNode::Directory,
            Kind::Symlink { target } => ListingNode::Symlink { target },
            Kind::Regular { executable, size } => {
                let nar_offset = node.start + self.header_len(node);
                ListingNode::Regular { size, executable, nar_offset }
            }
        }
    }

    /// The name of node `index` if it is directly in the directory `parent`.
    pub(super) fn entry_name(&self, parent: usize, index: usize) -> Option<&[u8]> {
        let node = self.nodes.get(index).filter(|node| node.parent as usize == parent)?;
        Some(self.name(node))
    }
}

impl Node {
    const fn is_file(&self) -> bool {
        matches!(self.kind, NodeKind::Regular | NodeKind::Executable)
    }
}

struct Scan {
    layout: Layout,
    target: [u8; TARGET_LEN_MAX + 1],
}

impl Scan {
    fn node<P: rustix::path::Arg + Copy>(
        &mut self,
        at: BorrowedFd<'_>,
        path: P,
        parent: Option<(u32, &[u8])>,
        hint: FileType,
        depth: usize,
    ) -> io::Result<()> {
        tree::check_depth(depth)?;
        let index = self.push(parent, depth)?;
        // A directory and a symlink need no `lstat` when the entry said what they are.
        let stat = match hint {
            FileType::Directory | FileType::Symlink => None,
            _ => Some(tree::stat_at(at, path)?),
        };
        let (kind, size) = match stat.as_ref().map_or(hint, tree::file_type) {
            FileType::Directory => (NodeKind::Directory, 0),
            FileType::Symlink => {
                let len = tree::read_link(at, path, &mut self.target)?;
                self.layout.text.extend_from_slice(&self.target[..len]);
                (NodeKind::Symlink, len as u64)
            }
            FileType::RegularFile => match &stat {
                Some(stat) if tree::is_executable(stat) => (NodeKind::Executable, tree::size(stat)),
                Some(stat) => (NodeKind::Regular, tree::size(stat)),
                None => return Err(tree::changed()),
            },
            _ => {
                return Err(tree::unsupported("only files, directories and symlinks fit in a NAR"));
            }
        };
        let node = &mut self.layout.nodes[index as usize];
        (node.kind, node.size) = (kind, size);
        if kind == NodeKind::Directory {
            let mut dir = Dir::new(tree::open_directory(at, path)?)?;
            let entries = Entries::read(&mut dir)?;
            for (entry, hint) in entries.iter(0..entries.len()) {
                self.node(dir.fd()?, entry, Some((index, entry)), hint, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Adds a node whose kind is not known yet, and its name.
    fn push(&mut self, parent: Option<(u32, &[u8])>, depth: usize) -> io::Result<u32> {
        let too_large = || tree::unsupported("the tree has too many files for a layout");
        let index = u32::try_from(self.layout.nodes.len()).map_err(|_| too_large())?;
        let (parent, name) = parent.unwrap_or((0, b""));
        if name.len() > NAME_LEN_MAX {
            return Err(tree::unsupported("a file name is longer than 255 bytes"));
        }
        self.layout.nodes.push(Node {
            start: 0,
            size: 0,
            text_at: u32::try_from(self.layout.text.len()).map_err(|_| too_large())?,
            parent,
            name_len: name.len() as u8,
            depth: depth as u8,
            kind: NodeKind::Directory,
        });
        self.layout.text.extend_from_slice(name);
        Ok(index)
    }
}
