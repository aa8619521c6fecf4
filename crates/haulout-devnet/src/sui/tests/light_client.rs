//! The SDK's own light client believes this node where it should, and nowhere else.

use super::*;
use crate::sui::{Devnet, FaultState, FullNode, exec::field_id};
use sui_rpc::{
    Client,
    light_client::{CheckpointObjectProof, LightClient, LightClientError, RatchetConfig},
};
use sui_sdk_types::ValidatorCommittee;

async fn network(validators: usize) -> (Devnet, FullNode) {
    let setup = Setup { seed: [3; 32], validators, ..Setup::default() };
    let devnet = Devnet::new(&setup, &committee(), || NOW);
    let node = devnet.serve(([127, 0, 0, 1], 0).into()).await.unwrap();
    (devnet, node)
}

fn light(node: &FullNode, committee: ValidatorCommittee) -> LightClient {
    let config = RatchetConfig { max_retries: 0, ..RatchetConfig::default() };
    LightClient::new(Client::new(node.url()).unwrap(), committee).with_ratchet_config(config)
}

/// Some epochs, and at the end a transaction that writes Walrus' state.
fn history(devnet: &Devnet, epochs: usize) -> (Address, u64) {
    for _ in 0..epochs {
        devnet.tick();
        devnet.end_sui_epoch();
    }
    devnet.begin_walrus_epoch().unwrap();
    (field_id(devnet.system_object(), 3), devnet.height())
}

async fn follows(validators: usize, epochs: usize) {
    let (devnet, node) = network(validators).await;
    let (id, checkpoint) = history(&devnet, epochs);
    let mut client = light(&node, devnet.validators(0).unwrap());
    let proof = client.prove_object_at_checkpoint(&id, checkpoint).await.unwrap();
    let CheckpointObjectProof::Inclusion { object: Some(object), .. } = proof else {
        panic!("no inclusion")
    };
    assert_eq!(object.object_id(), id);
    assert_eq!(client.epoch_cache().current_epoch(), epochs as u64);
    // An object that this checkpoint did not write.
    let other = devnet.wal_package();
    let proof = client.prove_object_at_checkpoint(&other, checkpoint).await.unwrap();
    assert!(matches!(proof, CheckpointObjectProof::NonInclusion));
    // From the middle, and the genesis.
    let mut client = light(&node, devnet.validators(1).unwrap());
    client.prove_object_at_checkpoint(&id, checkpoint).await.unwrap();
    let mut client = light(&node, devnet.validators(0).unwrap());
    client.prove_object_at_checkpoint(&other, 0).await.unwrap();
}

#[tokio::test]
async fn four_validators_over_five_epochs() {
    follows(4, 5).await;
}

#[tokio::test]
async fn a_hundred_and_twenty_eight_validators() {
    follows(128, 2).await;
}

#[tokio::test]
async fn lies_are_found_out() {
    let (devnet, node) = network(4).await;
    let (id, checkpoint) = history(&devnet, 2);
    let committee = devnet.validators(0).unwrap();
    let lie = async |change: fn(&mut FaultState)| {
        node.faults().clear();
        node.faults().set(change);
        let mut client = light(&node, committee.clone());
        client.prove_object_at_checkpoint(&id, checkpoint).await.unwrap_err()
    };
    let error = lie(|faults| faults.forged_object = true).await;
    assert!(matches!(error, LightClientError::ObjectDataMismatch(_)), "{error:?}");
    let error = lie(|faults| faults.wrong_version = true).await;
    assert!(matches!(error, LightClientError::ObjectDataMismatch(_)), "{error:?}");
    let error = lie(|faults| faults.wrong_owner = true).await;
    assert!(matches!(error, LightClientError::ObjectDataMismatch(_)), "{error:?}");
    let error = lie(|faults| faults.truncated_proof = true).await;
    assert!(matches!(error, LightClientError::InvalidProof(_)), "{error:?}");
    let error = lie(|faults| faults.bad_signature = true).await;
    assert!(matches!(error, LightClientError::InvalidSignature(_)), "{error:?}");
    let error = lie(|faults| faults.no_proofs = true).await;
    assert!(matches!(error, LightClientError::Rpc(_)), "{error:?}");
    let error = lie(|faults| faults.gone = true).await;
    assert!(matches!(error, LightClientError::Rpc(_)), "{error:?}");
    let error = lie(|faults| faults.pruned_below = Some(u64::MAX)).await;
    // The last checkpoint is there, the ends of the epochs before are not.
    assert!(matches!(error, LightClientError::EpochNotFound { .. }), "{error:?}");
}

#[tokio::test]
async fn a_fork_has_the_same_name_and_other_signatures() {
    let (devnet, _node) = network(4).await;
    let (id, checkpoint) = history(&devnet, 2);
    let fork = devnet.fork([66; 32]);
    assert_eq!(fork.chain_id(), devnet.chain_id());
    assert_eq!(fork.height(), devnet.height());
    let node = fork.serve(([127, 0, 0, 1], 0).into()).await.unwrap();
    let mut fooled = light(&node, fork.validators(0).unwrap());
    fooled.prove_object_at_checkpoint(&id, checkpoint).await.unwrap();
    let mut client = light(&node, devnet.validators(0).unwrap());
    let error = client.prove_object_at_checkpoint(&id, checkpoint).await.unwrap_err();
    assert!(matches!(error, LightClientError::InvalidSignature(_)), "{error:?}");
}

#[tokio::test]
async fn the_sdk_sends_and_waits() {
    use sui_rpc::{
        field::{FieldMask, FieldMaskUtil},
        proto::sui::rpc::v2::ExecuteTransactionRequest,
    };
    let account = user().public_key().derive_address();
    let setup = Setup { seed: [3; 32], accounts: vec![account], ..Setup::default() };
    let devnet = Devnet::new(&setup, &committee(), || NOW);
    let node = devnet.serve(([127, 0, 0, 1], 0).into()).await.unwrap();
    let transaction = devnet.draft(account, |ptb| {
        let part = ptb.split(sui_sdk_types::Argument::Gas, 5);
        ptb.transfer(vec![part], Address::from_static("0xabc"));
    });
    let signature = user().sign_transaction(&transaction).unwrap();
    let mut request = ExecuteTransactionRequest::default();
    request.transaction = Some(transaction.clone().into());
    request.signatures = vec![signature.into()];
    request.read_mask = Some(<FieldMask as FieldMaskUtil>::from_paths(["effects", "digest"]));
    let mut client = Client::new(node.url()).unwrap();
    let wait = std::time::Duration::from_secs(60);
    let answer = client.execute_transaction_and_wait_for_checkpoint(request, wait).await.unwrap();
    let executed = answer.into_inner().transaction.unwrap();
    assert_eq!(executed.digest, Some(transaction.digest().to_string()));
    assert_eq!(executed.checkpoint, Some(devnet.height()));
}
