//! Both ends of a request for a segment of a site object, and who is willing to be a home.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use haulout_swarm::PeerId;
use haulout_swarm::peers::State;
use haulout_swarm::rate::Urgency;
use haulout_swarm::site::{FollowConfig, SegmentKey, SiteKind, Standing, Turn};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::api::SitePiece;
use crate::ask::{Booking, Patience, begin, fill, in_time, link_to, on_mesh};
use crate::error::{RequestError, StreamError};
use crate::frames::{
    FrameError, MINOR_AHEAD, MINOR_HELD, MINOR_NARS, MINOR_PACKED, MINOR_SITE, Request, Status,
    UNI_STANDING, checked_len,
};
use crate::narframe::{self, Encoding};
use crate::packing::Packing;
use crate::registry::{Entry, Link, Shared, lock};
use crate::serve::{write, write_paced};
use crate::session::read_body;
use crate::siteframe::{
    self, SITE_FRAME_MAX, SITE_HEADER_LEN, SITE_PACKED_LEN, STANDING_BODY_MAX, SiteEnd, SiteFrame,
    SiteHead, SiteRequest,
};

/// Frames handed over but not yet taken by the caller.
const FRAMES_AHEAD: usize = 4;
/// A peer that owes us an answer and whose packets have stopped for so long is no home for anything new.
const QUIET_MAX: Duration = Duration::from_millis(800);
/// Of streams; what somebody waits for has 0.
const PRIORITY_AHEAD: i32 = -1;
/// A standing must be through within this.
const STANDING_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers a request: what the source gives, and a sign of life while it gives nothing.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    send: &mut SendStream,
    request: SiteRequest,
) -> io::Result<()> {
    let heartbeat = FollowConfig::default().heartbeat;
    let mut left = siteframe::due(&request);
    let urgency = request.urgency;
    if urgency == Urgency::Ahead {
        // Whatever else goes to this peer goes before it.
        let _ = send.set_priority(PRIORITY_AHEAD);
    }
    let known_size = request.size.is_some();
    let mut packing = Packing::new(shared, link, &request);
    let mut source = shared.serve.site(&link.asker(), request);
    write(send, &mut [Bytes::copy_from_slice(&[Status::Ok.to_byte()])]).await?;
    loop {
        let piece = {
            let mut next = source.next();
            loop {
                tokio::select! {
                    piece = timeout(heartbeat, &mut next) => match piece {
                        Ok(piece) => break piece,
                        Err(_) => frame(send, SiteFrame::Waiting).await?,
                    },
                    // The asker has enough, or has gone: nobody is to be kept busy for it.
                    _ = send.stopped() => return Err(io::ErrorKind::BrokenPipe.into()),
                }
            }
        };
        match piece {
            SitePiece::End(end) => return frame(send, SiteFrame::End(end)).await,
            SitePiece::Bytes(mut bytes) => {
                if bytes.len() as u64 > left {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                left -= bytes.len() as u64;
                while !bytes.is_empty() {
                    let part = bytes.split_to(bytes.len().min(SITE_FRAME_MAX));
                    link.stats.given.fetch_add(part.len() as u64, Ordering::Relaxed);
                    let packed = match &mut packing {
                        Some(packing) => packing.pack(&part).await,
                        None => None,
                    };
                    let (head, data) = data_frame(part, packed);
                    if write_paced(shared, link, send, urgency, head, data).await? {
                        link.note_blocked();
                    }
                }
                if known_size && left == 0 {
                    return frame(send, SiteFrame::End(SiteEnd::Complete)).await;
                }
            }
        }
    }
}

/// The head and the data of a frame with this part, compressed or as it is.
fn data_frame(part: Bytes, packed: Option<Bytes>) -> (Bytes, Bytes) {
    match packed {
        Some(packed) => {
            let head = siteframe::packed_header(packed.len(), part.len());
            (Bytes::copy_from_slice(&head), packed)
        }
        None => {
            let head = siteframe::site_header(&SiteFrame::Bytes(part.clone()));
            (Bytes::copy_from_slice(&head), part)
        }
    }
}

/// A frame without data.
async fn frame(send: &mut SendStream, frame: SiteFrame) -> io::Result<()> {
    let head = Bytes::copy_from_slice(&siteframe::site_header(&frame));
    write(send, &mut [head]).await.map(drop)
}

/// The answer to a request for a segment. Dropping it tells the peer to stop.
#[derive(Debug)]
pub struct SiteStream {
    frames: mpsc::Receiver<Result<Arrived, StreamError>>,
    link: Arc<Link>,
}

impl SiteStream {
    /// The next frame; the last one is a [`SiteFrame::End`]. Safe to cancel. Nothing here tells a stalled peer from a
    /// waiting one: that is the business of [`haulout_swarm::site::Follow`].
    ///
    /// # Errors
    /// [`StreamError`]: what was handed out stays as good as it was.
    pub async fn next(&mut self) -> Result<SiteFrame, StreamError> {
        let lost = || StreamError::Lost("the stream is over".to_owned());
        // Unpacked here and not on the mesh's own thread.
        let frame = self.frames.recv().await.unwrap_or_else(|| Err(lost()))?.unpack()?;
        if let SiteFrame::Bytes(bytes) = &frame {
            self.link.stats.taken.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(frame)
    }
}

/// A frame as it came.
#[derive(Debug)]
enum Arrived {
    Plain(SiteFrame),
    /// One zstd frame of so many bytes.
    Packed(Bytes, usize),
}

impl Arrived {
    /// How many bytes of the object it stands for.
    fn len(&self) -> u64 {
        match self {
            Self::Plain(SiteFrame::Bytes(bytes)) => bytes.len() as u64,
            Self::Packed(_, raw_len) => *raw_len as u64,
            Self::Plain(SiteFrame::Waiting | SiteFrame::End(_)) => 0,
        }
    }

    fn unpack(self) -> Result<SiteFrame, StreamError> {
        match self {
            Self::Plain(frame) => Ok(frame),
            Self::Packed(data, raw_len) => narframe::decode(Encoding::Zstd, data, raw_len)
                .map(SiteFrame::Bytes)
                .map_err(|error| StreamError::Protocol(error.to_string())),
        }
    }
}

/// Asks a peer for a segment; returns when it has begun to answer.
pub(crate) async fn ask(
    shared: &Arc<Shared>,
    peer: &PeerId,
    mut request: SiteRequest,
    deadline: Duration,
) -> Result<SiteStream, RequestError> {
    let link = link_to(shared, peer)?;
    if link.minor < MINOR_AHEAD {
        request.urgency = Urgency::Awaited;
    }
    request.packed = link.minor >= MINOR_PACKED;
    let needed = match request.segment.object.kind {
        _ if request.held => MINOR_HELD,
        SiteKind::Nar => MINOR_NARS,
        _ => MINOR_SITE,
    };
    if link.minor < needed {
        return Err(RequestError::Unsupported);
    }
    let (task_shared, task_link) = (Arc::clone(shared), Arc::clone(&link));
    let frames = on_mesh(shared, async move {
        let mut booking = Booking::new(&task_shared, &task_link);
        let quiet_since = task_link.conn.stats().udp_rx.datagrams;
        let due = siteframe::due(&request);
        let request = Request::Site(request);
        let begun = begin(&task_link, &request, &mut booking);
        let recv = in_time(&task_link, Patience::until(deadline), quiet_since, begun).await?;
        let (send, frames) = mpsc::channel(FRAMES_AHEAD);
        tokio::spawn(read_all(recv, booking, due, send));
        Ok(frames)
    })
    .await?;
    Ok(SiteStream { frames, link })
}

async fn read_all(
    mut recv: RecvStream,
    mut booking: Booking,
    due: u64,
    frames: mpsc::Sender<Result<Arrived, StreamError>>,
) {
    let mut left = due;
    loop {
        let read = tokio::select! {
            read = read_frame(&mut recv, left) => read,
            () = frames.closed() => break,
        };
        left -= read.as_ref().map_or(0, Arrived::len);
        let ended = matches!(read, Ok(Arrived::Plain(SiteFrame::End(_))));
        let over = ended || read.is_err();
        if frames.send(read).await.is_err() {
            break;
        }
        if ended {
            booking.answered(due - left);
            return;
        }
        if over {
            break;
        }
    }
    let _ = recv.stop(VarInt::from_u32(0));
}

/// Nothing may stand in a frame for longer than this; between frames, the plan's clocks decide.
const FRAME_STALL: Duration = Duration::from_secs(10);

async fn read_frame(recv: &mut RecvStream, left: u64) -> Result<Arrived, StreamError> {
    let wrong = |error: FrameError| StreamError::Protocol(error.to_string());
    let mut header = BytesMut::with_capacity(SITE_HEADER_LEN);
    fill(recv, &mut header, SITE_HEADER_LEN, FRAME_STALL).await?;
    let mut head = [0; SITE_HEADER_LEN];
    head.copy_from_slice(&header);
    Ok(match siteframe::parse_site_header(head, left).map_err(wrong)? {
        SiteHead::Waiting => Arrived::Plain(SiteFrame::Waiting),
        SiteHead::End(end) => Arrived::Plain(SiteFrame::End(end)),
        SiteHead::Bytes(len) => Arrived::Plain(SiteFrame::Bytes(read_data(recv, len).await?)),
        SiteHead::Packed(len) => {
            let word = read_data(recv, SITE_PACKED_LEN).await?;
            let mut raw_len = [0; SITE_PACKED_LEN];
            raw_len.copy_from_slice(&word);
            let raw_len = siteframe::parse_packed(raw_len, len, left).map_err(wrong)?;
            Arrived::Packed(read_data(recv, len).await?, raw_len)
        }
    })
}

async fn read_data(recv: &mut RecvStream, len: usize) -> Result<Bytes, StreamError> {
    let mut data = BytesMut::with_capacity(len);
    fill(recv, &mut data, len, FRAME_STALL).await?;
    Ok(data.freeze())
}

/// Tells the peer our standing, now and whenever it changes.
pub(crate) async fn announce(shared: Arc<Shared>, link: Arc<Link>) {
    if link.minor < MINOR_SITE {
        return;
    }
    let mut changed = shared.standing.subscribe();
    loop {
        let standing = changed.borrow_and_update().clone();
        let told = async {
            let mut send = link.conn.open_uni().await.ok()?;
            let mut bytes = vec![UNI_STANDING];
            bytes.extend(siteframe::encode_standing(&standing));
            send.write_all(&bytes).await.ok()?;
            send.finish().ok()
        };
        if told.await.is_none() || changed.changed().await.is_err() {
            return;
        }
    }
}

/// Reads a standing, after the kind of its stream.
pub(crate) async fn read_standing(
    shared: &Shared,
    link: &Link,
    recv: &mut RecvStream,
) -> Result<(), String> {
    let read = async {
        let len = recv.read_u16().await.ok()?;
        let len = match checked_len("standing", u32::from(len), STANDING_BODY_MAX) {
            Ok(len) => len,
            Err(error) => return Some(Err(error.to_string())),
        };
        Some(Ok(read_body(recv, len).await.ok()?))
    };
    let Ok(Some(body)) = timeout(STANDING_TIMEOUT, read).await else {
        return Ok(());
    };
    let standing = siteframe::decode_standing(&body?).map_err(|error| error.to_string())?;
    lock(&shared.homes).told(link.peer, standing, shared.now());
    Ok(())
}

impl Shared {
    /// Says from now on whether this machine fetches for others, and from where it can.
    pub(crate) fn set_standing(&self, willing: bool, outsides: &[u32]) {
        let mut told = None;
        self.standing.send_modify(|standing| {
            standing.sequence = standing.sequence.wrapping_add(1);
            standing.willing = willing;
            standing.outsides = outsides.iter().copied().collect();
            told = Some(standing.clone());
        });
        if let Some(standing) = told {
            lock(&self.homes).told(self.id, standing, self.now());
        }
    }

    /// The first `most` agents whose turn it is, this one among them if it is willing.
    pub(crate) fn homes(&self, segment: &SegmentKey, outside: u32, most: usize) -> Vec<PeerId> {
        let (now, clock) = (self.now(), Instant::now());
        let peers = self.lock_peers();
        // Only what everybody would see alike, so that all agree on the home: whether it is there, not how it did lately.
        let usable = |peer: &PeerId| {
            let Some(link) = peers.entries.get(peer).and_then(Entry::link) else {
                return *peer == self.id;
            };
            !link.silent.load(Ordering::Relaxed)
                && match peers.table.state(peer, now) {
                    Some(State::Banned { .. }) => false,
                    Some(State::Silent { .. }) => link.quiet_for(clock) < QUIET_MAX,
                    _ => true,
                }
        };
        lock(&self.homes).ranking(segment, outside, most, usable)
    }

    /// How many others named this place, whether they fetch for others or not.
    pub(crate) fn others(&self, outside: u32) -> usize {
        lock(&self.homes).others(&self.id, outside)
    }

    /// Marks those of a ranking that were here before this agent came.
    pub(crate) fn turns(&self, ranking: &[PeerId]) -> Vec<Turn> {
        lock(&self.homes).turns(ranking, self.now())
    }

    /// What a peer has told of itself.
    pub(crate) fn standing_of(&self, peer: &PeerId) -> Option<Standing> {
        lock(&self.homes).standing(peer).cloned()
    }
}
