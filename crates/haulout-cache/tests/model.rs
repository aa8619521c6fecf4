//! The cache against a model in memory, with reopenings anywhere in between.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;

use common::{content, hash_part, info, read, store};
use haulout_cache::{Cache, CacheConfig, StoredTree, UnixTime};
use haulout_nix::NarHash;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    PutInfo(u64, u64),
    ForgetInfo(u64),
    PutMiss(u64, u64),
    ForgetMisses,
    PutTree(u64, usize),
    StoreNar(u64, usize),
    ForgetNar(u64),
    Wait(u64),
    Tick,
    /// Close in order.
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..12_u64;
    let step = prop_oneof![
        4 => (key.clone(), 0..5_u64).prop_map(|(key, revision)| Step::PutInfo(key, revision)),
        1 => key.clone().prop_map(Step::ForgetInfo),
        3 => (key.clone(), 1..200_u64).prop_map(|(key, seconds)| Step::PutMiss(key, seconds)),
        1 => Just(Step::ForgetMisses),
        2 => (key.clone(), 0..9_usize).prop_map(|(key, groups)| Step::PutTree(key, groups)),
        3 => (key.clone(), 0..20_000_usize).prop_map(|(key, len)| Step::StoreNar(key, len)),
        1 => key.prop_map(Step::ForgetNar),
        1 => (0..100_u64).prop_map(Step::Wait),
        2 => Just(Step::Tick),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_maps(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut now = UnixTime(1_800_000_000);
        let open = |now| Cache::open(dir.path(), CacheConfig::default(), now).unwrap();
        let mut cache = open(now);
        let (mut infos, mut misses, mut trees, mut nars) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        // NARs are told apart by number and length.
        let nar_bytes = |key: u64, len: usize| content(key * 1_000_003 + len as u64, len);
        for step in steps {
            match step {
                Step::PutInfo(key, revision) => {
                    cache.put_narinfo(&info(key, revision), "key", now);
                    infos.insert(key, (info(key, revision), now));
                    misses.remove(&key);
                }
                Step::ForgetInfo(key) => {
                    cache.forget_narinfo(&hash_part(key));
                    infos.remove(&key);
                }
                Step::PutMiss(key, seconds) => {
                    let until = UnixTime(now.0 + seconds);
                    cache.put_miss(&hash_part(key), until);
                    misses.insert(key, until);
                }
                Step::ForgetMisses => {
                    cache.forget_misses();
                    misses.clear();
                }
                Step::PutTree(key, groups) => {
                    let tree = StoredTree { nar_size: key, root: [groups as u8; 32], groups: vec![[key as u8; 32]; groups] };
                    cache.put_tree(&NarHash::of(&[key as u8]), &tree, now);
                    trees.insert(key, tree);
                }
                Step::StoreNar(key, len) => {
                    let bytes = nar_bytes(key, len);
                    let new = nars.insert(NarHash::of(&bytes), bytes.clone()).is_none();
                    prop_assert_eq!(store(&cache, &bytes, 0, now), new);
                }
                Step::ForgetNar(key) => {
                    let gone: Vec<_> = nars.keys().copied().nth(key as usize).into_iter().collect();
                    for hash in gone {
                        cache.forget_nar(&hash);
                        nars.remove(&hash);
                    }
                }
                Step::Wait(seconds) => now.0 += seconds,
                Step::Tick => prop_assert!(cache.tick(now)),
                Step::Reopen => {
                    prop_assert!(cache.tick(now));
                    drop(cache);
                    cache = open(now);
                }
            }
            for key in 0..12 {
                let found = cache.narinfo(&hash_part(key)).map(|found| (found.info, found.stored_at));
                prop_assert_eq!(found.as_ref(), infos.get(&key));
                let miss = misses.get(&key).copied().filter(|until| *until > now);
                prop_assert_eq!(cache.miss(&hash_part(key), now), miss);
                prop_assert_eq!(cache.tree(&NarHash::of(&[key as u8])), trees.get(&key).cloned());
            }
            prop_assert_eq!(cache.stats().nars, nars.len() as u64);
            prop_assert_eq!(cache.stats().used_bytes, nars.values().map(|bytes| bytes.len() as u64).sum::<u64>());
        }
        for (hash, bytes) in &nars {
            let held = cache.nar(hash, now).unwrap();
            prop_assert!(held.check() && &read(&held) == bytes);
        }
        let mut listed = Vec::new();
        cache.each_narinfo(|found| listed.push(found.info));
        listed.sort_by(|a, b| a.path.cmp(&b.path));
        let mut expected: Vec<_> = infos.into_values().map(|(info, _)| info).collect();
        expected.sort_by(|a, b| a.path.cmp(&b.path));
        prop_assert_eq!(listed, expected);
    }
}
