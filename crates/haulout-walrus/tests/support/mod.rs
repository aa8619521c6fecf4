//! A storage node's outside, for tests: real TLS with a pinned key, real HTTP/2, any answers.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "test support")]

pub mod recorded;
pub mod store;

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use haulout_walrus::{Committee, ObjectId, StorageNode};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use redstuff::{ShardCount, ShardIndex};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A request, taken apart.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub body: Bytes,
}

pub type Body = BoxBody<Bytes, Infallible>;
pub type Handler = Arc<dyn Fn(Asked) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// An answer of the given kind.
pub fn answer(status: u16, kind: Option<&str>, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::builder().status(status);
    if let Some(kind) = kind {
        response = response.header("content-type", kind);
    }
    response.body(Full::new(body.into()).boxed()).unwrap()
}

/// A P-256 key with a certificate for it.
pub struct Identity {
    config: Arc<rustls::ServerConfig>,
    /// Compressed public key.
    pub public: Vec<u8>,
}

impl Identity {
    pub fn generate() -> Self {
        Self::with_protocols(&[b"h2"])
    }

    pub fn with_protocols(protocols: &[&[u8]]) -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let names = vec!["0.network.walrus.alt".to_owned()];
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let point = key.public_key_raw();
        let mut public = vec![2 | (point[64] & 1)];
        public.extend_from_slice(&point[1..33]);
        let secret = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], secret.into())
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Self { config: Arc::new(config), public }
    }
}

/// A server on loopback, until it is dropped.
pub struct Server {
    pub address: String,
    pub public: Vec<u8>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub async fn start(handler: Handler) -> Self {
        Self::start_as(&Identity::generate(), handler).await
    }

    pub async fn start_as(identity: &Identity, handler: Handler) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let acceptor = TlsAcceptor::from(identity.config.clone());
        let task = tokio::spawn(async move {
            // Connections end with the server: a node that dies takes them along.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (acceptor, handler) = (acceptor.clone(), handler.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let serve = service_fn(move |request| respond(handler.clone(), request));
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), serve)
                        .await;
                });
            }
        });
        Self { address, public: identity.public.clone(), task }
    }

    /// A member of a committee that is this server.
    pub fn node(&self, id: u8, bls: [u8; 48], shards: &[u16]) -> StorageNode {
        StorageNode {
            node_id: ObjectId([id; 32]),
            name: format!("node {id}"),
            address: self.address.clone(),
            network_public_key: self.public.clone(),
            bls_public_key: bls,
            shards: shards.iter().copied().map(ShardIndex).collect(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn respond(
    handler: Handler,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Ok(handler(Asked { method: head.method.to_string(), path, body }).await)
}

/// One server for each handler; shards are dealt round.
pub async fn committee(n: u16, handlers: Vec<Handler>) -> (Vec<Server>, Committee) {
    let mut servers = Vec::new();
    for handler in handlers {
        servers.push(Server::start(handler).await);
    }
    let count = u16::try_from(servers.len()).unwrap();
    let members = servers.iter().zip(0..count).map(|(server, i)| {
        let shards: Vec<_> = (0..n).filter(|shard| shard % count == i).collect();
        server.node(u8::try_from(i + 1).unwrap(), [0; 48], &shards)
    });
    let members = members.collect();
    let committee = Committee::new(1, ShardCount::new(n).unwrap(), members).unwrap();
    (servers, committee)
}
