//! Where the files of a target go.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use object_store::{Attribute, Attributes, ObjectStore, ObjectStoreExt, PutOptions, PutPayload};
use tempfile::NamedTempFile;

use super::TargetError;
use super::pack::Out;
use crate::cache_info::CACHE_INFO_BYTES_MAX;
use crate::store::s3::S3;

/// Files up to this size go to a bucket in one request, larger ones in parts.
const ONE_REQUEST_BYTES: u64 = 16 << 20;
/// The least size of a part, and how many parts a service takes at most.
const PART_BYTES: u64 = 8 << 20;
const PARTS_MAX: u64 = 9_000;
/// How long one request may take: 8 MiB at 1 Mbit/s take 70 s.
const REQUEST_MAX: Duration = Duration::from_secs(180);
/// What unfinished files are called, so that nobody mistakes them.
const TEMPORARY_PREFIX: &str = ".haulout-unfinished-";
/// Unfinished files older than this are what a kill left behind.
const LEFT_BEHIND: Duration = Duration::from_secs(24 * 3600);

/// A kind of target.
#[derive(Debug)]
pub(super) enum Place {
    Dir(PathBuf),
    S3(Box<S3>),
}

/// A file without its final name; gone when dropped.
#[derive(Debug)]
pub(super) enum Temporary {
    /// In the target's directory, to be renamed.
    Beside(NamedTempFile),
    /// To be uploaded.
    Spool(File),
}

impl Temporary {
    pub(super) fn file(&mut self) -> io::Result<Out> {
        match self {
            Self::Beside(file) => file.as_file().try_clone(),
            Self::Spool(file) => file.try_clone(),
        }
    }
}

fn failed(file: &str) -> impl Fn(io::Error) -> TargetError {
    let file = file.to_owned();
    move |source| TargetError::Write { file: file.clone(), source }
}

impl Place {
    pub(super) fn temporary(&self) -> Result<Temporary, TargetError> {
        match self {
            Self::Dir(root) => {
                let dir = root.join("nar");
                beside(&dir).map(Temporary::Beside).map_err(failed(&dir.display().to_string()))
            }
            Self::S3(_) => {
                let dir = std::env::temp_dir();
                let file = tempfile::tempfile_in(&dir).map(Temporary::Spool);
                file.map_err(failed(&dir.display().to_string()))
            }
        }
    }

