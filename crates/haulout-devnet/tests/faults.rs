//! What goes wrong on demand, what nodes refuse, and what they do when the epoch changes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;

use haulout_devnet::storage::{Faults, Lie, Refuse, Seats};
use haulout_walrus::bls::PublicKey;
use haulout_walrus::committee::Committee;
use redstuff::bcs::Wire;
use redstuff::{
    Metadata, MetadataWithId, PairIndex, Primary, ShardIndex, SliverError, UnverifiedSliver,
};
use support::{Client, Got, Stage, bytes, sliver_path};

const NOT_FOUND: u16 = 404;

fn primary(got: &Got, metadata: &Metadata) -> Result<(), SliverError> {
    UnverifiedSliver::<Primary>::from_shared_bcs(&got.body).unwrap().verify(metadata).map(drop)
}

#[tokio::test]
async fn what_is_put_is_checked() {
    let stage = Stage::new(10, 5);
    let mut client = stage.client(0).await;
    let encoded = stage.n.encode(bytes(1, 5_000)).unwrap();
    let other = stage.n.encode(bytes(2, 5_000)).unwrap();
    let id = *encoded.metadata().id();
    let metadata = encoded.metadata().as_unverified().to_bcs();
    let pair = stage.committee.pairs_of(0, &id)[0];
    let (sliver, _) = encoded.pair(pair).unwrap();
    let metadata_path = format!("/v1/blobs/{id}/metadata");
    let path = sliver_path(&id, pair, "primary");

    // Nothing is taken before the chain knows the blob.
    assert_eq!(client.put(&metadata_path, metadata.clone()).await.gist(), "NOT_REGISTERED");
    stage.chain.register(id, [9; 32], true, 5);
    assert_eq!(client.put(&path, sliver.to_bcs()).await.gist(), "METADATA_NOT_FOUND");
    let wrong = other.metadata().as_unverified().to_bcs();
    assert_eq!(client.put(&metadata_path, wrong).await.gist(), "INVALID_METADATA");
    let small = redstuff::ShardCount::new(7).unwrap().metadata(b"x").unwrap();
    let small = small.as_unverified().to_bcs();
    assert_eq!(client.put(&metadata_path, small).await.gist(), "INVALID_METADATA");
    let mut old = metadata.clone();
    old[1] = 0;
    assert_eq!(client.put(&metadata_path, old).await.gist(), "UNSUPPORTED_ENCODING_TYPE");
    let json = [("content-type", "application/json")];
    let got = client.send("PUT", &metadata_path, &json, metadata.clone()).await;
    assert_eq!(got.gist(), "INVALID_CONTENT_TYPE");
    let got = client.put(&metadata_path, metadata.clone()).await;
    assert_eq!((got.status, got.gist().as_str()), (201, r#""metadata successfully stored""#));
    let got = client.put(&metadata_path, metadata).await;
    assert_eq!((got.status, got.gist().as_str()), (200, r#""metadata already stored""#));

    // Slivers: of another blob, of another pair, of another axis, too long, on another node.
    let (alien, _) = other.pair(pair).unwrap();
    assert_eq!(client.put(&path, alien.to_bcs()).await.gist(), "INVALID_SLIVER");
    let far = PairIndex((pair.0 + 1) % 10);
    let (neighbour, _) = encoded.pair(far).unwrap();
    assert_eq!(client.put(&path, neighbour.to_bcs()).await.gist(), "SLIVER_INDEX_MISMATCH");
    let (_, column) = encoded.pair(pair).unwrap();
    assert!(
        ["SLIVER_INDEX_MISMATCH", "INVALID_SLIVER"]
            .contains(&client.put(&path, column.to_bcs()).await.gist().as_str())
    );
    let truncated = sliver.to_bcs();
    let truncated = truncated[..truncated.len() - 1].to_vec();
    assert_eq!(client.put(&path, truncated).await.gist(), "INVALID_CONTENT_TYPE");
    let elsewhere = stage.committee.pairs_of(1, &id)[0];
    let (theirs, _) = encoded.pair(elsewhere).unwrap();
    let got = client.put(&sliver_path(&id, elsewhere, "primary"), theirs.to_bcs()).await;
    assert_eq!(got.gist(), "SHARD_NOT_ASSIGNED");
    let got = client.put(&sliver_path(&id, PairIndex(10), "primary"), sliver.to_bcs()).await;
    assert_eq!(got.gist(), "INDEX_OUT_OF_RANGE");
    assert_eq!(client.get(&format!("{path}/status")).await.gist(), r#""nonexistent""#);

    // A confirmation only once everything is here, and only for an object that exists.
    let confirmation = |object: u8| {
        format!("/v1/blobs/{id}/confirmation/deletable/0x{}", format!("{object:02x}").repeat(32))
    };
    for pair in stage.committee.pairs_of(0, &id) {
        assert_eq!(client.get(&confirmation(9)).await.gist(), "MISSING_SLIVERS");
        let (row, column) = encoded.pair(pair).unwrap();
        assert_eq!(client.put(&sliver_path(&id, pair, "primary"), row.to_bcs()).await.status, 201);
        assert_eq!(client.get(&confirmation(9)).await.gist(), "MISSING_SLIVERS");
        let path = sliver_path(&id, pair, "secondary");
        assert_eq!(client.put(&path, column.to_bcs()).await.status, 201);
    }
    assert_eq!(client.get(&confirmation(8)).await.gist(), "NOT_REGISTERED");
    assert_eq!(client.get(&confirmation(9)).await.status, 200);
    assert_eq!(client.get(&format!("{path}/status")).await.gist(), r#""stored""#);

    // A blob that turned out inconsistent is taken from nobody and served to nobody.
    stage.chain.invalidate(id);
    let metadata = encoded.metadata().as_unverified().to_bcs();
    assert_eq!(client.put(&metadata_path, metadata).await.gist(), "INVALID_BLOB");
    assert_eq!(client.get(&metadata_path).await.status, NOT_FOUND);
    assert!(client.get(&format!("/v1/blobs/{id}/status")).await.gist().contains("invalid"));
}

#[tokio::test]
async fn waiting_for_a_registration() {
    let stage = Stage::new(7, 7);
    let mut client = stage.client(3).await;
    let encoded = stage.n.encode(bytes(3, 10)).unwrap();
    let id = *encoded.metadata().id();
    let path = format!("/v1/blobs/{id}/confirmation/permanent?wait_for_registration=true");
    let got = client.get(&format!("{path}&wait_millis=30")).await;
    assert_eq!(got.gist(), "NOT_REGISTERED");
    let chain = stage.chain.clone();
    let register = async move {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        chain.register(id, [1; 32], false, 9);
    };
    let path = format!("{path}&wait_millis=20000");
    let (got, ()) = tokio::join!(client.get(&path), register);
    assert_eq!(got.gist(), "MISSING_SLIVERS");
}

#[tokio::test]
async fn lies_are_told_on_demand_and_can_be_seen() {
    let stage = Stage::new(10, 5);
    let encoded = stage.store(&bytes(4, 40_000), 9).await;
    stage.store(&bytes(5, 40_000), 9).await;
    let (id, metadata) = (*encoded.metadata().id(), encoded.metadata());
    let mut client = stage.client(2).await;
    let index = stage.index(2);
    let pair = stage.committee.pairs_of(2, &id)[0];
    let (sliver, about) = (sliver_path(&id, pair, "primary"), format!("/v1/blobs/{id}/metadata"));

    primary(&client.get(&sliver).await, metadata).unwrap();
    for lie in [Lie::Flip, Lie::Truncate, Lie::Garbage, Lie::Other] {
        let faults = Faults { slivers: Some(lie), metadata: Some(lie), ..Faults::default() };
        stage.nodes.set_faults(index, faults).await;
        let got = client.get(&sliver).await;
        assert_eq!(got.status, 200);
        let parsed = UnverifiedSliver::<Primary>::from_shared_bcs(&got.body);
        let genuine = parsed.as_ref().is_ok_and(|s| s.clone().verify(metadata).is_ok());
        let named = |s: &UnverifiedSliver<Primary>| s.index == pair.sliver(stage.n).unwrap();
        match lie {
            Lie::Flip => assert_eq!(parsed.unwrap().verify(metadata), Err(SliverError::Hash)),
            Lie::Truncate | Lie::Garbage => assert!(parsed.is_err()),
            // Genuine, but not what was asked for.
            Lie::Other => assert!(genuine && !named(&parsed.unwrap())),
        }
        let got = client.get(&about).await;
        let parsed = MetadataWithId::from_shared_bcs(&got.body);
        assert!(parsed.map(|m| m.verify(stage.n, &id).is_err()).unwrap_or(true));
    }
    stage.nodes.set_faults(index, Faults { wrong_signature: true, ..Faults::default() }).await;
    let got = client.get(&format!("/v1/blobs/{id}/confirmation/permanent")).await;
    let signed: haulout_walrus::wire::Success<haulout_walrus::wire::StorageConfirmation> =
        serde_json::from_slice(&got.body).unwrap();
    let signed = signed.success.data.signed;
    let key = PublicKey::from_bytes(&stage.committee.members[2].bls_public_key).unwrap();
    assert!(key.verify(&signed.message, &signed.signature).is_err());

    stage.nodes.set_faults(index, Faults::default()).await;
    primary(&client.get(&sliver).await, metadata).unwrap();
}

#[tokio::test]
async fn refusals_losses_and_deny_lists() {
    let stage = Stage::new(10, 5);
    let encoded = stage.store(&bytes(6, 1_000), 9).await;
    let id = *encoded.metadata().id();
    let (mut client, index) = (stage.client(1).await, stage.index(1));
    let pair = stage.committee.pairs_of(1, &id)[0];
    let path = sliver_path(&id, pair, "primary");

    let refuse = Refuse { status: 429, retry_after: Some(7), body_bytes: 100_000 };
    stage.nodes.set_faults(index, Faults { refuse: Some(refuse), ..Faults::default() }).await;
    let got = client.get(&path).await;
    assert_eq!((got.status, got.header("retry-after")), (429, Some("7")));
    assert_eq!(got.body.len(), "Too Many Requests".len() + 100_000);

    let shard = pair.shard(stage.n, &id).unwrap().0;
    let faults = Faults { missing_shards: BTreeSet::from([shard]), ..Faults::default() };
    stage.nodes.set_faults(index, faults).await;
    assert_eq!(client.get(&path).await.gist(), "SLIVER_NOT_FOUND");
    assert_eq!(client.get(&format!("{path}/status")).await.gist(), r#""nonexistent""#);
    let got = client.get(&format!("/v1/blobs/{id}/confirmation/permanent")).await;
    assert_eq!(got.gist(), "MISSING_SLIVERS");

    let faults = Faults { denied: BTreeSet::from([id.to_string()]), ..Faults::default() };
    stage.nodes.set_faults(index, faults).await;
    let got = client.get(&path).await;
    assert_eq!((got.status, got.gist().as_str()), (451, "FORBIDDEN_BLOB"));
    assert_eq!(client.get(&format!("/v1/blobs/{id}/metadata")).await.status, 451);
}

#[tokio::test]
async fn a_node_goes_down_and_comes_back_with_its_slivers() {
    let stage = Stage::new(10, 5);
    let encoded = stage.store(&bytes(7, 9_000), 9).await;
    let id = *encoded.metadata().id();
    let (mut client, index) = (stage.client(4).await, stage.index(4));
    let path = sliver_path(&id, stage.committee.pairs_of(4, &id)[0], "secondary");
    assert_eq!(client.get(&path).await.status, 200);

    stage.nodes.set_faults(index, Faults { down: true, ..Faults::default() }).await;
    // The old connection is cut and no new one is taken.
    assert!(client.try_send("GET", &path, &[], "").await.is_err());
    let member = &stage.committee.members[4];
    let address = member.address.parse().unwrap();
    let refused = Client::try_http2(address, &member.network_public_key).await;
    assert_eq!(
        refused.err().map(|error| error.kind()),
        Some(std::io::ErrorKind::ConnectionRefused)
    );

    stage.nodes.set_faults(index, Faults { impostor: true, ..Faults::default() }).await;
    let believed = Client::try_http2(address, &member.network_public_key).await;
    let impostor = believed.err().unwrap();
    assert!(impostor.to_string().contains("another key"), "{impostor}");

    stage.nodes.set_faults(index, Faults::default()).await;
    assert_eq!(stage.client(4).await.get(&path).await.status, 200);
}

/// The committee of the next epoch: every shard goes to another node.
fn turned(committee: &Committee) -> Committee {
    let mut members = committee.members.clone();
    let shards: Vec<_> = members.iter().map(|member| member.shards.clone()).collect();
    for (index, member) in members.iter_mut().enumerate() {
        member.shards = shards[(index + 1) % shards.len()].clone();
    }
    Committee::new(committee.epoch + 1, committee.n_shards, members).unwrap()
}

#[tokio::test]
async fn shards_move_with_the_epoch_and_what_expired_is_gone() {
    let stage = Stage::new(10, 5);
    let kept = stage.store(&bytes(8, 20_000), 9).await;
    let expiring = stage.store(&bytes(9, 500), 2).await;
    let (id, old) = (*kept.metadata().id(), *expiring.metadata().id());
    // The node that is to give shards to member 0 is down: its slivers must be rebuilt.
    stage.nodes.set_faults(stage.index(1), Faults { down: true, ..Faults::default() }).await;
    let next = turned(&stage.committee);
    stage.chain.begin_epoch(next.clone());
    stage.nodes.settled().await;
    stage.nodes.set_faults(stage.index(1), Faults::default()).await;

    for position in [0, 2, 3, 4] {
        let mut client = stage.client(position).await;
        for pair in next.pairs_of(position, &id) {
            primary(&client.get(&sliver_path(&id, pair, "primary")).await, kept.metadata())
                .unwrap();
        }
        // What it had before is still served for one epoch, what it never had is not.
        for (pair, held) in (0..10).map(PairIndex).map(|pair| {
            let shard: ShardIndex = pair.shard(stage.n, &id).unwrap();
            let held = |c: &Committee| c.owner(shard) == Some(position);
            (pair, held(&next) || held(&stage.committee))
        }) {
            let got = client.get(&sliver_path(&id, pair, "primary")).await;
            assert_eq!(got.status, if held { 200 } else { 400 });
        }
        let got = client.get(&format!("/v1/blobs/{id}/confirmation/permanent")).await;
        assert_eq!(got.status, 200, "{got:?}");
        assert_eq!(client.get(&format!("/v1/blobs/{old}/metadata")).await.status, NOT_FOUND);
        assert_eq!(client.get(&format!("/v1/blobs/{old}/status")).await.gist(), r#""nonexistent""#);
    }
    // A second change: what went away two epochs ago is dropped.
    stage.chain.begin_epoch(turned(&next));
    stage.nodes.settled().await;
    let mut client = stage.client(2).await;
    let gone = stage.committee.pairs_of(2, &id)[0];
    let got = client.get(&sliver_path(&id, gone, "primary")).await;
    assert_eq!(got.gist(), "SHARD_NOT_ASSIGNED");
}

#[tokio::test]
async fn a_restart_keeps_keys_and_slivers() {
    let stage = Stage::new(7, 4);
    let encoded = stage.store(&bytes(10, 3_000), 9).await;
    let id = *encoded.metadata().id();
    let Stage { chain, nodes, committee, dir, .. } = stage;
    nodes.stop().await;

    let addresses: Vec<_> = committee.members.iter().map(|m| m.address.parse().unwrap()).collect();
    let seats = Seats::take_at(dir.path(), &addresses).unwrap();
    let nodes = seats.start(chain).unwrap();
    for (position, member) in committee.members.iter().enumerate() {
        // Ports were given in the committee's order; which node has which key did not change.
        let index = member.name.strip_prefix("node-").unwrap().parse::<usize>().unwrap();
        let address = nodes.address(index).unwrap();
        let mut client = Client::http2(address, &member.network_public_key).await;
        for pair in committee.pairs_of(position, &id) {
            let got = client.get(&sliver_path(&id, pair, "primary")).await;
            primary(&got, encoded.metadata()).unwrap();
        }
    }
}
