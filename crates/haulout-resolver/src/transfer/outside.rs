//! NARs that nobody here has: from outside the site. And those of which the site still keeps the file.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use haulout_mesh::{NarKey, NarTree};

use super::Shared;
use super::flow::{Flow, Place, Through, Whole};
use super::ring::{CutReason, Ring};
use super::sink::Sink;
use crate::peers::Answer;

const OUTSIDE: Place = Place { name: "outside", stall: Duration::from_secs(30) };
const KEPT: Place = Place { name: "what homes keep", stall: Duration::from_secs(15) };
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

    /// The same, from what peers still keep of what came from there for others. Ends with an error where they do not. `None`
    /// if it is not worth asking them.
    fn kept(&self, key: NarKey) -> Option<NarBytes>;

    /// What [`NarOutside::kept`] gave does not fit the tree, or (a small NAR) the hash.
    fn kept_wrong(&self, key: NarKey);

    /// The whole NAR has its hash: what did not fit was wrong.
    fn kept_was_wrong(&self, key: NarKey);

    /// What [`NarOutside::open`] gave does not have the hash.
    fn wrong(&self, key: NarKey);
}

/// A small NAR: whole and verified before it goes on.
pub(crate) async fn small(shared: &Shared, key: NarKey, ring: &Ring) -> Result<(), CutReason> {
    let outside = shared.outside.get().ok_or(CutReason::NoSource)?;
    for _ in 0..TRIES {
        let Some(bytes) = outside.open(key).await else { break };
        match Flow::new(shared, key, OUTSIDE, bytes).whole().await {
            Whole::Right(pieces) => {
                for piece in pieces {
                    ring.push(piece).await;
                }
                shared.stats.nar_outside.one();
                return Ok(());
            }
            Whole::Wrong => outside.wrong(key),
            Whole::Broken => {}
        }
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
        let Some(bytes) = outside.open(key).await else { break };
        Flow::new(shared, key, OUTSIDE, bytes).through(0, tree, sink).await;
        if sink.is_full() {
            shared.stats.nar_outside.one();
            return Ok(());
        }
    }
    Err(CutReason::NoSource)
}

/// A small NAR whose file the homes keep, whole and verified; `None` if it is to be had elsewhere.
pub(crate) async fn small_kept(shared: &Shared, key: NarKey) -> Option<Vec<Bytes>> {
    let outside = shared.outside.get()?;
    match Flow::new(shared, key, KEPT, outside.kept(key)?).whole().await {
        Whole::Right(pieces) => {
            shared.stats.nar_kept_pieces.one();
            Some(pieces)
        }
        Whole::Wrong => {
            outside.kept_wrong(key);
            outside.kept_was_wrong(key);
            None
        }
        Whole::Broken => None,
    }
}

/// Fills the sink, from its start, with what [`NarOutside::kept`] gave. False if what they gave does not fit the tree: one of the two
/// is wrong, and the NAR's hash will tell which.
pub(crate) async fn fill_kept(
    shared: &Shared,
    key: NarKey,
    kept: NarBytes,
    tree: &Arc<NarTree>,
    sink: &mut Sink,
) -> bool {
    match Flow::new(shared, key, KEPT, kept).through(0, Some(tree), sink).await {
        Through::Ended => {
            if sink.is_full() {
                shared.stats.nar_kept_pieces.one();
            }
            true
        }
        Through::Wrong(_) => {
            shared.stats.replaced.one();
            if let Some(outside) = shared.outside.get() {
                outside.kept_wrong(key);
            }
            false
        }
    }
}
