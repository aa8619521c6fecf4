//! The one-way streams on which both ends say what they hold.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use haulout_swarm::Fault;
use haulout_swarm::directory::DirectoryError;
use haulout_swarm::holdings::{
    DELTA_BYTES_MAX, Message, SNAPSHOT_BYTES_MAX, Update, Version, gather,
};
use haulout_swarm::portions::{Portion, Told};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::api::HoldingsFeed;
use crate::frames::{UNI_HOLDINGS, UNI_PORTION, UNI_STANDING, checked_len};
use crate::limit::Bucket;
use crate::registry::{Link, Shared};

/// One holdings message must be through within this.
const HOLDINGS_TIMEOUT: Duration = Duration::from_secs(30);
/// Holdings messages a peer may send: ten a second is what [`gather`] and a busy store lead to.
const HOLDINGS_PER_SECOND: u32 = 25;
const HOLDINGS_BURST: u32 = 100;
/// Code on a holdings stream that we want started again with a snapshot.
const RESYNC: u32 = 1;
/// Code on a portion of holdings that we do not want: the peer should tell everything.
const WANTS_ALL: u32 = 2;
/// Pause before a holdings stream is opened again.
const RESYNC_PAUSE: Duration = Duration::from_millis(500);

/// Reads the peer's one-way streams: a later one with holdings replaces the earlier, a standing is read at once.
pub(super) async fn accept_one_way(shared: Arc<Shared>, link: Arc<Link>) {
    let limits = &shared.config.limits;
    let rates = Arc::new(Rates {
        messages: Bucket::new(HOLDINGS_PER_SECOND, HOLDINGS_BURST),
        entries: Bucket::new(limits.holdings_per_second, limits.holdings_burst),
    });
    // Dropping the set ends what runs in it.
    let mut holdings = JoinSet::new();
    while let Ok(mut recv) = link.conn.accept_uni().await {
        match timeout(HOLDINGS_TIMEOUT, recv.read_u8()).await {
            Ok(Ok(UNI_HOLDINGS)) => {
                holdings.shutdown().await;
                let (shared, link) = (Arc::clone(&shared), Arc::clone(&link));
                holdings.spawn(follow_holdings(shared, link, recv, Arc::clone(&rates)));
            }
            Ok(Ok(UNI_PORTION)) if shared.takes_portions(&link) => {
                holdings.shutdown().await;
                let (shared, link) = (Arc::clone(&shared), Arc::clone(&link));
                holdings.spawn(follow_portion(shared, link, recv, Arc::clone(&rates)));
            }
            Ok(Ok(UNI_STANDING)) => {
                let flood = (!rates.messages.take()).then(|| "flood of standings".to_owned());
                let read = match flood {
                    None => crate::site::read_standing(&shared, &link, &mut recv).await,
                    Some(flood) => Err(flood),
                };
                if let Err(reason) = read {
                    shared.blame(&link.peer, Fault::ProtocolViolation, Some(&reason));
                    return;
                }
            }
            // Kinds this version does not know, and streams that ended, are nothing to complain about.
            _ => {
                let _ = recv.stop(VarInt::from_u32(0));
            }
        }
    }
}

/// Reads one stream of holdings to its end.
async fn follow_holdings(
    shared: Arc<Shared>,
    link: Arc<Link>,
    mut recv: RecvStream,
    rates: Arc<Rates>,
) {
    let end = read_holdings(&shared, &link, &mut recv, &rates, false).await;
    ended(&shared, &link, &mut recv, end).await;
}

/// The same for a portion, unless it is of no use here.
async fn follow_portion(
    shared: Arc<Shared>,
    link: Arc<Link>,
    mut recv: RecvStream,
    rates: Arc<Rates>,
) {
    let Ok(Ok(theirs)) = timeout(HOLDINGS_TIMEOUT, recv.read_u16()).await else {
        return;
    };
    // Who tells portions all the same after it was asked for everything has told what it wants to tell.
    let part = !link.asked_all.load(Ordering::Relaxed);
    let end = tokio::select! {
        end = read_holdings(&shared, &link, &mut recv, &rates, part) => end,
        () = no_use(&shared, usize::from(theirs)), if part => {
            link.asked_all.store(true, Ordering::Relaxed);
            Err(HoldingsEnd::WantsAll)
        }
    };
    ended(&shared, &link, &mut recv, end).await;
}

