//! The answering end of a request.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use haulout_swarm::rate::Urgency;
use quinn::{RecvStream, SendStream, VarInt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::api::{NarKey, NarReader};
use crate::frames::{self, REQUEST_HEADER_LEN, Request, Status};
use crate::narframe::{self, Encoding, Frame, Pressure, Shrinkage};
use crate::pace;
use crate::registry::{Link, Shared};

/// A request must be complete within this after its stream opened.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that takes nothing for this long while we have something for it loses the stream.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
/// A NAR that is still arriving here may keep a peer waiting this long for its next frame.
const NOT_YET_MAX: Duration = Duration::from_secs(5);
/// First and longest pause before a NAR that is still arriving is asked again.
const NOT_YET_PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(40));
/// How long a stream waits for its share of the frames in flight before the answer is "busy".
const PERMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// A write that took longer had to wait for the peer or the link, not for a lock.
const BLOCKED: Duration = Duration::from_micros(300);
/// Stream error code: the answer could not be completed (the path vanished, the disk failed).
pub(crate) const CUT: u32 = 2;

/// Reads one request and answers it.
pub(crate) async fn answer(
    shared: Arc<Shared>,
    link: Arc<Link>,
    mut send: SendStream,
    mut recv: RecvStream,
) {
    let Ok(request) = timeout(REQUEST_TIMEOUT, read_request(&mut recv)).await else {
        let _ = send.reset(VarInt::from_u32(CUT));
        return;
    };
    // Nothing more is read from this stream.
    drop(recv);
    let done = match request {
        Ok(Request::PathInfos { hash, max }) => {
            path_infos(&shared, &link, &mut send, hash, max).await
        }
        Ok(Request::NarTree(key)) => nar_tree(&shared, &link, &mut send, key).await,
        Ok(Request::NarRange { key, start, len }) => {
            nar_range(&shared, &link, &mut send, key, start, start.saturating_add(len)).await
        }
        Ok(Request::Site(request)) => crate::site::answer(&shared, &link, &mut send, request).await,
        Ok(Request::ArchiveProof(question)) => {
            crate::archive::answer(&shared, &link, &mut send, question).await
        }
        Ok(Request::Locate { prefix }) => {
            crate::locate::answer(&shared, &link, &mut send, prefix).await
        }
        Ok(Request::Unknown(_)) => status(&mut send, Status::Unsupported).await,
        Err(_) => status(&mut send, Status::BadRequest).await,
    };
    match done {
        Ok(()) => {
            let _ = send.finish();
        }
        Err(error) => {
            tracing::debug!(peer = %link.peer.short(), %error, "answer cut");
            let _ = send.reset(VarInt::from_u32(CUT));
        }
    }
}

/// Says "busy" without reading the request.
pub(crate) fn refuse(mut send: SendStream, recv: RecvStream) {
    drop(recv);
    tokio::spawn(async move {
        if status(&mut send, Status::Busy).await.is_ok() {
            let _ = send.finish();
        }
    });
}

async fn read_request(recv: &mut RecvStream) -> io::Result<Request> {
    let mut header = [0; REQUEST_HEADER_LEN];
    recv.read_exact(&mut header).await.map_err(io::Error::other)?;
    let len = Request::body_len(header).map_err(io::Error::other)?;
    let mut body = vec![0; len];
    recv.read_exact(&mut body).await.map_err(io::Error::other)?;
    Request::decode(header[0], &body).map_err(io::Error::other)
}

/// Writes with a limit on how long the peer may take nothing. True if it had to wait.
pub(crate) async fn write(send: &mut SendStream, chunks: &mut [Bytes]) -> io::Result<bool> {
    let started = Instant::now();
    timeout(WRITE_TIMEOUT, send.write_all_chunks(chunks))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        .map_err(io::Error::other)?;
    Ok(started.elapsed() > BLOCKED)
}

/// Writes a header and data, as fast as this peer's limit and everybody's allow. True if it had to wait for the peer.
pub(crate) async fn write_paced(
    shared: &Arc<Shared>,
    link: &Link,
    send: &mut SendStream,
    urgency: Urgency,
    head: Bytes,
    mut data: Bytes,
) -> io::Result<bool> {
    let Some(piece) = pace::piece(shared, link) else {
        return write(send, &mut [head, data]).await;
    };
    write(send, &mut [head]).await?;
    while !data.is_empty() {
        let part = data.split_to(data.len().min(piece));
        pace::wait(shared, link, urgency, part.len()).await;
        write(send, &mut [part]).await?;
    }
    // The limit is what the bytes wait for, whatever the link could do.
    Ok(true)
}

pub(crate) async fn status(send: &mut SendStream, status: Status) -> io::Result<()> {
    write(send, &mut [Bytes::copy_from_slice(&[status.to_byte()])]).await.map(drop)
}

pub(crate) async fn body(send: &mut SendStream, body: Option<Vec<u8>>) -> io::Result<()> {
    let Some(body) = body else {
        return status(send, Status::No).await;
    };
    let mut head = vec![Status::Ok.to_byte()];
    head.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    write(send, &mut [head.into(), body.into()]).await.map(drop)
}

async fn path_infos(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    send: &mut SendStream,
    hash: haulout_nix::HashPart,
    max: u16,
) -> io::Result<()> {
    let (serve, asker) = (Arc::clone(&shared.serve), link.asker());
    let answer = tokio::task::spawn_blocking(move || {
        let infos = serve.path_infos(&asker, &hash, usize::from(max));
        let infos = infos.get(..infos.len().min(usize::from(max))).unwrap_or_default();
        // An answer about another path would only get us blamed.
        let right = infos.first().is_some_and(|first| first.path.hash_part() == hash);
        if right { frames::encode_path_infos(infos) } else { None }
    });
    body(send, answer.await.unwrap_or_default()).await
}

