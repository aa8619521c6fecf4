//! Bodies: read with a limit on size and patience, sent at a pace and inside a budget.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

use super::faults::Pace;

/// Bytes of bodies that all nodes together hold in memory at a time. A sliver has up to 44 MB
/// at 1,000 shards.
const BUDGET_BYTES: u64 = 512 << 20;

/// The unit in which the budget is kept, in bytes.
const UNIT_BYTES: u64 = 64 << 10;

/// How long a sender may be silent in the middle of a body.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a body may take altogether: the real client's limit on a whole request.
const BODY_TIME_MAX: Duration = Duration::from_secs(300);

/// Filler of endless refusals, sent again and again.
const FILLER: &[u8] = &[b'x'; 16 << 10];

/// Memory for bodies, shared by all nodes of a committee.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new((BUDGET_BYTES / UNIT_BYTES) as usize)))
    }
}

impl Budget {
    /// Waits until `bytes` are free and takes them.
    pub(crate) async fn take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = bytes.min(BUDGET_BYTES).div_ceil(UNIT_BYTES);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        self.0.clone().acquire_many_owned(units).await.ok()
    }
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It is longer than allowed.
    TooLong,
    /// It stopped coming, or the connection ended.
    Broken,
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read(
    mut body: Incoming,
    limit: u64,
    budget: &Budget,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), BodyError> {
    if body.is_end_stream() {
        return Ok((Bytes::new(), None));
    }
    let told = body.size_hint();
    if told.lower() > limit {
        return Err(BodyError::TooLong);
    }
    let most = told.upper().unwrap_or(limit).min(limit);
    let permit = budget.take(most).await;
    let mut bytes = BytesMut::new();
    let all = async {
        loop {
            let frame = tokio::time::timeout(PATIENCE, body.frame()).await;
            let frame = match frame.map_err(|_| BodyError::Broken)? {
                None => return Ok(()),
                Some(frame) => frame.map_err(|_| BodyError::Broken)?,
            };
            let Ok(data) = frame.into_data() else { continue };
            if (bytes.len() + data.len()) as u64 > limit {
                return Err(BodyError::TooLong);
            }
            bytes.extend_from_slice(&data);
        }
    };
    tokio::time::timeout(BODY_TIME_MAX, all).await.unwrap_or(Err(BodyError::Broken))?;
    Ok((bytes.freeze(), permit))
}

/// A body on its way out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    rest: Bytes,
    /// Filler after `rest`, in bytes.
    filler: u64,
    pace: Pace,
    pause: Option<Pin<Box<Sleep>>>,
    /// Counts what is handed to the connection.
    sent: Option<Arc<AtomicU64>>,
    /// Gives its share of the budget back when the body is sent or dropped.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Outgoing {
    pub(crate) fn new(
        rest: Bytes,
        filler: u64,
        pace: Pace,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self { rest, filler, pace, pause: None, sent: None, _permit: permit }
    }

    /// Adds every byte to this count as it is handed to the connection.
    pub(crate) fn counted(mut self, sent: &Arc<AtomicU64>) -> Self {
        self.sent = Some(Arc::clone(sent));
        self
    }

    fn next(&mut self, max: usize) -> Bytes {
        let piece = self.cut(max);
        if let Some(sent) = &self.sent {
            sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        piece
    }

    fn cut(&mut self, max: usize) -> Bytes {
        if self.rest.is_empty() {
            let len = self.filler.min(FILLER.len() as u64).min(max as u64);
            self.filler -= len;
            return Bytes::from_static(&FILLER[..usize::try_from(len).unwrap_or(0)]);
        }
        self.rest.split_to(max.min(self.rest.len()))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        let Some((step, wait)) = self.pace.step() else {
            let data = self.next(usize::MAX);
            return Poll::Ready(Some(Ok(Frame::data(data))));
        };
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(wait)));
        std::task::ready!(pause.as_mut().poll(cx));
        self.pause = None;
        let data = self.next(step);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.filler == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64 + self.filler)
    }
}
