//! A directory cache that others upload to: what `nix copy --to http://…` sends, checked.
//!
//! A NAR file is taken when its name is the hash of its bytes. A narinfo is taken when the judge
//! believes its signatures and the file it names unpacks to exactly the NAR that was signed; it is
//! then written anew, never as it was sent. Nothing is given out before its narinfo was taken.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use haulout_nix::hash::{AnyHash, HashAlgorithm};
use haulout_nix::nar::{self, NarHasher};
use haulout_nix::{HashPart, NarHash, NarInfo, StoreDir, narinfo};

use super::place::{beside, rename};
use crate::cache_info::{CACHE_INFO, CacheInfo};
use crate::decompress::decoder;
use crate::location::relative_key;
use crate::upstreams::Judge;

/// Uploads at a time; each holds an open file and, at the end, a core.
const UPLOADS_MAX: usize = 32;

/// Why an upload is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is not what it says it is.
    #[error("{0}")]
    Wrong(String),
    /// No key this machine trusts signed it.
    #[error("not taken: {0}")]
    NotTrusted(String),
    /// There is no room for it.
    #[error("no room: uploads may take {0} bytes")]
    Full(u64),
    /// Too many uploads at a time.
    #[error("too many uploads at a time")]
    Busy,
    /// The sender broke off.
    #[error("the upload broke off")]
    Cut,
    /// The disk, most likely.
    #[error("cannot be written")]
    Io(#[from] io::Error),
}

/// The directory. Cheap to clone.
#[derive(Clone)]
pub struct Receiver {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    store_dir: StoreDir,
    judge: Arc<Judge>,
    /// Most bytes of all NAR files together, and how many there are.
    quota: u64,
    used: AtomicU64,
    turns: tokio::sync::Semaphore,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("root", &self.inner.root).finish_non_exhaustive()
    }
}

/// A NAR file's name: `nar/<hash of the file>.nar[.<suffix>]`.
fn file_hash(name: &str) -> Option<NarHash> {
    let (hash, suffix) = name.strip_prefix("nar/")?.split_once('.')?;
    let known = ["nar", "nar.xz", "nar.zst", "nar.bz2", "nar.gz", "nar.br", "nar.lzip", "nar.lz4"];
    known.contains(&suffix).then(|| NarHash::from_nix32(hash).ok())?
}