/// Returns once portions of an agent that saw `theirs` peers turn out to be of no use to this one, which sees others.
async fn no_use(shared: &Shared, theirs: usize) {
    let look = shared.config.limits.portion_look;
    sleep(look).await;
    if shared.spread.accepts_portions_of(theirs) {
        // Later the sender sees others, too; but who sees few wants everything.
        while shared.spread.is_crowd() {
            sleep(look).await;
        }
    }
}

/// What follows from the end of a stream of holdings.
async fn ended(shared: &Shared, link: &Link, recv: &mut RecvStream, end: Result<(), HoldingsEnd>) {
    match end {
        // With no room for it, the stream is left unread rather than asked for again.
        Ok(()) => {}
        Err(HoldingsEnd::NoRoom) => std::future::pending().await,
        Err(HoldingsEnd::Resync) => {
            let _ = recv.stop(VarInt::from_u32(RESYNC));
        }
        Err(HoldingsEnd::WantsAll) => {
            let _ = recv.stop(VarInt::from_u32(WANTS_ALL));
        }
        Err(HoldingsEnd::Bad(reason)) => {
            shared.blame(&link.peer, Fault::ProtocolViolation, Some(&reason));
        }
    }
}

/// How much one peer may announce. Too many messages are an offence, too many entries have to wait.
struct Rates {
    messages: Bucket,
    entries: Bucket,
}

/// Why reading a holdings stream ended before the peer ended it.
enum HoldingsEnd {
    /// A delta without its base: the peer should start again.
    Resync,
    /// A portion will not do.
    WantsAll,
    /// The directory is full: do without this peer's holdings.
    NoRoom,
    Bad(String),
}

async fn read_holdings(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    recv: &mut RecvStream,
    rates: &Rates,
    part: bool,
) -> Result<(), HoldingsEnd> {
    let max = SNAPSHOT_BYTES_MAX.max(DELTA_BYTES_MAX);
    loop {
        // Between messages the stream may rest for ever.
        let Ok(len) = recv.read_u32().await else {
            return Ok(());
        };
        let len = checked_len("holdings", len, max)
            .map_err(|error| HoldingsEnd::Bad(error.to_string()))?;
        if !rates.messages.take() {
            return Err(HoldingsEnd::Bad("flood of holdings".to_owned()));
        }
        let Ok(Ok(body)) = timeout(HOLDINGS_TIMEOUT, read_body(recv, len)).await else {
            return Ok(());
        };
        let (shared, link) = (Arc::clone(shared), Arc::clone(link));
        let applied = tokio::task::spawn_blocking(move || {
            let message =
                Message::decode(&body).map_err(|error| HoldingsEnd::Bad(error.to_string()))?;
            let entries = match &message {
                Message::Snapshot(snapshot) => snapshot.entries().len(),
                Message::Delta(delta) => delta.removed().len() + delta.added().len(),
            };
            shared.take_holdings(&link, &message, part).map(|()| entries).map_err(refused)
        });
        let entries = applied.await.unwrap_or(Err(HoldingsEnd::NoRoom))?;
        sleep(rates.entries.charge(entries)).await;
    }
}

/// What follows from holdings that the directory does not take.
fn refused(error: DirectoryError) -> HoldingsEnd {
    match error {
        DirectoryError::NoSnapshot | DirectoryError::WrongBase { .. } => HoldingsEnd::Resync,
        DirectoryError::Full => HoldingsEnd::NoRoom,
        // Entries that are no hashes, or more than anybody has.
        error => HoldingsEnd::Bad(error.to_string()),
    }
}

