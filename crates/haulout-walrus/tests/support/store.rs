//! A small storage node that stores, and a chain that registers: for writes and for hostile answers.
//! (The real stand-in for nodes is `haulout-devnet`; this one exists to misbehave.)

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use haulout_walrus::{
    BlobName, BlobState, BoxFuture, Certified, ChainError, ChainErrorKind, ChainReader, Committee,
    CommitteeView, ObjectId, Registered, Registrar, Registration,
    bls::SecretKey,
    check_certificate,
    wire::{DOMAIN_STORAGE, Failure, StorageConfirmation, StoredOnNode, Success},
};
use http_body_util::{BodyExt, StreamBody};
use hyper::{Response, body::Frame};
use redstuff::{
    BlobId, Metadata, MetadataWithId, PairIndex, Primary, RecoverySymbols, Secondary, ShardCount,
    ShardIndex, SliverIndex, UnverifiedMetadata, UnverifiedSliver,
    bcs::Wire,
    messages::{
        BlobPersistence, Confirmation, ConfirmationCertificate, ProtocolMessage, SignedMessage,
    },
};

use super::{Asked, Body, Handler, Server, answer};

/// How a node misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    #[default]
    None,
    /// Flips a bit of every sliver.
    FalseSlivers,
    /// Sends metadata with one hash changed.
    FalseMetadata,
    /// Sends the metadata of a network with fewer shards.
    OtherNetwork,
    /// Accepts requests and never answers.
    Silent,
    /// Begins to answer and then trickles.
    Trickle,
    /// Answers errors of a gigabyte.
    HugeErrors,
    /// Answers without end where a sliver is due.
    Endless,
    /// 429 with `Retry-After: 1` to the first requests of every path.
    Busy,
    /// Says that it has none of the shards.
    WrongShard,
    /// Has no slivers.
    Forgetful,
    /// Signs with another key.
    FalseSignature,
    /// Drops every second sliver it is given while saying that it has stored it, once.
    Leaky,
}

/// A node's disk and keys.
pub struct NodeState {
    pub fault: Mutex<Fault>,
    pub key: SecretKey,
    chain: Arc<TestChain>,
    n: ShardCount,
    shards: Vec<ShardIndex>,
    metadata: Mutex<HashMap<BlobId, Bytes>>,
    slivers: Mutex<HashMap<(BlobId, u16, String), Bytes>>,
    pub asked: Mutex<Vec<(String, String)>>,
    leaked: Mutex<usize>,
}

fn json(value: &impl serde::Serialize) -> Response<Body> {
    json_with(200, value)
}

fn json_with(status: u16, value: &impl serde::Serialize) -> Response<Body> {
    answer(status, Some("application/json"), serde_json::to_vec(value).unwrap())
}

fn refuse(code: u16, status: &str, reason: &str) -> Response<Body> {
    json_with(code, &Failure::new(status, code, "as the test wants it", reason, DOMAIN_STORAGE))
}

fn binary(body: impl Into<Bytes>) -> Response<Body> {
    answer(200, Some("application/octet-stream"), body)
}

/// `pieces` times `piece`, with pauses.
fn stream(status: u16, piece: Bytes, pieces: usize, pause: Duration) -> Response<Body> {
    let frames = futures_util::stream::unfold(0, move |at| {
        let piece = piece.clone();
        async move {
            tokio::time::sleep(pause).await;
            (at < pieces).then(|| (Ok(Frame::data(piece)), at + 1))
        }
    });
    let body = StreamBody::new(frames);
    let sync: Body = BodyExt::boxed(SyncBody(Mutex::new(Box::pin(body))));
    Response::builder().status(status).body(sync).unwrap()
}

/// Bodies made of streams are not `Sync`; behind a lock they are.
struct SyncBody<B>(Mutex<std::pin::Pin<Box<B>>>);

impl<B: hyper::body::Body> hyper::body::Body for SyncBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.0.lock().unwrap().as_mut().poll_frame(context)
    }
}

impl NodeState {
    /// Whether the request was seen before, and remembers it.
    fn is_new(&self, asked: &Asked) -> bool {
        let mut seen = self.asked.lock().unwrap();
        let request = (asked.method.clone(), asked.path.clone());
        let new = !seen.contains(&request);
        seen.push(request);
        new
    }

