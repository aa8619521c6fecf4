//! NARs that nobody here has: from outside the site.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use haulout_mesh::{NarKey, NarTree};
use tokio::time::timeout;

use super::Shared;
use super::gate::{Checked, Gate};
use super::hash::WholeHash;
use super::ring::{CutReason, Ring};
use super::sink::Sink;
use crate::peers::Answer;

/// How long a NAR from outside may stand still. Its source has its own,
/// shorter clocks; this is for what is wrong with them.
const STALL: Duration = Duration::from_secs(30);
/// How often a NAR from outside is begun: the second time because the first
/// was wrong or broke off.
const TRIES: usize = 2;

/// The bytes of a NAR, from its start.
pub type NarBytes = BoxStream<'static, Result<Bytes, String>>;

/// Where NARs come from that no peer has.
pub(crate) trait NarOutside: Send + Sync {
    /// Whether there is any such place.
    fn is_there(&self) -> bool;

    /// Opens a NAR: exactly its size, or an error at the end. Unverified.
    fn open(&self, key: NarKey) -> Answer<Option<NarBytes>>;

    /// What [`NarOutside::open`] gave does not have the hash.
    fn wrong(&self, key: NarKey);
}

/// A small NAR: whole and verified before it goes on.
pub(crate) async fn small(shared: &Shared, key: NarKey, ring: &Ring) -> Result<(), CutReason> {
    let outside = shared.outside.get().ok_or(CutReason::NoSource)?;
    for _ in 0..TRIES {
        let Some(mut bytes) = outside.open(key).await else { break };
        let (mut pieces, mut hash, mut total) = (Vec::new(), WholeHash::new(), 0);
        while let Some(piece) = next(shared, key, &mut bytes).await {
            total += piece.len() as u64;
            hash.feed(piece.clone()).await;
            pieces.push(piece);
        }
        if total != key.nar_size {
            continue;
        }
        if hash.finish().await.as_ref() == Some(key.nar_hash.as_bytes()) {
            for piece in pieces {
                ring.push(piece).await;
            }
            shared.stats.nar_outside.one();
            return Ok(());
        }
        shared.reasons.note(&key.path, "a NAR from outside has not the promised hash".to_owned());
        outside.wrong(key);
    }
    Err(CutReason::NoSource)
}

/// Fills what `sink` still lacks. Bytes before that are fetched again and
/// dropped: what went out already is part of the hash that is confirmed at the
/// end.
pub(crate) async fn fill(
    shared: &Shared,
    key: NarKey,
    tree: Option<&Arc<NarTree>>,
    sink: &mut Sink,
) -> Result<(), CutReason> {
    let outside = shared.outside.get().ok_or(CutReason::NoSource)?;
    for _ in 0..TRIES {
        let Some(mut bytes) = outside.open(key).await else { break };
        let mut gate = Gate::new(0, key.nar_size, tree.cloned());
        while let Some(piece) = next(shared, key, &mut bytes).await {
            let Ok(good) = gate.push(piece) else { break };
            for checked in good {
                keep(sink, checked).await;
            }
        }
        if sink.is_full() {
            shared.stats.nar_outside.one();
            return Ok(());
        }
    }
    Err(CutReason::NoSource)
}

async fn keep(sink: &mut Sink, checked: Checked) {
    let end = checked.offset + checked.bytes.len() as u64;
    if end > sink.at() {
        sink.take(checked.from(sink.at())).await;
    }
}

/// The next piece; `None` at the end, good or bad.
async fn next(shared: &Shared, key: NarKey, bytes: &mut NarBytes) -> Option<Bytes> {
    match timeout(STALL, bytes.next()).await {
        Ok(Some(Ok(piece))) => Some(piece),
        Ok(None) => None,
        Ok(Some(Err(why))) => {
            shared.reasons.note(&key.path, format!("NAR from outside: {why}"));
            None
        }
        Err(_) => {
            shared.reasons.note(&key.path, "NAR from outside: nothing came".to_owned());
            None
        }
    }
}
