//! The end of a transfer: checked bytes in order go out to the readers, the
//! hash of the whole runs along, and the last piece waits for it.

use std::sync::Arc;

use bytes::Bytes;
use haulout_mesh::{GROUPS_MAX, NarKey, NarTree};

use super::dispute::Spool;
use super::gate::{Checked, GROUP};
use super::hash::WholeHash;
use super::ring::{CutReason, Ring};

/// Where the bytes go.
pub(crate) enum Out {
    /// To the readers.
    Ring(Arc<Ring>),
    /// Aside, until it is known whether they are the right ones.
    Spool(Spool),
}

impl Out {
    async fn put(&self, at: u64, bytes: Bytes) {
        match self {
            Self::Ring(ring) => {
                ring.push(bytes).await;
            }
            Self::Spool(spool) => {
                // What could not be written is noticed when it is read back.
                if let Err(error) = spool.write(at, bytes).await {
                    tracing::warn!(%error, "a disputed NAR could not be put aside");
                }
            }
        }
    }
}

pub(crate) struct Sink {
    out: Out,
    key: NarKey,
    at: u64,
    /// `None` when the NAR is delivered from the middle, under a proven tree.
    hash: Option<WholeHash>,
    groups: Vec<[u8; 32]>,
    held: Option<Bytes>,
}

impl Sink {
    /// A sink for the bytes from `start` (a multiple of [`GROUP`]; not 0 only
    /// under a proven tree).
    pub(crate) fn new(out: Out, key: NarKey, start: u64) -> Self {
        let hash = (start == 0).then(WholeHash::new);
        Self { out, key, at: start, hash, groups: Vec::new(), held: None }
    }

    /// Offset of the next byte wanted.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Whether all bytes are here.
    pub(crate) fn is_full(&self) -> bool {
        self.at == self.key.nar_size
    }

    /// Whether everything taken so far is what this tree says.
    pub(crate) fn agrees_with(&self, tree: &NarTree) -> bool {
        self.groups.len() as u64 * GROUP == self.at && tree.groups.starts_with(&self.groups)
    }

    /// Takes the next bytes, which must begin at [`Sink::at`]. Waits while the
    /// readers are behind.
    pub(crate) async fn take(&mut self, checked: Checked) {
        debug_assert_eq!(checked.offset, self.at);
        let at = self.at;
        self.at += checked.bytes.len() as u64;
        if self.key.nar_size.div_ceil(GROUP) <= GROUPS_MAX as u64 {
            self.groups.extend_from_slice(&checked.groups);
        }
        let Some(hash) = &mut self.hash else {
            self.out.put(at, checked.bytes).await;
            return;
        };
        hash.feed(checked.bytes.clone()).await;
        if self.is_full() {
            self.held = Some(checked.bytes);
        } else {
            self.out.put(at, checked.bytes).await;
        }
    }

    /// Confirms the hash and lets the last piece out. Gives the chaining
    /// values of all groups, if this sink saw them all.
    pub(crate) async fn finish(self) -> Result<Option<NarTree>, CutReason> {
        if !self.is_full() {
            return Err(CutReason::NoSource);
        }
        let Some(hash) = self.hash else { return Ok(None) };
        if hash.finish().await.as_ref() != Some(self.key.nar_hash.as_bytes()) {
            return Err(CutReason::WrongHash);
        }
        if let Some(held) = self.held {
            let at = self.key.nar_size - held.len() as u64;
            self.out.put(at, held).await;
        }
        Ok(NarTree::from_groups(self.groups, self.key.nar_size).ok())
    }
}