    async fn respond(self: Arc<Self>, asked: Asked) -> Response<Body> {
        let new = self.is_new(&asked);
        let fault = *self.fault.lock().unwrap();
        let sliver = asked.path.contains("/slivers/") && asked.method == "GET";
        match fault {
            Fault::Silent => std::future::pending().await,
            Fault::Trickle if sliver => {
                return stream(200, Bytes::from_static(b"x"), 1000, Duration::from_millis(300));
            }
            Fault::HugeErrors => {
                return stream(500, vec![b'['; 1 << 20].into(), 1024, Duration::ZERO);
            }
            Fault::Endless if sliver => {
                return stream(200, vec![0; 1 << 16].into(), 1 << 14, Duration::ZERO);
            }
            Fault::Busy if new => {
                let mut busy = answer(429, None, "later");
                busy.headers_mut().insert("retry-after", "1".parse().unwrap());
                return busy;
            }
            Fault::WrongShard if sliver => {
                return refuse(400, "FAILED_PRECONDITION", "SHARD_NOT_ASSIGNED");
            }
            Fault::Forgetful if sliver => return refuse(404, "NOT_FOUND", "SLIVER_NOT_FOUND"),
            _ => {}
        }
        let path = asked.path.split('?').next().unwrap().to_owned();
        let parts: Vec<&str> = path.split('/').skip(3).collect();
        let id: BlobId = parts[0].parse().unwrap();
        match (asked.method.as_str(), &parts[1..]) {
            ("GET", ["metadata"]) => self.get_metadata(&id, fault),
            ("PUT", ["metadata"]) => self.put_metadata(id, asked.body),
            ("GET", ["slivers", pair, kind]) => self.get_sliver(id, pair, kind, fault),
            ("GET", ["slivers", pair, kind, "status"]) => {
                let key = (id, pair.parse().unwrap(), (*kind).to_owned());
                json(&Success::new(
                    200,
                    match self.slivers.lock().unwrap().contains_key(&key) {
                        true => StoredOnNode::Stored,
                        false => StoredOnNode::Nonexistent,
                    },
                ))
            }
            ("PUT", ["slivers", pair, kind]) => self.put_sliver(id, pair, kind, asked.body, fault),
            ("GET", ["confirmation", kind @ ..]) => self.confirm(id, kind, fault),
            ("GET", ["recoverySymbols"]) => self.symbols(&id, &asked.path),
            _ => answer(404, None, ""),
        }
    }

    fn get_metadata(&self, id: &BlobId, fault: Fault) -> Response<Body> {
        let Some(body) = self.metadata.lock().unwrap().get(id).cloned() else {
            return refuse(404, "NOT_FOUND", "METADATA_NOT_FOUND");
        };
        let mut metadata = UnverifiedMetadata::from_bcs(&body).unwrap();
        match fault {
            Fault::FalseMetadata => metadata.hashes.swap(0, 1),
            Fault::OtherNetwork => metadata.hashes.truncate(7),
            _ => {}
        }
        binary(MetadataWithId { id: *id, metadata }.to_bcs())
    }

    fn put_metadata(&self, id: BlobId, body: Bytes) -> Response<Body> {
        if !self.chain.is_registered(&id) {
            return refuse(400, "FAILED_PRECONDITION", "NOT_REGISTERED");
        }
        match self.metadata.lock().unwrap().insert(id, body) {
            None => json_with(201, &Success::new(201, "metadata stored")),
            Some(_) => json(&Success::new(200, "metadata already stored")),
        }
    }

    fn get_sliver(&self, id: BlobId, pair: &str, kind: &str, fault: Fault) -> Response<Body> {
        let key = (id, pair.parse().unwrap(), kind.to_owned());
        match self.slivers.lock().unwrap().get(&key) {
            None => refuse(404, "NOT_FOUND", "SLIVER_NOT_FOUND"),
            Some(body) if fault == Fault::FalseSlivers => {
                let mut body = body.to_vec();
                body[3] ^= 1;
                binary(body)
            }
            Some(body) => binary(body.clone()),
        }
    }

    fn put_sliver(
        &self,
        id: BlobId,
        pair: &str,
        kind: &str,
        body: Bytes,
        fault: Fault,
    ) -> Response<Body> {
        if !self.metadata.lock().unwrap().contains_key(&id) {
            return refuse(400, "FAILED_PRECONDITION", "METADATA_NOT_FOUND");
        }
        let pair = PairIndex(pair.parse().unwrap());
        if !self.shards.contains(&pair.shard(self.n, &id).unwrap()) {
            return refuse(400, "FAILED_PRECONDITION", "SHARD_NOT_ASSIGNED");
        }
        let mut leaked = self.leaked.lock().unwrap();
        if fault == Fault::Leaky && *leaked < 2 {
            *leaked += 1;
            return json_with(201, &Success::new(201, "sliver stored successfully"));
        }
        self.slivers.lock().unwrap().insert((id, pair.0, kind.to_owned()), body);
        json_with(201, &Success::new(201, "sliver stored successfully"))
    }

