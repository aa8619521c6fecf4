//! NARs that peers are being given now, for status pages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use haulout_mesh::NarKey;
use haulout_nix::StorePath;
use haulout_swarm::PeerId;

/// One NAR on its way to one peer, however many ranges of it are open.
#[derive(Debug)]
pub(crate) struct Giving {
    peer: PeerId,
    key: NarKey,
    path: StorePath,
    begun: Instant,
    bytes: AtomicU64,
}

impl Giving {
    /// Counts bytes read for the peer.
    pub(crate) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What a status page says of one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) peer: PeerId,
    pub(crate) path: StorePath,
    pub(crate) bytes: u64,
    pub(crate) size: u64,
    pub(crate) running: Duration,
}

/// All of them. The mesh bounds how many streams are open, and so this.
#[derive(Debug, Default)]
pub(crate) struct GivingNow(Mutex<Vec<Weak<Giving>>>);

impl GivingNow {
    /// Notes a range that was opened; it counts as long as the result lives.
    pub(crate) fn begin(&self, peer: PeerId, key: NarKey, path: &StorePath) -> Arc<Giving> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running = None;
        all.retain(|one| {
            let Some(one) = one.upgrade() else { return false };
            if one.peer == peer && one.key == key {
                running = Some(one);
            }
            true
        });
        running.unwrap_or_else(|| {
            let begun = Instant::now();
            let path = path.clone();
            let one = Arc::new(Giving { peer, key, path, begun, bytes: AtomicU64::new(0) });
            all.push(Arc::downgrade(&one));
            one
        })
    }

    /// What is under way, the oldest first.
    pub(crate) fn list(&self) -> Vec<Given> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .filter_map(Weak::upgrade)
            .map(|one| Given {
                peer: one.peer,
                path: one.path.clone(),
                bytes: one.bytes.load(Ordering::Relaxed),
                size: one.key.nar_size,
                running: one.begun.elapsed(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use haulout_nix::NarHash;

    use super::*;

    #[test]
    fn ranges_of_one_nar_for_one_peer_are_one_transfer() {
        let now = GivingNow::default();
        let path: StorePath = "0c0nqf1k8r8xyh5hbz4w1mfcmdlz7hpj-hello".parse().unwrap();
        let key = NarKey { path: path.hash_part(), nar_hash: NarHash::of(b"x"), nar_size: 100 };
        let peer = |n| PeerId::from_bytes([n; 32]);
        let first = now.begin(peer(1), key, &path);
        let second = now.begin(peer(1), key, &path);
        let other = now.begin(peer(2), key, &path);
        first.add(10);
        second.add(5);
        drop(first);
        let list = now.list();
        assert_eq!(list.len(), 2);
        assert_eq!((list[0].bytes, list[0].size, list[1].bytes), (15, 100, 0));
        drop((second, other));
        assert_eq!(now.list(), []);
    }
}
