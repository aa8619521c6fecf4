//! From a plan to a store.

use std::path::Path;

use haulout_nix::content_address::Method;
use haulout_nix::db::{Database, StoreLocation};
use haulout_nix::hash::{AnyHash, HashAlgorithm};
use haulout_nix::{ContentAddress, HashPart, NarHash, PathInfo, StorePath, StorePathName, nar};
use rusqlite::Connection;

use crate::content::Content;
use crate::plan::{Planned, Shape, plan};
use crate::rng::Rng;
use crate::store::{self, Temporary};
use crate::{BYTES_MAX, PATHS_MAX, PATHS_MIN, SampleError, SampleSpec, SampleStore, tree};

/// Part of every path's name hash: to be raised when the contents made from a
/// seed change, so that one store path never stands for two contents.
const VERSION: u32 = 1;

/// How a path proves what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    Signed,
    Foreign,
    Nothing,
    ContentAddress,
}

pub(crate) fn generate(root: &Path, spec: SampleSpec<'_>) -> Result<SampleStore, SampleError> {
    check(&spec)?;
    let planned = plan(spec.seed, spec.paths, spec.bytes, spec.generation);
    let proofs = proofs(&spec, &planned)?;
    let location = store::create_empty(root)?;
    let conn = store::open(&location)?;
    let database = Database::open(&location)?;
    let maker = Maker {
        spec: &spec,
        location: &location,
        conn: &conn,
        database: &database,
        content: Content::new(spec.seed),
    };

    let mut infos: Vec<PathInfo> = Vec::with_capacity(planned.len());
    let mut written = Vec::new();
    for (path, proof) in planned.iter().zip(&proofs) {
        let references: Vec<StorePath> =
            path.references.iter().map(|&index| infos[index].path.clone()).collect();
        let (info, new) = maker.make(path, *proof, references)?;
        if new {
            written.push(info.clone());
        }
        infos.push(info);
    }
    // An open reader would only keep the log from being tidied up.
    drop(database);
    store::register_all(&location, &written)?;
    let Some(top) = infos.last().map(|info| info.path.clone()) else {
        return Err(SampleError::Spec("no paths"));
    };
    root_of_collection(root, &location, spec.generation, &top)?;

    let find = |shape: fn(&Shape) -> bool| {
        planned.iter().position(|path| shape(&path.shape)).map(|index| infos[index].path.clone())
    };
    let all = |wanted: Proof| {
        infos
            .iter()
            .zip(&proofs)
            .filter(|(_, proof)| **proof == wanted)
            .map(|(info, _)| info.path.clone())
            .collect()
    };
    Ok(SampleStore {
        top,
        written: written.into_iter().map(|info| info.path).collect(),
        big_file: find(|shape| matches!(shape, Shape::BigFile)),
        many_files: find(|shape| matches!(shape, Shape::ManyFiles(_))),
        unsigned: all(Proof::Nothing),
        foreign: all(Proof::Foreign),
        paths: infos,
        location: location.clone(),
    })
}

fn check(spec: &SampleSpec<'_>) -> Result<(), SampleError> {
    if !(PATHS_MIN..=PATHS_MAX).contains(&spec.paths) {
        return Err(SampleError::Spec("too few or too many paths"));
    }
    if spec.bytes > BYTES_MAX {
        return Err(SampleError::Spec("too many bytes"));
    }
    if spec.generation == 0 || spec.generation > 1000 {
        return Err(SampleError::Spec("generations count from 1 to 1000"));
    }
    Ok(())
}

/// Who proves what: only units are odd, each in one way.
fn proofs(spec: &SampleSpec<'_>, planned: &[Planned]) -> Result<Vec<Proof>, SampleError> {
    let units: Vec<usize> =
        (0..planned.len()).filter(|&index| planned[index].shape == Shape::Unit).collect();
    let foreign = spec.foreign.map_or(0, |(_, count)| count);
    let kinds = [
        (Proof::ContentAddress, spec.content_addressed),
        (Proof::Nothing, spec.unsigned),
        (Proof::Foreign, foreign),
    ];
    if kinds.iter().fold(0usize, |sum, (_, count)| sum.saturating_add(*count)) > units.len() {
        return Err(SampleError::Spec("fewer small paths than odd ones"));
    }
    let mut proofs = vec![Proof::Signed; planned.len()];
    let odd = kinds.iter().flat_map(|&(proof, count)| std::iter::repeat_n(proof, count));
    units.iter().zip(odd).for_each(|(&unit, proof)| proofs[unit] = proof);
    Ok(proofs)
}

