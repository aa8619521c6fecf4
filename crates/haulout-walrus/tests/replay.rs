//! The client against what real storage nodes answered.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::{collections::HashMap, sync::Arc};

use haulout_walrus::{
    Client, NodeClient, NodeError, ReadError, ReadOptions, StaticChain, Verdict,
    bls::PublicKey,
    wire::{BlobStatus, StoredOnNode, Success},
};
use redstuff::{
    BlobId, Consistency, Metadata, MetadataWithId, PairIndex, Primary, RecoverySymbols, Secondary,
    SliverIndex,
    bcs::Wire,
    messages::{BlobPersistence, Confirmation, ConfirmationCertificate, ProtocolMessage},
};
use support::recorded::{Case, Recording, Replay, plaintext};

fn client(replay: &Replay) -> Client {
    Client::new(Arc::new(StaticChain::new(replay.committee.clone())))
}

/// The metadata of every recorded blob.
fn metadata(recording: &Recording) -> HashMap<BlobId, Metadata> {
    let bodies = recording.cases.iter().filter(|case| {
        case.method == "GET" && case.status == 200 && case.path.ends_with("/metadata")
    });
    let parse = |case: &Case| {
        let body = MetadataWithId::from_bcs(&recording.part(case.body)).unwrap();
        let id = body.id;
        (id, body.verify(recording.shards(), &id).unwrap())
    };
    bodies.map(parse).collect()
}

