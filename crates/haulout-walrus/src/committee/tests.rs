#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use super::*;

fn node(id: u8, shards: &[u16]) -> StorageNode {
    StorageNode {
        node_id: ObjectId([id; 32]),
        name: format!("node {id}"),
        address: format!("node-{id}.example:9185"),
        network_public_key: [&[2][..], &[id; 32]].concat(),
        bls_public_key: [id; PUBLIC_KEY_BYTES],
        shards: shards.iter().copied().map(ShardIndex).collect(),
    }
}

fn n(count: u16) -> ShardCount {
    ShardCount::new(count).unwrap()
}

#[test]
fn every_shard_has_one_owner() {
    let committee = Committee::new(1, n(5), vec![node(1, &[0, 4]), node(2, &[1, 2, 3])]);
    let committee = committee.unwrap();
    assert_eq!(committee.owner(ShardIndex(4)), Some(0));
    assert_eq!(committee.owner(ShardIndex(2)), Some(1));
    assert_eq!(committee.owner(ShardIndex(5)), None);
    let bad = |members| Committee::new(1, n(5), members).unwrap_err();
    assert_eq!(bad(vec![node(1, &[0, 1, 2, 3])]), CommitteeError::OrphanShard(4));
    assert_eq!(bad(vec![node(1, &[0]), node(2, &[0])]), CommitteeError::SharedShard(0));
    assert!(matches!(bad(vec![node(1, &[5])]), CommitteeError::ShardOutOfRange { .. }));
    assert_eq!(bad(vec![node(1, &[])]), CommitteeError::NoShard(ObjectId([1; 32])));
}

#[test]
fn quorums_are_counted_as_the_contract_does() {
    let shards: Vec<_> = (0..1000).collect();
    let committee = Committee::new(1, n(1000), vec![node(1, &shards)]).unwrap();
    assert!(committee.is_quorum(667) && !committee.is_quorum(666));
    assert!(committee.is_above_validity(334) && !committee.is_above_validity(333));
    assert_eq!(committee.weight([0, 0, 7]), 1000);
}

#[test]
fn pairs_and_owners_agree() {
    let members = vec![node(1, &[0, 9, 3]), node(2, &[1, 2, 4, 5, 6, 7, 8])];
    let committee = Committee::new(1, n(10), members).unwrap();
    let blob = BlobId([0x17; 32]);
    for position in 0..2 {
        let pairs = committee.pairs_of(position, &blob);
        assert!(pairs.iter().all(|&p| committee.owner_of_pair(&blob, p) == Some(position)));
    }
}

#[test]
fn addresses_are_host_and_port() {
    assert_eq!(split_address("127.0.0.1:80"), Some(("127.0.0.1", 80)));
    assert_eq!(split_address("[::1]:9185"), Some(("::1", 9185)));
    for bad in ["", "x", "x:", ":1", "x:0", "x:70000", "::1:80", "[x]:1", "a/b:1", "a b:1"] {
        assert_eq!(split_address(bad), None, "{bad}");
    }
}

#[test]
fn object_ids_have_two_text_forms() {
    assert_eq!("0x6".parse::<ObjectId>().unwrap().0[31], 6);
    let id = ObjectId([0xab; 32]);
    assert_eq!(id.to_string().parse::<ObjectId>().unwrap(), id);
    for bad in ["", "0x", "6", "0xg", "0xé", &format!("0x{}", "0".repeat(65))] {
        assert!(bad.parse::<ObjectId>().is_err(), "{bad}");
    }
}

#[test]
fn reading_during_a_change_goes_to_those_who_have_the_blob() {
    let of = |epoch, id| Committee::new(epoch, n(4), vec![node(id, &[0, 1, 2, 3])]).unwrap();
    let mut view = CommitteeView::steady(of(7, 1));
    view.previous = Some(of(6, 2));
    assert_eq!(view.for_reading(Some(5)).epoch, 7);
    view.state = EpochState::ChangeSync(0);
    assert_eq!(view.for_reading(Some(6)).epoch, 6);
    assert_eq!(view.for_reading(Some(7)).epoch, 7);
    assert_eq!(view.for_reading(None).epoch, 7);
    assert_eq!(view.holding().map(|committee| committee.epoch).collect::<Vec<_>>(), [7, 6]);
    view.state = EpochState::ChangeDone(1);
    assert_eq!(view.holding().map(|committee| committee.epoch).collect::<Vec<_>>(), [7]);
}
