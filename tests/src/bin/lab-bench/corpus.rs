//! The closure that is fetched.

use std::path::{Path, PathBuf};
use std::process::Command;

use haulout_nix::{SecretKey, StoreDir};
use haulout_sample::{Sample, SampleSpec};

/// A generated closure in a chroot store.
#[derive(Debug)]
pub struct Corpus {
    /// Root of the chroot store.
    pub root: PathBuf,
    /// The path that refers to all others.
    pub top: String,
    /// All paths.
    pub paths: Vec<String>,
    /// The one with the largest NAR.
    pub largest: String,
    /// Bytes of NAR, all paths together.
    pub bytes: u64,
    /// The public key of their signatures.
    pub key: String,
}

/// The key that signs everything here.
pub fn key() -> SecretKey {
    SecretKey::from_seed("lab.haulout-1", [42; 32]).expect("a good name")
}

impl Corpus {
    /// Makes it below `dir`, or finds it there.
    pub fn make(dir: &Path, paths: usize, bytes: u64) -> Self {
        let key = key();
        let root = dir.join(format!("corpus-{paths}-{bytes}"));
        // By default agents share what is signed; content-addressed paths are not.
        let spec = SampleSpec { content_addressed: 0, ..SampleSpec::new(1, paths, bytes, &key) };
        let sample = Sample::generate(&root, spec).expect("sample closure");
        let dir = StoreDir::default();
        Self {
            root,
            top: dir.display(&sample.top),
            paths: sample.paths.iter().map(|info| dir.display(&info.path)).collect(),
            largest: sample
                .paths
                .iter()
                .max_by_key(|info| info.nar_size)
                .map(|info| dir.display(&info.path))
                .unwrap_or_default(),
            bytes: sample.paths.iter().map(|info| info.nar_size).sum(),
            key: key.public_key().to_string(),
        }
    }
}

/// Bytes of the files below `dir`, as `du` counts them.
pub fn disk_usage(dir: &Path) -> u64 {
    let output = Command::new("du").arg("-sb").arg(dir).output().expect("du");
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}
