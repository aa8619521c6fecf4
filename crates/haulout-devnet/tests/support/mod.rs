//! A committee to test, and a client that knows nothing of this project's own.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use haulout_devnet::storage::{ManualChain, Seats, StorageNodes, even_weights};
use haulout_walrus::committee::Committee;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use redstuff::bcs::Wire;
use redstuff::{BlobId, EncodedBlob, PairIndex, ShardCount};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// What a node answered.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The reason of an error, or the data of a success, as text.
    pub(crate) fn gist(&self) -> String {
        let json = self.json();
        match json.pointer("/error/details/0/reason") {
            Some(reason) => reason.as_str().unwrap().to_owned(),
            None => json.pointer("/success/data").unwrap().to_string(),
        }
    }
}

/// One connection to one node.
pub(crate) enum Client {
    One(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Two(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

/// TLS to a node, refusing every key but `network_public_key`.
pub(crate) async fn tls(
    address: SocketAddr,
    network_public_key: &[u8],
    alpn: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        Arc::new(Pinned { key: network_public_key.to_vec(), provider: provider.clone() });
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::from(address.ip());
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

impl Client {
    pub(crate) async fn http1(address: SocketAddr, key: &[u8]) -> Self {
        let stream = tls(address, key, b"http/1.1").await.unwrap();
        let (send, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self::One(send)
    }

    pub(crate) async fn http2(address: SocketAddr, key: &[u8]) -> Self {
        Self::try_http2(address, key).await.unwrap()
    }

    pub(crate) async fn try_http2(address: SocketAddr, key: &[u8]) -> std::io::Result<Self> {
        let stream = tls(address, key, b"h2").await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (send, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self::Two(send))
    }

    pub(crate) async fn try_send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Got, hyper::Error> {
        let uri = match self {
            Self::One(_) => path.to_owned(),
            Self::Two(_) => format!("https://localhost{path}"),
        };
        let mut request = Request::builder().method(method).uri(uri);
        if matches!(self, Self::One(_)) {
            request = request.header("host", "localhost");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let response = match self {
            Self::One(send) => {
                send.ready().await?;
                send.send_request(request).await?
            }
            Self::Two(send) => {
                send.ready().await?;
                send.send_request(request).await?
            }
        };
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Got { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Got {
        self.try_send(method, path, headers, body).await.expect("an answer")
    }

    pub(crate) async fn get(&mut self, path: &str) -> Got {
        self.send("GET", path, &[], Bytes::new()).await
    }

    pub(crate) async fn put(&mut self, path: &str, body: impl Into<Bytes>) -> Got {
        self.send("PUT", path, &[("content-type", "application/octet-stream")], body).await
    }
}

#[derive(Debug)]
struct Pinned {
    key: Vec<u8>,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The certificate has the point uncompressed: 04, then the coordinate we know.
        let point = [&[4], &self.key[1..]].concat();
        match certificate.windows(point.len()).any(|window| window == point) {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(rustls::Error::General("another key".to_owned())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A running committee with a chain to set by hand.
pub(crate) struct Stage {
    pub(crate) chain: Arc<ManualChain>,
    pub(crate) nodes: StorageNodes,
    pub(crate) committee: Committee,
    pub(crate) n: ShardCount,
    pub(crate) dir: tempfile::TempDir,
}

impl Stage {
    /// `n` shards spread evenly over `count` nodes, epoch 1.
    pub(crate) fn new(n: u16, count: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let n = ShardCount::new(n).unwrap();
        let seats = Seats::take(dir.path(), count).unwrap();
        let committee = seats.committee(1, n, &even_weights(n, count).unwrap()).unwrap();
        let chain = Arc::new(ManualChain::new(committee.clone()));
        let nodes = seats.start(chain.clone()).unwrap();
        Self { chain, nodes, committee, n, dir }
    }

    /// The handle's number of the node at `position` in the committee.
    pub(crate) fn index(&self, position: usize) -> usize {
        let address = self.committee.members[position].address.parse().unwrap();
        (0..self.nodes.len()).find(|&index| self.nodes.address(index) == Some(address)).unwrap()
    }

    pub(crate) async fn client(&self, position: usize) -> Client {
        let member = &self.committee.members[position];
        Client::http2(member.address.parse().unwrap(), &member.network_public_key).await
    }

    pub(crate) async fn clients(&self) -> Vec<Client> {
        let mut clients = Vec::new();
        for position in 0..self.committee.members.len() {
            clients.push(self.client(position).await);
        }
        clients
    }

    /// Stores all slivers of a blob that is registered already.
    pub(crate) async fn upload(&self, encoded: &EncodedBlob) {
        upload(&self.committee, &mut self.clients().await, encoded).await;
    }

    /// Registers, uploads and certifies.
    pub(crate) async fn store(&self, data: &[u8], end_epoch: u32) -> EncodedBlob {
        let encoded = self.n.encode(data.to_vec()).unwrap();
        let id = *encoded.metadata().id();
        self.chain.register(id, id.0, false, end_epoch);
        self.upload(&encoded).await;
        assert!(self.chain.certify(&id, &id.0));
        encoded
    }
}

pub(crate) async fn upload(committee: &Committee, clients: &mut [Client], encoded: &EncodedBlob) {
    let id = *encoded.metadata().id();
    let metadata = encoded.metadata().as_unverified().to_bcs();
    for (position, client) in clients.iter_mut().enumerate() {
        let put = client.put(&format!("/v1/blobs/{id}/metadata"), metadata.clone()).await;
        assert_eq!(put.status, 201, "{put:?}");
        for pair in committee.pairs_of(position, &id) {
            let (primary, secondary) = encoded.pair(pair).unwrap();
            for (body, axis) in [(primary.to_bcs(), "primary"), (secondary.to_bcs(), "secondary")] {
                let put = client.put(&sliver_path(&id, pair, axis), body).await;
                assert_eq!(put.status, 201, "{put:?}");
            }
        }
    }
}

pub(crate) fn sliver_path(id: &BlobId, pair: PairIndex, axis: &str) -> String {
    format!("/v1/blobs/{id}/slivers/{}/{axis}", pair.0)
}

/// Some bytes, always the same for the same seed.
pub(crate) fn bytes(seed: u8, length: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for counter in 0_u32.. {
        if out.len() >= length {
            break;
        }
        let block = [&[seed][..], &counter.to_le_bytes()].concat();
        out.extend_from_slice(ring::digest::digest(&ring::digest::SHA256, &block).as_ref());
    }
    out.truncate(length);
    out
}
