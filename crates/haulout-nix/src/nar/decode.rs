//! Checking a NAR while it arrives.

use super::{DEPTH_MAX, NAME_LEN_MAX, TARGET_LEN_MAX, format};
use std::{fmt, io};

/// What a [`Decoder`] tells about the archive, in order. All methods do nothing by default, and
/// any error stops the decoding. Names are of one component, never `.` or `..`, without `/` and
/// NUL, not necessarily UTF-8; the root's name is empty.
pub trait Visitor {
    /// A directory starts; what comes until the matching [`Visitor::leave_directory`] is in it.
    fn enter_directory(&mut self, _name: &[u8]) -> io::Result<()> {
        Ok(())
    }

    /// The innermost directory ends.
    fn leave_directory(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// A file of `size` bytes starts. The size is a claim until [`Visitor::end_file`].
    fn start_file(&mut self, _name: &[u8], _executable: bool, _size: u64) -> io::Result<()> {
        Ok(())
    }

    /// The next bytes of the file; never empty.
    fn file_data(&mut self, _data: &[u8]) -> io::Result<()> {
        Ok(())
    }

    /// The file ends; it had as many bytes as announced.
    fn end_file(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// A symlink; its target is 1 to 4095 bytes without NUL, and may point anywhere.
    fn symlink(&mut self, _name: &[u8], _target: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// Ignores the contents: for those who only want the archive checked.
impl Visitor for () {}

/// A NAR that is not well-formed, or a visitor that failed.
#[derive(Debug, thiserror::Error)]
#[error("bad NAR near byte {offset}")]
pub struct NarError {
    /// Bytes read before the token or data with the mistake was complete.
    pub offset: u64,
    /// What is wrong.
    #[source]
    pub kind: NarErrorKind,
}

/// What is wrong with a NAR.
#[derive(Debug, thiserror::Error)]
pub enum NarErrorKind {
    /// Something else where the grammar allows one word only.
    #[error("expected {expected}")]
    Token {
        /// What the grammar allows here.
        expected: &'static str,
    },
    /// The file executable marker has a value.
    #[error("the executable marker is not empty")]
    ExecutableValue,
    /// A name that is empty, too long, `.`, `..`, or has `/` or NUL.
    #[error("a file name is empty, '.', '..', longer than 255 bytes, or has '/' or NUL")]
    Name,
    /// Entries of a directory are not in strictly ascending order.
    #[error("directory entries are out of order or doubled")]
    Order,
    /// A symlink's target that is empty, too long or has NUL.
    #[error("a symlink's target is empty, longer than 4095 bytes, or has NUL")]
    Target,
    /// Padding with other bytes than zero.
    #[error("padding is not zero")]
    Padding,
    /// Deeper than Nix unpacks.
    #[error("deeper than {DEPTH_MAX} levels")]
    Depth,
    /// The data ended within the archive.
    #[error("the archive is cut short")]
    Truncated,
    /// The archive ended before the data.
    #[error("data after the end of the archive")]
    Trailing,
    /// An earlier mistake ended the decoding.
    #[error("an earlier mistake ended the decoding")]
    Failed,
    /// The visitor failed.
    #[error("the contents could not be used")]
    Visitor(#[from] io::Error),
    /// Reading the archive failed.
    #[error("the archive could not be read")]
    Read(#[source] io::Error),
}

/// A strict decoder that is fed with pieces of any size. Uses less than 32 KiB whatever the
/// archive claims.
///
/// At least as strict as Nix 2.34, and refuses bytes after the end, which Nix ignores. After an
/// error the decoder stays failed.
#[derive(Default)]
pub struct Decoder {
    state: State,
    part: Part,
    /// Bytes of the length or the string read so far.
    token: Vec<u8>,
    /// The names so far in each open directory: empty before its first entry.
    stack: Vec<Vec<u8>>,
    executable: bool,
    offset: u64,
    failed: bool,
}

/// What the next string means. For most, only one or two values are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Magic,
    Open,
    TypeKey,
    TypeValue,
    /// `executable` or `contents`.
    RegularKey,
    ExecutableValue,
    ContentsKey,
    Contents,
    TargetKey,
    TargetValue,
    /// `)` of a file or symlink.
    NodeClose,
    /// `entry`, or `)` of a directory.
    DirectoryNext,
    EntryOpen,
    NameKey,
    NameValue,
    NodeKey,
    EntryClose,
    Done,
}

/// Which part of a string comes next, with the bytes still missing.
#[derive(Debug, Clone, Copy, Default)]
enum Part {
    #[default]
    Length,
    Body {
        left: u64,
        padding: usize,
    },
    Padding {
        left: usize,
    },
}

impl Decoder {
    /// A decoder at the start of an archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the archive is complete. More bytes would be an error.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.state == State::Done && !self.failed
    }

    /// Bytes taken so far.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the next bytes of the archive.
    ///
    /// # Errors
    /// At the first byte that no well-formed archive has there, or when the visitor fails.
    pub fn push(&mut self, data: &[u8], visitor: &mut impl Visitor) -> Result<(), NarError> {
        if self.failed {
            return Err(self.error(NarErrorKind::Failed));
        }
        let mut rest = data;
        while !rest.is_empty() {
            if let Err(kind) = self.step(&mut rest, visitor) {
                self.failed = true;
                return Err(self.error(kind));
            }
        }
        Ok(())
    }

    /// Says that there are no more bytes.
    ///
    /// # Errors
    /// When the archive is not complete.
    pub fn finish(&self) -> Result<(), NarError> {
        if self.is_complete() { Ok(()) } else { Err(self.error(NarErrorKind::Truncated)) }
    }

    const fn error(&self, kind: NarErrorKind) -> NarError {
        NarError { offset: self.offset, kind }
    }

    /// Takes some bytes from the front of `rest`, at least one.
    fn step(&mut self, rest: &mut &[u8], visitor: &mut impl Visitor) -> Result<(), NarErrorKind> {
        if self.state == State::Done {
            return Err(NarErrorKind::Trailing);
        }
        match self.part {
            Part::Length => {
                let piece = self.take(rest, 8 - self.token.len() as u64);
                self.token.extend_from_slice(piece);
                if let Ok(length) = <[u8; 8]>::try_from(&self.token[..]) {
                    self.token.clear();
                    self.start_body(u64::from_le_bytes(length), visitor)?;
                }
            }
            Part::Body { left, padding } => {
                let piece = self.take(rest, left);
                if self.state == State::Contents {
                    visitor.file_data(piece)?;
                } else {
                    self.token.extend_from_slice(piece);
                }
                let left = left - piece.len() as u64;
                self.part = Part::Body { left, padding };
                if left == 0 {
                    self.start_padding(padding, visitor)?;
                }
            }
            Part::Padding { left } => {
                let piece = self.take(rest, left as u64);
                if piece.iter().any(|byte| *byte != 0) {
                    return Err(NarErrorKind::Padding);
                }
                self.start_padding(left - piece.len(), visitor)?;
            }
        }
        Ok(())
    }

    fn take<'d>(&mut self, rest: &mut &'d [u8], most: u64) -> &'d [u8] {
        let len = usize::try_from(most).unwrap_or(rest.len()).min(rest.len());
        let (piece, after) = rest.split_at(len);
        *rest = after;
        self.offset += len as u64;
        piece
    }

    /// A string's length is known. Only contents may be long; nothing is allocated on a claim.
    fn start_body(&mut self, len: u64, visitor: &mut impl Visitor) -> Result<(), NarErrorKind> {
        self.state.check_len(len)?;
        if self.state == State::Contents {
            let name = self.stack.last().map_or(&b""[..], Vec::as_slice);
            visitor.start_file(name, self.executable, len)?;
        }
        let padding = format::padding(len);
        self.part = Part::Body { left: len, padding };
        if len == 0 {
            self.start_padding(padding, visitor)?;
        }
        Ok(())
    }

    /// A string's body is complete; its meaning is looked at once its padding is too.
    fn start_padding(
        &mut self,
        left: usize,
        visitor: &mut impl Visitor,
    ) -> Result<(), NarErrorKind> {
        self.part = Part::Padding { left };
        if left == 0 {
            self.part = Part::Length;
            let mut token = std::mem::take(&mut self.token);
            self.state = self.accept(&token, visitor)?;
            token.clear();
            self.token = token;
        }
        Ok(())
    }

    /// A string is complete: the state after it.
    fn accept(&mut self, token: &[u8], visitor: &mut impl Visitor) -> Result<State, NarErrorKind> {
        let state = match (self.state, token) {
            (State::Magic, b"nix-archive-1") => State::Open,
            (State::Open, b"(") => State::TypeKey,
            (State::TypeKey, b"type") => State::TypeValue,
            (State::TypeValue, b"regular") => {
                self.executable = false;
                State::RegularKey
            }
            (State::TypeValue, b"symlink") => State::TargetKey,
            (State::TypeValue, b"directory") => {
                visitor.enter_directory(self.stack.last().map_or(&b""[..], Vec::as_slice))?;
                self.stack.push(Vec::new());
                State::DirectoryNext
            }
            (State::RegularKey, b"executable") => State::ExecutableValue,
            (State::ExecutableValue, b"") => {
                self.executable = true;
                State::ContentsKey
            }
            (State::RegularKey | State::ContentsKey, b"contents") => State::Contents,
            (State::Contents, _) => {
                visitor.end_file()?;
                State::NodeClose
            }
            (State::TargetKey, b"target") => State::TargetValue,
            (State::TargetValue, target) => {
                if target.is_empty() || target.contains(&0) {
                    return Err(NarErrorKind::Target);
                }
                visitor.symlink(self.stack.last().map_or(&b""[..], Vec::as_slice), target)?;
                State::NodeClose
            }
            (State::NodeClose, b")") => self.node_closed(),
            (State::DirectoryNext, b")") => {
                visitor.leave_directory()?;
                self.stack.pop();
                self.node_closed()
            }
            (State::DirectoryNext, b"entry") => State::EntryOpen,
            (State::EntryOpen, b"(") => State::NameKey,
            (State::NameKey, b"name") => State::NameValue,
            (State::NameValue, name) => {
                self.entry(name)?;
                State::NodeKey
            }
            (State::NodeKey, b"node") => State::Open,
            (State::EntryClose, b")") => State::DirectoryNext,
            (state, _) => return Err(state.unexpected()),
        };
        Ok(state)
    }

    fn node_closed(&self) -> State {
        if self.stack.is_empty() { State::Done } else { State::EntryClose }
    }

    /// Checks a name and remembers it: for its node, and for the order of the next one.
    fn entry(&mut self, name: &[u8]) -> Result<(), NarErrorKind> {
        let bad = |byte: &u8| matches!(byte, b'/' | 0);
        if name.is_empty() || name == b"." || name == b".." || name.iter().any(bad) {
            return Err(NarErrorKind::Name);
        }
        // The entry is one level below the directories that are open.
        if self.stack.len() >= DEPTH_MAX {
            return Err(NarErrorKind::Depth);
        }
        if let Some(before) = self.stack.last_mut() {
            if name <= before.as_slice() {
                return Err(NarErrorKind::Order);
            }
            before.clear();
            before.extend_from_slice(name);
        }
        Ok(())
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("state", &self.state)
            .field("depth", &self.stack.len())
            .field("offset", &self.offset)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl State {
    /// Refuses a length before anything of that length is read.
    const fn check_len(self, len: u64) -> Result<(), NarErrorKind> {
        /// The longest word of the grammar.
        const WORD_LEN_MAX: u64 = "nix-archive-1".len() as u64;
        match self {
            Self::Contents => Ok(()),
            Self::NameValue if len > NAME_LEN_MAX as u64 => Err(NarErrorKind::Name),
            Self::TargetValue if len > TARGET_LEN_MAX as u64 => Err(NarErrorKind::Target),
            Self::NameValue | Self::TargetValue => Ok(()),
            _ if len > WORD_LEN_MAX => Err(self.unexpected()),
            _ => Ok(()),
        }
    }

    const fn unexpected(self) -> NarErrorKind {
        let expected = match self {
            Self::Magic => "'nix-archive-1'",
            Self::Open | Self::EntryOpen => "'('",
            Self::TypeKey => "'type'",
            Self::TypeValue => "'regular', 'symlink' or 'directory'",
            Self::RegularKey => "'contents' or 'executable'",
            Self::ContentsKey => "'contents'",
            Self::TargetKey => "'target'",
            Self::NodeClose | Self::EntryClose => "')'",
            Self::DirectoryNext => "'entry' or ')'",
            Self::NameKey => "'name'",
            Self::NodeKey => "'node'",
            Self::ExecutableValue => return NarErrorKind::ExecutableValue,
            Self::NameValue => return NarErrorKind::Name,
            Self::TargetValue => return NarErrorKind::Target,
            Self::Contents | Self::Done => return NarErrorKind::Trailing,
        };
        NarErrorKind::Token { expected }
    }
}
