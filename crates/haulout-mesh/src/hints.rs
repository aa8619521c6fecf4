//! Which connected peer announced what: incoming holdings, from memory.

use std::collections::HashMap;

use haulout_swarm::PeerId;
use haulout_swarm::holdings::{Message, Version};

/// Why an update could not be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// A delta for a version we do not have: the peer should send a snapshot.
    Gap,
}

#[derive(Debug, Default)]
pub(crate) struct Hints {
    peers: HashMap<PeerId, (Version, Vec<u32>)>,
}

impl Hints {
    /// Applies a message; returns how many prefixes the peer has now.
    pub(crate) fn apply(&mut self, peer: &PeerId, message: Message) -> Result<usize, Mismatch> {
        match message {
            Message::Snapshot(snapshot) => {
                let count = snapshot.entries().len();
                self.peers.insert(*peer, (snapshot.version(), snapshot.entries().to_vec()));
                Ok(count)
            }
            Message::Delta(delta) => {
                let (version, entries) = self.peers.get_mut(peer).ok_or(Mismatch::Gap)?;
                if *version != delta.base() {
                    return Err(Mismatch::Gap);
                }
                entries.retain(|entry| delta.removed().binary_search(entry).is_err());
                entries.extend(delta.added());
                entries.sort_unstable();
                entries.dedup();
                *version = delta.version();
                Ok(entries.len())
            }
        }
    }

    pub(crate) fn remove(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }

    pub(crate) fn count(&self, peer: &PeerId) -> Option<usize> {
        self.peers.get(peer).map(|(_, entries)| entries.len())
    }

    pub(crate) fn who_has(&self, prefix: u32) -> Vec<PeerId> {
        self.peers
            .iter()
            .filter(|(_, (_, entries))| entries.binary_search(&prefix).is_ok())
            .map(|(peer, _)| *peer)
            .collect()
    }
}
