//! An existing binary cache as a source of paths.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use haulout_depot::{BoxFuture, DepotError, Kind, NarSource};
use haulout_nix::{HashPart, PathInfo, StoreDir};
use haulout_upstream::{Address, Answer, CacheUrl, Found, Options, Upstreams, decompress};
use std::sync::Arc;

use crate::error::{Context, Failure, Outcome};

/// How long an answer may take: nobody is kept waiting by this but the person who imports.
const BUDGET: Duration = Duration::from_secs(30);
/// Times that a question is asked which got no answer.
const TRIES: u32 = 3;

/// A binary cache.
#[derive(Debug)]
pub(super) struct CacheSource {
    upstreams: Upstreams,
}

impl CacheSource {
    /// The cache at a URL; with the hash parts in it where they can be listed (`file://`).
    pub(super) fn open(url: &str, store_dir: &str) -> Outcome<(Self, Option<Vec<HashPart>>)> {
        let bad = || format!("--from {url:?} is not the URL of a binary cache");
        let url: CacheUrl = url.parse().context(bad).map_err(|failure| {
            failure.hint(
                "such as https://cache.nixos.org, s3://bucket?region=…, file:///var/cache/nix",
            )
        })?;
        let dir: StoreDir =
            store_dir.parse().context(|| format!("{store_dir} is not a store directory"))?;
        // Signatures are kept, not judged: the archive's readers have their own lists of keys.
        let upstreams = Upstreams::new(Options::new(dir, |_| Ok(())));
        upstreams.add(&url).map_err(|why| Failure::new(bad()).hint(why))?;
        let listed = match &url.address {
            Address::Dir(path) => Some(list(path)?),
            _ => None,
        };
        Ok((Self { upstreams }, listed))
    }

    async fn found(&self, hash: HashPart) -> Result<Option<Arc<Found>>, DepotError> {
        let mut last = None;
        for _ in 0..TRIES {
            match self.upstreams.narinfo(hash, BUDGET).await {
                Answer::Found(found) => return Ok(Some(found)),
                Answer::Absent => return Ok(None),
                Answer::Unknown(trouble) => last = Some(trouble),
            }
            self.upstreams.forget(&hash);
        }
        let error =
            DepotError::new(Kind::Unavailable, format!("the cache does not answer for {hash}"));
        Err(match last {
            Some(trouble) => error.because(trouble),
            None => error,
        })
    }
}

/// The hash parts of a cache in a directory.
fn list(path: &Path) -> Outcome<Vec<HashPart>> {
    let reading = || format!("cannot list {}", path.display());
    let mut hashes = Vec::new();
    for entry in std::fs::read_dir(path).context(reading)? {
        let name = entry.context(reading)?.file_name();
        let hash = name.to_str().and_then(|name| name.strip_suffix(".narinfo"));
        hashes.extend(hash.and_then(|hash| hash.parse::<HashPart>().ok()));
    }
    Ok(hashes)
}

impl NarSource for CacheSource {
    fn info(&self, hash: HashPart) -> BoxFuture<'_, Result<Option<PathInfo>, DepotError>> {
        Box::pin(async move { Ok(self.found(hash).await?.map(|found| found.narinfo.info.clone())) })
    }

    fn dump<'a>(
        &'a self,
        info: &'a PathInfo,
        out: &'a mut (dyn Write + Send),
    ) -> BoxFuture<'a, Result<(), DepotError>> {
        Box::pin(async move {
            let failed = || {
                DepotError::new(
                    Kind::Unavailable,
                    format!("cannot read {} from the cache", info.path),
                )
            };
            let found = self.found(info.path.hash_part()).await?.ok_or_else(failed)?;
            let file = self
                .upstreams
                .open(&found.file, 0, None)
                .await
                .map_err(|trouble| failed().because(trouble))?;
            let mut nar = decompress(&found.narinfo.compression, info.nar_size, file)
                .map_err(|trouble| failed().because(trouble))?;
            while let Some(piece) = nar.next().await {
                let piece = piece.map_err(|trouble| failed().because(trouble))?;
                out.write_all(&piece).map_err(|error| {
                    DepotError::new(Kind::Local, format!("cannot pack {}", info.path))
                        .because(error)
                })?;
            }
            Ok(())
        })
    }
}
