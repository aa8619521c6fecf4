//! The nodes answer as real storage nodes did: every exchange that was recorded with the real
//! service (walrus-service 1.37.0) is asked again and compared. See `fixtures/README.md`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use data_encoding::{BASE64, HEXLOWER};
use haulout_devnet::storage::{BlobObject, BlobRecord, EventId, ManualChain, Seats, StorageNodes};
use haulout_walrus::bls::PublicKey;
use haulout_walrus::committee::{Committee, ObjectId};
use redstuff::quilt::{Quilt, QuiltFile};
use redstuff::{BlobId, ShardCount, ShardIndex};
use serde::Deserialize;
use support::{Client, Got, upload};

/// First line of a fixture: the network the exchanges were recorded with.
#[derive(Deserialize)]
struct Network {
    shards: u16,
    epoch: u32,
    nodes: Vec<NodeShape>,
    blobs: Vec<Blob>,
}

#[derive(Deserialize)]
struct NodeShape {
    id: ObjectId,
    first: u16,
    count: u16,
}

#[derive(Deserialize)]
struct Blob {
    name: String,
    length: usize,
    blob: BlobId,
    object: ObjectId,
    deletable: bool,
    end_epoch: u32,
    event: Option<(String, u64)>,
    /// Files of a quilt: identifier, length, tags.
    #[serde(default)]
    files: Vec<(String, usize, BTreeMap<String, String>)>,
}

/// Every other line: one exchange.
#[derive(Deserialize)]
struct Exchange {
    name: String,
    node: usize,
    method: String,
    path: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    send: String,
    status: u16,
    answer_headers: BTreeMap<String, String>,
    text: Option<String>,
    sha256: Option<String>,
}

/// The bytes that stand under a name in the recordings.
fn plaintext(name: &str, length: usize) -> Vec<u8> {
    let block = |i: u32| {
        let input = [b"haulout-fixture/", name.as_bytes(), &i.to_le_bytes()[..]].concat();
        ring::digest::digest(&ring::digest::SHA256, &input).as_ref().to_vec()
    };
    let mut bytes: Vec<u8> = (0..).map(block).take(length.div_ceil(32)).flatten().collect();
    bytes.truncate(length);
    bytes
}

fn content(n: ShardCount, blob: &Blob) -> Vec<u8> {
    if blob.files.is_empty() {
        return plaintext(&blob.name, blob.length);
    }
    let file = |(identifier, length, tags): &(String, usize, BTreeMap<String, String>)| QuiltFile {
        identifier: identifier.clone(),
        tags: tags.clone().into_iter().collect(),
        data: plaintext(identifier, *length),
    };
    Quilt::new(n, blob.files.iter().map(file).collect()).unwrap().into_blob()
}

fn read(fixture: &str) -> (Network, Vec<Exchange>) {
    let (first, rest) = fixture.split_once('\n').unwrap();
    let exchanges = rest.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (serde_json::from_str(first).unwrap(), exchanges)
}

/// The recorded network again: same shards, same blobs, same state; own keys and ports.
struct Replay {
    _nodes: StorageNodes,
    _dir: tempfile::TempDir,
    chain: Arc<ManualChain>,
    /// By the recording's number of the node.
    keys: Vec<PublicKey>,
    old: Vec<Client>,
    new: Vec<Client>,
}

impl Replay {
    async fn new(network: &Network) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let n = ShardCount::new(network.shards).unwrap();
        let seats = Seats::take(dir.path(), network.nodes.len()).unwrap();
        let mut members = seats.members();
        for (member, shape) in members.iter_mut().zip(&network.nodes) {
            member.node_id = shape.id;
            member.shards = (shape.first..shape.first + shape.count).map(ShardIndex).collect();
        }
        let key = |member: &haulout_walrus::StorageNode| {
            PublicKey::from_bytes(&member.bls_public_key).unwrap()
        };
        let keys = members.iter().map(key).collect();
        let (mut old, mut new) = (Vec::new(), Vec::new());
        let by_number = members.clone();
        members.sort_by_key(|member| member.node_id.0);
        let committee = Committee::new(network.epoch, n, members).unwrap();
        let chain = Arc::new(ManualChain::new(committee.clone()));
        let nodes = seats.start(chain.clone()).unwrap();
        for member in &by_number {
            let address = member.address.parse().unwrap();
            old.push(Client::http1(address, &member.network_public_key).await);
            new.push(Client::http2(address, &member.network_public_key).await);
        }
        let mut uploaders = Vec::new();
        for member in &committee.members {
            let address = member.address.parse().unwrap();
            uploaders.push(Client::http2(address, &member.network_public_key).await);
        }
        for blob in &network.blobs {
            let encoded = n.encode(content(n, blob)).unwrap();
            assert_eq!(*encoded.metadata().id(), blob.blob, "{}", blob.name);
            chain.insert(blob.blob, record(blob, network.epoch));
            upload(&committee, &mut uploaders, &encoded).await;
        }
        Self { _nodes: nodes, _dir: dir, chain, keys, old, new }
    }

    /// Asks over HTTP/1.1 and HTTP/2, and gives every difference.
    async fn differences(&mut self, exchange: &Exchange) -> Vec<String> {
        let headers: Vec<_> =
            exchange.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let send = BASE64.decode(exchange.send.as_bytes()).unwrap();
        let key = self.keys[exchange.node];
        let mut found = Vec::new();
        for (version, clients) in [("HTTP/1.1", &mut self.old), ("HTTP/2", &mut self.new)] {
            let client = &mut clients[exchange.node];
            let (method, path) = (&exchange.method, &exchange.path);
            let got = client.send(method, path, &headers, send.clone()).await;
            let differences = compare(exchange, &got, &key);
            found.extend(differences.into_iter().map(|what| format!("{version}: {what}")));
        }
        found
    }
}

