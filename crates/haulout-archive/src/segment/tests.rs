use super::*;
use crate::{
    Entry,
    proof::{Proof, ProveError, prove},
    testing::{self, Segment},
};
use haulout_nix::HashPart;
use proptest::prelude::*;

fn segment(paths: u64, page_shift: u8) -> Segment {
    let entries = testing::sorted(paths).into_iter().map(|n| testing::entry(n, paths));
    Segment::write(entries, testing::packs(paths), page_shift).unwrap()
}

fn open(segment: &Segment) -> Result<Directory, FormatError> {
    let blob = &segment.blob;
    let at = blob.len().checked_sub(FOOTER_BYTES).ok_or(FormatError::Short("the blob"))?;
    let footer = Footer::decode(&blob[at..], &segment.root)?;
    let range = footer.directory_range(blob.len() as u64)?;
    Directory::decode(&footer, &blob[range.start as usize..range.end as usize])
}

fn page(segment: &Segment, directory: &Directory, number: u64) -> Page {
    let place = directory.page_place(number).unwrap();
    assert_eq!(place.part, None);
    directory
        .open_page(number, &segment.blob[place.range.start as usize..place.range.end as usize])
        .unwrap()
}

fn look_up(segment: &Segment, directory: &Directory, key: &HashPart) -> Option<Entry> {
    page(segment, directory, directory.page_of(key)).find(key).unwrap()
}

/// A key that no generated entry has.
fn strange_key(n: u64) -> HashPart {
    testing::path(u64::MAX - n).hash_part()
}

fn proof(segment: &Segment, directory: &Directory, key: &HashPart) -> Proof {
    let tree = directory.page_tree();
    let here = page(segment, directory, directory.page_of(key));
    match prove(directory, &tree, key, &here, None) {
        Err(ProveError::NeedsPage(next)) => {
            let next = page(segment, directory, next);
            prove(directory, &tree, key, &here, Some(&next)).unwrap()
        }
        other => other.unwrap(),
    }
}

#[test]
fn every_entry_is_found_and_proven_and_no_other() {
    for (paths, shift) in [(1, 4), (15, 4), (16, 4), (17, 4), (333, 3), (1000, 5)] {
        let segment = segment(paths, shift);
        let directory = open(&segment).unwrap();
        assert_eq!(directory.footer().leaves, paths);
        assert_eq!(directory.packs(), paths.div_ceil(55));
        for number in (0..paths).step_by(1 + paths as usize / 97) {
            let entry = testing::entry(number, paths);
            assert_eq!(look_up(&segment, &directory, &entry.key), Some(entry.clone()));
            let proof = proof(&segment, &directory, &entry.key);
            assert_eq!(proof.verify(&segment.root, &entry.key), Ok(Some(entry)));
            assert_eq!(Proof::decode(&proof.encode()), Ok(proof));
        }
        let edges = [HashPart::from_bytes([0; 20]), HashPart::from_bytes([255; 20])];
        for key in (0..50).map(strange_key).chain(edges) {
            assert_eq!(look_up(&segment, &directory, &key), None);
            let proof = proof(&segment, &directory, &key);
            assert_eq!(proof.verify(&segment.root, &key), Ok(None));
            assert_eq!(Proof::decode(&proof.encode()), Ok(proof));
        }
    }
}

#[test]
fn absence_at_the_border_of_two_pages_needs_both() {
    let segment = segment(64, 4);
    let directory = open(&segment).unwrap();
    let first = directory.pages()[2].first;
    // One less than the first key of page 2.
    let mut bytes = *first.as_bytes();
    for byte in bytes.iter_mut().rev() {
        *byte = byte.wrapping_sub(1);
        if *byte != 255 {
            break;
        }
    }
    let key = HashPart::from_bytes(bytes);
    let tree = directory.page_tree();
    let here = page(&segment, &directory, 1);
    assert_eq!(prove(&directory, &tree, &key, &here, None), Err(ProveError::NeedsPage(2)));
    assert_eq!(proof(&segment, &directory, &key).verify(&segment.root, &key), Ok(None));
}

