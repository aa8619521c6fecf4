//! What can be said of samples without Nix.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use haulout_nix::db::{Database, StoreLocation};
use haulout_nix::{KeySet, NarHash, PathInfo, SecretKey, nar};
use haulout_sample::{
    Sample, SampleError, SampleSpec, SampleStore, create_empty, delete_all, install, register,
    remove,
};

fn key() -> SecretKey {
    SecretKey::from_seed("sample-1", [9; 32]).unwrap()
}

struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = delete_all(self.path());
    }
}

fn closure(store: &SampleStore) -> HashSet<String> {
    let infos: HashMap<String, &PathInfo> =
        store.paths.iter().map(|info| (info.path.to_string(), info)).collect();
    let mut seen = HashSet::new();
    let mut next = vec![store.top.to_string()];
    while let Some(path) = next.pop() {
        if seen.insert(path.clone()) {
            next.extend(infos[&path].references.iter().map(ToString::to_string));
        }
    }
    seen
}

#[test]
fn the_same_seed_gives_the_same_sample() {
    let (a, b, key) = (Root::new(), Root::new(), key());
    let spec = SampleSpec::new(5, 40, 2 << 20, &key);
    let (first, second) =
        (Sample::generate(a.path(), spec).unwrap(), Sample::generate(b.path(), spec).unwrap());
    assert_eq!(first.paths, second.paths);
    assert_eq!(first.top, second.top);
    let c = Root::new();
    let other = Sample::generate(c.path(), SampleSpec { seed: 6, ..spec }).unwrap();
    let common =
        other.paths.iter().filter(|info| first.paths.iter().any(|known| known.path == info.path));
    assert_eq!(common.count(), 0);
    let mut all = [0; 32];
    for info in &first.paths {
        (0..32).for_each(|index| all[index] ^= info.nar_hash.as_bytes()[index]);
    }
    let found = format!("{}\n{}\n", first.top, NarHash::from_bytes(all));
    assert_eq!(found, include_str!("seed-5.txt"));
}

#[test]
fn a_sample_is_what_it_says() {
    let (root, key) = (Root::new(), key());
    let other = SecretKey::from_seed("other-1", [3; 32]).unwrap();
    let spec = SampleSpec {
        unsigned: 2,
        foreign: Some((&other, 3)),
        content_addressed: 4,
        ..SampleSpec::new(2, 120, 12 << 20, &key)
    };
    let store = Sample::generate(root.path(), spec).unwrap();
    let dir = &store.location.store_dir;
    assert_eq!(store.paths.len(), 120);
    assert_eq!(closure(&store).len(), 120);
    let total: u64 = store.paths.iter().map(|info| info.nar_size).sum();
    assert!((10 << 20..16 << 20).contains(&total), "{total}");

    let ours: KeySet = [key.public_key().clone()].into_iter().collect();
    let theirs: KeySet = [other.public_key().clone()].into_iter().collect();
    let mut seen = HashSet::new();
    let mut kinds = [0; 4];
    let (mut links, mut executables, mut directories, mut selves) = (0, 0, 0, 0);
    for info in &store.paths {
        let path = store.location.real_path(&info.path);
        let digest = nar::hash_path(&path).unwrap();
        assert_eq!((digest.hash, digest.size), (info.nar_hash, info.nar_size));
        let kind = match () {
            () if info.verified_by(dir, &ours).is_some() => 0,
            () if info.verified_by(dir, &theirs).is_some() => 1,
            () if info.content_address_holds(dir) => 2,
            () => 3,
        };
        kinds[kind] += 1;
        // References point backwards and are exactly what the contents name.
        let mut bytes = Vec::new();
        nar::dump(&path, &mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for reference in &info.references {
            assert!(text.contains(&reference.hash_part().to_string()), "{}", info.path);
            assert!(seen.contains(&reference.to_string()) || reference == &info.path);
        }
        selves += usize::from(info.references.contains(&info.path));
        assert_eq!(
            text.matches("/nix/store/").collect::<Vec<_>>().is_empty(),
            info.references.is_empty()
        );
        seen.insert(info.path.to_string());
        walk(&path, &mut |meta| {
            assert_eq!(meta.mtime(), 1);
            links += usize::from(meta.is_symlink());
            directories += usize::from(meta.is_dir());
            if meta.is_file() {
                executables += usize::from(meta.mode() & 0o111 != 0);
                assert!([0o444, 0o555].contains(&(meta.mode() & 0o7777)));
            } else if meta.is_dir() {
                assert_eq!(meta.mode() & 0o7777, 0o555);
            }
        });
    }
    assert_eq!(kinds, [111, 3, 4, 2]);
    assert_eq!((store.unsigned.len(), store.foreign.len()), (2, 3));
    assert!(links > 5 && executables > 20 && directories > 100 && selves > 5);
    let many = store.location.real_path(store.many_files.as_ref().unwrap());
    let mut files = 0;
    walk(&many, &mut |meta| files += usize::from(meta.is_file()));
    assert!(files > 150, "{files}");
    let big = store.big_file.clone().unwrap();
    let largest = store.paths.iter().max_by_key(|info| info.nar_size).unwrap();
    assert_eq!(largest.path, big);

    // And the database says the same.
    let database = Database::open(&store.location).unwrap();
    for info in &store.paths {
        assert_eq!(database.path_info(&info.path.hash_part()).unwrap().as_ref(), Some(info));
    }
}

fn walk(path: &Path, see: &mut impl FnMut(&std::fs::Metadata)) {
    let meta = std::fs::symlink_metadata(path).unwrap();
    see(&meta);
    if meta.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            walk(&entry.unwrap().path(), see);
        }
    }
}