/// What `NodeClient` makes of a case, compared with what was recorded. `false` if it has no such request.
async fn check(
    recording: &Recording,
    known: &HashMap<BlobId, Metadata>,
    node: &NodeClient,
    case: &Case,
) -> bool {
    let parts: Vec<&str> = case.path.split(['/', '?']).skip(1).collect();
    let body = recording.part(case.body);
    let (Some(id), Some(rest)) =
        (parts.get(2).and_then(|id| id.parse::<BlobId>().ok()), parts.get(3..))
    else {
        if case.path == "/v1/health" {
            let health = node.health().await.unwrap();
            assert_eq!((health.epoch, health.node_status.as_str()), (1, "Active"));
            return true;
        }
        return false;
    };
    let result: Result<bool, NodeError> = match (case.method.as_str(), rest) {
        ("GET", ["metadata"]) => {
            node.metadata(recording.shards(), &id).await.map(|(parsed, raw)| {
                parsed.verify(recording.shards(), &id).unwrap();
                raw == body
            })
        }
        ("GET", ["metadata", "status"]) => node.metadata_status(&id).await.map(|status| {
            same_json(&Success::new(200, status), &body);
            status != StoredOnNode::Buffered
        }),
        ("GET", ["status"]) => node.status(&id).await.map(|status: BlobStatus| {
            same_json(&Success::new(200, status), &body);
            true
        }),
        ("GET", ["slivers", pair, kind]) => {
            let Ok(pair) = pair.parse().map(PairIndex) else { return false };
            let any = known.values().next().unwrap();
            let of = known.get(&id).unwrap_or(any);
            // A node is asked for an unknown blob as well; only the path matters then.
            if of.id() != &id {
                return false;
            }
            match *kind {
                "primary" => node.sliver::<Primary>(of, pair).await.map(|got| {
                    got.sliver.verify(of).unwrap();
                    got.raw == body
                }),
                "secondary" => node.sliver::<Secondary>(of, pair).await.map(|got| {
                    got.sliver.verify(of).unwrap();
                    got.raw == body
                }),
                _ => return false,
            }
        }
        ("GET", ["slivers", pair, kind, "status"]) => {
            let Ok(pair) = pair.parse().map(PairIndex) else { return false };
            let status = match *kind {
                "primary" => node.sliver_status::<Primary>(&id, pair).await,
                _ => node.sliver_status::<Secondary>(&id, pair).await,
            };
            status.map(|status| {
                same_json(&Success::new(200, status), &body);
                true
            })
        }
        ("GET", ["confirmation", kind @ ..]) => {
            let persistence = match kind {
                ["permanent"] => BlobPersistence::Permanent,
                [_, object] => BlobPersistence::Deletable(
                    object.parse::<haulout_walrus::ObjectId>().unwrap().0,
                ),
                _ => return false,
            };
            node.confirmation(&id, &persistence).await.map(|signed| {
                let key = data_encoding::BASE64
                    .decode(recording.nodes[case.node].bls_public_key.as_bytes());
                let key = PublicKey::from_bytes(&key.unwrap().try_into().unwrap()).unwrap();
                key.verify(&signed.message, &signed.signature).unwrap();
                let content = Confirmation { blob: id, persistence };
                signed.message == ProtocolMessage { epoch: 1, content }.to_bcs()
            })
        }
        ("GET", ["recoverySymbols", query]) if query.starts_with("targetSliver=") => {
            let Some(of) = known.get(&id) else { return false };
            let target = query["targetSliver=".len()..].split('&').next().unwrap().parse().unwrap();
            let shards = recording.nodes[case.node].shards.len();
            let symbols = match query.ends_with("primary") {
                true => {
                    node.recovery_symbols(of, SliverIndex::<Primary>::new(target), shards).await
                }
                false => {
                    node.recovery_symbols(of, SliverIndex::<Secondary>::new(target), shards).await
                }
            };
            symbols.map(|(symbols, bytes): (RecoverySymbols, usize)| {
                symbols.to_bcs() == body && bytes == body.len()
            })
        }
        ("PUT", ["metadata"]) => {
            let sent = case.sent.map(|part| recording.part(part)).unwrap_or_default();
            node.put_metadata(&id, sent).await.map(|_| true)
        }
        ("PUT", ["slivers", pair, "primary"]) => {
            let sent = case.sent.map(|part| recording.part(part)).unwrap_or_default();
            let pair = PairIndex(pair.parse().unwrap());
            node.put_sliver::<Primary>(&id, pair, sent).await.map(|_| true)
        }
        _ => return false,
    };
    match result {
        Ok(same) => assert!(same && case.status == 200, "{}", case.name),
        Err(NodeError::Refused { status, reason, .. }) => {
            assert_eq!(status, case.status, "{}", case.name);
            let recorded: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
            let recorded = recorded.as_ref().map(|json| &json["error"]["details"][0]["reason"]);
            assert_eq!(reason.as_deref(), recorded.and_then(|reason| reason.as_str()));
        }
        Err(other) => panic!("{}: {other}", case.name),
    }
    true
}

