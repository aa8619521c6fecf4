//! This project's prover and chain reader against the node: both kinds of proof, all anchors.

use super::*;
use crate::sui::{Devnet, FaultState, FullNode};
use haulout_sui::{
    Network,
    chain::SuiChain,
    network::TrustAnchor,
    object_id::object_id,
    proof::Evidence,
    prover::{Prover, shared},
};
use haulout_walrus::{BlobName, ChainReader};

async fn network(artifacts: bool) -> (Devnet, FullNode) {
    let setup = Setup { seed: [3; 32], artifacts, ..Setup::default() };
    let devnet = Devnet::new(&setup, &committee(), || NOW);
    let node = devnet.serve(([127, 0, 0, 1], 0).into()).await.unwrap();
    (devnet, node)
}

pub(super) fn configured(devnet: &Devnet, nodes: &[&FullNode]) -> Network {
    Network {
        name: "devnet".into(),
        rpc_urls: nodes.iter().map(|node| node.url()).collect(),
        system_object: object_id(devnet.system_object()),
        staking_object: object_id(devnet.staking_object()),
        aggregators: vec![],
        walrus_package: Some(object_id(devnet.walrus_package())),
        wal_package: Some(object_id(devnet.wal_package())),
        trust_anchor: Some(TrustAnchor::Checkpoint(devnet.chain_id().into_inner())),
    }
}

/// Proves Walrus' `System`, which the last transaction of [`history`] has written.
async fn prove(devnet: &Devnet, network: &Network) -> Result<(Evidence, u64), String> {
    let expected = shared(
        object_id(devnet.system_object()),
        Some(object_id(devnet.walrus_package())),
        "system",
        "System",
    );
    let prover = Prover::new(network, None).map_err(|error| error.to_string())?;
    match prover.newest(&expected, None).await {
        Ok(Some((proof, verified))) => Ok((proof.evidence().clone(), verified.checkpoint)),
        Ok(None) => Err("nothing newer".into()),
        Err(error) => Err(format!("{error:?}")),
    }
}

fn history(devnet: &Devnet) -> u64 {
    for _ in 0..3 {
        devnet.tick();
        devnet.end_sui_epoch();
    }
    devnet.begin_walrus_epoch().unwrap();
    devnet.height()
}

#[tokio::test]
async fn both_kinds_of_proof_from_the_first_checkpoint() {
    for artifacts in [true, false] {
        let (devnet, node) = network(artifacts).await;
        let checkpoint = history(&devnet);
        let network = configured(&devnet, &[&node]);
        let (evidence, proven) = prove(&devnet, &network).await.unwrap();
        assert_eq!(proven, checkpoint);
        assert_eq!(matches!(evidence, Evidence::Tree { .. }), artifacts, "{evidence:?}");
        // The same node without the proof service.
        node.faults().set(|faults| faults.no_proofs = true);
        let (evidence, _) = prove(&devnet, &network).await.unwrap();
        assert!(!matches!(evidence, Evidence::Tree { .. }));
    }
}

#[tokio::test]
async fn liars_prove_nothing_and_one_honest_node_is_enough() {
    let (devnet, node) = network(true).await;
    let honest = devnet.serve(([127, 0, 0, 1], 0).into()).await.unwrap();
    let checkpoint = history(&devnet);
    let lies: [fn(&mut FaultState); 9] = [
        |faults| faults.forged_object = true,
        |faults| faults.wrong_version = true,
        |faults| faults.wrong_owner = true,
        |faults| faults.other_object = true,
        |faults| faults.truncated_proof = true,
        |faults| faults.bad_signature = true,
        |faults| faults.gone = true,
        |faults| faults.pruned_below = Some(u64::MAX),
        |faults| faults.stale_at = Some(0),
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        for no_proofs in [false, true] {
            node.faults().clear();
            node.faults().set(lie);
            node.faults().set(|faults| faults.no_proofs = no_proofs);
            let alone = prove(&devnet, &configured(&devnet, &[&node])).await;
            match number {
                // An old state is a true one: only its age can be seen.
                8 => assert_eq!(alone.unwrap().1, 0),
                _ => drop(alone.unwrap_err()),
            }
            let both = prove(&devnet, &configured(&devnet, &[&node, &honest])).await;
            assert_eq!(both.unwrap().1, checkpoint, "lie {number}");
        }
    }
}

