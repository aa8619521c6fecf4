//! A NAR's bytes as one stream from somewhere that is not a single peer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use haulout_mesh::{NarKey, NarTree};
use tokio::time::timeout;

use super::Shared;
use super::gate::{Checked, Gate};
use super::hash::WholeHash;
use super::outside::NarBytes;
use super::sink::Sink;

/// Where a stream comes from, for people, and how long it may stand still: its source has its own, shorter clocks; this is for
/// what is wrong with them.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) name: &'static str,
    pub(super) stall: Duration,
}

/// One of them, under way.
pub(super) struct Flow<'a> {
    shared: &'a Shared,
    key: NarKey,
    place: Place,
    bytes: NarBytes,
}

/// What came of a small NAR.
pub(super) enum Whole {
    /// It has its hash.
    Right(Vec<Bytes>),
    /// It is as long as it should be, and something else.
    Wrong,
    /// Not all of it came, or too much.
    Broken,
}

/// How far a large NAR came.
pub(super) enum Through {
    /// The stream ended, well or not.
    Ended,
    /// Bytes of the group at this offset do not fit the tree. Nothing of it went on.
    Wrong(u64),
}

impl<'a> Flow<'a> {
    pub(super) fn new(shared: &'a Shared, key: NarKey, place: Place, bytes: NarBytes) -> Self {
        Self { shared, key, place, bytes }
    }

    /// The next piece; `None` at the end, good or bad.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        let why = match timeout(self.place.stall, self.bytes.next()).await {
            Ok(Some(Ok(piece))) => return Some(piece),
            Ok(None) => return None,
            Ok(Some(Err(why))) => why,
            Err(_) => "nothing came".to_owned(),
        };
        self.shared.reasons.note(&self.key.path, format!("NAR from {}: {why}", self.place.name));
        None
    }

    /// All of a small NAR.
    pub(super) async fn whole(mut self) -> Whole {
        let (mut pieces, mut hash, mut total) = (Vec::new(), WholeHash::new(), 0);
        while let Some(piece) = self.next().await {
            total += piece.len() as u64;
            if total > self.key.nar_size {
                return Whole::Broken;
            }
            hash.feed(piece.clone()).await;
            pieces.push(piece);
        }
        if total < self.key.nar_size {
            return Whole::Broken;
        }
        if hash.finish().await.as_ref() == Some(self.key.nar_hash.as_bytes()) {
            return Whole::Right(pieces);
        }
        let note = format!("NAR from {}: it has not the promised hash", self.place.name);
        self.shared.reasons.note(&self.key.path, note);
        Whole::Wrong
    }

    /// Puts a large NAR that begins at byte `from` into the sink; what is there already is dropped.
    pub(super) async fn through(
        mut self,
        from: u64,
        tree: Option<&Arc<NarTree>>,
        sink: &mut Sink,
    ) -> Through {
        let mut gate = Gate::new(from, self.key.nar_size, tree.cloned());
        while let Some(piece) = self.next().await {
            let Ok(good) = gate.push(piece) else {
                let note = format!("NAR from {}: wrong bytes", self.place.name);
                self.shared.reasons.note(&self.key.path, note);
                return Through::Wrong(gate.at());
            };
            for checked in good {
                keep(sink, checked).await;
            }
        }
        Through::Ended
    }
}

async fn keep(sink: &mut Sink, checked: Checked) {
    let end = checked.offset + checked.bytes.len() as u64;
    if end > sink.at() {
        sink.take(checked.from(sink.at())).await;
    }
}
