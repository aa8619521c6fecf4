use haulout_walrus::{BlobName, ChainErrorKind, ChainReader, EpochState};
use redstuff::{BlobId, ShardIndex};

use super::*;
use crate::{
    testing_exchanges as exchanges,
    testing_node::{Ledger, Server, recorded_network},
};

const NOBODY: &str = "http://127.0.0.1:9";

async fn recorded() -> SuiChain {
    let (_, url) = Server::start(Ledger::recorded()).await;
    SuiChain::new(&recorded_network(&[NOBODY, &url]))
}

#[tokio::test]
async fn the_committee_of_a_real_network_is_read() {
    let chain = recorded().await;
    let view = chain.committees(false).await.unwrap();
    assert_eq!(view.epoch, 1);
    assert!(matches!(view.state, EpochState::ChangeDone(_)));
    let committee = &view.current;
    assert_eq!(committee.n_shards.get(), 13);
    assert_eq!(committee.members.len(), 5);
    let mut weights: Vec<_> = committee.members.iter().map(|node| node.shards.len()).collect();
    weights.sort_unstable();
    assert_eq!(weights, [1, 2, 3, 3, 4]);
    for node in &committee.members {
        assert!(node.address.starts_with("127.0.0.1:"), "{}", node.address);
        assert!(node.name.starts_with("node-"));
        assert_eq!(node.network_public_key.len(), 33);
    }
    assert!(committee.members.is_sorted_by_key(|node| node.node_id));
    assert!((0..13).all(|shard| committee.owner(ShardIndex(shard)).is_some()));
    let node = committee.members.iter().find(|node| node.name == "node-0").unwrap();
    assert!(node.node_id.to_string().starts_with("0xd37231e0"));
    assert_eq!(node.address, "127.0.0.1:36757");

    let system = chain.system(false).await.unwrap();
    assert_eq!((system.storage_price, system.write_price), (5, 1));
    assert_eq!(system.system_shared_at, 330);
    assert_eq!(system.max_epochs_ahead, 53);
    assert!(system.package.to_string().starts_with("0x739a1510"));
    assert_eq!(system.package, system.type_package);
    assert!(view.previous.is_none(), "the first epoch has none before it");
}

#[tokio::test]
async fn blob_objects_are_read_by_object_id_and_by_owner() {
    let chain = recorded().await;
    let id = "0x47b2c7052dd6f9559757b841533cfd8c045818598c09d9e94c33bab914712344";
    let id: ObjectId = id.parse().unwrap();
    let state = chain.blob(BlobName::Object(id)).await.unwrap().unwrap();
    assert_eq!(state.object, Some(id));
    assert_eq!((state.size, state.registered_epoch, state.end_epoch), (0, 1, 21));
    assert_eq!(state.certified_epoch, Some(1));
    assert!(!state.deletable);
    let deletable = "0x0f3065cb5f9241bcc8452793542f65daabe4ee2f65335e5a6e3ca283730435a9";
    let name = BlobName::Object(deletable.parse().unwrap());
    let deletable = chain.blob(name).await.unwrap().unwrap();
    assert!(deletable.deletable && deletable.size == 1234);

    let missing = BlobName::Object(ObjectId([0x77; 32]));
    assert_eq!(chain.blob(missing).await.unwrap(), None);
    let pool = BlobName::Object(recorded_network(&[]).system_object);
    let error = chain.blob(pool).await.unwrap_err();
    assert_eq!(error.kind, ChainErrorKind::Untrusted);
    assert!(error.to_string().contains("not a blob"), "{error}");

    let error = chain.blob(BlobName::Id(state.blob)).await.unwrap_err();
    assert_eq!(error.kind, ChainErrorKind::Unsupported);
    let owner = "0xbf0c0fc3e6ebfc9bf0b6391f55edb3a0a2be16d50e295d19c597e3541f5cc56f";
    let chain = chain.with_owner(owner.parse().unwrap());
    assert_eq!(chain.blob(BlobName::Id(state.blob)).await.unwrap(), Some(state));
    assert_eq!(chain.blob(BlobName::Id(BlobId([1; 32]))).await.unwrap(), None);
}

