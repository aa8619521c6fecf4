//! What the holders of a NAR say its tree is.
//!
//! A tree is a promise: whoever gave it and then sends bytes that do not fit
//! it has contradicted himself and can be blamed. A peer that gave another
//! tree, or none, cannot: the one we hold may be the lie. So only peers that
//! made the same promise deliver a NAR together.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use haulout_mesh::{NarKey, NarTree};
use haulout_swarm::PeerId;
use tokio::time::{Instant, sleep_until};

use super::Shared;

/// Holders asked for their tree at most.
pub(crate) const HOLDERS_MAX: usize = 6;
/// How long the others are waited for once one tree is here.
pub(crate) const OTHERS_WAIT: Duration = Duration::from_millis(250);
/// How long any tree is waited for. A holder may have to hash the NAR first,
/// from a cold disk; beyond this, one source without a tree is quicker.
pub(crate) const TREE_WAIT: Duration = Duration::from_secs(1);

/// One tree and everybody who promised it.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) tree: Arc<NarTree>,
    pub(crate) by: Vec<PeerId>,
}

/// Asks these holders for the NAR's tree. One claim: they agree. Several:
/// somebody lies, and only the NAR's hash can say who. The most supported
/// comes first.
pub(crate) async fn gather(shared: &Shared, key: NarKey, holders: &[PeerId]) -> Vec<Claim> {
    let mut asked: FuturesUnordered<_> = holders
        .iter()
        .take(HOLDERS_MAX)
        .map(|peer| {
            let (peer, answer) = (*peer, shared.peers.nar_tree(*peer, key));
            async move { (peer, answer.await) }
        })
        .collect();
    let mut claims: Vec<Claim> = Vec::new();
    let mut until = Instant::now() + TREE_WAIT;
    loop {
        tokio::select! {
            biased;
            next = asked.next() => match next {
                None => break,
                Some((peer, Ok(tree))) => {
                    if claims.is_empty() {
                        until = until.min(Instant::now() + OTHERS_WAIT);
                    }
                    add(&mut claims, peer, tree);
                }
                Some((peer, Err(error))) => {
                    shared.reasons.note(&key.path, format!("tree from peer {}: {error}", peer.short()));
                }
            },
            () = sleep_until(until) => break,
        }
    }
    claims.sort_by_key(|claim| std::cmp::Reverse(claim.by.len()));
    claims
}

fn add(claims: &mut Vec<Claim>, peer: PeerId, tree: NarTree) {
    // Groups that merge to the same root are the same groups.
    if let Some(claim) = claims.iter_mut().find(|claim| claim.tree.root == tree.root) {
        claim.by.push(peer);
    } else {
        claims.push(Claim { tree: Arc::new(tree), by: vec![peer] });
    }
}
