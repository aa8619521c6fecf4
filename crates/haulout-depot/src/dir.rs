//! An archive in a directory: blobs are files named by their blob ids, the state is a JSON file.
//!
//! For rehearsals (the ids and sizes are those that Walrus would give) and for tests. Its rules are the
//! contract's.

use crate::{
    Blobs, BoxFuture, Certify, DepotError, Kind, LevelRecord, Registry, Standing, State, Stored,
    Update,
};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use haulout_archive::contract::{LEVELS_MAX, TEXT_BYTES_MAX};
use redstuff::{BlobId, ShardCount};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// Memory for working out a blob id, besides a fixed part.
const ENCODE_MEMORY: usize = 64 << 20;

/// Longest state file, in bytes.
const STATE_BYTES_MAX: u64 = 64 << 10;

/// Most epochs ahead, as on Walrus.
const EPOCHS_MAX: u32 = 53;

/// An archive in a directory.
#[derive(Debug, Clone)]
pub struct DirDepot {
    root: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    version: u32,
    id: String,
    shards: u16,
    epoch: u32,
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

impl DirDepot {
    /// Makes an empty archive in a directory that has none.
    ///
    /// # Errors
    /// When there is one, a text is too long, or the directory cannot be written.
    pub fn create(
        root: &Path,
        shards: ShardCount,
        store_dir: &str,
        name: &str,
    ) -> Result<Self, DepotError> {
        if !store_dir.starts_with('/')
            || store_dir.len() > TEXT_BYTES_MAX
            || name.len() > TEXT_BYTES_MAX
        {
            let message = format!(
                "the store directory must be absolute, and it and the name at most {TEXT_BYTES_MAX} bytes"
            );
            return Err(DepotError::new(Kind::Refused, message));
        }
        let depot = Self { root: root.to_owned() };
        let making =
            |error| DepotError::local(format_args!("make the archive {}", root.display()), error);
        fs::create_dir_all(depot.blobs()).map_err(making)?;
        let _lock = depot.lock()?;
        if depot.state_file().exists() {
            let message = format!("there is an archive in {} already", root.display());
            return Err(DepotError::new(Kind::Refused, message));
        }
        let seed = format!("{}\0{name}\0{}", root.display(), now_ms());
        depot.write(&StateFile {
            version: 1,
            id: blake3::hash(seed.as_bytes()).to_hex().to_string(),
            shards: shards.get(),
            epoch: 1,
            sequence: 0,
            updated_ms: 0,
            frozen: false,
            store_dir: store_dir.to_owned(),
            name: name.to_owned(),
            levels: Vec::new(),
        })?;
        Ok(depot)
    }

    /// Opens an archive.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(root: &Path) -> Result<Self, DepotError> {
        let depot = Self { root: root.to_owned() };
        depot.load()?;
        Ok(depot)
    }

