//! Response bodies: nothing, one piece, or a NAR on its way.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use hyper::body::{Body, Frame, SizeHint};

use crate::{Cut, connection::Busy, counters::Counters};

/// What follows the header of a response, and the mark that the connection is at work until it has
/// been written.
pub(crate) struct ResponseBody {
    kind: Kind,
    _busy: Option<Busy>,
}

enum Kind {
    Whole(Option<Bytes>),
    Nar(NarStream),
    /// Bytes of a known number, each piece of it as it comes.
    Exact(BoxStream<'static, Result<Bytes, Cut>>, u64),
    /// Text without a known end.
    Events(BoxStream<'static, Bytes>),
}

impl ResponseBody {
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { kind: Kind::Whole((!bytes.is_empty()).then_some(bytes)), _busy: None }
    }

    pub(crate) fn empty() -> Self {
        Self { kind: Kind::Whole(None), _busy: None }
    }

    pub(crate) fn nar(stream: NarStream) -> Self {
        Self { kind: Kind::Nar(stream), _busy: None }
    }

    /// `len` bytes from a stream; with fewer, more or an error the connection is cut.
    pub(crate) fn exact(stream: BoxStream<'static, Result<Bytes, Cut>>, len: u64) -> Self {
        Self { kind: Kind::Exact(stream, len), _busy: None }
    }

    /// Pieces of text until the reader goes away.
    pub(crate) fn events(stream: BoxStream<'static, Bytes>) -> Self {
        Self { kind: Kind::Events(stream), _busy: None }
    }

    /// The connection counts as idle once this body is gone.
    pub(crate) fn holding(mut self, busy: Busy) -> Self {
        self._busy = Some(busy);
        self
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut self.get_mut().kind {
            Kind::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Nar(stream) => {
                stream.poll_piece(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
            }
            Kind::Exact(stream, left) => poll_exact(stream, left, cx),
            Kind::Events(stream) => {
                stream.poll_next_unpin(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Whole(bytes) => bytes.is_none(),
            Kind::Nar(stream) => stream.remaining == 0,
            Kind::Exact(_, left) => *left == 0,
            Kind::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.kind {
            Kind::Whole(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Kind::Nar(stream) => stream.remaining,
            Kind::Exact(_, left) => *left,
            Kind::Events(_) => return SizeHint::default(),
        })
    }
}

fn poll_exact(
    stream: &mut BoxStream<'static, Result<Bytes, Cut>>,
    left: &mut u64,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
    loop {
        if *left == 0 {
            return Poll::Ready(None);
        }
        let piece = match ready!(stream.poll_next_unpin(cx)) {
            Some(Ok(piece)) if piece.is_empty() => continue,
            Some(Ok(piece)) => piece,
            Some(Err(cut)) => return Poll::Ready(Some(Err(cut))),
            None => return Poll::Ready(Some(Err(Cut::new("it ended too early")))),
        };
        match left.checked_sub(piece.len() as u64) {
            Some(rest) => *left = rest,
            None => return Poll::Ready(Some(Err(Cut::new("it is longer than it should be")))),
        }
        return Poll::Ready(Some(Ok(Frame::data(piece))));
    }
}

/// A part of a NAR (often all of it) with its exact length.
///
/// It delivers exactly that many bytes or ends with an error, which makes hyper drop the
/// connection: a client never sees a short body that looks complete.
pub(crate) struct NarStream {
    /// `None` after the end, whichever kind of end.
    source: Option<BoxStream<'static, Result<Bytes, Cut>>>,
    /// The piece already taken out of `source` by [`NarStream::wait_for_first_piece`].
    first: Option<Bytes>,
    /// Bytes still owed.
    remaining: u64,
    /// The source may go on after the last byte owed (`bytes=a-b`).
    open_ended: bool,
    counters: Arc<Counters>,
}

impl NarStream {
    /// `len` bytes from `source`; `open_ended` when the source has more than these.
    pub(crate) fn new(
        source: BoxStream<'static, Result<Bytes, Cut>>,
        len: u64,
        open_ended: bool,
        counters: Arc<Counters>,
    ) -> Self {
        Self { source: Some(source), first: None, remaining: len, open_ended, counters }
    }

    /// Wait until the first bytes are there. Before them a failure is still a 404 (`false`),
    /// afterwards only a cut.
    pub(crate) async fn wait_for_first_piece(&mut self) -> bool {
        if self.remaining == 0 {
            return true;
        }
        let piece = std::future::poll_fn(|cx| self.poll_source(cx)).await;
        match piece {
            Some(Ok(bytes)) => {
                self.first = Some(bytes);
                true
            }
            Some(Err(_)) | None => {
                self.source = None;
                false
            }
        }
    }

    /// The next piece that is not empty, as it comes from the source; a panic in there is an error
    /// like any other.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        loop {
            let Some(source) = self.source.as_mut() else {
                return Poll::Ready(None);
            };
            let polled = catch_unwind(AssertUnwindSafe(|| source.poll_next_unpin(cx)));
            match polled {
                Ok(Poll::Ready(Some(Ok(bytes)))) if bytes.is_empty() => {}
                Ok(other) => return other,
                Err(_) => {
                    self.counters.panics.one();
                    // Its state is unknown; even its destructor may panic, so that is caught as
                    // well.
                    let broken = self.source.take();
                    let _ = catch_unwind(AssertUnwindSafe(|| drop(broken)));
                    return Poll::Ready(Some(Err(Cut::new("the source panicked"))));
                }
            }
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        if self.remaining == 0 {
            return Poll::Ready(None);
        }
        let piece = match self.first.take() {
            Some(bytes) => Some(Ok(bytes)),
            None => ready!(self.poll_source(cx)),
        };
        Poll::Ready(Some(match piece {
            Some(Ok(bytes)) => self.account(bytes),
            Some(Err(cut)) => Err(self.cut(cut)),
            None => Err(self.cut(Cut::new("the stream ended before the size it promised"))),
        }))
    }

    fn account(&mut self, mut bytes: Bytes) -> Result<Bytes, Cut> {
        if bytes.len() as u64 > self.remaining {
            if !self.open_ended {
                return Err(self.cut(Cut::new("the stream is longer than the size it promised")));
            }
            // Fits: it is less than the length of a buffer.
            bytes.truncate(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        }
        self.remaining -= bytes.len() as u64;
        self.counters.bytes_to_nix.add(bytes.len() as u64);
        if self.remaining == 0 {
            self.source = None;
            self.counters.nar_complete.one();
        }
        Ok(bytes)
    }

    fn cut(&mut self, cut: Cut) -> Cut {
        self.source = None;
        self.counters.nar_cut.one();
        tracing::warn!(reason = %cut.reason, missing = self.remaining, "NAR cut in mid-body; Nix goes to its next substituter");
        cut
    }
}

impl Drop for NarStream {
    fn drop(&mut self) {
        if self.source.is_some() && self.remaining > 0 {
            self.counters.nar_abandoned.one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, stream};

    fn stream_of(pieces: Vec<Result<&'static [u8], Cut>>, len: u64, open_ended: bool) -> NarStream {
        let pieces = pieces.into_iter().map(|piece| piece.map(Bytes::from_static));
        NarStream::new(stream::iter(pieces).boxed(), len, open_ended, Arc::default())
    }

    fn drain(mut stream: NarStream) -> (Vec<u8>, bool) {
        let (mut all, mut cut) = (Vec::new(), false);
        while let Some(piece) =
            std::future::poll_fn(|cx| stream.poll_piece(cx)).now_or_never().unwrap()
        {
            match piece {
                Ok(bytes) => all.extend_from_slice(&bytes),
                Err(_) => {
                    cut = true;
                    break;
                }
            }
        }
        (all, cut)
    }

    #[test]
    fn exact_length_or_cut() {
        assert_eq!(
            drain(stream_of(vec![Ok(b"ab"), Ok(b""), Ok(b"c")], 3, false)),
            (b"abc".to_vec(), false)
        );
        assert_eq!(drain(stream_of(vec![Ok(b"ab")], 3, false)), (b"ab".to_vec(), true));
        assert_eq!(drain(stream_of(vec![Ok(b"ab"), Ok(b"cd")], 3, false)), (b"ab".to_vec(), true));
        assert_eq!(drain(stream_of(vec![Ok(b"ab"), Ok(b"cd")], 3, true)), (b"abc".to_vec(), false));
        assert_eq!(
            drain(stream_of(vec![Ok(b"ab"), Err(Cut::new("x")), Ok(b"c")], 3, false)),
            (b"ab".to_vec(), true)
        );
        assert_eq!(drain(stream_of(vec![], 0, false)), (vec![], false));
    }

    #[test]
    fn nothing_is_promised_before_the_first_piece() {
        for (mut stream, there) in [
            (stream_of(vec![Ok(b""), Ok(b"ab")], 2, false), true),
            (stream_of(vec![], 0, false), true),
            (stream_of(vec![Ok(b"")], 2, false), false),
            (stream_of(vec![Err(Cut::new("x"))], 2, false), false),
        ] {
            assert_eq!(stream.wait_for_first_piece().now_or_never(), Some(there));
            if there {
                assert!(!drain(stream).1);
            }
        }
    }

    #[test]
    fn a_panicking_source_is_a_cut() {
        let source = stream::iter([Ok(Bytes::from_static(b"ab"))])
            .chain(stream::poll_fn(|_| panic!("a bug")));
        let counters = Arc::new(Counters::default());
        let stream = NarStream::new(source.boxed(), 5, false, Arc::clone(&counters));
        assert_eq!(drain(stream), (b"ab".to_vec(), true));
        assert_eq!(
            (counters.panics.get(), counters.nar_cut.get(), counters.nar_abandoned.get()),
            (1, 1, 0)
        );
    }

    #[test]
    fn every_end_is_counted_once() {
        let counters = Arc::new(Counters::default());
        let endless = || stream::repeat_with(|| Ok(Bytes::from_static(b"abcd"))).boxed();
        drop(NarStream::new(endless(), 9, false, Arc::clone(&counters)));
        assert_eq!(counters.nar_abandoned.get(), 1);
        drain(NarStream::new(endless(), 8, false, Arc::clone(&counters)));
        assert_eq!(
            (counters.nar_complete.get(), counters.nar_abandoned.get(), counters.nar_cut.get()),
            (1, 1, 0)
        );
        assert_eq!(counters.bytes_to_nix.get(), 8);
    }
}
