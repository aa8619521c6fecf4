use super::*;
use crate::testing;
use haulout_nix::NarHash;
use std::io::Read;

fn compress(nar: &[u8]) -> (Compressed, Vec<u8>) {
    let mut compressor = NarCompressor::new(Vec::new(), nar.len() as u64, LEVEL).unwrap();
    compressor.write_all(nar).unwrap();
    compressor.finish().unwrap()
}

#[test]
fn pack_is_its_nars_one_after_the_other() {
    let nars: Vec<Vec<u8>> = (0..5u8).map(|i| vec![i; 10_000 * usize::from(i) + 8]).collect();
    let mut pack = Vec::new();
    let mut planner = Planner::new(TARGET_BYTES, PACK_BYTES_MAX);
    let mut extents = Vec::new();
    for nar in &nars {
        let (compressed, bytes) = compress(nar);
        assert_eq!(compressed.length, bytes.len() as u64);
        assert_eq!(compressed.digest, NarDigest { hash: NarHash::of(nar), size: nar.len() as u64 });
        assert_eq!(&compressed.root, blake3::hash(nar).as_bytes());
        extents.extend(planner.place(compressed.length).unwrap());
        pack.extend(bytes);
    }
    let mut all = Vec::new();
    zstd::Decoder::new(&pack[..]).unwrap().read_to_end(&mut all).unwrap();
    assert_eq!(all, nars.concat());
    for (extent, nar) in extents.iter().zip(&nars) {
        let range = extent.offset as usize..(extent.offset + extent.length) as usize;
        assert_eq!(&zstd::decode_all(&pack[range]).unwrap(), nar);
    }
}

#[test]
fn same_bytes_in_same_bytes_out() {
    let nar: Vec<u8> = (0..300_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
    let whole = compress(&nar);
    let mut pieces = NarCompressor::new(Vec::new(), nar.len() as u64, LEVEL).unwrap();
    for piece in nar.chunks(777) {
        pieces.write_all(piece).unwrap();
    }
    assert_eq!(pieces.finish().unwrap(), whole);
    // Golden: a change here changes every blob id of every archive.
    let digest = crate::merkle::hash(&[&whole.1]);
    assert_eq!(data_encoding::HEXLOWER.encode(&digest[..8]), "88f6bff1f720a775");
}

#[test]
fn a_nar_of_another_size_than_announced_is_an_error() {
    let mut compressor = NarCompressor::new(Vec::new(), 100, LEVEL).unwrap();
    compressor.write_all(&[0; 99]).unwrap();
    assert!(compressor.finish().is_err());
}

#[test]
fn packs_close_at_the_target_and_never_pass_the_maximum() {
    let mut planner = Planner::new(100, 150);
    let mut place = |length| planner.place(length).unwrap();
    let one = |pack, offset, length| vec![Extent { pack, offset, length }];
    assert_eq!(place(60), one(0, 0, 60));
    assert_eq!(place(60), one(0, 60, 60)); // now above the target
    assert_eq!(place(10), one(1, 0, 10));
    assert_eq!(place(145), one(2, 0, 145)); // would not have fitted
    let cut = [(3, 0, 150), (4, 0, 150), (5, 0, 20)].map(|(pack, offset, length)| Extent {
        pack,
        offset,
        length,
    });
    assert_eq!(place(320), cut);
    assert_eq!(place(30), one(5, 20, 30));
    assert!(planner.place(150 * EXTENTS_MAX as u64).is_err());
}

#[test]
fn closures_lie_together_whatever_the_order() {
    let info = |number: u64, needs: &[u64]| {
        let mut info = testing::entry(number, 9).as_path().unwrap().info.clone();
        info.references = needs.iter().map(|n| testing::path(*n)).collect();
        info.normalise();
        info
    };
    // 1 needs 2 and itself, 2 needs 3; 4 needs 5; 6 is alone; 7 is not there.
    let infos = [
        info(1, &[1, 2, 7]),
        info(2, &[3]),
        info(3, &[]),
        info(4, &[5]),
        info(5, &[]),
        info(6, &[]),
    ];
    let roots = [testing::path(4).hash_part(), testing::path(1).hash_part()];
    let order = |infos: &[PathInfo], roots: &[HashPart]| -> Vec<StorePath> {
        packing_order(infos, roots).into_iter().map(|i| infos[i].path.clone()).collect()
    };
    use haulout_nix::StorePath;
    let found = order(&infos, &roots);
    assert_eq!(found.len(), 6);
    assert_eq!(found[5], testing::path(6));
    let at = |n: u64| found.iter().position(|path| *path == testing::path(n)).unwrap();
    assert!(at(3) + 1 == at(2) && at(2) + 1 == at(1), "{found:?}");
    assert_eq!(at(5) + 1, at(4));
    let mut shuffled = infos.clone();
    shuffled.reverse();
    assert_eq!(order(&shuffled, &[roots[1], roots[0]]), found);
}

#[test]
fn a_chain_of_100_000_paths_needs_no_deep_stack() {
    let template = testing::entry(1, 9).as_path().unwrap().info.clone();
    let infos: Vec<PathInfo> = (0..100_000u64)
        .map(|n| PathInfo {
            path: testing::path(n),
            references: vec![testing::path(n + 1)],
            ..template.clone()
        })
        .collect();
    let order = packing_order(&infos, &[infos[0].path.hash_part()]);
    assert_eq!(order.len(), 100_000);
    assert_eq!(order.first(), Some(&99_999));
}
