//! The asking end of a request.
//!
//! Requests run on the mesh's own thread: a packet wakes a task next to it instead of another thread. What is handed over
//! are whole answers and whole frames, so the caller's runtime is woken once per 256 KiB, and decompression happens there.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use haulout_swarm::PeerId;
use haulout_swarm::peers::Answer;
use quinn::{RecvStream, VarInt};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};

use crate::api::NarKey;
use crate::error::{RequestError, StreamError};
use crate::frames::{FrameError, Request, Status, checked_len, range_fits};
use crate::narframe::{self, Encoding, FRAME_HEADER_LEN};
use crate::registry::{Link, Shared};
use crate::session::read_body;

/// Frames handed over but not yet taken by the caller: with the stream's window, what one slow reader holds.
const FRAMES_AHEAD: usize = 4;

/// Books a request in the peer table, whatever becomes of it.
pub(crate) struct Booking {
    shared: Arc<Shared>,
    link: Arc<Link>,
    started: Instant,
    first_byte: Option<Duration>,
    ended: bool,
}

impl Booking {
    pub(crate) fn new(shared: &Arc<Shared>, link: &Arc<Link>) -> Self {
        link.stats.asked_it.fetch_add(1, Ordering::Relaxed);
        let now = shared.now();
        shared.lock_peers().table.asked(&link.peer, now);
        Self {
            shared: Arc::clone(shared),
            link: Arc::clone(link),
            started: Instant::now(),
            first_byte: None,
            ended: false,
        }
    }

    fn heard(&mut self) {
        self.first_byte = Some(self.started.elapsed());
        let now = self.shared.now();
        self.shared.lock_peers().table.heard(&self.link.peer, now);
    }

    /// The answer is complete.
    pub(crate) fn answered(&mut self, bytes: u64) {
        self.ended = true;
        let took = self.started.elapsed();
        let answer = Answer { first_byte: self.first_byte.unwrap_or(took), took, bytes };
        let now = self.shared.now();
        self.shared.lock_peers().table.answered(&self.link.peer, answer, now);
    }
}

impl Drop for Booking {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.lock_peers().table.abandoned(&self.link.peer);
        }
    }
}

/// Runs `work` on the mesh's runtime; dropping the returned future stops it.
pub(crate) async fn on_mesh<T: Send + 'static>(
    shared: &Shared,
    work: impl Future<Output = Result<T, RequestError>> + Send + 'static,
) -> Result<T, RequestError> {
    struct Abort<T>(tokio::task::JoinHandle<T>);
    impl<T> Drop for Abort<T> {
        fn drop(&mut self) {
            self.0.abort();
        }
    }
    let runtime = shared.runtime.get().ok_or(RequestError::ShutDown)?;
    let mut task = Abort(runtime.spawn(work));
    (&mut task.0).await.unwrap_or(Err(RequestError::ShutDown))
}

/// The connection to ask on.
pub(crate) fn link_to(shared: &Shared, peer: &PeerId) -> Result<Arc<Link>, RequestError> {
    shared.link(peer).ok_or(RequestError::NotConnected)
}

/// Asks a question with a short answer; gives back the answer's body, at most `max` bytes.
pub(crate) async fn short(
    shared: &Arc<Shared>,
    peer: &PeerId,
    request: Request,
    max: usize,
    patience: Patience,
) -> Result<Bytes, RequestError> {
    let link = link_to(shared, peer)?;
    let task_shared = Arc::clone(shared);
    on_mesh(shared, async move {
        let mut booking = Booking::new(&task_shared, &link);
        let quiet_since = link.conn.stats().udp_rx.datagrams;
        let work = async {
            let mut recv = begin(&link, &request, &mut booking).await?;
            let len = recv.read_u32().await.map_err(|error| lost(&error))?;
            let len = checked_len("answer", len, max).map_err(|error| protocol(&error))?;
            let body = read_body(&mut recv, len).await.map_err(|error| lost(&error))?;
            Ok(body.freeze())
        };
        let result = in_time(&link, patience, quiet_since, work).await;
        match &result {
            Ok(body) => booking.answered(body.len() as u64),
            Err(RequestError::No) => booking.answered(0),
            Err(_) => {}
        }
        result
    })
    .await
}

/// A peer that has sent no piece of any stream for this long while it owes an answer is stalled, however alive it is:
/// behind a slow link an answer waits, but then other streams' bytes keep coming.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// A thread that was itself kept waiting for the processor may find the answer in its socket: it looks once more for so
/// long before it calls a peer silent.
const SECOND_LOOK: Duration = Duration::from_millis(15);

