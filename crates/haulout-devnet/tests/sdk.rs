//! The published TypeScript SDK (`@mysten/walrus`, `@mysten/walrus-wasm`) as a client from
//! outside: its encoder agrees with ours, and it writes to and reads from our storage nodes.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use data_encoding::{BASE64, HEXLOWER};
use haulout_devnet::storage::Faults;
use haulout_devnet::{LocalNet, Plan, files};
use haulout_sui::chain::SuiChain;
use haulout_walrus::ReadOptions;
use redstuff::{PairIndex, ShardCount};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::{Value, json};

/// Where the Node package is, if Node and the package's dependencies are there.
fn package() -> Option<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/walrus-sdk");
    let node = Command::new("node").arg("--version").stdout(Stdio::null()).status();
    if !node.is_ok_and(|status| status.success()) {
        skipped("node is missing");
        return None;
    }
    if !dir.join("node_modules/@mysten/walrus-wasm").is_dir() {
        skipped("run ./test, or `npm ci --ignore-scripts` in tests/walrus-sdk");
        return None;
    }
    Some(dir)
}

/// Says loudly that a test does not run, in the way `./test` collects.
fn skipped(reason: &str) {
    let name = std::env::var("NEXTEST_TEST_NAME").unwrap_or_else(|_| "walrus-sdk".to_owned());
    assert_ne!(std::env::var("HAULOUT_NO_SKIPS").as_deref(), Ok("1"), "{name}: {reason}");
    eprintln!("SKIPPED {name}: {reason}");
    if let Some(log) = std::env::var_os("HAULOUT_TEST_SKIP_LOG") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(log);
        file.and_then(|mut file| file.write_all(format!("{name}: {reason}\n").as_bytes()))
            .expect("HAULOUT_TEST_SKIP_LOG is writable");
    }
}

/// Runs a script with `input` on its standard input; its output, line by line, as JSON.
fn node(script: &str, environment: &[(&str, &str)], input: &str) -> Option<Vec<Value>> {
    let dir = package()?;
    let mut child = Command::new("node")
        .arg(dir.join(script))
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("node ends");
    writer.join().expect("the writer ends").expect("node reads its input");
    assert!(output.status.success(), "{script}: {}", output.status);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    Some(text.lines().map(|line| serde_json::from_str(line).expect(line)).collect())
}

fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    SystemRandom::new().fill(&mut bytes).expect("randomness");
    bytes
}

fn sha256(parts: impl Iterator<Item = Vec<u8>>) -> String {
    let mut sum = ring::digest::Context::new(&ring::digest::SHA256);
    parts.for_each(|part| sum.update(&part));
    HEXLOWER.encode(sum.finish().as_ref())
}

/// What `encode.mjs` says of the same data, from our encoder.
fn ours(shards: u16, data: &[u8]) -> Value {
    let n = ShardCount::new(shards).expect("enough shards");
    let encoded = n.encode(data.to_vec()).expect("not too large");
    let metadata = encoded.metadata();
    let pair = |index| encoded.pair(PairIndex(index)).expect("a pair");
    let hashes = metadata.hashes().iter();
    let hashes = hashes.flat_map(|pair| [pair.primary, pair.secondary]);
    json!({
        "blobId": metadata.id().to_string(),
        "root": HEXLOWER.encode(metadata.root_hash().as_bytes()),
        "primary": sha256((0..shards).map(|index| pair(index).0.to_bcs())),
        "secondary": sha256((0..shards).map(|index| pair(index).1.to_bcs())),
        "hashes": sha256(hashes.map(|hash| hash.digest().as_bytes().to_vec())),
        "decodes": true,
    })
}

#[test]
fn the_published_encoder_agrees_with_ours_on_random_data() {
    let mut cases = Vec::new();
    for shards in [4, 5, 6, 7, 9, 10, 13, 31, 100, 301, 1000] {
        let n = ShardCount::new(shards).expect("enough shards");
        // Lengths around those at which the symbols grow, and some in between.
        let grows = usize::try_from(n.source_symbol_count() * 2).expect("small");
        let any = usize::from(u16::from_le_bytes([random(1)[0], random(1)[0]]));
        for length in [0, 1, grows, grows + 1, any] {
            cases.push((shards, random(length)));
        }
    }
    let line = |(shards, data): &(u16, Vec<u8>)| {
        json!({ "shards": shards, "data": BASE64.encode(data) }).to_string() + "\n"
    };
    let Some(theirs) = node("encode.mjs", &[], &cases.iter().map(line).collect::<String>()) else {
        return;
    };
    assert_eq!(theirs.len(), cases.len());
    for ((shards, data), theirs) in cases.iter().zip(theirs) {
        assert_eq!(theirs, ours(*shards, data), "{shards} shards, {} bytes", data.len());
    }
}