    /// Lets epochs pass, as time does on Walrus. For tests and rehearsals.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub fn set_epoch(&self, epoch: u32) -> Result<(), DepotError> {
        let _lock = self.lock()?;
        let mut state = self.load()?;
        state.epoch = epoch;
        self.write(&state)
    }

    /// The file of a blob, whether it is there or not.
    #[must_use]
    pub fn blob_file(&self, blob: &BlobId) -> PathBuf {
        self.blobs().join(blob.to_string())
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    fn end_file(&self, blob: &BlobId) -> PathBuf {
        self.blobs().join(format!("{blob}.end"))
    }

    fn state_file(&self) -> PathBuf {
        self.root.join("archive.json")
    }

    fn lock(&self) -> Result<File, DepotError> {
        let locking = |error| {
            DepotError::local(format_args!("lock the archive {}", self.root.display()), error)
        };
        let file = File::create(self.root.join(".lock")).map_err(locking)?;
        file.lock().map_err(locking)?;
        Ok(file)
    }

    fn load(&self) -> Result<StateFile, DepotError> {
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

    fn write(&self, state: &StateFile) -> Result<(), DepotError> {
        let path = self.state_file();
        let writing = |error| DepotError::local(format_args!("write {}", path.display()), error);
        let text =
            serde_json::to_vec_pretty(state).map_err(|error| writing(io::Error::other(error)))?;
        replace(&path, &text).map_err(writing)
    }

    fn shards(state: &StateFile) -> Result<ShardCount, DepotError> {
        ShardCount::new(state.shards).map_err(|error| {
            DepotError::new(Kind::Corrupt, "the archive's shard count is not one").because(error)
        })
    }

    fn id(state: &StateFile) -> Result<[u8; 32], DepotError> {
        bytes32(&state.id)
    }

    fn read_blob(&self, blob: BlobId, range: Range<u64>) -> Result<Bytes, DepotError> {
        let path = self.blob_file(&blob);
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                DepotError::new(Kind::Missing, format!("blob {blob} is not there"))
            }
            _ => DepotError::local(format_args!("read {}", path.display()), error),
        })?;
        let mut bytes = vec![0; range.end.saturating_sub(range.start) as usize];
        file.read_exact_at(&mut bytes, range.start).map_err(|error| {
            DepotError::new(Kind::Corrupt, format!("blob {blob} is shorter than it should be"))
                .because(error)
        })?;
        Ok(bytes.into())
    }

    /// The id of a file's content.
    fn blob_id(shards: ShardCount, file: &Path) -> Result<(BlobId, u64), DepotError> {
        let reading = |error| DepotError::local(format_args!("read {}", file.display()), error);
        let opened = File::open(file).map_err(reading)?;
        let length = opened.metadata().map_err(reading)?.len();
        let metadata = shards
            .metadata_of_source(length, ENCODE_MEMORY, |at, bytes| opened.read_exact_at(bytes, at))
            .map_err(|error| {
                DepotError::new(Kind::Refused, format!("cannot encode {}", file.display()))
                    .because(error)
            })?;
        Ok((*metadata.id(), length))
    }

    fn store_file(&self, file: &Path, epochs: u32) -> Result<Stored, DepotError> {
        let state = self.load()?;
        if epochs == 0 || epochs > EPOCHS_MAX {
            return Err(DepotError::new(
                Kind::Refused,
                format!("a blob is stored for 1 to {EPOCHS_MAX} epochs"),
            ));
        }
        let (blob, _) = Self::blob_id(Self::shards(&state)?, file)?;
        let target = self.blob_file(&blob);
        let storing = |error| DepotError::local(format_args!("store {}", target.display()), error);
        let _lock = self.lock()?;
        if !target.exists() {
            let partial = self.blobs().join(format!(".{blob}.part"));
            fs::copy(file, &partial).map_err(storing)?;
            File::open(&partial).and_then(|copy| copy.sync_all()).map_err(storing)?;
            fs::rename(&partial, &target).map_err(storing)?;
        }
        let end_epoch = self.end_of(&blob)?.unwrap_or(0).max(state.epoch.saturating_add(epochs));
        self.set_end(&blob, end_epoch)?;
        Ok(Stored { blob, object: [0; 32], end_epoch })
    }

    fn end_of(&self, blob: &BlobId) -> Result<Option<u32>, DepotError> {
        match fs::read_to_string(self.end_file(blob)) {
            Ok(text) => Ok(text.trim().parse().ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(DepotError::local(format_args!("read the end of blob {blob}"), error))
            }
        }
    }

    fn set_end(&self, blob: &BlobId, end: u32) -> Result<(), DepotError> {
        replace(&self.end_file(blob), end.to_string().as_bytes())
            .map_err(|error| DepotError::local(format_args!("write the end of blob {blob}"), error))
    }

    fn standing_of(&self, blob: &BlobId) -> Result<Standing, DepotError> {
        let epoch = self.load()?.epoch;
        Ok(match self.end_of(blob)? {
            Some(end) if end > epoch && self.blob_file(blob).exists() => Standing::Until(end),
            _ => Standing::Gone,
        })
    }

    fn apply(&self, expected: u64, update: &Update) -> Result<u64, DepotError> {
        let refused = |message: String| DepotError::new(Kind::Refused, message);
        let _lock = self.lock()?;
        let mut state = self.load()?;
        if state.frozen {
            return Err(refused(
                "the archive is frozen: nothing can be published to it any more".into(),
            ));
        }
        if state.sequence != expected {
            return Err(DepotError::new(
                Kind::Conflict,
                "somebody else published to the archive in the meantime",
            ));
        }
        let epoch = state.epoch;
        let check = |blob: &BlobId, end_epoch: u32| match self.standing_of(blob)? {
            Standing::Until(end) if end >= end_epoch && end_epoch > epoch => Ok(()),
            _ => Err(refused(format!("blob {blob} is not stored until epoch {end_epoch}"))),
        };
        match update {
            Update::Beat => {}
            Update::Extend { position, end_epoch } => {
                let level = state.levels.get_mut(*position as usize);
                let Some(level) = level.filter(|level| level.end_epoch < *end_epoch) else {
                    return Err(refused("there is no such level, or it ends later already".into()));
                };
                check(&level.blob, *end_epoch)?;
                level.end_epoch = *end_epoch;
            }
            Update::Level { level, keep, place } => {
                check(&level.stored.blob, level.end_epoch)?;
                let rising = keep.is_sorted_by(|a, b| a < b) && keep.len() < LEVELS_MAX;
                if !rising || *place > keep.len() as u64 || level.leaves == 0 {
                    return Err(refused(
                        "the levels to be kept are out of order, or too many".into(),
                    ));
                }
                let mut levels: Vec<Option<LevelFile>> =
                    state.levels.into_iter().map(Some).collect();
                let mut kept = Vec::with_capacity(keep.len() + 1);
                for position in keep {
                    match levels.get_mut(*position as usize).and_then(Option::take) {
                        Some(level) if level.end_epoch > state.epoch => kept.push(level),
                        _ => {
                            return Err(refused(
                                "a level to be kept does not exist, or has ended".into(),
                            ));
                        }
                    }
                }
                let new = LevelFile {
                    root: HEXLOWER.encode(&level.root),
                    leaves: level.leaves,
                    blob: level.stored.blob,
                    size: level.size,
                    end_epoch: level.end_epoch,
                };
                kept.insert(*place as usize, new);
                state.levels = kept;
            }
        }
        state.sequence += 1;
        state.updated_ms = now_ms();
        self.write(&state)?;
        Ok(state.sequence)
    }
}

