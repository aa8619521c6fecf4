//! Writing NARs that came from elsewhere to the cache, where policy says so.
//!
//! A tap hangs on a transfer: it is offered every piece that goes out, writes
//! on a thread of its own, and keeps the NAR once the transfer says that its
//! hash held. It never holds up the transfer: a disk that cannot follow costs
//! the copy, not the time.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use haulout_gateway::Client;
use haulout_nix::PathInfo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::disk::Disk;
use crate::local::LocalStore;
use crate::peers::Peers;
use crate::stats::Stats;

/// What all taps together may hold until it is written, in bytes. Most of it
/// is shared with the transfers' own memory.
const QUEUE_BYTES: usize = 32 << 20;
/// NARs written at the same time: more than Nix fetches side by side.
const TAPS_MAX: usize = 32;
/// The unit of the queue's accounting, in bytes.
const UNIT: usize = 1024;
/// From this use of the quota on, in per cent, it is counted who else holds
/// what is in the cache: something may have to go soon.
const COUNT_FROM_PERCENT: u64 = 75;
/// How often that is counted at most. 10,000 NARs take some 10 ms.
const COUNT_EVERY: Duration = Duration::from_secs(60);

/// Which NARs that came from elsewhere are written to the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepNars {
    /// None.
    Never,
    /// Those nobody here would hold otherwise: what came from outside the
    /// site for a machine without an agent, and everything on a machine
    /// without a Nix store. What this machine's Nix is about to register in
    /// its store is not written twice.
    #[default]
    Auto,
    /// All of them, also what Nix registers: they survive a garbage
    /// collection, and a transfer whose Nix was interrupted.
    All,
}

/// Where a NAR comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// Other machines of this site, which hold it already.
    Peers,
    /// An archive or a cache outside: this may be the site's only copy.
    Outside,
}

/// Decides and writes.
pub(crate) struct Keeper {
    policy: KeepNars,
    disk: Disk,
    local: Arc<LocalStore>,
    peers: Arc<dyn Peers>,
    stats: Arc<Stats>,
    queue: Arc<Semaphore>,
    taps: Arc<Semaphore>,
    counted: Mutex<Option<Instant>>,
}

impl Keeper {
    pub(crate) fn new(
        policy: KeepNars,
        disk: Disk,
        local: Arc<LocalStore>,
        peers: Arc<dyn Peers>,
        stats: Arc<Stats>,
    ) -> Arc<Self> {
        Arc::new(Self {
            policy,
            disk,
            local,
            peers,
            stats,
            queue: Arc::new(Semaphore::new(QUEUE_BYTES / UNIT)),
            taps: Arc::new(Semaphore::new(TAPS_MAX)),
            counted: Mutex::new(None),
        })
    }

    fn wants(&self, from: Provenance, client: Client) -> bool {
        match self.policy {
            KeepNars::Never => false,
            KeepNars::Auto => {
                let by_guest = client != Client::OwnNix && from == Provenance::Outside;
                by_guest || !self.local.is_there()
            }
            KeepNars::All => true,
        }
    }

    /// A tap for a transfer that begins at the NAR's first byte; `None` when
    /// it is not to be kept, or is there. Within a runtime.
    pub(crate) fn begin(
        self: &Arc<Self>,
        info: &PathInfo,
        from: Provenance,
        client: Client,
    ) -> Option<Tap> {
        let wanted = self.wants(from, client);
        if self.disk.cache().is_none() || !wanted || self.disk.has_nar(&info.nar_hash) {
            return None;
        }
        let slot = Arc::clone(&self.taps).try_acquire_owned().ok()?;
        let (out, pieces) = channel();
        let (keeper, info) = (Arc::clone(self), info.clone());
        tokio::task::spawn_blocking(move || {
            keeper.write(&info, &pieces);
            drop(slot);
        });
        Some(Tap { out: Some(out), queue: Arc::clone(&self.queue), stats: Arc::clone(&self.stats) })
    }

    fn write(&self, info: &PathInfo, pieces: &Receiver<Piece>) {
        self.count_holders();
        let Some(mut writer) = self.disk.begin_nar(&info.nar_hash, info.nar_size) else { return };
        while let Ok(piece) = pieces.recv() {
            match piece {
                Piece::Bytes(bytes, _queued) => {
                    if !writer.write(&bytes) {
                        return;
                    }
                }
                Piece::Good => {
                    let holders = self.holders(info.path.hash_part());
                    if self.disk.finish_nar(writer, &info.nar_hash, holders) {
                        self.stats.nar_kept.one();
                        self.local.keep(info);
                    }
                    return;
                }
            }
        }
    }

    fn holders(&self, hash: haulout_nix::HashPart) -> u32 {
        u32::try_from(self.peers.who_has(&hash).len()).unwrap_or(u32::MAX)
    }

    /// Before something may have to go: who else has what is here?
    fn count_holders(&self) {
        let Some(cache) =
            self.disk.cache().filter(|cache| cache.is_fuller_than(COUNT_FROM_PERCENT))
        else {
            return;
        };
        {
            let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
            if counted.is_some_and(|at| at.elapsed() < COUNT_EVERY) {
                return;
            }
            *counted = Some(Instant::now());
        }
        for (path, nar) in self.local.kept_paths() {
            cache.set_holders(&nar, self.holders(path));
        }
    }
}

enum Piece {
    Bytes(Bytes, OwnedSemaphorePermit),
    /// All bytes are there, and their hash is NarHash.
    Good,
}

/// Takes a NAR's bytes in order, from the first one on. Dropped before
/// [`Tap::good`], nothing is kept.
pub(crate) struct Tap {
    /// `None` once writing was given up.
    out: Option<Sender<Piece>>,
    queue: Arc<Semaphore>,
    stats: Arc<Stats>,
}

impl Tap {
    /// Offers the next bytes. Never waits.
    pub(crate) fn offer(&mut self, bytes: &Bytes) {
        let Some(out) = &self.out else { return };
        let units = u32::try_from(bytes.len().div_ceil(UNIT)).unwrap_or(u32::MAX);
        let queued = Arc::clone(&self.queue).try_acquire_many_owned(units);
        let sent = queued.is_ok_and(|queued| out.send(Piece::Bytes(bytes.clone(), queued)).is_ok());
        if !sent {
            self.stats.nar_not_kept.one();
            self.out = None;
        }
    }

    /// The NAR is complete and verified.
    pub(crate) fn good(self) {
        if let Some(out) = self.out {
            // A writer that has given up needs no telling.
            let _ = out.send(Piece::Good);
        }
    }
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap").field("writes", &self.out.is_some()).finish_non_exhaustive()
    }
}
