use super::*;
use crate::sui::walrus::view;
use haulout_walrus::{bls, committee::EpochState};
use redstuff::{BlobId, Digest as Hash, messages::signers_bitmap};
use sui_sdk_types::Argument;

pub(super) const SIZE: u64 = 1_000;

pub(super) fn root() -> [u8; 32] {
    [7; 32]
}

pub(super) fn blob_id() -> BlobId {
    BlobId::compute(SIZE, &Hash::new(root()))
}

pub(super) fn encoded() -> u64 {
    ShardCount::new(10).unwrap().encoded_length(SIZE).unwrap()
}

/// Reserves space and registers a blob; the results are kept by `keep`.
pub(super) fn register(
    ptb: &mut Ptb<'_>,
    ids: &WalrusIds,
    user: Address,
    deletable: bool,
    epochs: u32,
) {
    let system = ptb.shared(ids.system, true).unwrap();
    let wal = ptb.largest_coin(&crate::sui::walrus::wal_coin_tag(ids.wal)).unwrap();
    let (amount, epochs) = (ptb.pure(&encoded()), ptb.pure(&epochs));
    let storage =
        ptb.call(ids.package, "system", "reserve_space", vec![system, amount, epochs, wal]);
    let args = vec![
        system,
        storage,
        ptb.pure(&blob_id().0),
        ptb.pure(&root()),
        ptb.pure(&SIZE),
        ptb.pure(&1u8),
        ptb.pure(&deletable),
        wal,
    ];
    let blob = ptb.call(ids.package, "system", "register_blob", args);
    ptb.transfer(vec![blob], user);
}

fn message(epoch: u32, object: Option<Address>) -> Vec<u8> {
    let mut message = vec![1, 0, 3];
    message.extend(epoch.to_le_bytes());
    message.extend(blob_id().0);
    match object {
        None => message.push(0),
        Some(object) => {
            message.push(1);
            message.extend(object.as_bytes());
        }
    }
    message
}

pub(super) struct Certificate {
    pub(super) signature: [u8; 96],
    pub(super) bitmap: Vec<u8>,
    pub(super) message: Vec<u8>,
}

pub(super) fn certificate(signers: &[u16], epoch: u32, object: Option<Address>) -> Certificate {
    let message = message(epoch, object);
    let signatures: Vec<_> = signers.iter().map(|&i| node_key(i as u8).sign(&message)).collect();
    let signature = bls::aggregate(&signatures).unwrap();
    Certificate { signature, bitmap: signers_bitmap(signers), message }
}

pub(super) fn certify(
    ptb: &mut Ptb<'_>,
    ids: &WalrusIds,
    blob: Argument,
    certificate: &Certificate,
) {
    let system = ptb.shared(ids.system, false).unwrap();
    let args = certify_args(ptb, system, blob, certificate);
    ptb.call(ids.package, "system", "certify_blob", args);
}

pub(super) fn certify_args(
    ptb: &mut Ptb<'_>,
    system: Argument,
    blob: Argument,
    certificate: &Certificate,
) -> Vec<Argument> {
    vec![
        system,
        blob,
        ptb.pure(&certificate.signature.to_vec()),
        ptb.pure(&certificate.bitmap),
        ptb.pure(&certificate.message),
    ]
}

pub(super) fn registered(world: &mut World, deletable: bool, epochs: u32) -> Address {
    let user = world.user;
    let executed = world.ok(|ptb, ids| register(ptb, ids, user, deletable, epochs));
    written(&executed, "Blob")
}

fn wal_of(world: &World) -> u64 {
    let type_ = crate::sui::walrus::wal_coin_tag(world.ids.wal);
    let coins = world.chain.store.owned_of_type(world.user, &type_);
    coins.filter_map(|coin| crate::sui::exec::coin_value(coin, &type_)).sum()
}

