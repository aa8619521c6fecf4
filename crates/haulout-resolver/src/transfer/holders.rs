//! A part of a NAR from those that hold it, checked before it is handed on: for machines that fetch it at the same time.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, Shared as SharedFuture};
use futures_util::stream::{self, BoxStream, StreamExt};
use haulout_mesh::NarKey;
use haulout_swarm::PeerId;
use haulout_swarm::site::NAR_SEGMENT_BYTES;

use super::Shared;
use super::claims::{self, Claim};
use super::feed::Feed;
use super::gate::{Checked, GROUP};
use super::roster::Roster;
use super::small::{self, SMALL_MAX};

/// Holders asked for a NAR's tree: two that disagree are enough to do without fellows.
const ASKED: usize = 3;
/// What remembered promises may take, in bytes: of the NARs that Nix fetches side by side, and of many that it has fetched.
pub(crate) const PROMISES_BYTES: usize = 8 << 20;
/// Failures of holders, in all, before a part is given up. The asker then tries elsewhere.
const FAILURES_MAX: usize = 4;

/// What the holders say a NAR's tree is, once for all parts of it; `None`: nobody does, or they disagree.
pub(crate) type Promise = SharedFuture<BoxFuture<'static, Option<Claim>>>;

/// The tree that the holders of a NAR agree on.
pub(crate) async fn promise(shared: &Arc<Shared>, key: NarKey) -> Option<Claim> {
    if let Some(promise) = shared.promises.get(&key.nar_hash) {
        return promise.await;
    }
    let asking = Arc::clone(shared);
    let promise = async move {
        let holders = roster(&asking, key).usable();
        let asked = holders.get(..holders.len().min(ASKED)).unwrap_or_default();
        let mut claims = claims::gather(&asking, key, asked).await;
        if claims.len() == 1 { claims.pop() } else { None }
    };
    let promise: Promise = promise.boxed().shared();
    let weight = usize::try_from(key.nar_size.div_ceil(GROUP) * 32).unwrap_or(usize::MAX);
    shared.promises.put(key.nar_hash, promise.clone(), weight);
    let claim = promise.await;
    if claim.is_none() {
        // The next one asks again.
        shared.promises.remove(&key.nar_hash);
    }
    claim
}

fn roster(shared: &Arc<Shared>, key: NarKey) -> Roster {
    Roster::new(Arc::clone(shared), key, None, Arc::default())
}

/// The bytes of `range` of a NAR.
///
/// # Errors
/// When no holder can be asked. The stream ends with an error when none is left.
pub(crate) async fn range(
    shared: Arc<Shared>,
    key: NarKey,
    range: Range<u64>,
) -> Result<BoxStream<'static, Result<Bytes, String>>, String> {
    if key.nar_size <= SMALL_MAX {
        let mut roster = roster(&shared, key);
        let pieces = small::fetch_whole(&shared, key, &mut roster).await;
        let pieces = pieces.map_err(|why| why.to_string())?;
        return Ok(stream::iter(cut(pieces, range.start)).map(Ok).boxed());
    }
    let promised = promise(&shared, key).await;
    let claim = promised.ok_or("those that hold it promise no tree, or different ones")?;
    let roster = roster(&shared, key);
    // Whole groups only can be checked.
    let part = Part {
        shared,
        key,
        claim,
        roster,
        skip: range.start % GROUP,
        at: range.start - range.start % GROUP,
        end: range.end,
        running: None,
        ready: VecDeque::new(),
        failures: 0,
    };
    Ok(stream::unfold(part, |mut part| async {
        let piece = part.next().await?;
        Some((piece, part))
    })
    .boxed())
}

/// The pieces without the first `skip` bytes.
fn cut(pieces: Vec<Bytes>, mut skip: u64) -> Vec<Bytes> {
    let mut rest = Vec::with_capacity(pieces.len());
    for mut piece in pieces {
        let drop = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
        skip -= drop as u64;
        let _ = piece.split_to(drop);
        if !piece.is_empty() {
            rest.push(piece);
        }
    }
    rest
}

/// A part under way: one holder at a time, another one from the same byte on when it fails.
struct Part {
    shared: Arc<Shared>,
    key: NarKey,
    claim: Claim,
    roster: Roster,
    /// Bytes before the first one wanted, of its group.
    skip: u64,
    at: u64,
    end: u64,
    running: Option<(PeerId, Feed)>,
    ready: VecDeque<Checked>,
    failures: usize,
}

impl Part {
    async fn next(&mut self) -> Option<Result<Bytes, String>> {
        loop {
            if let Some(checked) = self.ready.pop_front() {
                self.at = checked.offset + checked.bytes.len() as u64;
                let skip = std::mem::take(&mut self.skip);
                let skip = usize::try_from(skip).unwrap_or(0).min(checked.bytes.len());
                return Some(Ok(checked.bytes.slice(skip..)));
            }
            if self.at >= self.end {
                return None;
            }
            if let Err(error) = self.more().await {
                // The stream is over after this.
                self.at = self.end;
                return Some(Err(error));
            }
        }
    }

    async fn more(&mut self) -> Result<(), String> {
        let (peer, result) = match &mut self.running {
            Some((peer, feed)) => (*peer, feed.next().await),
            None => {
                let peer = self.holder().ok_or("no holder is left")?;
                let tree = Some(Arc::clone(&self.claim.tree));
                let range = self.at..self.end;
                let opened = Feed::open(&*self.shared.peers, peer, self.key, range, tree).await;
                match opened {
                    Ok(feed) => {
                        self.running = Some((peer, feed));
                        return Ok(());
                    }
                    Err(error) => (peer, Err(error)),
                }
            }
        };
        match result {
            Ok(Some(good)) => {
                let bytes: u64 = good.iter().map(|checked| checked.bytes.len() as u64).sum();
                self.shared.took(bytes).await;
                self.ready.extend(good);
                Ok(())
            }
            Ok(None) => {
                self.running = None;
                Ok(())
            }
            Err(error) => {
                self.running = None;
                self.roster.failed(peer, &error);
                self.shared.promises.remove(&self.key.nar_hash);
                self.failures += 1;
                if self.failures < FAILURES_MAX { Ok(()) } else { Err(error.to_string()) }
            }
        }
    }

    /// One of those that promised the tree; each segment begins with another one.
    fn holder(&self) -> Option<PeerId> {
        let usable = self.roster.usable();
        let good: Vec<PeerId> =
            usable.into_iter().filter(|peer| self.claim.by.contains(peer)).collect();
        let turn = usize::try_from(self.at / NAR_SEGMENT_BYTES).unwrap_or(0);
        good.get(turn.checked_rem(good.len())?).copied()
    }
}
