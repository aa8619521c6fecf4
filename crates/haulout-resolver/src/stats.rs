//! What the resolver counts since it was started.

use std::sync::atomic::{AtomicU64, Ordering};

use haulout_swarm::site::Why;

/// One counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub(crate) fn one(&self) {
        self.add(1);
    }

    /// `n` more.
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All counters of the resolver.
#[derive(Debug, Default)]
pub struct Stats {
    /// narinfos answered from the own store.
    pub info_store: Counter,
    /// narinfos of NARs in the cache.
    pub info_kept: Counter,
    /// narinfos answered from memory.
    pub info_memory: Counter,
    /// narinfos answered from the cache on disk.
    pub info_cache: Counter,
    /// narinfos answered by asking peers.
    pub info_peers: Counter,
    /// narinfos nobody has.
    pub info_miss: Counter,
    /// Questions that hedged to a second peer.
    pub hedged: Counter,
    /// NARs delivered from the own store.
    pub nar_store: Counter,
    /// NARs delivered from the cache.
    pub nar_cache: Counter,
    /// NARs written to the cache.
    pub nar_kept: Counter,
    /// NARs that were not written to the cache because it could not keep up.
    pub nar_not_kept: Counter,
    /// NARs fetched from peers, complete and verified.
    pub nar_peers: Counter,
    /// NARs that could not be had, or were cut.
    pub nar_failed: Counter,
    /// NAR requests that shared a running transfer.
    pub nar_shared: Counter,
    /// NAR bytes received from peers.
    pub bytes_in: Counter,
    /// NAR bytes read from the own store, for local Nix.
    pub bytes_store: Counter,
    /// NAR bytes read from the cache, for local Nix.
    pub bytes_cache: Counter,
    /// NAR bytes read from the own store or the cache, for peers.
    pub bytes_out: Counter,
    /// NAR bytes delivered to local Nix.
    pub bytes_delivered: Counter,
    /// Sources replaced in the middle of a NAR.
    pub replaced: Counter,
    /// Answers and bytes that proved wrong.
    pub lies: Counter,
    /// NARs for which two peers gave different trees.
    pub conflicts: Counter,
    /// Path infos given to peers.
    pub infos_given: Counter,
    /// Trees made before anybody asked.
    pub trees_ahead: Counter,
    /// Trees given to peers.
    pub trees_given: Counter,
    /// NAR ranges opened for peers.
    pub nars_given: Counter,
    /// Questions by peers answered "no".
    pub refused: Counter,
    /// narinfos from outside the site.
    pub info_outside: Counter,
    /// NARs that peers hold and that came as pieces of the file from outside, which homes still kept; also among those
    /// from peers.
    pub nar_kept_pieces: Counter,
    /// NARs from outside the site, complete and verified.
    pub nar_outside: Counter,
    /// narinfos from archives.
    pub info_archive: Counter,
    /// NARs from archives, complete and verified; also among those from outside.
    pub nar_archive: Counter,
    /// NAR bytes from archives, unpacked.
    pub bytes_archive: Counter,
    /// NAR bytes from caches outside, unpacked.
    pub nar_bytes_outside: Counter,
    /// Times this agent went outside for a segment or a document.
    pub outside_fetches: Counter,
    /// Bytes that came from outside, compressed as they were there.
    pub bytes_outside: Counter,
    /// Of them, why this agent fetched them itself: in the order of [`Why::ALL`].
    pub outside_because: [Counter; Why::ALL.len()],
    /// Of them, those of segments for which it had gone outside before.
    pub bytes_outside_again: Counter,
    /// Bytes of site objects that peers relayed to this agent.
    pub bytes_relayed_in: Counter,
    /// Bytes of site objects that this agent relayed to peers.
    pub bytes_relayed_out: Counter,
    /// NAR bytes that came from a machine which was fetching them itself.
    pub bytes_fellows_in: Counter,
    /// NAR bytes given to machines that fetch the same, while it was fetched
    /// here.
    pub bytes_fellows_out: Counter,
}

impl Stats {
    /// Bytes that came from outside, by why this agent fetched them itself.
    pub fn outside_because(&self, why: Why) -> &Counter {
        let place = Why::ALL.iter().position(|one| *one == why).unwrap_or(0);
        &self.outside_because[place]
    }
}
