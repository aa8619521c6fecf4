//! A NAR that other machines fetch at the same time: from them and the holders, each piece once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use haulout_mesh::{NarKey, NarTree};

use super::Shared;
use super::flow::{Flow, Place, Through, Whole};
use super::outside::NarBytes;
use super::sink::Sink;

const FELLOWS: Place = Place { name: "fellow fetchers", stall: Duration::from_secs(15) };
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
    match Flow::new(shared, key, FELLOWS, fellows.open(key, 0)?).whole().await {
        Whole::Right(pieces) => Some(pieces),
        Whole::Wrong => {
            fellows.wrong(key, 0);
            None
        }
        Whole::Broken => None,
    }
}

/// Fills the sink as far as fellows and holders bring it. What is missing then is to be had of the holders alone.
pub(crate) async fn fill(shared: &Shared, key: NarKey, tree: &Arc<NarTree>, sink: &mut Sink) {
    let Some(fellows) = shared.fellows.get() else { return };
    for _ in 0..WRONG_MAX {
        if sink.is_full() {
            return;
        }
        let from = sink.at();
        let Some(bytes) = fellows.open(key, from) else { return };
        match Flow::new(shared, key, FELLOWS, bytes).through(from, Some(tree), sink).await {
            Through::Ended => return,
            // Its first group begins where the sink stands, or later.
            Through::Wrong(at) => {
                shared.stats.replaced.one();
                fellows.wrong(key, at);
            }
        }
    }
}