/// How long an answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// With a peer from which not one packet comes meanwhile: not even the receipt of the question.
    pub silent: Duration,
    /// With a peer that is alive.
    pub total: Duration,
}

impl Patience {
    /// One limit for both.
    #[must_use]
    pub const fn until(deadline: Duration) -> Self {
        Self { silent: deadline, total: deadline }
    }
}

/// Applies the limits, and gives a stalled peer up before the second. A peer from which nothing at all came meanwhile is
/// silent, and skipped until it speaks.
pub(crate) async fn in_time<T>(
    link: &Link,
    patience: Patience,
    quiet_since: u64,
    work: impl Future<Output = Result<T, RequestError>>,
) -> Result<T, RequestError> {
    let mut work = pin!(work);
    let mut left = patience.total;
    let mut slice = patience.silent.min(STALLED_AFTER);
    let mut pieces = link.conn.stats().frame_rx.stream;
    let mut without_piece = Duration::ZERO;
    loop {
        let now = left.min(slice);
        if let Ok(result) = timeout(now, &mut work).await {
            return result;
        }
        if let Ok(result) = timeout(SECOND_LOOK, &mut work).await {
            return result;
        }
        left -= now;
        without_piece += now;
        let stats = link.conn.stats();
        let silent = stats.udp_rx.datagrams == quiet_since;
        if silent {
            link.silent.store(true, Ordering::Relaxed);
        }
        if stats.frame_rx.stream != pieces {
            (pieces, without_piece) = (stats.frame_rx.stream, Duration::ZERO);
        }
        if silent || left.is_zero() || without_piece >= STALLED_AFTER {
            return Err(RequestError::Deadline(patience.total - left));
        }
        slice = STALLED_AFTER - without_piece;
    }
}

/// Sends the request and reads the status.
pub(crate) async fn begin(
    link: &Link,
    request: &Request,
    booking: &mut Booking,
) -> Result<RecvStream, RequestError> {
    let (mut send, mut recv) = link.conn.open_bi().await.map_err(|error| lost(&error))?;
    send.write_chunk(Bytes::from(request.encode())).await.map_err(|error| lost(&error))?;
    let _ = send.finish();
    let status = recv.read_u8().await.map_err(|error| lost(&error))?;
    booking.heard();
    match Status::from_byte(status).map_err(|error| protocol(&error))? {
        Status::Ok => Ok(recv),
        Status::No => Err(RequestError::No),
        Status::Busy => Err(RequestError::Busy),
        Status::Unsupported => Err(RequestError::Unsupported),
        Status::BadRequest => {
            Err(RequestError::Protocol("peer calls the request malformed".to_owned()))
        }
    }
}

fn lost(error: &dyn std::fmt::Display) -> RequestError {
    RequestError::Lost(error.to_string())
}

fn protocol(error: &FrameError) -> RequestError {
    RequestError::Protocol(error.to_string())
}

/// A frame on its way to the caller.
#[derive(Debug)]
struct Arrived {
    encoding: Encoding,
    data: Bytes,
    raw_len: usize,
}

/// The raw bytes of a NAR range, in order. Dropping it stops the transfer.
#[derive(Debug)]
pub struct NarStream {
    frames: mpsc::Receiver<Result<Arrived, StreamError>>,
    remaining: u64,
    link: Arc<Link>,
}

impl NarStream {
    /// The next piece, at most 256 KiB; `None` when the whole range has been handed out. Cancel-safe.
    ///
    /// Ends of pieces lie at multiples of 256 KiB of the NAR, and at the end of the range.
    ///
    /// # Errors
    /// [`StreamError`]: the stream is over, what was handed out stays valid. Continue elsewhere from there.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StreamError> {
        if self.remaining == 0 {
            return Ok(None);
        }
        let frame = match self.frames.recv().await {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Err(error),
            None => return Err(StreamError::Lost("the mesh is shut down".to_owned())),
        };
        let piece = narframe::decode(frame.encoding, frame.data, frame.raw_len)
            .map_err(|error| StreamError::Protocol(error.to_string()))?;
        self.remaining = self.remaining.saturating_sub(piece.len() as u64);
        self.link.stats.taken.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Ok(Some(piece))
    }

    /// How many bytes of the range are still to come.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.remaining
    }
}

