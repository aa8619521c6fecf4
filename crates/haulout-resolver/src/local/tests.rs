use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use haulout_mesh::{Asker, Membership, Serve};
use haulout_nix::{KeySet, SecretKey, Signature};
use haulout_sample::{Sample, SampleSpec, SampleStore};
use haulout_swarm::PeerId;
use tempfile::TempDir;

use super::*;

fn key(name: &str) -> SecretKey {
    SecretKey::from_seed(name, [name.len() as u8; 32]).unwrap()
}

fn keys(names: &[&str]) -> KeySet {
    let mut keys = KeySet::new();
    for name in names {
        keys.insert(key(name).public_key().clone());
    }
    keys
}

/// 40 paths: 3 unsigned, 2 signed by somebody else, 2 content-addressed.
fn sample(root: &Path) -> SampleStore {
    let (ours, foreign) = (key("public-1"), key("foreign-key-1"));
    let spec = SampleSpec {
        unsigned: 3,
        foreign: Some((&foreign, 2)),
        content_addressed: 2,
        ..SampleSpec::new(11, 40, 3 << 20, &ours)
    };
    Sample::generate(root, spec).unwrap()
}

fn open(root: &Path, policy: SharePolicy) -> LocalStore {
    let (disk, stats) = (Disk::default(), Arc::new(Stats::default()));
    let trees = Arc::new(Trees::new(disk.clone()));
    LocalStore::open(&StoreLocation::chroot(root), policy, trees, disk, stats).unwrap()
}

fn setup(policy: SharePolicy) -> (TempDir, SampleStore, LocalStore) {
    let dir = tempfile::tempdir().unwrap();
    let sample = sample(dir.path());
    let store = open(dir.path(), policy);
    (dir, sample, store)
}

fn public_only() -> SharePolicy {
    SharePolicy { keys: keys(&["public-1"]), ..SharePolicy::default() }
}

fn asker(membership: Membership) -> Asker {
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    Asker { peer: PeerId::from_bytes([1; 32]), membership, addr }
}

fn key_of(info: &PathInfo) -> NarKey {
    NarKey { path: info.path.hash_part(), nar_hash: info.nar_hash, nar_size: info.nar_size }
}

/// Whether a path is given, by all three questions alike.
fn gives(store: &LocalStore, info: &PathInfo, to: Membership) -> bool {
    let asker = asker(to);
    let answers = [
        !store.path_infos(&asker, &info.path.hash_part(), 1).is_empty(),
        store.nar_tree(&asker, &key_of(info)).is_some(),
        store.open_nar(&asker, &key_of(info)).is_some(),
    ];
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?} for {}", info.path);
    answers[0]
}

fn announced(store: &LocalStore, to: Membership) -> usize {
    store.holdings(to).unwrap().len()
}

fn is_public(info: &PathInfo) -> bool {
    info.signatures.iter().any(|signature| signature.name() == "public-1")
}

#[test]
fn strangers_get_what_is_signed_by_a_shared_key_and_nothing_else() {
    let (_dir, sample, store) = setup(public_only());
    assert_eq!(sample.paths.iter().filter(|info| !is_public(info)).count(), 7);
    for info in &sample.paths {
        assert_eq!(gives(&store, info, Membership::Stranger), is_public(info), "{}", info.path);
        assert_eq!(gives(&store, info, Membership::Member), is_public(info), "{}", info.path);
    }
    assert_eq!(announced(&store, Membership::Stranger), 33);
    assert_eq!(announced(&store, Membership::Member), 33);
    assert_eq!(store.counts(), (40, 33));
}

#[test]
fn with_the_mesh_key_members_get_local_builds_signed_with_it() {
    let mesh = key("mesh-signing-1");
    let policy = SharePolicy { mesh_key: Some(Arc::new(mesh)), ..public_only() };
    let (_dir, sample, store) = setup(policy);
    for info in &sample.paths {
        assert_eq!(gives(&store, info, Membership::Stranger), is_public(info), "{}", info.path);
        assert_eq!(gives(&store, info, Membership::Member), info.ca.is_none(), "{}", info.path);
        if is_public(info) || info.ca.is_some() {
            continue;
        }
        let given = store.path_infos(&asker(Membership::Member), &info.path.hash_part(), 1);
        let trusted = keys(&["mesh-signing-1"]);
        let believed = given[0].verified_by(&StoreDir::default(), &trusted);
        assert!(believed.is_some(), "signed with the mesh's key");
    }
    assert_eq!(announced(&store, Membership::Stranger), 33);
    assert_eq!(announced(&store, Membership::Member), 38);
}

#[test]
fn content_addressed_paths_go_to_members_if_the_owner_says_so() {
    let policy = SharePolicy { content_addressed: true, ..public_only() };
    let (_dir, sample, store) = setup(policy);
    let addressed = sample.paths.iter().find(|info| info.ca.is_some()).unwrap();
    assert!(gives(&store, addressed, Membership::Member));
    assert!(!gives(&store, addressed, Membership::Stranger));
}