#[test]
fn proofs_prove_nothing_else() {
    let segment = segment(300, 4);
    let other = self::segment(299, 4);
    let directory = open(&segment).unwrap();
    let present = testing::entry(7, 300).key;
    let absent = strange_key(1);
    let yes = proof(&segment, &directory, &present);
    let no = proof(&segment, &directory, &absent);
    assert!(yes.verify(&other.root, &present).is_err());
    assert!(yes.verify(&segment.root, &absent).is_err());
    assert!(no.verify(&segment.root, &present).is_err());
    assert!(no.verify(&other.root, &absent).is_err());
    // An absence proof with another gap: neighbours that are not neighbours.
    for key in (0..300).map(|n| testing::entry(n, 300).key) {
        assert!(no.verify(&segment.root, &key).is_err());
    }
}

#[test]
fn altered_proofs_are_refused() {
    let segment = segment(300, 4);
    let directory = open(&segment).unwrap();
    for key in [testing::entry(7, 300).key, strange_key(1)] {
        let good = proof(&segment, &directory, &key).encode();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let verdict = Proof::decode(&bad).and_then(|proof| proof.verify(&segment.root, &key));
            assert!(verdict.is_err(), "byte {at} of {}", good.len());
        }
    }
}

#[test]
fn altered_segments_are_refused() {
    let good = segment(40, 4);
    // Every byte of the directory and the footer, some of the pages.
    let tail = good.blob.len() - FOOTER_BYTES - 300;
    for at in (0..tail).step_by(23).chain(tail..good.blob.len()) {
        let mut bad = good.clone();
        bad.blob[at] ^= 1;
        let all = |segment: &Segment| -> Result<(), FormatError> {
            let directory = open(segment)?;
            for number in 0..directory.footer().pages() {
                let place = directory.page_place(number).unwrap();
                directory.open_page(
                    number,
                    &segment.blob[place.range.start as usize..place.range.end as usize],
                )?;
            }
            for chunk in 0..directory.chunks() {
                let range = directory.chunk_range(chunk).unwrap();
                directory
                    .open_chunk(chunk, &segment.blob[range.start as usize..range.end as usize])?;
            }
            Ok(())
        };
        assert!(all(&good).is_ok());
        // zstd has a few bits that mean nothing, and then what came out is the same; the pack
        // table's chunk is hashed as stored.
        if let Ok(()) = all(&bad) {
            let directory = open(&bad).unwrap();
            let same = (0..40).all(|n| {
                let entry = testing::entry(n, 40);
                look_up(&bad, &directory, &entry.key) == Some(entry)
            });
            assert!(same, "byte {at}");
        }
    }
}

#[test]
fn pages_may_lie_in_parts() {
    let numbers = testing::sorted(500);
    let mut writer = SegmentWriter::new(4);
    let mut blobs: Vec<Vec<u8>> = vec![Vec::new()];
    let mut pages_of = vec![0u32];
    let mut put = |bytes: Vec<u8>| {
        if blobs.last().unwrap().len() > 20_000 {
            blobs.push(Vec::new());
            pages_of.push(0);
        }
        blobs.last_mut().unwrap().extend(bytes);
        *pages_of.last_mut().unwrap() += 1;
    };
    for number in numbers {
        if let Some(bytes) = writer.push(&testing::entry(number, 500)).unwrap() {
            put(bytes);
        }
    }
    put(writer.last_page().unwrap().unwrap());
    assert!(blobs.len() > 2);
    let parts: Vec<PartRecord> = blobs
        .iter()
        .zip(&pages_of)
        .zip(1u8..)
        .map(|((blob, pages), id)| PartRecord {
            blob: BlobRecord {
                blob_id: [id; 32],
                object: [0; 32],
                size: blob.len() as u64,
                end_epoch: 9,
            },
            pages: *pages,
        })
        .collect();
    let (root_blob, footer) = writer.finish(testing::packs(500), &parts).unwrap();
    let root = Segment { blob: root_blob, root: footer.root() };
    let directory = open(&root).unwrap();
    assert_eq!(directory.parts(), parts);
    for number in 0..500 {
        let entry = testing::entry(number, 500);
        let at = directory.page_of(&entry.key);
        let place = directory.page_place(at).unwrap();
        let blob = &blobs[place.part.unwrap()];
        let page = directory
            .open_page(at, &blob[place.range.start as usize..place.range.end as usize])
            .unwrap();
        assert_eq!(page.find(&entry.key), Ok(Some(entry)));
    }
    let (chunk, range) = directory.chunk_of(9).unwrap();
    let packs =
        directory.open_chunk(chunk, &root.blob[range.start as usize..range.end as usize]).unwrap();
    assert_eq!(packs, testing::packs(500).collect::<Vec<_>>());
}