    fn confirm(&self, id: BlobId, kind: &[&str], fault: Fault) -> Response<Body> {
        if !self.chain.is_registered(&id) {
            return refuse(400, "FAILED_PRECONDITION", "NOT_REGISTERED");
        }
        let held = self.slivers.lock().unwrap().keys().filter(|key| key.0 == id).count();
        if held < self.shards.len() * 2 {
            return refuse(400, "FAILED_PRECONDITION", "MISSING_SLIVERS");
        }
        let persistence = match kind {
            ["permanent"] => BlobPersistence::Permanent,
            [_, object] => BlobPersistence::Deletable(object.parse::<ObjectId>().unwrap().0),
            _ => return answer(404, None, ""),
        };
        let epoch = self.chain.view.lock().unwrap().epoch;
        let content = Confirmation { blob: id, persistence };
        let message = ProtocolMessage { epoch, content }.to_bcs();
        let key = match fault {
            Fault::FalseSignature => SecretKey::from_seed(&[99; 32]).unwrap(),
            _ => self.key.clone(),
        };
        let signature = key.sign(&message);
        let signed = SignedMessage { message, signature };
        json(&Success::new(200, StorageConfirmation { signed }))
    }

    fn symbols(&self, id: &BlobId, path: &str) -> Response<Body> {
        let Some(metadata) = self.metadata.lock().unwrap().get(id).cloned() else {
            return refuse(404, "NOT_FOUND", "METADATA_NOT_FOUND");
        };
        let metadata: Metadata =
            UnverifiedMetadata::from_bcs(&metadata).unwrap().verify(self.n, id).unwrap();
        let target = path.split("targetSliver=").nth(1).unwrap().split('&').next().unwrap();
        let target: u16 = target.parse().unwrap();
        let mut list = Vec::new();
        for ((of, _, kind), body) in self.slivers.lock().unwrap().iter() {
            if of != id {
                continue;
            }
            if path.ends_with("primary") && kind == "secondary" {
                let sliver = UnverifiedSliver::<Secondary>::from_bcs(body).unwrap();
                let sliver = sliver.verify(&metadata).unwrap().expand();
                let target = SliverIndex::<Primary>::new(target);
                let symbol = sliver.recovery_symbol(target).unwrap();
                list.push(redstuff::GeneralRecoverySymbol::new(target, symbol));
            }
        }
        binary(RecoverySymbols(list).to_bcs())
    }
}

/// A chain with one committee and whatever is registered.
#[derive(Debug)]
pub struct TestChain {
    pub view: Mutex<CommitteeView>,
    pub blobs: Mutex<HashMap<BlobId, Registered>>,
    pub calls: Mutex<Vec<&'static str>>,
    /// Refuses this many certifications.
    pub refuse: Mutex<usize>,
}

impl TestChain {
    pub fn is_registered(&self, id: &BlobId) -> bool {
        self.blobs.lock().unwrap().contains_key(id)
    }

    pub fn count(&self, call: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|made| **made == call).count()
    }
}

impl ChainReader for TestChain {
    fn committees(&self, _refresh: bool) -> BoxFuture<'_, Result<CommitteeView, ChainError>> {
        Box::pin(async { Ok(self.view.lock().unwrap().clone()) })
    }

    fn blob(&self, _name: BlobName) -> BoxFuture<'_, Result<Option<BlobState>, ChainError>> {
        Box::pin(async { Ok(None) })
    }
}

