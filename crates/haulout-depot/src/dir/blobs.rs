//! The blobs of an archive in a directory: a file each, and one that says how long it lasts.

use super::{DirDepot, EPOCHS_MAX, replace};
use crate::{DepotError, Kind, Standing, Stored};
use bytes::Bytes;
use redstuff::{BlobId, ShardCount};
use std::{
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Memory for working out a blob id, besides a fixed part.
const ENCODE_MEMORY: usize = 64 << 20;

impl DirDepot {
    fn end_file(&self, blob: &BlobId) -> PathBuf {
        self.blobs().join(format!("{blob}.end"))
    }

    pub(super) fn read_blob(&self, blob: BlobId, range: Range<u64>) -> Result<Bytes, DepotError> {
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
    pub(super) fn blob_id(shards: ShardCount, file: &Path) -> Result<(BlobId, u64), DepotError> {
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

    pub(super) fn store_file(&self, file: &Path, epochs: u32) -> Result<Stored, DepotError> {
        let state = self.load()?;
        if epochs == 0 || epochs > EPOCHS_MAX {
            return Err(DepotError::new(
                Kind::Refused,
                format!("a blob is stored for 1 to {EPOCHS_MAX} epochs"),
            ));
        }
        let (blob, _) = Self::blob_id(state.shards()?, file)?;
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

    pub(super) fn standing_of(&self, blob: &BlobId) -> Result<Standing, DepotError> {
        let epoch = self.load()?.epoch;
        Ok(match self.end_of(blob)? {
            Some(end) if end > epoch && self.blob_file(blob).exists() => Standing::Until(end),
            _ => Standing::Gone,
        })
    }

    /// Lets a blob last until `end_epoch`; gives when it ends now.
    pub(super) fn extend_blob(&self, blob: &BlobId, end_epoch: u32) -> Result<u32, DepotError> {
        let _lock = self.lock()?;
        let epoch = self.load()?.epoch;
        match self.standing_of(blob)? {
            Standing::Until(end) if end >= end_epoch => Ok(end),
            Standing::Until(_) if end_epoch <= epoch.saturating_add(EPOCHS_MAX) => {
                self.set_end(blob, end_epoch)?;
                Ok(end_epoch)
            }
            Standing::Until(_) => {
                let message = format!("a blob is stored for at most {EPOCHS_MAX} epochs from now");
                Err(DepotError::new(Kind::Refused, message))
            }
            _ => Err(DepotError::new(Kind::Missing, format!("blob {blob} is no longer stored"))),
        }
    }
}