/// Keeps the sample from being collected by a real Nix.
fn root_of_collection(
    root: &Path,
    location: &StoreLocation,
    generation: u32,
    top: &StorePath,
) -> Result<(), SampleError> {
    let link = root.join(format!("nix/var/nix/gcroots/sample-{generation}"));
    match std::fs::remove_file(&link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    Ok(std::os::unix::fs::symlink(location.store_dir.display(top), link)?)
}

struct Maker<'a> {
    spec: &'a SampleSpec<'a>,
    location: &'a StoreLocation,
    conn: &'a Connection,
    database: &'a Database,
    content: Content,
}

impl Maker<'_> {
    /// Makes one path, and says whether it is new in this store.
    fn make(
        &self,
        planned: &Planned,
        proof: Proof,
        mut references: Vec<StorePath>,
    ) -> Result<(PathInfo, bool), SampleError> {
        references.sort_unstable();
        let name: StorePathName =
            planned.name.parse().map_err(|_| SampleError::Spec("a bad name"))?;
        // For a content-addressed path this is only the name to write it under.
        let planned_path = StorePath::new(self.hash_part(planned, &references), name.clone());
        let addressed = proof == Proof::ContentAddress;
        if !addressed
            && store::is_valid(self.conn, self.location, &planned_path)?
            && let Some(info) = self.database.path_info(&planned_path.hash_part())?
        {
            return Ok((info, false));
        }
        let refers_to_itself = planned.refers_to_itself && !addressed;
        let mut all = references.clone();
        if refers_to_itself {
            all.push(planned_path.clone());
            all.sort_unstable();
        }
        let temporary = Temporary::new(self.location, &planned_path);
        self.write(planned, &all, &temporary.path)?;
        let digest = nar::hash_path(&temporary.path)?;
        let (path, ca) = if addressed {
            let (path, ca) = self.address(&digest.hash, name, &references)?;
            (path, Some(ca))
        } else {
            (planned_path, None)
        };
        let mut info = PathInfo {
            deriver: if addressed { None } else { self.deriver(&path) },
            path,
            nar_hash: digest.hash,
            nar_size: digest.size,
            references: all,
            signatures: Vec::new(),
            ca,
        };
        let new = !addressed || !store::is_valid(self.conn, self.location, &info.path)?;
        if new {
            temporary.keep(self.location, &info.path)?;
        }
        let key = match (proof, self.spec.foreign) {
            (Proof::Signed, _) => Some(self.spec.key),
            (Proof::Foreign, Some((key, _))) => Some(key),
            _ => None,
        };
        info.signatures.extend(key.map(|key| info.sign(&self.location.store_dir, key)));
        Ok((info, new))
    }

    /// The hash part of an input-addressed path. As with Nix's own it does not
    /// depend on the content but on what it is made from, so that a change
    /// travels up to all that refer to it.
    fn hash_part(&self, planned: &Planned, references: &[StorePath]) -> HashPart {
        let mut text = format!(
            "haulout-sample;{VERSION};{};{};{};{};{:?};{}",
            self.spec.seed,
            self.spec.paths,
            self.spec.bytes,
            planned.name,
            planned.shape,
            planned.changed
        );
        for reference in references {
            text.push(';');
            self.location.store_dir.push_path(&mut text, reference);
        }
        short_hash(&text)
    }

    fn deriver(&self, path: &StorePath) -> Option<StorePath> {
        let name = format!("{}.drv", path.name()).parse().ok()?;
        Some(StorePath::new(short_hash(&format!("{path};deriver")), name))
    }

    fn write(
        &self,
        planned: &Planned,
        references: &[StorePath],
        at: &Path,
    ) -> Result<(), SampleError> {
        let changed = planned.changed.to_le_bytes();
        let mut rng = Rng::new(self.spec.seed, &[b"path", planned.name.as_bytes(), &changed]);
        let full: Vec<String> =
            references.iter().map(|path| self.location.store_dir.display(path)).collect();
        let node = tree::tree(&planned.name, planned.shape, planned.bytes, &full, &mut rng);
        Ok(tree::write(&node, at, &self.content, &mut rng)?)
    }

    fn address(
        &self,
        hash: &NarHash,
        name: StorePathName,
        references: &[StorePath],
    ) -> Result<(StorePath, ContentAddress), SampleError> {
        let impossible = || SampleError::Spec("a content address that cannot be");
        let hash = AnyHash::new(HashAlgorithm::Sha256, hash.as_bytes()).ok_or_else(impossible)?;
        let ca = ContentAddress::new(Method::Nar, hash).ok_or_else(impossible)?;
        let references: Vec<&StorePath> = references.iter().collect();
        let path = ca
            .store_path(&self.location.store_dir, name, &references, false)
            .ok_or_else(impossible)?;
        Ok((path, ca))
    }
}

fn short_hash(text: &str) -> HashPart {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let mut bytes = [0; 20];
    bytes.copy_from_slice(&digest.as_ref()[..20]);
    HashPart::from_bytes(bytes)
}
