//! Asking peers for a path info: the best first, a second one when the first
//! is slow, the next at once when one has nothing or lies.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use haulout_nix::{HashPart, PathInfo};
use haulout_swarm::{Fault, PeerId};
use tokio::time::{Instant, sleep_until};

use super::{AHEAD_MAX, ASK_CAP, ASK_TOTAL, ASKED_MAX, Found, Inner, Question, UNDECLARED_CAP};
use crate::peers::{Patience, PeerError};
use crate::trust::Refusal;

/// Asks until one peer gives a believable answer, or the time is over.
pub(super) async fn ask_peers(inner: &Inner, question: Question) -> Option<Found> {
    let begun = Instant::now();
    let declared = holders(inner, &question.0);
    let mut found = ask_holders(inner, question, &declared).await;
    let mut hinted = !declared.is_empty();
    // Nobody known has it, or only somebody who does not give it; the homes
    // of its entry may know others.
    if found.is_none()
        && begun.elapsed() < ASK_CAP
        && let Some(locate) = inner.peers.locate(&question.0)
    {
        locate.await;
        let mut named = holders(inner, &question.0);
        named.retain(|peer| !declared.contains(peer));
        found = ask_holders(inner, question, &named).await;
        hinted |= !named.is_empty();
    }
    if found.is_none() && !hinted {
        let undeclared = inner.peers.undeclared();
        // Nothing says that any of these has it: ask them all at once.
        let width = undeclared.len().min(ASKED_MAX);
        found = run(inner, question, undeclared, width, Patience::until(UNDECLARED_CAP)).await;
    }
    if found.is_none() {
        inner.misses.put(question.0, question.1);
    }
    found
}

/// Who is known to have the path, the best first.
fn holders(inner: &Inner, hash: &HashPart) -> Vec<PeerId> {
    let mut holders = inner.peers.who_has(hash);
    // Stable: among equals the mesh's ranking stays.
    holders.sort_by_key(|peer| inner.doubts.is_doubted(peer));
    holders
}

async fn ask_holders(inner: &Inner, question: Question, holders: &[PeerId]) -> Option<Found> {
    if holders.is_empty() {
        return None;
    }
    let patience = Patience { silent: ASK_CAP, total: ASK_TOTAL };
    run(inner, question, holders.to_vec(), 1, patience).await
}

async fn run(
    inner: &Inner,
    question: Question,
    candidates: Vec<PeerId>,
    width: usize,
    patience: Patience,
) -> Option<Found> {
    let (silent_at, deadline) = (Instant::now() + patience.silent, Instant::now() + patience.total);
    let mut left = candidates.into_iter().take(ASKED_MAX);
    let mut asked = FuturesUnordered::new();
    let ask = |peer: PeerId| {
        // A little less than we wait ourselves, so that the mesh, which knows
        // whom to call silent, is the one to say so.
        let left = |until: Instant| until.saturating_duration_since(Instant::now()) * 9 / 10;
        let silent = left(silent_at);
        let total = if inner.doubts.is_slow(&peer) { silent } else { left(deadline) };
        let patience = Patience { silent, total };
        let answer = inner.peers.path_infos(peer, question.0, AHEAD_MAX, patience);
        async move { (peer, answer.await) }
    };
    asked.extend(left.by_ref().take(width).map(ask));
    let hedge = inner.peers.hedge_delay();
    let mut hedge_at = Instant::now() + hedge;
    loop {
        tokio::select! {
            biased;
            next = asked.next() => {
                let (peer, answer) = next?;
                if let Some(found) = heard(inner, question, peer, answer) {
                    return Some(found);
                }
                if Instant::now() < silent_at {
                    asked.extend(left.next().map(ask));
                }
            }
            () = sleep_until(hedge_at), if left.len() > 0 && hedge_at < silent_at => {
                inner.stats.hedged.one();
                asked.extend(left.next().map(ask));
                hedge_at += hedge;
            }
            () = sleep_until(deadline) => {
                inner.reasons.note(&question.0, format!("{} peers did not answer in time", asked.len()));
                return None;
            }
        }
    }
}

/// What to make of one peer's answer.
fn heard(
    inner: &Inner,
    (hash, want): Question,
    peer: PeerId,
    answer: Result<Vec<PathInfo>, PeerError>,
) -> Option<Found> {
    let infos = match answer {
        Ok(infos) => {
            inner.doubts.answered(&peer);
            infos
        }
        Err(error) => {
            match error {
                PeerError::Silent => inner.doubts.made_us_wait(peer),
                PeerError::No => inner.doubts.answered(&peer),
                PeerError::Busy | PeerError::Lost | PeerError::Protocol => {}
            }
            inner.reasons.note(&hash, format!("peer {} {error}", peer.short()));
            // A "no" to a question out of the blue is nobody's fault.
            // Nor is one to a question that only others gave reason for.
            let hinted = error != PeerError::No
                || inner.peers.who_has(&hash).contains(&peer)
                    && !inner.peers.is_hearsay(&peer, &hash);
            if let Some(fault) = error.fault().filter(|_| hinted) {
                inner.peers.blame(peer, fault);
            }
            return None;
        }
    };
    let mut infos = infos.into_iter();
    let Some(info) = infos.next() else {
        inner.reasons.note(&hash, format!("peer {} {}", peer.short(), PeerError::No));
        return None;
    };
    if info.path.hash_part() != hash {
        inner.reasons.note(&hash, format!("peer {} answered about another path", peer.short()));
        inner.stats.lies.one();
        inner.peers.blame(peer, Fault::ProtocolViolation);
        return None;
    }
    let found = Found { info: Arc::new(info), from: Some(peer) };
    if !inner.accept(&found) {
        return None;
    }
    for ahead in infos.take(AHEAD_MAX) {
        inner.answers.put_ahead(Found { info: Arc::new(ahead), from: Some(peer) });
    }
    if want.is_some_and(|want| want != found.info.nar_hash) {
        inner.reasons.note(&hash, format!("peer {} has another build of it", peer.short()));
        return None;
    }
    Some(found)
}

/// A genuine info shows that this peer changed it and left the signature.
pub(super) fn expose(inner: &Inner, peer: PeerId, genuine: &PathInfo) {
    inner.reasons.note(
        &genuine.path.hash_part(),
        format!("peer {} gave a genuine signature with altered content", peer.short()),
    );
    inner.stats.lies.one();
    inner.peers.blame(peer, Fault::ForgedSignature);
}

/// Notes why an info is not believed, and blames its sender if it lied.
pub(super) fn refuse(inner: &Inner, found: &Found, refusal: Refusal) {
    let Some(peer) = found.from else { return };
    inner.reasons.note(
        &found.info.path.hash_part(),
        format!("info from peer {} refused: {refusal}", peer.short()),
    );
    let fault = match refusal {
        // An honest peer that trusts other keys than we do, perhaps one of the
        // same name. If it is not honest, a genuine info will show it.
        Refusal::Untrusted | Refusal::NotByOurKey => {
            inner.doubts.refused(peer, &found.info);
            return;
        }
        Refusal::Nonsense => Fault::ProtocolViolation,
    };
    inner.stats.lies.one();
    inner.peers.blame(peer, fault);
}