#[test]
fn a_blob_from_registration_to_extension() {
    let mut world = World::new();
    let before = wal_of(&world);
    let blob = registered(&mut world, false, 5);
    // One unit: five epochs of storage, one write.
    assert_eq!(before - wal_of(&world), 5 * 100_000 + 20_000);
    let record = world.chain.blobs.get(&blob_id()).unwrap();
    assert!(record.is_registered(1) && record.is_registered(5) && !record.is_registered(6));
    assert_eq!(record.objects[0].certified_epoch, None);

    let cert = certificate(&[1, 2, 3], 1, None);
    let executed = world.ok(|ptb, ids| {
        let blob = ptb.owned(blob).unwrap();
        certify(ptb, ids, blob, &cert);
    });
    let record = world.chain.blobs.get(&blob_id()).unwrap();
    assert_eq!(record.objects[0].certified_epoch, Some(1));
    assert_eq!(record.objects[0].event.tx_digest, executed.digest.to_string());
    // The system is only read.
    let sui_sdk_types::TransactionEffects::V2(effects) = &executed.effects else { panic!() };
    assert_eq!(effects.unchanged_consensus_objects.len(), 1);

    world.ok(|ptb, ids| {
        let system = ptb.shared(ids.system, true).unwrap();
        let blob = ptb.owned(blob).unwrap();
        let wal = ptb.largest_coin(&crate::sui::walrus::wal_coin_tag(ids.wal)).unwrap();
        let epochs = ptb.pure(&3u32);
        ptb.call(ids.package, "system", "extend_blob", vec![system, blob, epochs, wal]);
    });
    assert_eq!(world.chain.blobs.get(&blob_id()).unwrap().objects[0].end_epoch, 9);
    assert_eq!(before - wal_of(&world), 8 * 100_000 + 20_000);
}

#[test]
fn what_the_contract_refuses_to_register() {
    let mut world = World::new();
    let user = world.user;
    let wrong = |change: fn(&mut Vec<Argument>, &mut Ptb<'_>)| {
        move |ptb: &mut Ptb<'_>, ids: &WalrusIds| {
            let system = ptb.shared(ids.system, true).unwrap();
            let wal = ptb.largest_coin(&crate::sui::walrus::wal_coin_tag(ids.wal)).unwrap();
            let (amount, epochs) = (ptb.pure(&encoded()), ptb.pure(&1u32));
            let reserve = vec![system, amount, epochs, wal];
            let storage = ptb.call(ids.package, "system", "reserve_space", reserve);
            let (id, root) = (ptb.pure(&blob_id().0), ptb.pure(&root()));
            let (size, kind) = (ptb.pure(&SIZE), ptb.pure(&1u8));
            let deletable = ptb.pure(&false);
            let mut args = vec![system, storage, id, root, size, kind, deletable, wal];
            change(&mut args, ptb);
            let blob = ptb.call(ids.package, "system", "register_blob", args);
            ptb.transfer(vec![blob], user);
        }
    };
    let size = world.aborts(wrong(|args, ptb| args[4] = ptb.pure(&(SIZE + 1))));
    assert_eq!(size, ("blob".into(), 6));
    let large = world.aborts(wrong(|args, ptb| args[4] = ptb.pure(&1_000_000u64)));
    assert_eq!(large, ("blob".into(), 3));
    let kind = world.aborts(wrong(|args, ptb| args[5] = ptb.pure(&0u8)));
    assert_eq!(kind, ("encoding".into(), 0));
    let far = world.aborts(|ptb, ids| register(ptb, ids, user, false, 54));
    assert_eq!(far, ("system_state_inner".into(), 2));
    let none = world.aborts(|ptb, ids| register(ptb, ids, user, false, 0));
    assert_eq!(none, ("system_state_inner".into(), 2));
    assert!(world.chain.blobs.get(&blob_id()).is_none());
    // The package of an earlier version says so.
    let old = world.aborts(|ptb, ids| {
        let ids = WalrusIds { package: ids.original, ..ids.clone() };
        register(ptb, &ids, user, false, 1);
    });
    assert_eq!(old, ("system".into(), 1));
}

