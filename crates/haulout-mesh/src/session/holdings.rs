//! The one-way streams on which both ends say what they hold.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use haulout_swarm::Fault;
use haulout_swarm::directory::DirectoryError;
use haulout_swarm::holdings::{DELTA_BYTES_MAX, Message, SNAPSHOT_BYTES_MAX, Update, gather};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::frames::{UNI_HOLDINGS, UNI_STANDING, checked_len};
use crate::limit::Bucket;
use crate::registry::{Link, Shared};

/// One holdings message must be through within this.
const HOLDINGS_TIMEOUT: Duration = Duration::from_secs(30);
/// Holdings messages a peer may send: ten a second is what [`gather`] and a busy store lead to.
const HOLDINGS_PER_SECOND: u32 = 25;
const HOLDINGS_BURST: u32 = 100;
/// Code on a holdings stream that we want started again with a snapshot.
const RESYNC: u32 = 1;
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
    match read_holdings(&shared, &link, &mut recv, &rates).await {
        // With no room for it, the stream is left unread rather than asked for again.
        Ok(()) => {}
        Err(HoldingsEnd::NoRoom) => std::future::pending().await,
        Err(HoldingsEnd::Resync) => {
            let _ = recv.stop(VarInt::from_u32(RESYNC));
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
    /// The directory is full: do without this peer's holdings.
    NoRoom,
    Bad(String),
}

async fn read_holdings(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    recv: &mut RecvStream,
    rates: &Rates,
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
            shared.take_holdings(&link, &message).map(|()| entries).map_err(refused)
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
    while link.conn.close_reason().is_none() {
        let Ok(mut send) = link.conn.open_uni().await else {
            return;
        };
        if send.write_all(&[UNI_HOLDINGS]).await.is_ok() {
            let _ = push(&shared, &feed, &mut send).await;
        }
        // The peer lost track (or the stream broke): begin again with a snapshot.
        sleep(RESYNC_PAUSE).await;
    }
}

/// Pushes a snapshot and deltas until the stream ends.
async fn push(
    shared: &Shared,
    feed: &Arc<crate::api::HoldingsFeed>,
    send: &mut SendStream,
) -> Option<()> {
    let mut changed = feed.subscribe();
    let mut known = None;
    loop {
        changed.mark_unchanged();
        let source = Arc::clone(feed);
        let (version, bytes) = tokio::task::spawn_blocking(move || {
            let (version, update) = source.since(known);
            let bytes = match update {
                Update::Nothing => None,
                Update::Delta(delta) => Some(delta.encode()),
                Update::Snapshot(snapshot) => Some(snapshot.encode()),
            };
            (version, bytes)
        })
        .await
        .ok()?;
        if let Some(bytes) = bytes {
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
            known = Some(version);
        }
        tokio::select! {
            more = changed.changed() => more.ok()?,
            // The peer stopped the stream: it wants a snapshot.
            _ = send.stopped() => return None,
        }
        sleep(gather(shared.links().len())).await;
    }
}
