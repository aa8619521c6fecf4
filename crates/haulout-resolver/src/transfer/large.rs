//! Which way a large NAR is fetched.
//!
//! Homes keep the file it came in, or others fetch it, too: from there and together with them. One source: without a tree, the hash of the whole at the end says as much.
//! Several: with the tree they agree on, all at once. They disagree: aside,
//! until it is clear who lies. When further sources appear under way, one
//! source becomes several.

use std::sync::Arc;

use haulout_mesh::{NarKey, NarTree};
use haulout_swarm::Fault;

use super::claims::{self, Claim};
use super::multi::{Multi, Sources};
use super::ring::{CutReason, Ring};
use super::roster::Roster;
use super::single::{self, Single};
use super::sink::{Out, Sink};
use super::{Shared, dispute, fellows, holders, outside};

/// Several sources are used for what is larger than this, in bytes. Below,
/// one is done before a second one has said where it stands.
pub(crate) const MULTI_MIN: u64 = 4 << 20;

/// Fetches a large NAR into the ring. `memory` bytes are the transfer's to
/// use, half of them in the ring. Gives the proven tree.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    key: NarKey,
    start: u64,
    proven: Option<Arc<NarTree>>,
    roster: &mut Roster,
    ring: Arc<Ring>,
    memory: u64,
) -> Result<Option<NarTree>, CutReason> {
    let window = memory / 2;
    let mut sink = Sink::new(Out::Ring(Arc::clone(&ring)), key, start);
    if let Some(tree) = proven {
        let sources = (Arc::clone(&tree), Sources::Anybody);
        let done = Multi::new(shared, key, sources, roster, &mut sink, window).run().await;
        or_outside(shared, key, Some(&tree), &mut sink, done).await?;
        return sink.finish().await;
    }
    if let Some((claim, file_fits)) = together(shared, key, roster, &mut sink).await {
        let done = agreed(shared, key, claim, roster, sink, window, &mut Single::default()).await;
        if let (Ok(_), false, Some(outside)) = (&done, file_fits, shared.outside.get()) {
            // So it was not the tree.
            outside.kept_was_wrong(key);
        }
        if let (Ok(_), Some(fellows)) = (&done, shared.fellows.get()) {
            fellows.confirmed(key);
        }
        return done;
    }
    let holders = roster.usable();
    let mut single = Single::default();
    if holders.len() > 1 && key.nar_size > MULTI_MIN {
        single.asked.clone_from(&holders);
        let claims = claims::gather(shared, key, &holders).await;
        if claims.len() > 1 && key.nar_size <= dispute::SPOOL_BYTES {
            return dispute::settle(shared, key, claims, roster, &ring, window).await.map(Some);
        }
        if let Some(claim) = claims.into_iter().next() {
            return agreed(shared, key, claim, roster, sink, window, &mut single).await;
        }
    }
    loop {
        let done = single.run(shared, key, roster, &mut sink).await;
        if done == Err(CutReason::NoSource) {
            let from_peers = sink.at() > 0;
            outside::fill(shared, key, None, &mut sink).await?;
            let finished = single.finish(shared, key, sink).await;
            if finished == Err(CutReason::WrongHash)
                && !from_peers
                && let Some(outside) = shared.outside.get()
            {
                outside.wrong(key);
            }
            return finished;
        }
        match done? {
            single::Until::Full => return single.finish(shared, key, sink).await,
            // More peers have it now. If they vouch for what is here
            // already, they may go on together.
            single::Until::MoreSources => {
                let holders = roster.usable();
                single.asked.extend(&holders);
                let claims = claims::gather(shared, key, &holders).await;
                let fits = claims.into_iter().find(|claim| sink.agrees_with(&claim.tree));
                if let Some(claim) = fits.filter(|claim| claim.by.len() > 1) {
                    return agreed(shared, key, claim, roster, sink, window, &mut single).await;
                }
            }
        }
    }
}

/// From the homes of its file, and with machines that fetch it at the same time, as far as that goes. Gives what the holders
/// promised, and whether the file fits that; `None`: there is neither, or the holders do not agree.
async fn together(
    shared: &Arc<Shared>,
    key: NarKey,
    roster: &Roster,
    sink: &mut Sink,
) -> Option<(Claim, bool)> {
    let kept = shared.outside.get().and_then(|outside| outside.kept(key));
    let fellows = || shared.fellows.get().and_then(|fellows| fellows.open(key, 0)).is_some();
    if kept.is_none() && !fellows() {
        return None;
    }
    let claim = holders::promise(shared, key).await?;
    for peer in &claim.by {
        roster.using(*peer);
    }
    let file_fits = match kept {
        Some(kept) => outside::fill_kept(shared, key, kept, &claim.tree, sink).await,
        None => true,
    };
    fellows::fill(shared, key, &claim.tree, sink).await;
    Some((claim, file_fits))
}

/// When no peer can go on, the outside may.
async fn or_outside(
    shared: &Shared,
    key: NarKey,
    tree: Option<&Arc<NarTree>>,
    sink: &mut Sink,
    done: Result<(), CutReason>,
) -> Result<(), CutReason> {
    match done {
        Err(CutReason::NoSource) => outside::fill(shared, key, tree, sink).await,
        done => done,
    }
}

/// Everybody in `claim` promised the same.
async fn agreed(
    shared: &Arc<Shared>,
    key: NarKey,
    claim: Claim,
    roster: &mut Roster,
    mut sink: Sink,
    window: u64,
    single: &mut Single,
) -> Result<Option<NarTree>, CutReason> {
    let sources = Sources::Promised(claim.by.clone());
    let sources = (Arc::clone(&claim.tree), sources);
    let done = Multi::new(shared, key, sources, roster, &mut sink, window).run().await;
    or_outside(shared, key, None, &mut sink, done).await?;
    let finished = sink.finish().await;
    if finished == Err(CutReason::WrongHash) {
        // All bytes fit the tree and the tree is not the NAR's: whoever
        // promised it lied, together with whoever gave the first bytes.
        for peer in &claim.by {
            shared.convict(*peer, key, Fault::WrongContent);
        }
        single.distrust(shared, key);
    }
    finished
}
