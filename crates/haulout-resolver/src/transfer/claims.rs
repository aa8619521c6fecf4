//! What the holders of a NAR say its tree is.
//!
//! A tree is a promise: whoever gave it and then sends bytes that do not fit
//! it has contradicted himself and can be blamed. A peer that gave another
//! tree, or none, cannot: the one we hold may be the lie. So only peers that
//! made the same promise deliver a NAR together.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, Shared as SharedFuture};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use haulout_mesh::{NarKey, NarTree};
use haulout_nix::NarHash;
use haulout_swarm::PeerId;
use lru::LruCache;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};

use super::Shared;
use super::large::MULTI_MIN;
use super::roster::NO_SOURCE_WAIT;

/// Holders asked for their tree at most.
pub(crate) const HOLDERS_MAX: usize = 6;
/// How long the others are waited for once one tree is here.
pub(crate) const OTHERS_WAIT: Duration = Duration::from_millis(250);
/// How long any tree is waited for. A holder may have to hash the NAR first,
/// from a cold disk; beyond this, one source without a tree is quicker.
pub(crate) const TREE_WAIT: Duration = Duration::from_secs(1);

/// How long trees asked for ahead are of use: Nix asks for all narinfos of a
/// closure before the first NAR, and for some NARs much later.
const AHEAD_FOR: Duration = Duration::from_secs(120);
/// NARs whose trees are asked for ahead and remembered. More are asked for and
/// forgotten: then the holders have them at hand.
const AHEAD_MAX: NonZeroUsize = NonZeroUsize::new(16).unwrap();
/// Of how many NARs at a time.
const AHEAD_AT_ONCE: usize = 4;
/// Of how many more later.
const AHEAD_WAITING: usize = 60;
/// The largest NAR that is asked for ahead, in bytes: its tree has 512 KiB.
const AHEAD_SIZE_MAX: u64 = 1 << 30;

/// One tree and everybody who promised it.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) tree: Arc<NarTree>,
    pub(crate) by: Vec<PeerId>,
}

/// Asks these holders for the NAR's tree. One claim: they agree. Several:
/// somebody lies, and only the NAR's hash can say who. The most supported
/// comes first.
///
/// If they were asked ahead, and at least as many answered as there are now,
/// that is the answer.
pub(crate) async fn gather(shared: &Shared, key: NarKey, holders: &[PeerId]) -> Vec<Claim> {
    if let Some(ahead) = shared.ahead.take(&key) {
        let claims = timeout(TREE_WAIT, ahead).await.unwrap_or_default();
        let by = |claim: &Claim| claim.by.iter().filter(|peer| holders.contains(peer)).count();
        if claims.iter().map(by).sum::<usize>() >= holders.len().min(HOLDERS_MAX) {
            return claims;
        }
    }
    ask(shared, key, holders).await
}

async fn ask(shared: &Shared, key: NarKey, holders: &[PeerId]) -> Vec<Claim> {
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

type Answer = SharedFuture<BoxFuture<'static, Vec<Claim>>>;

/// Trees asked for when the narinfo was, so that the holders have computed
/// them when the NAR is.
pub(crate) struct Ahead {
    answers: Mutex<LruCache<NarHash, (Instant, Answer)>>,
    at_once: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Ahead {
    pub(crate) fn new() -> Self {
        Self {
            answers: Mutex::new(LruCache::new(AHEAD_MAX)),
            at_once: Arc::new(Semaphore::new(AHEAD_AT_ONCE)),
            waiting: Arc::new(Semaphore::new(AHEAD_AT_ONCE + AHEAD_WAITING)),
        }
    }

    fn take(&self, key: &NarKey) -> Option<Answer> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, answer) = answers.pop(&key.nar_hash)?;
        (since.elapsed() < AHEAD_FOR).then_some(answer)
    }

    /// Puts a question in its place, unless it was asked lately.
    fn put(&self, nar: NarHash, answer: impl FnOnce() -> Answer) -> Option<Answer> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.get(&nar).is_some_and(|(since, _)| since.elapsed() < AHEAD_FOR) {
            return None;
        }
        let answer = answer();
        answers.put(nar, (Instant::now(), answer.clone()));
        Some(answer)
    }
}

/// Asks for the trees of a NAR that will probably be wanted soon, if several
/// hold it. Returns at once.
pub(crate) fn prepare(shared: &Arc<Shared>, key: NarKey) {
    if key.nar_size <= MULTI_MIN || key.nar_size > AHEAD_SIZE_MAX {
        return;
    }
    let holders = shared.peers.who_sends(&key.path, NO_SOURCE_WAIT);
    if holders.len() < 2 || shared.trees.proven(&key.nar_hash).is_some() {
        return;
    }
    let Ok(place) = Arc::clone(&shared.ahead.waiting).try_acquire_owned() else { return };
    let asking = || {
        let shared = Arc::clone(shared);
        async move {
            let _turn = shared.ahead.at_once.acquire().await;
            let claims = ask(&shared, key, &holders).await;
            drop(place);
            claims
        }
        .boxed()
        .shared()
    };
    if let Some(answer) = shared.ahead.put(key.nar_hash, asking) {
        tokio::spawn(answer);
    }
}

fn add(claims: &mut Vec<Claim>, peer: PeerId, tree: NarTree) {
    // Groups that merge to the same root are the same groups.
    if let Some(claim) = claims.iter_mut().find(|claim| claim.tree.root == tree.root) {
        claim.by.push(peer);
    } else {
        claims.push(Claim { tree: Arc::new(tree), by: vec![peer] });
    }
}
