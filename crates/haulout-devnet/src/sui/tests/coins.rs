use super::*;
use crate::sui::{exec::coin_value, walrus::wal_coin_tag};
use sui_sdk_types::{
    Argument, Command, Digest, IdOperation, MergeCoins, ObjectOut, StructTag, TransactionEffects,
};

fn sui_of(world: &World, owner: Address) -> u64 {
    let type_ = StructTag::gas_coin();
    let coins = world.chain.store.owned_of_type(owner, &type_);
    coins.filter_map(|coin| coin_value(coin, &type_)).sum()
}

fn v2(executed: &Executed) -> &sui_sdk_types::TransactionEffectsV2 {
    match &executed.effects {
        TransactionEffects::V2(effects) => effects,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_same_seed_gives_the_same_chain() {
    let (a, b) = (World::new(), World::new());
    assert_eq!(a.chain.id(), b.chain.id());
    assert_eq!(
        a.chain.checkpoints().first().unwrap().signature,
        b.chain.checkpoints().first().unwrap().signature
    );
}

#[test]
fn what_one_gives_the_other_gets_and_gas_is_the_difference() {
    let mut world = World::new();
    let (user, other) = (world.user, Address::from_static("0xabc"));
    let before = sui_of(&world, user);
    let executed = world.ok(|ptb, _| {
        let part = ptb.split(Argument::Gas, 5_000);
        ptb.transfer(vec![part], other);
    });
    let effects = v2(&executed);
    let net = effects.gas_used.net_gas_usage();
    assert_eq!(sui_of(&world, other), 5_000);
    assert_eq!(sui_of(&world, user) as i64, before as i64 - 5_000 - net);
    // The new coin's deposit, a gas coin rewritten, the least computation.
    assert_eq!(effects.gas_used.computation_cost, 1_000_000);
    assert_eq!(effects.gas_used.storage_cost, 2 * 988_000);
    assert_eq!(executed.balance_changes.len(), 2);

    // Effects name what is stored: digests, versions, owner.
    assert_eq!(effects.changed_objects.len(), 2);
    for change in &effects.changed_objects {
        let object = world.chain.store.get(change.object_id).unwrap();
        assert_eq!(object.version(), effects.lamport_version);
        let ObjectOut::ObjectWrite { digest, owner } = &change.output_state else { panic!() };
        assert_eq!((*digest, *owner), (object.digest(), *object.owner()));
        assert_eq!(object.previous_transaction(), executed.digest);
    }
    let gas = &effects.changed_objects[effects.gas_object_index.unwrap() as usize];
    assert_eq!(gas.id_operation, IdOperation::None);
}

#[test]
fn all_coins_become_one() {
    let mut world = World::new();
    let user = world.user;
    let type_ = wal_coin_tag(world.ids.wal);
    let ids: Vec<_> =
        world.chain.store.owned_of_type(user, &type_).map(|coin| coin.object_id()).collect();
    let executed = world.ok(|ptb, _| {
        let coins: Vec<_> = ids.iter().map(|id| ptb.owned(*id).unwrap()).collect();
        let command = MergeCoins { coin: coins[0], coins_to_merge: coins[1..].to_vec() };
        ptb.push(Command::MergeCoins(command));
    });
    let left: Vec<_> = world.chain.store.owned_of_type(user, &type_).collect();
    assert_eq!(left.len(), 1);
    assert_eq!(coin_value(left[0], &type_), Some(400_000 * 1_000_000_000));
    let deleted = v2(&executed).changed_objects.iter();
    assert_eq!(deleted.filter(|c| c.id_operation == IdOperation::Deleted).count(), 3);
    // A coin other than SUI: the deny list counts as read.
    assert_eq!(v2(&executed).unchanged_consensus_objects.len(), 1);
}

#[test]
fn a_failed_transaction_pays_and_changes_nothing_else() {
    let mut world = World::new();
    let user = world.user;
    let before = sui_of(&world, user);
    let executed = world.submit(|ptb, _| {
        let part = ptb.split(Argument::Gas, u64::MAX);
        ptb.transfer(vec![part], Address::from_static("0xabc"));
    });
    let ExecutionStatus::Failure { error, command } = executed.effects.status() else { panic!() };
    assert_eq!((error, command), (&ExecutionError::InsufficientCoinBalance, &Some(0)));
    assert_eq!(sui_of(&world, Address::from_static("0xabc")), 0);
    assert_eq!(sui_of(&world, user) as i64, before as i64 - v2(&executed).gas_used.net_gas_usage());
}

#[test]
fn what_is_left_over_is_refused() {
    let mut world = World::new();
    let executed = world.submit(|ptb, _| {
        ptb.split(Argument::Gas, 1);
    });
    let ExecutionStatus::Failure { error, .. } = executed.effects.status() else { panic!() };
    assert!(matches!(error, ExecutionError::UnusedValueWithoutDrop { .. }));
}

#[test]
fn the_same_transaction_twice_happens_once() {
    let mut world = World::new();
    let transaction = {
        let mut ptb = Ptb::new(&world.chain, world.user);
        let part = ptb.split(Argument::Gas, 7);
        ptb.transfer(vec![part], Address::from_static("0xabc"));
        ptb.finish(1_000_000_000).unwrap()
    };
    let signature = user().sign_transaction(&transaction).unwrap();
    let signed = SignedTransaction { transaction, signatures: vec![signature] };
    let first = world.chain.submit(signed.clone(), NOW).unwrap();
    let height = world.chain.checkpoints().len();
    let again = world.chain.submit(signed.clone(), NOW + 5).unwrap();
    assert_eq!((first.digest, first.checkpoint), (again.digest, again.checkpoint));
    assert_eq!(world.chain.checkpoints().len(), height);

    // Other bytes that spend the same coin are stale now.
    let mut stale = signed.clone();
    stale.transaction.gas_payment.budget -= 1;
    let signature = user().sign_transaction(&stale.transaction).unwrap();
    stale.signatures = vec![signature];
    let refused = world.chain.submit(stale, NOW).unwrap_err();
    assert!(refused.0.contains("not available for consumption"), "{}", refused.0);
}

#[test]
fn nobody_spends_what_is_not_theirs() {
    let mut world = World::new();
    let transaction = {
        let mut ptb = Ptb::new(&world.chain, world.user);
        let part = ptb.split(Argument::Gas, 7);
        ptb.transfer(vec![part], Address::from_static("0xabc"));
        ptb.finish(1_000_000_000).unwrap()
    };
    let mut refuse = |signed: SignedTransaction| world.chain.submit(signed, NOW).unwrap_err().0;
    let thief = Ed25519PrivateKey::new([1; 32]);
    let signature = thief.sign_transaction(&transaction).unwrap();
    let signed =
        SignedTransaction { transaction: transaction.clone(), signatures: vec![signature] };
    assert!(refuse(signed).contains("Required Signature"));
    let signed = SignedTransaction { transaction: transaction.clone(), signatures: vec![] };
    assert!(refuse(signed).contains("Expect 1 signer"));
    let mut other = transaction.clone();
    other.gas_payment.budget += 1;
    let signature = user().sign_transaction(&other).unwrap();
    let signed =
        SignedTransaction { transaction: transaction.clone(), signatures: vec![signature] };
    assert!(refuse(signed).contains("Signature is not valid"));
    let mut stolen = transaction;
    stolen.sender = thief.public_key().derive_address();
    stolen.gas_payment.owner = stolen.sender;
    let signature = thief.sign_transaction(&stolen).unwrap();
    let signed = SignedTransaction { transaction: stolen, signatures: vec![signature] };
    assert!(refuse(signed).contains("correct sender"));
}

#[test]
fn epochs_follow_and_checkpoints_chain() {
    let mut world = World::new();
    world.chain.tick(NOW + 5);
    world.chain.end_epoch(NOW + 10);
    world.chain.tick(NOW + 3);
    assert_eq!(world.chain.epoch(), 1);
    let checkpoints = world.chain.checkpoints();
    let mut previous: Option<Digest> = None;
    for (number, checkpoint) in checkpoints.iter().enumerate() {
        assert_eq!(checkpoint.summary.sequence_number, number as u64);
        assert_eq!(checkpoint.summary.previous_digest, previous);
        assert_eq!(checkpoint.summary.content_digest, checkpoint.contents.digest());
        previous = Some(checkpoint.digest);
    }
    assert_eq!(
        checkpoints
            .get(2)
            .unwrap()
            .summary
            .end_of_epoch_data
            .as_ref()
            .unwrap()
            .next_epoch_committee,
        world.chain.epochs()[1].committee.members
    );
    let last = checkpoints.last().unwrap();
    assert_eq!(last.summary.epoch, 1);
    // Time does not run backwards.
    assert_eq!(last.summary.timestamp_ms, NOW + 10);
}