#[test]
fn another_policy_takes_effect_at_once() {
    let (_dir, sample, store) = setup(SharePolicy::default());
    assert_eq!(announced(&store, Membership::Stranger), 0);
    assert!(sample.paths.iter().all(|info| !gives(&store, info, Membership::Member)));
    store.set_policy(public_only());
    assert_eq!(announced(&store, Membership::Stranger), 33);
    store.set_policy(SharePolicy {
        keys: keys(&["public-1", "foreign-key-1"]),
        ..SharePolicy::default()
    });
    assert_eq!(announced(&store, Membership::Stranger), 35);
    store.set_policy(SharePolicy::default());
    assert_eq!(announced(&store, Membership::Stranger), 0);
}

#[test]
fn a_signature_that_only_claims_the_name_is_found_out_and_no_longer_announced() {
    let (dir, sample, store) = setup(public_only());
    let mut forged = sample.paths[0].clone();
    forged.path = format!("{}-forged", HashPart::from_bytes([5; 20])).parse().unwrap();
    forged.references = Vec::new();
    forged.ca = None;
    forged.signatures = vec![Signature::new("public-1", [3; 64]).unwrap()];
    haulout_sample::register(dir.path(), &forged).unwrap();
    store.poll().unwrap();
    assert_eq!(announced(&store, Membership::Stranger), 34, "by its name alone");
    for _ in 0..2 {
        assert!(
            store.path_infos(&asker(Membership::Stranger), &forged.path.hash_part(), 9).is_empty()
        );
        assert_eq!(announced(&store, Membership::Stranger), 33);
    }
}

#[test]
fn infos_of_the_closure_come_along_breadth_first_and_only_those_shared() {
    let (_dir, sample, store) = setup(public_only());
    let top = sample.top.hash_part();
    let infos = store.path_infos(&asker(Membership::Stranger), &top, 100);
    assert_eq!(infos[0].path, sample.top);
    assert!(infos.iter().all(is_public));
    let direct = &infos[0].references;
    let second =
        infos.iter().position(|info| !direct.contains(&info.path) && info.path != sample.top);
    assert!(infos[1..second.unwrap_or(infos.len())].iter().all(|info| direct.contains(&info.path)));
    assert_eq!(store.path_infos(&asker(Membership::Stranger), &top, 3).len().min(3), 3);
}

#[test]
fn another_nar_of_the_same_path_is_not_ours_to_give() {
    let (_dir, sample, store) = setup(public_only());
    let info = sample.paths.iter().find(|info| is_public(info)).unwrap();
    let other = NarKey { nar_hash: NarHash::of(b"x"), ..key_of(info) };
    let longer = NarKey { nar_size: info.nar_size + 8, ..key_of(info) };
    for key in [other, longer] {
        assert!(store.open_nar(&asker(Membership::Member), &key).is_none());
        assert!(store.nar_tree(&asker(Membership::Member), &key).is_none());
    }
}

#[test]
fn what_is_given_is_the_nar_and_its_tree() {
    let (_dir, sample, store) = setup(public_only());
    for info in sample.paths.iter().filter(|info| is_public(info)) {
        let key = key_of(info);
        let nar = store.open_nar(&asker(Membership::Stranger), &key).unwrap();
        let mut all = vec![0; usize::try_from(info.nar_size).unwrap()];
        assert_eq!(nar.read_at(0, &mut all).unwrap(), all.len());
        assert_eq!(NarHash::of(&all), info.nar_hash);
        let tree = store.nar_tree(&asker(Membership::Stranger), &key).unwrap();
        assert_eq!(tree.root, blake3::hash(&all));
    }
}

#[test]
fn garbage_collection_is_followed_and_cuts_what_is_being_given() {
    let (dir, sample, store) = setup(public_only());
    let info = sample.paths.last().unwrap();
    assert_eq!(info.path, sample.top);
    let nar = store.open_nar(&asker(Membership::Stranger), &key_of(info)).unwrap();
    haulout_sample::remove(dir.path(), &info.path).unwrap();
    let mut all = vec![0; usize::try_from(info.nar_size).unwrap()];
    assert!(nar.read_at(0, &mut all).is_err(), "cut, not corrupt");
    store.poll().unwrap();
    assert_eq!(announced(&store, Membership::Stranger), 32);
    assert!(!store.contains(&info.path.hash_part()));
    assert!(!gives(&store, info, Membership::Stranger));
}

#[test]
fn altered_files_are_never_given_as_the_path() {
    let (dir, sample, store) = setup(public_only());
    let info =
        sample.paths.iter().find(|info| Some(&info.path) == sample.big_file.as_ref()).unwrap();
    let nar = store.open_nar(&asker(Membership::Stranger), &key_of(info)).unwrap();
    let root = StoreLocation::chroot(dir.path()).real_path(&info.path);
    let file = largest(&root);
    let mut mode = std::fs::metadata(&file).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o644);
    std::fs::set_permissions(&file, mode).unwrap();
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(10).unwrap();
    let mut all = vec![0; usize::try_from(info.nar_size).unwrap()];
    assert!(nar.read_at(0, &mut all).is_err());
    assert!(store.open_nar(&asker(Membership::Stranger), &key_of(info)).is_none());
}

fn largest(dir: &Path) -> std::path::PathBuf {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if meta.is_file() {
            found.push((meta.len(), path));
        }
    }
    found.into_iter().max().unwrap().1
}