impl Registrar for TestChain {
    fn existing<'a>(
        &'a self,
        registration: &'a Registration,
    ) -> BoxFuture<'a, Result<Option<Registered>, ChainError>> {
        let found = self.blobs.lock().unwrap().get(&registration.blob).copied();
        self.calls.lock().unwrap().push("existing");
        Box::pin(async move { Ok(found.filter(|found| found.deletable == registration.deletable)) })
    }

    fn register<'a>(
        &'a self,
        registration: &'a Registration,
    ) -> BoxFuture<'a, Result<Registered, ChainError>> {
        self.calls.lock().unwrap().push("register");
        let epoch = self.view.lock().unwrap().epoch;
        let registered = Registered {
            object: ObjectId([7; 32]),
            epoch,
            end_epoch: epoch + registration.epochs,
            deletable: registration.deletable,
            certified_epoch: None,
        };
        self.blobs.lock().unwrap().insert(registration.blob, registered);
        Box::pin(async move { Ok(registered) })
    }

    fn certify<'a>(
        &'a self,
        _object: ObjectId,
        certificate: &'a ConfirmationCertificate,
        bitmap: &'a [u8],
    ) -> BoxFuture<'a, Result<Certified, ChainError>> {
        self.calls.lock().unwrap().push("certify");
        let view = self.view.lock().unwrap().clone();
        let members = u16::try_from(view.current.members.len()).unwrap();
        let named = redstuff::messages::bitmap_signers(bitmap, members).unwrap();
        assert_eq!(named, certificate.signers);
        let mut refuse = self.refuse.lock().unwrap();
        let refused = *refuse > 0;
        *refuse = refuse.saturating_sub(1);
        Box::pin(async move {
            let checked = check_certificate(&view.current, certificate);
            if checked.is_err() || refused {
                return Err(ChainError::new(ChainErrorKind::Refused, "wrong epoch"));
            }
            let id = BlobId(certificate.message[7..39].try_into().unwrap());
            let mut blobs = self.blobs.lock().unwrap();
            match &mut blobs.get_mut(&id).unwrap().certified_epoch {
                certified @ None => *certified = Some(view.epoch),
                // As the contract has it.
                Some(_) => return Err(ChainError::new(ChainErrorKind::Refused, "certified")),
            }
            Ok(Certified { epoch: view.epoch, transaction: "tx".to_owned() })
        })
    }
}

/// A committee of small nodes.
pub struct Fleet {
    pub chain: Arc<TestChain>,
    pub nodes: Vec<Arc<NodeState>>,
    pub servers: Vec<Option<Server>>,
    pub n: ShardCount,
}

impl Fleet {
    /// `count` nodes that share `n` shards.
    pub async fn start(n: u16, count: u16) -> Self {
        let shards = ShardCount::new(n).unwrap();
        let all: Vec<_> = (0..n).map(ShardIndex).collect();
        // A stand-in until the addresses are known.
        let first = haulout_walrus::StorageNode {
            node_id: ObjectId([1; 32]),
            name: String::new(),
            address: "127.0.0.1:1".to_owned(),
            network_public_key: [&[2][..], &[0; 32]].concat(),
            bls_public_key: [0; 48],
            shards: all,
        };
        let committee = Committee::new(1, shards, vec![first]).unwrap();
        let chain = Arc::new(TestChain {
            view: Mutex::new(CommitteeView::steady(committee)),
            blobs: Mutex::default(),
            calls: Mutex::default(),
            refuse: Mutex::default(),
        });
        let (mut nodes, mut servers, mut members) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..count {
            let id = u8::try_from(i + 1).unwrap();
            let mine: Vec<u16> = (0..n).filter(|shard| shard % count == i).collect();
            let key = SecretKey::from_seed(&[id; 32]).unwrap();
            let node = Arc::new(NodeState {
                fault: Mutex::default(),
                key: key.clone(),
                chain: chain.clone(),
                n: shards,
                shards: mine.iter().copied().map(ShardIndex).collect(),
                metadata: Mutex::default(),
                slivers: Mutex::default(),
                asked: Mutex::default(),
                leaked: Mutex::default(),
            });
            let serving = node.clone();
            let handler: Handler = Arc::new(move |asked| Box::pin(serving.clone().respond(asked)));
            let server = Server::start(handler).await;
            members.push(server.node(id, key.public_key().to_bytes(), &mine));
            nodes.push(node);
            servers.push(Some(server));
        }
        let committee = Committee::new(1, shards, members).unwrap();
        *chain.view.lock().unwrap() = CommitteeView::steady(committee);
        Self { chain, nodes, servers, n: shards }
    }

    pub fn set(&self, node: usize, fault: Fault) {
        *self.nodes[node].fault.lock().unwrap() = fault;
    }

    pub fn client(&self) -> haulout_walrus::Client {
        haulout_walrus::Client::new(self.chain.clone())
    }

    /// Puts a blob on all nodes without a client.
    pub fn put(&self, blob: &[u8]) -> BlobId {
        let encoded = self.n.encode(blob.to_vec()).unwrap();
        let id = *encoded.metadata().id();
        let committee = self.chain.view.lock().unwrap().current.clone();
        for (position, node) in self.nodes.iter().enumerate() {
            let body = encoded.metadata().as_unverified().to_bcs();
            node.metadata.lock().unwrap().insert(id, body.into());
            for pair in committee.pairs_of(position, &id) {
                let (primary, secondary) = encoded.pair(pair).unwrap();
                let mut slivers = node.slivers.lock().unwrap();
                slivers.insert((id, pair.0, "primary".to_owned()), primary.to_bcs().into());
                slivers.insert((id, pair.0, "secondary".to_owned()), secondary.to_bcs().into());
            }
        }
        id
    }
}
