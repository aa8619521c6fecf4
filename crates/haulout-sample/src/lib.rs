//! Makes a Nix store full of sample paths, without Nix: what the demo and the
//! tests move about.
//!
//! The result is a chroot store (`local?root=DIR` in Nix's words) that real Nix
//! works with: true NAR hashes, references that occur in the contents,
//! signatures, a database of schema 10. Everything follows from the seed, so
//! the same paths with the same hashes come out on every machine.
//!
//! ```no_run
//! # use haulout_sample::{Sample, SampleSpec};
//! # let key = haulout_nix::SecretKey::from_seed("demo-1", [7; 32]).unwrap();
//! let spec = SampleSpec::new(1, 300, 60 << 20, &key);
//! let store = Sample::generate("/tmp/office/a".as_ref(), spec)?;
//! println!("{} paths below {}", store.paths.len(), store.top);
//! # Ok::<(), haulout_sample::SampleError>(())
//! ```

mod content;
mod generate;
mod plan;
mod rng;
mod store;
mod tree;

use std::io;

use haulout_nix::db::{DbError, StoreLocation};
use haulout_nix::nar::NarError;
use haulout_nix::{PathInfo, SecretKey, StorePath};

pub use store::{create_empty, delete_all, install, register, register_all, remove};

/// Fewest paths a sample can have.
pub const PATHS_MIN: usize = 8;
/// Most paths a sample can have.
pub const PATHS_MAX: usize = 200_000;
/// Most bytes a sample can have: 64 GiB.
pub const BYTES_MAX: u64 = 64 << 30;

/// What a sample is to be like.
#[derive(Debug, Clone, Copy)]
pub struct SampleSpec<'k> {
    /// The same seed gives the same sample.
    pub seed: u64,
    /// How many paths, [`PATHS_MIN`] to [`PATHS_MAX`].
    pub paths: usize,
    /// How many bytes of NAR all paths have together, roughly.
    pub bytes: u64,
    /// Signs the paths.
    pub key: &'k SecretKey,
    /// Which state of the system, from 1. A later one is the same system after
    /// that many updates less one: most paths are as before.
    pub generation: u32,
    /// How many small paths are content-addressed, and not signed.
    pub content_addressed: usize,
    /// How many small paths nobody signed. Real Nix refuses these, and so the
    /// whole, wherever it checks signatures.
    pub unsigned: usize,
    /// How many small paths only another key signed, and that key.
    pub foreign: Option<(&'k SecretKey, usize)>,
}

impl<'k> SampleSpec<'k> {
    /// A sample in its first generation, wholly acceptable to whoever trusts
    /// `key`: some paths in a hundred content-addressed, all others signed.
    pub const fn new(seed: u64, paths: usize, bytes: u64, key: &'k SecretKey) -> Self {
        let content_addressed = paths / 30;
        Self {
            seed,
            paths,
            bytes,
            key,
            generation: 1,
            content_addressed,
            unsigned: 0,
            foreign: None,
        }
    }
}

/// A sample that was made.
#[derive(Debug, Clone)]
pub struct SampleStore {
    /// Where its parts are.
    pub location: StoreLocation,
    /// The path whose closure is all of them.
    pub top: StorePath,
    /// All paths of this generation; references come before who refers to
    /// them, so the top is last.
    pub paths: Vec<PathInfo>,
    /// Those of [`SampleStore::paths`] that were not there before.
    pub written: Vec<StorePath>,
    /// The largest path, nearly all of it one file.
    pub big_file: Option<StorePath>,
    /// A path of many small files.
    pub many_files: Option<StorePath>,
    /// Paths that carry no signature and are not content-addressed.
    pub unsigned: Vec<StorePath>,
    /// Paths that only the foreign key signed.
    pub foreign: Vec<StorePath>,
}

/// Makes samples.
#[derive(Debug, Clone, Copy)]
pub struct Sample;

impl Sample {
    /// Makes a sample in the chroot store below `root`, which is made if it is
    /// not there. Paths that are valid there already are not written again.
    ///
    /// # Errors
    /// [`SampleError::Spec`]; from writing files and the database.
    pub fn generate(
        root: &std::path::Path,
        spec: SampleSpec<'_>,
    ) -> Result<SampleStore, SampleError> {
        generate::generate(root, spec)
    }

    /// Makes the next generation of what `spec` describes, in the same store:
    /// the system after an update. Older paths stay, as in a store that was
    /// not collected.
    ///
    /// # Errors
    /// As [`Sample::generate`].
    pub fn update(
        root: &std::path::Path,
        spec: SampleSpec<'_>,
    ) -> Result<SampleStore, SampleError> {
        generate::generate(root, SampleSpec { generation: spec.generation + 1, ..spec })
    }
}

/// Why a sample store could not be made or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// A number in the [`SampleSpec`] makes no sense.
    #[error("no such sample: {0}")]
    Spec(&'static str),
    /// From the file system.
    #[error("cannot write to the store")]
    Io(#[from] io::Error),
    /// From the store's database.
    #[error("cannot write to the store database")]
    Database(#[from] rusqlite::Error),
    /// From reading the store's database.
    #[error("cannot read the store database")]
    Read(#[from] DbError),
    /// A NAR that cannot be unpacked.
    #[error("cannot unpack the NAR")]
    Nar(#[from] NarError),
    /// A NAR with another size or hash than announced.
    #[error("the NAR is not that of {path}")]
    WrongNar {
        /// The path that was to be installed.
        path: StorePath,
    },
    /// A path cannot be valid before what it refers to.
    #[error("{path} refers to {reference}, which is not in the store")]
    MissingReference {
        /// The path that was to be registered.
        path: StorePath,
        /// What it refers to.
        reference: StorePath,
    },
    /// A path cannot go while others refer to it.
    #[error("other paths refer to {path}")]
    InUse {
        /// The path that was to be removed.
        path: StorePath,
    },
}
