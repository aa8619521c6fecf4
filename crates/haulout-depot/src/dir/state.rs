//! The state of an archive in a directory, and what may become of it.

use super::{DirDepot, replace};
use crate::{DepotError, Kind, LevelRecord, NewLevel, Standing, State, Update};
use data_encoding::HEXLOWER;
use haulout_archive::contract::LEVELS_MAX;
use redstuff::{BlobId, ShardCount};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

/// Longest state file, in bytes.
const STATE_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StateFile {
    version: u32,
    id: String,
    shards: u16,
    pub(super) epoch: u32,
    sequence: u64,
    updated_ms: u64,
    frozen: bool,
    store_dir: String,
    name: String,
    levels: Vec<LevelFile>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LevelFile {
    root: String,
    leaves: u64,
    blob: BlobId,
    size: u64,
    end_epoch: u32,
}

impl StateFile {
    /// Of an archive to which nothing was published yet.
    pub(super) fn empty(id: String, shards: ShardCount, store_dir: &str, name: &str) -> Self {
        Self {
            version: 1,
            id,
            shards: shards.get(),
            epoch: 1,
            sequence: 0,
            updated_ms: 0,
            frozen: false,
            store_dir: store_dir.to_owned(),
            name: name.to_owned(),
            levels: Vec::new(),
        }
    }

    pub(super) fn shards(&self) -> Result<ShardCount, DepotError> {
        ShardCount::new(self.shards).map_err(|error| {
            DepotError::new(Kind::Corrupt, "the archive's shard count is not one").because(error)
        })
    }

    /// As those who read the archive see it.
    pub(super) fn into_state(self) -> Result<State, DepotError> {
        let record = |level: &LevelFile| {
            Ok(LevelRecord {
                root: bytes32(&level.root)?,
                leaves: level.leaves,
                blob: level.blob,
                object: [0; 32],
                size: level.size,
                end_epoch: level.end_epoch,
            })
        };
        Ok(State {
            id: bytes32(&self.id)?,
            sequence: self.sequence,
            updated_ms: self.updated_ms,
            levels: self.levels.iter().map(record).collect::<Result<_, DepotError>>()?,
            frozen: self.frozen,
            store_dir: self.store_dir,
            name: self.name,
        })
    }

    /// Puts a new level among those that are kept.
    fn put(&mut self, level: &NewLevel, keep: &[u64], place: u64) -> Result<(), DepotError> {
        let rising = keep.is_sorted_by(|a, b| a < b) && keep.len() < LEVELS_MAX;
        if !rising || place > keep.len() as u64 || level.leaves == 0 {
            return Err(refused("the levels to be kept are out of order, or too many"));
        }
        let mut levels: Vec<Option<LevelFile>> =
            std::mem::take(&mut self.levels).into_iter().map(Some).collect();
        let mut kept = Vec::with_capacity(keep.len() + 1);
        for position in keep {
            match levels.get_mut(*position as usize).and_then(Option::take) {
                Some(level) if level.end_epoch > self.epoch => kept.push(level),
                _ => return Err(refused("a level to be kept does not exist, or has ended")),
            }
        }
        let new = LevelFile {
            root: HEXLOWER.encode(&level.root),
            leaves: level.leaves,
            blob: level.stored.blob,
            size: level.size,
            end_epoch: level.end_epoch,
        };
        kept.insert(place as usize, new);
        self.levels = kept;
        Ok(())
    }
}

impl DirDepot {
    pub(super) fn state_file(&self) -> PathBuf {
        self.root.join("archive.json")
    }

    pub(super) fn load(&self) -> Result<StateFile, DepotError> {
        let path = self.state_file();
        let reading = |error| DepotError::local(format_args!("read {}", path.display()), error);
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => DepotError::new(
                Kind::Missing,
                format!("there is no archive in {}", self.root.display()),
            ),
            _ => reading(error),
        })?;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, STATE_BYTES_MAX), &mut bytes)
            .map_err(reading)?;
        let state: StateFile = serde_json::from_slice(&bytes).map_err(|error| {
            DepotError::new(Kind::Corrupt, format!("{} is not an archive's state", path.display()))
                .because(error)
        })?;
        if state.version != 1 || state.levels.len() > LEVELS_MAX {
            let message = format!("{} was written by a later version", path.display());
            return Err(DepotError::new(Kind::Refused, message));
        }
        Ok(state)
    }

    pub(super) fn write(&self, state: &StateFile) -> Result<(), DepotError> {
        let path = self.state_file();
        let writing = |error| DepotError::local(format_args!("write {}", path.display()), error);
        let text =
            serde_json::to_vec_pretty(state).map_err(|error| writing(io::Error::other(error)))?;
        replace(&path, &text).map_err(writing)
    }

    /// Checks and makes an update; gives the new sequence.
    pub(super) fn apply(&self, expected: u64, update: &Update) -> Result<u64, DepotError> {
        let _lock = self.lock()?;
        let mut state = self.load()?;
        if state.frozen {
            return Err(refused("the archive is frozen: nothing can be published to it any more"));
        }
        if state.sequence != expected {
            return Err(DepotError::new(
                Kind::Conflict,
                "somebody else published to the archive in the meantime",
            ));
        }
        match update {
            Update::Beat => {}
            Update::Extend { position, end_epoch } => {
                let epoch = state.epoch;
                let level = state.levels.get_mut(*position as usize);
                let Some(level) = level.filter(|level| level.end_epoch < *end_epoch) else {
                    return Err(refused("there is no such level, or it ends later already"));
                };
                self.check_stored(&level.blob, *end_epoch, epoch)?;
                level.end_epoch = *end_epoch;
            }
            Update::Level { level, keep, place } => {
                self.check_stored(&level.stored.blob, level.end_epoch, state.epoch)?;
                state.put(level, keep, *place)?;
            }
        }
        state.sequence = state
            .sequence
            .checked_add(1)
            .ok_or_else(|| refused("the archive's sequence cannot go on: its state was changed"))?;
        state.updated_ms = now_ms();
        self.write(&state)?;
        Ok(state.sequence)
    }

    /// Whether a blob is stored until an epoch that has not come yet.
    fn check_stored(&self, blob: &BlobId, until: u32, epoch: u32) -> Result<(), DepotError> {
        match self.standing_of(blob)? {
            Standing::Until(end) if end >= until && until > epoch => Ok(()),
            _ => Err(refused(&format!("blob {blob} is not stored until epoch {until}"))),
        }
    }
}

fn refused(message: &str) -> DepotError {
    DepotError::new(Kind::Refused, message)
}

fn bytes32(hex: &str) -> Result<[u8; 32], DepotError> {
    let bytes = HEXLOWER.decode(hex.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| {
        DepotError::new(Kind::Corrupt, "an id or root in the archive's state is malformed")
    })
}

pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
