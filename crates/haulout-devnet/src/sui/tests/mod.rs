//! The model from outside: transactions in, effects and objects out.

mod archive;
mod captures;
mod coins;
#[path = "../../../tests/support/four.rs"]
mod four;
mod light_client;
mod proofs;
mod wallet;
mod walrus;

use haulout_walrus::committee::{Committee, ObjectId, StorageNode};
use redstuff::{ShardCount, ShardIndex};
use sui_crypto::{SuiSigner, ed25519::Ed25519PrivateKey};
use sui_sdk_types::{Address, ExecutionError, ExecutionStatus, SignedTransaction};

use super::{
    Setup,
    genesis::chain,
    model::{Chain, Executed, Rejected},
    ptb::Ptb,
    walrus::WalrusIds,
};
use std::sync::Arc;

use four::{committee, node_key, user};

const NOW: u64 = 1_800_000_000_000;

struct World {
    chain: Chain,
    ids: WalrusIds,
    user: Address,
}

fn operator() -> Ed25519PrivateKey {
    Ed25519PrivateKey::new([8; 32])
}

impl World {
    fn new() -> Self {
        let user = user().public_key().derive_address();
        let setup = Setup { accounts: vec![user], seed: [3; 32], ..Setup::default() };
        let operator = operator().public_key().derive_address();
        let (chain, ids) = chain(&setup, &committee(), operator, NOW);
        Self { chain, ids, user }
    }

    fn submit_as(
        &mut self,
        key: &Ed25519PrivateKey,
        build: impl FnOnce(&mut Ptb<'_>, &WalrusIds),
    ) -> Result<Arc<Executed>, Rejected> {
        let mut ptb = Ptb::new(&self.chain, key.public_key().derive_address());
        build(&mut ptb, &self.ids);
        let transaction = ptb.finish(1_000_000_000).unwrap();
        let signature = key.sign_transaction(&transaction).unwrap();
        let signed = SignedTransaction { transaction, signatures: vec![signature] };
        let now = NOW + 1_000 * self.chain.checkpoints().len() as u64;
        self.chain.submit(signed, now)
    }

    fn submit(&mut self, build: impl FnOnce(&mut Ptb<'_>, &WalrusIds)) -> Arc<Executed> {
        self.submit_as(&user(), build).unwrap()
    }

    fn ok(&mut self, build: impl FnOnce(&mut Ptb<'_>, &WalrusIds)) -> Arc<Executed> {
        let executed = self.submit(build);
        assert_eq!(*executed.effects.status(), ExecutionStatus::Success);
        executed
    }

    /// The code of the abort that a transaction ends with.
    fn aborts(&mut self, build: impl FnOnce(&mut Ptb<'_>, &WalrusIds)) -> (String, u64) {
        let executed = self.submit(build);
        match executed.effects.status() {
            ExecutionStatus::Failure {
                error: ExecutionError::MoveAbort { location, code },
                ..
            } => (location.module.to_string(), *code),
            other => panic!("no abort: {other:?}"),
        }
    }
}

/// The object of this type that a transaction wrote.
fn written(executed: &Executed, name: &str) -> Address {
    let mut found = executed.written.iter().filter(|object| {
        object.as_struct().is_some_and(|data| data.object_type().name().as_str() == name)
    });
    found.next().unwrap_or_else(|| panic!("no {name}")).object_id()
}

/// `count` checkpoints, of which some end an epoch and some have a user's transaction.
pub(in crate::sui) fn history_of(
    count: u64,
    ends: &[u64],
    users: &[u64],
) -> Vec<Arc<super::model::Checkpoint>> {
    let mut world = World::new();
    for number in 1..count {
        let now = NOW + 1_000 * number;
        if ends.contains(&number) {
            world.chain.end_epoch(now);
        } else if users.contains(&number) {
            world.ok(|ptb, _| {
                let part = ptb.split(sui_sdk_types::Argument::Gas, 5);
                ptb.transfer(vec![part], Address::from_static("0xabc"));
            });
        } else {
            world.chain.tick(now);
        }
    }
    world.chain.checkpoints().iter().cloned().collect()
}