/// Reads exactly `len` bytes, growing the buffer as they arrive rather than trusting the length.
pub(crate) async fn read_body(recv: &mut RecvStream, len: usize) -> std::io::Result<BytesMut> {
    /// What is set aside before anything has arrived.
    const AHEAD: usize = 256 << 10;
    let mut body = BytesMut::with_capacity(len.min(AHEAD));
    while body.len() < len {
        let missing = len - body.len();
        let mut limited = bytes::BufMut::limit(&mut body, missing);
        if recv.read_buf(&mut limited).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(body)
}

/// Tells the peer what we hold, and then what changes.
pub(super) async fn announce(shared: Arc<Shared>, link: Arc<Link>) {
    let serve = Arc::clone(&shared.serve);
    let audience = link.membership;
    let Ok(Some(feed)) = tokio::task::spawn_blocking(move || serve.holdings(audience)).await else {
        return;
    };
    if shared.takes_portions(&link) {
        shared.spread.set_feed(&feed);
        shared.gathered().await;
    }
    while link.conn.close_reason().is_none() {
        let Ok(mut send) = link.conn.open_uni().await else {
            return;
        };
        match push(&shared, &link, &feed, &mut send).await {
            End::Moved => {
                // The other kind of stream, at once.
                let _ = send.finish();
                continue;
            }
            End::Stopped(WANTS_ALL) => link.wants_all.store(true, Ordering::Relaxed),
            End::Stopped(_) | End::Broken => {}
        }
        // The peer lost track (or the stream broke): begin again with a snapshot.
        sleep(RESYNC_PAUSE).await;
    }
}

/// Why no more is pushed on a stream.
enum End {
    /// The peer stopped it, with this code.
    Stopped(u32),
    /// It is told everything from now on, or only a portion, and was not before.
    Moved,
    Broken,
}

/// What a peer knows from one stream.
enum Knows {
    /// Everything, at this version.
    Whole(Option<Version>),
    /// A portion.
    Part(Told),
}

impl Knows {
    /// The next message as bytes, if it has to hear something; `Err` if this is no longer the kind of stream for it.
    fn next(&mut self, feed: &HoldingsFeed, portion: &Portion) -> Result<Option<Vec<u8>>, End> {
        match (self, portion) {
            (Self::Whole(known), Portion::Whole) => {
                let (version, update) = feed.since(*known);
                let bytes = match update {
                    Update::Nothing => return Ok(None),
                    Update::Delta(delta) => delta.encode(),
                    Update::Snapshot(snapshot) => snapshot.encode(),
                };
                *known = Some(version);
                Ok(Some(bytes))
            }
            (Self::Part(told), Portion::Part(stretch)) => {
                Ok(feed.next(told, stretch).map(|message| message.encode()))
            }
            _ => Err(End::Moved),
        }
    }
}

/// Pushes a snapshot and deltas until the stream ends.
async fn push(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    feed: &Arc<HoldingsFeed>,
    send: &mut SendStream,
) -> End {
    match pushing(shared, link, feed, send).await {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

async fn pushing(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    feed: &Arc<HoldingsFeed>,
    send: &mut SendStream,
) -> Result<Infallible, End> {
    let mut changed = feed.subscribe();
    let mut moved = shared.spread.moved();
    let mut portion = shared.portion(link);
    let mut knows = match portion {
        Portion::Whole => {
            send.write_all(&[UNI_HOLDINGS]).await.map_err(|_| End::Broken)?;
            Knows::Whole(None)
        }
        Portion::Part(_) => {
            let peers = u16::try_from(shared.spread.peers()).unwrap_or(u16::MAX).to_be_bytes();
            let head = [UNI_PORTION, peers[0], peers[1]];
            send.write_all(&head).await.map_err(|_| End::Broken)?;
            Knows::Part(Told::nothing(feed.version()))
        }
    };
    loop {
        changed.mark_unchanged();
        let source = Arc::clone(feed);
        let made = tokio::task::spawn_blocking(move || {
            let bytes = knows.next(&source, &portion);
            (knows, bytes)
        });
        let bytes;
        (knows, bytes) = made.await.map_err(|_| End::Broken)?;
        if let Some(bytes) = bytes? {
            write_message(send, bytes).await.ok_or(End::Broken)?;
        }
        tokio::select! {
            more = changed.changed() => more.map_err(|_| End::Broken)?,
            more = moved.changed() => more.map_err(|_| End::Broken)?,
            // The peer stopped the stream: it wants a snapshot.
            stopped = send.stopped() => return Err(match stopped {
                Ok(Some(code)) => End::Stopped(u32::try_from(code.into_inner()).unwrap_or(RESYNC)),
                _ => End::Broken,
            }),
        }
        sleep(gather(shared.links().len())).await;
        moved.mark_unchanged();
        portion = shared.portion(link);
    }
}

/// Writes one message, if the peer takes it in time.
async fn write_message(send: &mut SendStream, bytes: Vec<u8>) -> Option<()> {
    let started = Instant::now();
    let len = u32::try_from(bytes.len()).ok()?.to_be_bytes();
    timeout(HOLDINGS_TIMEOUT, async {
        send.write_all(&len).await?;
        send.write_chunk(bytes.into()).await
    })
    .await
    .ok()?
    .ok()?;
    tracing::trace!(took = ?started.elapsed(), "holdings sent");
    Some(())
}