    /// Bytes of a file; `None`: there is none.
    pub(super) async fn size_of(&self, name: &str) -> Result<Option<u64>, TargetError> {
        match self {
            Self::Dir(root) => match tokio::fs::metadata(root.join(name)).await {
                Ok(meta) => Ok(Some(meta.len())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(failed(name)(error)),
            },
            Self::S3(s3) => match timed(s3.store().head(&s3.path(name))).await {
                Ok(meta) => Ok(Some(meta.size)),
                // Who may not list a bucket is told "denied" instead of "not there".
                Err(error) if is_absent(&error) => Ok(None),
                Err(error) => Err(failed(name)(error)),
            },
        }
    }

    /// A small file; `None`: there is none.
    pub(super) async fn read(&self, name: &str) -> Result<Option<Bytes>, TargetError> {
        let read = match self {
            Self::Dir(root) => tokio::fs::read(root.join(name)).await.map(Bytes::from),
            Self::S3(s3) => {
                let max = 0..CACHE_INFO_BYTES_MAX as u64;
                timed(s3.store().get_range(&s3.path(name), max)).await
            }
        };
        match read {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(failed(name)(error)),
        }
    }

    /// Writes a small file as a whole.
    pub(super) async fn write(
        &self,
        name: &str,
        kind: &'static str,
        bytes: Bytes,
    ) -> Result<(), TargetError> {
        match self {
            Self::Dir(root) => {
                let path = root.join(name);
                let written = tokio::task::spawn_blocking(move || {
                    let mut file = beside(path.parent().unwrap_or_else(|| Path::new("/")))?;
                    io::Write::write_all(&mut file, &bytes)?;
                    file.as_file().sync_all()?;
                    rename(file, &path)
                });
                written.await.map_err(io::Error::other).and_then(|done| done).map_err(failed(name))
            }
            Self::S3(s3) => {
                let options = PutOptions { attributes: kind_of(kind), ..PutOptions::default() };
                let path = s3.path(name);
                timed(s3.store().put_opts(&path, PutPayload::from(bytes), options))
                    .await
                    .map(|_| ())
                    .map_err(failed(name))
            }
        }
    }

    /// Puts a finished file in its place.
    pub(super) async fn put_file(
        &self,
        name: &str,
        kind: &'static str,
        file: Temporary,
        size: u64,
    ) -> Result<(), TargetError> {
        match (self, file) {
            (Self::Dir(root), Temporary::Beside(file)) => {
                let path = root.join(name);
                let renamed = tokio::task::spawn_blocking(move || rename(file, &path)).await;
                renamed.map_err(io::Error::other).and_then(|done| done).map_err(failed(name))
            }
            (Self::S3(s3), Temporary::Spool(file)) => {
                upload(s3, name, kind, file, size).await.map_err(failed(name))
            }
            _ => Err(failed(name)(io::Error::other("a file of another place"))),
        }
    }
}

async fn upload(
    s3: &S3,
    name: &str,
    kind: &'static str,
    mut file: File,
    size: u64,
) -> io::Result<()> {
    let (store, path) = (s3.store(), s3.path(name));
    file.rewind()?;
    if size <= ONE_REQUEST_BYTES {
        let bytes = piece(file, size).await?.0;
        let options = PutOptions { attributes: kind_of(kind), ..PutOptions::default() };
        return timed(store.put_opts(&path, PutPayload::from(bytes), options)).await.map(|_| ());
    }
    let options =
        object_store::PutMultipartOptions { attributes: kind_of(kind), ..Default::default() };
    let mut upload = timed(store.put_multipart_opts(&path, options)).await?;
    let part_bytes = PART_BYTES.max(size.div_ceil(PARTS_MAX));
    let sent = async {
        let mut left = size;
        while left > 0 {
            let (bytes, back) = piece(file, left.min(part_bytes)).await?;
            file = back;
            left -= bytes.len() as u64;
            timed(upload.put_part(PutPayload::from(bytes))).await?;
        }
        timed(upload.complete()).await.map(|_| ())
    }
    .await;
    if sent.is_err() {
        // Parts that nobody completes are billed for ever.
        let _ = timed(upload.abort()).await;
    }
    sent
}

/// The next bytes of a file, read on a thread for blocking work.
async fn piece(mut file: File, len: u64) -> io::Result<(Bytes, File)> {
    tokio::task::spawn_blocking(move || {
        // Fits: a part is at most some hundred MiB.
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        file.read_exact(&mut bytes)?;
        Ok((Bytes::from(bytes), file))
    })
    .await
    .map_err(io::Error::other)?
}

async fn timed<T>(request: impl Future<Output = object_store::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(REQUEST_MAX, request).await {
        Ok(done) => done.map_err(io::Error::from),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 180 s")),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}

fn kind_of(kind: &'static str) -> Attributes {
    Attributes::from_iter([(Attribute::ContentType, kind)])
}

/// A new file in `dir`, which is made if need be.
pub(super) fn beside(dir: &Path) -> io::Result<NamedTempFile> {
    std::fs::create_dir_all(dir)?;
    sweep(dir);
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(TEMPORARY_PREFIX);
    // Temporary files are for their owner alone; a cache is for everybody.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    builder.permissions(readable).tempfile_in(dir)
}

/// Removes what kills left behind.
fn sweep(dir: &Path) {
    static SWEPT: std::sync::Once = std::sync::Once::new();
    SWEPT.call_once(|| {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let ours = entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX);
            let age = entry.metadata().and_then(|meta| meta.modified()).ok();
            let age = age.and_then(|at| SystemTime::now().duration_since(at).ok());
            if ours && age.is_some_and(|age| age > LEFT_BEHIND) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    });
}

pub(super) fn rename(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.persist(path).map_err(|error| error.error)?;
    // The name is durable when the directory is.
    File::open(path.parent().unwrap_or_else(|| Path::new("/")))?.sync_all()
}