#[test]
fn updates_change_some_paths_and_what_is_above_them() {
    let (root, key) = (Root::new(), key());
    let spec = SampleSpec::new(3, 80, 1 << 20, &key);
    let first = Sample::generate(root.path(), spec).unwrap();
    assert_eq!(first.written.len(), 80);
    // Again: nothing to do.
    let again = Sample::generate(root.path(), spec).unwrap();
    assert_eq!((again.written.len(), &again.paths), (0, &first.paths));

    let second = Sample::update(root.path(), spec).unwrap();
    assert_ne!(second.top, first.top);
    assert_eq!(second.paths.len(), 80);
    assert_eq!(closure(&second).len(), 80);
    let new = second.written.len();
    assert!((5..60).contains(&new), "{new}");
    // The fifth rebuilds nearly all.
    let fifth = Sample::generate(root.path(), SampleSpec { generation: 5, ..spec }).unwrap();
    assert!(fifth.written.len() > 40, "{}", fifth.written.len());
    // An update in an empty store gives the same paths.
    let other = Root::new();
    let direct = Sample::update(other.path(), spec).unwrap();
    assert_eq!(direct.paths, second.paths);
}

#[test]
fn paths_are_installed_and_removed_one_by_one() {
    let (a, b, key) = (Root::new(), Root::new(), key());
    let store = Sample::generate(a.path(), SampleSpec::new(4, 20, 1 << 20, &key)).unwrap();
    create_empty(b.path()).unwrap();
    let location = StoreLocation::chroot(b.path());
    let dump = |info: &PathInfo| {
        let mut bytes = Vec::new();
        nar::dump(&store.location.real_path(&info.path), &mut bytes).unwrap();
        bytes
    };
    let top = store.paths.last().unwrap();
    assert!(matches!(
        install(b.path(), top, &dump(top)[..]),
        Err(SampleError::MissingReference { .. })
    ));
    for info in &store.paths {
        let bytes = dump(info);
        let mut wrong = bytes.clone();
        if let Some(at) = bytes.windows(8).position(|w| w == b"contents") {
            wrong[at + 16] ^= 1;
            assert!(matches!(
                install(b.path(), info, &wrong[..]),
                Err(SampleError::WrongNar { .. })
            ));
        }
        assert!(install(b.path(), info, &bytes[..bytes.len() - 1]).is_err());
        assert!(install(b.path(), info, &[&bytes[..], b"x"].concat()[..]).is_err());
        install(b.path(), info, &bytes[..]).unwrap();
        register(b.path(), info).unwrap();
    }
    let leftovers = std::fs::read_dir(&location.real_store)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".tmp"));
    assert_eq!(leftovers.count(), 0);
    let database = Database::open(&location).unwrap();
    assert_eq!(database.load().unwrap().unwrap().rows.len(), 20);
    assert!(matches!(remove(b.path(), &store.paths[0].path), Err(SampleError::InUse { .. })));
    for info in store.paths.iter().rev() {
        remove(b.path(), &info.path).unwrap();
        assert!(!location.real_path(&info.path).exists());
        assert_eq!(database.path_info(&info.path.hash_part()).unwrap(), None);
    }
}

#[test]
fn senseless_specifications_are_refused() {
    let (root, key) = (Root::new(), key());
    let good = SampleSpec::new(1, 20, 1 << 16, &key);
    for spec in [
        SampleSpec { paths: 2, ..good },
        SampleSpec { paths: usize::MAX, ..good },
        SampleSpec { bytes: u64::MAX, ..good },
        SampleSpec { generation: 0, ..good },
        SampleSpec { unsigned: 19, ..good },
        SampleSpec { unsigned: usize::MAX, ..good },
    ] {
        assert!(matches!(Sample::generate(root.path(), spec), Err(SampleError::Spec(_))));
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 6, ..Default::default() })]
    #[test]
    fn every_shape_is_a_closed_store(seed: u64, paths in 8usize..60, bytes in 0u64..2_000_000, generation in 1u32..7) {
        let (root, key) = (Root::new(), key());
        let spec = SampleSpec { generation, ..SampleSpec::new(seed, paths, bytes, &key) };
        let store = Sample::generate(root.path(), spec).unwrap();
        proptest::prop_assert_eq!(store.paths.len(), paths);
        proptest::prop_assert_eq!(closure(&store).len(), paths);
    }
}
