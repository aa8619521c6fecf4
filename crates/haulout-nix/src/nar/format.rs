//! The tokens of the format, put together at compile time, and their emission.

use std::io;

/// Bytes that `len` bytes take with their padding.
pub(super) const fn padded(len: u64) -> u64 {
    len.saturating_add(padding(len) as u64)
}

/// Zeros that follow `len` bytes: 0 to 7.
pub(super) const fn padding(len: u64) -> usize {
    (len.wrapping_neg() & 7) as usize
}

/// Joins the `str()` forms of `words`. `N` must be the exact length of the result.
const fn tokens<const N: usize>(words: &[&str]) -> [u8; N] {
    let mut out = [0u8; N];
    let (mut at, mut word) = (0, 0);
    while word < words.len() {
        let bytes = words[word].as_bytes();
        out[at] = bytes.len() as u8;
        let mut i = 0;
        while i < bytes.len() {
            out[at + 8 + i] = bytes[i];
            i += 1;
        }
        at += 8 + padded(bytes.len() as u64) as usize;
        word += 1;
    }
    assert!(at == N, "the length of a token constant is wrong");
    out
}

const MAGIC: [u8; 24] = tokens(&["nix-archive-1"]);
const ENTRY: [u8; 48] = tokens(&["entry", "(", "name"]);
const NODE: [u8; 16] = tokens(&["node"]);
const REGULAR: [u8; 64] = tokens(&["(", "type", "regular", "contents"]);
const EXECUTABLE: [u8; 96] = tokens(&["(", "type", "regular", "executable", "", "contents"]);
const SYMLINK: [u8; 64] = tokens(&["(", "type", "symlink", "target"]);
const DIRECTORY: [u8; 56] = tokens(&["(", "type", "directory"]);
const CLOSE: [u8; 16] = tokens(&[")"]);

/// What a node is, with what its header says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    Directory,
    Regular { executable: bool, size: u64 },
    Symlink { target: &'a [u8] },
}

/// Where tokens go: a buffer in front of a writer, or the window of a random-access read.
pub(super) trait Put {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// Emits everything of a node up to its contents or its first entry. `name` is `None` for the
/// root, which has the archive's magic word in front instead.
pub(super) fn put_header(
    out: &mut impl Put,
    name: Option<&[u8]>,
    kind: Kind<'_>,
) -> io::Result<()> {
    match name {
        None => out.put(&MAGIC)?,
        Some(name) => {
            out.put(&ENTRY)?;
            put_bytes(out, name)?;
            out.put(&NODE)?;
        }
    }
    match kind {
        Kind::Directory => out.put(&DIRECTORY),
        Kind::Regular { executable, size } => {
            out.put(if executable { &EXECUTABLE } else { &REGULAR })?;
            out.put(&size.to_le_bytes())
        }
        Kind::Symlink { target } => {
            out.put(&SYMLINK)?;
            put_bytes(out, target)
        }
    }
}

/// The number of bytes that [`put_header`] emits.
pub(super) fn header_len(name_len: Option<usize>, kind: Kind<'_>) -> u64 {
    let front = match name_len {
        None => MAGIC.len() as u64,
        Some(len) => (ENTRY.len() + 8 + NODE.len()) as u64 + padded(len as u64),
    };
    front
        + match kind {
            Kind::Directory => DIRECTORY.len() as u64,
            Kind::Regular { executable: false, .. } => REGULAR.len() as u64 + 8,
            Kind::Regular { executable: true, .. } => EXECUTABLE.len() as u64 + 8,
            Kind::Symlink { target } => SYMLINK.len() as u64 + 8 + padded(target.len() as u64),
        }
}

/// The number of closing tokens after a node's header and contents, when the node that comes next
/// is at depth `next` (`None` at the end of the archive). Every node closes itself and its entry;
/// the root has no entry.
pub(super) const fn closing_count(depth: usize, next: Option<usize>) -> usize {
    match next {
        // The first entry of this directory comes next.
        Some(next) if next > depth => 0,
        Some(next) => (depth - next + 1) * 2,
        None => depth * 2 + 1,
    }
}

/// Emits `count` closing tokens.
pub(super) fn put_closing(out: &mut impl Put, count: usize) -> io::Result<()> {
    (0..count).try_for_each(|_| out.put(&CLOSE))
}

/// The number of bytes of `count` closing tokens.
pub(super) const fn closing_len(count: usize) -> u64 {
    (count * CLOSE.len()) as u64
}

/// Emits the padding after `len` bytes.
pub(super) fn put_padding(out: &mut impl Put, len: u64) -> io::Result<()> {
    out.put(&[0u8; 8][..padding(len)])
}

fn put_bytes(out: &mut impl Put, bytes: &[u8]) -> io::Result<()> {
    let len = bytes.len() as u64;
    out.put(&len.to_le_bytes())?;
    out.put(bytes)?;
    put_padding(out, len)
}
