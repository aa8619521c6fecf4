//! A cache in a directory.

use std::io::{self, SeekFrom};
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::{Got, Object, Validator, Want};
use crate::decompress::ByteStream;
use crate::error::Trouble;

/// Bytes read at a time.
const READ_BYTES: usize = 128 * 1024;

#[derive(Debug)]
pub(crate) struct DirStore {
    root: PathBuf,
}

impl DirStore {
    pub(crate) const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) async fn get(&self, want: &Want<'_>) -> Result<Got, Trouble> {
        // The key has neither `..` nor a leading slash: `relative_key` saw to that.
        let name = percent_encoding::percent_decode_str(want.key).decode_utf8_lossy();
        let path = self.root.join(&*name);
        let trouble = |error: io::Error| Trouble::Io(format!("{}: {error}", path.display()));
        // A FIFO would block the open.
        let meta = match tokio::fs::metadata(&path).await {
            Ok(meta) if meta.is_file() => meta,
            Ok(_) => return Err(Trouble::Io(format!("{}: not a file", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.absent().await;
            }
            Err(error) => return Err(trouble(error)),
        };
        let changed =
            meta.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let validator =
            changed.map(|at| Validator::Etag(format!("{}-{}", meta.len(), at.as_nanos())));
        if want.unless.is_some() && want.unless == validator.as_ref() {
            return Ok(Got::NotModified(None));
        }
        if want.part_of.is_some() && want.part_of != validator.as_ref() {
            return Err(Trouble::Changed);
        }
        let total = meta.len();
        let end = want.end.unwrap_or(total).min(total);
        let mut file = File::open(&path).await.map_err(trouble)?;
        if want.from > 0 {
            file.seek(SeekFrom::Start(want.from)).await.map_err(trouble)?;
        }
        Ok(Got::Object(Object {
            from: want.from,
            total: Some(total),
            validator,
            lifetime: None,
            is_page: false,
            encoding: None,
            body: read(file, end.saturating_sub(want.from)),
        }))
    }

    /// A file that is not there in a cache that is not there (a disk that is not mounted) is
    /// trouble, not an answer.
    async fn absent(&self) -> Result<Got, Trouble> {
        match tokio::fs::metadata(&self.root).await {
            Ok(meta) if meta.is_dir() => Ok(Got::Absent(None)),
            Ok(_) => Err(Trouble::Io(format!("{} is no directory", self.root.display()))),
            Err(error) => Err(Trouble::Io(format!("{}: {error}", self.root.display()))),
        }
    }
}

fn read(file: File, len: u64) -> ByteStream {
    stream::unfold(Some((file, len)), |state| async {
        let (mut file, left) = state?;
        if left == 0 {
            return None;
        }
        let mut piece = BytesMut::with_capacity(READ_BYTES);
        let mut limited = (&mut file).take(left.min(READ_BYTES as u64));
        match limited.read_buf(&mut piece).await {
            Ok(0) => Some((Err(Trouble::Changed), None)),
            Ok(n) => {
                let piece: Bytes = piece.freeze();
                Some((Ok(piece), Some((file, left - n as u64))))
            }
            Err(error) => Some((Err(Trouble::Io(error.to_string())), None)),
        }
    })
    .boxed()
}