#[test]
fn what_the_contract_refuses_to_certify() {
    let mut world = World::new();
    let blob = registered(&mut world, false, 5);
    let mut abort = |certificate: Certificate| {
        world.aborts(|ptb, ids| {
            let blob = ptb.owned(blob).unwrap();
            certify(ptb, ids, blob, &certificate);
        })
    };
    // 6 of 10 shards.
    assert_eq!(abort(certificate(&[1, 3], 1, None)), ("bls_aggregate".into(), 2));
    assert_eq!(abort(certificate(&[1, 2, 3], 2, None)), ("messages".into(), 1));
    assert_eq!(abort(certificate(&[1, 2, 3], 1, Some(blob))), ("blob".into(), 9));
    let mut bad = certificate(&[1, 2, 3], 1, None);
    bad.bitmap = signers_bitmap(&[0, 2, 3]);
    assert_eq!(abort(bad), ("bls_aggregate".into(), 1));
    let mut bad = certificate(&[1, 2, 3], 1, None);
    bad.bitmap = vec![0x1e];
    assert_eq!(abort(bad), ("bls_aggregate".into(), 0));
    let mut bad = certificate(&[1, 2, 3], 1, None);
    bad.signature[10] ^= 1;
    assert_eq!(abort(bad), ("bls_aggregate".into(), 1));
    assert_eq!(world.chain.blobs.get(&blob_id()).unwrap().objects[0].certified_epoch, None);
}

#[test]
fn a_deletable_blob_is_certified_by_its_object_and_goes() {
    let mut world = World::new();
    let user = world.user;
    let blob = registered(&mut world, true, 2);
    let other = certificate(&[0, 1, 2, 3], 1, Some(Address::from_static("0x123")));
    let abort = world.aborts(|ptb, ids| {
        let blob = ptb.owned(blob).unwrap();
        certify(ptb, ids, blob, &other);
    });
    assert_eq!(abort, ("blob".into(), 10));
    let cert = certificate(&[0, 1, 2, 3], 1, Some(blob));
    world.ok(|ptb, ids| {
        let blob = ptb.owned(blob).unwrap();
        certify(ptb, ids, blob, &cert);
    });
    assert!(world.chain.blobs.get(&blob_id()).unwrap().is_object_registered(&blob.into_inner(), 1));
    let executed = world.ok(|ptb, ids| {
        let system = ptb.shared(ids.system, false).unwrap();
        let blob = ptb.owned(blob).unwrap();
        let storage = ptb.call(ids.package, "system", "delete_blob", vec![system, blob]);
        ptb.transfer(vec![storage], user);
    });
    assert!(world.chain.blobs.get(&blob_id()).unwrap().objects.is_empty());
    // The storage that was inside is an object of its own now.
    let storage = written(&executed, "Storage");
    assert!(world.chain.store.get(storage).is_some());
    assert!(world.chain.store.get(blob).is_none());
}

/// The attributes of a blob object, as the chain has them.
fn attributes(world: &World, blob: Address) -> Option<Vec<(String, String)>> {
    let name = bcs::to_bytes(&b"metadata".to_vec()).unwrap();
    let bytes = sui_sdk_types::TypeTag::Vector(Box::new(sui_sdk_types::TypeTag::U8));
    let object = world.chain.store.get(blob.derive_dynamic_child_id(&bytes, &name))?;
    assert_eq!(*object.owner(), sui_sdk_types::Owner::Object(blob));
    let field: (Address, Vec<u8>, Vec<(String, String)>) =
        bcs::from_bytes(object.as_struct().unwrap().contents()).unwrap();
    Some(field.2)
}

