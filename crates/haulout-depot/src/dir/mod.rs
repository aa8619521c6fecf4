//! An archive in a directory: blobs are files named by their blob ids, the state is a JSON file.
//!
//! For rehearsals (the ids and sizes are those that Walrus would give) and for tests. Its rules are the
//! contract's.

mod blobs;
mod state;

use crate::{
    Blobs, BoxFuture, Certify, DepotError, Kind, Registry, Standing, State, Stored, Update,
};
use bytes::Bytes;
use haulout_archive::contract::TEXT_BYTES_MAX;
use redstuff::{BlobId, ShardCount};
use state::{StateFile, now_ms};
use std::{
    fs::{self, File},
    io,
    ops::Range,
    path::{Path, PathBuf},
};

/// Most epochs ahead, as on Walrus.
const EPOCHS_MAX: u32 = 53;

/// An archive in a directory.
#[derive(Debug, Clone)]
pub struct DirDepot {
    root: PathBuf,
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
        let id = blake3::hash(seed.as_bytes()).to_hex().to_string();
        depot.write(&StateFile::empty(id, shards, store_dir, name))?;
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

    fn lock(&self) -> Result<File, DepotError> {
        let locking = |error| {
            DepotError::local(format_args!("lock the archive {}", self.root.display()), error)
        };
        let file = File::create(self.root.join(".lock")).map_err(locking)?;
        file.lock().map_err(locking)?;
        Ok(file)
    }
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
            let (found, _) = Self::blob_id(depot.load()?.shards()?, &depot.blob_file(&blob))?;
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
        Box::pin(blocking(move || depot.extend_blob(&blob, end_epoch)))
    }

    fn blob_bytes_max(&self) -> BoxFuture<'_, Result<u64, DepotError>> {
        let depot = self.clone();
        Box::pin(blocking(move || Ok(depot.load()?.shards()?.max_blob_size())))
    }
}

impl Registry for DirDepot {
    fn state(&self) -> BoxFuture<'_, Result<State, DepotError>> {
        let depot = self.clone();
        Box::pin(blocking(move || depot.load()?.into_state()))
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