fn bytes32(hex: &str) -> Result<[u8; 32], DepotError> {
    let bytes = HEXLOWER.decode(hex.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| {
        DepotError::new(Kind::Corrupt, "an id or root in the archive's state is malformed")
    })
}

/// Writes a file so that there is always the old or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    io::Write::write_all(&mut file, bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Runs blocking work where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DepotError> + Send + 'static,
) -> Result<T, DepotError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(DepotError::new(Kind::Local, "a task of this program ended early")),
    }
}

impl Blobs for DirDepot {
    fn read(
        &self,
        blob: BlobId,
        _size: u64,
        range: Range<u64>,
    ) -> BoxFuture<'_, Result<Bytes, DepotError>> {
        let depot = self.clone();
        Box::pin(blocking(move || depot.read_blob(blob, range)))
    }

    fn read_verified(
        &self,
        blob: BlobId,
        _size: u64,
        range: Range<u64>,
    ) -> BoxFuture<'_, Result<Bytes, DepotError>> {
        let depot = self.clone();
        Box::pin(blocking(move || {
            let (found, _) = Self::blob_id(Self::shards(&depot.load()?)?, &depot.blob_file(&blob))?;
            if found != blob {
                return Err(DepotError::new(
                    Kind::Corrupt,
                    format!("the file of blob {blob} has been changed"),
                ));
            }
            depot.read_blob(blob, range)
        }))
    }

    fn store<'a>(
        &'a self,
        file: &'a Path,
        epochs: u32,
        _certify: Certify,
    ) -> BoxFuture<'a, Result<Stored, DepotError>> {
        let (depot, file) = (self.clone(), file.to_owned());
        Box::pin(blocking(move || depot.store_file(&file, epochs)))
    }

    fn standing(
        &self,
        blob: BlobId,
        _object: [u8; 32],
    ) -> BoxFuture<'_, Result<Standing, DepotError>> {
        let depot = self.clone();
        Box::pin(blocking(move || depot.standing_of(&blob)))
    }

    fn extend(
        &self,
        blob: BlobId,
        _object: [u8; 32],
        end_epoch: u32,
    ) -> BoxFuture<'_, Result<u32, DepotError>> {
        let depot = self.clone();
        Box::pin(blocking(move || {
            let _lock = depot.lock()?;
            let epoch = depot.load()?.epoch;
            match depot.standing_of(&blob)? {
                Standing::Until(end) if end >= end_epoch => Ok(end),
                Standing::Until(_) if end_epoch <= epoch + EPOCHS_MAX => {
                    depot.set_end(&blob, end_epoch)?;
                    Ok(end_epoch)
                }
                Standing::Until(_) => {
                    let message =
                        format!("a blob is stored for at most {EPOCHS_MAX} epochs from now");
                    Err(DepotError::new(Kind::Refused, message))
                }
                _ => {
                    Err(DepotError::new(Kind::Missing, format!("blob {blob} is no longer stored")))
                }
            }
        }))
    }

    fn blob_bytes_max(&self) -> BoxFuture<'_, Result<u64, DepotError>> {
        let depot = self.clone();
        Box::pin(blocking(move || Ok(Self::shards(&depot.load()?)?.max_blob_size())))
    }
}

impl Registry for DirDepot {
    fn state(&self) -> BoxFuture<'_, Result<State, DepotError>> {
        let depot = self.clone();
        Box::pin(blocking(move || {
            let file = depot.load()?;
            let levels = file
                .levels
                .iter()
                .map(|level| {
                    Ok(LevelRecord {
                        root: bytes32(&level.root)?,
                        leaves: level.leaves,
                        blob: level.blob,
                        object: [0; 32],
                        size: level.size,
                        end_epoch: level.end_epoch,
                    })
                })
                .collect::<Result<_, DepotError>>()?;
            Ok(State {
                id: Self::id(&file)?,
                sequence: file.sequence,
                updated_ms: file.updated_ms,
                levels,
                frozen: file.frozen,
                store_dir: file.store_dir,
                name: file.name,
            })
        }))
    }

    fn epoch(&self) -> BoxFuture<'_, Result<u32, DepotError>> {
        let depot = self.clone();
        Box::pin(blocking(move || Ok(depot.load()?.epoch)))
    }

    fn update<'a>(
        &'a self,
        expected: u64,
        update: &'a Update,
    ) -> BoxFuture<'a, Result<u64, DepotError>> {
        let (depot, update) = (self.clone(), update.clone());
        Box::pin(blocking(move || depot.apply(expected, &update)))
    }
}