/// Asks for a byte range of a NAR; returns when the peer has said yes.
pub(crate) async fn range(
    shared: &Arc<Shared>,
    peer: &PeerId,
    key: NarKey,
    start: u64,
    len: u64,
    deadline: Duration,
) -> Result<NarStream, RequestError> {
    if !range_fits(&key, start, len) {
        return Err(RequestError::BadQuestion("the range is empty or not within the NAR"));
    }
    let link = link_to(shared, peer)?;
    let (task_shared, task_link) = (Arc::clone(shared), Arc::clone(&link));
    let frames = on_mesh(shared, async move {
        let mut booking = Booking::new(&task_shared, &task_link);
        let quiet_since = task_link.conn.stats().udp_rx.datagrams;
        let request = Request::NarRange { key, start, len };
        let result = in_time(
            &task_link,
            Patience::until(deadline),
            quiet_since,
            begin(&task_link, &request, &mut booking),
        )
        .await;
        if matches!(result, Err(RequestError::No)) {
            booking.answered(0);
        }
        let recv = result?;
        let (send, frames) = mpsc::channel(FRAMES_AHEAD);
        let reading = Reading { recv, booking, stall: task_shared.config.stall_timeout };
        tokio::spawn(reading.run(start, len, send));
        Ok(frames)
    })
    .await?;
    Ok(NarStream { frames, remaining: len, link })
}

/// The mesh's end of a [`NarStream`].
struct Reading {
    recv: RecvStream,
    booking: Booking,
    stall: Duration,
}

impl Reading {
    async fn run(
        mut self,
        start: u64,
        len: u64,
        frames: mpsc::Sender<Result<Arrived, StreamError>>,
    ) {
        let end = start.saturating_add(len);
        let mut position = start;
        while position < end {
            let raw_len = narframe::raw_len(position, end);
            let read = tokio::select! {
                read = read_frame(&mut self.recv, raw_len, self.stall) => read,
                () = frames.closed() => break,
            };
            let failed = read.is_err();
            // Waiting for the caller is not the peer's fault: no clock runs here.
            if frames.send(read).await.is_err() || failed {
                break;
            }
            position += raw_len as u64;
        }
        if position == end {
            self.booking.answered(len);
        } else {
            let _ = self.recv.stop(VarInt::from_u32(0));
        }
    }
}

/// Reads one frame that stands for `raw_len` bytes.
async fn read_frame(
    recv: &mut RecvStream,
    raw_len: usize,
    stall: Duration,
) -> Result<Arrived, StreamError> {
    let mut buffer = BytesMut::with_capacity(FRAME_HEADER_LEN);
    fill(recv, &mut buffer, FRAME_HEADER_LEN, stall).await?;
    let mut header = [0; FRAME_HEADER_LEN];
    header.copy_from_slice(&buffer);
    let (encoding, len) = narframe::parse_header(header, raw_len)
        .map_err(|error| StreamError::Protocol(error.to_string()))?;
    let mut data = BytesMut::with_capacity(len);
    fill(recv, &mut data, len, stall).await?;
    Ok(Arrived { encoding, data: data.freeze(), raw_len })
}

/// Reads until `buffer` holds `len` bytes; gives up when nothing arrived for `stall`.
///
/// One timer per call, moved only when it fires: arriving packets cost no timer work.
pub(crate) async fn fill(
    recv: &mut RecvStream,
    buffer: &mut BytesMut,
    len: usize,
    stall: Duration,
) -> Result<(), StreamError> {
    let mut progress = tokio::time::Instant::now();
    let timer = sleep_until(progress + stall);
    tokio::pin!(timer);
    while buffer.len() < len {
        let missing = len - buffer.len();
        let mut limited = bytes::BufMut::limit(&mut *buffer, missing);
        tokio::select! {
            biased;
            read = recv.read_buf(&mut limited) => match read {
                Ok(0) => return Err(StreamError::Lost("the peer ended the stream early".to_owned())),
                Ok(_) => progress = tokio::time::Instant::now(),
                Err(error) => return Err(broken(&error)),
            },
            () = &mut timer => {
                if progress.elapsed() >= stall {
                    return Err(StreamError::Stalled(stall));
                }
                timer.as_mut().reset(progress + stall);
            }
        }
    }
    Ok(())
}

fn broken(error: &io::Error) -> StreamError {
    StreamError::Lost(error.to_string())
}
