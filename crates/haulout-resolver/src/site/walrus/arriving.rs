//! A sliver on its way from its node: fetched once, followed by anybody while it arrives.
//!
//! Nobody gets the end of it before all of it was found right: so what an agent relays to its end is a sliver of the blob, and
//! a false one that is complete was made on the way.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use haulout_walrus::{NodeError, SliverBody};
use tokio::sync::Notify;

use crate::site::{Body, OutsideError};

/// Bytes at the end of whatever is followed that wait for the check: small beside a sliver of any weight.
const HELD_BACK: u64 = 16 << 10;

/// One sliver, as much of it as is here.
#[derive(Debug)]
pub(super) struct Arriving {
    len: u64,
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    chunks: Vec<Bytes>,
    have: u64,
    end: Option<Result<(), OutsideError>>,
}

impl Arriving {
    /// Nothing yet of a sliver whose BCS has `len` bytes.
    pub(super) fn new(len: u64) -> Arc<Self> {
        Arc::new(Self { len, state: Mutex::default(), news: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the node sends; all of it, if that is as long as it should be. Followers wait for [`Arriving::end`].
    pub(super) async fn take(&self, mut body: SliverBody) -> Result<Bytes, NodeError> {
        let wrong = |what: &str| NodeError::Malformed(what.to_owned());
        while let Some(piece) = body.next().await {
            let piece = piece?;
            let mut state = self.state();
            state.have += piece.len() as u64;
            if state.have > self.len {
                return Err(wrong("more than a sliver"));
            }
            state.chunks.push(piece);
            drop(state);
            self.news.notify_waiters();
        }
        let mut state = self.state();
        if state.have != self.len {
            return Err(wrong("less than a sliver"));
        }
        let whole = match <[Bytes; 1]>::try_from(std::mem::take(&mut state.chunks)) {
            Ok([whole]) => whole,
            Err(chunks) => chunks.concat().into(),
        };
        // From here on everybody shares one piece of memory.
        state.chunks = vec![whole.clone()];
        Ok(whole)
    }

    /// It was found right, or cannot be had.
    pub(super) fn end(&self, end: Result<(), OutsideError>) {
        self.state().end = Some(end);
        self.news.notify_waiters();
    }

    /// Bytes of all of it.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes that have come.
    pub(super) fn have(&self) -> u64 {
        self.state().have
    }

    /// The bytes `range` as they come; within the sliver.
    pub(super) fn follow(self: &Arc<Self>, range: Range<u64>) -> Body {
        let state = Some((Arc::clone(self), range.start));
        let held = range.end.saturating_sub(HELD_BACK).max(range.start);
        stream::unfold(state, move |state| {
            let range = held..range.end;
            async move {
                let (arriving, at) = state?;
                match arriving.next(at, range).await {
                    None => None,
                    Some(Ok(bytes)) => {
                        let next = at + bytes.len() as u64;
                        Some((Ok(bytes), Some((arriving, next))))
                    }
                    Some(Err(error)) => Some((Err(error), None)),
                }
            }
        })
        .boxed()
    }

    /// The next bytes from `at` on; `held.start` and above only after the end.
    async fn next(&self, at: u64, held: Range<u64>) -> Option<Result<Bytes, OutsideError>> {
        if at >= held.end {
            return None;
        }
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            {
                let state = self.state();
                let upto = match &state.end {
                    Some(Err(error)) => return Some(Err(error.clone())),
                    Some(Ok(())) => held.end,
                    None => held.start.min(state.have),
                };
                if at < upto {
                    return piece(&state.chunks, at, upto).map(Ok);
                }
            }
            news.await;
        }
    }
}

fn piece(chunks: &[Bytes], at: u64, upto: u64) -> Option<Bytes> {
    let mut start = 0;
    for chunk in chunks {
        let end = start + chunk.len() as u64;
        if at < end {
            let within = |offset: u64| usize::try_from(offset - start).ok();
            return Some(chunk.slice(within(at)?..within(upto.min(end))?));
        }
        start = end;
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use futures_util::{FutureExt, TryStreamExt};

    fn body(pieces: Vec<Vec<u8>>) -> SliverBody {
        stream::iter(pieces.into_iter().map(|piece| Ok(piece.into()))).boxed()
    }

    #[tokio::test]
    async fn the_end_is_held_back_until_it_was_found_right() {
        let len = 3 * HELD_BACK;
        let content: Vec<u8> = (0..len).map(|at| ((at * 31) >> 5) as u8).collect();
        let arriving = Arriving::new(len);
        let mut early = arriving.follow(0..len);
        assert!(early.next().now_or_never().is_none());
        let whole = arriving.take(body(content.chunks(1000).map(<[u8]>::to_vec).collect())).await;
        assert!(whole.unwrap() == content);
        let mut got = Vec::new();
        while let Some(piece) = early.next().now_or_never() {
            got.extend_from_slice(&piece.unwrap().unwrap());
        }
        assert!(got[..] == content[..2 * HELD_BACK as usize]);
        let tail = arriving.follow(len - 10..len);
        arriving.end(Ok(()));
        while let Some(piece) = early.try_next().await.unwrap() {
            got.extend_from_slice(&piece);
        }
        assert!(got == content);
        let tail: Vec<Bytes> = tail.try_collect().await.unwrap();
        assert!(tail.concat() == content[content.len() - 10..]);
    }

    #[tokio::test]
    async fn what_is_wrong_never_ends_well() {
        let arriving = Arriving::new(10);
        let mut reader = arriving.follow(0..10);
        assert!(arriving.take(body(vec![vec![1; 6], vec![2; 6]])).await.is_err());
        arriving.end(Err(OutsideError::Failed("false".to_owned())));
        assert!(reader.next().await.unwrap().is_err());
        assert!(reader.next().await.is_none());
        assert!(Arriving::new(10).take(body(vec![vec![1; 9]])).await.is_err());
    }
}