#[test]
fn writer_refuses_disorder_and_emptiness() {
    let mut writer = SegmentWriter::new(4);
    let entries: Vec<Entry> =
        testing::sorted(3).into_iter().map(|n| testing::entry(n, 3)).collect();
    writer.push(&entries[1]).unwrap();
    assert_eq!(writer.push(&entries[1]), Err(FormatError::Order("entries")));
    assert_eq!(writer.push(&entries[0]), Err(FormatError::Order("entries")));
    assert!(writer.finish([], &[]).is_err(), "a page is open");
    assert!(SegmentWriter::new(4).finish([], &[]).is_err(), "no entries");
}

#[test]
fn a_directory_that_promises_much_allocates_nothing() {
    let mut bytes = vec![0u8; 36];
    for count in bytes[..12].chunks_mut(4) {
        count.copy_from_slice(&u32::MAX.to_le_bytes());
    }
    let footer = Footer {
        page_shift: 0,
        leaves: u64::from(u32::MAX),
        directory_len: 36,
        tree_root: [0; 32],
        directory_digest: crate::merkle::hash(&[&bytes]),
    };
    assert!(Directory::decode(&footer, &bytes).is_err());
    bytes[4..12].fill(0);
    let footer = Footer { directory_digest: crate::merkle::hash(&[&bytes]), ..footer };
    assert_eq!(
        Directory::decode(&footer, &bytes),
        Err(FormatError::Value("the length of the directory"))
    );
}

#[test]
fn page_sizes_follow_the_segment() {
    assert_eq!(page_shift_for(1), 4);
    assert_eq!(page_shift_for(20_000), 4);
    assert_eq!(page_shift_for(60_000), 6);
    assert_eq!(page_shift_for(250_000), 8);
    assert_eq!(page_shift_for(300_000_000), 8);
}

#[test]
fn golden_segment() {
    let numbers = testing::sorted(40);
    let mut entries: Vec<Entry> = numbers.into_iter().map(|n| testing::entry(n, 40)).collect();
    entries[3] = Entry::tombstone(entries[3].key);
    let segment = Segment::write(entries.clone(), testing::packs(40), 4).unwrap();
    let golden = Segment {
        blob: include_bytes!("../../tests/data/segment-v1.bin").to_vec(),
        root: golden_root(),
    };
    // Roots do not depend on zstd's version; the stored bytes may, so the golden file is read.
    assert_eq!(
        data_encoding::HEXLOWER.encode(&open(&segment).unwrap().footer().tree_root),
        GOLDEN_TREE
    );
    let directory = open(&golden).unwrap();
    assert_eq!(directory.totals().tombstones, 1);
    for entry in entries {
        assert_eq!(look_up(&golden, &directory, &entry.key), Some(entry));
    }
}

const GOLDEN_TREE: &str = "435739804b7249a84961e38ffd2efe9314fd3d17b7e475c73805b8578ee9b897";

fn golden_root() -> crate::Digest {
    let hex = include_str!("../../tests/data/segment-v1.root");
    data_encoding::HEXLOWER.decode(hex.trim().as_bytes()).unwrap().try_into().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), root: [u8; 32]) {
        let _ = Footer::decode(&bytes, &root);
        let _ = Proof::decode(&bytes).map(|proof| proof.verify(&root, &HashPart::from_bytes([3; 20])));
    }

    #[test]
    fn any_subset_in_any_page_size(numbers in proptest::collection::btree_set(0u64..200, 1..60), shift in 0u8..6) {
        let mut entries: Vec<Entry> = numbers.iter().map(|n| testing::entry(*n, 200)).collect();
        entries.sort_by_key(|entry| entry.key);
        let segment = Segment::write(entries.clone(), [], shift).unwrap();
        let directory = open(&segment).unwrap();
        for number in 0..200 {
            let key = testing::path(number).hash_part();
            let found = look_up(&segment, &directory, &key);
            prop_assert_eq!(found.is_some(), numbers.contains(&number));
            let proven = proof(&segment, &directory, &key).verify(&segment.root, &key).unwrap();
            prop_assert_eq!(proven, found);
        }
    }
}
