//! What speaks against a peer without proving anything.
//!
//! A signature that does not hold under the key we know by its name may be
//! forged, or made with another key of that name: names are free. Only the
//! genuine info decides: when it turns up and carries the very same
//! signature, whoever sent that signature with other content has altered it.
//! Until then the peer is only asked after others.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use haulout_nix::{HashPart, PathInfo, Signature};
use haulout_swarm::PeerId;
use lru::LruCache;
use tokio::time::Instant;

use crate::trust::Trust;

/// Infos refused in a row after which a peer is asked after the others.
const DOUBTED_FROM: u8 = 3;
/// How long a peer that used up all patience gets no more than a silent one.
const SLOW_FOR: Duration = Duration::from_secs(30);
/// Peers remembered.
const PEERS_MAX: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// Paths whose refused infos are remembered.
const REFUSED_MAX: NonZeroUsize = NonZeroUsize::new(256).unwrap();
/// Refused infos remembered of one path.
const REFUSED_EACH_MAX: usize = 6;
/// Signatures remembered of one refused info.
const SIGNATURES_MAX: usize = 8;

#[derive(Clone, Copy, Default)]
struct Standing {
    refused_in_a_row: u8,
    slow_since: Option<Instant>,
}

/// The signatures of one refused info.
struct Refused {
    by: PeerId,
    signatures: Vec<Signature>,
}

pub(super) struct Doubts {
    peers: Mutex<LruCache<PeerId, Standing>>,
    refused: Mutex<LruCache<HashPart, Vec<Refused>>>,
}

impl Doubts {
    pub(super) fn new() -> Self {
        Self {
            peers: Mutex::new(LruCache::new(PEERS_MAX)),
            refused: Mutex::new(LruCache::new(REFUSED_MAX)),
        }
    }

    fn standing(&self, peer: &PeerId) -> Standing {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.get(peer).copied().unwrap_or_default()
    }

    /// Changes what is known of a peer; nothing is kept of those without doubt.
    fn change(&self, peer: PeerId, change: impl FnOnce(&mut Standing)) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut standing = peers.pop(&peer).unwrap_or_default();
        change(&mut standing);
        if standing.refused_in_a_row > 0 || standing.slow_since.is_some() {
            peers.put(peer, standing);
        }
    }

    /// Whether others should be asked first.
    pub(super) fn is_doubted(&self, peer: &PeerId) -> bool {
        self.standing(peer).refused_in_a_row >= DOUBTED_FROM
    }

    /// Whether it made us wait in vain and has not answered since.
    pub(super) fn is_slow(&self, peer: &PeerId) -> bool {
        self.standing(peer).slow_since.is_some_and(|since| since.elapsed() < SLOW_FOR)
    }

    pub(super) fn made_us_wait(&self, peer: PeerId) {
        self.change(peer, |standing| standing.slow_since = Some(Instant::now()));
    }

    pub(super) fn answered(&self, peer: &PeerId) {
        self.change(*peer, |standing| standing.slow_since = None);
    }

    pub(super) fn believed(&self, peer: &PeerId) {
        self.change(*peer, |standing| standing.refused_in_a_row = 0);
    }

    /// An info from this peer carries nothing that holds.
    pub(super) fn refused(&self, peer: PeerId, info: &PathInfo) {
        self.change(peer, |standing| {
            standing.refused_in_a_row = standing.refused_in_a_row.saturating_add(1);
        });
        let signatures: Vec<_> = info.signatures.iter().take(SIGNATURES_MAX).cloned().collect();
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let of_path = refused.get_or_insert_mut(info.path.hash_part(), Vec::new);
        if of_path.len() < REFUSED_EACH_MAX && !signatures.is_empty() {
            of_path.push(Refused { by: peer, signatures });
        }
    }

    /// Who sent one of the signatures that hold for this info with another
    /// content. (With this content theirs would have held, too.)
    pub(super) fn exposed_by(&self, genuine: &PathInfo, trust: &Trust) -> Vec<PeerId> {
        let refused = {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.pop(&genuine.path.hash_part())
        };
        let Some(refused) = refused.filter(|refused| !refused.is_empty()) else {
            return Vec::new();
        };
        let fingerprint = genuine.fingerprint(&trust.store_dir);
        let holds =
            |signature: &&Signature| trust.keys.verify(fingerprint.as_bytes(), signature).is_some();
        let genuine: Vec<&Signature> = genuine.signatures.iter().filter(holds).collect();
        let copied = |one: &Refused| one.signatures.iter().any(|copy| genuine.contains(&copy));
        let mut liars: Vec<PeerId> =
            refused.iter().filter(|one| copied(one)).map(|one| one.by).collect();
        liars.sort_unstable();
        liars.dedup();
        liars
    }
}
