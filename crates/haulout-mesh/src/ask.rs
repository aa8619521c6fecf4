//! The asking end of a request.

use bytes::Bytes;

use crate::error::StreamError;

/// The raw bytes of a NAR range, in order.
#[derive(Debug)]
pub struct NarStream {
    remaining: u64,
}

impl NarStream {
    /// The next piece, at most 256 KiB; `None` when the whole range has been handed out.
    ///
    /// # Errors
    /// [`StreamError`]: the stream is over, what was handed out stays valid.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StreamError> {
        Err(StreamError::Lost("not yet".to_owned()))
    }

    /// How many bytes of the range are still to come.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.remaining
    }
}