fn record(blob: &Blob, epoch: u32) -> BlobRecord {
    let (tx_digest, event_seq) = blob.event.clone().unwrap_or_default();
    let object = BlobObject {
        object_id: blob.object.0,
        deletable: blob.deletable,
        end_epoch: blob.end_epoch,
        certified_epoch: Some(epoch),
        event: EventId { tx_digest, event_seq },
    };
    BlobRecord { invalid: None, objects: vec![object] }
}

fn compare(expected: &Exchange, got: &Got, key: &PublicKey) -> Vec<String> {
    let mut found = Vec::new();
    let mut differ = |what: &str, expected: &str, got: &str| {
        if expected != got {
            found.push(format!("{what}: {expected} became {got}"));
        }
    };
    differ("status", &expected.status.to_string(), &got.status.to_string());
    let signed = expected.name.contains("confirmation") && expected.status == 200;
    let health = expected.name.starts_with("health");
    for (name, value) in &expected.answer_headers {
        // The account of health has times in it; everything else has one length.
        if !(health && name == "content-length") {
            differ(name, value, got.header(name).unwrap_or("nothing"));
        }
    }
    differ("any origin", "*", got.header("access-control-allow-origin").unwrap_or("nothing"));
    let vary = "origin, access-control-request-method, access-control-request-headers";
    differ("vary", vary, got.header("vary").unwrap_or("nothing"));
    match (&expected.text, &expected.sha256) {
        (Some(text), _) if signed => {
            let expected: serde_json::Value = serde_json::from_str(text).unwrap();
            let got = got.json();
            let part = |of: &serde_json::Value, name: &str| {
                of.pointer(&format!("/success/data/signed/{name}"))
                    .and_then(serde_json::Value::as_str)
                    .unwrap_or("nothing")
                    .to_owned()
            };
            let message = part(&got, "serializedMessage");
            differ("signed message", &part(&expected, "serializedMessage"), &message);
            let message = BASE64.decode(message.as_bytes()).unwrap();
            let signature = BASE64.decode(part(&got, "signature").as_bytes()).unwrap();
            let valid = signature.try_into().is_ok_and(|s| key.verify(&message, &s).is_ok());
            differ("signature is valid", "true", &valid.to_string());
        }
        (Some(text), _) if health => {
            // Same fields, same order, same shards; other time, other key, other events.
            differ("health", &without_own(text), &without_own(&String::from_utf8_lossy(&got.body)));
        }
        (Some(text), _) => differ("body", text, &String::from_utf8_lossy(&got.body)),
        (None, Some(hash)) => {
            let digest = ring::digest::digest(&ring::digest::SHA256, &got.body);
            differ("body's hash", hash, &HEXLOWER.encode(digest.as_ref()));
        }
        (None, None) => differ("length of body", "0", &got.body.len().to_string()),
    }
    found
}

/// JSON text with every number but shard counts, and the key, made equal.
fn without_own(text: &str) -> String {
    let mut out = text.to_owned();
    for name in ["secs", "nanos", "persisted", "pending", "highestFinishedEventIndex"] {
        let start = format!("\"{name}\":");
        if let Some(at) = out.find(&start) {
            let from = at + start.len();
            let end = out[from..].find([',', '}']).unwrap() + from;
            out.replace_range(from..end, "N");
        }
    }
    let at = out.find("\"publicKey\":\"").unwrap() + 13;
    let end = out[at..].find('"').unwrap() + at;
    out.replace_range(at..end, "KEY");
    out
}

async fn replay(fixture: &str) -> usize {
    let (network, exchanges) = read(fixture);
    let mut replay = Replay::new(&network).await;
    let (mut count, mut wrong) = (0, Vec::new());
    for exchange in &exchanges {
        if exchange.name.starts_with("deleted-") {
            // From here on this blob was gone, on the recorded network too.
            let blob = network.blobs.iter().find(|b| exchange.path.contains(&b.blob.to_string()));
            let blob = blob.unwrap();
            replay.chain.delete(&blob.blob, &blob.object.0);
        }
        count += 1;
        for what in replay.differences(exchange).await {
            wrong
                .push(format!("{} ({} {}): {what}", exchange.name, exchange.method, exchange.path));
        }
    }
    let shown: Vec<_> = wrong.iter().take(20).cloned().collect();
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), shown.join("\n"));
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_recorded_with_13_shards_on_5_nodes() {
    assert_eq!(replay(include_str!("fixtures/real-13.jsonl")).await, 608);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_recorded_with_1000_shards_on_20_nodes() {
    assert_eq!(replay(include_str!("fixtures/real-1000.jsonl")).await, 429);
}
