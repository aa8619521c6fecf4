use super::{walrus::*, *};
use crate::sui::exec::Outcome;
use sui_sdk_types::{Argument, Command, ObjectData, Publish};

/// The contract's bytecode, with Walrus' id on this chain in the place of mainnet's.
fn module(world: &World) -> Vec<u8> {
    haulout_archive::contract::module_for(&world.ids.original.into_inner())
}

fn publish(world: &mut World, dependencies: Vec<Address>) -> Arc<Executed> {
    let (user, modules) = (world.user, vec![module(world)]);
    world.submit(|ptb, _| {
        let cap = ptb.push(Command::Publish(Publish { modules, dependencies }));
        ptb.transfer(vec![cap], user);
    })
}

struct Archive {
    package: Address,
    archive: Address,
    owner: Address,
    publisher: Address,
}

fn dependencies(world: &World) -> Vec<Address> {
    vec![Address::from_static("0x1"), Address::TWO, world.ids.package, world.ids.wal]
}

fn archive(world: &mut World) -> Archive {
    let dependencies = dependencies(world);
    let executed = publish(world, dependencies);
    assert_eq!(*executed.effects.status(), ExecutionStatus::Success);
    let package = executed.written.iter().find_map(|object| match object.data() {
        ObjectData::Package(package) => Some(package.id),
        ObjectData::Struct(_) => None,
    });
    let package = package.unwrap();
    let user = world.user;
    let executed = world.ok(|ptb, _| {
        let (dir, name) = (ptb.pure("/nix/store"), ptb.pure("test"));
        let Argument::Result(n) = ptb.call(package, "archive", "create", vec![dir, name]) else {
            panic!()
        };
        let caps = vec![Argument::NestedResult(n, 0), Argument::NestedResult(n, 1)];
        ptb.transfer(caps, user);
    });
    Archive {
        package,
        archive: written(&executed, "Archive"),
        owner: written(&executed, "OwnerCap"),
        publisher: written(&executed, "PublisherCap"),
    }
}

/// `update` with one new level on top of those in `keep`.
fn update(
    ptb: &mut Ptb<'_>,
    ids: &WalrusIds,
    archive: &Archive,
    blob: Argument,
    expected: u64,
    end_epoch: u32,
    keep: &[u64],
) {
    let args = vec![
        ptb.shared(archive.archive, true).unwrap(),
        ptb.owned(archive.publisher).unwrap(),
        ptb.pure(&expected),
        ptb.pure(&vec![5u8; 32]),
        ptb.pure(&10u64),
        ptb.pure(&end_epoch),
        ptb.pure(keep),
        ptb.pure(&0u64),
        blob,
        ptb.shared(ids.system, false).unwrap(),
        ptb.clock(),
    ];
    ptb.call(archive.package, "archive", "update", args);
}

fn certified(world: &mut World) -> Address {
    let blob = registered(world, false, 5);
    let cert = certificate(&[1, 2, 3], 1, None);
    world.ok(|ptb, ids| {
        let blob = ptb.owned(blob).unwrap();
        certify(ptb, ids, blob, &cert);
    });
    blob
}

#[test]
fn an_archive_grows_by_compare_and_set() {
    let mut world = World::new();
    let archive = archive(&mut world);
    // Certified and named in one transaction.
    let blob = registered(&mut world, false, 5);
    let cert = certificate(&[1, 2, 3], 1, None);
    let executed = world.ok(|ptb, ids| {
        let blob = ptb.owned(blob).unwrap();
        let system = ptb.shared(ids.system, false).unwrap();
        let args = certify_args(ptb, system, blob, &cert);
        ptb.call(ids.package, "system", "certify_blob", args);
        let args = vec![
            ptb.shared(archive.archive, true).unwrap(),
            ptb.owned(archive.publisher).unwrap(),
            ptb.pure(&0u64),
            ptb.pure(&vec![5u8; 32]),
            ptb.pure(&10u64),
            ptb.pure(&6u32),
            ptb.pure::<[u64]>(&[]),
            ptb.pure(&0u64),
            blob,
            system,
            ptb.clock(),
        ];
        ptb.call(archive.package, "archive", "update", args);
    });
    assert_eq!(executed.events.as_ref().unwrap().0.len(), 2);
    let object = world.chain.store.get(archive.archive).unwrap();
    let bytes = object.as_struct().unwrap().contents();
    assert_eq!(bytes[32..40], 1u64.to_le_bytes());
    // The time is the clock's, which this very checkpoint has set.
    assert_eq!(bytes[40..48], executed.timestamp_ms.to_le_bytes());

    let stale = world.aborts(|ptb, ids| {
        let blob = ptb.owned(blob).unwrap();
        update(ptb, ids, &archive, blob, 0, 6, &[0]);
    });
    assert_eq!(stale, ("archive".into(), 4));
    world.ok(|ptb, ids| {
        let blob = ptb.owned(blob).unwrap();
        update(ptb, ids, &archive, blob, 1, 5, &[0]);
    });
    let object = world.chain.store.get(archive.archive).unwrap();
    assert_eq!(object.as_struct().unwrap().contents()[48], 2, "levels");
}