#[tokio::test]
async fn what_is_not_walrus_says_so() {
    let (_, url) = Server::start(Ledger::recorded()).await;
    let mut network = recorded_network(&[&url]);
    std::mem::swap(&mut network.system_object, &mut network.staking_object);
    let error = SuiChain::new(&network).committees(false).await.unwrap_err();
    assert_eq!(error.kind, ChainErrorKind::Untrusted);
    assert!(error.to_string().contains("is not Walrus' system::System"), "{error}");
    network.system_object = ObjectId([3; 32]);
    let error = SuiChain::new(&network).committees(false).await.unwrap_err();
    assert_eq!(error.kind, ChainErrorKind::NotFound);
    let chain = SuiChain::new(&recorded_network(&[NOBODY]));
    let error = chain.committees(false).await.unwrap_err();
    assert_eq!(error.kind, ChainErrorKind::Unavailable);
}

#[test]
fn ids_of_inner_objects_are_derived_as_the_chain_does() {
    let all: serde_json::Value =
        serde_json::from_str(include_str!("../../tests/fixtures/walrus-objects.json")).unwrap();
    for name in crate::network::PRESETS {
        let network = Network::preset(name).unwrap();
        let versions = all["derived_field_object_ids_of_real_networks"][name].as_object().unwrap();
        for (version, ids) in versions {
            let version = version.parse().unwrap();
            let derived = |parent| view::inner_id(parent, version).to_string();
            assert_eq!(derived(network.system_object), ids["system_inner_field_object"]);
            assert_eq!(derived(network.staking_object), ids["staking_inner_field_object"]);
        }
    }
    assert!(exchanges::load().len() > 90);
}

#[test]
fn an_older_committee_serves_while_no_full_node_answers() {
    let build = || {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    };
    let (ours, theirs) = (build(), build());
    let (_, url) = theirs.block_on(Server::start(Ledger::recorded()));
    let chain = SuiChain::new(&recorded_network(&[&url]));
    let view = ours.block_on(chain.committees(false)).unwrap();
    theirs.shutdown_background();
    ours.block_on(async {
        tokio::time::sleep(REFRESH_MIN).await;
        assert_eq!(chain.committees(true).await.unwrap(), view);
        assert!(chain.cache.lock().await.as_ref().unwrap().failed.is_some(), "it was tried");
        // And not again for a while.
        assert_eq!(chain.committees(true).await.unwrap(), view);
    });
}

#[tokio::test]
async fn the_committee_of_the_last_run_is_known_without_a_full_node() {
    let state = tempfile::tempdir().unwrap();
    let (_server, url) = Server::start(Ledger::recorded()).await;
    let online = SuiChain::new(&recorded_network(&[&url])).with_memory(state.path());
    let view = online.committees(false).await.unwrap();

    // Another process, and nobody answers.
    let offline = || SuiChain::new(&recorded_network(&[NOBODY])).with_memory(state.path());
    let alone = offline();
    assert_eq!(alone.committees(false).await.unwrap(), view);
    assert_eq!(alone.committees(true).await.unwrap(), view, "a node that refuses changes nothing");
    // Prices and packages are not kept: nothing is paid by what was true some other day.
    assert!(alone.system(false).await.is_err());

    // A damaged file is none.
    let file = std::fs::read_dir(state.path().join("walrus")).unwrap().next().unwrap().unwrap();
    let good = std::fs::read(file.path()).unwrap();
    for damaged in [&good[..good.len() / 2], b"", &[good.as_slice(), b"x"].concat()] {
        std::fs::write(file.path(), damaged).unwrap();
        assert!(offline().committees(false).await.is_err());
    }
    std::fs::write(file.path(), &good).unwrap();
    assert_eq!(offline().committees(false).await.unwrap(), view);
    // Another network's is not taken for this one's.
    let mut other = recorded_network(&[NOBODY]);
    other.system_object = ObjectId([3; 32]);
    let renamed = state.path().join("walrus").join(format!("{}.committees", other.system_object));
    std::fs::copy(file.path(), renamed).unwrap();
    assert!(SuiChain::new(&other).with_memory(state.path()).committees(false).await.is_err());
}
