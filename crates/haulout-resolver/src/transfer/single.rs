//! A large NAR from one source at a time, without a tree: the hash of the
//! whole decides at the end. A source that fails is replaced at the same
//! offset.

use std::sync::Arc;

use haulout_mesh::NarKey;
use haulout_swarm::{Fault, PeerId};

use super::Shared;
use super::feed::{Feed, FeedError};
use super::gate::GROUP;
use super::ring::{CutReason, Ring};
use super::roster::Roster;
use super::sink::Sink;

/// Fetches the whole NAR.
pub(crate) async fn run(
    shared: &Shared,
    key: NarKey,
    roster: &mut Roster,
    ring: Arc<Ring>,
) -> Result<Option<haulout_mesh::NarTree>, CutReason> {
    let mut sink = Sink::new(ring, key, 0);
    let mut suppliers: Vec<PeerId> = Vec::new();
    while !sink.is_full() {
        let Some(peer) = roster.best().await else { return Err(CutReason::NoSource) };
        if sink.at() > 0 {
            shared.stats.replaced.one();
        }
        roster.using(peer);
        let before = sink.at();
        let result = continue_from(shared, key, peer, &mut sink).await;
        if sink.at() > before && !suppliers.contains(&peer) {
            suppliers.push(peer);
        }
        if let Err(error) = result {
            roster.failed(peer, &error);
        }
    }
    match sink.finish().await {
        Err(CutReason::WrongHash) => {
            // With one supplier it is clear who lied. With several, none of
            // them may continue this NAR, but only one of them is at fault.
            match suppliers.as_slice() {
                [liar] => shared.liar(*liar, key, Fault::WrongContent),
                several => several.iter().for_each(|peer| shared.distrust.add(*peer, key.nar_hash)),
            }
            Err(CutReason::WrongHash)
        }
        other => other,
    }
}

async fn continue_from(
    shared: &Shared,
    key: NarKey,
    peer: PeerId,
    sink: &mut Sink,
) -> Result<(), FeedError> {
    debug_assert!(sink.at().is_multiple_of(GROUP));
    let mut feed = Feed::open(&*shared.peers, peer, key, sink.at()..key.nar_size, None).await?;
    while let Some(good) = feed.next().await? {
        for checked in good {
            shared.stats.bytes_in.add(checked.bytes.len() as u64);
            sink.take(checked).await;
        }
    }
    Ok(())
}