/// A devnet of 20 shards on 20 nodes (with fewer than 11 the SDK 1.2.13 cannot ask a second node
/// for metadata: it divides by the number of nodes), and what a script needs to use it.
struct Devnet {
    runtime: tokio::runtime::Runtime,
    net: LocalNet,
    environment: Vec<(&'static str, String)>,
    _dir: tempfile::TempDir,
}

impl Devnet {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let plan = Plan { shards: 20, nodes: 20, ..Plan::new(dir.path()) };
        let net = runtime.block_on(LocalNet::start(&plan)).expect("a devnet");
        let file = |name: &str| dir.path().join(name);
        let account = std::fs::read_to_string(file(files::ACCOUNT)).expect("an account");
        let environment = vec![
            ("RPC", net.full_node().url()),
            ("SYSTEM", net.network().system_object.to_string()),
            ("STAKING", net.network().staking_object.to_string()),
            ("ACCOUNT", account.trim().to_owned()),
            ("NODE_EXTRA_CA_CERTS", file(files::CERTIFICATES).display().to_string()),
        ];
        Self { runtime, net, environment, _dir: dir }
    }

    fn sdk(&self, commands: &[Value]) -> Vec<Value> {
        let environment: Vec<_> =
            self.environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let input: String = commands.iter().map(|command| format!("{command}\n")).collect();
        node("blob.mjs", &environment, &input).expect("the SDK was there a moment ago")
    }

    fn down(&self, index: usize) {
        let faults = Faults { down: true, ..Faults::default() };
        assert!(self.runtime.block_on(self.net.nodes().set_faults(index, faults)));
    }
}

#[test]
fn the_sdk_writes_files_and_ours_reads_them() {
    if package().is_none() {
        return;
    }
    let devnet = Devnet::new();
    let file = |name: &str, length: usize, tags: Value| json!({ "name": name, "data": BASE64.encode(&random(length)), "tags": tags });
    let files = vec![
        file("b/second", 70_000, json!({ "kind": "large", "of": "two" })),
        file("a-first", 5, json!({})),
        file("empty", 0, json!({ "a": "" })),
    ];
    let told = devnet.sdk(&[json!({ "files": files })]).remove(0);
    assert_eq!(told["attributes"], json!({ "_walrusBlobType": "quilt", "made": "by the SDK" }));
    let mut sorted = files.clone();
    sorted.sort_by_key(|file| file["name"].as_str().map(str::to_owned));
    assert_eq!(told["files"], json!(sorted), "in the order of names");
    assert_eq!(told["byId"], told["files"]);

    // What the SDK wrote, our client reads: by name, and by the ids that the SDK gave.
    let chain = std::sync::Arc::new(SuiChain::new(devnet.net.network()));
    let client = haulout_walrus::Client::new(chain);
    let blob = told["blobId"].as_str().and_then(|id| id.parse().ok()).expect("a blob id");
    let options = ReadOptions::default();
    let ids = told["ids"].as_array().expect("ids");
    assert_eq!(ids.len(), sorted.len());
    for (id, file) in ids.iter().zip(&sorted) {
        let name = file["name"].as_str().expect("a name");
        let by_name = devnet.runtime.block_on(client.quilt_file(&blob, name, &options));
        let id = id.as_str().and_then(|id| id.parse().ok()).expect("a patch id");
        let by_id = devnet.runtime.block_on(client.quilt_patch(&id, &options));
        for (found, _) in [by_name.expect("a file"), by_id.expect("a file")] {
            assert_eq!(found.identifier, name);
            assert_eq!(BASE64.encode(&found.data), file["data"]);
            assert_eq!(json!(found.tags), file["tags"]);
        }
    }

    // Attributes are changed, added and taken away.
    let set = json!({ "made": null, "_walrusBlobType": "other", "content-type": "text/plain" });
    let told = devnet.sdk(&[json!({ "attributes": told["object"], "set": set })]).remove(0);
    let expected = json!({ "_walrusBlobType": "other", "content-type": "text/plain" });
    assert_eq!(told["attributes"], expected, "{told}");
}

#[test]
fn the_sdk_writes_to_and_reads_from_our_nodes() {
    if package().is_none() {
        return;
    }
    let devnet = Devnet::new();
    let blobs = [random(1), random(3_000), random(200_000)];
    let writes = blobs
        .iter()
        .enumerate()
        .map(|(index, blob)| json!({ "write": BASE64.encode(blob), "deletable": index % 2 == 1 }));
    let written = devnet.sdk(&writes.collect::<Vec<_>>());
    for (written, blob) in written.iter().zip(&blobs) {
        let id = ShardCount::new(20).expect("enough").blob_id(blob).expect("not too large");
        assert_eq!(written["blobId"], id.to_string(), "{written}");
    }
    // Certified on chain: the nodes say so, and a fresh client reads it back. One node may be
    // down.
    devnet.down(3);
    let reads: Vec<_> = written.iter().map(|w| json!({ "read": w["blobId"] })).collect();
    for (read, blob) in devnet.sdk(&reads).iter().zip(&blobs) {
        assert_eq!(read["data"], BASE64.encode(blob), "{read}");
    }
    let status = devnet.sdk(&[json!({ "status": written[0]["blobId"] })]);
    assert_eq!(status[0]["status"]["type"], "permanent", "{}", status[0]);
    assert_eq!(status[0]["status"]["isCertified"], true, "{}", status[0]);
    // Beyond what the code can bear, the SDK says so.
    for index in 0..19 {
        devnet.down(index);
    }
    let read = devnet.sdk(&[reads[1].clone()]);
    assert!(read[0]["error"].is_string(), "{}", read[0]);
}
