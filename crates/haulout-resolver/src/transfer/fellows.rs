//! A NAR that other machines fetch at the same time: from them and the holders, each piece once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use haulout_mesh::{NarKey, NarTree};
use tokio::time::timeout;

use super::Shared;
use super::gate::Gate;
use super::hash::WholeHash;
use super::outside::NarBytes;
use super::sink::Sink;

/// How long nothing may come. The pieces have their own, shorter clocks; this is for what is wrong with them.
const STALL: Duration = Duration::from_secs(15);
/// Times that bytes may prove wrong before the holders are asked alone. Each time another peer is left out.
const WRONG_MAX: usize = 4;

/// Those that fetch at the same time.
pub(crate) trait NarFellows: Send + Sync {
    /// The NAR's bytes from `from` on, unverified; `None` if nobody else fetches now, or it is not worth it.
    fn open(&self, key: NarKey, from: u64) -> Option<NarBytes>;

    /// What came at this offset does not fit the tree, or (a small NAR) the hash.
    fn wrong(&self, key: NarKey, offset: u64);

    /// The whole NAR has its hash: what did not fit was wrong.
    fn confirmed(&self, key: NarKey);
}

/// A small NAR, whole and with the right hash; `None` if it is to be had of a holder.
pub(crate) async fn small(shared: &Shared, key: NarKey) -> Option<Vec<Bytes>> {
    let fellows = shared.fellows.get()?;
    let mut bytes = fellows.open(key, 0)?;
    let (mut pieces, mut hash, mut total) = (Vec::new(), WholeHash::new(), 0);
    while let Ok(Some(piece)) = timeout(STALL, bytes.next()).await {
        let piece = piece.ok()?;
        total += piece.len() as u64;
        if total > key.nar_size {
            return None;
        }
        hash.feed(piece.clone()).await;
        pieces.push(piece);
    }
    if total < key.nar_size {
        return None;
    }
    if hash.finish().await.as_ref() == Some(key.nar_hash.as_bytes()) {
        return Some(pieces);
    }
    shared.reasons.note(&key.path, "a fellow gave wrong bytes".to_owned());
    fellows.wrong(key, 0);
    None
}

/// Fills the sink as far as fellows and holders bring it. What is missing then is to be had of the holders alone.
pub(crate) async fn fill(shared: &Shared, key: NarKey, tree: &Arc<NarTree>, sink: &mut Sink) {
    let Some(fellows) = shared.fellows.get() else { return };
    for _ in 0..WRONG_MAX {
        let Some(mut bytes) = fellows.open(key, sink.at()) else { return };
        let mut gate = Gate::new(sink.at(), key.nar_size, Some(Arc::clone(tree)));
        loop {
            let piece = match timeout(STALL, bytes.next()).await {
                Ok(Some(Ok(piece))) => piece,
                Ok(None) => return,
                Ok(Some(Err(why))) => {
                    shared.reasons.note(&key.path, format!("NAR from fellow fetchers: {why}"));
                    return;
                }
                Err(_) => {
                    shared.reasons.note(&key.path, "fellow fetchers went silent".to_owned());
                    return;
                }
            };
            let Ok(good) = gate.push(piece) else { break };
            for checked in good {
                sink.take(checked).await;
            }
        }
        shared.reasons.note(&key.path, "a fellow gave wrong bytes".to_owned());
        shared.stats.replaced.one();
        // Nothing of the piece that did not pass went on; its first group begins where the sink stands, or later.
        fellows.wrong(key, gate.at());
    }
}