impl Receiver {
    /// Opens the directory, which is made if need be. Blocking.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(
        root: PathBuf,
        store_dir: StoreDir,
        quota: u64,
        judge: Arc<Judge>,
    ) -> io::Result<Self> {
        let nars = root.join("nar");
        std::fs::create_dir_all(&nars)?;
        let info = root.join(CACHE_INFO);
        if !info.exists() {
            let mut file = beside(&root)?;
            file.write_all(CacheInfo::text(&store_dir, super::PRIORITY).as_bytes())?;
            rename(file, &info)?;
        }
        let mut used = 0;
        for entry in std::fs::read_dir(&nars)? {
            used += entry?.metadata()?.len();
        }
        let (used, turns) = (AtomicU64::new(used), tokio::sync::Semaphore::new(UPLOADS_MAX));
        Ok(Self { inner: Arc::new(Inner { root, store_dir, judge, quota, used, turns }) })
    }

    /// Whether a NAR file of that name could be one, and its bytes on disk if it is there.
    pub async fn size_of(&self, name: &str) -> Option<u64> {
        file_hash(name)?;
        let meta = tokio::fs::metadata(self.inner.root.join(name)).await.ok()?;
        meta.is_file().then_some(meta.len())
    }

    /// A NAR file, open.
    pub async fn open_file(&self, name: &str) -> Option<tokio::fs::File> {
        file_hash(name)?;
        tokio::fs::File::open(self.inner.root.join(name)).await.ok()
    }

    /// The narinfo of something that was uploaded.
    pub async fn narinfo(&self, hash: HashPart) -> Option<Bytes> {
        let file = self.inner.root.join(format!("{hash}.narinfo"));
        tokio::fs::read(file).await.ok().map(Bytes::from)
    }

    /// Takes a NAR file.
    ///
    /// # Errors
    /// See [`Refusal`]; nothing of it is kept then.
    pub async fn put_file(
        &self,
        name: &str,
        mut body: impl Stream<Item = Result<Bytes, Refusal>> + Unpin,
    ) -> Result<(), Refusal> {
        let inner = &self.inner;
        let Some(wanted) = file_hash(name) else {
            return Err(Refusal::Wrong("not a name of a NAR file".into()));
        };
        let _turn = inner.turns.try_acquire().map_err(|_| Refusal::Busy)?;
        let path = inner.root.join(name);
        let dir = inner.root.join("nar");
        let mut file = blocking(move || beside(&dir)).await?;
        let mut hasher = NarHasher::new();
        while let Some(piece) = body.next().await {
            let piece = piece?;
            if inner.used.load(SeqCst) + hasher.size() + piece.len() as u64 > inner.quota {
                return Err(Refusal::Full(inner.quota));
            }
            (file, hasher) = blocking(move || {
                file.write_all(&piece)?;
                hasher.update(&piece);
                Ok((file, hasher))
            })
            .await?;
        }
        let whole = hasher.finish();
        if whole.hash != wanted {
            return Err(Refusal::Wrong("the name of the file is not the hash of its bytes".into()));
        }
        let was_there = blocking(move || {
            let was_there = path.exists();
            file.as_file().sync_all()?;
            rename(file, &path)?;
            Ok(was_there)
        })
        .await?;
        if !was_there {
            inner.used.fetch_add(whole.size, SeqCst);
        }
        Ok(())
    }

    /// Takes a narinfo, whose NAR file must be there.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn put_narinfo(&self, hash: HashPart, text: &[u8]) -> Result<(), Refusal> {
        let inner = &self.inner;
        let _turn = inner.turns.try_acquire().map_err(|_| Refusal::Busy)?;
        let mut narinfo = NarInfo::parse(text, &inner.store_dir)
            .map_err(|error| Refusal::Wrong(format!("narinfo: {error}")))?;
        if narinfo.info.path.hash_part() != hash {
            return Err(Refusal::Wrong("the narinfo is of another path".into()));
        }
        let key = relative_key(&narinfo.url, "").map_err(|why| Refusal::Wrong(why.into()))?;
        let Some(stored) = file_hash(key) else {
            return Err(Refusal::Wrong("its URL is not that of a NAR file".into()));
        };
        (inner.judge)(&narinfo.info).map_err(Refusal::NotTrusted)?;
        let (path, unpacked) = (inner.root.join(key), narinfo.compression.clone());
        let (size, max) = (narinfo.info.nar_size, narinfo.info.nar_size.saturating_add(1));
        let checked = blocking(move || {
            let file = File::open(&path)?;
            let file_size = file.metadata()?.len();
            let plain = decoder(&unpacked, BufReader::with_capacity(1 << 18, file))?;
            Ok((nar::check(plain.take(max)).map_err(|error| error.to_string()), file_size))
        })
        .await;
        let (checked, file_size) = match checked {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Refusal::Wrong("its NAR file was not uploaded".into()));
            }
            other => other?,
        };
        let digest = checked.map_err(|error| Refusal::Wrong(format!("not a NAR: {error}")))?;
        if digest.hash != narinfo.info.nar_hash || digest.size != size {
            return Err(Refusal::Wrong("the NAR is not the one the narinfo speaks of".into()));
        }
        narinfo.url = key.to_owned();
        narinfo.file_hash = AnyHash::new(HashAlgorithm::Sha256, stored.as_bytes());
        narinfo.file_size = Some(file_size);
        let text = narinfo.to_text(&inner.store_dir);
        debug_assert!(text.len() <= narinfo::TEXT_BYTES_MAX);
        let root = inner.root.clone();
        blocking(move || {
            let mut file = beside(&root)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            rename(file, &root.join(format!("{hash}.narinfo")))
        })
        .await?;
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
