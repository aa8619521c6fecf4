use super::*;
use crate::tree::NarTreeBuilder;
use proptest::prelude::*;

fn key(nar_size: u64) -> NarKey {
    NarKey { path: HashPart::from_bytes([1; 20]), nar_hash: NarHash::from_bytes([2; 32]), nar_size }
}

fn decode(bytes: &[u8]) -> Result<Request, FrameError> {
    let (header, body) = bytes.split_first_chunk::<REQUEST_HEADER_LEN>().unwrap();
    assert_eq!(Request::body_len(*header).unwrap(), body.len());
    Request::decode(header[0], body)
}

#[test]
fn requests_round_trip_in_the_documented_layout() {
    let infos = Request::PathInfos { hash: HashPart::from_bytes([1; 20]), max: 16 };
    assert_eq!(infos.encode(), [&[1, 0, 22][..], &[1; 20], &[0, 16]].concat());
    let range = Request::NarRange { key: key(1000), start: 5, len: 995 };
    assert_eq!(range.encode().len(), 3 + 76);
    let question = ProofQuestion { archive: [3; 32], known: 258, epoch: Some(7) };
    let proof = Request::ArchiveProof(question);
    let expected =
        [&[5, 0, 49][..], &[3; 32], &258_u64.to_be_bytes(), &[1], &7_u64.to_be_bytes()].concat();
    assert_eq!(proof.encode(), expected);
    let locate = Request::Locate { prefix: 0x0102_0304 };
    assert_eq!(locate.encode(), [6, 0, 4, 1, 2, 3, 4]);
    assert_eq!(decode(&[6, 0, 6, 1, 2, 3, 4, 9, 9]), Ok(locate.clone()), "a later field");
    assert!(decode(&[6, 0, 3, 1, 2, 3]).is_err());
    for request in [infos, range, proof, locate, Request::NarTree(key(7)), Request::Unknown(99)] {
        assert_eq!(decode(&request.encode()), Ok(request));
    }
}

#[test]
fn ranges_must_lie_in_the_nar() {
    for (start, len) in [(0, 0), (1000, 1), (999, 2), (u64::MAX, 1), (1, u64::MAX)] {
        let bytes = Request::NarRange { key: key(1000), start, len }.encode();
        assert_eq!(decode(&bytes), Err(FrameError::Bad("range")), "{start} {len}");
    }
}

#[test]
fn counts_are_limited_and_later_fields_ignored() {
    let zero = Request::PathInfos { hash: HashPart::from_bytes([1; 20]), max: 0 }.encode();
    assert!(decode(&zero).is_err());
    let many = Request::PathInfos { hash: HashPart::from_bytes([1; 20]), max: u16::MAX }.encode();
    assert!(matches!(decode(&many), Ok(Request::PathInfos { max: PATH_INFOS_MAX, .. })));
    assert!(Request::body_len([1, 0xff, 0]).is_err());
    let mut longer = Hello { minor: 7, proof: Some([3; PROOF_LEN]) }.encode();
    longer.extend(b"a later version's field");
    assert_eq!(Hello::decode(&longer[2..]).unwrap().minor, 7);
    assert!(Hello::decode(b"http/1.1").is_err());
    assert!(Hello::decode(&longer[2..20]).is_err(), "a proof cut short");
}

#[test]
fn trees_are_checked_on_receipt() {
    let mut builder = NarTreeBuilder::new();
    builder.update(&[9; 200_000]);
    let tree = builder.finish();
    let body = encode_nar_tree(&tree).unwrap();
    assert_eq!(decode_nar_tree(&body, 200_000).unwrap(), tree);
    assert!(decode_nar_tree(&body, 300_000).is_err());
    assert!(decode_nar_tree(&body[..body.len() - 1], 200_000).is_err());
    assert!(decode_nar_tree(&[&body[..], &[0]].concat(), 200_000).is_err());
    let mut wrong = body;
    wrong[0] ^= 1;
    assert!(decode_nar_tree(&wrong, 200_000).is_err());
    // A count for which nobody would have the memory.
    let bomb = [&[0; 32][..], &u32::MAX.to_be_bytes()].concat();
    assert!(decode_nar_tree(&bomb, u64::MAX).is_err());
}

proptest! {
    #[test]
    fn any_bytes_decode_or_not_but_never_panic(kind in any::<u8>(), bytes in prop::collection::vec(any::<u8>(), 0..400), size in any::<u64>()) {
        let _ = Hello::decode(&bytes);
        let _ = Request::decode(kind, &bytes);
        let _ = decode_path_infos(&bytes, &HashPart::from_bytes([1; 20]), 16);
        let _ = decode_nar_tree(&bytes, size);
        let _ = Status::from_byte(kind);
    }
}