fn same_json(ours: &impl serde::Serialize, theirs: &[u8]) {
    assert_eq!(serde_json::to_vec(ours).unwrap(), theirs, "{}", String::from_utf8_lossy(theirs));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recorded_answer_is_understood() {
    let recording = Recording::load();
    let replay = recording.serve(&HashMap::new()).await;
    let known = metadata(&recording);
    let clients: HashMap<usize, NodeClient> = replay
        .positions
        .iter()
        .zip(&replay.committee.members)
        .map(|(index, member)| (*index, NodeClient::new(member).unwrap()))
        .collect();
    let mut checked = 0;
    for (at, case) in recording.cases.iter().enumerate() {
        // One blob was deleted half way: what its nodes said before cannot be replayed.
        let later = recording.cases[at + 1..].iter().any(|other| {
            (other.node, &other.method, &other.path) == (case.node, &case.method, &case.path)
                && other.body != case.body
        });
        if later {
            continue;
        }
        checked += usize::from(check(&recording, &known, &clients[&case.node], case).await);
    }
    let all = recording.cases.len();
    eprintln!("{checked} of {all} recorded exchanges have a request of the client");
    assert!(checked * 10 >= all * 8, "{checked} of {all}");
}

#[test]
fn errors_mean_what_they_mean() {
    let refused = |status, reason: Option<&str>| NodeError::Refused {
        status,
        reason: reason.map(str::to_owned),
        message: String::new(),
        retry_after: None,
    };
    let verdict = |status, reason| refused(status, reason).verdict();
    assert_eq!(verdict(400, Some("SHARD_NOT_ASSIGNED")), Verdict::WrongShard);
    assert_eq!(verdict(404, Some("SLIVER_NOT_FOUND")), Verdict::Missing);
    assert_eq!(verdict(400, Some("METADATA_NOT_FOUND")), Verdict::Missing);
    assert_eq!(verdict(404, None), Verdict::Missing);
    assert_eq!(verdict(451, None), Verdict::Forbidden);
    assert_eq!(verdict(429, None), Verdict::Busy(None));
    assert_eq!(verdict(503, Some("UNAVAILABLE")), Verdict::Busy(None));
    assert_eq!(verdict(400, Some("CACHE_SATURATED")), Verdict::Busy(None));
    assert_eq!(verdict(500, None), Verdict::Unreachable);
    assert_eq!(verdict(400, Some("NOT_REGISTERED")), Verdict::NotRegistered);
    assert_eq!(verdict(400, Some("MISSING_SLIVERS")), Verdict::Incomplete);
    assert_eq!(verdict(400, None), Verdict::Unreachable);
    assert_eq!(verdict(302, None), Verdict::Unreachable);
}

/// Blobs of which every sliver was recorded.
const WHOLE: [&str; 6] = ["p-0", "p-1", "p-31", "p-1000", "p-4097", "d-1234"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_blobs_are_read_at_every_level() {
    let recording = Recording::load();
    let replay = recording.serve(&HashMap::new()).await;
    let client = client(&replay);
    for name in WHOLE {
        let blob = recording.blob(name);
        let expected = plaintext(name, blob.length);
        for consistency in [Consistency::Skip, Consistency::Default, Consistency::Strict] {
            let options = ReadOptions { consistency, ..ReadOptions::default() };
            let (bytes, report) = client.read(&blob.id, &options).await.unwrap();
            assert_eq!(bytes, expected, "{name}");
            // Rows of nothing but padding are known, not fetched.
            let rows = recording.shards().rows();
            assert_eq!(report.slivers + report.padding, rows, "{name}: {report:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_nodes_with_a_third_of_the_shards_may_be_down() {
    let recording = Recording::load();
    // f = 4: nodes of weight 1 and 3, or the one of weight 4.
    for down in [vec![0, 2], vec![0, 3], vec![4], vec![1]] {
        let gone = down.iter().map(|&index| (index, None)).collect();
        let replay = recording.serve(&gone).await;
        let client = client(&replay);
        for name in ["p-31", "p-4097"] {
            let blob = recording.blob(name);
            let (bytes, _) = client.read(&blob.id, &ReadOptions::default()).await.unwrap();
            assert_eq!(bytes, plaintext(name, blob.length), "{name} without {down:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_that_the_error_says_what_is_missing() {
    let recording = Recording::load();
    let gone = [1, 2, 3, 4].map(|index| (index, None)).into();
    let replay = recording.serve(&gone).await;
    let blob = recording.blob("p-4097");
    let error = client(&replay).read(&blob.id, &ReadOptions::default()).await.unwrap_err();
    assert!(matches!(error, ReadError::TooFew { found: 1, needed: 5, .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("12 are of nodes that cannot be reached"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_blob_does_not_exist() {
    let recording = Recording::load();
    let replay = recording.serve(&HashMap::new()).await;
    let client = client(&replay);
    let deleted = recording.blob("d-70000").id;
    let error = client.read(&deleted, &ReadOptions::default()).await.unwrap_err();
    assert!(matches!(error, ReadError::NotFound(id) if id == deleted), "{error}");
    assert_eq!(client.status(&deleted).await.unwrap(), Some(BlobStatus::Nonexistent));
    let status = client.status(&recording.blob("p-31").id).await.unwrap().unwrap();
    assert_eq!(status.certified_epoch(), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_costs_the_rows_that_cover_it() {
    let recording = Recording::load();
    let replay = recording.serve(&HashMap::new()).await;
    let client = client(&replay);
    let blob = recording.blob("p-4097");
    let expected = plaintext("p-4097", blob.length);
    // 5 rows of 9 symbols of 92 bytes.
    for (range, rows) in [(0..1, 1), (827..829, 2), (900..1000, 1), (4096..4097, 1), (7..7, 0)] {
        let read = client.read_range(&blob.id, range.clone(), &ReadOptions::default()).await;
        let (bytes, report) = read.unwrap();
        let at = |offset: u64| usize::try_from(offset).unwrap();
        assert_eq!(bytes, expected[at(range.start)..at(range.end)]);
        assert_eq!(report.slivers, rows, "{range:?}");
    }
    let beyond = client.read_range(&blob.id, 4000..4098, &ReadOptions::default()).await;
    assert!(matches!(beyond, Err(ReadError::Range { length: 4097, .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_quilts_are_read_file_by_file() {
    let recording = Recording::load();
    let replay = recording.serve(&HashMap::new()).await;
    let client = client(&replay);
    let options = ReadOptions::default();
    let (index, report) = client.quilt_index(&recording.quilt.id, &options).await.unwrap();
    assert_eq!(report.slivers, 1);
    assert_eq!(index.patches().len(), recording.quilt.files.len());
    for (identifier, patch) in &recording.quilt.files {
        let id = patch.parse().unwrap();
        let (by_id, _) = client.quilt_patch(&id, &options).await.unwrap();
        let (by_name, _) =
            client.quilt_file(&recording.quilt.id, identifier, &options).await.unwrap();
        assert_eq!(by_id, by_name);
        assert_eq!(by_id.identifier, *identifier);
        assert_eq!(by_id.data, plaintext(identifier, by_id.data.len()));
    }
    let missing = client.quilt_file(&recording.quilt.id, "nope", &options).await.unwrap_err();
    assert_eq!(missing.to_string(), "there is no file \"nope\" in the quilt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_shards_a_small_blob_costs_fifteen_slivers() {
    let recording = Recording::of_thousand();
    let replay = recording.serve(&HashMap::new()).await;
    let client = client(&replay);
    let blob = recording.blob("kp-20000");
    let (bytes, report) = client.read(&blob.id, &ReadOptions::default()).await.unwrap();
    assert_eq!(bytes, plaintext("kp-20000", blob.length));
    assert_eq!((report.slivers, report.padding), (15, 319));
    // The real nodes' confirmations make a certificate that the contract would take.
    let message = ProtocolMessage {
        epoch: 1,
        content: Confirmation { blob: blob.id, persistence: BlobPersistence::Permanent },
    };
    let mut signed = Vec::new();
    for (position, member) in replay.committee.members.iter().enumerate() {
        let node = NodeClient::new(member).unwrap();
        let confirmed = node.confirmation(&blob.id, &BlobPersistence::Permanent).await.unwrap();
        assert_eq!(confirmed.message, message.to_bcs());
        signed.push((u16::try_from(position).unwrap(), confirmed.signature));
    }
    // 14 of 20 nodes have 700 shards, 13 have 650.
    for (count, enough) in [(14, true), (13, false)] {
        let (signers, signatures): (Vec<_>, Vec<_>) = signed[..count].iter().copied().unzip();
        let signature = haulout_walrus::bls::aggregate(&signatures).unwrap();
        let certificate = ConfirmationCertificate { signers, message: message.to_bcs(), signature };
        let checked = haulout_walrus::check_certificate(&replay.committee, &certificate);
        assert_eq!(checked.is_ok(), enough);
    }
}
