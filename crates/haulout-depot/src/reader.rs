//! An archive, open for reading.

use crate::{
    Blobs, DepotError, Kind, LevelRecord, NarStream, OpenLevel, State, cache::PageCache,
    join::Entries,
};
use haulout_archive::{
    entry::{Content, Path},
    merge::Merge,
    proof::Proof,
    segment::BlobRecord,
};
use haulout_nix::HashPart;
use std::{collections::HashMap, sync::Arc};
use tokio::runtime::Handle;

/// A path that was found: everything about it is proven by the archive's state.
#[derive(Debug, Clone)]
pub struct Found {
    /// What the index says.
    pub path: Path,
    /// Position of the level that has it.
    pub level: usize,
}

/// One state of an archive, open for reading. Cheap to share.
#[derive(Debug)]
pub struct Reader {
    blobs: Arc<dyn Blobs>,
    state: State,
    levels: Vec<Arc<OpenLevel>>,
    /// Where each of them stands in the state.
    positions: Vec<u64>,
    /// Levels that have ended and are no longer stored.
    lost: Vec<LevelRecord>,
    /// Walrus' epoch, if such levels may be left out.
    epoch: Option<u32>,
    cache: Arc<PageCache>,
}

impl Reader {
    /// Opens all levels of a state.
    ///
    /// # Errors
    /// When one of them cannot be opened: an answer "not here" would otherwise be a guess.
    pub async fn open(blobs: Arc<dyn Blobs>, state: State) -> Result<Self, DepotError> {
        Self::build(blobs, state, HashMap::new(), Arc::new(PageCache::new()), None).await
    }

    /// Opens what is left of an archive in epoch `epoch`: levels that have ended and are no longer stored are
    /// [`Reader::lost`], and what only they had is not found. For those who mend it.
    ///
    /// # Errors
    /// When any other level cannot be opened.
    pub async fn open_left(
        blobs: Arc<dyn Blobs>,
        state: State,
        epoch: u32,
    ) -> Result<Self, DepotError> {
        let cache = Arc::new(PageCache::new());
        Self::build(blobs, state, HashMap::new(), cache, Some(epoch)).await
    }

    /// Opens a newer state of the same archive; levels that are still there are not fetched again.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub async fn advance(&self, state: State) -> Result<Self, DepotError> {
        let known =
            self.levels.iter().map(|level| (level.record().root, Arc::clone(level))).collect();
        let (blobs, cache) = (Arc::clone(&self.blobs), Arc::clone(&self.cache));
        Self::build(blobs, state, known, cache, self.epoch).await
    }

    async fn build(
        blobs: Arc<dyn Blobs>,
        state: State,
        known: HashMap<[u8; 32], Arc<OpenLevel>>,
        cache: Arc<PageCache>,
        epoch: Option<u32>,
    ) -> Result<Self, DepotError> {
        let mut levels = Vec::with_capacity(state.levels.len());
        let (mut positions, mut lost) = (Vec::new(), Vec::new());
        for (position, record) in (0u64..).zip(&state.levels) {
            let opened = match known.get(&record.root).filter(|level| level.record() == record) {
                Some(level) => Ok(Arc::clone(level)),
                None => OpenLevel::open(&*blobs, *record).await.map(Arc::new),
            };
            match opened {
                Ok(level) => {
                    levels.push(level);
                    positions.push(position);
                }
                Err(error)
                    if error.kind == Kind::Missing
                        && epoch.is_some_and(|epoch| record.end_epoch <= epoch) =>
                {
                    lost.push(*record);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self { blobs, state, levels, positions, lost, epoch, cache })
    }

    /// Where the levels stand in the state, from the `from`-th of [`Reader::levels`] on.
    pub(crate) fn positions(&self, from: usize) -> Vec<u64> {
        self.positions.get(from..).unwrap_or_default().to_vec()
    }

    /// Levels that have ended and are no longer stored ([`Reader::open_left`]).
    #[must_use]
    pub fn lost(&self) -> &[LevelRecord] {
        &self.lost
    }

    /// The state that is open.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The levels, newest first.
    #[must_use]
    pub fn levels(&self) -> &[Arc<OpenLevel>] {
        &self.levels
    }

    /// Where its bytes come from.
    #[must_use]
    pub fn blobs(&self) -> &Arc<dyn Blobs> {
        &self.blobs
    }

    /// The path of a hash part; `None` when the archive has it not, which is then proven too.
    ///
    /// # Errors
    /// When an index page cannot be had or is wrong.
    pub async fn find(&self, key: &HashPart) -> Result<Option<Found>, DepotError> {
        for (level, open) in self.levels.iter().enumerate() {
            match open.find(&*self.blobs, &self.cache, key).await?.map(|entry| entry.content) {
                None => {}
                Some(Content::Tombstone) => return Ok(None),
                Some(Content::Path(path)) => return Ok(Some(Found { path: *path, level })),
            }
        }
        Ok(None)
    }

    /// Proofs for one who has the state but no index: one for each level down to the one that
    /// decides.
    ///
    /// # Errors
    /// As [`Reader::find`].
    pub async fn prove(&self, key: &HashPart) -> Result<Vec<Proof>, DepotError> {
        let mut proofs = Vec::new();
        for open in &self.levels {
            let proof = open.prove(&*self.blobs, &self.cache, key).await?;
            let verdict = proof.verify(&open.record().root, key);
            proofs.push(proof);
            if verdict.map_err(|error| DepotError::corrupt("a proof", error))?.is_some() {
                break;
            }
        }
        Ok(proofs)
    }

    /// The record of a pack of a level.
    ///
    /// # Errors
    /// When the pack table cannot be had.
    pub async fn pack(&self, level: usize, pack: u32) -> Result<BlobRecord, DepotError> {
        let level = self.levels.get(level).ok_or_else(no_level)?;
        level.pack(&*self.blobs, pack).await
    }

    /// The NAR of a path that was found, as a stream that never ends well unless every byte was right.
    ///
    /// # Errors
    /// When the pack table cannot be had.
    pub async fn nar(&self, found: &Found) -> Result<NarStream, DepotError> {
        let mut pieces = Vec::with_capacity(found.path.nar.extents.len());
        for extent in &found.path.nar.extents {
            pieces.push((self.pack(found.level, extent.pack).await?, *extent));
        }
        NarStream::new(Arc::clone(&self.blobs), &found.path, pieces)
    }

    /// The paths of the archive with keys from `from` on, at most `max`, and the key to go on from.
    ///
    /// # Errors
    /// As [`Reader::find`].
    pub async fn list(
        &self,
        from: HashPart,
        max: usize,
    ) -> Result<(Vec<Found>, Option<HashPart>), DepotError> {
        let (blobs, levels) = (Arc::clone(&self.blobs), self.levels.clone());
        let handle = Handle::current();
        let work = move || {
            let entries = levels.iter().map(|level| Entries::new(&handle, &blobs, level, from));
            let mut paths = Vec::new();
            for item in Merge::new(entries.collect::<Vec<_>>(), true) {
                let (level, entry) = item?;
                let Content::Path(path) = entry.content else { continue };
                if paths.len() == max {
                    return Ok((paths, Some(entry.key)));
                }
                paths.push(Found { path: *path, level });
            }
            Ok((paths, None))
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| DepotError::new(Kind::Local, "listing ended early").because(error))?
    }
}

fn no_level() -> DepotError {
    DepotError::new(Kind::Refused, "there is no such level")
}
