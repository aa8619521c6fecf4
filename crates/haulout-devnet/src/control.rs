//! Commands to a running network, over plain HTTP on loopback: what the tests of other
//! processes, and `haulout devnet fault`, use.
//!
//! | request | effect |
//! | --- | --- |
//! | `GET /` | the state of everything, as JSON |
//! | `PUT /nodes/{i}/faults` | sets the faults of a node; the body is the JSON of [`Faults`] |
//! | `PUT /full-node/faults` | sets the faults of the full node; the body is the JSON of [`FaultState`] |
//! | `POST /epoch` | the next Walrus epoch: shards move |
//! | `POST /sui-epoch` | the next epoch of Sui: other validators |
//! | `POST /blobs/{id}/heal` | every node gets its slivers of a blob |
//! | `POST /fund/{address}` | gives an account SUI and WAL |

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use redstuff::BlobId;
use serde::{Deserialize, Serialize};
use sui_sdk_types::Address;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};

use crate::storage::{Faults, NodeChain, StorageNodes};
use crate::sui::{Devnet, FaultState, Faults as FullNodeFaults, FullNodeError};

/// Longest body of a command, in bytes.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Connections at a time.
const CONNECTIONS_MAX: usize = 32;

/// How long the head of a request may take.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);

/// MIST and FROST that `POST /fund/…` gives.
const FUND_MIST: u64 = 10_000_000_000;
const FUND_FROST: u64 = 1_000_000_000_000;

/// The state of a network: the answer to `GET /`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The Walrus epoch.
    pub epoch: u32,
    /// The number of shards.
    pub shards: u16,
    /// Number of the chain's latest checkpoint.
    pub checkpoint: u64,
    /// Sui's epoch.
    pub sui_epoch: u64,
    /// What is wrong with the full node.
    pub full_node: FaultState,
    /// Bytes of bodies that all storage nodes together have sent.
    pub bytes_sent: u64,
    /// The storage nodes.
    pub nodes: Vec<NodeState>,
}

/// One storage node in [`State`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Its number.
    pub index: usize,
    /// Where it listens.
    pub address: SocketAddr,
    /// How many shards it has.
    pub shards: usize,
    /// What is wrong with it.
    pub faults: Faults,
}

/// What commands act on.
#[derive(Debug, Clone)]
pub(crate) struct Commands {
    pub(crate) nodes: Arc<StorageNodes>,
    pub(crate) chain: Devnet,
    pub(crate) full_node: FullNodeFaults,
    pub(crate) changing: Arc<Mutex<()>>,
}

/// The port commands come in at.
#[derive(Debug)]
pub(crate) struct Control {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Control {
    pub(crate) async fn serve(address: SocketAddr, commands: Commands) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { address, task: tokio::spawn(accept(listener, commands)) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more commands; what they held is free when this returns.
    pub(crate) async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn accept(listener: TcpListener, commands: Commands) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            continue;
        }
        let commands = commands.clone();
        connections.spawn(async move {
            let service = hyper::service::service_fn(|request| {
                let commands = commands.clone();
                async move { Ok::<_, Infallible>(commands.answer(request).await) }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX);
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Status and text of what cannot be done.
type Refused = (StatusCode, String);

fn bad(text: impl ToString) -> Refused {
    (StatusCode::BAD_REQUEST, text.to_string())
}

impl Commands {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, body) = match self.command(request).await {
            Ok(body) => (StatusCode::OK, body),
            Err((status, text)) => (status, serde_json::json!({ "error": text })),
        };
        let mut response = Response::new(Full::from(format!("{body}\n")));
        *response.status_mut() = status;
        let json = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }

    async fn command(&self, request: Request<Incoming>) -> Result<serde_json::Value, Refused> {
        let (parts, body) = request.into_parts();
        let segments: Vec<&str> = parts.uri.path().split('/').skip(1).collect();
        match (&parts.method, segments.as_slice()) {
            (&Method::GET, [""]) => serde_json::to_value(self.state()).map_err(bad),
            (&Method::PUT, ["nodes", index, "faults"]) => {
                let index = index.parse().map_err(bad)?;
                let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(bad)?;
                let faults: Faults = serde_json::from_slice(&body.to_bytes()).map_err(bad)?;
                match self.nodes.set_faults(index, faults).await {
                    true => Ok(serde_json::json!({})),
                    false => Err((StatusCode::NOT_FOUND, format!("there is no node {index}"))),
                }
            }
            (&Method::POST, ["epoch"]) => {
                let next = next_epoch(&self.chain, &self.nodes, &self.changing).await;
                Ok(serde_json::json!({ "epoch": next.map_err(bad)? }))
            }
            (&Method::PUT, ["full-node", "faults"]) => {
                let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(bad)?;
                let faults: FaultState = serde_json::from_slice(&body.to_bytes()).map_err(bad)?;
                self.full_node.set(|state| *state = faults);
                Ok(serde_json::json!({}))
            }
            (&Method::POST, ["sui-epoch"]) => {
                self.chain.end_sui_epoch();
                Ok(serde_json::json!({ "sui_epoch": self.chain.sui_epoch() }))
            }
            (&Method::POST, ["blobs", id, "heal"]) => {
                let id: BlobId = id.parse().map_err(bad)?;
                self.nodes.heal(&id).await.map_err(bad)?;
                Ok(serde_json::json!({}))
            }
            (&Method::POST, ["fund", address]) => {
                let address: Address = address.parse().map_err(bad)?;
                self.chain.fund(address, FUND_MIST, FUND_FROST).map_err(bad)?;
                Ok(serde_json::json!({}))
            }
            _ => Err((StatusCode::NOT_FOUND, "there is no such command".to_owned())),
        }
    }

    fn state(&self) -> State {
        let node = |index| {
            Some(NodeState {
                index,
                address: self.nodes.address(index)?,
                shards: self.nodes.shards(index).len(),
                faults: self.nodes.faults(index)?,
            })
        };
        State {
            epoch: self.chain.epoch(),
            shards: self.chain.committee().n_shards.get(),
            checkpoint: self.chain.height(),
            sui_epoch: self.chain.sui_epoch(),
            full_node: self.full_node.get(),
            bytes_sent: self.nodes.bytes_sent(),
            nodes: (0..self.nodes.len()).filter_map(node).collect(),
        }
    }
}

/// Begins the next Walrus epoch, lets the shards move, and finishes the change.
pub(crate) async fn next_epoch(
    chain: &Devnet,
    nodes: &StorageNodes,
    changing: &Mutex<()>,
) -> Result<u32, FullNodeError> {
    let _one_at_a_time = changing.lock().await;
    chain.begin_walrus_epoch()?;
    nodes.settled().await;
    chain.finish_walrus_epoch()?;
    Ok(chain.epoch())
}