#[test]
fn a_blob_has_attributes() {
    let mut world = World::new();
    let blob = registered(&mut world, true, 5);
    let set = |ptb: &mut Ptb<'_>, ids: &WalrusIds, pairs: &[(&str, &str)]| {
        let blob = ptb.owned(blob).unwrap();
        for (key, value) in pairs {
            let args = vec![blob, ptb.pure(key), ptb.pure(value)];
            ptb.call(ids.package, "blob", "insert_or_update_metadata_pair", args);
        }
        blob
    };
    let add = |ptb: &mut Ptb<'_>, ids: &WalrusIds| {
        let blob = ptb.owned(blob).unwrap();
        let metadata = ptb.call(ids.package, "metadata", "new", vec![]);
        let args = vec![metadata, ptb.pure(&"made"), ptb.pure(&"here")];
        ptb.call(ids.package, "metadata", "insert_or_update", args);
        ptb.call(ids.package, "blob", "add_metadata", vec![blob, metadata]);
    };
    let unset = |ptb: &mut Ptb<'_>, ids: &WalrusIds, key: &str| {
        let args = vec![ptb.owned(blob).unwrap(), ptb.pure(&key)];
        ptb.call(ids.package, "blob", "remove_metadata_pair", args);
    };
    let pairs = |pairs: &[(&str, &str)]| {
        Some(pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Vec<_>>())
    };
    assert_eq!(world.aborts(|ptb, ids| unset(ptb, ids, "a")), ("blob".into(), 8));
    world.ok(add);
    assert_eq!(attributes(&world, blob), pairs(&[("made", "here")]));
    assert_eq!(world.aborts(add), ("blob".into(), 7));
    world.ok(|ptb, ids| _ = set(ptb, ids, &[("a", "1"), ("b", "2"), ("a", "3")]));
    assert_eq!(attributes(&world, blob), pairs(&[("made", "here"), ("b", "2"), ("a", "3")]));
    assert_eq!(world.aborts(|ptb, ids| unset(ptb, ids, "c")), ("vec_map".into(), 1));
    world.ok(|ptb, ids| unset(ptb, ids, "made"));
    world.ok(|ptb, ids| {
        let blob = ptb.owned(blob).unwrap();
        ptb.call(ids.package, "blob", "take_metadata", vec![blob]);
    });
    assert_eq!(attributes(&world, blob), None);
    // Made by the first pair; made and taken away at once; gone with its blob.
    world.ok(|ptb, ids| {
        let blob = set(ptb, ids, &[("x", "y")]);
        ptb.call(ids.package, "blob", "take_metadata", vec![blob]);
    });
    assert_eq!(attributes(&world, blob), None);
    world.ok(|ptb, ids| _ = set(ptb, ids, &[("x", "y")]));
    assert_eq!(attributes(&world, blob), pairs(&[("x", "y")]));
    world.ok(|ptb, ids| {
        let blob = ptb.owned(blob).unwrap();
        ptb.call(ids.package, "blob", "burn", vec![blob]);
    });
    assert_eq!(attributes(&world, blob), None);
}

#[test]
fn shards_move_and_the_new_committee_certifies() {
    let mut world = World::new();
    let blob = registered(&mut world, false, 5);
    let before = view(&world.chain.store, world.ids.staking).unwrap().committees;
    assert_eq!((before.epoch, before.current.clone()), (1, committee()));
    let executed = world.submit_as(&operator(), |ptb, ids| {
        let staking = ptb.shared(ids.staking, true).unwrap();
        let system = ptb.shared(ids.system, true).unwrap();
        let clock = ptb.clock();
        ptb.call(ids.package, "staking", "voting_end", vec![staking, clock]);
        let args = vec![staking, system, clock];
        ptb.call(ids.package, "staking", "initiate_epoch_change", args);
    });
    assert_eq!(*executed.unwrap().effects.status(), ExecutionStatus::Success);
    let during = view(&world.chain.store, world.ids.staking).unwrap().committees;
    assert_eq!((during.epoch, during.state), (2, EpochState::ChangeSync(0)));
    assert_eq!(during.previous.as_ref(), Some(&committee()));
    assert_ne!(during.current.members[0].shards, committee().members[0].shards);

    // A certificate of the old epoch is too late, one of the new epoch is good.
    let late = certificate(&[1, 2, 3], 1, None);
    let abort = world.aborts(|ptb, ids| {
        let blob = ptb.owned(blob).unwrap();
        certify(ptb, ids, blob, &late);
    });
    assert_eq!(abort, ("messages".into(), 1));
    let good = certificate(&[1, 2, 3], 2, None);
    world.ok(|ptb, ids| {
        let blob = ptb.owned(blob).unwrap();
        certify(ptb, ids, blob, &good);
    });

    let caps = world.ids.caps.clone();
    for cap in &caps[1..] {
        let done = world.submit_as(&operator(), |ptb, ids| {
            let staking = ptb.shared(ids.staking, true).unwrap();
            let (cap, epoch, clock) = (ptb.owned(*cap).unwrap(), ptb.pure(&2u32), ptb.clock());
            ptb.call(ids.package, "staking", "epoch_sync_done", vec![staking, cap, epoch, clock]);
        });
        assert_eq!(*done.unwrap().effects.status(), ExecutionStatus::Success);
    }
    let after = view(&world.chain.store, world.ids.staking).unwrap().committees;
    assert!(matches!(after.state, EpochState::ChangeDone(at) if at > NOW));
}