#[tokio::test]
async fn a_fork_is_refused_whatever_the_proof() {
    for artifacts in [true, false] {
        let (devnet, _node) = network(artifacts).await;
        history(&devnet);
        let node = devnet.fork([66; 32]).serve(([127, 0, 0, 1], 0).into()).await.unwrap();
        prove(&devnet, &configured(&devnet, &[&node])).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_node_joins_a_fork_and_comes_back() {
    let (devnet, node) = network(true).await;
    let checkpoint = history(&devnet);
    node.faults().set(|faults| faults.fork = true);
    prove(&devnet, &configured(&devnet, &[&node])).await.unwrap_err();
    devnet.tick();
    node.faults().clear();
    assert_eq!(prove(&devnet, &configured(&devnet, &[&node])).await.unwrap().1, checkpoint);
}

#[tokio::test]
async fn the_committees_and_blobs_are_what_the_chain_has() {
    let (devnet, node) = network(true).await;
    let operator = devnet.operator_address();
    let executed = devnet
        .transact(|ptb, ids| {
            walrus::register(ptb, ids, operator, true, 4);
            Some(())
        })
        .unwrap();
    let blob = written(&executed, "Blob");
    // A reader does not ask again at once: a fresh one each time.
    let fresh = || SuiChain::new(&configured(&devnet, &[&node]));
    let chain = fresh();
    let view = chain.committees(true).await.unwrap();
    assert_eq!(view, devnet.committees().unwrap());
    let state = chain.blob(BlobName::Object(object_id(blob))).await.unwrap().unwrap();
    assert_eq!(state.blob, walrus::blob_id());
    assert_eq!((state.registered_epoch, state.certified_epoch, state.end_epoch), (1, None, 5));
    devnet.begin_walrus_epoch().unwrap();
    let view = fresh().committees(true).await.unwrap();
    assert!(view.is_changing());
    assert_eq!(view, devnet.committees().unwrap());
    devnet.finish_walrus_epoch().unwrap();
    let view = fresh().committees(true).await.unwrap();
    assert!(!view.is_changing());
    assert_eq!(view, devnet.committees().unwrap());
}

/// As many shards as the public networks have, on 20 nodes.
#[tokio::test]
async fn a_thousand_shards() {
    let nodes = (0..20u8).map(|i| StorageNode {
        node_id: ObjectId([i + 1; 32]),
        name: format!("node-{i}"),
        address: format!("127.0.0.1:{}", 9_000 + u16::from(i)),
        network_public_key: [&[2][..], &[i; 32]].concat(),
        bls_public_key: node_key(i).public_key().to_bytes(),
        shards: (0..50).map(|s| ShardIndex(u16::from(i) * 50 + s)).collect(),
    });
    let committee = Committee::new(7, ShardCount::PUBLIC, nodes.collect()).unwrap();
    let devnet = Devnet::new(&Setup::default(), &committee, || NOW);
    let node = devnet.serve(([127, 0, 0, 1], 0).into()).await.unwrap();
    devnet.begin_walrus_epoch().unwrap();
    let chain = SuiChain::new(&configured(&devnet, &[&node]));
    let view = chain.committees(true).await.unwrap();
    assert_eq!(view, devnet.committees().unwrap());
    assert_eq!((view.epoch, view.previous), (8, Some(committee)));
    let shards: usize = view.current.members.iter().map(|member| member.shards.len()).sum();
    assert_eq!(shards, 1_000);
}
