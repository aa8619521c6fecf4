//! Small NARs: fetched whole, hashed, then delivered. Whatever goes wrong,
//! Nix never sees it.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use haulout_mesh::NarKey;
use haulout_swarm::{Fault, PeerId};
use tokio::time::{Instant, sleep_until, timeout};

use super::Shared;
use super::feed::{FeedError, PACE_AFTER, PACE_MIN, STALL};
use super::gate::GateError;
use super::hash::WholeHash;
use super::ring::{CutReason, Ring};
use super::roster::Roster;
use crate::peers::PeerError;

/// NARs up to this size are held whole before they are delivered, in bytes.
/// At 1 Gbit/s that is 9 ms.
pub(crate) const SMALL_MAX: u64 = 1 << 20;
/// Questions for one small NAR at most, repeated ones included.
const TRIES_MAX: usize = 24;

/// Fetches, checks and delivers a small NAR.
pub(crate) async fn run(
    shared: &Shared,
    key: NarKey,
    roster: &mut Roster,
    ring: &Ring,
) -> Result<(), CutReason> {
    for piece in fetch_whole(shared, key, roster).await? {
        ring.push(piece).await;
    }
    Ok(())
}

/// Fetches a small NAR from those that hold it and checks it.
pub(crate) async fn fetch_whole(
    shared: &Shared,
    key: NarKey,
    roster: &mut Roster,
) -> Result<Vec<Bytes>, CutReason> {
    let mut tries = 0;
    let mut running = FuturesUnordered::new();
    let mut asked: Vec<PeerId> = Vec::new();
    let hedge = shared.peers.hedge_delay().max(HEDGE_MIN);
    let mut hedge_at = Instant::now() + hedge;
    loop {
        if running.is_empty() {
            let best = roster.best().await;
            let Some(best) = best.filter(|_| tries < TRIES_MAX) else {
                return Err(CutReason::NoSource);
            };
            tries += 1;
            asked.push(best);
            roster.using(best);
            running.push(fetch(shared, best, key));
            hedge_at = Instant::now() + hedge;
        }
        tokio::select! {
            biased;
            Some((peer, result)) = running.next() => match result {
                Ok(chunks) => {
                    shared.took(key.nar_size).await;
                    return Ok(chunks);
                }
                Err(Failure::Hash) => {
                    shared.convict(peer, key, Fault::WrongContent);
                    asked.retain(|other| *other != peer);
                }
                Err(Failure::Feed(error)) => {
                    roster.failed(peer, &error);
                    asked.retain(|other| *other != peer);
                }
            },
            () = sleep_until(hedge_at), if running.len() < 2 => {
                hedge_at = Instant::now() + 10 * hedge;
                let other = roster.usable().into_iter().find(|peer| !asked.contains(peer));
                if let Some(other) = other.filter(|_| tries < TRIES_MAX) {
                    tries += 1;
                    shared.stats.hedged.one();
                    asked.push(other);
                    roster.using(other);
                    running.push(fetch(shared, other, key));
                }
            }
        }
    }
}

/// A small NAR is a megabyte at most; a good source has delivered it after
/// this, and asking a second one costs little.
const HEDGE_MIN: std::time::Duration = std::time::Duration::from_millis(100);

enum Failure {
    Hash,
    Feed(FeedError),
}

async fn fetch(
    shared: &Shared,
    peer: PeerId,
    key: NarKey,
) -> (PeerId, Result<Vec<Bytes>, Failure>) {
    let result = match collect(shared, peer, key).await {
        Ok(chunks) => {
            let mut hash = WholeHash::new();
            for chunk in &chunks {
                hash.feed(chunk.clone()).await;
            }
            let right = hash.finish().await.as_ref() == Some(key.nar_hash.as_bytes());
            if right { Ok(chunks) } else { Err(Failure::Hash) }
        }
        Err(error) => Err(Failure::Feed(error)),
    };
    (peer, result)
}

/// All chunks of the NAR, exactly its size.
async fn collect(shared: &Shared, peer: PeerId, key: NarKey) -> Result<Vec<Bytes>, FeedError> {
    let begun = Instant::now();
    let answer = timeout(STALL, shared.peers.nar_range(peer, key, 0..key.nar_size)).await;
    let mut stream = answer.unwrap_or(Err(PeerError::Silent)).map_err(FeedError::Peer)?;
    let mut chunks = Vec::new();
    let mut crumbs = BytesMut::new();
    let mut total = 0;
    loop {
        let answer = timeout(STALL, stream.next()).await;
        let Some(bytes) = answer.unwrap_or(Err(PeerError::Silent)).map_err(FeedError::Peer)? else {
            break;
        };
        total += bytes.len() as u64;
        if total > key.nar_size {
            return Err(FeedError::Gate(GateError::TooMany));
        }
        if begun.elapsed() > PACE_AFTER && total < PACE_MIN * begun.elapsed().as_secs() {
            return Err(FeedError::Slow);
        }
        // A peer that sends single bytes must not make us keep a list of them.
        if bytes.len() < CRUMB {
            crumbs.extend_from_slice(&bytes);
        } else {
            if !crumbs.is_empty() {
                chunks.push(crumbs.split().freeze());
            }
            chunks.push(bytes);
        }
    }
    if !crumbs.is_empty() {
        chunks.push(crumbs.freeze());
    }
    if total == key.nar_size { Ok(chunks) } else { Err(FeedError::Gate(GateError::TooFew)) }
}

/// Chunks below this size are joined, in bytes.
const CRUMB: usize = 16 << 10;
