//! Memory of raw frames, which goes round: back when the last byte was acknowledged.
//!
//! Fresh memory would cost page faults and clearing for every frame sent, measured at a third of reading the frame.

use std::sync::{Mutex, PoisonError};

use super::FRAME_SIZE;

/// Most buffers kept for the next frames: 8 MiB, two send windows.
const KEPT_MAX: usize = 32;
/// Frames below this size get memory of their own: they are over soon, and most NARs are smaller.
const POOLED_MIN: usize = FRAME_SIZE / 4;

static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Memory for one frame. It may hold bytes of an earlier frame: only what was read over them may be handed out.
pub(super) struct Buffer(Vec<u8>);

impl Buffer {
    /// At least `len` bytes (at most [`FRAME_SIZE`]).
    pub(super) fn take(len: usize) -> Self {
        if len < POOLED_MIN {
            return Self(vec![0; len]);
        }
        let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self(kept.unwrap_or_else(|| vec![0; FRAME_SIZE]))
    }

    /// The first `len` bytes, to be written over.
    pub(super) fn first_mut(&mut self, len: usize) -> &mut [u8] {
        let len = len.min(self.0.len());
        &mut self.0[..len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if self.0.len() == FRAME_SIZE && kept.len() < KEPT_MAX {
            kept.push(std::mem::take(&mut self.0));
        }
    }
}

/// Gives some of what is kept back; called about once a second, so that an idle agent soon keeps nothing.
pub(crate) fn release() {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let rest = kept.len().saturating_sub(KEPT_MAX / 8);
    kept.truncate(rest);
    if kept.is_empty() {
        kept.shrink_to_fit();
    }
}
