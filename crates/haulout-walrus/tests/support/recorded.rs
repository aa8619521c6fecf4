//! What real storage nodes answered, and servers that answer it again.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use data_encoding::BASE64;
use haulout_walrus::{Committee, ObjectId, StorageNode};
use redstuff::{BlobId, ShardCount, ShardIndex};
use serde::Deserialize;

use super::{Asked, Handler, Server, answer};

#[derive(Debug, Deserialize)]
pub struct Recording {
    pub n_shards: u16,
    pub epoch: u32,
    pub nodes: Vec<RecordedNode>,
    pub blobs: Vec<RecordedBlob>,
    pub quilt: RecordedQuilt,
    pub cases: Vec<Case>,
    #[serde(skip)]
    pub bodies: Bytes,
}

#[derive(Debug, Deserialize)]
pub struct RecordedNode {
    pub node_id: ObjectId,
    pub network_public_key: String,
    pub bls_public_key: String,
    pub shards: Vec<u16>,
    pub certificate: (usize, usize),
}

#[derive(Debug, Deserialize)]
pub struct RecordedBlob {
    pub name: String,
    pub length: usize,
    pub id: BlobId,
    pub object: ObjectId,
    pub deletable: bool,
}

#[derive(Debug, Deserialize)]
pub struct RecordedQuilt {
    pub id: BlobId,
    pub length: usize,
    pub files: Vec<(String, String)>,
}

#[derive(Debug, Deserialize)]
pub struct Case {
    pub name: String,
    pub node: usize,
    pub method: String,
    pub path: String,
    pub status: u16,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    #[serde(default)]
    pub body: (usize, usize),
    #[serde(default)]
    pub sent: Option<(usize, usize)>,
}

impl Recording {
    /// The fixture, or another directory of the same form.
    pub fn load() -> Self {
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
        let place = std::env::var("HAULOUT_WALRUS_RECORDING").unwrap_or_else(|_| here.to_owned());
        Self::read(&format!("{place}/exchanges"))
    }

    /// The one of 1,000 shards.
    pub fn of_thousand() -> Self {
        Self::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/exchanges-1000"))
    }

    fn read(path: &str) -> Self {
        let index = std::fs::read(format!("{path}.json")).unwrap();
        let mut recording: Self = serde_json::from_slice(&index).unwrap();
        recording.bodies = std::fs::read(format!("{path}.bin")).unwrap().into();
        recording
    }

    pub fn part(&self, (offset, length): (usize, usize)) -> Bytes {
        self.bodies.slice(offset..offset + length)
    }

    pub fn blob(&self, name: &str) -> &RecordedBlob {
        self.blobs.iter().find(|blob| blob.name == name).unwrap()
    }

    pub fn shards(&self) -> ShardCount {
        ShardCount::new(self.n_shards).unwrap()
    }

    /// A handler that answers what node `index` answered, to the same requests.
    pub fn handler(&self, index: usize) -> Handler {
        let key = |case: &Case| (case.method.clone(), case.path.clone());
        let answers: HashMap<_, _> = self
            .cases
            .iter()
            .filter(|case| case.node == index)
            .map(|case| (key(case), (case.status, case.kind.clone(), self.part(case.body))))
            .collect();
        let answers = Arc::new(answers);
        Arc::new(move |asked: Asked| {
            let answers = answers.clone();
            Box::pin(async move {
                match answers.get(&(asked.method, asked.path)) {
                    Some((status, kind, body)) => answer(*status, kind.as_deref(), body.clone()),
                    None => answer(404, None, ""),
                }
            })
        })
    }

    /// Servers for all nodes, and the committee they make: as recorded, but for addresses and
    /// network keys. `replaced` gives other handlers by node.
    pub async fn serve(&self, replaced: &HashMap<usize, Option<Handler>>) -> Replay {
        let mut servers = Vec::new();
        let mut members = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let handler = match replaced.get(&index) {
                Some(other) => other.clone(),
                None => Some(self.handler(index)),
            };
            // A node without a handler is one that is down.
            let server =
                Server::start(handler.clone().unwrap_or_else(|| self.handler(index))).await;
            let bls = BASE64.decode(node.bls_public_key.as_bytes()).unwrap().try_into().unwrap();
            let mut member: StorageNode = server.node(0, bls, &node.shards);
            member.node_id = node.node_id;
            members.push((index, member));
            servers.push(handler.map(|_| server));
        }
        members.sort_by_key(|(_, member)| member.node_id);
        let positions = members.iter().map(|(index, _)| *index).collect();
        let members = members.into_iter().map(|(_, member)| member).collect();
        let committee = Committee::new(self.epoch, self.shards(), members).unwrap();
        Replay { servers, committee, positions }
    }
}

/// Running servers. `positions[p]` is the recorded number of committee member `p`.
pub struct Replay {
    pub servers: Vec<Option<Server>>,
    pub committee: Committee,
    pub positions: Vec<usize>,
}

impl RecordedNode {
    pub fn shard_indices(&self) -> Vec<ShardIndex> {
        self.shards.iter().copied().map(ShardIndex).collect()
    }
}

/// The bytes behind a name: SHA-256 of a counter, cut to the length.
pub fn plaintext(name: &str, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 32);
    let mut counter = 0u32;
    while bytes.len() < length {
        let mut input = b"haulout-fixture/".to_vec();
        input.extend_from_slice(name.as_bytes());
        input.extend_from_slice(&counter.to_le_bytes());
        bytes.extend_from_slice(ring::digest::digest(&ring::digest::SHA256, &input).as_ref());
        counter += 1;
    }
    bytes.truncate(length);
    bytes
}