async fn nar_tree(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    send: &mut SendStream,
    key: NarKey,
) -> io::Result<()> {
    let (serve, asker) = (Arc::clone(&shared.serve), link.asker());
    let answer = tokio::task::spawn_blocking(move || {
        let tree = serve.nar_tree(&asker, &key)?;
        // The root itself is checked by the asker.
        (tree.groups.len() as u64 == crate::tree::group_count(key.nar_size)).then_some(())?;
        frames::encode_nar_tree(&tree)
    });
    body(send, answer.await.unwrap_or_default()).await
}

/// The right to hold one frame in memory, from the peer's share and from everybody's.
struct Permit {
    _peer: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

async fn permit(shared: &Shared, link: &Link) -> Option<Permit> {
    let both = async {
        let peer = Arc::clone(&link.frames).acquire_owned().await.ok()?;
        let all = Arc::clone(&shared.frames).acquire_owned().await.ok()?;
        Some(Permit { _peer: peer, _all: all })
    };
    timeout(PERMIT_TIMEOUT, both).await.ok().flatten()
}

/// One NAR being sent.
struct Sending {
    shared: Arc<Shared>,
    link: Arc<Link>,
    key: NarKey,
    end: u64,
    shrinkage: Shrinkage,
}

/// What a blocking thread made: the frame, and whether compressing it was tried.
type Made = io::Result<(Frame, bool)>;

async fn nar_range(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    send: &mut SendStream,
    key: NarKey,
    start: u64,
    end: u64,
) -> io::Result<()> {
    let Some(first_permit) = permit(shared, link).await else {
        return status(send, Status::Busy).await;
    };
    let mut sending = Sending {
        shared: Arc::clone(shared),
        link: Arc::clone(link),
        key,
        end,
        shrinkage: Shrinkage::default(),
    };
    // Opening and the first frame in one go: most NARs are a single frame.
    let (serve, asker, job) = (Arc::clone(&shared.serve), link.asker(), sending.job(start));
    let opened = tokio::task::spawn_blocking(move || {
        let reader: Arc<dyn NarReader> = serve.open_nar(&asker, &key)?.into();
        let made = job(&*reader);
        Some((reader, made))
    });
    let Some((reader, made)) = opened.await.ok().flatten() else {
        return status(send, Status::No).await;
    };
    let mut frame = match made {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
            return status(send, Status::No).await;
        }
        Err(_) => sending.wait_for(&reader, start).await?,
        Ok(made) => sending.learn(made),
    };
    let mut held = first_permit;
    let mut head = vec![Status::Ok.to_byte()];
    let mut position = start;
    loop {
        position += frame.raw_len as u64;
        // The next frame is made while this one is sent.
        let ahead = if position < end {
            let permit = permit(shared, link).await.ok_or(io::ErrorKind::TimedOut)?;
            Some((permit, sending.start(&reader, position)))
        } else {
            None
        };
        head.extend(frame.header());
        let raw_len = frame.raw_len as u64;
        let written = write_paced(
            shared,
            link,
            send,
            Urgency::Awaited,
            std::mem::take(&mut head).into(),
            frame.data,
        );
        if written.await? {
            link.note_blocked();
        }
        link.stats.given.fetch_add(raw_len, Ordering::Relaxed);
        drop(held);
        let Some((permit, making)) = ahead else {
            return Ok(());
        };
        held = permit;
        frame = match making.await.map_err(io::Error::other)? {
            Ok(made) => sending.learn(made),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                sending.wait_for(&reader, position).await?
            }
            Err(error) => return Err(error),
        };
    }
}

impl Sending {
    /// The work of making the frame at `position`, for a blocking thread.
    fn job(&self, position: u64) -> impl FnOnce(&dyn NarReader) -> Made + Send + 'static {
        let (shared, nar) = (Arc::clone(&self.shared), self.key.nar_hash);
        let raw_len = narframe::raw_len(position, self.end);
        let blocked = self.link.send_blocked();
        let shrinkage = self.shrinkage;
        move |reader| {
            if let Some(frame) = shared.cache.get(nar.as_bytes(), position, raw_len) {
                return Ok((frame, false));
            }
            // The gauge is asked only when its answer matters.
            let idle_cores = if blocked { shared.gauge.idle_cores() } else { 0.0 };
            let pressure = Pressure { send_blocked: blocked, idle_cores };
            let wanted = narframe::worth_compressing(pressure, shrinkage);
            let frame = narframe::produce(reader, position, raw_len, wanted)?;
            shared.cache.put(nar.as_bytes(), position, &frame);
            Ok((frame, wanted))
        }
    }

    fn start(&self, reader: &Arc<dyn NarReader>, position: u64) -> JoinHandle<Made> {
        let (reader, job) = (Arc::clone(reader), self.job(position));
        tokio::task::spawn_blocking(move || job(&*reader))
    }

    /// Draws the lesson from a frame.
    fn learn(&mut self, (frame, tried): (Frame, bool)) -> Frame {
        if tried {
            self.shrinkage.tried(frame.encoding == Encoding::Zstd);
        } else {
            self.shrinkage.skipped();
        }
        frame
    }

    /// Asks again and again for a frame that has not arrived here yet.
    async fn wait_for(&mut self, reader: &Arc<dyn NarReader>, position: u64) -> io::Result<Frame> {
        let started = Instant::now();
        let (mut pause, longest) = NOT_YET_PAUSE;
        while started.elapsed() < NOT_YET_MAX {
            sleep(pause).await;
            pause = (pause * 2).min(longest);
            match self.start(reader, position).await.map_err(io::Error::other)? {
                Ok(made) => return Ok(self.learn(made)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}
