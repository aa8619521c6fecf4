use super::*;
use crate::testing;
use haulout_nix::HashPart;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn key(n: u8) -> HashPart {
    HashPart::from_bytes([n; 20])
}

type Item = Result<Entry, FormatError>;

fn tombstones(keys: &[u8]) -> std::vec::IntoIter<Item> {
    keys.iter().map(|k| Ok(Entry::tombstone(key(*k)))).collect::<Vec<_>>().into_iter()
}

#[test]
fn newest_wins_and_order_holds() {
    let merged: Vec<(usize, HashPart)> =
        Merge::new([tombstones(&[2, 5]), tombstones(&[1, 2, 9]), tombstones(&[5])], false)
            .map(|item| item.map(|(from, entry)| (from, entry.key)))
            .collect::<Result<_, _>>()
            .unwrap();
    assert_eq!(merged, [(1, key(1)), (0, key(2)), (0, key(5)), (1, key(9))]);
}

#[test]
fn tombstones_hide_and_vanish_in_the_end() {
    let path = testing::entry(3, 10);
    let newer = vec![Ok(Entry::tombstone(path.key))].into_iter();
    let older = vec![Item::Ok(path.clone())].into_iter();
    assert_eq!(Merge::new([newer.clone(), older.clone()], true).count(), 0);
    let kept: Vec<_> = Merge::new([newer, older.clone()], false).collect::<Result<_, _>>().unwrap();
    assert_eq!(kept, [(0, Entry::tombstone(path.key))]);
    // The other way round the path has come back.
    let newer = older;
    let back: Vec<_> = Merge::new([newer, vec![Ok(Entry::tombstone(path.key))].into_iter()], true)
        .collect::<Result<Vec<_>, FormatError>>()
        .unwrap();
    assert_eq!(back, [(0, path)]);
}

#[test]
fn an_error_ends_it() {
    let bad = vec![
        Item::Ok(Entry::tombstone(key(1))),
        Err(FormatError::Order("entries")),
        Ok(Entry::tombstone(key(3))),
    ];
    let items: Vec<_> = Merge::new([bad.into_iter(), tombstones(&[2])], false).collect();
    assert_eq!(items.len(), 2);
    assert!(items[0].is_ok() && items[1].is_err());
}

#[test]
fn only_used_packs_are_kept_each_once() {
    let tables: Vec<Vec<_>> =
        vec![testing::packs(55 * 4).collect(), testing::packs(55 * 3).skip(1).collect()];
    let mut union = PackUnion::new(tables.clone());
    let mut newer = testing::entry(55 * 3, 1000); // pack 3 of the first
    let mut older = testing::entry(55, 1000); // pack 1 of the second, which is pack 2 of the first
    let mut same = testing::entry(55 * 2, 1000); // pack 2 of the first
    union.adopt(0, &mut newer).unwrap();
    union.adopt(1, &mut older).unwrap();
    union.adopt(0, &mut same).unwrap();
    let pack = |entry: &Entry| entry.as_path().unwrap().nar.extents[0].pack;
    assert_eq!((pack(&newer), pack(&older), pack(&same)), (0, 1, 1));
    assert_eq!(union.into_table(), [tables[0][3], tables[0][2]]);
    let mut union = PackUnion::new(tables);
    assert!(
        union.adopt(1, &mut testing::entry(55 * 2, 1000)).is_err(),
        "the second table has only two packs"
    );
}

proptest! {
    #[test]
    fn merges_like_maps(
        levels in proptest::collection::vec(proptest::collection::btree_map(0u8..40, any::<bool>(), 0..30), 1..5),
        drop_tombstones: bool,
    ) {
        // true: a path, false: a tombstone. Paths are told apart by their level.
        let entry = |level: usize, k: u8, path: bool| {
            if !path {
                return Entry::tombstone(key(k));
            }
            let mut entry = testing::entry(level as u64, 9);
            let Content::Path(content) = &mut entry.content else { panic!("a path") };
            content.info.path = haulout_nix::StorePath::new(key(k), content.info.path.path_name().clone());
            entry.key = key(k);
            entry
        };
        let mut expected = BTreeMap::new();
        for (level, map) in levels.iter().enumerate().rev() {
            expected.extend(map.iter().map(|(k, path)| (key(*k), (level, entry(level, *k, *path)))));
        }
        if drop_tombstones {
            expected.retain(|_, (_, entry)| entry.as_path().is_some());
        }
        let iterators = levels.iter().enumerate().map(|(level, map)| {
            map.iter().map(|(k, path)| Item::Ok(entry(level, *k, *path))).collect::<Vec<_>>().into_iter()
        });
        let merged: Vec<_> = Merge::new(iterators, drop_tombstones).collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(merged, expected.into_values().collect::<Vec<_>>());
    }
}
