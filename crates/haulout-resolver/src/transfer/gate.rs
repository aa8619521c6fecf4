//! The gate every byte of a large NAR passes: cut into 64 KiB groups, hashed
//! with BLAKE3 and, where a tree is known, compared with it.
//!
//! The chaining values of what passed are handed on, because they are the
//! tree this agent will offer to its own peers.

use std::sync::Arc;

use blake3::hazmat::HasherExt;
use bytes::{Bytes, BytesMut};
use haulout_mesh::NarTree;
use smallvec::SmallVec;

/// Bytes per group: one chaining value each.
pub(crate) const GROUP: u64 = 64 << 10;
const GROUP_LEN: usize = GROUP as usize;

/// Why a source's bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GateError {
    #[error("the bytes at offset {offset} do not belong to this NAR")]
    WrongBytes { offset: u64 },
    #[error("more bytes than were asked for")]
    TooMany,
    #[error("fewer bytes than were asked for")]
    TooFew,
}

/// Bytes that passed: whole groups, or the NAR's tail.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Where in the NAR they begin; a multiple of [`GROUP`].
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
    /// One chaining value per group of `bytes`.
    pub(crate) groups: SmallVec<[[u8; 32]; 4]>,
}

/// Checks one contiguous stretch of a NAR, from `start` to `end`.
pub(crate) struct Gate {
    next: u64,
    end: u64,
    tree: Option<Arc<NarTree>>,
    /// The beginning of a group whose end has not arrived.
    part: BytesMut,
}

impl Gate {
    /// `start` is a multiple of [`GROUP`]; `end` is one too, or the NAR's size.
    pub(crate) fn new(start: u64, end: u64, tree: Option<Arc<NarTree>>) -> Self {
        debug_assert!(start.is_multiple_of(GROUP));
        Self { next: start, end, tree, part: BytesMut::new() }
    }

    /// Takes what a source sent and gives what is known to be good of it.
    /// Nothing is copied when the chunk holds whole groups.
    pub(crate) fn push(&mut self, mut data: Bytes) -> Result<Vec<Checked>, GateError> {
        let mut out = Vec::new();
        let room = self.end - self.next - self.part.len() as u64;
        if data.len() as u64 > room {
            return Err(GateError::TooMany);
        }
        if !self.part.is_empty() {
            let missing = self.group_len() - self.part.len();
            let head = data.split_to(missing.min(data.len()));
            self.part.extend_from_slice(&head);
            if self.part.len() < self.group_len() {
                return Ok(out);
            }
            let group = self.part.split().freeze();
            out.push(self.check(group)?);
        }
        let ends_here = self.next + data.len() as u64 == self.end;
        let whole = if ends_here { data.len() } else { data.len() - data.len() % GROUP_LEN };
        if whole > 0 {
            let groups = data.split_to(whole);
            out.push(self.check(groups)?);
        }
        if !data.is_empty() {
            self.part.reserve(GROUP_LEN);
            self.part.extend_from_slice(&data);
        }
        Ok(out)
    }

    /// Where the first group begins that did not pass yet.
    pub(crate) fn at(&self) -> u64 {
        self.next
    }

    /// The source says it is done: is it?
    pub(crate) fn finish(&self) -> Result<(), GateError> {
        if self.next == self.end { Ok(()) } else { Err(GateError::TooFew) }
    }

    /// The length of the group that begins at `next`.
    fn group_len(&self) -> usize {
        usize::try_from(self.end - self.next).map_or(GROUP_LEN, |left| left.min(GROUP_LEN))
    }

    fn check(&mut self, bytes: Bytes) -> Result<Checked, GateError> {
        let offset = self.next;
        let mut groups = SmallVec::new();
        for (index, group) in bytes.chunks(GROUP_LEN).enumerate() {
            let at = offset + index as u64 * GROUP;
            let value = group_value(at, group);
            if let Some(tree) = &self.tree {
                let expected = usize::try_from(at / GROUP).ok().and_then(|i| tree.groups.get(i));
                if expected != Some(&value) {
                    return Err(GateError::WrongBytes { offset: at });
                }
            }
            groups.push(value);
        }
        self.next += bytes.len() as u64;
        Ok(Checked { offset, bytes, groups })
    }
}

/// The chaining value of the group at `offset`.
pub(crate) fn group_value(offset: u64, group: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset);
    hasher.update(group);
    hasher.finalize_non_root()
}