#[test]
fn every_refusal_of_an_update() {
    let mut world = World::new();
    let archive = archive(&mut world);
    let blob = certified(&mut world);
    let mut abort = |expected, end_epoch, keep: &[u64]| {
        world.aborts(|ptb, ids| {
            let blob = ptb.owned(blob).unwrap();
            update(ptb, ids, &archive, blob, expected, end_epoch, keep);
        })
    };
    assert_eq!(abort(1, 6, &[]).1, 4);
    assert_eq!(abort(0, 7, &[]).1, 10);
    assert_eq!(abort(0, 1, &[]).1, 11);
    assert_eq!(abort(0, 6, &[0]).1, 13);
    assert_eq!(abort(0, 6, &[0, 1, 2, 3, 4, 5, 6, 7]).1, 12);
    let pending = registered(&mut world, false, 5);
    let uncertified = world.aborts(|ptb, ids| {
        let blob = ptb.owned(pending).unwrap();
        update(ptb, ids, &archive, blob, 0, 6, &[]);
    });
    assert_eq!(uncertified.1, 8);
}

#[test]
fn a_revoked_cap_is_worthless_and_a_frozen_archive_stays() {
    let mut world = World::new();
    let archive = archive(&mut world);
    let user = world.user;
    let beat = |archive: &Archive, publisher, expected: u64| {
        let (package, id) = (archive.package, archive.archive);
        move |ptb: &mut Ptb<'_>, _: &WalrusIds| {
            let args = vec![
                ptb.shared(id, true).unwrap(),
                ptb.owned(publisher).unwrap(),
                ptb.pure(&expected),
                ptb.clock(),
            ];
            ptb.call(package, "archive", "beat", args);
        }
    };
    world.ok(beat(&archive, archive.publisher, 0));
    let executed = world.ok(|ptb, _| {
        let args = vec![
            ptb.shared(archive.archive, true).unwrap(),
            ptb.owned(archive.owner).unwrap(),
            ptb.pure(&archive.publisher),
        ];
        let cap = ptb.call(archive.package, "archive", "rotate_publisher", args);
        ptb.transfer(vec![cap], user);
    });
    let new = written(&executed, "PublisherCap");
    assert_eq!(world.aborts(beat(&archive, archive.publisher, 1)).1, 3);
    world.ok(beat(&archive, new, 1));
    world.ok(|ptb, _| {
        let args =
            vec![ptb.shared(archive.archive, true).unwrap(), ptb.owned(archive.owner).unwrap()];
        ptb.call(archive.package, "archive", "freeze_forever", args);
    });
    assert!(world.chain.store.get(archive.owner).is_none());
    assert_eq!(world.aborts(beat(&archive, new, 2)).1, 5);
}

#[test]
fn publishing_wants_every_dependency() {
    let mut world = World::new();
    let mut dependencies = dependencies(&world);
    dependencies.pop();
    let executed = publish(&mut world, dependencies);
    let ExecutionStatus::Failure { error, .. } = executed.effects.status() else { panic!() };
    assert_eq!(*error, ExecutionError::PublishUpgradeMissingDependency);
}

#[test]
fn a_simulation_leaves_no_trace() {
    let world = World::new();
    let transaction = {
        let mut ptb = Ptb::new(&world.chain, world.user);
        let part = ptb.split(Argument::Gas, 7);
        ptb.transfer(vec![part], Address::from_static("0xabc"));
        ptb.finish(1_000_000_000).unwrap()
    };
    let height = world.chain.checkpoints().len();
    let outcome: Outcome = world.chain.simulate(&transaction).unwrap();
    assert_eq!(*outcome.effects.status(), ExecutionStatus::Success);
    assert_eq!(world.chain.checkpoints().len(), height);
    assert!(world.chain.transaction(&transaction.digest()).is_none());
}

#[test]
fn a_fork_has_every_transaction_and_object_of_the_history() {
    let mut world = World::new();
    let archive = archive(&mut world);
    for sequence in 0..3 {
        let blob = certified(&mut world);
        world.ok(|ptb, ids| {
            let blob = ptb.owned(blob).unwrap();
            update(ptb, ids, &archive, blob, sequence, 6, &[]);
        });
        world.chain.tick(NOW + 1_000 * world.chain.checkpoints().len() as u64);
        world.chain.end_epoch(NOW + 1_000 * world.chain.checkpoints().len() as u64);
    }
    // One that fails is part of the history too.
    let failed = world.aborts(|ptb, ids| {
        let stale = ptb.owned(archive.owner).unwrap();
        let args =
            vec![ptb.shared(archive.archive, true).unwrap(), stale, ptb.pure(&Address::ZERO)];
        let _ = ids;
        ptb.call(archive.package, "archive", "revoke_publisher", args);
    });
    assert_eq!(failed.1, 18);

    let fork = world.chain.fork([66; 32]);
    assert_eq!(fork.id(), world.chain.id());
    assert_eq!(fork.checkpoints().len(), world.chain.checkpoints().len());
    for (ours, theirs) in world.chain.checkpoints().iter().zip(fork.checkpoints().iter()) {
        let digests = |checkpoint: &crate::sui::model::Checkpoint| {
            checkpoint.transactions.iter().map(|executed| executed.digest).collect::<Vec<_>>()
        };
        assert_eq!(digests(ours), digests(theirs), "checkpoint {}", ours.summary.sequence_number);
        for (one, other) in ours.transactions.iter().zip(&theirs.transactions) {
            assert_eq!(one.effects.status(), other.effects.status());
            let ids = |executed: &Executed| {
                executed.written.iter().map(|o| (o.object_id(), o.version())).collect::<Vec<_>>()
            };
            assert_eq!(ids(one), ids(other));
        }
    }
}
