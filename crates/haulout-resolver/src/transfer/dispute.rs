//! When peers give different trees for one NAR, somebody lies. The whole NAR
//! under each tree is fetched aside and hashed; only the right one goes out.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use haulout_mesh::{NarKey, NarTree};
use haulout_swarm::Fault;
use tokio::sync::Semaphore;

use super::Shared;
use super::claims::Claim;
use super::multi::{Multi, Sources};
use super::ring::{CutReason, Ring};
use super::roster::Roster;
use super::sink::{Out, Sink};

/// Disk that all disputes together may use, in bytes.
pub(crate) const SPOOL_BYTES: u64 = 4 << 30;
/// Bytes read back at a time.
const READ: usize = 256 << 10;
const UNIT: u64 = 1 << 20;

/// The disk space for disputes.
pub(crate) struct Spools {
    free: Semaphore,
    dir: std::path::PathBuf,
}

impl Spools {
    pub(crate) fn new(dir: &Path) -> Self {
        let units = usize::try_from(SPOOL_BYTES / UNIT).unwrap_or(usize::MAX);
        Self { free: Semaphore::new(units.min(Semaphore::MAX_PERMITS)), dir: dir.to_owned() }
    }
}

/// A file without a name: gone when closed, whatever happens.
#[derive(Clone)]
pub(crate) struct Spool(Arc<File>);

impl Spool {
    pub(crate) async fn write(&self, at: u64, bytes: Bytes) -> std::io::Result<()> {
        let file = Arc::clone(&self.0);
        let write = move || file.write_all_at(&bytes, at);
        tokio::task::spawn_blocking(write)
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()))
    }

    async fn read(&self, at: u64, len: usize) -> std::io::Result<Bytes> {
        let file = Arc::clone(&self.0);
        let read = move || {
            let mut buffer = vec![0; len];
            file.read_exact_at(&mut buffer, at)?;
            Ok(Bytes::from(buffer))
        };
        tokio::task::spawn_blocking(read)
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()))
    }
}

/// Settles it, delivers the right NAR and bans those who promised another.
pub(crate) async fn settle(
    shared: &Arc<Shared>,
    key: NarKey,
    claims: Vec<Claim>,
    roster: &mut Roster,
    ring: &Ring,
    window: u64,
) -> Result<NarTree, CutReason> {
    shared.stats.conflicts.one();
    shared.reasons.note(&key.path, format!("peers promise {} different contents", claims.len()));
    let units = u32::try_from(key.nar_size.div_ceil(UNIT)).map_err(|_| CutReason::NoSource)?;
    if key.nar_size > SPOOL_BYTES {
        return Err(CutReason::NoSource);
    }
    let _space = shared.spools.free.acquire_many(units).await.map_err(|_| CutReason::NoSource)?;
    let mut outcome = Err(CutReason::NoSource);
    for (at, claim) in claims.iter().enumerate() {
        let file = tempfile::tempfile_in(&shared.spools.dir).map_err(|error| {
            tracing::warn!(%error, dir = %shared.spools.dir.display(), "no temporary file for a disputed NAR");
            CutReason::NoSource
        })?;
        let spool = Spool(Arc::new(file));
        let mut sink = Sink::new(Out::Spool(spool.clone()), key, 0);
        let sources = Sources::Promised(claim.by.clone());
        let fetched =
            Multi::new(shared, key, (Arc::clone(&claim.tree), sources), roster, &mut sink, window)
                .run()
                .await;
        let finished = match fetched {
            Ok(()) => sink.finish().await,
            Err(why) => Err(why),
        };
        match finished {
            Ok(tree) => {
                // The NAR has one content: every other promise was a lie.
                let liars = claims.iter().enumerate().filter(|(other, _)| *other != at);
                for peer in liars.flat_map(|(_, claim)| &claim.by) {
                    shared.convict(*peer, key, Fault::WrongContent);
                }
                replay(&spool, key, ring).await?;
                return tree.ok_or(CutReason::WrongHash);
            }
            Err(CutReason::WrongHash) => {
                for peer in &claim.by {
                    shared.convict(*peer, key, Fault::WrongContent);
                }
            }
            Err(why) => outcome = Err(why),
        }
    }
    outcome
}

async fn replay(spool: &Spool, key: NarKey, ring: &Ring) -> Result<(), CutReason> {
    let mut at = 0;
    while at < key.nar_size {
        let len = usize::try_from(key.nar_size - at).map_or(READ, |left| left.min(READ));
        let bytes = spool.read(at, len).await.map_err(|_| CutReason::NoSource)?;
        at += len as u64;
        ring.push(bytes).await;
    }
    Ok(())
}
