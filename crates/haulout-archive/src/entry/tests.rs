use super::*;
use crate::testing;
use proptest::prelude::*;

fn encoded(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::new();
    entry.encode(&mut bytes).unwrap();
    bytes
}

#[test]
fn entries_survive() {
    for number in 0..500 {
        let entry = testing::entry(number, 500);
        assert_eq!(Entry::decode(&encoded(&entry)), Ok(entry));
    }
    let tombstone = Entry::tombstone(HashPart::from_bytes([7; 20]));
    assert_eq!(encoded(&tombstone).len(), 21);
    assert_eq!(Entry::decode(&encoded(&tombstone)), Ok(tombstone));
}

#[test]
fn every_shortened_or_lengthened_entry_is_refused() {
    let mut bytes = encoded(&testing::entry(5, 500));
    for len in 0..bytes.len() {
        assert!(Entry::decode(&bytes[..len]).is_err(), "{len}");
    }
    bytes.push(0);
    assert_eq!(Entry::decode(&bytes), Err(FormatError::Trailing("an entry")));
}

#[test]
fn unsorted_references_are_neither_written_nor_read() {
    let mut entry = (0..)
        .map(|n| testing::entry(n, 500))
        .find(|e| e.as_path().unwrap().info.references.len() > 2);
    let Some(Entry { content: Content::Path(path), .. }) = &mut entry else {
        panic!("no such entry")
    };
    path.info.references.swap(0, 1);
    let mut out = Vec::new();
    assert_eq!(entry.unwrap().encode(&mut out), Err(FormatError::Order("references")));
}

#[test]
fn a_nar_has_at_least_one_piece_and_no_empty_ones() {
    let Content::Path(mut path) = testing::entry(1, 500).content else { panic!("a path") };
    path.nar.extents[0].length = 0;
    let mut out = Vec::new();
    assert!(Entry::path((*path).clone()).encode(&mut out).is_err());
    path.nar.extents.clear();
    assert!(Entry::path(*path).encode(&mut out).is_err());
}

#[test]
fn a_key_that_is_not_the_paths_is_refused() {
    let mut entry = testing::entry(1, 500);
    entry.key = HashPart::from_bytes([0; 20]);
    assert!(entry.encode(&mut Vec::new()).is_err());
}

proptest! {
    #[test]
    fn what_is_accepted_has_one_form(number in 0u64..500, at in 0usize..600, byte: u8) {
        let mut bytes = encoded(&testing::entry(number, 500));
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(entry) = Entry::decode(&bytes) {
            prop_assert_eq!(encoded(&entry), bytes);
        }
    }

    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Entry::decode(&bytes);
    }
}
