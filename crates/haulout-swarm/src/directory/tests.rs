use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn peer(n: u32) -> PeerId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    PeerId::from_bytes(bytes)
}

fn snapshot(version: Version, entries: impl IntoIterator<Item = u32>) -> Snapshot {
    Snapshot::new(version, entries.into_iter().collect()).unwrap()
}

/// splitmix64's finaliser.
fn mix(n: u64) -> u64 {
    let z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn set(directory: &Directory, prefix: u32) -> BTreeSet<PeerId> {
    directory.who_has(prefix, 0).into_iter().collect()
}

/// The obvious directory.
#[derive(Default)]
struct Model(BTreeMap<PeerId, (Version, BTreeSet<u32>)>);

impl Model {
    fn who_has(&self, prefix: u32) -> BTreeSet<PeerId> {
        self.0.iter().filter(|(_, (_, set))| set.contains(&prefix)).map(|(peer, _)| *peer).collect()
    }
}

fn assert_same(directory: &Directory, model: &Model, prefixes: impl Iterator<Item = u32>) {
    for prefix in prefixes {
        let wanted = model.who_has(prefix);
        assert_eq!(directory.holders_count(prefix), wanted.len(), "{prefix:#x}");
        assert_eq!(directory.anybody_has(prefix), !wanted.is_empty());
        for random in [0, 1 << 60, u64::MAX] {
            let found = directory.who_has(prefix, random);
            let distinct: BTreeSet<PeerId> = found.iter().copied().collect();
            assert_eq!(distinct.len(), found.len(), "nobody is named twice");
            assert_eq!(found.len(), wanted.len().min(HOLDERS_MAX));
            assert!(distinct.is_subset(&wanted));
        }
    }
    for (peer, (version, entries)) in &model.0 {
        assert_eq!(directory.version(peer), Some(*version));
        assert_eq!(directory.entries(peer), entries.len());
    }
}

#[test]
fn nobody_has_anything_at_first() {
    let directory = Directory::new();
    assert!(directory.who_has(7, 3).is_empty());
    assert!(directory.memory_bytes() < 4 << 20);
}

#[test]
fn several_hundred_peers_agree_with_the_obvious_directory() {
    let mut directory = Directory::new();
    let mut model = Model::default();
    for n in 0..400u32 {
        // Some entries that all have, some shared by a few, some of its own; two buckets are crowded.
        let own = (0..50).map(|i| mix(u64::from(n) << 32 | i) as u32);
        let few = (0..20).map(|i| mix(u64::from(n / 5) << 40 | i) as u32);
        let all = (0..100).map(|i| mix(i) as u32);
        let crowd = (0..40).map(|i| 0x1234_0000 | (n * 7 + i * 13) & 0xff);
        let entries: BTreeSet<u32> = own.chain(few).chain(all).chain(crowd).collect();
        directory.apply_snapshot(peer(n), &snapshot(1, entries.iter().copied())).unwrap();
        model.0.insert(peer(n), (1, entries));
    }
    let everything: BTreeSet<u32> =
        model.0.values().flat_map(|(_, set)| set.iter().copied()).collect();
    assert_same(&directory, &model, everything.iter().copied().chain(0..100));
    for n in (0..400).filter(|n| n % 10 != 0) {
        directory.remove_peer(&peer(n));
        model.0.remove(&peer(n));
    }
    assert_same(&directory, &model, everything.iter().copied());
    while directory.sweep(5000) {}
    assert_same(&directory, &model, everything.iter().copied());
}

#[test]
fn memory_comes_back_when_peers_leave() {
    let mut directory = Directory::new();
    let empty = directory.memory_bytes();
    for n in 0..100u32 {
        let entries = (0..5000).map(|i| mix(u64::from(n % 10 * 10_000 + i)) as u32);
        directory.apply_snapshot(peer(n), &snapshot(1, entries)).unwrap();
    }
    let full = directory.memory_bytes();
    for n in 0..100 {
        directory.remove_peer(&peer(n));
    }
    assert_eq!(directory.peers(), 0);
    while directory.sweep(1000) {}
    assert_eq!(directory.pairs, 0);
    let after = directory.memory_bytes();
    assert!(
        after < empty + (full - empty) / 2 && after < empty + 65_536 * 64,
        "{empty} {full} {after}"
    );
}

#[test]
fn replacing_snapshots_for_ever_needs_no_more_memory() {
    let mut directory = Directory::new();
    let mut peak_early = 0;
    for round in 0..150u32 {
        for n in 0..4 {
            let entries =
                (0..2000).map(|i| mix(u64::from(round) << 40 | u64::from(n) << 20 | i) as u32);
            directory.apply_snapshot(peer(n), &snapshot(u64::from(round), entries)).unwrap();
        }
        if round == 60 {
            peak_early = directory.memory_bytes();
        }
    }
    assert!(directory.memory_bytes() < peak_early * 3 / 2);
    assert!(directory.pairs < 4 * 2000 * 40);
}

#[test]
fn a_peer_that_fills_the_directory_loses_only_its_own_column() {
    let mut directory = Directory::with_pairs_max(10_000);
    for n in 0..8 {
        let entries = (0..1000).map(|i| mix(u64::from(n) << 32 | i) as u32);
        directory.apply_snapshot(peer(n), &snapshot(1, entries)).unwrap();
    }
    let huge = snapshot(1, (0..9000).map(|n| n * 4096));
    assert_eq!(directory.apply_snapshot(peer(99), &huge), Err(DirectoryError::Full));
    assert_eq!(directory.peers(), 8);
    // It comes in while there is room, and must go when others need it.
    directory.apply_snapshot(peer(98), &snapshot(1, (0..2000).map(|n| n * 4096))).unwrap();
    let modest = (0..1500).map(|i| mix(1 << 50 | i) as u32);
    assert_eq!(directory.apply_snapshot(peer(9), &snapshot(1, modest)), Ok(vec![peer(98)]));
    assert_eq!(directory.version(&peer(98)), None);
    assert!((0..8).all(|n| directory.entries(&peer(n)) == 1000));
    // Growing by deltas does not help either.
    let delta = Delta::new(1, 2, vec![], (0..5000).map(|n| n * 4096).collect()).unwrap();
    assert_eq!(directory.apply_delta(peer(9), &delta), Err(DirectoryError::Full));
    assert_eq!(directory.version(&peer(9)), None);
}

#[test]
fn more_peers_than_slots_are_refused() {
    let mut directory = Directory::new();
    for n in 0..PEERS_MAX as u32 {
        directory.apply_snapshot(peer(n), &snapshot(1, [n, 5])).unwrap();
    }
    assert_eq!(directory.apply_snapshot(peer(9999), &snapshot(1, [5])), Err(DirectoryError::Full));
    assert_eq!(directory.holders_count(5), PEERS_MAX);
    // All of them renew at once: more new columns than there are spare slots.
    for n in 0..PEERS_MAX as u32 {
        directory.apply_snapshot(peer(n), &snapshot(2, [n, 6])).unwrap();
    }
    assert_eq!((directory.holders_count(5), directory.holders_count(6)), (1, PEERS_MAX));
    assert_eq!(directory.who_has(6, 0).len(), HOLDERS_MAX);
}

#[test]
fn deltas_must_fit() {
    let mut directory = Directory::new();
    let delta = Delta::new(1, 2, vec![5], vec![6]).unwrap();
    assert_eq!(directory.apply_delta(peer(1), &delta), Err(DirectoryError::NoSnapshot));
    directory.apply_snapshot(peer(1), &snapshot(1, [5])).unwrap();
    directory.apply_delta(peer(1), &delta).unwrap();
    assert_eq!(set(&directory, 6), BTreeSet::from([peer(1)]));
    assert_eq!(set(&directory, 5), BTreeSet::new());
    assert_eq!(
        directory.apply_delta(peer(1), &delta),
        Err(DirectoryError::WrongBase { have: 2, wanted: 1 })
    );
    assert_eq!(directory.version(&peer(1)), Some(2));
}

#[test]
fn crowding_one_bucket_is_refused() {
    let mut directory = Directory::new();
    let most = CROWD_MAX as u32;
    for n in 0..60 {
        directory.apply_snapshot(peer(n), &snapshot(1, 0x7777_0000..0x7777_0000 + most)).unwrap();
    }
    assert_eq!(directory.holders_count(0x7777_0010), 60);
    assert_eq!(directory.holders_count(0x7778_0010), 0);
    let crowd = snapshot(2, 0x7777_0000..=0x7777_0000 + most);
    assert_eq!(directory.apply_snapshot(peer(1), &crowd), Err(DirectoryError::Crowded));
    assert_eq!(directory.version(&peer(1)), None);
    let delta = Delta::new(1, 2, vec![], (0..=most).collect()).unwrap();
    assert_eq!(directory.apply_delta(peer(2), &delta), Err(DirectoryError::Crowded));
    assert_eq!(directory.version(&peer(2)), None);
}

#[derive(Debug, Clone)]
enum Step {
    Snapshot(u32, Vec<u32>),
    Delta(u32, Vec<u32>, Vec<u32>),
    Remove(u32),
    Sweep(usize),
}

fn step() -> impl Strategy<Value = Step> {
    // Few prefixes in few buckets and few peers: pairs, promotions and demotions all happen.
    let prefix = || {
        prop::collection::vec((0u32..4, 0u32..12).prop_map(|(high, low)| high << 16 | low), 0..20)
    };
    let who = 0u32..90;
    prop_oneof![
        4 => (who.clone(), prefix()).prop_map(|(n, list)| Step::Snapshot(n, list)),
        3 => (who.clone(), prefix(), prefix()).prop_map(|(n, gone, come)| Step::Delta(n, gone, come)),
        2 => who.prop_map(Step::Remove),
        1 => (1usize..70_000).prop_map(Step::Sweep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_history_agrees_with_the_obvious_directory(steps in prop::collection::vec(step(), 1..200)) {
        let mut directory = Directory::new();
        let mut model = Model::default();
        for (index, step) in steps.into_iter().enumerate() {
            match step {
                Step::Snapshot(n, list) => {
                    let snapshot = snapshot(index as u64, list);
                    directory.apply_snapshot(peer(n), &snapshot).unwrap();
                    let entries = snapshot.entries().iter().copied().collect();
                    model.0.insert(peer(n), (index as u64, entries));
                }
                Step::Delta(n, gone, come) => {
                    let Some((version, entries)) = model.0.get_mut(&peer(n)) else { continue };
                    let Ok(delta) = Delta::new(*version, index as u64, gone, come) else { continue };
                    directory.apply_delta(peer(n), &delta).unwrap();
                    *version = index as u64;
                    delta.removed().iter().for_each(|prefix| { entries.remove(prefix); });
                    entries.extend(delta.added());
                }
                Step::Remove(n) => {
                    directory.remove_peer(&peer(n));
                    model.0.remove(&peer(n));
                }
                Step::Sweep(buckets) => { directory.sweep(buckets); }
            }
        }
        assert_same(&directory, &model, (0..4 * 12).map(|n| ((n / 12) << 16) | (n % 12)));
        while directory.sweep(65_536) {}
        assert_same(&directory, &model, (0..4 * 12).map(|n| ((n / 12) << 16) | (n % 12)));
        let pairs: usize = model.0.values().map(|(_, entries)| entries.len()).sum();
        prop_assert_eq!(directory.pairs, pairs);
    }
}
