//! Writing a binary cache that any Nix can read: into a directory or an S3 bucket.
//!
//! A NAR is complete in its place before the narinfo that names it is written, and each file
//! appears under its name only when it is whole. Whoever reads meanwhile, and whoever starts again
//! after a kill, sees only what is true.

mod pack;
mod place;
mod receive;

use std::io::{self, Write};

use haulout_nix::hash::{AnyHash, HashAlgorithm};
use haulout_nix::{Compression, HashPart, NarInfo, PathInfo, StoreDir, narinfo};

use crate::address::{Address, CacheUrl};
use crate::cache_info::{CACHE_INFO, CacheInfo};
use crate::http::{Client, Proxies, is_public, system_tls};
use crate::store::s3::{Environment, S3};
pub use pack::{Packing, ParsePackingError};
use place::Place;
pub use receive::{Receiver, Refusal};

/// The content type of NARs, as Nix uploads them.
const NAR_TYPE: &str = "application/x-nix-nar";
/// What a cache that we make says of its priority: that of cache.nixos.org.
const PRIORITY: i64 = 40;

/// Why something could not be written.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// This kind of cache cannot be written.
    #[error("only directories (file://) and buckets (s3://) can be written")]
    Kind,
    /// No credentials, no certificates, a bad profile.
    #[error("{0}")]
    Setup(String),
    /// The target is a cache for another store.
    #[error("the target is of no use: {0}")]
    OtherStore(String),
    /// A file of the target could not be written or looked at.
    #[error("cannot write or look at {file}")]
    Write {
        /// Its name in the cache.
        file: String,
        /// What the system or the service said.
        source: io::Error,
    },
    /// The path could not be read.
    #[error("{path} cannot be read")]
    Read {
        /// The path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The path's contents are not what its signatures say.
    #[error("{path} is damaged: its contents are not those that were registered")]
    Damaged {
        /// The path.
        path: String,
    },
}

/// A NAR that is in its place.
#[derive(Debug, Clone)]
pub struct Placed {
    url: String,
    compression: Compression,
    file_hash: AnyHash,
    /// Bytes of the file.
    pub file_size: u64,
    /// The file was there already.
    pub was_there: bool,
}

/// A binary cache to write to.
#[derive(Debug)]
pub struct Target {
    place: Place,
    store_dir: StoreDir,
    packing: Packing,
    name: String,
}

impl Target {
    /// Opens a target. Nothing is written before [`Target::prepare`].
    ///
    /// # Errors
    /// When it cannot be one.
    pub fn open(
        url: &CacheUrl,
        store_dir: StoreDir,
        packing: Packing,
    ) -> Result<Self, TargetError> {
        Self::open_with(url, store_dir, packing, None)
    }

    pub(crate) fn open_with(
        url: &CacheUrl,
        store_dir: StoreDir,
        packing: Packing,
        aws: Option<Environment>,
    ) -> Result<Self, TargetError> {
        let place = match &url.address {
            Address::Dir(root) => Place::Dir(root.clone()),
            Address::S3(bucket) => {
                let tls = system_tls().or_else(|why| {
                    let plain = bucket.endpoint.as_ref().is_some_and(|e| e.starts_with("http:"));
                    if plain { crate::tls_with(rustls::RootCertStore::empty()) } else { Err(why) }
                });
                let client =
                    Client::new(tls.map_err(TargetError::Setup)?, is_public, Proxies::from_env());
                let environment = aws.unwrap_or_else(Environment::of_process);
                let s3 = S3::open_for_writing(bucket, &environment, client);
                Place::S3(Box::new(s3.map_err(TargetError::Setup)?))
            }
            Address::Http { .. } => return Err(TargetError::Kind),
        };
        Ok(Self { place, store_dir, packing, name: url.as_str().to_owned() })
    }

    /// Its URL.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes it a cache: writes `nix-cache-info` unless there is one.
    ///
    /// # Errors
    /// When there is one for another store, or none can be written.
    pub async fn prepare(&self) -> Result<(), TargetError> {
        if let Some(text) = self.place.read(CACHE_INFO).await? {
            let info = CacheInfo::parse(&String::from_utf8_lossy(&text));
            return info.check(&self.store_dir).map_err(TargetError::OtherStore);
        }
        let text = CacheInfo::text(&self.store_dir, PRIORITY);
        self.place.write(CACHE_INFO, "text/x-nix-cache-info", text.into()).await
    }

    /// Whether the path is there.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub async fn has(&self, hash: HashPart) -> Result<bool, TargetError> {
        Ok(self.place.size_of(&format!("{hash}.narinfo")).await?.is_some())
    }

    /// Compresses and writes the NAR of a path. `dump` writes it raw; it runs on a thread for
    /// blocking work.
    ///
    /// # Errors
    /// When the path cannot be read, is not what `info` says, or the target cannot be written.
    pub async fn put_nar(
        &self,
        info: &PathInfo,
        dump: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> Result<Placed, TargetError> {
        let path = self.store_dir.display(&info.path);
        let (packing, file) = (self.packing, self.place.temporary()?);
        let packed = tokio::task::spawn_blocking(move || pack::pack(packing, file, dump));
        let packed = packed.await.map_err(io::Error::other).and_then(|done| done);
        let packed = packed.map_err(|source| TargetError::Read { path: path.clone(), source })?;
        if packed.nar.hash != info.nar_hash || packed.nar.size != info.nar_size {
            return Err(TargetError::Damaged { path });
        }
        let name = packed.file_hash.to_nix32();
        let url = format!("nar/{name}.nar{}", self.packing.suffix());
        let was_there = self.place.size_of(&url).await? == Some(packed.file_size);
        if !was_there {
            self.place.put_file(&url, NAR_TYPE, packed.file, packed.file_size).await?;
        }
        let file_hash = AnyHash::new(HashAlgorithm::Sha256, packed.file_hash.as_bytes());
        Ok(Placed {
            url,
            compression: self.packing.compression(),
            // Always 32 bytes.
            file_hash: file_hash.ok_or(TargetError::Kind)?,
            file_size: packed.file_size,
            was_there,
        })
    }

    /// Writes the narinfo, and with it makes the path visible. What it refers to should be there.
    ///
    /// # Errors
    /// When the target cannot be written.
    pub async fn put_narinfo(&self, info: PathInfo, nar: &Placed) -> Result<(), TargetError> {
        let name = format!("{}.narinfo", info.path.hash_part());
        let narinfo = NarInfo {
            info,
            url: nar.url.clone(),
            compression: nar.compression.clone(),
            file_hash: Some(nar.file_hash),
            file_size: Some(nar.file_size),
        };
        let text = narinfo.to_text(&self.store_dir);
        self.place.write(&name, narinfo::CONTENT_TYPE, text.into()).await
    }
}
